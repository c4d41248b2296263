import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import { some } from './some.ts'

// A resize on one host, its confirm and its revert: after a SIGKILL at any moment the same command again ends like an
// undisturbed run, or revert gives the old state back, byte for byte.

const MiB = 2 ** 20
/** One of so many moments is cut at, others on the next day. */
const every = 4
const here = mkdtempSync(join(tmpdir(), 'cowhand-crash-move-'))
/** Where nothing tells it to die, it is cowhand like any other. */
const cowhand = join(here, 'cowhand')
const instances = join(here, 'instances')
const saved = join(here, 'saved')
const known = randomBytes(2 * MiB)

const sh = (script: string, ...words: string[]): string => {
  const { status, stdout, stderr } = spawnSync('bash', ['-euc', script, 'bash', ...words], { encoding: 'utf8' })
  assert.equal(status, 0, `${script}: ${stderr}`)
  return stdout
}

interface Ran {
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}
async function run(words: string[], env: Record<string, string> = {}): Promise<Ran> {
  const child = spawn(cowhand, ['--instances', instances, '--store', `dir:${here}/images`, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...env },
    timeout: 60_000,
  })
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.on('close', (...end) => resolve(end)),
  )
  const [stdout, stderr, [status, signal]] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { stdout, stderr, status, signal }
}
async function good(words: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(words)
  assert.equal(status, 0, `${words.join(' ')}: ${stderr}`)
  return stdout
}

const resize = ['resize', 'vm1', '--root', '96M', '--swap', '16M']
const revert = ['revert', 'vm1', '--yes']
const confirm = ['confirm', 'vm1']

const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex')

/** Directories of the instance, by whatever name. */
const homes = (): string[] => readdirSync(instances).filter((name) => name.startsWith('vm1'))

/** Every path below with what is in it. @param content of one file */
function tree(below: string[], content: (path: string) => string): Record<string, string> {
  const paths = below.flatMap((home) => [
    home,
    ...readdirSync(join(instances, home), { recursive: true, encoding: 'utf8' }).map((name) => `${home}/${name}`),
  ])
  const entries = paths.sort().map((path): [string, string] => {
    const { mode, uid } = statSync(join(instances, path))
    const kind = statSync(join(instances, path)).isFile() ? content(join(instances, path)) : 'directory'
    return [path, `${(mode & 0o777).toString(8)} ${uid} ${kind}`]
  })
  return Object.fromEntries(entries)
}
const bytesOf = (path: string): string => sha256(readFileSync(path))

/** What its guest sees in a disk. Of a file system that was grown only its times may differ between two runs. */
function seen(path: string): string {
  const raw = join(here, 'raw')
  const facts = JSON.parse(sh('qemu-img check -q -f qcow2 "$1" >&2; qemu-img info -f qcow2 --output=json "$1"', path))
  sh('qemu-img convert -f qcow2 -O raw "$1" "$2"', path, raw)
  const what = path.endsWith('disk.swap')
    ? bytesOf(raw)
    : sh(
        'e2fsck -fn "$1" >&2; dumpe2fs -h "$1" 2>/dev/null | grep "^Block count"; debugfs -R "cat /known" "$1" 2>/dev/null | sha256sum; tail -c +12582913 "$1" | head -c 1M | sha256sum',
        raw,
      )
  rmSync(raw)
  return JSON.stringify([facts['virtual-size'], facts['full-backing-filename'], what])
}

/** What is the same after every run: ids of moves and times are not. */
function ended(path: string): string {
  if (/\/disk(\.local|\.swap)?$/.test(path)) return path.includes('_resize') ? bytesOf(path) : seen(path)
  return path.endsWith('instance.json')
    ? readFileSync(path, 'utf8').replace(/"(move|since)": "[^"]*"/g, '*')
    : bytesOf(path)
}
const result = () => ({ instance: tree(homes(), ended), bases: Object.keys(tree(['_base'], () => '')) })

/** Processes of ours that outlived a cowhand. */
function orphans(): string[] {
  return readdirSync('/proc').flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return []
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes('COWHAND_HOLDER=')) return []
      const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      return [words, ...files].some((text) => text.includes(here)) ? [`${pid} ${words}`] : []
    } catch {
      return [] // it has ended
    }
  })
}

