import { setTimeout as sleep } from 'node:timers/promises'
import * as z from 'zod/mini'
import { type DomainFacts, domainAt } from '../../lib/host/libvirt.ts'
import type { Action } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { Duration, described, InstanceName, Uuid, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** A guest that runs now may be one that just ends: it is looked at twice. */
async function settled(uri: string, name: string): Promise<DomainFacts | undefined> {
  const domain = await domainAt(uri, name)
  if (domain?.state !== 'running') return domain
  await sleep(500)
  return domainAt(uri, name)
}

export const awaitDomain = defineStep({
  name: 'await-domain',
  summary: 'Wait until the guest is seen running, and stays so',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      'start-timeout': withDefault(Duration, '60s', 'how long until it has to be seen running'),
    }),
  inspect: async ({ uri, name }) => ({ domain: await settled(uri, name) }),
  plan({ uri, name, uuid, 'start-timeout': seconds }, { domain }): Action[] {
    if (!domain)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot wait for domain "${name}": libvirt does not know it`,
        'define it: cowhand step replace-domain',
      )
    if (domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot wait for domain "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    return domain.state === 'running' ? [] : [{ do: 'await', uri, name, uuid, seconds }]
  },
})
