import * as z from 'zod/mini'
import { misuse } from '../job/problem.ts'
import { Digest, Format, isWeak, Packing, packers } from '../job/spec.ts'

/**
 * An image as a store knows it. Its id names immutable bytes: the digest itself, where the store has no such id, so
 * that a replaced file is another image and never meets an old base.
 */
export interface Image {
  id: string
  name: string
  /** An absolute path, a URL, or `glance:UUID`: of a cloud neither endpoint nor token is ever written down. */
  source: string
  digest: string
  format: Format
  packing?: Packing | undefined
  /** Of the file as it is kept, bytes. */
  size?: number | undefined
  /** Of the disk inside, bytes. */
  virtualSize?: number | undefined
  /** What the file was when its digest was proven. */
  stamp?: string | undefined
  /** The smallest disk that its owner wants it on, bytes. */
  minDisk?: number | undefined
  /** Project that it belongs to. */
  owner?: string | undefined
  /** Every project may use it. */
  shared?: boolean | undefined
  properties: Record<string, string>
}

/** What the directory store keeps beside each image, as NAME.json. */
export const ImageRecord = z.object({
  version: z.literal(1),
  name: z.string(),
  file: z.string().check(z.regex(/^[^/]+$/, 'is not a plain name')),
  // It is the image's id as well.
  digest: Digest.check(z.refine((digest) => !isWeak(digest), 'can be forged')),
  format: Format,
  packing: z.optional(Packing),
  size: z.number(),
  virtualSize: z.optional(z.number()),
  stamp: z.string(),
  properties: z.record(z.string(), z.string()),
})
export type ImageRecord = z.output<typeof ImageRecord>

const extensions: Record<string, Format> = {
  qcow2: 'qcow2',
  raw: 'raw',
  vmdk: 'vmdk',
  vdi: 'vdi',
  vhd: 'vpc',
  vpc: 'vpc',
  vhdx: 'vhdx',
}

/** What a file's name declares: `debian.qcow2.xz` → debian, qcow2, packed with xz. The content has to agree later. */
export function declaredBy(fileName: string): { stem: string; format?: Format; packing?: Packing } {
  const parts = fileName.split('.')
  const extension = () => (parts.length > 1 ? (parts.at(-1) ?? '') : '').toLowerCase()
  const packing = Object.hasOwn(packers, extension()) ? (extension() as Packing) : undefined
  if (packing) parts.pop()
  const format = Object.hasOwn(extensions, extension()) ? extensions[extension()] : undefined
  if (format) parts.pop()
  return { stem: parts.join('.'), ...(format ? { format } : {}), ...(packing ? { packing } : {}) }
}

/** The format that the operator declared, by flag or by the file's name. @throws {Problem} BAD_SPEC where by neither */
export function formatOf(fileName: string, given: Format | undefined, flag: string): Format {
  return (
    given ??
    declaredBy(fileName).format ??
    misuse(
      `Cannot tell the format of "${fileName}": its name does not say it`,
      `add ${flag} qcow2, or raw, vmdk, vdi, vhd, vhdx: cowhand never guesses from the content`,
    )
  )
}
