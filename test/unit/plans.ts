import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type * as z from 'zod/mini'
import { sayAction } from '../../lib/job/action.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import type { Step } from '../../lib/job/step.ts'

// What a step does, for what it found: a row is a case. Nothing is touched, for plans are pure.

interface Row<I, F> {
  name: string
  input?: Partial<I>
  found?: Partial<F>
  then: string[] | Code
}

/** Rows of one step: what each differs in from a usual input and from facts. */
export function plans<I extends z.ZodMiniType, F extends object>(
  step: Step<I, F>,
  input: z.input<I>,
  found: F,
  rows: Row<z.input<I>, F>[],
) {
  describe(step.name, () => {
    for (const row of rows)
      test(row.name, () => {
        const given = step.input().parse({ ...(input as object), ...row.input })
        const plan = () => step.plan(given, { ...found, ...row.found }).map(sayAction)
        if (typeof row.then !== 'string') return assert.deepEqual(plan(), row.then)
        assert.throws(plan, (error) => error instanceof Problem && error.code === row.then && error.remedy.length > 0)
      })
  })
}
