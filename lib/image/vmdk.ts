import { type ImageFile, isPowerOfTwo, makeWhole, type Reader, reject, startsWith, u64le } from './file.ts'

const sector = 512
/** qemu looks for its words in 20 sectors behind the header, wherever the header says that the descriptor is. */
const qemuReads = 20 * sector
const atEnd = 0xffff_ffff_ffff_ffffn

/**
 * A descriptor as a file of its own: it names the files that hold the data, on whatever host reads it (CVE-2022-47951).
 * qemu passes over comments and blank lines to find `version=`; so do we, and more generously.
 */
function isDescriptor(head: Buffer): boolean {
  const lines = head.toString('latin1').split('\n')
  const first = lines.map((line) => line.trim()).find((line) => line !== '' && !line.startsWith('#'))
  return /^version\s*=/i.test(first ?? '') || /^\s*#\s*disk\s*descriptorfile/i.test(lines[0] ?? '')
}

/** VMware's format: of its many kinds only the two that are one file, sparse, with the descriptor inside. */
export const vmdk: Reader = {
  matches: ({ head }) => startsWith(head, 'KDMV') || startsWith(head, 'COWD') || isDescriptor(head),
  read(file) {
    const must = (ok: boolean, state: string, remedy?: string): void => {
      if (!ok) reject(file.path, state, remedy)
    }
    must(!startsWith(file.head, 'COWD'), 'it is a vmdk of the ESX kind (COWD)', makeWhole)
    if (!startsWith(file.head, 'KDMV')) {
      const kind = /createType\s*=\s*"(\w{1,40})"/i.exec(file.head.toString('latin1'))?.[1] ?? 'of an unknown kind'
      reject(file.path, `it is a vmdk ${kind}: only a descriptor, whose data is in other files`, makeWhole)
    }
    const header = file.read(0, sector)
    const version = header.readUInt32LE(4)
    must(version >= 1 && version <= 3, `its vmdk version ${version} is not 1 to 3`)
    // VMware's own guard against transfers that changed line ends.
    must(header.toString('latin1', 73, 77) === '\n \r\n', 'it was damaged on the way (as text) or is no whole vmdk')

    const capacity = u64le(header, 12) // in sectors, as all that follows
    // Then qemu believes the descriptor, whatever files of the host that names.
    must(capacity > 0, 'its vmdk header gives no size')
    must(Number.isSafeInteger(capacity * sector), 'its virtual size is absurd')
    const grain = u64le(header, 20)
    const grainsPerTable = header.readUInt32LE(44)
    must(isPowerOfTwo(grain) && grain <= 0x200000, `its grains of ${grain} sectors are absurd`)
    must(grainsPerTable >= 1 && grainsPerTable <= 512, `its grain tables of ${grainsPerTable} entries are absurd`)
    must(u64le(header, 64) * sector <= file.size, 'it is cut short: its data is missing')

    const directoryAt = header.readBigUInt64LE(56) === atEnd ? directoryOfFooter(file, header) : u64le(header, 56)
    const directory = Math.ceil(capacity / (grain * grainsPerTable)) * 4
    must(directory <= 2 ** 27, `its grain directory of ${directory} bytes is absurd`)
    must(directoryAt >= 1, 'its grain directory is at an absurd place')
    must(directoryAt * sector + directory <= file.size, 'it is cut short: its grain directory is missing')

    const secondAt = (header.readUInt32LE(8) & 2) === 0 ? 0 : u64le(header, 48)
    must(secondAt * sector + directory <= file.size, 'it is cut short: its second grain directory is missing')

    checkDescriptor(file, header, capacity, must)
    return capacity * sector
  },
}

/** A stream ends with three sectors: a marker, the header again with the directory's place, an end marker. */
function directoryOfFooter(file: ImageFile, header: Buffer): number {
  if (file.size % sector !== 0 || file.size < 4 * sector) reject(file.path, 'it is cut short: its footer is missing')
  const footer = file.read(file.size - 3 * sector, 3 * sector)
  const again = footer.subarray(sector, 2 * sector)
  const markers = u64le(footer, 8) === 3 * 2 ** 32 && footer.subarray(2 * sector, 2 * sector + 16).every((b) => b === 0)
  if (!markers) reject(file.path, 'it is cut short: its footer is missing')
  const same =
    header.subarray(0, 56).equals(again.subarray(0, 56)) && header.subarray(64, 79).equals(again.subarray(64, 79))
  if (!same) reject(file.path, 'its header and its footer differ')
  return u64le(again, 56)
}

/** What the descriptor may say is listed; everything that reaches out of the file is refused. */
function checkDescriptor(
  file: ImageFile,
  header: Buffer,
  capacity: number,
  must: (ok: boolean, state: string, remedy?: string) => void,
): void {
  const length = u64le(header, 36) * sector
  const plausible = u64le(header, 28) === 1 && length >= sector && length <= 2 ** 16
  must(plausible, 'its vmdk descriptor is not inside it, behind the header')
  const area = file.read(sector, Math.min(Math.max(length, qemuReads), file.size - sector))
  must(area.length >= length, 'it is cut short: its descriptor is missing')
  // Anywhere, comments included: qemu takes the first place where the word stands.
  const hint = /parentFileNameHint/i.test(area.toString('latin1'))
  must(!hint, 'it is a vmdk that names a parent', makeWhole)

  const descriptor = area.subarray(0, length)
  const zero = descriptor.indexOf(0)
  const text = descriptor.toString('latin1', 0, zero === -1 ? length : zero)
  must(zero === -1 || descriptor.subarray(zero).every((byte) => byte === 0), 'its vmdk descriptor has a second part')
  must(!/createType|parentCID/i.test(text.replace(/^(createType|parentCID)\s*=/gim, '')), 'its vmdk descriptor is odd')

  const lines = text.split(/\r?\n/).map((line) => line.trim())
  const values = (key: string) =>
    lines
      .filter((line) => line.toLowerCase().startsWith(key.toLowerCase()))
      .map((line) => line.slice(key.length).trim())
  const [kind = 'nothing', ...moreKinds] = values('createType').map((value) => value.replace(/^=\s*"(.*)"$/, '$1'))
  const known = kind === 'monolithicSparse' || kind === 'streamOptimized'
  must(known, `it is a vmdk ${printable(kind)}, not monolithicSparse or streamOptimized`, makeWhole)
  const [parent = '', ...moreParents] = values('parentCID')
  must(/^=\s*"?ffffffff"?$/i.test(parent), 'it is a vmdk that needs a parent', makeWhole)
  must(moreKinds.length === 0 && moreParents.length === 0, 'its vmdk descriptor says something twice')

  const extents = lines.filter((line) => /^(RW|RDONLY|NOACCESS)\b/i.test(line))
  must(extents.length === 1, `its vmdk descriptor has ${extents.length} extents, not one`, makeWhole)
  const [, sectors, type] = /^(?:RW|RDONLY)\s+(\d+)\s+(\w+)\s+"[^"]*"$/.exec(extents[0] ?? '') ?? []
  must(type === 'SPARSE', `its vmdk extent is ${printable(type ?? 'odd')}, not SPARSE`, makeWhole)
  must(Number(sectors) === capacity, 'its vmdk descriptor and its header differ on its size')
}

/** Words of an untrusted file, fit for a message. */
const printable = (text: string): string => text.replace(/[^\w .-]/g, '?').slice(0, 40)
