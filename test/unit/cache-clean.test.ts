import assert from 'node:assert/strict'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { acquire } from '../../lib/host/locks.ts'
import { Effects } from '../../lib/host/perform.ts'
import { overlayBytes } from '../../lib/image/qcow2-write.ts'
import { locksOf } from '../../lib/job/layout.ts'
import { Problem } from '../../lib/job/problem.ts'
import { runAll, type World } from '../../lib/job/runner.ts'
import { Settings } from '../../lib/job/settings.ts'
import { cacheClean } from '../../scripts/pipelines/cache-clean.ts'

// What happens while the cleaner is at work: each case does something just before a lock is taken.

const here = mkdtempSync(join(tmpdir(), 'cowhand-clean-'))
const instances = join(here, 'instances')
const settings = Settings.parse({ instances })
const [one, two] = ['a'.repeat(40), 'b'.repeat(40)]
const bases = () => readdirSync(join(instances, '_base')).sort()

after(() => rmSync(here, { recursive: true, force: true }))
beforeEach(() => {
  rmSync(instances, { recursive: true, force: true })
  mkdirSync(join(instances, '_base'), { recursive: true })
  const then = Date.now() / 1000 - 2 * 86_400
  for (const name of [one, two]) {
    const path = join(instances, '_base', name)
    writeFileSync(path, '')
    truncateSync(path, 2 ** 20)
    writeFileSync(`${path}.json`, '{"version":1}')
    utimesSync(`${path}.json`, then, then)
  }
})

function makeDisk(base: string): void {
  mkdirSync(join(instances, 'web1'), { recursive: true })
  const backing = join(instances, '_base', base)
  writeFileSync(
    join(instances, 'web1/disk'),
    overlayBytes({ virtualSize: 2 ** 20, backing, backingFormat: 'raw' }).bytes,
  )
}

/** Clean as the program does, with `onLock` called before each lock is had. */
async function clean(onLock: (name: string) => void): Promise<{ claimed: string[]; reasons: string[] }> {
  const job = cacheClean.job.parse({})
  const effects = new Effects(() => {}, new AbortController().signal, settings)
  const [claimed, reasons]: [string[], string[]] = [[], []]
  const world: World = {
    settings,
    tell: () => {},
    perform: (action) => effects.perform(action),
    flush: () => effects.flush(),
    lock: async (name) => {
      onLock(name)
      claimed.push(name)
      return acquire(locksOf(instances), name, { task: 'test', wait: 0 })
    },
  }
  const callsOf = async (got?: ReadonlySet<string>) => {
    const found = await cacheClean.look(job, settings)
    reasons.push(...(cacheClean.reasons?.(job, found, settings, got) ?? []))
    return cacheClean.calls(job, found, settings, got)
  }
  const claims = cacheClean.claims?.(job, await cacheClean.look(job, settings)) ?? []
  await runAll(callsOf, [], world, claims)
  return { claimed, reasons }
}

test('what nobody needs goes, under its lock', async () => {
  const { claimed } = await clean(() => {})
  assert.deepEqual(claimed, [`base.${one}`, `base.${two}`])
  assert.deepEqual(bases(), [])
})

test('a disk that was put on a base between the look and the lock keeps it', async () => {
  await clean((name) => {
    if (name === `base.${two}`) makeDisk(two)
  })
  assert.deepEqual(bases(), [two, `${two}.json`])
})

test('a base that was needed and given up between the look and the lock is young again', async () => {
  await clean((name) => {
    if (name === `base.${two}`) utimesSync(join(instances, '_base', `${two}.json`), new Date(), new Date())
  })
  assert.deepEqual(bases(), [two, `${two}.json`])
})

test('a base whose lock somebody has is left alone, and that is said', async () => {
  const { reasons } = await clean((name) => {
    if (name === `base.${one}`) throw new Problem('busy', 'LOCKED', 'Cannot lock it: it is held', 'wait')
  })
  assert.deepEqual(bases(), [one, `${one}.json`])
  assert.ok(reasons.includes(`${instances}/_base/${one} is left alone: another task has its lock`), reasons.join('\n'))
})

test('what comes up under the locks that nobody can judge stops all of it', async () => {
  const cleaned = clean((name) => {
    if (name !== `base.${two}`) return
    mkdirSync(join(instances, 'web1'))
    writeFileSync(join(instances, 'web1/disk'), Buffer.from('514649fb', 'hex'))
  })
  await assert.rejects(cleaned, ({ cause }) => cause instanceof Problem && cause.code === 'USERS_UNKNOWN')
  assert.equal(bases().length, 4)
})

test('a record goes with its base, also where that is in quarantine, and was cut off on the way', async () => {
  const path = (name: string) => join(instances, '_base', name)
  renameSync(path(one), path(`${one}.quarantined`))
  rmSync(path(two))
  writeFileSync(path(`${two}.quarantined.json`), '{"version":1}')
  await clean(() => {})
  assert.deepEqual(bases(), [`${one}.json`, `${one}.quarantined`])
})
