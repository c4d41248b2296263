import * as z from 'zod/mini'
import { domainXml } from '../../lib/host/domain.ts'
import { ownFileAt, ownNamesIn, readOperatorsFile, textAt } from '../../lib/host/files.ts'
import { pinsOf } from '../../lib/host/pins.ts'
import type { Action } from '../../lib/job/action.ts'
import { type DiskName, diskNames } from '../../lib/job/layout.ts'
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

/** The base that a disk stands on, or is going to. */
const Base = z.string().check(
  z.refine((pair) => {
    const [file, path] = split(pair)
    return diskNames.includes(file as DiskName) && AbsolutePath.safeParse(path).success
  }, 'is not FILE=PATH, such as disk=/var/lib/cowhand/instances/_base/NAME'),
)

function split(pair: string): [before: string, after: string] {
  const at = pair.indexOf('=')
  return [pair.slice(0, at), pair.slice(at + 1)]
}

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
      bases: withDefault(z.array(Base), [], 'file and base of each disk that stands on one, such as disk=/PATH'),
      seed: withDefault(z.boolean(), false, 'attach disk.config as a CD'),
      memory: optional(Bytes, 'memory of the guest'),
      vcpus: optional(z.int().check(z.positive('is not more than 0')), 'processors of the guest'),
      network: optional(z.string(), 'libvirt network, bridge:NAME, or none'),
      'os-type': withDefault(OsType, 'linux', 'operating system of the guest'),
      xml: optional(FilePath, 'definition to put the disks into; all else in it stays as it is'),
    }),
  inspect: async ({ directory, xml }, { virt_type }, ahead) => ({
    directory: ahead.has(directory) || ownNamesIn(directory) !== undefined,
    isWritten: textAt(`${directory}/libvirt.xml`) !== undefined,
    // QEMU's own log daemon writes to it, as root.
    hasConsole: ownFileAt(`${directory}/console.log`) !== undefined,
    formatOf: await pinsOf(directory),
    editDomain: xml === undefined ? undefined : (await import('../../lib/host/domain-xml.ts')).editDomain,
    template: xml === undefined ? undefined : readOperatorsFile(xml),
    virtType: virt_type,
  }),
  plan(
    { directory, xml: _, ...wish },
    { directory: isThere, isWritten, hasConsole, formatOf, editDomain, template, virtType },
  ): Action[] {
    const actions: Action[] = isThere ? [] : [{ do: 'mkdir', path: directory, mode: 0o755 }]
    // Once written it is the operator's: it is made whole or not at all, so there is nothing to mend in it.
    if (!isWritten) {
      const bases = new Map(wish.bases.map(split))
      const disks = wish.disks.map((pair) => {
        const [file, target] = split(pair)
        // What nobody has pinned yet is one of ours, and going to be an overlay.
        const format = formatOf(file as DiskName) === 'raw' ? ('raw' as const) : ('qcow2' as const)
        return { path: `${directory}/${file}`, target, format, base: format === 'raw' ? undefined : bases.get(file) }
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
