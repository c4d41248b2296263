import { refuse } from '../job/problem.ts'
import { type ImageFile, openImage, reject, roundUp, startsWith, u64be } from './file.ts'

/** What a qcow2 file says of itself, checked against qemu's docs/interop/qcow2.txt and the limits of block/qcow2.c. */
export interface Qcow2Header {
  version: 2 | 3
  /** Size of the disk in bytes. */
  virtualSize: number
  /** In bytes. */
  clusterSize: number
  /** Name of the backing file, as it stands in the header. */
  backing?: string
  backingFormat?: string
  /** Its data is in another file. */
  dataFile: boolean
  encrypted: boolean
  /** It was not closed: refcounts (lazy ones) are to be repaired by the next writer. */
  dirty: boolean
  extendedL2: boolean
  compression: 'zlib' | 'zstd'
  /** How many internal snapshots it has. */
  snapshots: number
}

const MiB = 2 ** 20

/** The magic alone: any version of qcow. */
export const isQcow = (file: ImageFile): boolean => startsWith(file.head, 'QFI\xfb')

/**
 * The header of a qcow2 file; one read of 4 KiB nearly always.
 * @returns undefined when it is not qcow2
 * @throws {Problem} IMAGE_REJECTED when the header is torn, absurd, marked corrupt, or has features we do not know
 */
export function readQcow2(path: string): Qcow2Header | undefined {
  return openImage(path, (file) => (isQcow(file) ? qcow2Header(file) : undefined))
}

/** As readQcow2, for a file that is open and has the magic. */
export function qcow2Header(file: ImageFile): Qcow2Header {
  const { head } = file
  const must = (ok: boolean, state: string): void => {
    if (!ok) reject(file.path, state)
  }
  must(head.length >= 72, 'its qcow2 header is cut short')
  const version = head.readUInt32BE(4)
  if (version !== 2 && version !== 3) return reject(file.path, `it is qcow version ${version}, not 2 or 3`)
  must(version === 2 || head.length >= 104, 'its qcow2 header is cut short')

  const clusterBits = head.readUInt32BE(20)
  must(clusterBits >= 9 && clusterBits <= 21, `its clusters of 2^${clusterBits} bytes are absurd`)
  const clusterSize = 2 ** clusterBits
  const headerLength = version === 3 ? head.readUInt32BE(100) : 72
  const plausible = headerLength <= clusterSize && headerLength % 8 === 0 && (version === 2 || headerLength >= 104)
  must(plausible, `its header length of ${headerLength} bytes is absurd`)
  must(headerLength <= head.length, 'its qcow2 header is cut short')

  const features = version === 3 ? head.readUInt32BE(76) : 0
  const unknown = version === 3 && (head.readUInt32BE(72) !== 0 || features > 0x1f)
  must(!unknown, 'it has qcow2 features that are not known here')
  must((features & 2) === 0, 'it is marked as corrupt')
  const extendedL2 = (features & 16) !== 0
  must(!extendedL2 || clusterBits >= 14, 'its clusters are too small for extended L2 entries')
  const compression = headerLength > 104 ? head.readUInt8(104) : 0
  const agreed = compression === ((features & 8) !== 0 ? 1 : 0)
  must(agreed, `its compression type ${compression} is not known, or not what its features say`)
  must(version === 2 || head.readUInt32BE(96) <= 6, 'its refcounts are absurdly wide')
  const encryption = head.readUInt32BE(32)
  must(encryption <= 2, `its encryption ${encryption} is not known`)

  const virtualSize = u64be(head, 24)
  must(virtualSize % 512 === 0 && Number.isSafeInteger(virtualSize), 'its virtual size is absurd')
  checkTables(file, { clusterSize, extendedL2, virtualSize }, must)
  const { dataFile, backingFormat, backing } = readExtensions(file, headerLength, clusterSize, must)
  // Bit 1 of the autoclear features says that the data file is a raw one.
  const rawData = version === 3 && (head.readUInt32BE(92) & 2) !== 0

  return {
    version,
    virtualSize,
    clusterSize,
    ...(backing === undefined ? {} : { backing }),
    ...(backingFormat === undefined ? {} : { backingFormat }),
    dataFile: dataFile || rawData || (features & 4) !== 0,
    encrypted: encryption !== 0,
    dirty: (features & 1) !== 0,
    extendedL2,
    compression: compression === 1 ? 'zstd' : 'zlib',
    snapshots: head.readUInt32BE(60),
  }
}

