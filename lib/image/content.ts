import { basename } from 'node:path'
import { fileAt, hasHoles } from '../host/files.ts'
import { audience, interrupt } from '../host/interrupt.ts'
import { refuse } from '../job/problem.ts'
import { type HashOptions, paced } from './digest.ts'

/** Unit of the digest, in bytes: blocks that are zero do not count, allocated or not. Part of what the digest means. */
const block = 2 ** 16
const zeros = Buffer.alloc(block)
/** Bytes per read, twice: one part is hashed while the next is read. */
const gather = 2 ** 21

/** Bytes from `start` up to `end` of a file. */
interface Extent {
  start: number
  end: number
}

/**
 * Digest of what a guest sees in a raw base: SHA-256 over each block of 64 KiB that is not all zero, as its number
 * (u64, little endian) and its bytes, the last one padded with zeros. So it does not depend on what is allocated, nor
 * on zeros at the end: an overlay sees zeros behind its base as well, and a base and its larger copy are the same.
 * Memory is bounded, and holes are not read.
 * @param options.before is awaited before the file is read from `at`
 * @returns `content-sha256:HEX`
 * @throws {Problem} NOT_OURS when it is not a regular file; TOOL_MISSING, TOOL_FAILED; the signal's reason when aborted
 */
export async function contentDigest(
  path: string,
  options: HashOptions & { before?: (at: number) => Promise<void> } = {},
): Promise<string> {
  const { constants } = await import('node:fs')
  const { open } = await import('node:fs/promises')
  const { createHash } = await import('node:crypto')
  options.signal?.throwIfAborted()
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  let ahead: Promise<number> | undefined
  try {
    const facts = await file.stat()
    if (!facts.isFile())
      refuse('NOT_OURS', `Cannot read "${path}": it is not a regular file`, `name a regular file: ls -ld ${path}`)
    const isSparse = hasHoles({ size: facts.size, allocated: facts.blocks * 512 })
    const extents = isSparse ? await dataIn(path, facts.size, options.signal) : [{ start: 0, end: facts.size }]
    const hash = createHash('sha256')
    const number = Buffer.alloc(8)
    const { tell, last } = paced(options.onProgress)
    let done = 0
    let [current, other] = [Buffer.alloc(gather), Buffer.alloc(gather)]
    /** Fill a buffer from `at`; what the file does not have reads as zeros. @returns whole blocks of bytes */
    const read = async (into: Buffer, at: number, length: number): Promise<number> => {
      let got = 0
      for (let some = 1; some > 0 && got < length; got += some)
        some = (await file.read(into, got, length - got, at + got)).bytesRead
      const whole = Math.ceil(length / block) * block
      into.fill(0, got, whole)
      return whole
    }
    const parts = partsOf(extents)
    ahead = parts[0] && read(current, parts[0].start, parts[0].end - parts[0].start)
    for (const [index, { start, end }] of parts.entries()) {
      options.signal?.throwIfAborted()
      const whole = (await ahead) ?? 0
      const next = parts[index + 1]
      if (next) await options.before?.(next.start)
      ahead = next && read(other, next.start, next.end - next.start)
      for (let at = 0; at < whole; at += block) {
        const bytes = current.subarray(at, at + block)
        if (bytes[0] === 0 && bytes.equals(zeros)) continue
        number.writeBigUInt64LE(BigInt((start + at) / block))
        hash.update(number).update(bytes)
      }
      ;[current, other] = [other, current]
      done += end - start
      tell(done)
    }
    last(done)
    return `content-sha256:${hash.digest('hex')}`
  } finally {
    await ahead?.catch(() => {}) // of no use any more, and not to be read after the file is closed
    await file.close()
  }
}

/** The extents as whole blocks, each read once, in parts that a buffer holds. */
function partsOf(extents: Extent[]): Extent[] {
  const parts: Extent[] = []
  let done = 0
  for (const { start, end } of extents) {
    for (let at = Math.max(done, Math.floor(start / block) * block); at < end; at = done) {
      done = Math.min(at + gather, Math.ceil(end / block) * block)
      parts.push({ start: at, end: done })
    }
  }
  return parts
}

/** Where a sparse raw file has data. The runtimes have no SEEK_DATA; `qemu-img map` has. */
async function dataIn(path: string, size: number, signal: AbortSignal | undefined): Promise<Extent[]> {
  const { qemuImg } = await import('../host/qemu-img.ts')
  const argv = ['qemu-img', 'map', '-U', '--output=json', '-f', 'raw', path]
  const work = { images: [{ path, format: 'raw' } as const], size }
  const { stdout } = await qemuImg(argv, work, { why: `read "${path}"`, signal })
  const found: { start: number; length: number; data: boolean }[] = JSON.parse(stdout)
  return found.filter(({ data }) => data).map(({ start, length }) => ({ start, end: Math.min(start + length, size) }))
}

const known = new Map<string, string>()

/** The content digest of a base, by reading it once: again only when it was written to or replaced since. */
export async function contentOf(path: string): Promise<string> {
  const facts = fileAt(path)
  const key = `${facts?.stamp} ${path}`
  const total = facts?.allocated
  const onProgress = (done: number) =>
    audience.tell({ type: 'progress', what: `read ${basename(path)}`, done, ...(total === undefined ? {} : { total }) })
  const digest = known.get(key) ?? (await contentDigest(path, { signal: interrupt.signal, onProgress }))
  // Of a file that was written to meanwhile it says nothing.
  if (fileAt(path)?.stamp === facts?.stamp) known.set(key, digest)
  return digest
}
