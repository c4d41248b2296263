import type { Hash } from 'node:crypto'
import { dirname } from 'node:path'
import { openSparse, type SparseWriter } from '../host/sparse.ts'
import { errno, fail, Problem } from '../job/problem.ts'
import { formatSize } from '../job/spec.ts'
import { showUrl } from '../job/url.ts'
import { hashInto, paced } from './digest.ts'
import { type Answer, Hiccup, type HttpOptions, parseUrl, patiently, unexpected, withAnswer } from './http.ts'
import { Throttle } from './throttle.ts'

export interface FetchOptions extends HttpOptions {
  url: string
  /** What messages call it [the URL, without secrets] */
  name?: string | undefined
  /** The part to write. One that is there is resumed. */
  to: string
  /** `sha256:HEX` or `sha512:HEX` that the whole must have */
  digest: string
  /** bytes that the whole has, where it is known */
  size?: number | undefined
  /** bytes that are never exceeded, where the size is not known */
  ceiling?: number | undefined
  /** bytes a second, at most */
  rate?: number | undefined
  /** Called at most ten times a second, and at the end. @param done bytes @param total bytes, where known */
  onProgress?: ((done: number, total?: number) => void) | undefined
}

/** The bytes are not those that are wanted: they are thrown away. */
class Unfit extends Problem {}

/**
 * Download a file into its part and prove its digest. True afterwards: the part is whole, sparse where it is zero,
 * has mode 0644, and is on the device. The connection may break as often as it likes while each try gets further.
 *
 * A part that did not become whole stays and is resumed the next time, unless its bytes are wrong or the disk failed.
 * @returns bytes of the whole, and those that came over the network
 * @throws {Problem} FETCH_FAILED, CHECKSUM_MISMATCH, NO_SPACE, NOT_OURS; BAD_SPEC for the URL
 * @throws the signal's reason when aborted; the system's error when the file cannot be written
 */
export async function fetchImage(options: FetchOptions): Promise<{ size: number; digest: string; received: number }> {
  const { to, digest, signal } = options
  const url = parseUrl(options.url)
  signal?.throwIfAborted()
  const file = await openSparse(to)
  const download = new Download(url, file, options)
  try {
    await download.run()
    await file.finish(0o644)
    return { size: file.position, digest, received: download.received }
  } catch (error) {
    // What the file system failed to take cannot be trusted, and on a full disk the guests' own writes come first.
    const good = signal?.aborted || (error instanceof Problem && !(error instanceof Unfit))
    // Settled, the file's length tells where to go on.
    const resumable = good && file.position > 0 && (await settles(file))
    if (!resumable) await (await import('node:fs/promises')).unlink(to)
    if (errno(error) === 'ENOSPC' || errno(error) === 'EDQUOT') throw noSpace(options, file, download.total)
    throw error
  } finally {
    await file.close()
  }
}

const settles = (file: SparseWriter): Promise<boolean> =>
  file.settle().then(
    () => true,
    () => false,
  )

class Download {
  /** bytes of the whole, where it is known */
  total: number | undefined
  /** bytes that came over the network */
  received = 0
  readonly #url: URL
  readonly #shown: string
  readonly #file: SparseWriter
  readonly #options: FetchOptions
  readonly #most: number
  readonly #progress: ReturnType<typeof paced<[number, number?]>>
  #hash!: Hash
  #newHash!: () => Hash
  #etag: string | undefined
  /** The bytes are of more than one answer: they may be of more than one version of the file. */
  #joined = false
  #best = 0
  readonly #throttle: Throttle | undefined

  constructor(url: URL, file: SparseWriter, options: FetchOptions) {
    this.#url = url
    this.#shown = options.name ?? showUrl(options.url)
    this.#file = file
    this.#options = options
    this.#most = options.size ?? options.ceiling ?? 2 ** 43
    this.total = options.size
    this.#progress = paced(options.onProgress)
    this.#throttle = options.rate === undefined ? undefined : new Throttle(options.rate)
  }

