import { basename } from 'node:path'
import { readQcow2 } from '../image/qcow2.ts'
import { InstanceRecord, type Task } from '../job/instance.ts'
import { type DiskName, diskNames, instanceOf, keptOf } from '../job/layout.ts'
import { Problem, refuse } from '../job/problem.ts'
import type { DiskResult } from '../job/result.ts'
import { exactSize, InstanceName } from '../job/spec.ts'
import { fileAt, jsonAt, namesIn, requireNoLink } from './files.ts'
import { type Pin, pinsOf } from './pins.ts'

/** The wish kept in an instance's directory, or undefined. @throws {Problem} NOT_OURS when it cannot be read */
export function instanceAt(directory: string): InstanceRecord | undefined {
  requireNoLink(directory)
  const path = `${directory}/instance.json`
  const json = jsonAt(path)
  if (json === undefined) return undefined
  const record = InstanceRecord.safeParse(json)
  return record.success
    ? record.data
    : refuse(
        'NOT_OURS',
        `Cannot read "${path}": it is not a record of this version of cowhand`,
        `look at it, and move it away: less ${path}`,
      )
}

/** The instance of this name. @throws {Problem} INSTANCE_NOT_FOUND */
export function requireInstance(instances: string, name: string): InstanceRecord {
  return (
    instanceAt(instanceOf(instances, name)) ??
    refuse(
      'INSTANCE_NOT_FOUND',
      `Cannot find instance "${name}": "${instances}" has none of this name`,
      'see what there is: cowhand list',
    )
  )
}

/** What there is of an instance: under its own name, or as a resize or migration keeps it to go back to. */
export interface Known {
  record: InstanceRecord
  /** Of its directory: NAME, or NAME_resize where that is all that is here. */
  home: string
  task: Task | undefined
}

/** @throws {Problem} INSTANCE_NOT_FOUND */
export function knownInstance(instances: string, name: string): Known {
  const aside = keptOf(instances, name)
  const [here, kept] = [instanceAt(instanceOf(instances, name)), instanceAt(aside)]
  const record = here ?? kept ?? requireInstance(instances, name)
  return { record, home: here ? name : basename(aside), task: here?.task ?? kept?.task }
}

/** Names of the instances that are here, or kept here to go back to; sorted. */
export function instanceNames(instances: string): string[] {
  const homes = (namesIn(instances) ?? []).filter((name) => !/^[_.]/.test(name))
  const names = new Set(homes.map((home) => home.replace(/_resize$/, '')))
  const isThere = (home: string) => homes.includes(home) && fileAt(`${instances}/${home}/instance.json`) !== undefined
  return [...names]
    .filter((name) => InstanceName.safeParse(name).success && (isThere(name) || isThere(`${name}_resize`)))
    .sort()
}

/** A resize or migration in hand, as words that go behind the instance's name; and what can be typed next. */
export function sayTask(name: string, task: Task): { state: string; remedy: string } {
  const { kind, host, phase, since, root } = task
  const [noun, size] = kind === 'resize' ? ['resize', ` (root ${exactSize(root)})`] : ['migration', '']
  const what = `${noun}${host === undefined ? '' : ` to ${host}`} of ${since}${size}`
  const back = `go back: cowhand revert ${name}`
  if (phase === 'confirming')
    return { state: `what its ${what} kept is being dropped`, remedy: `finish that: cowhand confirm ${name}` }
  if (phase === 'reverting') return { state: `going back from its ${what} is not finished`, remedy: back }
  return phase === 'done'
    ? { state: `its ${what} is neither confirmed nor reverted`, remedy: `cowhand confirm ${name}, or ${back}` }
    : { state: `its ${what} is not finished`, remedy: `run that command again, or ${back}` }
}

/** What a migration that was given up left on a host that could not be reached then, in words. */
export const sayAbandoned = ({ abandoned }: InstanceRecord): string | undefined =>
  abandoned && `what came to ${abandoned.host} of a move that was given up may still be there: look there: cowhand list`

/** An instance's disks as they are on the disk now, root first. No process is started. */
export async function disksOf(instances: string, name: string): Promise<DiskResult[]> {
  const directory = instanceOf(instances, name)
  const formatOf = await pinsOf(directory)
  return diskNames.flatMap((disk) => diskAt(disk, `${directory}/${disk}`, formatOf(disk)) ?? [])
}

/** One disk. Its content is read only where it is pinned as qcow2: then the header is qemu's, and no guest can write it. */
function diskAt(name: DiskName, path: string, format: Pin): DiskResult | undefined {
  const known = { name, path, format, actualSize: 0 }
  try {
    const file = fileAt(path)
    if (!file) return undefined
    known.actualSize = file.allocated
    if (format === 'unknown') return known
    if (format === 'raw') return { ...known, virtualSize: file.size }
    const { virtualSize, backing } =
      readQcow2(path) ??
      refuse('NOT_OURS', `Cannot use "${path}": it is pinned as qcow2 and is none`, 'restore it from a backup')
    return { ...known, virtualSize, ...(backing ? { backing } : {}) }
  } catch (problem) {
    if (problem instanceof Problem) return { ...known, problem: problem.message }
    throw problem
  }
}
