import { Problem } from '../job/problem.ts'
import { type Format, formatSize } from '../job/spec.ts'
import { type ImageFile, openImage, reject } from './file.ts'
import { foreign, readers } from './formats.ts'

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
 * @param declared `format` it must be of; `ceiling`: largest virtual size, in bytes; `name`: what the operator calls it
 * @returns virtual size in bytes
 * @throws {Problem} IMAGE_REJECTED in every other case
 */
export async function examine(
  path: string,
  declared: { format: Format; ceiling: number; name?: string },
): Promise<{ virtualSize: number }> {
  const { format, ceiling, name = path } = declared
  return openImage(path, judge, name)

  function judge(file: ImageFile): { virtualSize: number } {
    if (file.size === 0) reject(name, 'it is empty')
    const found = formatsOf(file)
    const others = foreign.filter(({ matches }) => matches(file)).map(({ name }) => name)
    if (found.length + others.length > 1)
      reject(name, `it is several things at once: ${[...found, ...others].join(', ')}`)
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
    const virtualSize = readers[format].read(file)
    if (virtualSize === 0) reject(name, 'its virtual size is 0')
    if (virtualSize > ceiling)
      reject(
        name,
        `its virtual size of ${formatSize(virtualSize)} (${virtualSize} bytes) is above the limit of ${formatSize(ceiling)}`,
        `if it is wanted, set image_ceiling: ${virtualSize} in the configuration`,
      )
    return { virtualSize }
  }
}
