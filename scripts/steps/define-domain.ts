import * as z from 'zod/mini'
import { textAt } from '../../lib/host/files.ts'
import { domainAt, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, InstanceName, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const defineDomain = defineStep({
  name: 'define-domain',
  summary: 'Make the domain known to libvirt',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      xml: described(AbsolutePath, 'its definition'),
    }),
  inspect: async ({ uri, name, xml }, _, ahead) => ({
    domain: await domainAt(uri, name),
    isWritten: ahead.has(xml) || textAt(xml) !== undefined,
  }),
  plan({ uri, name, uuid, xml }, { domain, isWritten }): Action[] {
    if (domain?.uuid === uuid) return []
    if (domain)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot define domain "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `choose another name, or look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    if (!isWritten)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot define domain "${name}": there is no "${xml}"`,
        'make it: cowhand step write-domain',
      )
    return [run(virsh(uri, 'define', xml), `define domain "${name}"`)]
  },
})
