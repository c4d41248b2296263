import { basename } from 'node:path'
import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { table } from '../../lib/cli/table.ts'
import { cacheAt } from '../../lib/host/cache.ts'
import { freeSpace } from '../../lib/host/files.ts'
import { type Usage, usageOf } from '../../lib/host/usage.ts'
import { basesOf } from '../../lib/job/layout.ts'
import { Problem } from '../../lib/job/problem.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { formatDuration, formatSize } from '../../lib/job/spec.ts'

/** A file of `_base`: sizes in bytes, times in ISO 8601. */
interface Row {
  base: string
  kind: string
  state: 'ok' | 'no record' | 'quarantined' | 'leftover'
  image?: string | undefined
  id?: string | undefined
  source?: string | undefined
  size?: number
  allocated: number
  users: string[]
  /** When it was last known to be needed, or made. */
  used?: string
}

export const cacheList = defineQuery({
  name: 'cache list',
  summary: 'List the bases of the cache, with their users',
  job: z.strictObject({}),
  run: async (_, { instances, libvirt_uri }) => {
    const { users, doubts, trouble } = await usageIn(instances, libvirt_uri)
    const cache = cacheAt(instances, users)
    const rows: Row[] = [
      ...cache.bases.map(
        ({ name, kind, size, allocated, users, usedAt, record, isQuarantined }): Row => ({
          base: name,
          kind,
          state: isQuarantined ? 'quarantined' : record || kind === 'unknown' ? 'ok' : 'no record',
          image: record?.name,
          id: record?.id,
          source: record?.source,
          size,
          allocated,
          users,
          ...(usedAt === undefined ? {} : { used: new Date(usedAt).toISOString() }),
        }),
      ),
      ...others(cache.quarantined, 'quarantined'),
      ...others(cache.leftovers, 'leftover'),
    ].sort((one, other) => (one.base < other.base ? -1 : 1))
    const problems = [
      ...cache.problems,
      ...trouble,
      ...doubts.map(({ path, state }) => `Cannot tell what "${path}" stands on: ${state}`),
    ]
    const allocated = rows.reduce((sum, row) => sum + row.allocated, 0)
    const free = freeSpace(basesOf(instances))
    const total = `${rows.length} files, ${formatSize(allocated)} on disk; ${formatSize(free)} are free`
    const text = rows.length > 0 ? [table(head, rows.map(cells)), total] : []
    return {
      data: { bases: rows, total: { allocated, free }, problems },
      text: [...text, ...problems.map(oneLine)].join('\n'),
      ok: problems.length === 0,
    }
  },
})

/** With libvirt out of reach, what is in the directories is still worth a list. */
async function usageIn(instances: string, uri: string | undefined): Promise<Usage & { trouble: string[] }> {
  try {
    return { ...(await usageOf(instances, uri)), trouble: [] }
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem
    return { ...(await usageOf(instances, undefined)), trouble: [problem.message] }
  }
}

const others = (files: { path: string; allocated: number; modified: number }[], state: 'quarantined' | 'leftover') =>
  files.map(
    ({ path, allocated, modified }): Row => ({
      base: basename(path),
      kind: '-',
      state,
      allocated,
      users: [],
      used: new Date(modified).toISOString(),
    }),
  )

const head = ['BASE', 'IMAGE', 'KIND', 'SIZE', 'ON DISK', 'USERS', 'UNUSED FOR', 'STATE', 'SOURCE']

function cells({ base, image, kind, size, allocated, users, used, source, state }: Row): string[] {
  const since = used === undefined || users.length > 0 ? '-' : formatDuration((Date.now() - Date.parse(used)) / 1000)
  return [
    // Enough of a digest to tell it from others, and to find the file.
    base.replace(/^([0-9a-f]{12})[0-9a-f]{28}/, '$1…'),
    image ?? '-',
    kind,
    size === undefined ? '-' : formatSize(size),
    formatSize(allocated),
    String(users.length),
    since,
    state,
    source ?? '-',
  ]
}
