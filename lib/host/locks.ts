import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { clearInterval, setInterval } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { errno, fail, Problem, refuse } from '../job/problem.ts'
import { requireNoLink } from './files.ts'
import { fateOf, holderMark, type Identity, identify, makerEnded, markedProcess, parseIdentity } from './holder.ts'
import { missingTool } from './tools.ts'

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** Who holds a lock; `child`: it died, and this process, which it started, still runs. */
export type Holder = Identity & { child?: number }

export interface Lock {
  path: string
  /** To be asked before something is published. @throws {Problem} LOCKED when the lock was taken from us */
  assertHeld: () => void
  /** Give it back; our children must have ended. Removes only what is ours, and may be called again. */
  release: () => void
}

export interface LockOptions {
  /** What it is wanted for, in words for whoever has to wait. */
  task: string
  /** seconds; 0 asks once */
  wait: number
  /** Called when waiting starts, and when the holder is another. */
  onWait?: (holder: Holder) => void
  signal?: AbortSignal | undefined
}

/** A lock file as it was seen. `key` is another once anybody wrote to it, replaced it or touched it. */
interface Seen {
  holder: Identity | undefined
  inode: bigint
  key: string
}

/** All in milliseconds, on our own monotonic clock: a jump of the wall clock means nothing here. */
const grace = 50 // between two looks at a dead holder: a child that it was just starting shows its mark by then
const beat = 30_000 // a holder touches its file this often
const lease = 180_000 // silence after which a holder that we cannot look at (another host's) counts as dead
const longestPause = 100 // between two looks: of many that wait, the next is soon there; to look takes 0.2 ms
const patience = 5_000 // beyond the caller's, while somebody else removes a dead lock

/** Locks of this process: nonce by path. */
const held = new Map<string, string>()

let taken = 0
/** How many locks this process has taken so far, whether or not it still has them. */
export const locksTaken = (): number => taken

/**
 * Hold the lock `<directory>/<name>.lock`. The directory is made if absent. A holder on this kernel is dead when its
 * process and the children that it left are gone, never because of its age; one elsewhere after three minutes of silence.
 * @throws {Problem} LOCKED when it is held for longer than `wait`; NOT_OURS when something else has the file's name;
 * TOOL_MISSING when flock(1), which a dead lock needs, is not there; the signal's reason when aborted
 */
export async function acquire(directory: string, name: string, options: LockOptions): Promise<Lock> {
  requireNoLink(directory)
  const door = await openDoor()
  const path = resolve(directory, `${name}.lock`)
  const end = performance.now() + options.wait * 1000
  const rest = (milliseconds: number) =>
    sleep(milliseconds, undefined, options.signal ? { signal: options.signal } : {}).catch(() => {})
  let watched = { key: '', since: 0, dead: false }
  let told = ''
  for (let pause = 50; ; pause = Math.min(pause * 1.3, longestPause)) {
    options.signal?.throwIfAborted()
    const seen = look(path, (found) => found)
    if (!seen) {
      const nonce = create(door, path, options.task)
      if (nonce) return lockOf(door, path, name, nonce)
      continue
    }
    const now = performance.now()
    if (seen.key !== watched.key) watched = { key: seen.key, since: now, dead: false }
    const { key, since } = watched
    const holderNow = (file: Seen) => holderOf(path, file, file.key === key && now - since >= lease)
    const holder = holderNow(seen)
    if (now >= end + (holder ? 0 : patience)) throw locked(name, holder)
    if (!holder) {
      // Loaded beforehand: the taking over itself must not pause.
      if (watched.dead && takeOver(path, holderNow, await import('node:child_process'))) continue
      watched.dead = true
      await rest(grace)
      continue
    }
    watched.dead = false
    const telling = `${holder.nonce} ${holder.child}`
    if (telling !== told) options.onWait?.(holder)
    told = telling
    await rest(Math.min(pause * (0.75 + Math.random() / 2), end - now))
  }
}

/**
 * Nobody else holds the lock just now. Nothing is made or removed: whoever is to change something takes it then.
 * @throws {Problem} LOCKED when it is held for longer than `wait`; the signal's reason when aborted
 */
