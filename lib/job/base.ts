import * as z from 'zod/mini'
import { Digest, optional } from './spec.ts'

/**
 * Which reading of images this is: one more with each version that rejects what the one before took. A base that an
 * older version examined is examined again at its next use.
 */
export const readerVersion = 1

/**
 * What is known of a base: kept beside it as X.json, written before X gets its name. Sizes in bytes. Two hosts compare
 * records, not names. A base that another tool made has none until cowhand meets it.
 */
export const BaseRecord = z.looseObject({
  version: z.literal(1),
  /** Of the image; its sha1 is the base's name. */
  id: optional(z.string(), 'id of the image'),
  name: optional(z.string(), 'what the image was called'),
  source: optional(z.string(), 'where the image came from; without secrets'),
  digest: optional(Digest, 'of the image, as its store gives it'),
  format: z.optional(z.string()),
  packing: z.optional(z.string()),
  sourceSize: optional(z.number(), 'of the image file, bytes'),
  owner: optional(z.string(), 'project that the image belongs to'),
  shared: optional(z.boolean(), 'the image is for every project'),
  minDisk: optional(z.number(), 'the smallest disk that its owner wants the image on, bytes'),
  tool: optional(z.string(), 'program that made it, with its version'),
  arguments: z.optional(z.array(z.string())),
  environment: z.optional(z.record(z.string(), z.string())),
  deterministic: optional(z.boolean(), 'that program makes the same bytes on every host'),
  copyOf: optional(z.string(), 'base that it is a larger copy of'),
  adopted: optional(z.boolean(), 'another tool made it'),
  size: optional(z.number(), 'of the base, which is raw: what a guest sees, bytes'),
  stamp: optional(z.string(), 'what the file was when it got its name, or was proven again'),
  made: optional(z.string(), 'ISO 8601'),
  reader: optional(z.number(), 'version of the reader that examined it last'),
  content: optional(
    z.object({ digest: z.string(), stamp: z.string(), proven: z.optional(z.boolean()) }),
    'digest of what a guest sees, and of which file; proven: it is what the image, or its maker, has',
  ),
  quarantined: optional(z.object({ since: z.string(), why: z.string() }), 'nothing new may stand on it'),
})
export type BaseRecord = z.output<typeof BaseRecord>
