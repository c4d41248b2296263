import * as z from 'zod/mini'
import { fileAt, ownNamesIn } from '../../lib/host/files.ts'
import { isInUse } from '../../lib/host/qemu-img.ts'
import type { Action } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const setAsideInstance = defineStep({
  name: 'set-aside-instance',
  summary:
    'Give the directory of an instance that is off another name, to go back to; its guest cannot be started meanwhile',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory"),
      aside: described(AbsolutePath, 'what it is to be called, such as NAME_resize'),
    }),
  inspect: async ({ directory, aside }) => ({
    isHere: ownNamesIn(directory) !== undefined,
    // An empty one is what a confirm left that was cut off.
    isAside: (ownNamesIn(aside) ?? []).length > 0,
    inUse: fileAt(`${directory}/disk`) !== undefined && (await isInUse(`${directory}/disk`)),
  }),
  plan({ directory, aside }, { isHere, isAside, inUse }): Action[] {
    if (isAside) return []
    if (!isHere)
      refuse(
        'INSTANCE_NOT_FOUND',
        `Cannot set "${directory}" aside: there is no such instance`,
        'see what there is: cowhand list',
      )
    // Pending as long as the guest has not been switched off: that comes before.
    if (inUse)
      refuse('IN_USE', `Cannot set "${directory}" aside: a running guest has its disk open`, 'switch the guest off')
    return [{ do: 'rename', from: directory, to: aside }]
  },
})
