import type { ChildProcess } from 'node:child_process'
import { constants, readFileSync } from 'node:fs'
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { environment } from '../host/environment.ts'
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
  /** The program's whole environment, where it is not the usual one. */
  env?: Record<string, string> | undefined
}

/**
 * Uncompress a file. True afterwards: all of it is in `to`, sparse where it is zero, with mode 0644, on the device.
 * When it fails, `to` is gone: nothing can go on in the middle of it.
 * @returns bytes unpacked
 * @throws {Problem} IMAGE_REJECTED when it is corrupt, truncated or unpacks to more than `limit`; TOOL_MISSING,
 *   TOOL_FAILED, NOT_OURS; the system's error when the file cannot be written; the signal's reason when aborted
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
  const { from, name = from, packing, limit, signal, env = environment() } = options
  const argv = ['--pdeathsig', 'KILL', '--', ...packers[packing]]
  const child = spawn('setpriv', argv, { stdio: [source.fd, 'pipe', 'pipe'], env })
  let words = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    words = (words + chunk).slice(0, 2000)
  })
  const ended = endOf(child)
  const kill = () => child.kill('SIGKILL')
  signal?.addEventListener('abort', kill, { once: true })
  const { tell, last } = paced(options.onProgress)
  try {
    if (child.pid === undefined) judge(await ended, '', options)
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
    judge(end, words.trim(), options)
    last(size, size)
  } finally {
    signal?.removeEventListener('abort', kill)
    kill()
    await ended // no program of ours outlives the files that it works on
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

/** What the program's end says of the image. */
function judge({ code, by, error }: End, words: string, { from, name = from, packing }: UnpackOptions): void {
  const tool = error ? 'setpriv' : packers[packing][0]
  if (errno(error) === 'ENOENT' || code === 127) throw missingTool(tool)
  if (error) throw error
  const cannot = `Cannot unpack "${name}":`
  if (by)
    fail('TOOL_FAILED', `${cannot} ${tool} was ended by ${by}`, 'see journalctl -k, then run the same command again')
  if (code === 0) return
  // In one line, and without what would move the cursor of a terminal.
  const said = words
    .replaceAll(/[\s\p{Cc}]+/gu, ' ')
    .replace(`${tool}: `, '')
    .slice(0, 300)
  refuse('IMAGE_REJECTED', `${cannot} ${tool}: ${said || `failed with exit code ${code}`}`, 'get the image again')
}

/** How far the program has read: it shares our descriptor's offset. */
function readSoFar(source: FileHandle): number | undefined {
  try {
    return Number(/^pos:\s*(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${source.fd}`, 'utf8'))?.[1] ?? 0)
  } catch {
    return undefined
  }
}