/** Nothing goes on behind our back, and no mount, lock or base is worse for it. */
async function assertQuiet(): Promise<void> {
  for (let tries = 0; orphans().length > 0 && tries < 400; tries += 1) await sleep(25)
  assert.deepEqual(orphans(), [], 'a child outlived the kill')
  assert.doesNotMatch(readFileSync('/proc/self/mounts', 'utf8'), new RegExp(here), 'a mount is left')
  const now = tree(['_base'], bytesOf)
  for (const [path, what] of Object.entries(bases)) assert.equal(now[path], what, path)
}
function assertNoLocks(): void {
  const locks = readdirSync(join(instances, 'locks')).filter((name) => !name.endsWith('guard'))
  assert.deepEqual(locks, [], 'a lock was left behind')
}

const keep = (name: string): void => {
  rmSync(join(saved, name), { recursive: true, force: true })
  for (const home of homes()) cpSync(join(instances, home), join(saved, name, home), copy)
}
/** As it was before anything was done, or when a run had come so far. */
const bring = (name: string): void => {
  if (name === 'old')
    for (const path of Object.keys(tree(['_base'], () => '')))
      if (!(path in bases)) rmSync(join(instances, path), { force: true })
  for (const home of homes()) rmSync(join(instances, home), { recursive: true })
  cpSync(join(saved, name), instances, copy)
}
const copy = { recursive: true, preserveTimestamps: true }

/** What it was before anything was done. */
let old: Record<string, string>
let bases: Record<string, string>

/** How many events were told when it is so far. */
interface Moment {
  at: number
  what: string
}

/** What a command does when nothing disturbs it (before each action, and at the end of all), and what it comes to. */
async function undisturbed(words: string[]) {
  const { status, stderr } = await run([...words, '--progress', 'json'])
  assert.equal(status, 0, stderr)
  const moments = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type === 'action' || type === 'step')
    .flatMap(({ type, action, step, status }, index, all): Moment[] =>
      type === 'action' || index === all.length - 1 ? [{ at: index + 1, what: action ?? `${step} ${status}` }] : [],
    )
  return { moments, whole: result() }
}

/** @param after milliseconds */
async function killed(words: string[], { at, what }: Moment, after = 0): Promise<string> {
  const where = `killed ${after} ms after it came to ${what}`
  const { signal, stderr } = await run(words, { KILL_AT: `${at}`, KILL_AFTER: `${after}` })
  if (after === 0) assert.equal(signal, 'SIGKILL', `${where}: ${stderr}`)
  await assertQuiet()
  return where
}

/** The same command again: the end of an undisturbed run, and nothing is left to do. */
async function recovers(words: string[], whole: unknown, where: string): Promise<void> {
  const again = await run([...words, '--verbose'])
  assert.equal(again.status, 0, `${where}: ${again.stderr}`)
  assert.deepEqual(result(), whole, where)
  assertNoLocks()
  if (words === revert) return // it has nothing to go back to any more, and says so
  assert.equal(JSON.parse(await good([...words, '--json'])).changed, false, where)
}

/** It is what it was, byte for byte. Before anything was begun there is nothing to go back to. */
async function goesBack(where: string): Promise<void> {
  const hasBegun = homes().some((home) => {
    const record = join(instances, home, 'instance.json')
    return existsSync(record) && readFileSync(record, 'utf8').includes('"task"')
  })
  const back = await run(revert)
  assert.equal(back.status, hasBegun ? 0 : 3, `${where}: ${back.stderr}`)
  assert.deepEqual(tree(homes(), bytesOf), old, where)
  await assertQuiet()
  // A lock whose holder is dead is taken over by who needs it next.
  if (hasBegun) assertNoLocks()
}

before(async () => {
  await compile('test/crash/entry.ts', cowhand)
  writeFileSync(join(here, 'known'), known)
  writeFileSync(join(here, 'user-data'), '#cloud-config\n')
  sh(
    'cd "$1"; truncate -s 32M image; mke2fs -q -F -b 4096 image; debugfs -w -R "write known known" image; qemu-img convert -f raw -O qcow2 image small.qcow2; rm image',
    here,
  )
  await good(['image', 'add', join(here, 'small.qcow2')])
  const disks = ['--root', '64M', '--ephemeral', '32M', '--swap', '8M']
  await good(['create', 'vm1', '--image', 'small', ...disks, '--user-data', join(here, 'user-data')])
  // What its guest wrote, where its file system has nothing.
  sh('qemu-io -f qcow2 -c "write -s $2 12M 1M" "$1/disk" >&2', join(instances, 'vm1'), join(here, 'known'))
  old = tree(homes(), bytesOf)
  bases = tree(['_base'], bytesOf)
  keep('old')
})
after(() => rmSync(here, { recursive: true, force: true }))

