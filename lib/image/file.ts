import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { errno, refuse } from '../job/problem.ts'

/** An image file, open for looking at its structure. Its bytes are not trusted. */
export interface ImageFile {
  /** What errors call it. */
  path: string
  /** Length of the file in bytes. */
  size: number
  /** The first 4096 bytes, or as many as there are. */
  head: Buffer
  /**
   * Exactly these bytes.
   * @throws {Problem} IMAGE_REJECTED where the file ends before, at absurd lengths, and when too much was read in all
   */
  read: (offset: number, length: number) => Buffer
}

/** What we know of one format: whether a file is of it, and what it says of itself. */
export interface Reader {
  /** By its magic alone: a broken or hostile image of this format is still of this format. */
  matches: (file: ImageFile) => boolean
  /** @returns its virtual size in bytes @throws {Problem} IMAGE_REJECTED unless it is whole and stands alone */
  read: (file: ImageFile) => number
}

/** No structure that we read is larger, in bytes; qemu's own tables are not read, only where they lie. */
const mostAtOnce = 2 ** 18
/** All that is read of one image, in bytes: it bounds our time and memory, whatever the image says of itself. */
export const mostInAll = 2 ** 20

const getAnother = 'get the image again from its source, or use another one'

/** For images that reach out to other files: only their maker's host can make them whole. */
export const makeWhole = 'if you trust its maker, have it made whole: qemu-img convert -O qcow2 IMAGE NEW-IMAGE'

/** @throws {Problem} IMAGE_REJECTED always: `Cannot use image "PATH": STATE` */
export function reject(path: string, state: string, remedy = getAnother): never {
  refuse('IMAGE_REJECTED', `Cannot use image "${path}": ${state}`, remedy)
}

/** Bytes from `offset` on; fewer where the file ends. */
function readUpTo(fd: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let got = 0
  while (got < length) {
    const more = readSync(fd, bytes, got, length - got, offset + got)
    if (more === 0) break
    got += more
  }
  return bytes.subarray(0, got)
}

/**
 * Give the open image to `use`, which must be done with it when it returns.
 * Only a regular file is opened, and no symbolic link is followed: neither a device nor a FIFO can hang or mislead us.
 * @param name what the operator calls it, where that is not its path
 * @param isDevice a block device is as good
 * @throws {Problem} IMAGE_REJECTED where it is something else; the error of the system (`ENOENT` …) as it is
 */
export function openImage<T>(path: string, use: (file: ImageFile) => T, name = path, isDevice = false): T {
  const fd = openPlain(path, name)
  try {
    const stat = fstatSync(fd)
    const isBlock = isDevice && stat.isBlockDevice()
    if (!stat.isFile() && !isBlock) reject(name, 'it is not a regular file', 'give the path of a file')
    const size = isBlock ? Number.MAX_SAFE_INTEGER : stat.size // a device does not tell
    const head = readUpTo(fd, 0, Math.min(size, 4096))
    let left = mostInAll - head.length
    return use({
      path: name,
      size,
      head,
      read(offset, length) {
        if (length > mostAtOnce) reject(name, `it has a structure of ${length} bytes, which is absurd`)
        left -= length
        if (left < 0) reject(name, `its structures have more than ${mostInAll} bytes, which is absurd`)
        const bytes = offset + length <= size ? readUpTo(fd, offset, length) : undefined
        if (bytes?.length !== length) reject(name, `it is cut short: it should go on at byte ${offset}`)
        return bytes
      },
    })
  } finally {
    closeSync(fd)
  }
}

function openPlain(path: string, name: string): number {
  try {
    // O_NONBLOCK: opening a FIFO would wait for its writer. For files it means nothing.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (errno(error) === 'ELOOP') reject(name, 'it is a symbolic link', 'give the path of the file that it points to')
    if (errno(error) === 'ENXIO') reject(name, 'it is not a regular file', 'give the path of a file')
    throw error
  }
}

/** The last 512 bytes; empty where there are not so many. */
export const tailOf = (file: ImageFile): Buffer => (file.size < 512 ? Buffer.alloc(0) : file.read(file.size - 512, 512))

/** What qemu takes for the last 512 bytes: it rounds the size up to whole sectors. Shorter where the file ends before. */
export function lastSectorOf(file: ImageFile): Buffer {
  const at = Math.max(0, roundUp(file.size, 512) - 512)
  return file.read(at, file.size - at)
}

/** Beyond 2^53 it is not exact, but then it is also beyond every bound that it is compared with. */
export const u64be = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64BE(at))
export const u64le = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at))

/** `magic` stands at `at`. */
export const startsWith = (bytes: Buffer, magic: string, at = 0): boolean =>
  bytes.length >= at + magic.length && bytes.toString('latin1', at, at + magic.length) === magic

export const isPowerOfTwo = (n: number): boolean => n > 0 && Number.isInteger(Math.log2(n))

/** `n` as the next multiple of `unit`. */
export const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit
