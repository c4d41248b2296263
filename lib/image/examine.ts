import { Problem } from '../job/problem.ts'
import { type Format, formatSize } from '../job/spec.ts'
import { type ImageFile, openImage, reject } from './file.ts'
import { disksIn, foreign, readDelta, readers } from './formats.ts'

// Who makes it reject more raises `readerVersion` in lib/job/base.ts.

/** Every format that the bytes could be taken for. `vpc` comes last: it alone may be known only by its end. */
const order: Format[] = ['qcow2', 'vmdk', 'vdi', 'vhdx', 'vpc']
const formatsOf = (file: ImageFile): Format[] => order.filter((format) => readers[format].matches(file))

/**
 * What a file is, by its bytes and our own reading of at most some KiB of them; qemu-img is never asked to guess,
 * since to guess is to open. What is nothing else is raw. It may still be one that `examine` rejects.
 * @returns the format, and the virtual size in bytes where it can be read
 * @throws {Problem} IMAGE_REJECTED where it is no regular file
 */
export async function identify(path: string): Promise<{ format: Format; virtualSize?: number }> {
  return openImage(path, (file) => {
    const format = formatsOf(file)[0] ?? 'raw'
    try {
      return { format, virtualSize: readers[format].read(file) }
    } catch (error) {
      if (error instanceof Problem) return { format }
      throw error
    }
  })
}

/**
 * The image is what it is declared to be, and safe to be read by qemu-img with that format: it stands alone, and
 * nothing in it leads to another file of the host. What its tables hold is not looked at.
 * @param declared `format` it must be of; `ceiling`: largest virtual size, in bytes; `name`: what the operator calls it;
 *   `backing`: it is a delta, a qcow2 that must stand on the base of this plain name (see `readDelta`)
 * @returns virtual size in bytes, and of a delta its backing file's name as it stands, which is never to be opened
 * @throws {Problem} IMAGE_REJECTED in every other case
 */
export async function examine(
  path: string,
  declared: { format: Format; ceiling: number; name?: string; backing?: string },
): Promise<{ virtualSize: number; backing?: string }> {
  const { format, ceiling, name = path, backing } = declared
  return openImage(path, judge, name)

  function judge(file: ImageFile): { virtualSize: number; backing?: string } {
    if (file.size === 0) reject(name, 'it is empty')
    const found = formatsOf(file)
    const others = foreign.filter(({ matches }) => matches(file)).map(({ name }) => name)
    const all = [...found, ...others, ...(found.length > 0 ? disksIn(file) : [])]
    if (all.length > 1) reject(name, `it is several things at once: ${all.join(', ')}`)
    if (others[0] !== undefined)
      reject(
        name,
        `it is declared ${format} but its content is ${others[0]}, which is not supported`,
        'convert it where it was made: qemu-img convert -O qcow2 IMAGE NEW-IMAGE',
      )
    const content = found[0] ?? 'raw'
    if (content !== format)
      reject(
        name,
        `it is declared ${format} but its content is ${content}`,
        `add it with --format ${content}${content === 'raw' ? ', or get it again: it may be damaged' : ''}`,
      )
    if (backing !== undefined && format !== 'qcow2')
      reject(name, `it is ${format}, which cannot stand on the base ${backing}`, 'declare it without a base')
    const read = backing === undefined ? { virtualSize: readers[format].read(file) } : readDelta(file, backing)
    const { virtualSize } = read
    if (virtualSize === 0) reject(name, 'its virtual size is 0')
    if (virtualSize > ceiling)
      reject(
        name,
        `its virtual size of ${formatSize(virtualSize)} (${virtualSize} bytes) is above the limit of ${formatSize(ceiling)}`,
        `if it is wanted, set image_ceiling: ${virtualSize} in the configuration`,
      )
    return read
  }
}
