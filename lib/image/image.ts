import { z } from 'zod'
import { misuse } from '../job/problem.ts'
import { Digest, Format, type Packing, packers } from '../job/spec.ts'

/**
 * An image as a store knows it. Its id names immutable bytes: the digest itself, where the store has no such id, so
 * that a replaced file is another image and never meets an old base.
 */
export interface Image {
  id: string
  name: string
  /** An absolute path, or a URL. */
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
  properties: Record<string, string>
}

/** What the directory store keeps beside each image, as NAME.json. */
export const ImageRecord = z.object({
  version: z.literal(1),
  name: z.string(),
  file: z.string().regex(/^[^/]+$/, 'is not a plain name'),
  digest: Digest,
  format: Format,
  packing: z.enum(Object.keys(packers) as [Packing, ...Packing[]]).optional(),
  size: z.number(),
  virtualSize: z.number().optional(),
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
  const packing = parts.length > 1 && parts.at(-1)! in packers ? (parts.pop() as Packing) : undefined
  const format = parts.length > 1 ? extensions[parts.at(-1)!.toLowerCase()] : undefined
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