test('resize, killed at every action, ends the same, or goes back', async () => {
  bring('old')
  const { moments, whole } = await undisturbed(resize)
  assert.ok(moments.length > 25, JSON.stringify(moments))
  for (const moment of some(moments, every)) {
    bring('old')
    const where = await killed(resize, moment)
    keep('cut')
    await recovers(resize, whole, where)
    bring('cut')
    await goesBack(where)
  }
})

for (const [what, pattern] of Object.entries({
  'the copy': /^copy .*disk /,
  'the growing of a disk': /^grow .*disk /,
  'the growing of a file system': /^grow-fs .*disk$/,
}))
  test(`resize, killed in the middle of ${what}, ends the same, or goes back`, async () => {
    bring('old')
    const { moments, whole } = await undisturbed(resize)
    const moment = moments.find((its) => pattern.test(its.what)) ?? assert.fail(JSON.stringify(moments))
    for (const milliseconds of [5, 20, 60, 150]) {
      bring('old')
      const where = await killed(resize, moment, milliseconds)
      keep('cut')
      await recovers(resize, whole, where)
      bring('cut')
      await goesBack(where)
    }
  })

test('confirm, killed at every action, ends the same, and what it was meant to keep is there', async () => {
  bring('old')
  await good(resize)
  keep('done')
  const { moments, whole } = await undisturbed(confirm)
  assert.ok(moments.length > 8, JSON.stringify(moments))
  for (const moment of some(moments, every)) {
    bring('done')
    const before = tree(homes(), bytesOf)
    const where = await killed(confirm, moment)
    // Who changes his mind gets the old state, or is told that it is too late.
    keep('cut')
    const back = await run(revert)
    const now = tree(homes(), bytesOf)
    if (back.status === 0) assert.deepEqual(now, old, where)
    else {
      assert.equal(back.status, 3, `${where}: ${back.stderr}`)
      assert.deepEqual(named(now, 'vm1/'), named(before, 'vm1/'), where)
    }
    bring('cut')
    await recovers(confirm, whole, where)
  }
})

test('revert, killed at every action, ends the same', async () => {
  bring('old')
  await good(resize)
  keep('done')
  const { moments } = await undisturbed(revert)
  assert.ok(moments.length > 10, JSON.stringify(moments))
  assert.deepEqual(tree(homes(), bytesOf), old)
  for (const moment of some(moments, every)) {
    bring('done')
    const where = await killed(revert, moment)
    await goesBack(where)
  }
})

test('Ctrl-C at every action of a resize undoes it', async () => {
  bring('old')
  const { moments, whole } = await undisturbed(resize)
  for (const { at, what: where } of some(moments, every)) {
    bring('old')
    const { status, stderr } = await run(resize, { KILL_AT: `${at}`, KILL_WITH: 'SIGINT' })
    await assertQuiet()
    assertNoLocks()
    if (status === 0) assert.deepEqual(result(), whole, where)
    else {
      assert.equal(status, 130, `${where}: ${stderr}`)
      assert.deepEqual(tree(homes(), bytesOf), old, `${where}: ${stderr}`)
    }
  }
})

test('Ctrl-C again while that is undone ends it at once, and revert goes back', async () => {
  bring('old')
  const { moments } = await undisturbed(resize)
  const { at, what } = moments.find((its) => its.what.startsWith('grow-fs')) ?? assert.fail(JSON.stringify(moments))
  for (const more of [1, 3, 6, 9]) {
    bring('old')
    const where = `${more} after ${what}`
    const { status, stderr } = await run(resize, { KILL_AT: `${at},${at + more}`, KILL_WITH: 'SIGINT' })
    assert.equal(status, 130, `${where}: ${stderr}`)
    await assertQuiet()
    if (/undone:/.test(stderr)) assert.deepEqual(tree(homes(), bytesOf), old, where)
    else await goesBack(where)
  }
})

const named = (entries: Record<string, string>, prefix: string) =>
  Object.entries(entries).filter(([path]) => path.startsWith(prefix))
