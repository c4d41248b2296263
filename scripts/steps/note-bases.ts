import * as z from 'zod/mini'
import { touchedAt } from '../../lib/host/cache.ts'
import { fileAt } from '../../lib/host/files.ts'
import type { Action } from '../../lib/job/action.ts'
import { exactness, inLockOrder, requireInBases } from '../../lib/job/clean.ts'
import { baseLock, recordOf } from '../../lib/job/layout.ts'
import { AbsolutePath, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const Bases = z.array(AbsolutePath)

export const noteBases = defineStep({
  name: 'note-bases',
  summary: 'Note which bases are in use, and begin to count the time of those that another tool made',
  input: () =>
    z.strictObject({
      used: withDefault(Bases, [], 'bases in use: their records are touched'),
      adopted: withDefault(Bases, [], 'bases of another tool: they get a record'),
    }),
  // To touch a record needs no lock: it changes nothing that anybody reads but us.
  locks: ({ adopted }) => inLockOrder(adopted).map(baseLock),
  inspect: async ({ used, adopted }, { instances }) => {
    requireInBases([...used, ...adopted], instances)
    const now = Date.now()
    return {
      stale: used.filter((base) => now - (touchedAt(recordOf(base)) ?? now) > exactness * 1000),
      unknown: adopted.flatMap((base) => {
        const file = fileAt(recordOf(base)) ? undefined : fileAt(base)
        return file ? [{ base, stamp: file.stamp }] : []
      }),
    }
  },
  plan(_, { stale, unknown }): Action[] {
    const count = stale.length === 1 ? 'the record of 1 base' : `the records of ${stale.length} bases`
    return [
      ...unknown.map(({ base, stamp }): Action => {
        const why = 'made by another tool; its time without users begins now'
        return { do: 'record', path: recordOf(base), of: base, fields: { adopted: true }, stamp, why }
      }),
      ...(stale.length > 0 ? [{ do: 'touch', paths: stale.map(recordOf), what: `${count} in use` } as const] : []),
    ]
  },
})
