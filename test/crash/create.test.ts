import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  createReadStream,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import { root } from '../../build/sh.ts'
import { some } from './some.ts'

// The same command after a SIGKILL at any moment has to end like an undisturbed run: the same tree, nothing left over.

const binary = join(root, 'build/out/cowhand')
const suicidal = join(root, 'build/out/cowhand-crash')
const here = mkdtempSync(join(tmpdir(), 'cowhand-crash-'))
const instances = join(here, 'instances')
const images = join(here, 'images')
const userData = join(here, 'user-data')
const image = join(here, 'big.qcow2')

const sh = (...argv: [string, ...string[]]) => {
  const { status, stderr } = spawnSync(argv[0], argv.slice(1), { encoding: 'utf8' })
  assert.equal(status, 0, `${argv.join(' ')}: ${stderr}`)
}

const arguments_ = (from: string[]) => [
  ...['--instances', instances, '--store', `dir:${images}`, '--lock-wait', '30'],
  ...['create', 'vm1', ...from, '--root', '2G', '--ephemeral', '64M', '--swap', '16M', '--user-data', userData],
]

/** Run to the end; not synchronously, for the web server is in this very process. */
async function run(program: string, words: string[], env: Record<string, string> = {}) {
  const child = spawn(program, words, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/bin:/bin', ...env },
    timeout: 60_000,
  })
  const ended = new Promise<[number | null, NodeJS.Signals | null]>((resolve) =>
    child.on('close', (...end) => resolve(end)),
  )
  const [stdout, stderr, [status, signal]] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { stdout, stderr, status, signal }
}

/** Every path with what is in it; what differs between two undisturbed runs is left out. */
function tree(): Record<string, string> {
  const entries: Record<string, string> = {}
  for (const path of readdirSync(instances, { recursive: true, encoding: 'utf8' }).sort()) {
    const full = join(instances, path)
    const facts = statSync(full)
    if (!facts.isFile()) entries[path] = `directory ${(facts.mode & 0o777).toString(8)}`
    else if (path.startsWith('locks/')) assert.match(path, /guard$/, 'a lock was left behind')
    else entries[path] = `${(facts.mode & 0o777).toString(8)} ${facts.uid} ${facts.size} ${content(full)}`
  }
  return entries
}

function content(path: string): string {
  const bytes = readFileSync(path)
  // The uuid is drawn, seed and record have the time in them, and the stamp is of one file.
  if (path.endsWith('disk.config')) return 'seed'
  const stable =
    bytes.length < 65536
      ? bytes.toString().replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|"(stamp|made)": "[\dTZ:.-]+"/g, '*')
      : bytes
  return createHash('sha256').update(stable).digest('hex')
}

/** Processes that a cowhand of this test started and that outlived it: with a path of ours, or a file of ours open. */
function orphans(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      if (!readFileSync(`/proc/${pid}/environ`, 'utf8').includes('COWHAND_HOLDER=')) return false
      const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
      return [readFileSync(`/proc/${pid}/cmdline`, 'utf8'), ...files].some((text) => text.includes(here))
    } catch {
      return false // it has ended
    }
  })
}

const clear = () => rmSync(instances, { recursive: true, force: true })

/** The same command again, and its end is that of the undisturbed run. */
async function recovers(words: string[], whole: Record<string, string>): Promise<void> {
  // Killed it is at once; gone when the device has finished what it was flushing.
  for (let tries = 0; orphans().length > 0 && tries < 400; tries += 1) await sleep(50)
  assert.deepEqual(orphans(), [], 'a child outlived the kill')
  const again = await run(binary, words)
  assert.equal(again.status, 0, again.stderr)
  assert.deepEqual(tree(), whole)
  const third = JSON.parse((await run(binary, [...words, '--json'])).stdout)
  assert.equal(third.changed, false)
}

