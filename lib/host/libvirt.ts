import { fail, Problem } from '../job/problem.ts'
import { interrupt } from './interrupt.ts'

/** A domain as libvirt has it. */
export interface DomainFacts {
  name: string
  uuid: string
  /** As virsh says it: `running`, `shut off`, `paused`, … */
  state: string
  /** It starts with the host. */
  autostart?: boolean
  /** It has a definition, and does not vanish when it is switched off. */
  persistent?: boolean
  /** libvirt has its memory, saved: its next start goes on from there. */
  saved?: boolean
}

/** Nothing of it runs. */
export const isOff = (domain: DomainFacts | undefined): boolean => !domain || domain.state === 'shut off'
/** Its guest does nothing any more, though QEMU may still be there to be looked at. */
export const hasEnded = (domain: DomainFacts | undefined): boolean => isOff(domain) || domain?.state === 'crashed'

export const virsh = (uri: string, ...words: string[]): string[] => ['virsh', '-q', '-c', uri, ...words]

/** Facts in the output of `virsh dominfo`. */
export function domainFactsIn(output: string): DomainFacts {
  const field = (name: string) => new RegExp(`^${name}:\\s*(.+)$`, 'm').exec(output)?.[1]?.trim() ?? ''
  return {
    name: field('Name'),
    uuid: field('UUID'),
    state: field('State'),
    autostart: field('Autostart') === 'enable',
    persistent: field('Persistent') === 'yes',
    saved: field('Managed save') === 'yes',
  }
}

/** To answer one question, in seconds. virsh itself waits without end for a libvirtd that hangs, and we may have locks. */
const patience = 60

/**
 * What libvirt says, in virsh's words.
 * @param files descriptors of ours that virsh has as 3, 4 and so on
 * @throws {Problem} TOOL_FAILED when it is out of reach, or does not answer
 */
export async function answer(
  uri: string,
  words: string[],
  accept: number[] = [],
  seconds = patience,
  files: number[] = [],
): Promise<string> {
  const { program } = await import('./shell.ts')
  const end = AbortSignal.timeout(seconds * 1000)
  try {
    return (await program(virsh(uri, ...words), { accept, files, signal: AbortSignal.any([interrupt.signal, end]) }))
      .stdout
  } catch (error) {
    const isLate = error === end.reason
    if (!isLate && (!(error instanceof Problem) || error.code !== 'TOOL_FAILED')) throw error
    const said =
      error instanceof Problem
        ? error.message.replace(/^.*exit code \d+: (error: )?/, '')
        : `no answer for ${seconds} s`
    return fail(
      'TOOL_FAILED',
      `Cannot reach libvirt at "${uri}": ${said}`,
      'see whether it runs: systemctl status libvirtd; or cowhand doctor',
    )
  }
}

/**
 * The domain of this name, or undefined where libvirt has none. What is then done to it is done by its uuid: virsh
 * takes a name of digits for the id of a running guest, which may be anybody's.
 * @throws {Problem} TOOL_FAILED when libvirt is out of reach
 */
export async function domainAt(uri: string, name: string): Promise<DomainFacts | undefined> {
  try {
    const found = domainFactsIn(await answer(uri, ['dominfo', name]))
    if (found.name === name) return found
  } catch (error) {
    if (!(error instanceof Problem) || !error.message.includes('failed to get domain')) throw error
  }
  // virsh says the same when the connection broke on the way: only the list of all tells that there is none.
  const uuid = (await domainNames(uri)).find((domain) => domain.name === name)?.uuid
  return uuid === undefined ? undefined : domainFactsIn(await answer(uri, ['dominfo', uuid]))
}

/** Every domain that libvirt has, on or off. @throws {Problem} TOOL_FAILED when it is out of reach */
export async function domainNames(uri: string): Promise<{ uuid: string; name: string }[]> {
  const lines = (await answer(uri, ['list', '--all', '--uuid', '--name'])).split('\n')
  return lines.flatMap((line) => {
    const [, uuid, name] = /^\s*(\S+)\s+(.*?)\s*$/.exec(line) ?? []
    return uuid === undefined || name === undefined ? [] : [{ uuid, name }]
  })
}

/**
 * The definition of every domain that libvirt has: of each the one in force, and the one of its next start. One
 * program is started for all of them (for five hundred: more words do not fit), and one that lists them.
 * @param seconds to wait for each answer
 * @throws {Problem} TOOL_FAILED when libvirt is out of reach, or one of them cannot be had
 */
export async function domainsIn(uri: string, seconds = patience): Promise<string[]> {
  const list = async () => (await answer(uri, ['list', '--all', '--uuid'], [], seconds)).split(/\s+/).filter(Boolean)
  let all = await list()
  for (let tries = 0; all.length > 0; tries += 1) {
    const definitions: string[] = []
    // Not on standard input, which virsh takes for a person: it would keep a history. One that fails stops no other.
    for (let from = 0; from < all.length; from += 500) {
      const some = all.slice(from, from + 500).flatMap((uuid) => [`dumpxml ${uuid}`, `dumpxml --inactive ${uuid}`])
      const said = await answer(uri, [some.join('; ')], [1], seconds)
      definitions.push(...said.split(/(?=<domain[\s>])/).filter((part) => part.startsWith('<domain')))
    }
    const told = new Map<string, number>()
    for (const xml of definitions) {
      const [, uuid = ''] = /<uuid>(.*?)<\/uuid>/.exec(xml) ?? []
      told.set(uuid, (told.get(uuid) ?? 0) + 1)
    }
    const untold = all.find((uuid) => (told.get(uuid) ?? 0) < 2)
    if (untold === undefined) return definitions
    // It was undefined meanwhile, or libvirt is gone, and then it does not answer this.
    if (tries === 3)
      fail(
        'TOOL_FAILED',
        `Cannot ask libvirt at "${uri}" for domain ${untold}: it gives no definition`,
        `see what it says: virsh -c ${uri} dumpxml ${untold}`,
      )
    all = await list()
  }
  return []
}
