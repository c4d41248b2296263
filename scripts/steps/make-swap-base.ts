import { dirname } from 'node:path'
import { z } from 'zod'
import { baseAt, leftoversOf } from '../../lib/host/bases.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { baseLock, isWholeMiB, partOf, recordOf } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const makeSwapBase = defineStep({
  name: 'make-swap-base',
  summary: 'Make the base of swap disks of one size',
  input: z.strictObject({
    base: AbsolutePath.describe('base that it is to become, in _base'),
    size: Bytes.describe('size of the swap space, whole MiB'),
  }),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ base, size }) => {
    const facts = { base: baseAt(base), leftovers: leftoversOf(base) }
    if (facts.base) return { ...facts, maker: undefined }
    const { mkswapCommand } = await import('../../lib/host/mkfs.ts')
    return { ...facts, maker: mkswapCommand({ path: partOf(base), size }) }
  },
  plan({ base, size }, found): Action[] {
    // Its name holds whole MiB: other sizes would meet in one file.
    if (!isWholeMiB(size))
      misuse(`Cannot make a swap disk of ${size} bytes: it is not a whole number of MiB`, 'ask for a size such as 512M')
    if (!found.maker) return found.leftovers.map((path) => ({ do: 'remove', path }))
    const part = partOf(base)
    const { argv, env, deterministic } = found.maker
    return [
      { do: 'mkdir', path: dirname(base), mode: 0o755 },
      { do: 'allocate', path: part, size },
      run(argv, 'make it swap space', { writes: part, ...(env ? { env } : {}) }),
      { do: 'record', path: recordOf(base), of: part, fields: { madeBy: argv, deterministic } },
      { do: 'publish', from: part, to: base },
    ]
  },
})
