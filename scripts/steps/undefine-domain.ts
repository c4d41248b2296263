import { z } from 'zod'
import { domainAt, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { InstanceName } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const undefineDomain = defineStep({
  name: 'undefine-domain',
  summary: 'Make libvirt forget the domain; its disks stay',
  input: () =>
    z.strictObject({
      uri: z.string().describe('libvirt, such as qemu:///system'),
      name: InstanceName,
      uuid: z.uuid().describe('of the domain: another one of this name is left alone'),
    }),
  inspect: ({ uri, name }) => domainAt(uri, name),
  plan({ uri, uuid }, domain): Action[] {
    if (domain?.uuid !== uuid) return []
    return [
      run(virsh(uri, 'undefine', '--nvram', '--managed-save', '--snapshots-metadata', uuid), 'make libvirt forget it'),
    ]
  },
})
