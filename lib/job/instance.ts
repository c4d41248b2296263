import { z } from 'zod'
import { OsType } from './spec.ts'

/** What was wished for an instance: kept as instance.json in its directory, sizes in bytes. */
export const InstanceRecord = z.object({
  version: z.literal(1),
  name: z.string(),
  uuid: z.uuid(),
  image: z.object({ id: z.string(), name: z.string() }),
  root: z.number(),
  ephemeral: z.number().optional(),
  'ephemeral-format': z.string().optional(),
  swap: z.number().optional(),
  'os-type': OsType,
  memory: z.number().optional(),
  vcpus: z.number().optional(),
  network: z.string().optional(),
  seed: z.string().optional().describe('digest of the files that the seed was made of'),
  xml: z.string().optional().describe('digest of the file given with --xml'),
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