type Must = (ok: boolean, state: string) => void

/**
 * Where the tables lie, with qemu's own limits on their sizes. Their entries are not read: that is what
 * `qemu-img check` is for. qemu ends a new file with the last L1 entry, not with the cluster.
 */
function checkTables(
  { head, size }: ImageFile,
  { clusterSize, extendedL2, virtualSize }: Pick<Qcow2Header, 'clusterSize' | 'extendedL2' | 'virtualSize'>,
  must: Must,
): void {
  const lies = (offset: number, length: number, end: number) =>
    offset >= clusterSize && offset % clusterSize === 0 && offset + length <= end

  const l1Entries = head.readUInt32BE(36)
  const perL1Entry = clusterSize * (clusterSize / (extendedL2 ? 16 : 8))
  must(l1Entries * 8 <= 32 * MiB, `its L1 table of ${l1Entries} entries is absurd`)
  must(l1Entries >= Math.ceil(virtualSize / perL1Entry), 'its L1 table is too small for its virtual size')
  must(l1Entries === 0 || lies(u64be(head, 40), l1Entries * 8, size), 'its L1 table is not inside the file')

  const refcounts = head.readUInt32BE(56) * clusterSize
  must(refcounts > 0 && refcounts <= Math.max(8 * MiB, clusterSize), 'its refcount table is missing or absurd')
  must(lies(u64be(head, 48), refcounts, roundUp(size, clusterSize)), 'its refcount table is not inside the file')

  const snapshots = head.readUInt32BE(60)
  must(snapshots <= 65536, `its ${snapshots} snapshots are absurd`)
  must(snapshots === 0 || lies(u64be(head, 64), snapshots * 40, size), 'its snapshot table is not inside the file')
}

/** Header extensions, and the name that follows them. */
function readExtensions(file: ImageFile, headerLength: number, clusterSize: number, must: Must) {
  const { head } = file
  const nameAt = u64be(head, 8)
  const nameLength = head.readUInt32BE(16)
  // One without the other: readers differ on whether that is a backing file.
  must((nameAt === 0) === (nameLength === 0), 'its backing file name is absurd')
  must(nameLength <= 1023, `its backing file name of ${nameLength} bytes is too long`)
  must(nameAt === 0 || nameAt >= headerLength, 'its backing file name lies in its header')
  must(nameAt + nameLength <= clusterSize, 'its backing file name is not in its first cluster')

  const end = nameAt || clusterSize
  let dataFile = false
  let backingFormat: string | undefined
  let at = headerLength
  // What qemu writes here fits into 1 KiB; more than our 4 KiB is nobody's honest work.
  while (at + 8 <= end) {
    must(at + 8 <= head.length, 'its header extensions are cut short or absurdly long')
    const type = head.readUInt32BE(at)
    if (type === 0) break
    const length = head.readUInt32BE(at + 4)
    at += 8
    must(at + length <= end && at + length <= head.length, 'a header extension reaches beyond its place')
    if (type === 0xe2792aca) {
      must(length < 16, 'its backing format is absurd')
      backingFormat = head.toString('latin1', at, at + length)
    }
    if (type === 0x44415441) dataFile = true
    at += roundUp(length, 8)
  }
  const backing = nameAt === 0 ? undefined : file.read(nameAt, nameLength).toString()
  must(!backing?.includes('\0'), 'its backing file name is absurd')
  return { dataFile, backingFormat, backing }
}

const clusterSize = 65536

/** Feature names, as qemu 7.2 writes them: kind (incompatible, compatible, autoclear), bit, name. */
const featureNames: [kind: number, bit: number, name: string][] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
]

