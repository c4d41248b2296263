import { fail, Problem } from '../job/problem.ts'

/** A domain as libvirt has it. */
export interface DomainFacts {
  name: string
  uuid: string
  /** As virsh says it: `running`, `shut off`, `paused`, … */
  state: string
}

export const virsh = (uri: string, ...words: string[]): string[] => ['virsh', '-q', '-c', uri, ...words]

/** Facts in the output of `virsh dominfo`. */
export function domainFactsIn(output: string): DomainFacts {
  const field = (name: string) => new RegExp(`^${name}:\\s*(.+)$`, 'm').exec(output)?.[1]?.trim() ?? ''
  return { name: field('Name'), uuid: field('UUID'), state: field('State') }
}

/** What libvirt says, in virsh's words. @throws {Problem} TOOL_FAILED when it is out of reach */
async function answer(uri: string, ...words: string[]): Promise<string> {
  const { program } = await import('./shell.ts')
  try {
    return (await program(virsh(uri, ...words))).stdout
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'TOOL_FAILED') throw error
    const said = error.message.replace(/^.*exit code \d+: (error: )?/, '')
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
    const found = domainFactsIn(await answer(uri, 'dominfo', name))
    if (found.name === name) return found
  } catch (error) {
    if (!(error instanceof Problem) || !error.message.includes('failed to get domain')) throw error
  }
  // virsh says the same when the connection broke on the way: only the list of all tells that there is none.
  const all = (await answer(uri, 'list', '--all', '--uuid', '--name'))
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
  const uuid = all.find((words) => words[1] === name)?.[0]
  return uuid === undefined ? undefined : domainFactsIn(await answer(uri, 'dominfo', uuid))
}
