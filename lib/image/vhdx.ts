import { type ImageFile, isPowerOfTwo, makeWhole, type Reader, reject, startsWith, u64le } from './file.ts'

const KiB = 1024
const MiB = 2 ** 20

/** Identifiers of [MS-VHDX], as their bytes stand in the file. */
const ids = {
  metadata: '06a27c8b90479a4bb8fe575f050f886e',
  blockTable: '6677c22d23f600429d64115e9bfd4a08',
  parameters: '3767a1ca36fa434db3b633f0aa44e76b',
  virtualSize: '2442a52f1bcd7648b2115dbed83bf4b8',
  sectorSize: '1dbf41816fa90947ba47f233a8faab5f',
  parentLocator: '2d5fd3a80bb34d45abf7d3d84834ab0c',
}

interface Entry {
  offset: number
  length: number
}

/** Entries of 32 bytes, each an id and a place. One id twice: readers differ on which one counts. */
function table(file: ImageFile, what: string, bytes: Buffer, count: number, at: number, place: (at: number) => Entry) {
  const entries = new Map<string, Entry>()
  if (at + count * 32 > bytes.length) reject(file.path, `its ${what} of ${count} entries is absurd`)
  for (let i = 0; i < count; i++) {
    const entryAt = at + i * 32
    const id = bytes.toString('hex', entryAt, entryAt + 16)
    if (entries.has(id)) reject(file.path, `its ${what} has an entry twice`)
    entries.set(id, place(entryAt))
  }
  return (id: string): Entry => entries.get(id) ?? reject(file.path, `its ${what} lacks an entry`)
}

/**
 * The header that counts: of the two copies, each with its checksum, the later one.
 * A log is named there as long as its entries may have to be written to their places first; then nothing else can be
 * believed.
 */
function checkHeaders(file: ImageFile): void {
  const [current, older] = [64 * KiB, 128 * KiB]
    .map((at) => file.read(at, 4 * KiB))
    .filter((header) => startsWith(header, 'head') && hasSum(header) && header.readUInt16LE(66) === 1)
    .sort((a, b) => u64le(b, 8) - u64le(a, 8))
  if (!current) reject(file.path, 'it has no valid vhdx header')
  // Some tools write the very same one twice.
  const differ = older && current.readBigUInt64LE(8) === older.readBigUInt64LE(8) && !current.equals(older)
  if (differ) reject(file.path, 'its two vhdx headers differ and are of the same age')
  if (current.subarray(48, 64).some((byte) => byte !== 0))
    reject(file.path, 'it was not closed: its log is to be replayed', 'start and stop a guest on it where it was made')
}

/** CRC-32C, half a byte at a time. */
const nibbles = Uint32Array.from({ length: 16 }, (_, i) => {
  let crc = i
  for (let bit = 0; bit < 4; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc
})

/** The CRC-32C of all bytes stands at byte 4, where zeros are counted in its place. */
function hasSum(bytes: Buffer): boolean {
  let crc = 0xffffffff
  for (let i = 0; i < bytes.length; i++) {
    crc ^= i >= 4 && i < 8 ? 0 : (bytes[i] ?? 0)
    crc = (crc >>> 4) ^ (nibbles[crc & 15] ?? 0)
    crc = (crc >>> 4) ^ (nibbles[crc & 15] ?? 0)
  }
  return (crc ^ 0xffffffff) >>> 0 === bytes.readUInt32LE(4)
}

/** Hyper-V's later format, with what qemu's block/vhdx.c asks of it. */
export const vhdx: Reader = {
  matches: ({ head }) => startsWith(head, 'vhdxfile'),
  read(file) {
    const must = (ok: boolean, state: string, remedy?: string): void => {
      if (!ok) reject(file.path, state, remedy)
    }
    checkHeaders(file)
    // The first of the two copies: the one that qemu reads.
    const regionBytes = file.read(192 * KiB, 64 * KiB)
    must(startsWith(regionBytes, 'regi'), 'its region table is missing')
    const region = table(file, 'region table', regionBytes, regionBytes.readUInt32LE(8), 16, (at) => ({
      offset: u64le(regionBytes, at + 16),
      length: regionBytes.readUInt32LE(at + 24),
    }))
    const blockTable = region(ids.blockTable)
    must(blockTable.offset >= MiB, 'its block table is at an absurd place')
    must(blockTable.offset + blockTable.length <= file.size, 'it is cut short: its block table is not all there')

    const metadata = region(ids.metadata)
    must(metadata.offset >= MiB && metadata.length >= 64 * KiB, 'its metadata is at an absurd place')
    const apart =
      metadata.offset + metadata.length <= blockTable.offset || blockTable.offset + blockTable.length <= metadata.offset
    must(apart, 'its block table and its metadata lie in the same place')
    const bytes = file.read(metadata.offset, 64 * KiB)
    must(startsWith(bytes, 'metadata'), 'its metadata is missing')
    const items = table(file, 'metadata', bytes, bytes.readUInt16LE(10), 32, (at) => ({
      offset: bytes.readUInt32LE(at + 16),
      length: bytes.readUInt32LE(at + 20),
    }))
    const item = (id: string, length: number): Buffer => {
      const { offset } = items(id)
      must(offset >= 64 * KiB && offset + length <= metadata.length, 'its metadata is at an absurd place')
      return file.read(metadata.offset + offset, length)
    }
    const parameters = item(ids.parameters, 8)
    must((parameters.readUInt32LE(4) & 2) === 0, 'it is a differencing vhdx, which needs a parent', makeWhole)
    must(!bytes.includes(ids.parentLocator, 32, 'hex'), 'it is a vhdx that names a parent', makeWhole)
    const blockSize = parameters.readUInt32LE(0)
    const plausible = isPowerOfTwo(blockSize) && blockSize >= MiB && blockSize <= 256 * MiB
    must(plausible, `its vhdx blocks of ${blockSize} bytes are absurd`)
    const sectorSize = item(ids.sectorSize, 4).readUInt32LE(0)
    must(sectorSize === 512, `its sectors are of ${sectorSize} bytes, not of 512`)
    const virtualSize = u64le(item(ids.virtualSize, 8), 0)
    must(virtualSize <= 64 * 2 ** 40, 'its virtual size is more than the 64 TiB of a vhdx')
    must(virtualSize % sectorSize === 0, 'its virtual size is no whole number of sectors')
    const blocks = Math.ceil(virtualSize / blockSize)
    // After so many entries comes one for a bitmap, which only images with a parent use.
    const bitmaps = Math.floor(Math.max(0, blocks - 1) / ((2 ** 23 * sectorSize) / blockSize))
    must(blockTable.length >= (blocks + bitmaps) * 8, 'its block table is too small for its virtual size')
    must(hasSum(regionBytes), 'the checksum of its region table is wrong')
    return virtualSize
  },
}
