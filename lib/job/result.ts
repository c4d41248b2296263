import { z } from 'zod'
import { codes } from './problem.ts'

const bytes = (what: string) => z.number().int().describe(`${what}, bytes`)

export const StepResult = z.strictObject({
  step: z.string(),
  status: z.enum(['ok', 'changed', 'planned', 'pending', 'skipped', 'failed']),
  changed: z.boolean(),
  seconds: z.number(),
  actions: z.array(
    z.strictObject({
      action: z.string().describe('what is done, as a line for people'),
      fetch: bytes('to come over the network').optional(),
      space: bytes('it may allocate, at most').optional(),
    }),
  ),
})
export type StepResult = z.output<typeof StepResult>

export const DiskResult = z.strictObject({
  name: z.string(),
  path: z.string(),
  format: z.string(),
  virtualSize: bytes('what the guest sees'),
  actualSize: bytes('allocated on the host'),
  backing: z.string().optional().describe('path of the base'),
})
export type DiskResult = z.output<typeof DiskResult>

export const ErrorResult = z.strictObject({
  code: z.enum(codes),
  kind: z.enum(['failed', 'usage', 'refused', 'busy']),
  message: z.string(),
  remedy: z.string(),
  step: z.string().optional(),
})

/** The one document that every task prints with --json. */
export const Result = z.strictObject({
  version: z.literal(1),
  task: z.string(),
  ok: z.boolean(),
  changed: z.boolean(),
  instance: z.string().optional(),
  reasons: z.array(z.string()).optional().describe('decisions on the way to the steps, each with its reason'),
  steps: z.array(StepResult),
  disks: z.array(DiskResult).optional(),
  bytes: z.strictObject({ fetched: bytes('from the store'), sent: bytes('to another host') }).optional(),
  downtimeSeconds: z.number().optional(),
  error: ErrorResult.optional(),
})
export type Result = z.output<typeof Result>
