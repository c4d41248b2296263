import * as z from 'zod/mini'
import { domainXml } from '../../lib/host/domain.ts'
import { fileAt, namesIn, readOperatorsFile, textAt } from '../../lib/host/files.ts'
import type { Action } from '../../lib/job/action.ts'
import { diskNames } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import {
  AbsolutePath,
  Bytes,
  described,
  FilePath,
  InstanceName,
  OsType,
  optional,
  Uuid,
  withDefault,
} from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const Device = z.templateLiteral(
  [z.enum(diskNames), '=', z.enum(['vda', 'vdb', 'vdc'])],
  'is not FILE=DEVICE, such as disk=vda',
)

export const writeDomain = defineStep({
  name: 'write-domain',
  summary: "Write the domain's definition (libvirt.xml) and an empty console.log",
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory"),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      disks: described(z.array(Device), 'file and device of each disk, such as disk=vda'),
      seed: withDefault(z.boolean(), false, 'attach disk.config as a CD'),
      memory: optional(Bytes, 'memory of the guest'),
      vcpus: optional(z.int().check(z.positive('is not more than 0')), 'processors of the guest'),
      network: optional(z.string(), 'libvirt network, bridge:NAME, or none'),
      'os-type': withDefault(OsType, 'linux', 'operating system of the guest'),
      xml: optional(FilePath, 'definition to put the disks into; all else in it stays as it is'),
    }),
  inspect: async ({ directory, xml }, { virt_type }, ahead) => ({
    directory: ahead.has(directory) || namesIn(directory) !== undefined,
    isWritten: textAt(`${directory}/libvirt.xml`) !== undefined,
    hasConsole: fileAt(`${directory}/console.log`) !== undefined,
    editDomain: xml === undefined ? undefined : (await import('../../lib/host/domain-xml.ts')).editDomain,
    template: xml === undefined ? undefined : readOperatorsFile(xml),
    virtType: virt_type,
  }),
  plan(
    { directory, xml: _, ...wish },
    { directory: isThere, isWritten, hasConsole, editDomain, template, virtType },
  ): Action[] {
    const actions: Action[] = isThere ? [] : [{ do: 'mkdir', path: directory, mode: 0o755 }]
    // Once written it is the operator's: it is made whole or not at all, so there is nothing to mend in it.
    if (!isWritten) {
      const disks = wish.disks.map((pair) => {
        const [file = '', target = ''] = pair.split('=')
        return { path: `${directory}/${file}`, target }
      })
      if (disks.length === 0)
        misuse(`Cannot write the domain of "${wish.name}": it has no disks`, 'name them: --disks disk=vda')
      const domain = { ...wish, disks, virtType, directory, seed: wish.seed ? `${directory}/disk.config` : undefined }
      const text = editDomain && template !== undefined ? editDomain(template, domain) : domainXml(domain)
      actions.push({ do: 'write', path: `${directory}/libvirt.xml`, text, mode: 0o600 })
    }
    if (!hasConsole) actions.push({ do: 'write', path: `${directory}/console.log`, text: '', mode: 0o660 })
    return actions
  },
})
