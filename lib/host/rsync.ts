import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Action } from '../job/action.ts'
import type { Tell } from '../job/events.ts'
import { fail, Problem, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { requireProgram } from './ask.ts'
import { type Compression, compressionFor, linkTo, sampleRatio } from './compress.ts'
import { type FileFacts, fileAt, flush, hasHoles, writeWhole } from './files.ts'
import { explainRsync, Killed } from './rsync-end.ts'
import { passwordIn, usualUser } from './rsyncd.ts'
import { program } from './shell.ts'
import { sshEnvironment } from './ssh.ts'
import { missingTool } from './tools.ts'

export type Push = Extract<Action, { do: 'push' }>

export interface PushOptions {
  settings: Settings
  signal: AbortSignal
  /** ssh and its options, without a host. */
  ssh: string[]
  /** Open a new connection, when the one that `ssh` goes through broke. @returns words in place of `ssh` */
  reconnect?: () => Promise<string[]>
  onProgress?: (done: number, total?: number) => void
  tell?: Tell
  /** Milliseconds before each next try; they begin anew when a try got further. */
  pauses?: number[]
  /** Seconds without a byte after which a connection counts as broken. */
  timeout?: number
}

/** One rsync. */
export interface Call {
  /** Absolute paths; what follows `/./` is what a file arrives as. */
  from: string[]
  /** Where to, as rsync has it. */
  to: string
  ssh?: { words: string[]; rsync: string }
  level: Compression['level']
  sparse: boolean
  /** Bytes per second. */
  rate?: number | undefined
  /** Seconds. */
  timeout: number
  /** Nothing is written there. */
  dryRun?: boolean
}

/**
 * rsync's words for a push. Never a quick check: a disk that was written to may have the size and the second of the one
 * that arrived (`--ignore-times`). What is there is the basis of a delta, also where a cut left only a part, and is
 * written to in its place (`--inplace`, which leaves the part there): so nobody may use it under its name. Times, owners
 * and links do not travel. File names travel by the protocol, and not through a shell (`--secluded-args`, by its short
 * name, which all versions know).
 */
export function rsyncArgv({ from, to, ssh, level, sparse, rate, timeout, dryRun }: Call): string[] {
  return [
    'rsync',
    ...(dryRun ? ['--dry-run'] : []),
    '--ignore-times',
    '--inplace',
    '--no-whole-file',
    ...(sparse ? ['--sparse'] : []),
    '--perms',
    '--chmod=D0700,F0600',
    ...(from.some((path) => path.includes('/./')) ? ['--relative'] : []),
    '-s',
    `--timeout=${timeout}`,
    '--outbuf=N',
    '--no-human-readable',
    '--info=progress2,stats2',
    // Which algorithm the two agree on by themselves: zstd, where both have it.
    ...(level > 0 ? ['--compress', `--compress-level=${level}`] : []),
    ...(rate === undefined ? [] : [`--bwlimit=${Math.max(1, Math.floor(rate / 1024))}`]), // KiB; 0 would be no limit
    ...(ssh ? ['-e', ssh.words.map(quoted).join(' '), `--rsync-path=${ssh.rsync}`] : []),
    '--',
    ...from,
    to,
  ]
}

/** A word as rsync's -e takes it (rsync(1), "--rsh"): split at blanks, but for those in quotes; a doubled quote is one. */
const quoted = (word: string): string => (/^[^\s'"]+$/.test(word) ? word : `'${word.replaceAll("'", "''")}'`)

/**
 * `HOST:PATH` or `rsync://USER@HOST:PORT/MODULE/PATH`, with an end that tells a directory or a file.
 * @param host as HostName has it: with anything else, a colon could make it something else
 */
export function addressOf({ host, transport, to, rsyncd }: Omit<Push, 'do' | 'files' | 'record'>, name = ''): string {
  if (!/^([A-Za-z0-9][A-Za-z0-9._-]*|[0-9a-f:.]+)$/.test(host) || !to.startsWith('/'))
    throw new TypeError('bad address')
  const bracketed = host.includes(':') ? `[${host}]` : host
  if (transport === 'ssh') return `${bracketed}:${to}/${name}`
  if (!rsyncd) throw new TypeError('no daemon to push to')
  const { port, module, user = usualUser } = rsyncd
  // The module is the directory of the instances.
  const [, below] = /\/([^/]+\.incoming\/part)$/.exec(to) ?? []
  if (below === undefined) throw new TypeError(`not where disks arrive: ${to}`)
  if (![module, user].every((word) => /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(word))) throw new TypeError('bad module')
  return `rsync://${user}@${bracketed}:${port}/${module}/${below}/${name}`
}

/** How rsync is started there, by how cowhand is: `sudo -n cowhand` needs `sudo -n rsync`. */
export const rsyncThere = ({ remote_cowhand: cowhand }: Pick<Settings, 'remote_cowhand'>): string =>
  [...cowhand.split(' ').slice(0, -1), 'rsync'].join(' ')

/** Files that one rsync can send: those that keep their name; each other one has a name of its own there. */
export function callsOf<T extends { path: string; name: string }>(
  files: T[],
): { from: string[]; files: T[]; name: string }[] {
  const keeps = ({ path, name }: T) => path.endsWith(`/${name}`)
  const alike = files.filter(keeps).sort((one, other) => (one.name < other.name ? -1 : 1)) // rsync's order
  const from = alike.map(({ path, name }) => `${path.slice(0, -name.length)}./${name}`)
  return [
    ...(alike.length > 0 ? [{ from, files: alike, name: '' }] : []),
    ...files.filter((file) => !keeps(file)).map((file) => ({ from: [file.path], files: [file], name: file.name })),
  ]
}

/** Bytes that rsync has worked through, as `--info=progress2` last told. */
export function progressIn(output: string): number | undefined {
  const last = [...output.matchAll(/(?:^|\s)(\d+)\s+\d+%/g)].at(-1)
  return last ? Number(last[1]) : undefined
}

/**
 * Send files to another host. Where it is cut off it tries again a few times; what arrived is not sent again. Each
 * file's digest is taken meanwhile, and written to `record` when all have arrived.
 * @returns bytes that were sent, by the tries that came to their end
 * @throws {Problem} HOST_UNREACHABLE after the last try; at once: NO_SPACE, AUTH_FAILED, NO_PERMISSION, TOOL_MISSING,
 *   MISSING_PREREQUISITE, IN_USE where a file was written to meanwhile, IO_FAILED, UNSUPPORTED, TOOL_FAILED; the signal's
 *   reason
 */
export async function push(action: Push, options: PushOptions): Promise<{ sent: number }> {
  const verb = `send ${action.files.map(({ name }) => `"${name}"`).join(', ')} to ${action.host}`
  await requireProgram('rsync')
  const sources = action.files.map((file) => sourceAt(file, verb))
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  const pace = new Pace(signal)
  const sending = sendAll(action, sources, { ...options, signal, verb, pace }).finally(() => pace.end())
  const { record } = action
  const digesting = record === undefined ? undefined : digestsOf(callsOf(sources), pace, signal)
  // The first that fails ends the other, and is the reason that is told.
  for (const work of [sending, digesting]) work?.catch((error) => stop.abort(error))
  await Promise.allSettled([sending, digesting])
  signal.throwIfAborted()
  for (const { path, stamp } of sources)
    if (fileAt(path)?.stamp !== stamp)
      fail('IN_USE', `Cannot ${verb}: "${path}" was written to meanwhile`, `find out by whom: fuser -v ${path}`)
  if (record !== undefined) {
    writeWhole(record, `${JSON.stringify(await digesting, null, 2)}\n`, 0o600)
    flush(dirname(record))
  }
  return { sent: await sending }
}

/**
 * A push would come through: as for one, the two rsyncs greet each other, and the daemon lets us in. Nothing is written,
 * and no directory need be there.
 * @param path any file
 * @throws {Problem} as push, after the first try
 */
export async function tryPush(
  way: Pick<Push, 'host' | 'transport' | 'to' | 'rsyncd'>,
  path: string,
  options: Pick<PushOptions, 'settings' | 'signal' | 'ssh'>,
): Promise<void> {
  const verb = `send anything to ${way.host}`
  await requireProgram('rsync')
  const pace = new Pace(options.signal)
  const call = { from: [path], to: addressOf(way), level: 0, sparse: false, timeout: 30, dryRun: true } as const
  await untilSent({ ...call, from: [path] }, { ...way, do: 'push', files: [] }, { ...options, verb, pace, pauses: [] })
}

/** A file to be sent, as it is now: sizes in bytes. */
type Source = Omit<Push['files'][number], 'size'> & FileFacts

function sourceAt({ path, name }: Push['files'][number], verb: string): Source {
  const facts = fileAt(path)
  if (!facts)
    return refuse('MISSING_PREREQUISITE', `Cannot ${verb}: there is no "${path}"`, 'run the same command again')
  return { path, name, ...facts }
}

const sum = (sources: { size: number }[]): number => sources.reduce((total, { size }) => total + size, 0)

/** Which compression pays for these files on the way to a host. @param rate bytes per second, at most */
export async function compressionTo(
  host: string,
  files: { path: string; size: number; allocated: number }[],
  wish: Settings['compress'],
  rate?: number,
): Promise<Compression> {
  const [link, ratio] = wish === 'none' ? [{}, 1] : await Promise.all([linkTo(host), sampleRatio(files)])
  const allocated = files.reduce((total, file) => total + file.allocated, 0)
  return compressionFor(wish, link, { ratio, size: sum(files), allocated }, rate)
}

type Sending = PushOptions & { verb: string; pace: Pace }

/** One rsync after the other. @returns bytes that were sent */
async function sendAll(action: Push, sources: Source[], sending: Sending): Promise<number> {
  const { settings, pace, timeout = 60, onProgress } = sending
  const { level } = await compressionTo(action.host, sources, settings.compress, action.rate)
  const total = sum(sources)
  let [sent, begun] = [0, 0]
  for (const { from, files, name } of callsOf(sources)) {
    const call = {
      from,
      to: addressOf(action, name),
      level,
      sparse: files.some(hasHoles),
      rate: action.rate,
      timeout,
    }
    const before = begun
    sent += await untilSent(call, action, {
      ...sending,
      onProgress: (done) => {
        pace.reach(before + done)
        onProgress?.(before + done, total)
      },
    })
    begun += sum(files)
    onProgress?.(begun, total)
  }
  return sent
}

/**
 * One rsync, and where it is cut off the same again: what is there is the basis then. A receiver that has not noticed the
 * cut may write what it still has: that is the same bytes, in the same place. @returns bytes that were sent
 */
async function untilSent(call: Omit<Call, 'ssh'>, action: Push, sending: Sending): Promise<number> {
  const { host, transport } = action
  const { settings, signal, tell, reconnect, onProgress, pauses = [1000, 2000, 4000, 8000] } = sending
  const ssh = { words: sending.ssh, rsync: rsyncThere(settings) }
  const user = action.rsyncd?.user ?? usualUser
  const secrets = transport === 'rsyncd' ? settings.rsyncd_secrets : undefined
  // Not among its words, which every user sees.
  const env = transport === 'ssh' ? sshEnvironment() : secrets ? { RSYNC_PASSWORD: passwordIn(secrets, user) } : {}
  const meaning = { verb: sending.verb, host, transport, reach: settings }
  let furthest = 0
  let failures = 0
  for (;;) {
    const before = furthest
    try {
      if (failures > 0 && transport === 'ssh' && reconnect) ssh.words = await reconnect()
      const { stdout } = await program(rsyncArgv(transport === 'ssh' ? { ...call, ssh } : call), {
        signal,
        env,
        onOutput: (chunk) => {
          const done = progressIn(chunk)
          if (done === undefined) return
          furthest = Math.max(furthest, done)
          onProgress?.(done)
        },
        explain: (end) => explainRsync(end, meaning),
      })
      return Number(/^Total bytes sent: (\d+)/m.exec(stdout)?.[1] ?? 0)
    } catch (error) {
      if (!(error instanceof Problem)) throw error
      // Ours was there a moment ago: it ended as the shell over there, which has none.
      if (error.message === missingTool('rsync').message)
        throw explainRsync({ code: 127, signal: undefined, said: '' }, meaning)
      if (error.code !== 'HOST_UNREACHABLE' && !(error instanceof Killed)) throw error
      failures = furthest > before ? 1 : failures + 1
      const pause = pauses[failures - 1]
      if (pause === undefined) throw error
      const seconds = Math.ceil(pause / 1000)
      tell?.({ type: 'notice', message: `${error.message}; trying again in ${seconds} s, from where it was` })
      await sleep(pause, undefined, { signal }).catch(() => signal.throwIfAborted())
    }
  }
}

/** Bytes that the reader for the digests may be ahead of rsync: so the device reads once what both of them read. */
const lead = 2 ** 28

/** Keeps one reader from being far ahead of another. */
class Pace {
  #reached = 0
  #waiting: (() => void)[] = []

  constructor(signal: AbortSignal) {
    signal.addEventListener('abort', () => this.end(), { once: true })
  }

  /** The other one is here. @param position bytes from the beginning of all files */
  reach(position: number): void {
    this.#reached = Math.max(this.#reached, position)
    for (const go of this.#waiting.splice(0)) go()
  }

  /** Nobody is to wait any more. */
  end(): void {
    this.reach(Number.POSITIVE_INFINITY)
  }

  async wait(position: number): Promise<void> {
    while (position > this.#reached + lead) await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }
}

/** Digest of the content and size of each file, by what it arrives as, in the order in which rsync reads them. */
async function digestsOf(
  calls: { files: Source[] }[],
  pace: Pace,
  signal: AbortSignal,
): Promise<Record<string, { digest: string; size: number }>> {
  const { contentDigest } = await import('../image/content.ts')
  const digests: Record<string, { digest: string; size: number }> = {}
  let begun = 0
  for (const { path, name, size } of calls.flatMap(({ files }) => files)) {
    const before = begun
    const digest = await contentDigest(path, { signal, before: (at) => pace.wait(before + at) })
    digests[name] = { digest, size }
    begun += size
  }
  return digests
}
