import * as z from 'zod/mini'
import { described, optional } from './spec.ts'

/** What is told while a job runs: to the terminal, or as NDJSON with `--progress json`. */
export const Event = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('step'), step: z.string(), status: z.string() }),
  z.strictObject({ type: z.literal('action'), step: z.string(), action: z.string() }),
  z.strictObject({
    type: z.literal('progress'),
    what: described(z.string(), 'verb and thing, such as: fetch debian.qcow2'),
    done: described(z.number(), 'bytes'),
    total: optional(z.number(), 'bytes, where it is known'),
  }),
  z.strictObject({ type: z.literal('notice'), message: z.string() }),
])
export type Event = z.output<typeof Event>

/** Tells an event. Must not throw. */
export type Tell = (event: Event) => void