export async function requireFree(
  directory: string,
  name: string,
  { wait, signal }: Pick<LockOptions, 'wait' | 'signal'>,
): Promise<void> {
  const path = resolve(directory, `${name}.lock`)
  for (const end = performance.now() + wait * 1000; ; ) {
    const holder = look(path, (seen) =>
      seen.holder?.nonce === held.get(path) ? undefined : holderOf(path, seen, false),
    )
    if (!holder) return
    if (performance.now() >= end) throw locked(name, holder)
    await sleep(longestPause, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted())
  }
}

interface Door {
  lock: (path: string) => void
  unlock: (path: string) => void
}
let opened: Door | undefined

/**
 * The one door to the package lockfile, which only makes (O_EXCL) and removes files for us: it judges by age, never
 * looks whose a file is, and its exit hook removes the file under our children. So the hook is made to call `leave`.
 */
async function openDoor(): Promise<Door> {
  if (opened) return opened
  const { default: lockfile } = await import('lockfile')
  if (opened) return opened
  const { lockSync, unlockSync } = lockfile
  const leave = (path: string) => {
    if (isOurs(path, held.get(path)) && markedProcess(holderMark()) === undefined) unlockSync(path)
  }
  Object.assign(lockfile, { unlockSync: leave })
  process.on('exit', () => [...held.keys()].forEach(leave)) // bun does not call lockfile's hook
  opened = { lock: (path) => lockSync(path, {}), unlock: unlockSync } // it changes the options that it is given
  return opened
}

/**
 * Make the lock file, if nobody has it. An intent with our identity stands beside it before the empty file is there,
 * and then becomes it: whoever finds an empty file finds its maker among the intents.
 * @returns the nonce in it; undefined when somebody has it
 */
function create(door: Door, path: string, task: string): string | undefined {
  const me = identify(task)
  const intent = `${path}.${me.nonce}`
  const write = () => writeFileSync(intent, `${JSON.stringify(me)}\n`, { flag: 'wx', mode: 0o600 })
  let made = false
  try {
    try {
      write()
    } catch (error) {
      if (errno(error) !== 'ENOENT') throw error
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 })
      write()
    }
    door.lock(path)
    made = true
    renameSync(intent, path)
    held.set(path, me.nonce)
    taken += 1
    return me.nonce
  } catch (error) {
    if (made) door.unlock(path) // before the intent: without it, the empty file could be another's by now
    rmSync(intent, { force: true })
    if (!made && errno(error) === 'EEXIST') return undefined
    throw error
  }
}

function lockOf(door: Door, path: string, name: string, nonce: string): Lock {
  const heart = setInterval(() => {
    const now = new Date()
    try {
      if (isOurs(path, nonce)) utimesSync(path, now, now)
    } catch {
      // the next beat may do better; if none does, assertHeld tells
    }
  }, beat).unref()
  const assertHeld = () => {
    if (isOurs(path, nonce)) return
    const message = `Cannot go on under lock "${name}": it was taken from this process`
    throw new Problem('busy', 'LOCKED', message, 'run the same command again')
  }
  const release = () => {
    clearInterval(heart)
    if (held.get(path) !== nonce) return
    if (isOurs(path, nonce)) door.unlock(path)
    held.delete(path)
  }
  return { path, assertHeld, release }
}

function isOurs(path: string, nonce: string | undefined): boolean {
  try {
    return nonce !== undefined && look(path, (found) => found.holder?.nonce) === nonce
  } catch {
    return false // not to be read, or not a lock any more
  }
}

/**
 * Use what a lock file says; undefined where there is none. It is open meanwhile, so that its inode number cannot
 * become another file's.
 */
function look<T>(path: string, use: (found: Seen) => T): T | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  } catch (error) {
    if (errno(error) === 'ENOENT') return undefined
    throw error
  }
  try {
    const facts = fstatSync(fd, { bigint: true })
    const text = facts.isFile() ? readFileSync(fd, 'utf8') : 'no file'
    const holder = parseIdentity(text)
    // Empty: its maker has not come to the rename. Zeros: nor had the disk, when the power went.
    if (!holder && text.replaceAll('\0', ''))
      refuse(
        'NOT_OURS',
        `Cannot lock "${path}": it is not a lock of cowhand`,
        `look at it, and move it away: ls -ld ${path}`,
      )
    return use({ holder, inode: facts.ino, key: `${facts.ino} ${facts.mtimeNs} ${holder?.nonce}` })
  } finally {
    closeSync(fd)
  }
}

