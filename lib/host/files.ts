import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lchownSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { dirname, resolve } from 'node:path'
import { partOf } from '../job/layout.ts'
import { errno, misuse, refuse } from '../job/problem.ts'
import { formatSize } from '../job/spec.ts'

const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** What a regular file is: sizes in bytes; `stamp` is another once the file was written to or replaced (a rename keeps it). */
export interface FileFacts {
  size: number
  allocated: number
  stamp: string
}

/**
 * Whether there are holes worth looking for: a qcow2 has a few small ones always, and to find them costs more than to
 * read them as zeros.
 */
export const hasHoles = ({ size, allocated }: Pick<FileFacts, 'size' | 'allocated'>): boolean =>
  size - allocated > size / 128

const lookAt = (path: string): string => `look at it, and move it away: ls -ld ${path}`
const shared = 'it has another name (hard link)'

/**
 * Facts of a regular file, or undefined where nothing is. Symbolic links are never followed.
 * @throws {Problem} NOT_OURS when something else than a regular file has the name
 */
export const fileAt = (path: string, remedy = lookAt(path)): FileFacts | undefined => seenAt(path, remedy)?.facts

function seenAt(path: string, remedy: string): { facts: FileFacts; names: bigint } | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false, bigint: true })
  if (!found) return undefined
  if (found.isSymbolicLink()) refuse('NOT_OURS', `Cannot use "${path}": it is a symbolic link`, remedy)
  if (found.isDirectory()) refuse('NOT_OURS', `Cannot use "${path}": it is a directory`, remedy)
  if (!found.isFile()) refuse('NOT_OURS', `Cannot use "${path}": it is not a regular file`, remedy)
  const facts = {
    size: Number(found.size),
    allocated: Number(found.blocks) * 512,
    stamp: [found.size, found.mtimeNs, found.ino].join('.'),
  }
  return { facts, names: found.nlink }
}

/**
 * As fileAt, for a file that nobody else may write to: one with a second name is somebody else's too.
 * @throws {Problem} NOT_OURS
 */
export function ownFileAt(path: string, remedy = lookAt(path)): FileFacts | undefined {
  const found = seenAt(path, lookAt(path))
  if (found && found.names > 1) refuse('NOT_OURS', `Cannot use "${path}": ${shared}`, remedy)
  return found?.facts
}

/** Names in a directory, or undefined where there is none. */
export function namesIn(directory: string): string[] | undefined {
  try {
    return readdirSync(directory).sort() // whatever the file system's order is
  } catch (error) {
    if (errno(error) === 'ENOENT') return undefined
    throw error
  }
}

/** A link in the place of a directory that nobody but cowhand fills would lead to files of others. @throws {Problem} NOT_OURS */
export function requireNoLink(directory: string): void {
  if (lstatSync(directory, { throwIfNoEntry: false })?.isSymbolicLink())
    refuse('NOT_OURS', `Cannot use "${directory}": it is a symbolic link`, lookAt(directory))
}

/** Names in a directory that nobody but cowhand fills. @throws {Problem} NOT_OURS */
export function ownNamesIn(directory: string): string[] | undefined {
  requireNoLink(directory)
  return namesIn(directory)
}

/** Text of a small regular file of ours, or undefined where nothing is. */
export const textAt = (path: string): string | undefined => bytesAt(path, O_NOFOLLOW, lookAt(path))?.toString()

const largest = 2 ** 20
/** The variables of a guest's UEFI take 64 MiB on arm64. */
const largestState = 2 ** 27

/** Bytes of a file that another program alone writes to, or undefined where nothing is. @throws {Problem} NOT_OURS */
export const stateAt = (path: string): Buffer | undefined =>
  ownFileAt(path) && bytesAt(path, O_NOFOLLOW, lookAt(path), largestState)

