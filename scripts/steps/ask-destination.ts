import * as z from 'zod/mini'
import { plannedBy, sentIn } from '../../lib/host/asking.ts'
import type { Action } from '../../lib/job/action.ts'
import { MoveReference, Order, phases } from '../../lib/job/move.ts'
import { AbsolutePath, described, HostName, optional, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const askDestination = defineStep({
  name: 'ask-destination',
  summary: 'Have the other host do its part of a move',
  input: () =>
    z.strictObject({
      host: described(HostName, 'the other host'),
      phase: described(z.enum(phases), 'what it is to do'),
      document: described(z.union([Order, MoveReference]), 'the hand-over document, or which move it is'),
      record: optional(AbsolutePath, 'where it is written down what was sent'),
      round: withDefault(z.int(), 1, 'which time it is asked for the same in one run'),
    }),
  about: ({ host, phase }) => `${host} (${phase})`,
  inspect: async ({ host, phase, document: given, record, round }, settings) => {
    const sent = record === undefined ? undefined : sentIn(record)
    const document = sent ? { ...given, sent } : given
    return { document, plan: await plannedBy(host, phase, document, round, settings) }
  },
  plan: ({ host, phase, round }, { document, plan }): Action[] =>
    plan.length > 0 ? [{ do: 'ask', host, phase, round, document, plan }] : [],
})