/** Who holds what was seen; undefined when everybody who could is dead. @param silent nothing was heard for a lease */
function holderOf(path: string, seen: Seen, silent: boolean): Holder | undefined {
  const makers = () => intentsIn(dirname(path)).map(({ lock, maker }) => (lock === path ? maker : undefined))
  for (const holder of seen.holder ? [seen.holder] : makers()) {
    if (!holder) continue
    const fate = fateOf(holder)
    if (fate === 'dead' || (fate === 'unknown' && silent)) continue
    return fate === 'unknown' || fate.pid === holder.pid ? holder : { ...holder, child: fate.pid }
  }
  return undefined
}

interface Intent {
  path: string
  /** Path of the lock that it is to become. */
  lock: string
  nonce: string
  /** undefined while it is being written: its lock file is not made yet. */
  maker: Identity | undefined
}

/** The intents in a directory: `<name>.lock.<nonce>`. */
function intentsIn(directory: string): Intent[] {
  const intents: Intent[] = []
  for (const name of readdirSync(directory)) {
    const [, lock, nonce] = /^(.+\.lock)\.([0-9a-f]{8}-\d+-\d+-\d+-[0-9a-f]{8})$/.exec(name) ?? []
    if (!lock || !nonce) continue
    const path = join(directory, name)
    try {
      // Whatever else was put there, such as a FIFO, must not make us wait.
      if (!lstatSync(path).isFile()) continue
      const maker = parseIdentity(readFileSync(path, 'utf8'))
      intents.push({ path, lock: join(directory, lock), nonce, maker })
    } catch (error) {
      if (errno(error) !== 'ENOENT') throw error // it became the lock, or was given up
    }
  }
  return intents
}

/**
 * Remove a dead lock; everybody competes anew for the next. One process at a time does so, under a guard that the
 * kernel gives back even when we are killed: else the second of two could remove the lock that the first just got.
 * @returns whether to try at once
 */
function takeOver(
  path: string,
  holderNow: (file: Seen) => Holder | undefined,
  { spawnSync }: typeof import('node:child_process'),
): boolean {
  const directory = dirname(path)
  const guard = openSync(join(directory, 'takeover.guard'), O_CREAT | O_RDWR | O_NOFOLLOW, 0o600) // stays: removing it would make two guards
  try {
    const env = { PATH: '/usr/bin:/bin' }
    const flock = spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', guard], env })
    if (flock.status === 1) return false
    if (errno(flock.error) === 'ENOENT') throw missingTool('flock')
    const remedy = 'keep the instances on a file system that knows flock'
    if (flock.status !== 0) fail('TOOL_FAILED', `Cannot take over "${path}": flock failed`, remedy)
    const free = look(path, (seen) => {
      if (holderNow(seen)) return false
      // The dead do not replace their files, and the others cannot while this one is there.
      if (lstatSync(path, { throwIfNoEntry: false, bigint: true })?.ino === seen.inode) rmSync(path, { force: true })
      return true
    })
    for (const { path: intent, maker, nonce } of intentsIn(directory))
      if (maker ? fateOf(maker) === 'dead' : makerEnded(nonce)) rmSync(intent, { force: true })
    return free ?? true
  } finally {
    closeSync(guard)
  }
}

function locked(name: string, holder: Holder | undefined): Problem {
  const busy = (state: string, remedy: string) =>
    new Problem('busy', 'LOCKED', `Cannot lock "${name}": ${state}`, remedy)
  const remedy = 'wait for it, or ask again with --lock-wait SECONDS'
  if (!holder) return busy('its holder died, and another process is taking it over', remedy)
  const { pid, host, task, since, child } = holder
  if (child === undefined) return busy(`pid ${pid} on ${host} holds it for "${task}" since ${since}`, remedy)
  const state = `pid ${pid} on ${host} died holding it for "${task}", and pid ${child}, which it started, still runs`
  return busy(state, `wait for pid ${child} to end, then run the same command again`)
}