function bytesAt(path: string, flags: number, remedy: string, limit = largest): Buffer | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NONBLOCK | flags)
  } catch (error) {
    if (errno(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    const facts = fstatSync(fd)
    if (!facts.isFile()) refuse('NOT_OURS', `Cannot read "${path}": it is not a regular file`, remedy)
    if (facts.size > limit)
      refuse('NOT_OURS', `Cannot read "${path}": it is larger than ${formatSize(limit)}`, 'name the right file')
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** JSON of one of our own small files, or undefined where nothing is. @throws {Problem} NOT_OURS when it is no JSON */
export function jsonAt(path: string): unknown {
  const text = textAt(path)
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch {
    return refuse('NOT_OURS', `Cannot read "${path}": it is not JSON`, `look at it, and move it away: less ${path}`)
  }
}

const operatorsBytesAt = (path: string): Buffer | undefined =>
  bytesAt(resolve(path), 0, 'name a regular file: a pipe cannot be read twice')

const noSuchFile = (path: string): never =>
  misuse(`Cannot read "${path}": there is no such file`, 'name a file that exists')

/** Bytes of a file that the operator named, be it by a link. @throws {Problem} BAD_SPEC where there is none */
export const readOperatorsBytes = (path: string): Buffer => operatorsBytesAt(path) ?? noSuchFile(path)

/** Text of a file that the operator named, be it by a link. @throws {Problem} BAD_SPEC where there is none */
export const readOperatorsFile = (path: string): string => operatorsTextAt(path) ?? noSuchFile(path)

/** The same, or undefined where nothing is. @throws {Problem} BAD_SPEC where it is no text */
export function operatorsTextAt(path: string): string | undefined {
  const bytes = operatorsBytesAt(path)
  try {
    return bytes && new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return misuse(`Cannot read "${path}": it is not UTF-8 text`, `convert it: iconv -t UTF-8 ${path}`)
  }
}

/**
 * Open the file that a program is to make, so that its flush can be asked of a descriptor that knew it from birth.
 * @throws {Problem} NOT_OURS when it has a second name through which others' bytes would change
 */
export function openPart(path: string, mode = 0o644): number {
  const fd = openSync(path, O_CREAT | O_RDWR | O_NOFOLLOW | O_NONBLOCK, mode)
  const facts = fstatSync(fd)
  if (facts.isFile() && facts.nlink === 1) {
    // One that was left over, or planted, is not to stay open to more people than the file that it becomes.
    if ((facts.mode & 0o7777) !== mode) fchmodSync(fd, mode)
    return fd
  }
  closeSync(fd)
  const state = facts.isFile() ? shared : 'it is not a regular file'
  return refuse('NOT_OURS', `Cannot write "${path}": ${state}`, lookAt(path))
}

/** An empty sparse file of this size; what was there is gone. @param size bytes */
export function allocate(path: string, size: number): void {
  const fd = openPart(path)
  try {
    ftruncateSync(fd, 0)
    ftruncateSync(fd, size)
  } finally {
    closeSync(fd)
  }
}

/** A page: where the bytes are zero, a hole is left of this size, and there is less to flush. */
const page = Buffer.alloc(4096)

/** Write these bytes as a new file of this apparent size, flushed. It is not published yet. */
export function writePart(path: string, bytes: Buffer, size: number, mode: number): void {
  const fd = openPart(path, mode)
  try {
    ftruncateSync(fd, 0)
    for (let at = 0; at < bytes.length; ) {
      const some = bytes.subarray(at, at + page.length)
      at += some.equals(page) ? some.length : writeSync(fd, some, 0, some.length, at)
    }
    ftruncateSync(fd, Math.max(size, bytes.length))
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Flush a directory, be it behind a link: a name in it survives a power cut only after this. */
export function flush(path: string, flags = O_DIRECTORY, mode?: number): void {
  const fd = openSync(path, O_RDONLY | flags)
  try {
    if (mode !== undefined) fchmodSync(fd, mode)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** The same for what is in a file, while something else is done. */
export async function flushData(path: string): Promise<void> {
  const { open } = await import('node:fs/promises')
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  await file.datasync().finally(() => file.close())
}

/** Give a flushed part its final name: a reader finds the whole file or none. The name itself is not flushed yet. */
export function publish(part: string, path: string, mode?: number): void {
  // A run that was killed may have left the part to the user that qemu-img worked as.
  if (process.geteuid?.() === 0) lchownSync(part, 0, -1)
  flush(part, O_NOFOLLOW | O_NONBLOCK, mode)
  renameSync(part, path)
}

/** A small file, whole or not at all. The name itself is not flushed yet. */
export function writeWhole(path: string, content: string | Buffer, mode: number): void {
  writePart(partOf(path), typeof content === 'string' ? Buffer.from(content) : content, 0, mode)
  renameSync(partOf(path), path)
}

/**
 * True afterwards: the directory is there, and is no link to another, unless the operator chose it.
 * @returns the directories that have a new name in them: not flushed yet
 * @throws {Problem} NOT_OURS
 */
export function makeDirectory(path: string, mode: number, isOperators = false): string[] {
  const first = mkdirSync(path, { recursive: true, mode })
  if (!isOperators) requireNoLink(path)
  if (first === undefined) return []
  const changed: string[] = []
  for (let at = path; at.length >= first.length; at = dirname(at)) changed.push(dirname(at))
  return changed
}

/** True afterwards: no file has this name. */
export function removeFile(path: string): void {
  try {
    unlinkSync(path)
  } catch (error) {
    if (errno(error) !== 'ENOENT') throw error
  }
}

/** True afterwards: the file was modified just now, as far as its times tell. One that is gone stays gone. */
export function touch(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (!found?.isFile() || found.nlink > 1) return // the times of somebody else's file are his
  const now = new Date()
  try {
    lutimesSync(path, now, now)
  } catch (error) {
    if (errno(error) !== 'ENOENT') throw error
  }
}

/** The nearest directory above `path` that exists. */
function nearest(path: string): string {
  for (let at = path; ; at = dirname(at)) if (at === '/' || lstatSync(at, { throwIfNoEntry: false })) return at
}

/** Whether a file that is in one directory can be renamed into the other; they need not exist yet. */
export const isOneFileSystem = (one: string, other: string): boolean =>
  lstatSync(nearest(one)).dev === lstatSync(nearest(other)).dev

/** What a file is, exactly enough that two hosts which see the same can only be looking at the same file. */
export interface Probe {
  inode: string
  /** Time of its last change, ns. */
  changed: string
  size: number
}

/**
 * By this two hosts tell whether they share a file. It is opened first: only then does NFS ask its server for the
 * file's times, instead of taking those that it remembers (nfs(5), close-to-open consistency).
 */
export function probeOf(path: string): Probe | undefined {
  try {
    const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    try {
      const { ino, ctimeNs, size } = fstatSync(fd, { bigint: true })
      return { inode: String(ino), changed: String(ctimeNs), size: Number(size) }
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (errno(error) === 'ENOENT') return undefined
    throw error
  }
}

/** A directory, whether or not it exists yet, can be written to. @throws an error of the operating system */
export const requireWritable = (path: string): void => accessSync(nearest(path), constants.W_OK)

/** Bytes that may still be written under a directory, whether or not it exists yet. */
export function freeSpace(path: string): number {
  const { bavail, bsize } = statfsSync(nearest(path))
  return bavail * bsize
}

/**
 * Whether files under a directory can be written past the page cache (O_DIRECT), whether or not it exists yet.
 * It is tried on a file that has no name (O_TMPFILE): nothing is ever to be seen of it.
 */
export function isDirectAt(path: string): boolean {
  const nameless = 0o20000000 | constants.O_DIRECTORY
  try {
    closeSync(openSync(nearest(path), nameless | O_RDWR | constants.O_DIRECT, 0o600))
    return true
  } catch {
    return false // it cannot, or it cannot be found out
  }
}

/** Magic of btrfs and XFS, statfs(2): file systems where a copy may share its blocks with the original. */
const sharing = [0x9123683e, 0x58465342]

/** Whether copies of files below a directory take no space, as far as its kind of file system tells. */
export const sharesBlocks = (path: string): boolean => sharing.includes(statfsSync(nearest(path)).type)

/** Refuse before anything is written where the file system cannot hold it. @param need bytes @param free bytes */
export function requireSpace(need: number, free: number, directory: string): void {
  if (need <= free) return
  const message = `Cannot write ${formatSize(need)} under "${directory}": only ${formatSize(free)} are free there`
  refuse('NO_SPACE', message, `free at least ${formatSize(need - free)}, or choose another --instances directory`)
}
