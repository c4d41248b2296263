import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import { root } from '../../build/sh.ts'

// Prefetching and verifying, killed at any moment: the same command again ends like an undisturbed run.

const binary = join(root, 'build/out/cowhand')
const suicidal = join(root, 'build/out/cowhand-crash-cache')
const here = mkdtempSync(join(tmpdir(), 'cowhand-crash-cache-'))
const instances = join(here, 'instances')
const bases = join(instances, '_base')

function run(program: string, words: string[], env: Record<string, string> = {}) {
  const { status, signal, stdout, stderr } = spawnSync(
    program,
    ['--instances', instances, '--store', `dir:${here}/images`, '--lock-wait', '30', ...words],
    { encoding: 'utf8', env: { PATH: '/usr/bin:/bin', ...env }, timeout: 60_000 },
  )
  return { status, signal, stdout, stderr }
}

function good(...words: string[]): void {
  const { status, stderr } = run(binary, words)
  assert.equal(status, 0, `${words.join(' ')}: ${stderr}`)
}

before(async () => {
  await compile('test/crash/entry.ts', suicidal)
  const raw = join(here, 'raw')
  const made = [
    `head -c 64M /dev/urandom > ${raw}; truncate -s 96M ${raw}`,
    `qemu-img convert -f raw -O qcow2 ${raw} ${here}/debian.qcow2`,
  ]
  assert.equal(spawnSync('bash', ['-c', made.join('; ')]).status, 0)
  rmSync(raw)
  good('image', 'add', join(here, 'debian.qcow2'))
})

after(() => {
  rmSync(here, { recursive: true, force: true })
  rmSync(suicidal, { force: true })
})

const base = (): string => join(bases, readdirSync(bases).find((name) => /^[0-9a-f]{40}$/.test(name)) ?? '')

/** Every file with what is in it; what differs between two undisturbed runs is left out. */
function tree(): Record<string, string> {
  const entries: Record<string, string> = {}
  for (const path of readdirSync(instances, { recursive: true, encoding: 'utf8' }).sort()) {
    const full = join(instances, path)
    // A dead lock is taken over by whoever needs it next.
    if (!statSync(full).isFile() || path.startsWith('locks/')) continue
    const bytes = readFileSync(full)
    const stable =
      bytes.length < 65536
        ? bytes.toString().replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|"(stamp|made|since)": "[\dTZ:.-]+"/g, '*')
        : bytes
    entries[path] = createHash('sha256').update(stable).digest('hex')
  }
  return entries
}

const spoil = (): void => {
  const bytes = readFileSync(base())
  bytes.write('GUEST', 5_000_000)
  writeFileSync(base(), bytes)
}

const scenes: Record<string, { begin: () => void; words: string[]; ends: number; actions: number }> = {
  'cache prefetch': { begin: () => {}, words: ['cache', 'prefetch', 'debian'], ends: 0, actions: 7 },
  'cache verify of a base that is right': {
    begin: () => good('create', 'web1', '--image', 'debian', '--root', '1G'),
    words: ['cache', 'verify'],
    ends: 0,
    actions: 1,
  },
  'cache verify of a base that differs, with users': {
    begin: () => {
      good('create', 'web1', '--image', 'debian', '--root', '1G')
      spoil()
    },
    words: ['cache', 'verify'],
    ends: 1,
    actions: 2,
  },
  'cache verify of a base that differs, without users': {
    begin: () => {
      good('cache', 'prefetch', 'debian')
      spoil()
    },
    words: ['cache', 'verify'],
    ends: 1,
    actions: 4,
  },
}

/** What was found is told by whoever comes to the end; where all but the alarm was done, as a warning. */
function hears({ status, stderr }: ReturnType<typeof run>, ends: number, when = ''): void {
  if (status === 0 && ends === 1) assert.match(stderr, /^warning: .*\.quarantined was set aside/m, when)
  else assert.equal(status, ends, `after ${when}: ${stderr}`)
}

for (const [what, { begin, words, ends, actions }] of Object.entries(scenes)) {
  /** What an undisturbed run leaves, and the lines that it tells. */
  const undisturbed = () => {
    rmSync(instances, { recursive: true, force: true })
    begin()
    const { status, stderr } = run(binary, [...words, '--progress', 'json'])
    assert.equal(status, ends, stderr)
    const told = stderr.split('\n').filter((line) => line.startsWith('{') && JSON.parse(line).type !== 'progress')
    return { whole: tree(), told }
  }

  test(`${what}, killed at every action, ends the same`, () => {
    const { whole, told } = undisturbed()
    assert.equal(told.filter((line) => JSON.parse(line).type === 'action').length, actions, told.join('\n'))
    for (let at = 1; at <= told.length; at += 1) {
      rmSync(instances, { recursive: true, force: true })
      begin()
      const killed = run(suicidal, words, { KILL_AT: String(at) })
      assert.equal(killed.signal, 'SIGKILL', `at ${told[at - 1]}: ${killed.stderr}`)
      const again = run(binary, words)
      hears(again, ends, told[at - 1])
      assert.deepEqual(tree(), whole, `after ${told[at - 1]}`)
    }
  })

  test(`${what}, killed while it reads, ends the same`, async () => {
    const { whole } = undisturbed()
    for (const milliseconds of [60, 90, 130, 180]) {
      rmSync(instances, { recursive: true, force: true })
      begin()
      // By the clock: what is read while it only plans is told as progress alone.
      spawnSync('timeout', [
        '-s',
        'KILL',
        String(milliseconds / 1000),
        binary,
        '--instances',
        instances,
        '--store',
        `dir:${here}/images`,
        ...words,
      ])
      await sleep(100)
      const again = run(binary, words)
      hears(again, ends)
      assert.deepEqual(tree(), whole)
    }
  })
}
