import { closeSync, constants, fstatSync, fsyncSync, ftruncateSync, openSync, readSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Qcow2Header, readQcow2 } from '../image/qcow2.ts'
import { rebasedCluster, rebaseHeader } from '../image/qcow2-write.ts'
import { refuse } from '../job/problem.ts'
import { exactSize } from '../job/spec.ts'
import { isDirectAt, openPart, ownFileAt, removeFile } from './files.ts'
import { type Image, percentIn, qemuImg } from './qemu-img.ts'

// What is done to disks of a guest that is off. What an overlay stands on is always told to qemu-img: the name in a
// header is only written, never followed.

interface Options {
  signal?: AbortSignal | undefined
  /** @param done @param total bytes of the disk as the guest sees it */
  onProgress?: (done: number, total: number) => void
}

/** A base, which everybody may read. */
const raw = (path: string): Image => ({ path, format: 'raw' })

/**
 * True afterwards: the overlay's header names `base`, of which the guest must see the same as of what it stood on.
 * No other byte of it is changed.
 * @throws {Problem} NOT_OURS, IMAGE_REJECTED, UNSUPPORTED where the name does not fit into it
 */
export function pointOverlay(path: string, base: string): void {
  const header = overlayAt(path)
  const fd = openToWrite(path)
  try {
    rebaseHeader(fd, path, header, base)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * There is room for the name of a base in the first cluster of an overlay: it has to fit before anything is copied. Also
 * of one that a guest writes to: what is before its tables stays as it is.
 * @throws {Problem} UNSUPPORTED where there is not; NOT_OURS, IMAGE_REJECTED
 */
export function requireRoomForName(path: string, base: string): void {
  const { clusterSize } = overlayAt(path)
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const cluster = Buffer.alloc(clusterSize)
    readSync(fd, cluster, 0, clusterSize, 0)
    rebasedCluster(cluster, path, base)
  } finally {
    closeSync(fd)
  }
}

/**
 * True afterwards: the overlay stands on `to`, and its guest sees what it saw on `from`. What these two have in common is
 * left out, and the rest is copied into the overlay as far as it did not hide it. Both are raw; behind its end each is
 * zeros. Cut off at any moment it still shows the same on `from`, and the same again completes it.
 * @throws {Problem} NOT_OURS, IMAGE_REJECTED, NO_SPACE, TOOL_FAILED
 */
export async function shiftOverlay(
  { path, from, to }: { path: string; from: string; to: string },
  { signal, onProgress }: Options = {},
): Promise<void> {
  const header = overlayAt(path)
  if (header.backing === to) return // it says so only when the rest is done
  const fd = openToWrite(path)
  try {
    // Both are read from end to end, holes too: through the page cache that takes ten times as long, and all of it.
    const direct = isDirectAt(dirname(from)) && isDirectAt(dirname(to))
    const below = { ...raw(from), direct }
    await qemuImg(
      ['qemu-img', 'rebase', '-p', ...(direct ? ['-T', 'none'] : []), '-f', 'qcow2', '-b', to, '-F', 'raw', path],
      { images: [{ path, format: 'qcow2', fd, on: below }, raw(to)], size: header.virtualSize },
      { why: `rebase "${path}"`, signal, onOutput: percents(header, onProgress) },
    )
    // What has been copied is on the device before the header says that it can be relied on.
    fsyncSync(fd)
    // qemu-img wrote a name that meant something to itself alone.
    rebaseHeader(fd, path, overlayAt(path), to)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/**
 * True afterwards: `to` is a qcow2 that stands on nothing, of what the guest sees in the overlay on `base`. It is flushed,
 * and sparse where that is zeros. The overlay is only read.
 * @throws {Problem} NOT_OURS, IMAGE_REJECTED, NO_SPACE, TOOL_FAILED; then nothing is left of `to`
 */
export async function flattenOverlay(
  { path, base, to }: { path: string; base: string; to: string },
  { signal, onProgress }: Options = {},
): Promise<void> {
  const header = overlayAt(path)
  const size = header.virtualSize
  // A failed flush is told to the descriptors that were open then: ours is.
  const fd = openPart(to, 0o600)
  try {
    const pace = isDirectAt(dirname(to)) ? ['-t', 'none', '-W', '-m', '16'] : ['-m', '8']
    await qemuImg(
      ['qemu-img', 'convert', '-p', ...pace, '-f', 'qcow2', '-O', 'qcow2', path, to],
      {
        images: [{ path, format: 'qcow2', on: raw(base), lent: true }],
        size,
        makes: { path: to, fd, format: 'qcow2' },
      },
      { why: `flatten "${path}"`, signal, onOutput: percents(header, onProgress) },
    )
    fsyncSync(fd)
    const made = overlayAt(to)
    if (made.backing !== undefined || made.virtualSize !== size)
      refuse(
        'IMAGE_REJECTED',
        `Cannot flatten "${path}": qemu-img sees ${made.virtualSize} bytes in it, and cowhand ${size}`,
        `find out what is wrong with it: qemu-img check ${path}`,
      )
  } catch (error) {
    removeFile(to)
    throw error
  } finally {
    closeSync(fd)
  }
}

/**
 * True afterwards: the disk has this size, and behind what the guest knew of it there are zeros: also where the base is
 * larger than the disk was.
 * @param disk.base what a qcow2 stands on, if anything
 * @param disk.size bytes
 * @throws {Problem} DISK_TOO_SMALL, NOT_OURS, IMAGE_REJECTED, NO_SPACE, TOOL_FAILED
 */
export async function growDisk(
  disk: { path: string; format: 'qcow2' | 'raw'; size: number; base?: string },
  { signal }: Options = {},
): Promise<void> {
  const { path, format, size, base } = disk
  const fd = openToWrite(path)
  try {
    const now = format === 'raw' ? fstatSync(fd).size : overlayAt(path).virtualSize
    if (now > size)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot shrink "${path}" to ${exactSize(size)}: it has ${exactSize(now)}`,
        `ask for at least that: ${exactSize(now)}`,
      )
    if (format === 'raw') ftruncateSync(fd, size)
    else
      await qemuImg(
        ['qemu-img', 'resize', '-q', '-f', 'qcow2', path, String(size)],
        { images: [{ path, format, fd, on: base === undefined ? undefined : raw(base) }], size },
        { why: `grow "${path}"`, signal },
      )
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

function overlayAt(path: string): Qcow2Header {
  const header = readQcow2(path)
  return header ?? refuse('NOT_OURS', `Cannot use "${path}": it is no qcow2`, `look at it: qemu-img info ${path}`)
}

/** @throws {Problem} NOT_OURS where it is no file, or has a second name through which others' bytes would change */
function openToWrite(path: string): number {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants
  if (!ownFileAt(path)) refuse('MISSING_PREREQUISITE', `Cannot change "${path}": there is no such disk`, 'name a disk')
  return openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK)
}

/** Tells what qemu-img tells in percent as bytes of the disk. */
function percents({ virtualSize }: Qcow2Header, onProgress: Options['onProgress']): (chunk: string) => void {
  return (chunk) => {
    const percent = percentIn(chunk)
    if (percent !== undefined) onProgress?.(Math.round((percent / 100) * virtualSize), virtualSize)
  }
}
