import { dirname } from 'node:path'
import { z } from 'zod'
import { baseAt, leftoversOf } from '../../lib/host/bases.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { baseLock, partOf, recordOf } from '../../lib/job/layout.ts'
import { AbsolutePath, Bytes, EphemeralFormat } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const makeEphemeralBase = defineStep({
  name: 'make-ephemeral-base',
  summary: 'Make the base of ephemeral disks of one size: an empty file system labelled ephemeral0',
  input: z.strictObject({
    base: AbsolutePath.describe('base that it is to become, in _base'),
    size: Bytes.describe('size of the file system'),
    format: EphemeralFormat.describe('file system'),
  }),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ base, size, format }) => {
    const facts = { base: baseAt(base), leftovers: leftoversOf(base) }
    if (facts.base) return { ...facts, maker: undefined }
    const { mkfsCommand } = await import('../../lib/host/mkfs.ts')
    return { ...facts, maker: mkfsCommand({ path: partOf(base), format, size }) }
  },
  plan({ base, size }, found): Action[] {
    if (!found.maker) return found.leftovers.map((path) => ({ do: 'remove', path }))
    const part = partOf(base)
    const { argv, env, deterministic } = found.maker
    return [
      { do: 'mkdir', path: dirname(base), mode: 0o755 },
      { do: 'allocate', path: part, size },
      run(argv, 'format it', { writes: part, ...(env ? { env } : {}) }),
      { do: 'record', path: recordOf(base), of: part, fields: { madeBy: argv, deterministic } },
      { do: 'publish', from: part, to: base },
    ]
  },
})
