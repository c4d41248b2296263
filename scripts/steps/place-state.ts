import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { stateIn } from '../../lib/host/domain-move.ts'
import { ownNamesIn, requireNoLink, stateAt, textAt } from '../../lib/host/files.ts'
import { domainAt, isOff } from '../../lib/host/libvirt.ts'
import type { Action } from '../../lib/job/action.ts'
import { swtpmOf, tpmFiles } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, InstanceName, optional, Uuid, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** One file of the state, and where libvirt looks for it. */
interface Placed {
  file: string
  to: string
  bytes: Buffer
}

export const placeState = defineStep({
  name: 'place-state',
  summary: "Give libvirt what the guest's UEFI and TPM remember, out of the instance's directory",
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      directory: described(AbsolutePath, "the instance's directory"),
      xml: optional(AbsolutePath, 'its definition [definition.xml in there, else libvirt.xml]'),
      stays: withDefault(z.boolean(), false, 'it is left there as well: another host goes back to it'),
    }),
  inspect: async ({ uri, name, uuid, directory, xml, stays }) => {
    const definition = xml ? textAt(xml) : (textAt(`${directory}/definition.xml`) ?? textAt(`${directory}/libvirt.xml`))
    const { nvram, tpm } = definition === undefined ? {} : stateIn(definition, name)
    const names = tpm ? (ownNamesIn(`${directory}/tpm`) ?? []) : []
    const wanted: [file: string, to: string][] = [
      ...(nvram === undefined ? [] : [['nvram.fd', nvram] as [string, string]]),
      ...Object.entries(tpmFiles)
        .filter(([file]) => names.includes(file))
        .map(([file, version]): [string, string] => [`tpm/${file}`, `${swtpmOf(uuid)}/${version}/${file}`]),
    ]
    const placed = wanted.flatMap(([file, to]): Placed[] => {
      const bytes = to === `${directory}/${file}` ? undefined : stateAt(`${directory}/${file}`)
      return bytes && !(stays && stateAt(to)?.equals(bytes)) ? [{ file, to, bytes }] : []
    })
    // QEMU and swtpm write there: no link of their making is followed.
    for (const { to } of placed) requireNoLink(dirname(to))
    return {
      placed,
      isEmptied: names.length > 0 && names.every((name) => name in tpmFiles),
      domain: placed.length > 0 ? await domainAt(uri, name) : undefined,
    }
  },
  plan({ uri, name, uuid, directory, stays }, { placed, isEmptied, domain }): Action[] {
    if (placed.length === 0) return []
    // It is placed before libvirt knows the domain, and changes there since.
    if (stays && domain?.uuid === uuid) return []
    if (domain && domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot place the state of "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    if (domain && !isOff(domain))
      refuse(
        'IN_USE',
        `Cannot place the state of "${name}": its guest is ${domain.state}`,
        'switch it off: cowhand step shutdown-domain',
      )
    const version = placed.map(({ to }) => dirname(to)).find((path) => path.startsWith(`${swtpmOf(uuid)}/`))
    return [
      // As libvirt makes them. When the guest starts, it gives all of it to the users that QEMU and swtpm run as.
      ...(version
        ? [
            { do: 'mkdir', path: swtpmOf(uuid), mode: 0o711 } as const,
            { do: 'mkdir', path: version, mode: 0o700 } as const,
          ]
        : []),
      ...placed.map(({ to, bytes }): Action => ({ do: 'write', path: to, text: bytes, mode: 0o600 })),
      // It is in its place, and changes there from now on: what is here would be old the next time somebody looks.
      ...(stays ? [] : placed.map(({ file }): Action => ({ do: 'remove', path: `${directory}/${file}` }))),
      ...(isEmptied && !stays ? [{ do: 'rmdir', path: `${directory}/tpm` } as const] : []),
    ]
  },
})
