import * as z from 'zod/mini'
import { fileAt } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import type { Action } from '../../lib/job/action.ts'
import { Task } from '../../lib/job/instance.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const recordTask = defineStep({
  name: 'record-task',
  summary: 'Write down in instance.json which resize or migration is in hand, and how far it came',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory, also NAME_resize"),
      task: optional(Task, 'the task; left out: none is in hand any more'),
    }),
  inspect: async ({ directory }, _, ahead) => ({
    record: instanceAt(directory),
    isComing: ahead.has(directory),
    hasDefinition: fileAt(`${directory}/definition.xml`) !== undefined,
  }),
  plan({ directory, task }, { record, isComing, hasDefinition }): Action[] {
    const path = `${directory}/instance.json`
    // What an earlier step is going to put there cannot be read yet.
    if (!record) return isComing ? [{ do: 'write', path, text: '', mode: 0o644 }] : []
    // What was kept to go back to would be old for the next one.
    const stale: Action[] = hasDefinition && !task ? [{ do: 'remove', path: `${directory}/definition.xml` }] : []
    if (JSON.stringify(record.task) === JSON.stringify(task)) return stale
    const { task: _, ...rest } = record
    const text = `${JSON.stringify(task ? { ...rest, task } : rest, null, 2)}\n`
    return [...stale, { do: 'write', path, text, mode: 0o644 }]
  },
})
