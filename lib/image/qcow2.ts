import { type ImageFile, openImage, reject, roundUp, startsWith, u64be } from './file.ts'
import { checkTables } from './qcow2-tables.ts'

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

/** Types of header extensions. Others may be there, and mean nothing to us. */
const extensions = { backingFormat: 0xe2792aca, bitmaps: 0x23852875, encryption: 0x0537be77, dataFile: 0x44415441 }

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
  const { dataFile, backingFormat, backing, bitmaps } = readExtensions(file, { headerLength, clusterSize, encryption })
  // The autoclear features: bit 0 says that the bitmaps are valid, bit 1 that the data file is a raw one.
  const autoclear = version === 3 ? head.readUInt32BE(92) : 0
  const rawData = (autoclear & 2) !== 0
  must((autoclear & 1) === 0 || bitmaps !== undefined, 'its bitmaps are missing')
  const validBitmaps = (autoclear & 1) === 0 ? undefined : bitmaps
  checkTables(file, { version, clusterSize, extendedL2, virtualSize, bitmaps: validBitmaps })

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

/** Header extensions, and the name that follows them. */
function readExtensions(
  file: ImageFile,
  { headerLength, clusterSize, encryption }: { headerLength: number; clusterSize: number; encryption: number },
) {
  const { head } = file
  const must = (ok: boolean, state: string): void => {
    if (!ok) reject(file.path, state)
  }
  const nameAt = u64be(head, 8)
  const nameLength = head.readUInt32BE(16)
  // One without the other: readers differ on whether that is a backing file.
  must((nameAt === 0) === (nameLength === 0), 'its backing file name is absurd')
  must(nameLength <= 1023, `its backing file name of ${nameLength} bytes is too long`)
  must(nameAt === 0 || nameAt >= headerLength, 'its backing file name lies in its header')
  must(nameAt + nameLength <= clusterSize, 'its backing file name is not in its first cluster')

  const end = nameAt || clusterSize
  const found = new Map<number, Buffer>()
  let at = headerLength
  // What qemu writes here fits into 1 KiB; more than our 4 KiB is nobody's honest work.
  while (at + 8 <= end) {
    must(at + 8 <= head.length, 'its header extensions are cut short or absurdly long')
    const type = head.readUInt32BE(at)
    const length = head.readUInt32BE(at + 4)
    // Version 2 has this where version 3 has its features: who does not look at the version takes it for features.
    must(type !== 0 || length === 0, 'the end of its header extensions has a length')
    if (type === 0) break
    at += 8
    must(at + length <= end && at + length <= head.length, 'a header extension reaches beyond its place')
    must(type !== extensions.backingFormat || length < 16, 'its backing format is absurd')
    must(type !== extensions.bitmaps || length === 24, 'its bitmaps extension is absurd')
    must(!found.has(type), 'it has a header extension twice')
    found.set(type, head.subarray(at, at + length))
    at += roundUp(length, 8)
  }
  must(!found.has(extensions.encryption) || encryption === 2, 'it has an encryption header and is not encrypted')

  const backing = nameAt === 0 ? undefined : file.read(nameAt, nameLength).toString()
  must(!backing?.includes('\0'), 'its backing file name is absurd')
  const backingFormat = found.get(extensions.backingFormat)?.toString('latin1')
  const bitmaps = found.get(extensions.bitmaps)
  return { dataFile: found.has(extensions.dataFile), backingFormat, backing, bitmaps }
}
