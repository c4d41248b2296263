import { Problem } from '../job/problem.ts'
import { type ImageFile, openImage, u64be } from './file.ts'
import { isQcow, type Qcow2Header, qcow2Header } from './qcow2.ts'

// What a guest sees at some place of its disk, read without starting a program. Only what one needs to know what is on
// the disk: a few sectors. Source: qemu's docs/interop/qcow2.txt, "Cluster mapping"; block/qcow2-cluster.c.

/** A disk as it is pinned. `base`: the raw file that it stands on; without it, on nothing. */
export interface GuestDisk {
  path: string
  format: 'qcow2' | 'raw'
  base?: string | undefined
}

/** More is not asked for at once, bytes. */
const most = 2 ** 17

const bit = (n: number): bigint => 1n << BigInt(n)
/** Bits 9 to 55 of an entry of L1 and L2 tables: where a cluster begins in the file. */
const place = bit(56) - bit(9)

/** Where the bytes of one unit (a cluster, or a subcluster) are. */
type Source = 'base' | 'zeros' | { at: number } | { packed: Buffer; skip: number }

/** @returns bytes that the guest sees of the disk in all; undefined where its header is no good */
export const guestSize = (disk: GuestDisk): number | undefined =>
  unlessRejected(() =>
    openImage(disk.path, (file) => (disk.format === 'raw' ? file.size : headerOf(file)?.virtualSize)),
  )

/**
 * Bytes that a guest sees of its disk. Nobody follows a name in a header, and what a guest wrote cannot make this read
 * much, or for long.
 * @param offset @param length bytes; at most 128 KiB
 * @returns undefined where it cannot be told (damaged, encrypted, an external data file, packed by zstd), or the disk
 *   ends before
 * @throws the system's error (`ENOENT` …) where a file cannot be read
 */
export async function guestBytes(disk: GuestDisk, offset: number, length: number): Promise<Buffer | undefined> {
  if (length > most) throw new TypeError(`${length} bytes are too many at once`)
  const { constants, inflateRawSync } = await import('node:zlib')
  /** What follows a packed cluster in its last sector is not its own. */
  const unpacking = { windowBits: 12, finishFlush: constants.Z_SYNC_FLUSH }
  const unpack = (packed: Buffer, clusterSize: number): Buffer | undefined => {
    try {
      return inflateRawSync(packed, { ...unpacking, maxOutputLength: clusterSize })
    } catch {
      return undefined
    }
  }
  return unlessRejected(() =>
    openImage(disk.path, (file) => {
      if (disk.format === 'raw') return offset + length <= file.size ? upTo(file, offset, length) : undefined
      const header = headerOf(file)
      if (!header || header.encrypted || header.dataFile || offset + length > header.virtualSize) return undefined
      // It is not what it is taken for.
      if (header.backing !== undefined && disk.base === undefined) return undefined
      const unit = unitOf(header)
      const parts: Buffer[] = []
      for (let at = offset; at < offset + length; at += parts.at(-1)?.length ?? 0) {
        const inside = at % unit
        const count = Math.min(unit - inside, offset + length - at)
        const source = sourceOf(file, header, at)
        const part =
          typeof source !== 'object'
            ? source && below(source === 'base' ? disk.base : undefined, at, count)
            : 'at' in source
              ? upTo(file, source.at + inside, count)
              : unpack(source.packed, header.clusterSize)?.subarray(source.skip + inside, source.skip + inside + count)
        if (part?.length !== count) return undefined
        parts.push(part)
      }
      return Buffer.concat(parts)
    }),
  )
}

/** A cluster may be in several places: then it has 32 parts. */
const unitOf = ({ clusterSize, extendedL2 }: Qcow2Header): number => (extendedL2 ? clusterSize / 32 : clusterSize)

const headerOf = (file: ImageFile): Qcow2Header | undefined => (isQcow(file) ? qcow2Header(file) : undefined)

/** Behind its end, a file reads as zeros: so does qemu. */
function upTo(file: ImageFile, at: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  const there = Math.max(0, Math.min(length, file.size - at))
  if (there > 0) file.read(at, there).copy(bytes)
  return bytes
}

const below = (base: string | undefined, at: number, length: number): Buffer =>
  base === undefined ? Buffer.alloc(length) : openImage(base, (file) => upTo(file, at, length))

/** Where the unit is that holds byte `at` of the disk; undefined where its entries are absurd, or of no use here. */
function sourceOf(file: ImageFile, header: Qcow2Header, at: number): Source | undefined {
  const { clusterSize, extendedL2 } = header
  const entrySize = extendedL2 ? 16 : 8
  const cluster = Math.floor(at / clusterSize)
  const perTable = clusterSize / entrySize
  const l1At = u64be(file.head, 40) + Math.floor(cluster / perTable) * 8
  const l2At = clusterAt(file.read(l1At, 8).readBigUInt64BE() & place, clusterSize)
  if (l2At === undefined) return undefined
  if (l2At === 0) return 'base'
  const entry = file.read(l2At + (cluster % perTable) * entrySize, entrySize)
  const what = entry.readBigUInt64BE()
  if ((what & bit(62)) !== 0n) return header.compression === 'zlib' ? packedAt(file, what, header, at) : undefined
  const dataAt = clusterAt(what & place, clusterSize)
  if (dataAt === undefined) return undefined
  if (extendedL2) {
    const subcluster = Math.floor((at % clusterSize) / unitOf(header))
    const bitmap = entry.readBigUInt64BE(8)
    const isAllocated = (bitmap & bit(subcluster)) !== 0n
    const isZero = (bitmap & bit(32 + subcluster)) !== 0n
    if (isAllocated && (isZero || dataAt === 0)) return undefined
    if (isZero) return 'zeros'
    return isAllocated ? { at: dataAt + subcluster * unitOf(header) } : 'base'
  }
  if ((what & 1n) !== 0n) return header.version === 2 ? undefined : 'zeros'
  return dataAt === 0 ? 'base' : { at: dataAt }
}

/** A cluster lies where a cluster can lie. */
const clusterAt = (offset: bigint, clusterSize: number): number | undefined =>
  offset % BigInt(clusterSize) === 0n && Number.isSafeInteger(Number(offset)) ? Number(offset) : undefined

/** A compressed cluster: "Compressed Clusters Descriptor". */
function packedAt(file: ImageFile, what: bigint, header: Qcow2Header, at: number): Source {
  const { clusterSize } = header
  const sizeBits = BigInt(Math.log2(clusterSize) - 8)
  const offset = Number(what & (bit(62 - Number(sizeBits)) - 1n))
  const sectors = Number((what >> (62n - sizeBits)) & (bit(Number(sizeBits)) - 1n)) + 1
  const length = Math.min(sectors * 512 - (offset % 512), Math.max(0, file.size - offset))
  // A unit may be a part of it only.
  const inside = at % clusterSize
  return { packed: file.read(offset, length), skip: inside - (inside % unitOf(header)) }
}

/** @returns undefined where an image is not good enough to be read */
function unlessRejected<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof Problem && error.code === 'IMAGE_REJECTED') return undefined
    throw error
  }
}
