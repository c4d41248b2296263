import { basename, dirname } from 'node:path'
import { backingNameAt } from '../image/backing.ts'
import { contentOf } from '../image/content.ts'
import { type Qcow2Header, readQcow2 } from '../image/qcow2.ts'
import { identityOf, sameContent } from '../job/base.ts'
import { basesOf, type DiskName, diskNames, isBaseFile, kindOfBase } from '../job/layout.ts'
import type { BaseIdentity, OfferedBase, OfferedDisk } from '../job/move.ts'
import { Problem, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { isWeak } from '../job/spec.ts'
import { type Base, baseAt, proofOf, requireSound } from './bases.ts'
import { fileAt } from './files.ts'
import { type Pin, pinsOf } from './pins.ts'

// What the source of a resize or migration has. Nothing is changed, and the guest still runs: whatever cannot travel is
// refused here, where that costs nothing (BEHAVIOUR.md S36, S37).

/** `need`: contents are read only of bases that nothing else proves; `all`: of every base. */
export interface Measuring {
  measure: 'need' | 'all'
}

/**
 * The disks of an instance, root first, each with what it stands on, and what that is.
 * @param directory of the instance: NAME, or NAME_resize
 * @throws {Problem} UNSUPPORTED, NOT_OURS for a format or a chain that is none of ours; BASE_DIFFERS where a base is not
 *   what its record says; MISSING_PREREQUISITE where a disk or base is missing; IMAGE_REJECTED for a damaged disk
 */
export async function offeredDisks(
  directory: string,
  settings: Settings,
  { measure }: Measuring = { measure: 'need' },
): Promise<OfferedDisk[]> {
  const formatOf = await pinsOf(directory)
  const disks: OfferedDisk[] = []
  for (const file of diskNames) {
    const disk = await offeredDisk(`${directory}/${file}`, file, formatOf(file), settings, measure)
    if (disk) disks.push(disk)
  }
  return disks[0]?.file === 'disk'
    ? disks
    : cannot(
        'MISSING_PREREQUISITE',
        `${directory}/disk`,
        'there is no such disk',
        `see what it has: ls -l ${directory}`,
      )
}

const cannot = (code: Problem['code'], path: string, state: string, remedy: string): never =>
  refuse(code, `Cannot move "${path}": ${state}`, remedy)

async function offeredDisk(
  path: string,
  file: DiskName,
  format: Pin,
  settings: Settings,
  measure: Measuring['measure'],
): Promise<OfferedDisk | undefined> {
  const facts = fileAt(path)
  if (!facts) return undefined
  const { allocated, size } = facts
  if (format === 'unknown')
    return cannot(
      'UNSUPPORTED',
      path,
      'its format is not known: neither disk.info nor libvirt.xml says it',
      `if you are sure of it, write it down: echo '{"${path}": "qcow2"}' > ${dirname(path)}/disk.info`,
    )
  // Of a raw disk each byte is its guest's: whatever header is in it, it means nothing.
  if (format === 'raw') return { file, format, virtualSize: size, allocated }
  const header = readDisk(path)
  // As long as a guest runs on it, lazy refcounts are always so.
  if (header.dirty && !(await (await import('./qemu-img.ts')).isInUse(path)))
    cannot('UNSUPPORTED', path, 'it was not closed', `have it mended: qemu-img check -r all -f qcow2 ${path}`)
  const disk = { file, format, virtualSize: header.virtualSize, allocated }
  // Swap is made anew, whatever it stands on now.
  if (header.backing === undefined || file === 'disk.swap') return disk
  const base = await requireOurBase(path, header, settings)
  return { ...disk, base: await offeredBase(base, settings, measure) }
}

/**
 * An overlay of a guest that is off, on a base of ours. One that was not closed counts: it is only its refcounts that are
 * to be mended, by whoever writes to it next.
 * @returns its size in bytes, and path of the base
 * @throws {Problem} as offeredDisks
 */
export async function requireOverlay(path: string, settings: Settings): Promise<{ virtualSize: number; base: string }> {
  const header = readDisk(path)
  return { virtualSize: header.virtualSize, base: await requireOurBase(path, header, settings) }
}

/** The header of a disk that can travel as a file. @throws {Problem} */
function readDisk(path: string): Qcow2Header {
  const header = readHeader(path)
  if (!header) return cannot('NOT_OURS', path, 'it is pinned as qcow2 and is none', 'restore it from a backup')
  const { snapshots } = header
  const whole = 'make one file of it, with its guest off: qemu-img convert'
  if (header.dataFile) cannot('UNSUPPORTED', path, 'its data is in another file', whole)
  if (header.encrypted) cannot('UNSUPPORTED', path, 'it is encrypted', whole)
  // libvirt knows of them, and they would see another base than they were made on.
  if (snapshots > 0)
    cannot('UNSUPPORTED', path, `it has ${snapshots} internal snapshots`, 'remove them: virsh snapshot-delete')
  return header
}

function readHeader(path: string): Qcow2Header | undefined {
  try {
    return readQcow2(path)
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    const state = error.message.replace(/^Cannot use image ".*?": /, '')
    return cannot('IMAGE_REJECTED', path, state, `look at it, with its guest off: qemu-img check -f qcow2 ${path}`)
  }
}

/**
 * What a disk stands on, if that is one plain file of our `_base`. What its header names is not opened otherwise: it is
 * the word of whoever made the disk.
 * @throws {Problem}
 */
async function requireOurBase(path: string, header: Qcow2Header, { instances }: Settings): Promise<string> {
  const { backing = '', backingFormat } = header
  const bases = basesOf(instances)
  const merge = `merge it with its base, with its guest off: qemu-img rebase -f qcow2 -b '' ${path}`
  const notOurs = (state: string) => cannot('NOT_OURS', path, state, merge)
  if (backing.startsWith('json:')) notOurs('what it stands on is described by json:')
  if (!backing.startsWith('/')) notOurs(`what it stands on has no absolute path: "${backing}"`)
  const name = basename(backing)
  if (backing !== `${bases}/${name}` || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/.test(name) || !isBaseFile(name))
    cannot('NOT_OURS', path, `it stands on "${backing}", which is no base in "${bases}"`, merge)
  if (!fileAt(backing))
    cannot(
      'MISSING_PREREQUISITE',
      path,
      `its base "${backing}" is missing`,
      'restore it from a backup, or from a host that has it',
    )
  if (backingNameAt(backing) !== undefined || !['raw', undefined].includes(backingFormat))
    cannot('UNSUPPORTED', path, `its base "${backing}" is not raw`, merge)
  // Old drivers did not write the format down, and qemu guesses it then: it has to have come to raw.
  if (backingFormat === undefined) {
    const { examine } = await import('../image/examine.ts')
    await examine(backing, { format: 'raw', ceiling: Number.MAX_SAFE_INTEGER })
  }
  return backing
}

async function offeredBase(path: string, settings: Settings, measure: Measuring['measure']): Promise<OfferedBase> {
  const { base, identity } = await requireKnown(path, settings, measure)
  const { size, allocated } = base
  const name = basename(path)
  const offered = { name, size, allocated, identity }
  return kindOfBase(name) === 'sized' ? withUnsized(path, base, offered, settings, measure) : offered
}

/** A base that is there, and what it is. @throws {Problem} BASE_DIFFERS, NOT_OURS */
async function requireKnown(path: string, settings: Settings, measure: Measuring['measure']) {
  const base = baseAt(path)
  if (!base) return cannot('MISSING_PREREQUISITE', path, 'there is no such base', 'run the same command again')
  const record = base.record && (await renewed(path, base, settings))
  const known = identityOf(record, base.stamp)
  // What a program made is what it made there and then: only its content tells.
  const isTold = known.digest !== undefined && !isWeak(known.digest)
  const content = known.content ?? (measure === 'all' || !isTold ? await contentOf(path) : undefined)
  const isMade = known.digest !== undefined || (record !== undefined && !record.adopted)
  const identity: BaseIdentity = {
    ...known,
    ...(content === undefined ? {} : { content, ...(isMade ? { proven: true } : {}) }),
    ...(record?.['deterministic'] === true ? { deterministic: true } : {}),
  }
  return { base, identity }
}

/** The record of a base, as it is of the file as it is now. @throws {Problem} BASE_DIFFERS */
async function renewed(path: string, base: Base, settings: Settings): Promise<Base['record']> {
  const { record, stamp } = base
  if (!record || record.stamp === stamp) {
    requireSound(path, base)
    return record
  }
  const { originalsOf } = await import('../image/proof.ts')
  const proof = await proofOf(path, base, await originalsOf(path, settings))
  requireSound(path, base, proof)
  // It was proven by the content that is recorded, if one is.
  const { content, ...facts } = record
  return { ...facts, stamp, ...(content ? { content: { ...content, stamp, proven: proof?.proven } } : {}) }
}

/**
 * With what the base is that this one is a larger copy of. Old drivers also grew the file system in such a copy, so that
 * it has to be proven: by the record of who made the copy, else by what is in both (BEHAVIOUR.md S46, PERFORMANCE 2).
 */
async function withUnsized(
  path: string,
  base: Base,
  offered: OfferedBase,
  settings: Settings,
  measure: Measuring['measure'],
): Promise<OfferedBase> {
  const name = basename(path).slice(0, 40)
  const small = `${dirname(path)}/${name}`
  const found = await requireKnown(small, settings, measure).catch((error) => {
    // One that cannot be used is as one that is not there; the sized one may be all the same.
    if (error instanceof Problem && error.code !== 'INTERRUPTED') return undefined
    throw error
  })
  const { identity } = offered
  const isCopy = identity.digest !== undefined && base.record?.['copyOf'] === small
  const has = found && { identity: found.identity, size: found.base.size, allocated: found.base.allocated }
  const { content: _, ...made } = identity
  if (isCopy && (!found || sameContent(made, found.identity)))
    return { ...offered, unsized: { name, is: 'equal', ...has } }
  const content = identity.content ?? (await contentOf(path))
  const told = { ...offered, identity: { ...identity, content } }
  if (!has) return { ...told, unsized: { name, is: 'unknown' } }
  has.identity.content ??= await contentOf(small)
  return { ...told, unsized: { name, is: has.identity.content === content ? 'equal' : 'differs', ...has } }
}
