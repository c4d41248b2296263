import * as z from 'zod/mini'
import { essenceOf } from '../../lib/host/domain-move.ts'
import { textAt } from '../../lib/host/files.ts'
import { answer, domainAt, isOff, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, InstanceName, optional, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const replaceDomain = defineStep({
  name: 'replace-domain',
  summary: 'Have libvirt know the domain as its definition says, also what its disks stand on',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain: another one of this name is left alone'),
      xml: described(AbsolutePath, 'its definition'),
      autostart: optional(z.boolean(), 'whether it starts with the host [as it is]'),
    }),
  inspect: async ({ uri, name, xml }, _, ahead) => {
    const [domain, text] = [await domainAt(uri, name), textAt(xml)]
    return {
      domain,
      isWritten: ahead.has(xml) || text !== undefined,
      // libvirt adds defaults to what it is given, so not every word is compared.
      isSame:
        domain !== undefined &&
        text !== undefined &&
        essenceOf(await answer(uri, ['dumpxml', domain.uuid, '--inactive'])) === essenceOf(text),
    }
  },
  plan({ uri, name, uuid, xml, autostart }, { domain, isWritten, isSame }): Action[] {
    if (domain && domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot define domain "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    if (!isWritten)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot define domain "${name}": there is no "${xml}"`,
        'make it: cowhand step write-domain',
      )
    // Its guest would go on with the disks that it has, and nobody could tell by the definition.
    if (!isSame && domain && !isOff(domain))
      refuse(
        'IN_USE',
        `Cannot define domain "${name}" anew: its guest is ${domain.state}`,
        `switch it off: cowhand step shutdown-domain`,
      )
    const actions = isSame ? [] : [run(virsh(uri, 'define', xml), `define domain "${name}"`)]
    if (autostart === undefined || autostart === (domain?.autostart ?? false)) return actions
    const words = autostart ? ['autostart', uuid] : ['autostart', '--disable', uuid]
    return [...actions, run(virsh(uri, ...words), `change whether domain "${name}" starts with the host`)]
  },
})
