import * as z from 'zod/mini'
import { jsonAt } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import type { Action } from '../../lib/job/action.ts'
import { type InstanceRecord, Task } from '../../lib/job/instance.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const recordTask = defineStep({
  name: 'record-task',
  summary: 'Write down in instance.json which resize or migration is in hand, and how far it came',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory, also NAME_resize"),
      abandoned: optional(
        z.object({ move: Uuid, host: z.string() }),
        'move that was given up while its destination could not be reached',
      ),
      // Not called task: that is what a job document names its command by.
      'in-hand': optional(Task, 'the task; left out: none is in hand any more'),
    }),
  about: ({ 'in-hand': task }) => task?.phase ?? 'over',
  inspect: async ({ directory }) => ({
    record: instanceAt(directory),
    // As it is written: without a task it is again what it was before one, byte for byte.
    written: jsonAt(`${directory}/instance.json`) as InstanceRecord,
  }),
  plan({ directory, 'in-hand': task, abandoned }, { record, written }): Action[] {
    const path = `${directory}/instance.json`
    if (!record)
      return refuse('MISSING_PREREQUISITE', `Cannot write "${path}": there is no such instance`, 'cowhand list')
    // Members in one order, however they came together.
    if (JSON.stringify(record.task) === JSON.stringify(task && Task.parse(task))) return []
    const { task: _, abandoned: before, ...known } = written
    // Until the next one has taken over what arrived there.
    const left = task ? before : abandoned
    const rest = { ...known, ...(left ? { abandoned: left } : {}) }
    const text = `${JSON.stringify(task ? { ...rest, task } : rest, null, 2)}\n`
    return [{ do: 'write', path, text, mode: 0o644 }]
  },
})
