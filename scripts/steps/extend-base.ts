import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, leftoversOf, planKnown, proofOf, requireSound } from '../../lib/host/bases.ts'
import { freeSpace, requireSpace } from '../../lib/host/files.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { readerVersion } from '../../lib/job/base.ts'
import { baseLock, isWholeGiB, partOf, recordOf } from '../../lib/job/layout.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, exactSize } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const extendBase = defineStep({
  name: 'extend-base',
  summary: 'Make a copy of a base in the size of a disk (only for base_layout: sized)',
  input: () =>
    z.strictObject({
      base: described(AbsolutePath, 'base to copy'),
      sized: described(AbsolutePath, 'base that it is to become, in _base'),
      size: described(Bytes, 'size it is to have, whole GiB'),
    }),
  locks: ({ base, sized }) => [baseLock(base), baseLock(sized)],
  inspect: async ({ base, sized }, { image_ceiling }, ahead) => {
    const [original, copy] = [baseAt(base), baseAt(sized)]
    return {
      base: original,
      sized: copy,
      proof: await proofOf(sized, copy, { original }),
      leftovers: leftoversOf(sized),
      free: freeSpace(dirname(sized)),
      ceiling: image_ceiling,
      isComing: ahead.has(base),
      isRenewed: ahead.has(recordOf(base)),
    }
  },
  plan({ base, sized, size }, found): Action[] {
    // The name holds whole GiB only: other sizes would meet in one file.
    if (!isWholeGiB(size))
      misuse(
        `Cannot make a base of ${size} bytes: sized bases have whole GiB`,
        'ask for a size such as 20G, or set base_layout: overlay',
      )
    const remove = found.leftovers.map((path): Action => ({ do: 'remove', path }))
    const reader = { version: readerVersion, ceiling: found.ceiling }
    if (found.sized) return [...remove, ...planKnown(sized, found.sized, { proof: found.proof, reader })]
    if (!found.base && !found.isComing)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot extend base "${base}": there is no such base`,
        'make it: cowhand step cache-base',
      )
    if (found.base && found.base.size > size)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot make a base of ${exactSize(size)} from "${base}": it has ${exactSize(found.base.size)}`,
        `ask for at least that, in whole GiB: ${Math.ceil(found.base.size / 2 ** 30)}G`,
      )
    if (found.base && !found.isRenewed) requireSound(base, found.base)
    // What it is a copy of is what it is: the original, and zeros behind it.
    const { id, name, source, owner, shared, digest, format, packing, adopted } = found.base?.record ?? {}
    const fields = { id, name, source, owner, shared, digest, format, packing, adopted, copyOf: base }
    const part = partOf(sized)
    requireSpace(found.base?.allocated ?? 0, found.free, dirname(sized))
    return [
      { do: 'copy', from: base, to: part, size: found.base?.allocated ?? 0 },
      run(['truncate', '-s', String(size), part], `extend "${part}"`, { writes: part }),
      { do: 'record', path: recordOf(sized), of: part, fields: { ...fields, reader: readerVersion } },
      { do: 'publish', from: part, to: sized },
    ]
  },
})
