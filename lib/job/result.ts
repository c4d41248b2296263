import * as z from 'zod/mini'
import { Answer, MoveState, Offer, Order } from './move.ts'
import { codes } from './problem.ts'
import { described, optional } from './spec.ts'

const bytes = (what: string) => described(z.int(), `${what}, bytes`)

export const StepResult = z.strictObject({
  step: z.string(),
  status: z.enum(['ok', 'changed', 'planned', 'pending', 'skipped', 'failed']),
  changed: z.boolean(),
  seconds: z.number(),
  about: optional(z.string(), 'what it was about, such as a base'),
  error: optional(z.string(), 'why it failed, where the others were done all the same'),
  actions: z.array(
    z.strictObject({
      action: described(z.string(), 'what is done, as a line for people'),
      fetch: z.optional(bytes('to come over the network')),
      send: z.optional(bytes('to be sent to another host, at most')),
      space: z.optional(bytes('it may allocate, at most')),
      frees: z.optional(bytes('given back')),
    }),
  ),
})
export type StepResult = z.output<typeof StepResult>

export const DiskResult = z.strictObject({
  name: z.string(),
  path: z.string(),
  format: described(z.string(), 'as it is pinned: qcow2, raw, or unknown where nothing pins it'),
  virtualSize: z.optional(bytes('what the guest sees; absent where the format is unknown')),
  actualSize: bytes('allocated on the host'),
  backing: optional(z.string(), 'path of the base'),
  problem: optional(z.string(), 'why it cannot be used as what it is pinned'),
})
export type DiskResult = z.output<typeof DiskResult>

export const ErrorResult = z.strictObject({
  code: z.enum(codes),
  kind: z.enum(['failed', 'usage', 'refused', 'busy']),
  message: z.string(),
  remedy: z.string(),
  step: z.optional(z.string()),
})

/** The one document that every task prints with --json. */
export const Result = z.strictObject({
  version: z.literal(1),
  task: z.string(),
  ok: z.boolean(),
  changed: z.boolean(),
  instance: z.optional(z.string()),
  reasons: optional(z.array(z.string()), 'decisions on the way to the steps, each with its reason'),
  warnings: optional(z.array(z.string()), 'what was done all the same, and should be known'),
  steps: z.array(StepResult),
  disks: z.optional(z.array(DiskResult)),
  bytes: z.optional(z.strictObject({ fetched: bytes('from the store'), sent: bytes('to another host') })),
  downtimeSeconds: z.optional(z.number()),
  handOver: optional(
    z.union([Order, Offer, Answer, MoveState]),
    'for the other half of a move: what migrate-source and migrate-destination print without --json',
  ),
  error: z.optional(ErrorResult),
})
export type Result = z.output<typeof Result>
