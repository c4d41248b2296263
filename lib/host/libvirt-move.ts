import { swtpmOf } from '../job/layout.ts'
import { refuse } from '../job/problem.ts'
import { fileDisksOf, foreignDisksIn, pluggedIn, type StateFiles, stateIn } from './domain-move.ts'
import { answer, type DomainFacts, domainAt, isOff } from './libvirt.ts'

/** A domain that is to go elsewhere, as libvirt has it. */
export interface DomainToMove {
  facts: DomainFacts
  /** Definition of its next start, with its secrets: it is what moves. */
  xml: string
  autostart: boolean
  /** Where the variables of its UEFI are, and the state of its TPM; a file that is not there was not needed so far. */
  nvram?: string
  tpm?: { directory: string }
}

/** What libvirt has of a domain that a move would lose, or that forbids it. */
export interface Ties {
  facts: DomainFacts
  xml: string
  /** Definition in force, where it runs. */
  live?: string | undefined
  snapshots: string[]
  checkpoints: string[]
  /** Copying, committing, backing up, saving: in libvirt's words. */
  jobs: string[]
}

const isSystem = (uri: string): boolean => /^qemu(\+unix)?:\/\/\/system\b/.test(uri)
const lines = (text: string): string[] => text.split('\n').flatMap((line) => line.trim() || [])

/**
 * The domain of this name, or undefined where libvirt has none.
 * @param directory of the instance, where a move is about to begin: then whatever forbids it is refused
 * @throws {Problem} UNSUPPORTED, IN_USE or NOT_OURS as requireFree; TOOL_FAILED when libvirt is out of reach
 */
export async function domainToMove(uri: string, name: string, directory?: string): Promise<DomainToMove | undefined> {
  const facts = await domainAt(uri, name)
  if (!facts) return undefined
  const xml = await answer(uri, ['dumpxml', facts.uuid, '--inactive', '--security-info'])
  if (directory !== undefined) requireFree(await tiesOf(uri, facts, xml), uri, directory)
  const { nvram, tpm } = stateIn(xml, name)
  return {
    facts,
    xml,
    autostart: facts.autostart === true,
    ...(nvram === undefined ? {} : { nvram }),
    ...(tpm ? { tpm: { directory: swtpmOf(facts.uuid) } } : {}),
  }
}

/** Each question is asked by a program of its own, at once with the others: of several in one, a failed one says nothing. */
async function tiesOf(uri: string, facts: DomainFacts, xml: string): Promise<Ties> {
  const ask = async (...words: string[]) => lines(await answer(uri, words))
  const [snapshots, checkpoints, running] = await Promise.all([
    ask('snapshot-list', facts.uuid, '--name'),
    ask('checkpoint-list', facts.uuid, '--name'),
    isOff(facts) ? undefined : runningOf(uri, facts.uuid),
  ])
  return { facts, xml, snapshots, checkpoints, live: running?.live, jobs: running?.jobs ?? [] }
}

async function runningOf(uri: string, uuid: string): Promise<{ live: string; jobs: string[] }> {
  const [live, job] = await Promise.all([answer(uri, ['dumpxml', uuid]), answer(uri, ['domjobinfo', uuid])])
  const targets = fileDisksOf(live).map(({ target }) => target)
  const blockJobs = await Promise.all(targets.map((target) => answer(uri, ['blockjob', uuid, target, '--raw'])))
  const found = [
    ...job.matchAll(/^(?:Job type|Operation):\s*(.+)$/gm),
    ...blockJobs.join('\n').matchAll(/ type=(.+)$/gm),
  ]
  const jobs = found.flatMap(([, kind = '']) => (/^(None|Unbounded|Bounded)\b/.test(kind) ? [] : [kind.trim()]))
  return { live, jobs: [...new Set(jobs)] }
}

/**
 * Everything that libvirt has of the domain can go with it, so that nothing of the guest is lost.
 * @throws {Problem} UNSUPPORTED, IN_USE or NOT_OURS, with what is in the way
 */
export function requireFree({ facts, xml, live, snapshots, checkpoints, jobs }: Ties, uri: string, directory: string) {
  const { name } = facts
  const no = (state: string, remedy: string, code: 'UNSUPPORTED' | 'IN_USE' | 'NOT_OURS' = 'UNSUPPORTED') =>
    refuse(code, `Cannot move "${name}": ${state}`, remedy)
  const virsh = `virsh -c ${uri}`
  if (facts.persistent === false)
    no(
      'libvirt keeps no definition of it, only its guest runs (a transient domain)',
      `have it kept: ${virsh} dumpxml ${name} >${name}.xml && ${virsh} define ${name}.xml`,
    )
  if (facts.saved)
    no(
      'libvirt has saved its memory, which fits to its disks only as they are',
      `let it go on: ${virsh} start ${name}; or drop its memory: ${virsh} managedsave-remove ${name}`,
    )
  if (jobs.length > 0)
    no(
      `libvirt works on it: ${jobs.join(', ')}`,
      `wait until that is done; see it: ${virsh} domjobinfo ${name}`,
      'IN_USE',
    )
  if (snapshots.length > 0)
    no(
      `libvirt has snapshots of it, which would stay behind: ${snapshots.join(', ')}`,
      `delete them: ${virsh} snapshot-delete ${name} ${snapshots[0]}`,
    )
  if (checkpoints.length > 0)
    no(
      `libvirt has checkpoints of it, which would stay behind: ${checkpoints.join(', ')}`,
      `delete them: ${virsh} checkpoint-delete ${name} ${checkpoints[0]}`,
    )
  const plugged = live === undefined ? undefined : pluggedIn(live, xml)
  if (plugged !== undefined)
    no(plugged, `make both the same: ${virsh} attach-disk or detach-disk, with --config or --live`)
  const [foreign] = foreignDisksIn(xml, directory)
  if (foreign)
    no(
      `its disk ${foreign.target} is "${foreign.path}", which is no disk of this instance and would stay behind`,
      `detach it first: ${virsh} detach-disk ${name} ${foreign.target} --persistent`,
      'NOT_OURS',
    )
  const { tpm }: StateFiles = stateIn(xml, name)
  if (tpm && (tpm.source || !isSystem(uri)))
    no("its TPM's state is not in libvirt's own place for it", 'remove the <source> of its <tpm>, or the TPM')
}
