import { closeSync, constants, fstatSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'
import { type FileSystem, fileSystemOn } from '../image/file-system.ts'
import { type GuestDisk, guestSize } from '../image/guest-bytes.ts'
import { readQcow2 } from '../image/qcow2.ts'
import type { Tell } from '../job/events.ts'
import { growingOf, partOf } from '../job/layout.ts'
import { fail, refuse } from '../job/problem.ts'
import { fileAt, flush, freeSpace, openPart, ownFileAt, publish, removeFile } from './files.ts'
import { handOver, openReadable, qemuImg } from './qemu-img.ts'
import { isSandboxUser, powers, sandboxEnvironment } from './sandbox.ts'

// A bare file system inside a disk is grown in a layer on top of the disk: whatever goes wrong there, the disk is as it
// was. When the layer is proven whole and flushed, it gets its name, and is merged into the disk; a merge that was cut
// off is done again from the beginning, for it writes the same bytes to the same places.

interface Options {
  signal: AbortSignal
  tell: Tell
}

/** Disks that this run had to leave as they are (by path): what they were then. Without it no plan would be settled. */
const left = new Map<string, string | undefined>()

export interface FoundGrowth {
  is: FileSystem
  /** A larger file system would fit into the disk, and this run has not tried it in vain. */
  canGrow: boolean
  /** A merge was cut off: the disk is not whole until it is finished. */
  isCut: boolean
  /** A layer that was not finished, and is worth nothing. */
  leftover: boolean
}

/**
 * What of the disk could be grown; no program is started. Undefined where there is no disk.
 * @throws {Problem} NOT_OURS where something else than a file of one name is there
 */
export async function growthOf(disk: GuestDisk): Promise<FoundGrowth | undefined> {
  const facts = ownFileAt(disk.path)
  if (!facts) return undefined
  const { is, isFull } = await fileSystemOn(disk)
  return {
    is,
    canGrow: !isFull && left.get(disk.path) !== facts.stamp,
    isCut: fileAt(growingOf(disk.path)) !== undefined,
    leftover: fileAt(partOf(growingOf(disk.path))) !== undefined,
  }
}

/** Programs that this file system needs to be grown. @throws {Problem} TOOL_MISSING */
export async function requireGrowTools(is: FileSystem): Promise<void> {
  const { requireProgram } = await import('./ask.ts')
  const { growTools } = await import('./grow-script.ts')
  for (const tool of growTools[is === 'xfs' ? 'xfs' : 'ext']) await requireProgram(tool)
}

/**
 * Grow the bare ext2, ext3, ext4 or xfs file system in a disk to the disk's end. One that is damaged is left to its
 * guest, and so is one that needs what this host does not allow: a notice tells why, and the disk is as it was.
 * @returns `full`: there was nothing to grow; `none`: there is no file system, or it was left as it is
 * @throws {Problem} IN_USE; NO_SPACE; TOOL_MISSING; NOT_OURS; the signal's reason when aborted. Run again, it goes on.
 */
export async function growFileSystem(disk: GuestDisk, options: Options): Promise<'grown' | 'full' | 'none'> {
  const found = await growthOf(disk)
  if (!found) return 'none'
  if (found.isCut) await merge(disk, options)
  const { is, isFull } = found.isCut ? await fileSystemOn(disk) : { is: found.is, isFull: !found.canGrow }
  if (isFull) return found.isCut ? 'grown' : ['none', 'partitioned', 'unknown'].includes(is) ? 'none' : 'full'
  await requireGrowTools(is)
  const part = partOf(growingOf(disk.path))
  try {
    const why = await growInLayer(disk, is, part, options)
    if (why !== undefined) {
      left.set(disk.path, fileAt(disk.path)?.stamp)
      const remedy = is === 'xfs' ? 'xfs_growfs MOUNTPOINT' : 'resize2fs DEVICE'
      const message = `the ${is} file system in "${disk.path}" was not grown: ${why}; in the guest: ${remedy}`
      options.tell({ type: 'notice', message })
      return found.isCut ? 'grown' : 'none'
    }
    publish(part, growingOf(disk.path), 0o600)
  } finally {
    removeFile(part)
  }
  flush(dirname(disk.path))
  await merge(disk, options)
  return 'grown'
}

/** @returns why it was not possible; undefined: the layer holds the grown file system */
async function growInLayer(disk: GuestDisk, is: FileSystem, part: string, options: Options) {
  const { path, format, base } = disk
  const size = guestSize(disk) ?? 0
  if (size % 512 !== 0) return `the disk has ${size} bytes, which is no multiple of 512`
  const { namespaces, user: root } = powers()
  if (is === 'xfs' && !namespaces) return 'that needs a mount, and cowhand has not the rights of root (CAP_SYS_ADMIN)'
  const user = namespaces ? root : undefined
  const { overlayBytes } = await import('../image/qcow2-write.ts')
  const { growScript } = await import('./grow-script.ts')
  const { program } = await import('./shell.ts')
  const { bytes } = overlayBytes({ virtualSize: size, backing: path, backingFormat: format })
  removeFile(part)
  const layerFd = openPart(part, 0o600)
  const fds = [layerFd]
  const open = (file: string, reader?: number): number => {
    const fd = openReadable(file, reader)
    fds.push(fd)
    return fd
  }
  let owner: number | undefined
  try {
    writeSync(layerFd, bytes)
    handOver(layerFd, user)
    const diskFd = open(path)
    owner = ownerOf(diskFd)
    handOver(diskFd, user)
    const below = base === undefined ? [] : [open(base, user)]
    const kind = is === 'xfs' ? 'xfs' : 'ext'
    const done = await program(growScript(kind, { format, hasBase: base !== undefined, size }), {
      why: `grow the file system in "${path}"`,
      signal: options.signal,
      env: { ...sandboxEnvironment, E2FSCK_CONFIG: '/dev/null' },
      files: [diskFd, layerFd, ...below],
      accept: [1],
    })
    if (done.code !== 0) return whyNot(done.stdout, path)
    // It was open before: a write that failed is told to this descriptor.
    fsyncSync(layerFd)
    return undefined
  } finally {
    const [, diskFd] = fds
    if (user !== undefined && diskFd !== undefined) handOver(diskFd, owner)
    fds.forEach(closeSync)
  }
}

/** Who is to have a file again. A run that was killed may have left it to the user that a program worked as. */
function ownerOf(fd: number): number | undefined {
  const { uid } = fstatSync(fd)
  return isSandboxUser(uid) ? process.geteuid?.() : uid
}

/** qemu's own lock keeps its programs away from a disk that a guest writes to. @throws {Problem} IN_USE */
function requireUnused(words: string, path: string): void {
  if (/Failed to get .*lock/.test(words))
    refuse('IN_USE', `Cannot grow the file system in "${path}": a guest uses the disk`, 'shut the guest down first')
}

/** What the script said last. @throws {Problem} IN_USE, NO_SPACE: these are no faults of the file system */
function whyNot(output: string, path: string): string {
  requireUnused(output, path)
  const [stage = '', ...lines] = output.slice(output.lastIndexOf('@') + 1).split('\n')
  if (/No space left on device/.test(output) || freeSpace(dirname(path)) < 2 ** 20)
    fail(
      'NO_SPACE',
      `Cannot grow the file system in "${path}": no space is left on the device`,
      'free some space, then run the same command again',
    )
  const words = lines
    .map((line) => line.replaceAll('/tmp/disk', path).trim())
    .filter((line) => line !== '')
    .slice(0, 2) // what was said as an error comes first
  if (stage === 'xfs_repair -n') words.push('it finds errors, or a log that is not empty')
  return `${stage}: ${words.join('; ').slice(0, 200) || 'it does not succeed'}`
}

/** After so many ms a merge has long ended: what is newer in the disk, somebody else wrote. */
const mergeLasts = 600_000

/** True afterwards: the disk holds what the layer held, and the layer is gone. */
async function merge(disk: GuestDisk, { signal }: Options): Promise<void> {
  const { path, format, base } = disk
  const layer = growingOf(path)
  const size = guestSize(disk) ?? 0
  const header = readQcow2(layer)
  const fds: number[] = []
  const open = (file: string): number => {
    fds.push(openSync(file, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK))
    return fds.at(-1) as number
  }
  try {
    const [layerFd, diskFd] = [open(layer), open(path)]
    const isOlder = fstatSync(diskFd).mtimeMs > fstatSync(layerFd).mtimeMs + mergeLasts
    if (!header || header.dataFile || header.encrypted || header.virtualSize > size || isOlder)
      refuse(
        'NOT_OURS',
        `Cannot finish growing the file system in "${path}": ${isOlder ? 'it was written to after that was cut off' : 'what was grown is not of this disk'}`,
        `move "${layer}" away, and let the guest check its file system`,
      )
    const owner = ownerOf(diskFd)
    const before = identityOf(disk)
    const argv = ['qemu-img', 'commit', '-q', '-d', '-f', 'qcow2', layer]
    const below = base === undefined ? {} : { on: { path: base, format: 'raw' as const } }
    const images = [{ path: layer, format: 'qcow2' as const, fd: layerFd, on: { path, format, fd: diskFd, ...below } }]
    try {
      await qemuImg(argv, { images, size }, { why: `grow the file system in "${path}"`, signal })
    } catch (error) {
      requireUnused(error instanceof Error ? error.message : '', path)
      throw error
    } finally {
      if (powers().user !== undefined) handOver(diskFd, owner)
    }
    // It was open before: a flush that failed is told to this descriptor, whatever the program's exit code says.
    fsyncSync(diskFd)
    if (identityOf(disk) !== before)
      refuse(
        'IMAGE_REJECTED',
        `Cannot use "${path}": qemu-img was misled by it`,
        'use the disk that was kept, or a backup',
      )
  } finally {
    fds.forEach(closeSync)
  }
  removeFile(layer)
  flush(dirname(path))
}

/** What a header says of the disk as a whole: nothing of that may change by a merge. */
function identityOf({ path, format }: GuestDisk): string {
  const { backing, backingFormat, virtualSize, dataFile, encrypted } = (format === 'qcow2' && readQcow2(path)) || {}
  return JSON.stringify([backing, backingFormat, virtualSize, dataFile, encrypted])
}
