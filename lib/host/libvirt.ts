import { fail, Problem } from '../job/problem.ts'
import { program } from './shell.ts'

/** A domain as libvirt has it. */
export interface DomainFacts {
  uuid: string
  /** As virsh says it: `running`, `shut off`, `paused`, … */
  state: string
}

export const virsh = (uri: string, ...words: string[]): string[] => ['virsh', '-q', '-c', uri, ...words]

/** Facts in the output of `virsh dominfo`. */
export function domainFactsIn(output: string): DomainFacts {
  const field = (name: string) => new RegExp(`^${name}:\\s*(.+)$`, 'm').exec(output)?.[1]?.trim() ?? ''
  return { uuid: field('UUID'), state: field('State') }
}

/** The domain of this name, or undefined where libvirt has none. @throws {Problem} TOOL_FAILED when libvirt is out of reach */
export async function domainAt(uri: string, name: string): Promise<DomainFacts | undefined> {
  try {
    const { stdout } = await program(virsh(uri, 'dominfo', name))
    return domainFactsIn(stdout)
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'TOOL_FAILED') throw error
    if (/failed to get domain|Domain not found/i.test(error.message)) return undefined
    return fail('TOOL_FAILED', `Cannot reach libvirt at "${uri}": ${error.message.replace(/^.*exit code \d+: /, '')}`, 'see whether it runs: systemctl status libvirtd; or cowhand doctor')
  }
}
