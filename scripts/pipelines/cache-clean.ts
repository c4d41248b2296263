import { basename } from 'node:path'
import * as z from 'zod/mini'
import { cacheAt } from '../../lib/host/cache.ts'
import { freeSpace } from '../../lib/host/files.ts'
import { usageUnderLocks } from '../../lib/host/usage.ts'
import { decideCleaning, inLockOrder, requireCertain } from '../../lib/job/clean.ts'
import { baseLock, baseOfFile, basesOf } from '../../lib/job/layout.ts'
import { Bytes, Duration, optional, withDefault } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { cleanBases } from '../steps/clean-bases.ts'
import { noteBases } from '../steps/note-bases.ts'

export const cacheClean = definePipeline({
  name: 'cache clean',
  summary: 'Remove bases that nobody has needed for a while, and what was left half-made',
  examples: [
    ['cowhand cache clean --dry-run', 'what would go, and why'],
    ['cowhand cache clean --unused-for 7d --keep-free 50G', 'from cron'],
  ],
  job: z.strictObject({
    'unused-for': withDefault(Duration, '24h', 'time without users after which a base goes; made ones after 1h'),
    'max-size': optional(Bytes, 'room for the cache: unused bases go sooner where it has more'),
    'keep-free': optional(Bytes, 'room to keep free: unused bases go sooner where there is less'),
  }),
  look: async (_, { instances, libvirt_uri }) => {
    const { users, doubts } = await usageUnderLocks(instances, libvirt_uri)
    const { bases, leftovers, quarantined } = cacheAt(instances, users)
    return { now: Date.now(), free: freeSpace(basesOf(instances)), bases, leftovers, quarantined, doubts }
  },
  // Whoever holds the lock of a base works on it, or is about to put a disk on it: it is left alone, not waited for.
  claims(wish, found) {
    const { bases, leftovers, adopted } = decideCleaning(found, wish)
    return inLockOrder([...bases, ...leftovers, ...adopted]).map(baseLock)
  },
  calls(wish, found, _, claimed) {
    requireCertain(found.doubts)
    const { bases, leftovers, used, adopted } = decideCleaning(found, wish)
    const mine = (paths: string[]) => (claimed ? paths.filter((path) => claimed.has(lockOf(path))) : paths)
    return [
      call(noteBases, { used, adopted: mine(adopted) }),
      call(cleanBases, { bases: mine(bases), leftovers: mine(leftovers) }),
    ]
  },
  reasons(wish, found, _, claimed) {
    const { bases, reasons } = decideCleaning(found, wish)
    const busy = claimed ? bases.filter((path) => !claimed.has(lockOf(path))) : []
    return [...reasons, ...busy.map((path) => `${path} is left alone: another task has its lock`)]
  },
  warnings: (wish, found) => decideCleaning(found, wish).warnings,
})

const lockOf = (path: string): string => baseLock(baseOfFile(basename(path)))
