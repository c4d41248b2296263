import { lstatSync } from 'node:fs'
import { basename } from 'node:path'
import * as z from 'zod/mini'
import { touchedAt } from '../../lib/host/cache.ts'
import { fileAt } from '../../lib/host/files.ts'
import { type Usage, usageUnderLocks } from '../../lib/host/usage.ts'
import type { Action } from '../../lib/job/action.ts'
import { inLockOrder, requireCertain, requireInBases } from '../../lib/job/clean.ts'
import { baseLock, baseOfFile, isBaseFile, kindOfBase, quarantineOf, recordOf } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, formatDuration, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** It is no leftover: a base, one in quarantine, or somebody's. */
const isKept = (name: string): boolean =>
  isBaseFile(name) ||
  (name.includes('.quarantined') && name !== recordOf(quarantineOf(baseOfFile(name)))) ||
  kindOfBase(baseOfFile(name)) === 'unknown'

export const cleanBases = defineStep({
  name: 'clean-bases',
  summary: 'Remove bases that nobody needs, and what was left half-made',
  input: () =>
    z.strictObject({
      bases: withDefault(z.array(AbsolutePath), [], 'bases to remove; one that is needed stays'),
      leftovers: withDefault(z.array(AbsolutePath), [], 'half-made files, and records without a base'),
    }),
  // Under the locks of its bases: whoever is about to put a disk on one has it, or waits and then finds it gone.
  locks: ({ bases, leftovers }) => inLockOrder([...bases, ...leftovers]).map(baseLock),
  inspect: async ({ bases, leftovers }, { instances, libvirt_uri }) => {
    requireInBases([...bases, ...leftovers], instances)
    const now = Date.now()
    const found = bases.flatMap((base) => {
      const [file, record] = [fileAt(base), touchedAt(recordOf(base))]
      if (!file && record === undefined) return []
      return [
        {
          base,
          file,
          hasRecord: record !== undefined,
          unused: record === undefined ? undefined : (now - record) / 1000,
        },
      ]
    })
    const isThere = found.some(({ file }) => file)
    const usage: Usage = isThere ? await usageUnderLocks(instances, libvirt_uri) : { users: new Map(), doubts: [] }
    return {
      bases: found,
      users: usage.users,
      doubts: usage.doubts,
      leftovers: leftovers.flatMap((path) => {
        const file = lstatSync(path, { throwIfNoEntry: false })
        // The record of a base that is there by now is none.
        if (!file || (path.endsWith('.json') && fileAt(path.slice(0, -'.json'.length)))) return []
        return [{ path, frees: file.blocks * 512, age: (now - file.mtimeMs) / 1000 }]
      }),
    }
  },
  plan({ bases, leftovers }, found): Action[] {
    const wrong = bases.find((path) => !isBaseFile(basename(path)) || kindOfBase(basename(path)) === 'unknown')
    if (wrong !== undefined)
      misuse(`Cannot remove "${wrong}": that is no name of a base`, 'see what there is: cowhand cache list')
    const other = leftovers.find((path) => isKept(basename(path)))
    if (other !== undefined)
      misuse(`Cannot remove "${other}": it is no leftover of a base`, 'see what there is: cowhand cache list')
    const spare = found.bases.filter(({ base }) => !found.users.has(basename(base)))
    if (spare.some(({ file }) => file)) requireCertain(found.doubts)
    return [
      // The base goes before its record: what it was is known as long as it is there.
      ...spare.flatMap(({ base, file, hasRecord, unused }): Action[] => {
        const why = unused === undefined ? 'nobody needs it' : `unused for ${formatDuration(unused)}`
        return [
          ...(file ? [{ do: 'remove', path: base, why, frees: file.allocated } as const] : []),
          ...(hasRecord ? [{ do: 'remove', path: recordOf(base) } as const] : []),
        ]
      }),
      ...found.leftovers.map(
        ({ path, frees, age }): Action => ({ do: 'remove', path, why: `left over for ${formatDuration(age)}`, frees }),
      ),
    ]
  },
})
