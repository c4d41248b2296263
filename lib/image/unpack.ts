import type { ChildProcess } from 'node:child_process'
import { constants, readFileSync } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { constants as system } from 'node:os'
import { confined, isUnconfined, missingOf, unconfined } from '../host/confined.ts'
import { environment } from '../host/environment.ts'
import { confine, type Powers, powers, sandboxEnvironment } from '../host/sandbox.ts'
import { openSparse, type SparseWriter } from '../host/sparse.ts'
import { missingTool } from '../host/tools.ts'
import { errno, fail, refuse } from '../job/problem.ts'
import { type Packing, packers } from '../job/spec.ts'
import { paced } from './digest.ts'

export interface UnpackOptions {
  from: string
  /** What errors call it, where that is not its path. */
  name?: string | undefined
  packing: Packing
  /** The part to write. What was in it is gone. */
  to: string
  /** bytes that are never exceeded: a few KiB can unpack to a full disk */
  limit: number
  signal?: AbortSignal | undefined
  /** Called at most ten times a second, and at the end. @param done bytes of the packed file @param total its size */
  onProgress?: ((done: number, total: number) => void) | undefined
  /** What is taken from the program, where it is not all that we can take. */
  power?: Powers | undefined
  /** The program's whole environment, where it is not the usual one. */
  env?: Record<string, string> | undefined
}

const MiB = 2 ** 20
/** Seconds of processor time, for so many bytes read and written: bzip2, the slowest, was seen to need a fortieth. */
const mostTime = (bytes: number): number => 60 + bytes / MiB

/**
 * Uncompress a file. True afterwards: all of it is in `to`, sparse where it is zero, with mode 0644, on the device.
 * The program that does it may be taken over by what it reads, so it is confined (see `confine`): it has our descriptor
 * of the packed file, which may be for nobody else to read, and a pipe to us, and writes no file; what becomes one we
 * write ourselves. When it fails, `to` is gone: nothing can go on in the middle of it.
 * @returns bytes unpacked
 * @throws {Problem} IMAGE_REJECTED when it is corrupt, truncated, unpacks to more than `limit` or takes absurdly long;
 *   NO_PERMISSION where the program cannot be confined; TOOL_MISSING, TOOL_FAILED, NOT_OURS; the system's error when
 *   the file cannot be written; the signal's reason when aborted
 */
export async function unpack(options: UnpackOptions): Promise<{ size: number }> {
  const { from, to, signal } = options
  signal?.throwIfAborted()
  const source = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const facts = await source.stat()
    if (!facts.isFile())
      refuse(
        'NOT_OURS',
        `Cannot unpack "${from}": it is not a regular file`,
        `look at it, and move it away: ls -ld ${from}`,
      )
    const target = await openSparse(to)
    try {
      await target.restart()
      await stream(source, facts.size, target, options)
      await target.finish(0o644)
      return { size: target.position }
    } catch (error) {
      await unlink(to)
      throw error
    } finally {
      await target.close()
    }
  } finally {
    await source.close()
  }
}

async function stream(source: FileHandle, size: number, target: SparseWriter, options: UnpackOptions): Promise<void> {
  const { spawn } = await import('node:child_process')
  const { from, name = from, packing, limit, signal, env = environment(), power = powers() } = options
  const limits = { cpu: mostTime(size + limit), output: 0 }
  const [shell = '', ...argv] = confined(packers[packing], { ...power, limits })
  const child = spawn(shell, argv, {
    stdio: [source.fd, 'pipe', 'pipe'],
    env: { ...env, ...sandboxEnvironment },
    cwd: '/',
    detached: true, // a process group of its own, so that a signal reaches all of it
  })
  let words = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    words = (words + chunk).slice(0, 2000)
  })
  const ended = endOf(child)
  const kill = () => {
    if (child.exitCode === null && child.signalCode === null) killGroup(child)
    // Without a namespace, somebody that it has left behind may hold the other ends.
    child.stdout?.destroy()
    child.stderr?.destroy()
  }
  signal?.addEventListener('abort', kill, { once: true })
  const { tell, last } = paced(options.onProgress)
  try {
    if (child.pid === undefined) await judge(await ended, '', options, power)
    for await (const chunk of child.stdout ?? []) {
      if (target.position + chunk.length > limit)
        refuse(
          'IMAGE_REJECTED',
          `Cannot unpack "${name}": it unpacks to more than ${limit} bytes`,
          'use an image that is smaller',
        )
      await target.write(chunk)
      signal?.throwIfAborted()
      tell(readSoFar(source) ?? 0, size)
    }
    const end = await ended
    signal?.throwIfAborted()
    await judge(end, words, options, power)
    last(size, size)
  } catch (error) {
    signal?.throwIfAborted() // what else went wrong came of that
    throw error
  } finally {
    signal?.removeEventListener('abort', kill)
    kill()
    await ended // no program of ours outlives the files that it works on
  }
}

function killGroup({ pid }: ChildProcess): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL')
  } catch {
    // it has ended by itself
  }
}

interface End {
  code: number | null
  by: NodeJS.Signals | null
  error?: Error
}

/** How the program ended. Does not fail: one that could not be started has ended too. */
const endOf = (child: ChildProcess): Promise<End> =>
  new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: null, by: null, error }))
    child.on('close', (code, by) => resolve({ code, by }))
  })

/** In a namespace of its own, the program's parent tells its signal, as 128 and more. */
const signalOf = (code: number | null): string | undefined =>
  Object.entries(system.signals).find(([, number]) => number === (code ?? 0) - 128)?.[0]

/** What the program's end says of the image. @param words all that it said, and those who confine it */
async function judge({ code, by, error }: End, words: string, options: UnpackOptions, power: Powers): Promise<void> {
  const { from, name = from, packing, env } = options
  const argv = packers[packing]
  const tool = argv[0]
  if (errno(error) === 'ENOENT') throw missingTool('bash')
  if (error) throw error
  if (code === 0) return
  const why = `unpack "${name}"`
  // In one line, and without what would move the cursor of a terminal.
  const said = words
    .trim()
    .replaceAll(/[\s\p{Cc}]+/gu, ' ')
    .replace(`${tool}: `, '')
    .slice(0, 300)
  const missing = code === 127 ? await missingOf(confine(argv, power), env?.['PATH']) : undefined
  if (missing !== undefined) throw missingTool(missing)
  if (isUnconfined(words)) throw unconfined(tool, why, said)
  const ended = by ?? signalOf(code)
  if (ended === 'SIGXCPU') refuse('IMAGE_REJECTED', `Cannot ${why}: ${tool} takes absurdly long`, 'get the image again')
  if (ended)
    fail(
      'TOOL_FAILED',
      `Cannot ${why}: ${tool} was ended by ${ended}`,
      'see journalctl -k, then run the same command again',
    )
  refuse('IMAGE_REJECTED', `Cannot ${why}: ${tool}: ${said || `failed with exit code ${code}`}`, 'get the image again')
}

/** How far the program has read: it shares our descriptor's offset. */
function readSoFar(source: FileHandle): number | undefined {
  try {
    return Number(/^pos:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${source.fd}`, 'utf8'))?.[1] ?? 0)
  } catch {
    return undefined
  }
}