function extension(type: number, data: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + roundUp(data.length, 8))
  bytes.writeUInt32BE(type, 0)
  bytes.writeUInt32BE(data.length, 4)
  data.copy(bytes, 8)
  return bytes
}

/** Refuse what no overlay can be. @param virtualSize in bytes @throws {Problem} UNSUPPORTED */
export function checkOverlay(backing: string, virtualSize: number): void {
  if (!(virtualSize > 0 && virtualSize % 512 === 0 && virtualSize <= 64 * 2 ** 40))
    refuse(
      'UNSUPPORTED',
      `Cannot make an overlay on "${backing}": ${virtualSize} bytes is no size for it`,
      'ask for a multiple of 512 bytes, at most 64T',
    )
  const length = Buffer.byteLength(backing)
  if (length === 0 || length > 1023 || backing.includes('\0'))
    refuse(
      'UNSUPPORTED',
      `Cannot make an overlay on "${backing}": qcow2 has room for a name of 1 to 1023 bytes`,
      'use a directory with a shorter path: --instances DIR',
    )
}

/**
 * An empty overlay, byte for byte as `qemu-img create -f qcow2 -F FORMAT -b BACKING PATH SIZE` of qemu 7.2 writes it:
 * version 3, clusters of 64 KiB, and four things in a row: header, refcount table, refcount block, L1 table.
 * To start that program takes longer than the whole of a warm `create` may.
 * @param virtualSize in bytes, a multiple of 512, at most 64 TiB
 * @returns the whole content; `fileSize` is its length in bytes
 * @throws {Problem} UNSUPPORTED where the size or the name cannot be had
 */
export function overlayBytes(overlay: { virtualSize: number; backing: string; backingFormat: 'raw' | 'qcow2' }): {
  bytes: Buffer
  fileSize: number
} {
  const { virtualSize, backing, backingFormat } = overlay
  checkOverlay(backing, virtualSize)
  const name = Buffer.from(backing)
  const l1Entries = Math.ceil(virtualSize / (clusterSize * (clusterSize / 8)))
  const fileSize = 3 * clusterSize + l1Entries * 8
  const bytes = Buffer.alloc(fileSize)

  const names = featureNames.map(([kind, bit, text]) => {
    const entry = Buffer.alloc(48)
    entry.set([kind, bit])
    entry.write(text, 2)
    return entry
  })
  const extensions = Buffer.concat([
    extension(0xe2792aca, Buffer.from(backingFormat)),
    extension(0x6803f857, Buffer.concat(names)),
    extension(0, Buffer.alloc(0)),
  ])
  const headerLength = 112
  bytes.write('QFI\xfb', 0, 'latin1')
  bytes.writeUInt32BE(3, 4) // version
  bytes.writeBigUInt64BE(BigInt(headerLength + extensions.length), 8) // backing file name, after the extensions
  bytes.writeUInt32BE(name.length, 16)
  bytes.writeUInt32BE(16, 20) // cluster bits
  bytes.writeBigUInt64BE(BigInt(virtualSize), 24)
  bytes.writeUInt32BE(l1Entries, 36)
  bytes.writeBigUInt64BE(BigInt(3 * clusterSize), 40) // L1 table
  bytes.writeBigUInt64BE(BigInt(clusterSize), 48) // refcount table
  bytes.writeUInt32BE(1, 56) // of one cluster
  bytes.writeUInt32BE(4, 96) // refcounts of 2^4 bits
  bytes.writeUInt32BE(headerLength, 100)
  extensions.copy(bytes, headerLength)
  name.copy(bytes, headerLength + extensions.length)

  bytes.writeBigUInt64BE(BigInt(2 * clusterSize), clusterSize) // the only refcount block
  // Each cluster is used once. 64 TiB needs 16 clusters of L1 table; one block has room for 32768.
  const clusters = Math.ceil(fileSize / clusterSize)
  for (let cluster = 0; cluster < clusters; cluster++) bytes.writeUInt16BE(1, 2 * clusterSize + 2 * cluster)
  return { bytes, fileSize }
}
