import * as z from 'zod/mini'
import { domainAt, isOff, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { described, InstanceName, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const stopDomain = defineStep({
  name: 'stop-domain',
  summary: 'Switch the guest off at once, as by pulling the plug',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain: another one of this name is left alone'),
    }),
  inspect: ({ uri, name }) => domainAt(uri, name),
  plan({ uri, name, uuid }, domain): Action[] {
    if (!domain || isOff(domain)) return []
    if (domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot stop domain "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    return [run(virsh(uri, 'destroy', uuid), `stop domain "${name}"`)]
  },
})
