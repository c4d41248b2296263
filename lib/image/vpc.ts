import {
  isPowerOfTwo,
  lastSectorOf,
  makeWhole,
  type Reader,
  reject,
  roundUp,
  startsWith,
  tailOf,
  u64be,
} from './file.ts'

/** Makers whose size is to be believed rather than their geometry, as in qemu's block/vpc.c. */
const sizeMakers = ['win ', 'qem2', 'd2v ', 'tap\0', 'CTXS']
const largestGeometry = 65535 * 16 * 255

/** VHD, which qemu calls vpc. A dynamic image has its footer twice: as a copy at the head, and at the end. */
export const vpc: Reader = {
  matches: (file) =>
    startsWith(file.head, 'conectix') ||
    startsWith(tailOf(file), 'conectix') ||
    startsWith(lastSectorOf(file), 'conectix'),
  read(file) {
    const must = (ok: boolean, state: string, remedy?: string): void => {
      if (!ok) reject(file.path, state, remedy)
    }
    // Where they are not, readers differ on where its footer is.
    must(file.size % 512 === 0, 'it is cut short: a vpc (VHD) has whole sectors')
    const footer = tailOf(file)
    must(startsWith(footer, 'conectix'), 'it is cut short: the footer of its vpc (VHD) is not at its end')
    const type = footer.readUInt32BE(60)
    must(type !== 4, 'it is a differencing vpc (VHD), which needs a parent', makeWhole)
    must(type === 2 || type === 3, `its vpc (VHD) type ${type} is not fixed or dynamic`)
    const dynamic = startsWith(file.head, 'conectix')
    must(dynamic === (type === 3), 'its head and its footer differ on what kind of vpc (VHD) it is')

    const currentSize = u64be(footer, 48)
    const geometry = footer.readUInt16BE(56) * footer.readUInt8(58) * footer.readUInt8(59)
    const bySize = sizeMakers.includes(footer.toString('latin1', 28, 32)) || geometry === largestGeometry
    const virtualSize = bySize ? Math.floor(currentSize / 512) * 512 : geometry * 512
    must(Math.max(virtualSize, currentSize) <= 0xff000000 * 512, 'its virtual size is more than the 2040 GiB of a VHD')

    if (!dynamic) {
      must(
        Math.max(virtualSize, currentSize) + 512 <= file.size,
        'it is cut short: it has less data than its footer says',
      )
      must(hasSum(footer, 64), 'the checksum of its footer is wrong')
      return virtualSize
    }
    // Readers begin at either end: both must say the same (all but the flag of a saved state and what is reserved).
    must(file.head.subarray(0, 84).equals(footer.subarray(0, 84)), 'its head and its footer differ')
    const header = file.read(u64be(footer, 16), 1024)
    must(startsWith(header, 'cxsparse'), 'the header of its vpc (VHD) is not where its footer says')
    const noParent = header.subarray(40, 56).every((byte) => byte === 0)
    must(noParent, 'it is a vpc (VHD) that names a parent', makeWhole)
    const blockSize = header.readUInt32BE(32)
    const entries = header.readUInt32BE(28)
    must(isPowerOfTwo(blockSize) && blockSize >= 512, `its vpc (VHD) blocks of ${blockSize} bytes are absurd`)
    must(entries * blockSize >= virtualSize, 'its block table is too small for its virtual size')
    must(u64be(header, 16) + roundUp(entries * 4, 512) + 512 <= file.size, 'its block table is not inside the file')
    must(hasSum(header, 36), 'the checksum of its header is wrong')
    must(hasSum(file.head.subarray(0, 512), 64), 'the checksum of its first sector is wrong')
    return virtualSize
  },
}

/** The 32 bits at `at` are the complement of the sum of all other bytes: the format's guard against accidents. */
function hasSum(bytes: Buffer, at: number): boolean {
  const others = bytes.reduce((sum, byte, i) => (i >= at && i < at + 4 ? sum : sum + byte), 0)
  return bytes.readUInt32BE(at) === 0xffffffff - others
}