/** A web server that can be told to stop in the middle. */
const server = createServer((request, response) => {
  const { size } = statSync(image)
  const start = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
  const end = Number(/bytes=\d+-(\d+)/.exec(request.headers.range ?? '')?.[1] ?? size - 1)
  const isRanged = request.headers.range !== undefined
  if (isRanged && start >= size) return void response.writeHead(416, { 'content-range': `bytes */${size}` }).end()
  const last = Math.min(end, size - 1)
  response.writeHead(isRanged ? 206 : 200, {
    'content-length': last - start + 1,
    ...(isRanged ? { 'content-range': `bytes ${start}-${last}/${size}` } : {}),
  })
  served.push(start)
  const stop = stopAt !== undefined && start < stopAt && last >= stopAt ? stopAt : undefined
  createReadStream(image, { start, end: stop === undefined ? last : stop - 1 }).pipe(response, {
    end: stop === undefined,
  })
})
let stopAt: number | undefined
const served: number[] = []

let fromStore: string[]
let fromDelta: string[]
let bigFromStore: string[]
let fromWeb: string[]

before(async () => {
  await compile('test/crash/entry.ts', suicidal)
  for (const [name, [data, size]] of Object.entries({ small: [2, 16], big: [160, 256] })) {
    const raw = join(here, 'raw')
    sh('bash', '-c', `head -c ${data}M /dev/urandom > ${raw}; truncate -s ${size}M ${raw}`)
    sh('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, join(here, `${name}.qcow2`))
    rmSync(raw)
  }
  writeFileSync(userData, '#cloud-config\n')
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  for (const name of ['small', 'big']) {
    const added = await run(binary, [
      '--instances',
      instances,
      '--store',
      `dir:${images}`,
      'image',
      'add',
      join(here, `${name}.qcow2`),
    ])
    assert.equal(added.status, 0, added.stderr)
  }
  const base = createHash('sha1')
    .update(JSON.parse(readFileSync(join(images, 'small.json'), 'utf8')).digest)
    .digest('hex')
  const delta = join(here, 'delta.qcow2')
  const raw = join(here, 'raw')
  sh('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', join(here, 'small.qcow2'), raw)
  sh('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', raw, delta, '1G')
  sh('qemu-io', '-f', 'qcow2', '-c', 'write -P 0x77 1M 300k', delta)
  sh('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', base, delta)
  const properties = ['image_type=snapshot', `base_image_id_sha1=${base}`].flatMap((pair) => ['--property', pair])
  const store = ['--instances', instances, '--store', `dir:${images}`]
  const taken = await run(binary, [...store, 'image', 'add', delta, ...properties])
  assert.equal(taken.status, 0, taken.stderr)
  const { digest } = JSON.parse(readFileSync(join(images, 'big.json'), 'utf8'))
  fromStore = arguments_(['--image', 'small'])
  fromDelta = arguments_(['--image', 'delta'])
  bigFromStore = arguments_(['--image', 'big'])
  fromWeb = arguments_([
    '--image',
    `http://127.0.0.1:${(server.address() as AddressInfo).port}/big.qcow2`,
    '--checksum',
    digest,
  ])
})

after(() => {
  server.closeAllConnections()
  server.close()
  rmSync(here, { recursive: true, force: true })
  rmSync(suicidal, { force: true })
})

/** The tree of an undisturbed run, and how many events it told. */
async function undisturbed(words: string[]): Promise<{ whole: Record<string, string>; actions: string[] }> {
  clear()
  const { status, stderr } = await run(binary, [...words, '--progress', 'json'])
  assert.equal(status, 0, stderr)
  const events = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const told = events
    .filter(({ type }) => type !== 'progress')
    .map(({ action, step, status }) => action ?? `${step} ${status}`)
  return { whole: tree(), actions: told }
}

for (const [what, words] of [
  ['an image of the store', () => fromStore],
  ['a delta snapshot', () => fromDelta],
] as const)
  test(`create from ${what}, killed at every action, ends the same`, async () => {
    const { whole, actions } = await undisturbed(words())
    assert.ok(actions.length > 30, actions.join('\n'))
    for (const [at, action] of some([...actions.entries()], 3)) {
      clear()
      const killed = await run(suicidal, words(), { KILL_AT: String(at + 1) })
      assert.equal(killed.signal, 'SIGKILL', `at ${action}: ${killed.stderr}`)
      await recovers(words(), whole)
    }
  })

for (const [what, pattern] of Object.entries({
  convert: /^qemu-img convert/,
  check: /^qemu-img check/,
  mkfs: /^mke2fs/,
  mkswap: /^mkswap/,
  seed: /^genisoimage/,
}))
  test(`create, killed in the middle of ${what}, ends the same`, async () => {
    const { whole, actions } = await undisturbed(bigFromStore)
    const at = actions.findIndex((action) => pattern.test(action)) + 1
    assert.ok(at > 0, actions.join('\n'))
    for (const milliseconds of some([2, 5, 10, 20, 40], 2)) {
      clear()
      await run(suicidal, bigFromStore, { KILL_AT: String(at), KILL_AFTER: String(milliseconds) })
      await recovers(bigFromStore, whole)
    }
  })

test('create from a web server, killed in the middle of the download, goes on where it was', async () => {
  stopAt = undefined
  const { whole } = await undisturbed(fromWeb)
  clear()
  stopAt = 100 * 2 ** 20
  served.length = 0
  const child = spawn(binary, fromWeb, { stdio: 'ignore', env: { PATH: '/usr/bin:/bin' } })
  const ended = new Promise((resolve) => child.on('close', resolve))
  const size = () => {
    const part =
      existsSync(join(instances, '_base')) &&
      readdirSync(join(instances, '_base')).find((name) => name.endsWith('.part'))
    return part ? statSync(join(instances, '_base', part)).size : 0
  }
  for (let tries = 0; size() < 64 * 2 ** 20 && tries < 200; tries += 1) await sleep(50)
  child.kill('SIGKILL')
  await ended
  const kept = size()
  assert.ok(kept >= 64 * 2 ** 20, `only ${kept} bytes were kept`)
  stopAt = undefined
  served.length = 0
  await recovers(fromWeb, whole)
  assert.ok(served.includes(kept), `it did not go on at ${kept}, but asked for ${served}`)
})

test('SIGTERM ends the children, keeps what can be resumed, exits 143 and says how to go on', async () => {
  stopAt = undefined
  const { whole } = await undisturbed(fromWeb)
  clear()
  stopAt = 100 * 2 ** 20
  const child = spawn(binary, fromWeb, { stdio: ['ignore', 'ignore', 'pipe'], env: { PATH: '/usr/bin:/bin' } })
  let words = ''
  child.stderr.on('data', (chunk) => {
    words += chunk
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  const started = () =>
    existsSync(join(instances, '_base')) && readdirSync(join(instances, '_base')).some((name) => name.endsWith('.part'))
  for (let tries = 0; !started() && tries < 200; tries += 1) await sleep(20)
  await sleep(200)
  child.kill('SIGTERM')
  assert.equal(await ended, 143)
  assert.match(words, /interrupted by SIGTERM\n {2}remedy: run the same command again/)
  assert.ok(started(), 'the part is gone')
  stopAt = undefined
  await recovers(fromWeb, whole)
})

test('SIGINT in the middle of a conversion leaves no child and no half-made base', async () => {
  const { whole, actions } = await undisturbed(bigFromStore)
  assert.ok(actions.length > 0)
  clear()
  const child = spawn(binary, bigFromStore, { stdio: 'ignore', env: { PATH: '/usr/bin:/bin' } })
  const ended = new Promise((resolve) => child.on('close', resolve))
  const converting = () =>
    existsSync(join(instances, '_base')) &&
    readdirSync(join(instances, '_base')).some((name) => name.endsWith('.converted'))
  for (let tries = 0; !converting() && tries < 2000; tries += 1) await sleep(1)
  child.kill('SIGINT')
  assert.equal(await ended, 130)
  assert.deepEqual(orphans(), [])
  assert.equal(converting(), false)
  await recovers(bigFromStore, whole)
})
