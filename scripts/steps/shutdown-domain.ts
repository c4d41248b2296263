import * as z from 'zod/mini'
import { domainAt, isOff } from '../../lib/host/libvirt.ts'
import type { Action } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { Duration, described, InstanceName, Uuid, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** What wakes a guest that cannot hear its power button. */
const wakes: Record<string, string> = { paused: 'resume', pmsuspended: 'dompmwakeup' }

export const shutdownDomain = defineStep({
  name: 'shutdown-domain',
  summary: 'Switch the guest off: by its power button, and when that takes too long by pulling the plug',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain: another one of this name is left alone'),
      'shutdown-timeout': withDefault(Duration, '60s', 'how long it may take to switch itself off; 0: at once'),
    }),
  inspect: async ({ uri, name }) => ({ domain: await domainAt(uri, name) }),
  plan({ uri, name, uuid, 'shutdown-timeout': seconds }, { domain }): Action[] {
    if (!domain || isOff(domain)) return []
    if (domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot switch domain "${name}" off: libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    // It would sleep until its time is over, and then lose what it has not written yet: that is for people to decide.
    const wake = wakes[domain.state]
    if (wake && seconds > 0)
      refuse(
        'UNSUPPORTED',
        `Cannot switch "${name}" off: it is ${domain.state}, so it cannot hear its power button`,
        `wake it: virsh -c ${uri} ${wake} ${name}; or pull the plug: --shutdown-timeout 0`,
      )
    return [{ do: 'power-off', uri, name, uuid, seconds }]
  },
})
