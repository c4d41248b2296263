import { makeWhole, type Reader, reject, roundUp, u64le } from './file.ts'

const MiB = 2 ** 20

/** VirtualBox's format, with what qemu's block/vdi.c asks of it. */
export const vdi: Reader = {
  matches: ({ head }) => head.length >= 0x44 && head.readUInt32LE(0x40) === 0xbeda107f,
  read(file) {
    const header = file.read(0, 512)
    const must = (ok: boolean, state: string, remedy?: string): void => {
      if (!ok) reject(file.path, state, remedy)
    }
    const version = header.readUInt32LE(0x44)
    must(version === 0x00010001, `its vdi version 0x${version.toString(16)} is not 1.1`)
    const type = header.readUInt32LE(0x4c)
    const alone = header.subarray(0x1a8, 0x1c8).every((byte) => byte === 0) // uuids of link and parent
    must((type === 1 || type === 2) && alone, 'it is a vdi that needs a parent (differencing or undo image)', makeWhole)

    const bytesOfMap = header.readUInt32LE(0x180) * 4
    const blockSize = header.readUInt32LE(0x178)
    const blocks = header.readUInt32LE(0x180)
    const allocated = header.readUInt32LE(0x184)
    const mapAt = header.readUInt32LE(0x154)
    const dataAt = header.readUInt32LE(0x158)
    must(header.readUInt32LE(0x168) === 512, 'its sectors are not of 512 bytes')
    must(blockSize === MiB, `its vdi blocks are of ${blockSize} bytes, not of 1 MiB`)
    // qemu passes over it, VirtualBox does not: they would read different bytes.
    must(header.readUInt32LE(0x17c) === 0, 'its vdi blocks have extra data')
    const virtualSize = roundUp(u64le(header, 0x170), 512)
    must(blocks <= 0x3fffffff && virtualSize <= blocks * blockSize, 'its virtual size and its block map differ')
    must(allocated <= blocks, 'it has more blocks than its virtual size allows')
    must(mapAt >= 512 && mapAt % 512 === 0 && dataAt % 512 === 0, 'its block map or data is at an absurd place')
    must(mapAt + bytesOfMap <= dataAt, 'its block map reaches into its data')
    must(mapAt + bytesOfMap <= file.size, 'it is cut short: its block map is not all there')
    must(
      allocated === 0 || dataAt + allocated * blockSize <= file.size,
      'it is cut short: blocks are missing at its end',
    )
    return virtualSize
  },
}
