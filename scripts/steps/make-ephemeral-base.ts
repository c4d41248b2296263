import * as z from 'zod/mini'
import { lookForMade, planMade } from '../../lib/host/made-base.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, EphemeralFormat, exactSize } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const MiB = 2 ** 20
/** Bytes that each file system needs, at least. */
const smallest: Record<EphemeralFormat, number> = {
  ext4: MiB,
  ext3: MiB,
  vfat: MiB,
  ntfs: 2 * MiB,
  xfs: 300 * MiB,
}

export const makeEphemeralBase = defineStep({
  name: 'make-ephemeral-base',
  summary: 'Make the base of ephemeral disks of one size: an empty file system labelled ephemeral0',
  input: () =>
    z.strictObject({
      base: described(AbsolutePath, 'base that it is to become, in _base'),
      size: described(Bytes, 'size of the file system'),
      format: described(EphemeralFormat, 'file system'),
    }),
  locks: ({ base }) => [baseLock(base)],
  inspect: ({ base, size, format }) =>
    lookForMade(base, ({ mkfsCommand }, path) => mkfsCommand({ path, format, size })),
  plan({ base, size, format }, found): Action[] {
    if (size < smallest[format])
      misuse(
        `Cannot make an ephemeral disk of ${exactSize(size)}: ${format} needs ${exactSize(smallest[format])}`,
        `ask for at least that: --ephemeral ${exactSize(smallest[format])}`,
      )
    return planMade(base, size, found)
  },
})
