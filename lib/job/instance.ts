import * as z from 'zod/mini'
import { OsType, optional, Uuid } from './spec.ts'

/** What was wished for an instance: kept as instance.json in its directory, sizes in bytes. */
export const InstanceRecord = z.object({
  version: z.literal(1),
  name: z.string(),
  uuid: Uuid,
  image: z.object({ id: z.string(), name: z.string() }),
  root: z.number(),
  ephemeral: z.optional(z.number()),
  'ephemeral-format': z.optional(z.string()),
  swap: z.optional(z.number()),
  'os-type': OsType,
  memory: z.optional(z.number()),
  vcpus: z.optional(z.number()),
  network: z.optional(z.string()),
  seed: optional(z.string(), 'digest of the files that the seed was made of'),
  xml: optional(z.string(), 'digest of the file given with --xml'),
})
export type InstanceRecord = z.output<typeof InstanceRecord>

const comparable = ({ image, uuid, ...wish }: InstanceRecord): Record<string, unknown> => ({ ...wish, image: image.id })

/** The first thing in which two wishes for one instance differ, with what it was; its uuid is not wished for. */
export function firstDifference(
  was: InstanceRecord,
  wanted: InstanceRecord,
): { what: string; was: unknown; wanted: unknown } | undefined {
  const [old, now] = [comparable(was), comparable(wanted)]
  const what = [...new Set([...Object.keys(old), ...Object.keys(now)])].find((key) => old[key] !== now[key])
  if (what === undefined) return undefined
  if (what !== 'image') return { what, was: old[what], wanted: now[what] }
  // Two images may have had the same name, one after the other.
  const said = ({ name, id }: InstanceRecord['image']) => `${name} (${id.slice(0, 19)}…)`
  return { what, was: said(was.image), wanted: said(wanted.image) }
}
