import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { refuse } from '../job/problem.ts'

/** Holes are made in these units, at multiples of them, in bytes. */
const block = 2 ** 16
const zeros = Buffer.alloc(block)

/** Bytes gathered before each write. Two such buffers take turns: one fills while the other is being written. */
const gather = 2 ** 20

/** Bytes after which the device is asked to take what is written, while more comes in: little is left for the end. */
const stretch = 2 ** 25

/**
 * Writes a stream of bytes into a file and leaves holes where 64 KiB or more are zero. The file is at every moment
 * a true beginning of the stream, also after a SIGKILL: writes follow one another, and nothing is ever behind them.
 */
export class SparseWriter {
  readonly handle: FileHandle
  /** Bytes taken so far, together with those that the file had when it was opened. */
  position: number
  /** Bytes that have reached the file. */
  written: number
  #filling = Buffer.allocUnsafeSlow(gather)
  #resting = Buffer.allocUnsafeSlow(gather)
  #filled = 0
  #writing: Promise<void> = Promise.resolve()
  #flushed = 0
  #flushing: Promise<void> | undefined
  #failure: unknown

  constructor(handle: FileHandle, position: number) {
    this.handle = handle
    this.position = position
    this.written = position
  }

  /** Take the next bytes; they are copied, the buffer may be used again. @throws the system's error, such as ENOSPC */
  async write(bytes: Uint8Array): Promise<void> {
    for (let from = 0; from < bytes.length; ) {
      const room = gather - this.#filled
      const some = bytes.subarray(from, from + room)
      this.#filling.set(some, this.#filled)
      this.#filled += some.length
      this.position += some.length
      from += some.length
      if (some.length === room) await this.#flush()
    }
  }

  /** True afterwards: the file consists of exactly the bytes taken. */
  async settle(): Promise<void> {
    await this.#flush()
    await this.#writing
    await this.#flushing
    if (this.#failure) throw this.#failure
    await this.handle.truncate(this.position)
  }

  /** True afterwards: the bytes taken are on the device, and the file has this mode. */
  async finish(mode: number): Promise<void> {
    await this.settle()
    await this.handle.chmod(mode)
    await this.handle.sync()
  }

  /** True afterwards: the file is empty. */
  async restart(): Promise<void> {
    await this.#writing
    if (this.#failure) throw this.#failure
    await this.handle.truncate(0)
    this.#flushed = 0
    this.#filled = 0
    this.position = 0
    this.written = 0
  }

  async close(): Promise<void> {
    await this.#writing
    await this.#flushing
    await this.handle.close()
  }

  /** Hand over what is gathered; waits only for the write before it. */
  async #flush(): Promise<void> {
    await this.#writing
    if (this.#failure) throw this.#failure
    if (this.#filled === 0) return
    const full = this.#filling.subarray(0, this.#filled)
    ;[this.#filling, this.#resting] = [this.#resting, this.#filling]
    this.#filled = 0
    this.#writing = this.#put(full, this.position - full.length).catch((error) => {
      this.#failure = error
    })
  }

  async #put(bytes: Buffer, at: number): Promise<void> {
    const edge = (offset: number) => Math.min(bytes.length, offset + block - ((at + offset) % block))
    for (let from = 0; from < bytes.length; ) {
      let to = from
      while (to < bytes.length && !isZero(bytes, to, edge(to))) to = edge(to)
      while (from < to) from += (await this.handle.write(bytes, from, to - from, at + from)).bytesWritten
      from = edge(from) // this block is zero, or there is none
    }
    this.written = at + bytes.length
    if (!this.#flushing && this.written - this.#flushed >= stretch) this.#flushing = this.#takeAlong()
  }

  /** A failure is told to one flush only, so it is kept. */
  async #takeAlong(): Promise<void> {
    this.#flushed = this.written
    await this.handle.datasync().catch((error) => {
      this.#failure = error
    })
    this.#flushing = undefined
  }
}

const isZero = (bytes: Buffer, from: number, to: number): boolean =>
  bytes[from] === 0 && bytes.subarray(from, to).equals(zeros.subarray(0, to - from))

/**
 * Open a file to write on at its end; where there is none, an empty one is made that only its owner may read.
 * @throws {Problem} NOT_OURS when it is no regular file, or has a second name through which others' bytes would change
 * @throws ELOOP where the name is a symbolic link
 */
export async function openSparse(path: string): Promise<SparseWriter> {
  // O_NONBLOCK: to open a FIFO must not wait. It means nothing for regular files.
  const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants
  const handle = await open(path, O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_RDWR, 0o600)
  const facts = await handle.stat()
  if (facts.isFile() && facts.nlink === 1) return new SparseWriter(handle, facts.size)
  await handle.close()
  const state = facts.isFile() ? 'it has another name (hard link)' : 'it is not a regular file'
  return refuse('NOT_OURS', `Cannot write "${path}": ${state}`, `look at it, and move it away: ls -ld ${path}`)
}
