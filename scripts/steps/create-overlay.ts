import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, requireSound } from '../../lib/host/bases.ts'
import { fileAt, ownNamesIn } from '../../lib/host/files.ts'
import { diskFoundAt } from '../../lib/host/pins.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import { checkOverlay } from '../../lib/image/qcow2-write.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock, partOf, recordOf } from '../../lib/job/layout.ts'
import { requireSame } from '../../lib/job/overlay.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, exactSize } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const createOverlay = defineStep({
  name: 'create-overlay',
  summary: 'Put a copy-on-write disk on a base',
  input: () =>
    z.strictObject({
      disk: described(AbsolutePath, 'overlay to make'),
      base: described(AbsolutePath, 'raw base that it is to stand on'),
      size: described(Bytes, 'size that the guest is to see'),
    }),
  // Under the lock of its base, so that a cleaner cannot take the base before the overlay is seen to need it.
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ disk, base }, _, ahead) => ({
    // Where its directory is made anew, what is in there goes.
    disk: ahead.has(dirname(disk)) ? undefined : await diskFoundAt(disk),
    base: baseAt(base),
    isRaw: !fileAt(base) || readQcow2(base) === undefined,
    isComing: ahead.has(base),
    isRenewed: ahead.has(recordOf(base)),
    directory: ahead.has(dirname(disk)) || ownNamesIn(dirname(disk)) !== undefined,
    leftover: fileAt(partOf(disk)) !== undefined,
  }),
  plan({ disk, base, size }, { disk: found, base: below, isRaw, isComing, isRenewed, directory, leftover }): Action[] {
    if (!below && !isComing)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot put "${disk}" on base "${base}": there is no such base`,
        'make it: cowhand step cache-base, make-ephemeral-base or make-swap-base',
      )
    if (found) {
      requireSame(disk, base, size, found)
      return leftover ? [{ do: 'remove', path: partOf(disk) }] : []
    }
    if (below && !isRenewed) requireSound(base, below)
    // As raw, its header would be what the guest sees.
    if (!isRaw)
      refuse(
        'UNSUPPORTED',
        `Cannot put "${disk}" on base "${base}": it is a qcow2, and bases are raw`,
        'make a raw one of it: cowhand step cache-base',
      )
    checkOverlay(base, size)
    if (below && below.size > size)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot make "${disk}" with ${exactSize(size)}: its image has ${exactSize(below.size)}`,
        `ask for at least that: --root ${exactSize(below.size)}`,
      )
    return [
      ...(directory ? [] : [{ do: 'mkdir', path: dirname(disk), mode: 0o755 } as const]),
      { do: 'overlay', path: partOf(disk), base, baseFormat: 'raw', size },
      { do: 'publish', from: partOf(disk), to: disk },
    ]
  },
})
