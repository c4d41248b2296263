import { type ImageFile, openImage, reject, u64be } from './file.ts'
import { isQcow } from './qcow2.ts'

/**
 * The name of the backing file in a qcow2 header, as it stands, for one question only: what does this file need? So
 * all else is left unread: a disk that is corrupt, or still being written, needs its base all the same.
 * @param isDevice it is a block device
 * @returns undefined where it is no qcow2, '' where it stands alone
 * @throws {Problem} IMAGE_REJECTED where it is a qcow2 and the name cannot be had; the error of the system as it is
 */
export function backingNameAt(path: string, isDevice = false): string | undefined {
  const nameIn = (file: ImageFile): string | undefined => {
    if (!isQcow(file)) return undefined
    if (file.head.length < 20) return reject(path, 'its qcow2 header is cut short')
    // The same in all versions: qcow2.txt, "Header".
    const [at, length] = [u64be(file.head, 8), file.head.readUInt32BE(16)]
    if (at === 0 || length === 0) return ''
    if (length > 1023) return reject(path, `its backing file name of ${length} bytes is too long`)
    const bytes = at + length <= file.head.length ? file.head.subarray(at, at + length) : file.read(at, length)
    return bytes.toString()
  }
  return openImage(path, nameIn, path, isDevice)
}
