import * as z from 'zod/mini'
import type { BaseIdentity } from './move.ts'
import { Digest, isWeak } from './spec.ts'

/**
 * Which reading of images this is: one more with each version that rejects what the one before took. A base that an
 * older version examined is examined again at its next use.
 */
export const readerVersion = 1

/**
 * What is known of a base: kept beside it as X.json, written before X gets its name. Sizes in bytes. Two hosts compare
 * records, not names. A base that another tool made has none until cowhand meets it. For people there is more in it: when
 * it was made, and by which tool, version and arguments, in which environment; of which base it is a larger copy.
 */
export const BaseRecord = z.looseObject({
  version: z.literal(1),
  /** Of the image; its sha1 is the base's name. */
  id: z.optional(z.string()),
  /** What the image was called. */
  name: z.optional(z.string()),
  /** Where the image came from; without secrets. */
  source: z.optional(z.string()),
  /** Of the image, as its store gives it. */
  digest: z.optional(Digest),
  format: z.optional(z.string()),
  packing: z.optional(z.string()),
  /** Of the image file, bytes. */
  sourceSize: z.optional(z.number()),
  /** Project that the image belongs to. */
  owner: z.optional(z.string()),
  /** The image is for every project. */
  shared: z.optional(z.boolean()),
  /** The smallest disk that its owner wants the image on, bytes. */
  minDisk: z.optional(z.number()),
  /** Another tool made it. */
  adopted: z.optional(z.boolean()),
  /** Of the base, which is raw: what a guest sees, bytes. */
  size: z.optional(z.number()),
  /** What the file was when it got its name, or was proven again. */
  stamp: z.optional(z.string()),
  /** Version of the reader that examined it last. */
  reader: z.optional(z.number()),
  /** Digest of what a guest sees, and of which file; proven: it is what the image, or its maker, has. */
  content: z.optional(z.object({ digest: z.string(), stamp: z.string(), proven: z.optional(z.boolean()) })),
  /** Nothing new may stand on it. */
  quarantined: z.optional(z.object({ since: z.string(), why: z.string() })),
})
export type BaseRecord = z.output<typeof BaseRecord>

/**
 * What one host tells another of a base: nothing that its record says of a file that was written to since, or that
 * nobody has proven.
 * @param stamp of the file as it is now
 */
export function identityOf(record: BaseRecord | undefined, stamp: string): BaseIdentity {
  if (!record || record.quarantined) return {}
  const { id, name, source, owner, shared, digest, format, packing, content, adopted } = record
  const measured = content?.stamp === stamp ? content : undefined
  const isMade = digest !== undefined && record.stamp === stamp && (!adopted || content?.proven === true)
  const told = {
    ...{ id, name, source, owner, shared },
    ...(isMade ? { digest, format, packing } : {}),
    ...(measured ? { content: measured.digest } : {}),
    ...(measured?.proven ? { proven: true } : {}),
  }
  return Object.fromEntries(Object.entries(told).filter(([, value]) => value !== undefined))
}

/**
 * Whether two bases have the same content: by its digests; else both were made of the same image, in one way. Two that
 * were made of different images may still have it, so of these nothing is said (BEHAVIOUR.md S75).
 */
export function sameContent(one: BaseIdentity, other: BaseIdentity): boolean | undefined {
  if (one.content !== undefined && other.content !== undefined) return one.content === other.content
  const isOneImage = one.digest !== undefined && one.digest === other.digest && !isWeak(one.digest)
  return isOneImage && one.format === other.format && one.packing === other.packing ? true : undefined
}