  /** True afterwards: what was written has the digest. */
  async run(): Promise<void> {
    const { createHash } = await import('node:crypto')
    const algorithm = this.#options.digest.split(':')[0] ?? ''
    this.#newHash = () => createHash(algorithm)
    this.#hash = this.#newHash()
    await this.#takeUp()
    for (let startedOver = false; ; startedOver = true) {
      try {
        if (!this.#fits())
          await patiently(
            this.#shown,
            this.#options,
            () => this.#try(),
            () => this.#progressed(),
          )
        if (this.#fits()) return this.#progress.last(this.#file.position, this.#file.position)
        throw this.#mismatch()
      } catch (error) {
        // A beginning of an older version, or bytes lost in a power cut: without it, the same server may do.
        if (!(error instanceof Unfit) || !this.#joined || startedOver) throw error
        await this.#startOver()
        this.#best = 0
      }
    }
  }

  /** Go on behind what an earlier run has left. */
  async #takeUp(): Promise<void> {
    const { position, handle } = this.#file
    if (position > this.#most) return this.#startOver()
    const { signal, size } = this.#options
    const onProgress = (done: number) => this.#progress.tell(done, size)
    await hashInto(this.#hash, handle, position, { signal, onProgress })
    this.#joined = position > 0
    this.#best = position
  }

  async #startOver(): Promise<void> {
    await this.#file.restart()
    this.#hash = this.#newHash()
    this.#joined = false
    this.#etag = undefined
  }

  #progressed(): boolean {
    const further = this.#file.position > this.#best
    this.#best = Math.max(this.#best, this.#file.position)
    return further
  }

  #digest(): string {
    return `${this.#options.digest.split(':')[0]}:${this.#hash.copy().digest('hex')}`
  }

  #fits(): boolean {
    return this.#digest() === this.#options.digest
  }

