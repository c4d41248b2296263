import { basename } from 'node:path'
import * as z from 'zod/mini'
import { baseAt } from '../../lib/host/bases.ts'
import { isSameBase } from '../../lib/host/compare.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock, recordOf } from '../../lib/job/layout.ts'
import { BaseIdentity } from '../../lib/job/move.ts'
import { fail } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const proveBase = defineStep({
  name: 'prove-base',
  summary: 'See that a base is what a disk that is still to come needs; changes nothing',
  input: () =>
    z.strictObject({
      base: described(AbsolutePath, 'base, in _base'),
      identity: described(BaseIdentity, 'what it has to be: digest of its image, or of its content'),
    }),
  about: ({ base }) => basename(base),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ base, identity }, _, ahead) => {
    const found = baseAt(base)
    const isComing = ahead.has(base) || ahead.has(recordOf(base))
    return { isComing, isSame: found && !isComing ? await isSameBase(base, found, identity) : undefined }
  },
  plan({ base }, { isComing, isSame }): Action[] {
    // Two runs of mkfs may differ, and a store may have changed its image: the guest still runs, and nothing is lost.
    if (!isComing && isSame !== true)
      fail(
        'BASE_DIFFERS',
        `Cannot use base "${base}": its content is not what the disk needs`,
        'run the same command again: the base then comes from the source',
      )
    return []
  },
})
