import * as z from 'zod/mini'
import { stateIn } from '../../lib/host/domain-move.ts'
import { ownNamesIn, requireNoLink, stateAt } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import { answer, domainAt, isOff } from '../../lib/host/libvirt.ts'
import type { Action } from '../../lib/job/action.ts'
import { swtpmOf, tpmFiles } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, InstanceName, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** What there is to keep, and what it is called in the instance's directory. */
async function stateOf(uri: string, name: string, uuid: string): Promise<Map<string, Buffer>> {
  const xml = await answer(uri, ['dumpxml', uuid, '--inactive', '--security-info'])
  const { nvram, tpm } = stateIn(xml, name)
  const variables = nvram === undefined ? undefined : stateAt(nvram)
  const state = new Map<string, Buffer>([['definition.xml', Buffer.from(xml)]])
  if (variables) state.set('nvram.fd', variables)
  if (!tpm) return state
  for (const [file, version] of Object.entries(tpmFiles)) {
    // swtpm, which may be in a guest's hands, writes there: no link of its making is followed.
    requireNoLink(`${swtpmOf(uuid)}/${version}`)
    const remembered = stateAt(`${swtpmOf(uuid)}/${version}/${file}`)
    if (remembered) state.set(`tpm/${file}`, remembered)
  }
  return state
}

export const collectState = defineStep({
  name: 'collect-state',
  summary: "Keep what libvirt alone has of an instance that is off: definition, UEFI's variables, state of its TPM",
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      directory: described(AbsolutePath, "the instance's directory, also NAME_resize"),
    }),
  inspect: async ({ uri, name, uuid, directory }) => {
    const domain = await domainAt(uri, name)
    const tpm = ownNamesIn(`${directory}/tpm`)
    const names = ['definition.xml', 'nvram.fd', ...Object.keys(tpmFiles).map((file) => `tpm/${file}`)]
    return {
      domain,
      phase: instanceAt(directory)?.task?.phase,
      state: domain?.uuid === uuid && isOff(domain) ? await stateOf(uri, name, uuid) : undefined,
      hasTpm: tpm !== undefined,
      kept: new Map(
        names.flatMap((file) => {
          const bytes = stateAt(`${directory}/${file}`)
          return bytes ? [[file, bytes] as const] : []
        }),
      ),
    }
  },
  plan({ uri, name, uuid, directory }, { domain, phase, state, kept, hasTpm }): Action[] {
    // Once it may run elsewhere, or here as what it is to become, what libvirt has is not its old state any more.
    if (phase === 'handed-over' || phase === 'done') return []
    if (!domain && kept.has('definition.xml')) return []
    if (!domain)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot keep the definition of "${name}": libvirt does not know it`,
        `define it: virsh -c ${uri} define ${directory}/libvirt.xml`,
      )
    if (domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot keep the definition of "${name}": libvirt has another one of this name, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    if (!state)
      refuse(
        'IN_USE',
        `Cannot keep the state of "${name}": its guest is ${domain.state}`,
        'switch it off: cowhand step shutdown-domain',
      )
    const changed = [...state].filter(([file, bytes]) => !kept.get(file)?.equals(bytes))
    const stale = [...kept.keys()].filter((file) => !state.has(file))
    const needsTpm = !hasTpm && changed.some(([file]) => file.startsWith('tpm/'))
    return [
      ...(needsTpm ? [{ do: 'mkdir', path: `${directory}/tpm`, mode: 0o700 } as const] : []),
      ...changed.map(([file, text]): Action => ({ do: 'write', path: `${directory}/${file}`, text, mode: 0o600 })),
      ...stale.map((file): Action => ({ do: 'remove', path: `${directory}/${file}` })),
    ]
  },
})
