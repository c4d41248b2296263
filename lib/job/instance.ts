import * as z from 'zod/mini'
import { OsType, optional, Uuid } from './spec.ts'

/**
 * A resize or migration in hand: in instance.json from before the guest is switched off until it is confirmed or
 * reverted. `begun`: nothing but this host can run the guest. `handed-over`: the other half was told to start it, so it
 * may run there. `done`: it was seen there. `reverting`: what became of it is being removed. `confirming`: what was kept
 * to go back to is.
 */
export const Task = z.object({
  /** Id of the move, the same on both hosts. */
  move: Uuid,
  kind: z.enum(['resize', 'migrate']),
  phase: z.enum(['begun', 'handed-over', 'done', 'reverting', 'confirming']),
  /** Where to; absent: to this very host. */
  host: z.optional(z.string()),
  /** Which host began it. */
  source: z.optional(z.string()),
  since: z.string(),
  /** The guest ran when it began, and is to run again, here or there. */
  run: z.boolean(),
  /** It started with this host, and is to do so again. */
  autostart: z.boolean(),
  /** Both hosts see the same directory. */
  shared: z.optional(z.boolean()),
  /** Sizes that were asked for, bytes. */
  root: z.number(),
  ephemeral: z.optional(z.number()),
  swap: z.optional(z.number()),
})
export type Task = z.output<typeof Task>

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
  task: optional(Task, 'resize or migration in hand'),
  abandoned: optional(
    z.object({ move: Uuid, host: z.string() }),
    'move that was given up while its destination could not be reached: what arrived there is still there',
  ),
  arrived: optional(
    z.object({ move: Uuid, host: z.optional(z.string()) }),
    'move that brought it here, and from where',
  ),
})
export type InstanceRecord = z.output<typeof InstanceRecord>

const comparable = ({ image, uuid, task, arrived, abandoned, ...wish }: InstanceRecord): Record<string, unknown> => ({
  ...wish,
  image: image.id,
})

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
