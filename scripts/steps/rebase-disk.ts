import { basename, dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, proofOf, requireSound } from '../../lib/host/bases.ts'
import { isSameBase } from '../../lib/host/compare.ts'
import { ownFileAt } from '../../lib/host/files.ts'
import { pinsOf } from '../../lib/host/pins.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock, type DiskName, recordOf } from '../../lib/job/layout.ts'
import { BaseIdentity } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const rebaseDisk = defineStep({
  name: 'rebase-disk',
  summary: 'Have the header of an overlay name another base, which is proven to have the same content',
  input: () =>
    z.strictObject({
      disk: described(AbsolutePath, 'overlay to change'),
      base: described(AbsolutePath, 'raw base that it is to stand on, in _base'),
      identity: optional(BaseIdentity, 'what that base has to be: digest of its image, or of its content'),
    }),
  about: ({ disk }) => basename(disk),
  // Under the lock of its base, so that a cleaner cannot take the base before the overlay is seen to need it.
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ disk, base, identity }, _, ahead) => {
    const found = baseAt(base)
    const isRenewed = ahead.has(recordOf(base))
    const proof = await proofOf(base, found, {})
    if (found && !isRenewed) requireSound(base, found, proof)
    const isRaw = (await pinsOf(dirname(disk)))(basename(disk) as DiskName) === 'raw'
    return {
      disk: ownFileAt(disk) && !isRaw ? (readQcow2(disk) ?? 'raw') : isRaw ? 'raw' : undefined,
      base: found,
      isSame: found && identity && !isRenewed ? await isSameBase(base, found, identity) : undefined,
      isDiskComing: ahead.has(disk),
      isBaseComing: ahead.has(base) || isRenewed,
    }
  },
  plan({ disk, base, identity }, found): Action[] {
    const cannot = (code: Parameters<typeof refuse>[0], state: string, remedy: string) =>
      refuse(code, `Cannot put "${disk}" on base "${base}": ${state}`, remedy)
    if (!found.base && !found.isBaseComing)
      cannot('MISSING_PREREQUISITE', 'there is no such base', 'make it: cowhand step cache-base or make-ephemeral-base')
    if (!found.disk && !found.isDiskComing)
      cannot('MISSING_PREREQUISITE', 'there is no such disk', 'run the same command again, on the source')
    if (found.disk === 'raw') cannot('NOT_OURS', 'it is raw, and stands on nothing', `look at it: ls -l ${disk}`)
    // What the guest wrote is half of what it sees; the other half has to be what it was (BEHAVIOUR.md S75).
    const compare = `find out what is in it: cowhand cache verify ${basename(base)}`
    if (identity && found.base && !found.isBaseComing) {
      if (found.isSame === undefined) cannot('BASE_UNPROVEN', 'nothing proves that it is what the disk needs', compare)
      if (!found.isSame) cannot('BASE_DIFFERS', 'its content is not what the disk needs', compare)
    }
    const header = typeof found.disk === 'object' ? found.disk : undefined
    // Where no format is written, qemu guesses it.
    if (header?.backing === base && header.backingFormat === 'raw') return []
    return [{ do: 'point', path: disk, base }]
  },
})