  #mismatch(): Unfit {
    const [algorithm, wanted = ''] = this.#options.digest.split(':')
    const is = this.#digest().split(':')[1] ?? ''
    const message = `Cannot use "${this.#shown}": its ${algorithm} is ${is.slice(0, 16)}…, expected ${wanted.slice(0, 16)}…`
    return new Unfit(
      'failed',
      'CHECKSUM_MISMATCH',
      message,
      'compare the checksum with the one that the publisher gives now',
    )
  }

  #try(): Promise<void> {
    const from = this.#file.position
    const headers: Record<string, string> = {}
    if (from > 0) headers['range'] = `bytes=${from}-`
    // A weak tag does not vouch for bytes. Without any, the digest at the end tells.
    if (from > 0 && this.#etag?.startsWith('"')) headers['if-range'] = this.#etag
    return withAnswer(this.#url, headers, this.#options, (answer) => this.#take(answer, from))
  }

  async #take(answer: Answer, from: number): Promise<void> {
    const { status, headers, body } = answer
    const range = contentRange(headers['content-range'])
    if (from > 0 && status === 416) return this.#distrust('it has not that many bytes now')
    if (status !== 200 && !(from > 0 && status === 206)) return unexpected(answer, this.#shown, this.#options)
    const length = headers['content-length']
    const total = status === 206 ? range?.total : length === undefined ? undefined : Number(length)
    // Looked at before anything is given up: it may be some proxy's page.
    this.#checkTotal(total)
    if (status === 206) {
      if (range?.start !== from) return this.#distrust('it sent another range than was asked for')
      if (total !== undefined && this.total !== undefined && total !== this.total)
        return this.#distrust('the file changed')
      this.#joined = true
    } else if (from > 0) await this.#startOver()
    this.total = total ?? this.#options.size
    this.#etag = headers.etag
    for await (const chunk of body) {
      if (this.#file.position + chunk.length > this.#most)
        throw new Unfit(
          'failed',
          'FETCH_FAILED',
          `Cannot fetch "${this.#shown}": it does not end after ${this.#most} bytes`,
          this.#options.remedy ?? 'check the URL',
        )
      this.received += chunk.length
      this.#hash.update(chunk)
      await this.#file.write(chunk)
      this.#progress.tell(this.#file.position, this.total)
      // What is not read, the server is not let send.
      await this.#throttle?.take(chunk.length, this.#options.signal)
    }
    if (this.total !== undefined && this.#file.position < this.total) throw new Hiccup('the connection was cut')
  }

  #checkTotal(total: number | undefined): void {
    const { size, remedy } = this.#options
    if (total === undefined || total === size || (size === undefined && total <= this.#most)) return
    const wanted = size === undefined ? `more than ${this.#most} are not accepted` : `expected ${size}`
    fail(
      'FETCH_FAILED',
      `Cannot fetch "${this.#shown}": it has ${total} bytes there, ${wanted}`,
      remedy ?? 'check the URL',
    )
  }

  /** What is there and what the server has do not belong together. */
  async #distrust(why: string): Promise<never> {
    await this.#startOver()
    throw new Hiccup(why)
  }
}

/** @param total bytes of the whole, where it is known */
function noSpace({ url, name, to }: FetchOptions, file: SparseWriter, total: number | undefined): Problem {
  const missing = total === undefined ? '' : `, ${formatSize(total - file.written)} are missing`
  const message = `Cannot fetch "${name ?? showUrl(url)}": there is no space left in "${dirname(to)}"${missing}`
  return new Problem('failed', 'NO_SPACE', message, 'free some space, then run the same command again')
}

/** `bytes 5-9/10`: where it starts, and bytes of the whole. */
function contentRange(header: string | undefined): { start?: number; total?: number } | undefined {
  const [all, start, total] = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/.exec(header ?? '') ?? []
  if (all === undefined) return undefined
  return { ...(start && { start: Number(start) }), ...(total !== '*' && { total: Number(total) }) }
}

/**
 * A small text file, such as SHA256SUMS; undefined where the server has none.
 * @throws {Problem} FETCH_FAILED, also when it is larger than `limit` bytes; the signal's reason when aborted
 */
export function fetchText(
  address: string,
  { limit = 2 ** 20, ...options }: HttpOptions & { limit?: number } = {},
): Promise<string | undefined> {
  const shown = showUrl(address)
  return patiently(shown, options, () =>
    withAnswer(parseUrl(address), {}, options, async (answer) => {
      if (answer.status === 404 || answer.status === 410) return undefined
      if (answer.status !== 200) return unexpected(answer, shown)
      const { bytes, whole } = await beginning(answer, limit)
      if (!whole) fail('FETCH_FAILED', `Cannot fetch "${shown}": it has more than ${limit} bytes`, 'check the URL')
      return bytes.toString()
    }),
  )
}

/**
 * A file's first bytes, and its size where the server tells it.
 * @throws {Problem} FETCH_FAILED; the signal's reason when aborted
 */
export function headOf(
  address: string,
  bytes: number,
  options: HttpOptions = {},
): Promise<{ bytes: Buffer; total?: number }> {
  const shown = showUrl(address)
  return patiently(shown, options, () =>
    withAnswer(parseUrl(address), { range: `bytes=0-${bytes - 1}` }, options, async (answer) => {
      const { status, headers } = answer
      const range = contentRange(headers['content-range'])
      if (status === 416) return { bytes: Buffer.alloc(0), total: range?.total ?? 0 } // there is no first byte
      if (status !== 200 && !(status === 206 && range?.start === 0)) return unexpected(answer, shown)
      const length = headers['content-length']
      const total = status === 206 ? range?.total : length === undefined ? undefined : Number(length)
      return { bytes: (await beginning(answer, bytes)).bytes, ...(total !== undefined && { total }) }
    }),
  )
}

/** At most `limit` bytes of a body; whether that was all. */
export async function beginning({ body }: Answer, limit: number): Promise<{ bytes: Buffer; whole: boolean }> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body) {
    chunks.push(chunk)
    size += chunk.length
    if (size > limit) break
  }
  return { bytes: Buffer.concat(chunks).subarray(0, limit), whole: size <= limit }
}
