import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, leftoversOf } from '../../lib/host/bases.ts'
import { freeSpace, requireSpace } from '../../lib/host/files.ts'
import { type Action, run } from '../../lib/job/action.ts'
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
  inspect: async ({ base, sized }, _, ahead) => ({
    base: baseAt(base),
    sized: baseAt(sized),
    leftovers: leftoversOf(sized),
    free: freeSpace(dirname(sized)),
    isComing: ahead.has(base),
  }),
  plan({ base, sized, size }, found): Action[] {
    // The name holds whole GiB only: other sizes would meet in one file.
    if (!isWholeGiB(size))
      misuse(
        `Cannot make a base of ${size} bytes: sized bases have whole GiB`,
        'ask for a size such as 20G, or set base_layout: overlay',
      )
    if (found.sized) return found.leftovers.map((path) => ({ do: 'remove', path }))
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
    const part = partOf(sized)
    requireSpace(found.base?.allocated ?? 0, found.free, dirname(sized))
    return [
      { do: 'copy', from: base, to: part, size: found.base?.allocated ?? 0 },
      run(['truncate', '-s', String(size), part], `extend "${part}"`, { writes: part }),
      { do: 'record', path: recordOf(sized), of: part, fields: { copyOf: base } },
      { do: 'publish', from: part, to: sized },
    ]
  },
})
