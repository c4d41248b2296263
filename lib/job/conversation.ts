import * as z from 'zod/mini'
import { Event } from './events.ts'
import { Answer, MoveState, phases } from './move.ts'
import { ErrorResult, Result } from './result.ts'

// What goes through the connection between two hosts: lines of JSON, one request at a time. The server says hello,
// then answers each request with events as they happen, and with one last line.

/** Another number where the lines themselves mean something else; both hosts have the same version of cowhand besides. */
export const protocol = 1

/** Bytes of a line, at most: the definition of a domain and the facts of some disks are far below. */
export const longestLine = 16 * 2 ** 20

/**
 * Seconds between two words of the host that asks, and how many may be missed before the other one takes it for gone: a
 * host that lost its link or its power closes no connection.
 */
export const pulse = { every: 5, missed: 6 }

export const Hello = z.object({ cowhand: z.string(), protocol: z.int(), host: z.string() })

export const Request = z.union([
  z.strictObject({ phase: z.enum(phases), document: z.unknown(), dryRun: z.optional(z.boolean()) }),
  /** Nothing is asked: whoever asked before is still there. */
  z.strictObject({ alive: z.literal(true) }),
])
export type Request = z.output<typeof Request>

export const Reply = z.union([
  z.strictObject({ event: Event }),
  z.strictObject({
    answer: z.optional(Answer),
    result: z.optional(Result),
    state: z.optional(MoveState),
    problem: z.optional(z.omit(ErrorResult, { step: true })),
  }),
])
export type Reply = z.output<typeof Reply>
