import * as z from 'zod/mini'
import { domainAt, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { described, InstanceName, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const undefineDomain = defineStep({
  name: 'undefine-domain',
  summary: 'Make libvirt forget the domain; its disks stay',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain: another one of this name is left alone'),
    }),
  inspect: ({ uri, name }) => domainAt(uri, name),
  plan({ uri, name, uuid }, domain): Action[] {
    if (domain?.uuid !== uuid) return []
    return [
      run(
        virsh(uri, 'undefine', '--nvram', '--managed-save', '--snapshots-metadata', uuid),
        `undefine domain "${name}"`,
      ),
    ]
  },
})
