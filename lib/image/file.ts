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
  /** Exactly these bytes. @throws {Problem} IMAGE_REJECTED where the file ends before, or at absurd lengths */
  read: (offset: number, length: number) => Buffer
}

/** What we know of one format: whether a file is of it, and what it says of itself. */
export interface Reader {
  /** By its magic alone: a broken or hostile image of this format is still of this format. */
  matches: (file: ImageFile) => boolean
  /** @returns its virtual size in bytes @throws {Problem} IMAGE_REJECTED unless it is whole and stands alone */
  read: (file: ImageFile) => number
}

/** No structure that we read is larger; qemu's own tables are not read, only where they lie. */
const mostRead = 2 ** 20

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
 * @throws {Problem} IMAGE_REJECTED where it is something else; the error of the system (`ENOENT` …) as it is
 */
export function openImage<T>(path: string, use: (file: ImageFile) => T, name = path): T {
  const fd = openPlain(path)
  try {
    const stat = fstatSync(fd)
    if (!stat.isFile()) reject(name, 'it is not a regular file', 'give the path of a file')
    const { size } = stat
    return use({
      path: name,
      size,
      head: readUpTo(fd, 0, Math.min(size, 4096)),
      read(offset, length) {
        if (length > mostRead) reject(name, `it has a structure of ${length} bytes, which is absurd`)
        const bytes = offset + length <= size ? readUpTo(fd, offset, length) : undefined
        if (bytes?.length !== length) reject(name, `it is cut short: it should go on at byte ${offset}`)
        return bytes
      },
    })
  } finally {
    closeSync(fd)
  }
}

function openPlain(path: string): number {
  try {
    // O_NONBLOCK: opening a FIFO would wait for its writer. For files it means nothing.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (error) {
    if (errno(error) === 'ELOOP') reject(path, 'it is a symbolic link', 'give the path of the file that it points to')
    if (errno(error) === 'ENXIO') reject(path, 'it is not a regular file', 'give the path of a file')
    throw error
  }
}

/** The last 512 bytes; empty where there are not so many. */
export const tailOf = (file: ImageFile): Buffer => (file.size < 512 ? Buffer.alloc(0) : file.read(file.size - 512, 512))

/** Beyond 2^53 it is not exact, but then it is also beyond every bound that it is compared with. */
export const u64be = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64BE(at))
export const u64le = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64LE(at))

export const startsWith = (bytes: Buffer, magic: string): boolean =>
  bytes.length >= magic.length && bytes.toString('latin1', 0, magic.length) === magic

export const isPowerOfTwo = (n: number): boolean => n > 0 && Number.isInteger(Math.log2(n))

/** `n` as the next multiple of `unit`. */
export const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit
