import * as z from 'zod/mini'
import { ownNamesIn } from '../../lib/host/files.ts'
import type { Action } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const restoreInstance = defineStep({
  name: 'restore-instance',
  summary: 'Give an instance that was set aside its own name again',
  input: () =>
    z.strictObject({
      aside: described(AbsolutePath, 'what it is called, such as NAME_resize'),
      directory: described(AbsolutePath, 'what it is to be called'),
    }),
  inspect: async ({ directory, aside }) => ({
    isHere: ownNamesIn(directory) !== undefined,
    isAside: (ownNamesIn(aside) ?? []).length > 0,
  }),
  plan({ directory, aside }, { isHere, isAside }): Action[] {
    if (!isAside) return []
    // An earlier step removes it.
    if (isHere) refuse('IN_USE', `Cannot restore "${directory}": it is there`, 'look at it, and move it away')
    return [{ do: 'rename', from: aside, to: directory }]
  },
})
