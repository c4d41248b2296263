import * as z from 'zod/mini'
import { interrupt } from '../../lib/host/interrupt.ts'
import { domainAt, hasEnded, virsh } from '../../lib/host/libvirt.ts'
import { letItGo } from '../../lib/host/power.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { described, InstanceName } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const startDomain = defineStep({
  name: 'start-domain',
  summary: 'Start the guest',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
    }),
  inspect: async ({ uri, name }) => {
    await letItGo(uri, name, interrupt.signal)
    return domainAt(uri, name)
  },
  plan({ uri, name }, domain): Action[] {
    if (!domain)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot start domain "${name}": libvirt does not know it`,
        'define it: cowhand step define-domain',
      )
    // A guest that is paused, or stopping by itself, was made so by somebody.
    return hasEnded(domain) ? [run(virsh(uri, 'start', domain.uuid), `start domain "${name}"`)] : []
  },
})
