import type { FileHandle } from 'node:fs/promises'
import { basename } from 'node:path'
import { fileAt } from '../host/files.ts'
import { audience, interrupt } from '../host/interrupt.ts'
import { refuse } from '../job/problem.ts'
import { type Algorithm, algorithmOf } from '../job/spec.ts'

/** Memory that hashing takes, twice: one part is hashed while the next is read. */
const gather = 2 ** 20

export interface HashOptions {
  /** Called at most ten times a second, and at the end. @param done bytes */
  onProgress?: ((done: number) => void) | undefined
  signal?: AbortSignal | undefined
}

/** The same listener, called at most ten times a second; `last` calls it in any case. */
export function paced<A extends unknown[]>(listener: ((...args: A) => void) | undefined) {
  let next = 0
  const tell = (...args: A): void => {
    const now = performance.now()
    if (!listener || now < next) return
    next = now + 100
    listener(...args)
  }
  return { tell, last: (...args: A): void => listener?.(...args) }
}

/**
 * Add a file's first `length` bytes to a hash, holes as the zeros that they read as.
 * @returns bytes that there were: fewer than `length` where the file ends before
 */
export async function hashInto(
  hash: { update: (bytes: Buffer) => unknown },
  file: FileHandle,
  length: number,
  options: HashOptions = {},
): Promise<number> {
  const { tell, last } = paced(options.onProgress)
  let done = 0
  let [current, other] = [Buffer.allocUnsafeSlow(gather), Buffer.allocUnsafeSlow(gather)]
  const read = async (into: Buffer) => (await file.read(into, 0, Math.min(gather, length - done), done)).bytesRead
  let got = length > 0 ? await read(current) : 0
  while (got > 0) {
    options.signal?.throwIfAborted()
    done += got
    const ahead = done < length ? read(other) : 0
    hash.update(current.subarray(0, got))
    got = await ahead
    ;[current, other] = [other, current]
    tell(done)
  }
  last(done)
  return done
}

/**
 * Digests of a whole file, as `sha256:HEX`: one of each algorithm. Memory is bounded; the file is read once, in order.
 * @throws {Problem} NOT_OURS when it is not a regular file; the signal's reason when aborted
 */
export async function hashFile(path: string, algorithms: Algorithm[], options: HashOptions = {}): Promise<string[]> {
  const { constants } = await import('node:fs')
  const { open } = await import('node:fs/promises')
  const { createHash } = await import('node:crypto')
  options.signal?.throwIfAborted()
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    if (!(await file.stat()).isFile())
      refuse('NOT_OURS', `Cannot read "${path}": it is not a regular file`, `name a regular file: ls -ld ${path}`)
    const hashes = algorithms.map((algorithm) => createHash(algorithm))
    const all = {
      update: (bytes: Buffer) => {
        for (const hash of hashes) hash.update(bytes)
      },
    }
    await hashInto(all, file, Number.POSITIVE_INFINITY, options)
    return algorithms.map((algorithm, index) => `${algorithm}:${hashes[index]?.digest('hex')}`)
  } finally {
    await file.close()
  }
}

const known = new Map<string, string>()
const keyOf = (path: string, algorithm: string): string => `${algorithm} ${fileAt(path)?.stamp} ${path}`

/** A file's digests, by reading it once: again only when it was written to or replaced since. */
export async function digestsOf(path: string, algorithms: Algorithm[]): Promise<string[]> {
  const total = fileAt(path)?.size
  const onProgress = (done: number) =>
    audience.tell({ type: 'progress', what: `hash ${basename(path)}`, done, ...(total === undefined ? {} : { total }) })
  const missing = [...new Set(algorithms)].filter((algorithm) => !known.has(keyOf(path, algorithm)))
  const keys = missing.map((algorithm) => keyOf(path, algorithm)) // of the file as it is now
  const found = missing.length > 0 ? await hashFile(path, missing, { signal: interrupt.signal, onProgress }) : []
  for (const [index, key] of keys.entries()) known.set(key, found[index] ?? '')
  return algorithms.map((algorithm) => known.get(keyOf(path, algorithm)) ?? found[missing.indexOf(algorithm)] ?? '')
}

/** A file's digest, as `digestsOf`. */
export async function digestOf(path: string, algorithm: Algorithm): Promise<string> {
  const [digest = ''] = await digestsOf(path, [algorithm])
  return digest
}

/** Its copy was hashed, and it is as it was before it was copied: it has the same digest. */
export function rememberDigest(path: string, stamp: string | undefined, digest: string): void {
  if (fileAt(path)?.stamp === stamp) known.set(keyOf(path, algorithmOf(digest)), digest)
}
