import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Identity, identify } from '../../lib/host/holder.ts'
import { acquire, requireFree } from '../../lib/host/locks.ts'

const top = mkdtempSync(join(tmpdir(), 'cowhand-locks-'))
const started: ChildProcess[] = []
after(() => {
  for (const child of started) child.kill('SIGKILL') // nothing, where it has ended
  rmSync(top, { recursive: true, force: true })
})

let directories = 0
const newDirectory = () => join(top, String(directories++))
const ask = { task: 'a test', wait: 0 }
const retake = { task: 'a test', wait: 20 }
const me = () => identify('create demo')
const isLocked = (message: RegExp) => ({ kind: 'busy', code: 'LOCKED', message })

function end(pid: number) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // it has ended
  }
}

const runtimeArguments =
  'Deno' in globalThis ? ['run', '-A'] : process.execArgv.filter((word) => !word.startsWith('--test'))

function start(mode: string, directory: string, name = 'demo'): ChildProcess {
  const program = new URL('locks-child.ts', import.meta.url).pathname
  const child = spawn(process.execPath, [...runtimeArguments, program, mode, directory, name], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  started.push(child)
  return child
}

/** The number that the child says first: a pid. */
async function saidBy(child: ChildProcess): Promise<number> {
  assert.ok(child.stdout)
  const [chunk] = await once(child.stdout, 'data')
  return Number(String(chunk).trim())
}

async function ended(child: ChildProcess): Promise<{ code: number | null; signal: string | null; errors: string }> {
  let errors = ''
  child.stderr?.on('data', (chunk) => {
    errors += chunk
  })
  const [code, signal] = await once(child, 'close')
  return { code, signal, errors }
}

async function killHard(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit')
  child.kill('SIGKILL')
  await gone
}

/** A process that has ended, and that nobody waits for. */
async function zombie(): Promise<Partial<Identity>> {
  const parent = spawn('sh', ['-c', 'sleep 0.1 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] })
  started.push(parent)
  const pid = await saidBy(parent)
  const fields = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  while (fields()[0] !== 'Z') await sleep(20)
  return { pid, startTime: String(fields()[19]) }
}

const startOf = (pid: number) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ')[19] ?? ''
const text = (change: Partial<Identity> = {}) => JSON.stringify({ ...me(), ...change })
const nonce = me().nonce
const endedNonce = nonce.replace(/-\d+-(\w+)$/, '-1-$1') // this pid, another start
const gone = { startTime: '1', nonce: endedNonce }
const found: {
  when: string
  lock: string | (() => Promise<string>)
  intent?: [nonce: string, text: string]
  answer: 'free' | 'held'
  leaves?: string
}[] = [
  { when: 'the pid is another process now', lock: text({ startTime: '1' }), answer: 'free' },
  { when: 'the pid is nobody’s', lock: text({ pid: 2 ** 22 + 1 }), answer: 'free' },
  { when: 'this host was started again since', lock: text({ bootId: 'before' }), answer: 'free' },
  { when: 'the holder has ended, and is a zombie', lock: async () => text(await zombie()), answer: 'free' },
  { when: 'its maker was killed before the rename', lock: '', intent: [endedNonce, text(gone)], answer: 'free' },
  { when: 'it is empty, and nobody was at it', lock: '', answer: 'free' },
  { when: 'it is full of zeros after a power cut', lock: '\0'.repeat(300), answer: 'free' },
  {
    when: 'it is empty, and an intent is being written',
    lock: '',
    intent: [nonce, '{"host"'],
    answer: 'free',
    leaves: nonce,
  },
  { when: 'it is empty, and an intent was never written', lock: '', intent: [endedNonce, ''], answer: 'free' },
  { when: 'it is empty, and its maker lives', lock: '', intent: [nonce, text({ nonce })], answer: 'held' },
  { when: 'the holder lives', lock: text(), answer: 'held' },
  {
    when: 'another process holds it',
    lock: text({ pid: process.ppid, startTime: startOf(process.ppid) }),
    answer: 'held',
  },
  { when: 'the holder is on another host', lock: text({ host: 'other', bootId: 'other' }), answer: 'held' },
  { when: 'another host has our name', lock: text({ machine: 'other', bootId: 'other' }), answer: 'held' },
  {
    when: 'the holder is in another container',
    lock: text({ pidNamespace: 'pid:[1]', startTime: '1' }),
    answer: 'held',
  },
]
for (const { when, lock, intent, answer, leaves } of found)
  test(`${when}: ${answer}`, async () => {
    const directory = newDirectory()
    mkdirSync(directory)
    const path = join(directory, 'demo.lock')
    writeFileSync(path, typeof lock === 'string' ? lock : await lock())
    if (intent) writeFileSync(`${path}.${intent[0]}`, intent[1])
    utimesSync(path, 0, 0) // age says nothing
    const before = readFileSync(path, 'utf8')
    if (answer === 'held') {
      await assert.rejects(
        acquire(directory, 'demo', ask),
        isLocked(/^Cannot lock "demo": pid \d+ on .* for "create demo"/),
      )
      assert.equal(readFileSync(path, 'utf8'), before)
    } else {
      const taken = await acquire(directory, 'demo', ask)
      taken.assertHeld()
      taken.release()
      assert.deepEqual(readdirSync(directory).sort(), [...(leaves ? [`demo.lock.${leaves}`] : []), 'takeover.guard'])
    }
  })

for (const [when, make] of Object.entries({
  'some text': (path: string) => writeFileSync(path, '4711\n'),
  'a FIFO': (path: string) => spawnSync('mkfifo', [path]),
  'a directory': (path: string) => mkdirSync(path),
}))
  test(`${when} has the lock's name: refused, and left alone`, async () => {
    const directory = newDirectory()
    mkdirSync(directory)
    make(join(directory, 'demo.lock'))
    await assert.rejects(acquire(directory, 'demo', ask), { kind: 'refused', code: 'NOT_OURS' })
    assert.deepEqual(readdirSync(directory), ['demo.lock'])
  })

test('a symbolic link has the lock’s name: not followed', async () => {
  const directory = newDirectory()
  mkdirSync(directory)
  symlinkSync('elsewhere', join(directory, 'demo.lock'))
  await assert.rejects(acquire(directory, 'demo', ask), { code: 'ELOOP' })
  assert.deepEqual(readdirSync(directory), ['demo.lock'])
})

test('a free lock: one file, no program started, nothing left behind', async () => {
  const directory = join(newDirectory(), 'locks')
  const path = process.env['PATH']
  process.env['PATH'] = '/nowhere'
  const lock = await acquire(directory, 'instance.demo', ask).finally(() => {
    process.env['PATH'] = path
  })
  assert.equal(lock.path, join(directory, 'instance.demo.lock'))
  assert.deepEqual(readdirSync(directory), ['instance.demo.lock'])
  assert.equal(statSync(directory).mode & 0o777, 0o755)
  assert.equal(statSync(lock.path).mode & 0o777, 0o600)
  lock.assertHeld()
  lock.release()
  lock.release()
  assert.deepEqual(readdirSync(directory), [])
  assert.throws(() => lock.assertHeld(), isLocked(/^Cannot go on under lock "instance.demo"/))
})

test('a live holder: the time-out names it, and waiting is told once', async () => {
  const directory = newDirectory()
  const lock = await acquire(directory, 'instance.demo', { task: 'create demo', wait: 0 })
  const told: string[] = []
  const onWait = (holder: { task: string }) => told.push(holder.task)
  const began = performance.now()
  await assert.rejects(acquire(directory, 'instance.demo', { task: 'delete demo', wait: 0.5, onWait }), {
    ...isLocked(
      new RegExp(`^Cannot lock "instance.demo": pid ${process.pid} on \\S+ holds it for "create demo" since \\S+Z$`),
    ),
    remedy: 'wait for it, or ask again with --lock-wait SECONDS',
  })
  assert.ok(performance.now() - began >= 490)
  assert.deepEqual(told, ['create demo'])
  assert.deepEqual(readdirSync(directory), ['instance.demo.lock'])
  lock.release()
})

test('waiting ends at once when aborted, with the signal’s reason', async () => {
  const directory = newDirectory()
  const lock = await acquire(directory, 'demo', ask)
  const reason = new Error('interrupted')
  const abort = new AbortController()
  setTimeout(() => abort.abort(reason), 100)
  const began = performance.now()
  await assert.rejects(acquire(directory, 'demo', { ...retake, signal: abort.signal }), (error) => error === reason)
  assert.ok(performance.now() - began < 3000)
  lock.release()
})

test('a lock that another took is not removed, and the robbed one learns of it', async () => {
  const directory = newDirectory()
  const lock = await acquire(directory, 'demo', ask)
  const others = text()
  writeFileSync(lock.path, others)
  assert.throws(() => lock.assertHeld(), isLocked(/taken from this process/))
  lock.release()
  assert.equal(readFileSync(lock.path, 'utf8'), others)
})

test('another host’s holder: alive while it touches its lock, dead after three minutes of silence', async (t) => {
  const directory = newDirectory()
  mkdirSync(directory)
  const path = join(directory, 'demo.lock')
  writeFileSync(path, text({ host: 'other', bootId: 'other' }))
  let later = 0
  const now = performance.now.bind(performance)
  t.mock.method(performance, 'now', () => now() + later)
  let taken = false
  const waiting = acquire(directory, 'demo', { task: 'a test', wait: 1000 }).then((lock) => {
    taken = true
    return lock
  })
  for (const touch of [true, true, false]) {
    await sleep(600)
    assert.equal(taken, false)
    if (touch) utimesSync(path, later, later)
    await sleep(600) // it is seen
    later += 170_000
  }
  await sleep(600)
  later += 20_000
  const lock = await waiting
  lock.assertHeld()
  lock.release()
})

test('8 processes count to 200', { timeout: 120_000 }, async () => {
  const directory = newDirectory()
  mkdirSync(directory)
  writeFileSync(join(directory, 'counter'), '0')
  const ends = await Promise.all(Array.from({ length: 8 }, () => ended(start('count', directory))))
  for (const { code, errors } of ends) assert.equal(code, 0, errors)
  assert.equal(readFileSync(join(directory, 'counter'), 'utf8'), '200')
  assert.deepEqual(readdirSync(directory), ['counter'])
})

test('3 processes take 30 dead locks, one at a time', { timeout: 120_000 }, async () => {
  const directory = newDirectory()
  mkdirSync(directory)
  for (let round = 0; round < 30; round++) writeFileSync(join(directory, `dead${round}.lock`), text({ startTime: '1' }))
  const ends = await Promise.all(Array.from({ length: 3 }, () => ended(start('rounds', directory))))
  for (const { code, errors } of ends) assert.equal(code, 0, errors)
  assert.deepEqual(readdirSync(directory), ['takeover.guard'])
})

test('a holder is killed: the next one waits no longer than that', async () => {
  const directory = newDirectory()
  const child = start('hold', directory)
  const pid = await saidBy(child)
  await assert.rejects(
    acquire(directory, 'demo', ask),
    isLocked(new RegExp(`pid ${pid} on .* holds it for "hold in a test"`)),
  )
  await killHard(child)
  const began = performance.now()
  const lock = await acquire(directory, 'demo', ask)
  assert.ok(performance.now() - began < 5000)
  lock.release()
})

test('a holder is killed, and its child still runs: held until that ends', async () => {
  const directory = newDirectory()
  const child = start('orphan', directory)
  const orphan = await saidBy(child)
  await killHard(child)
  await assert.rejects(acquire(directory, 'demo', { ...ask, wait: 0.3 }), {
    ...isLocked(new RegExp(`pid ${child.pid} on .* died holding it .* and pid ${orphan}, .* still runs$`)),
    remedy: `wait for pid ${orphan} to end, then run the same command again`,
  })
  end(orphan)
  const lock = await acquire(directory, 'demo', retake)
  lock.release()
})

const exits: { mode: string; when: string; left: boolean; signal?: NodeJS.Signals; code: number | null }[] = [
  { mode: 'exit', when: 'process.exit', left: false, code: 0 },
  { mode: 'throw', when: 'an uncaught error', left: 'Deno' in globalThis, code: 1 }, // there, nothing more is called
  { mode: 'exit-with-child', when: 'process.exit while a child still runs', left: true, code: 0 },
  { mode: 'exit-robbed', when: 'process.exit after another took it', left: true, code: 0 },
  { mode: 'handler', when: 'SIGTERM, with a handler of our own', left: false, signal: 'SIGTERM', code: 7 },
  { mode: 'hold', when: 'SIGTERM, without one', left: false, signal: 'SIGTERM', code: null },
]
for (const { mode, when, left, signal, code } of exits)
  test(`${when}: the lock is ${left ? 'left' : 'gone'}`, async () => {
    const directory = newDirectory()
    const child = start(mode, directory)
    const last = ended(child)
    const pid = signal || mode === 'exit-with-child' ? await saidBy(child) : 0
    if (signal) process.kill(pid, signal) // child.kill makes deno report the signal, whatever the child did with it
    const { code: exitCode, errors } = await last
    assert.equal(exitCode, code, errors)
    assert.equal(existsSync(join(directory, 'demo.lock')), left)
    if (mode === 'exit-with-child') end(pid)
    if (mode !== 'exit-robbed') (await acquire(directory, 'demo', retake)).release()
  })

test('whether a lock is free is asked without taking it', async () => {
  const directory = newDirectory()
  await requireFree(directory, 'demo', { wait: 0 })
  assert.ok(!existsSync(directory))
  const own = await acquire(directory, 'demo', ask)
  await requireFree(directory, 'demo', { wait: 0 })
  own.release()
  const holder = start('hold', directory)
  const pid = await saidBy(holder)
  const was = readdirSync(directory)
  await assert.rejects(requireFree(directory, 'demo', { wait: 0 }), isLocked(new RegExp(`pid ${pid}`)))
  const waits = requireFree(directory, 'demo', { wait: 20 })
  holder.kill('SIGKILL')
  await waits
  assert.deepEqual(readdirSync(directory), was)
})
