import { openImage, reject } from './file.ts'
import { closedQcow2 } from './formats.ts'
import { isQcow } from './qcow2.ts'

/**
 * A qcow2 that came from another host is a disk of this size, and nothing in it leads to a file of this host but a
 * base's name, which is replaced by one of ours before anything opens it. Its format is pinned, so what its guest
 * wrote is not asked what else it could be taken for.
 * @param size that its guest sees, bytes
 * @param stands it has a base; else it must stand alone
 * @throws {Problem} IMAGE_REJECTED
 */
export function requireDisk(path: string, size: number, stands: boolean): void {
  openImage(path, (file) => {
    const must = (ok: boolean, state: string) => {
      if (!ok) reject(path, state, 'look at it on the host that it comes from: qemu-img info DISK')
    }
    must(isQcow(file), 'it is no qcow2')
    const { virtualSize, backing, backingFormat = 'raw' } = closedQcow2(file)
    must(virtualSize === size, `its guest sees ${virtualSize} bytes in it, and it had ${size}`)
    must(!stands || backing !== undefined, 'it stands on nothing, and stood on a base')
    must(stands || backing === undefined, 'it stands on another file, and stood on nothing')
    must(!stands || backingFormat === 'raw', 'its base is declared other than raw')
  })
}
