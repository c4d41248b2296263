import * as z from 'zod/mini'
import { lookForMade, planMade } from '../../lib/host/made-base.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock, isWholeMiB } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const makeSwapBase = defineStep({
  name: 'make-swap-base',
  summary: 'Make the base of swap disks of one size',
  input: () =>
    z.strictObject({
      base: described(AbsolutePath, 'base that it is to become, in _base'),
      size: described(Bytes, 'size of the swap space, whole MiB'),
    }),
  locks: ({ base }) => [baseLock(base)],
  inspect: ({ base, size }) => lookForMade(base, ({ mkswapCommand }, path) => mkswapCommand({ path, size })),
  plan({ base, size }, found): Action[] {
    // Its name holds whole MiB: other sizes would meet in one file.
    if (!isWholeMiB(size))
      misuse(`Cannot make a swap disk of ${size} bytes: it is not a whole number of MiB`, 'ask for a size such as 512M')
    return planMade(base, size, found)
  },
})
