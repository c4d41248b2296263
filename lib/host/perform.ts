import { closeSync, fsyncSync, renameSync, rmdirSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { type Action, checkImage } from '../job/action.ts'
import type { Tell } from '../job/events.ts'
import { explainSystemError, Problem, refuse } from '../job/problem.ts'
import type { Algorithm } from '../job/spec.ts'
import {
  allocate,
  fileAt,
  flush,
  makeDirectory,
  openPart,
  publish,
  removeFile,
  touch,
  writePart,
  writeWhole,
} from './files.ts'

/** What may stand beside names that are not flushed yet. */
const adding: Action['do'][] = ['mkdir', 'write', 'allocate', 'overlay', 'publish']

type Of<K extends Action['do']> = Extract<Action, { do: K }>

/** What one task has done and measured: bytes that came over the network, and facts of the files it made. */
export class Effects {
  fetched = 0
  readonly #tell: Tell
  readonly #signal: AbortSignal
  readonly #measured = new Map<string, Record<string, unknown>>()
  /** Directories with a new name that a power cut could still take away. */
  readonly #unflushed = new Set<string>()

  constructor(tell: Tell, signal: AbortSignal) {
    this.#tell = tell
    this.#signal = signal
  }

  /**
   * Do one action. A file that it was making and could not finish is gone afterwards, except a download's part.
   * @throws {Problem} with what the operator can do
   */
  async perform(action: Action): Promise<void> {
    this.#signal.throwIfAborted()
    try {
      // Of files that only add, any may survive a power cut without the others. All else comes after them.
      if (!adding.includes(action.do)) this.flush()
      await this.#do(action)
    } catch (error) {
      if (error instanceof Problem || this.#signal.aborted) throw error
      explainSystemError(error)
    }
  }

  /** True afterwards: every name that was given is on the device. */
  flush(): void {
    for (const directory of this.#unflushed) flush(directory)
    this.#unflushed.clear()
  }

  #do(action: Action): Promise<void> | void {
    switch (action.do) {
      case 'run':
        return this.#run(action)
      case 'mkdir':
        for (const directory of makeDirectory(action.path, action.mode)) this.#unflushed.add(directory)
        return
      case 'write':
        this.#unflushed.add(dirname(action.path))
        return writeWhole(action.path, action.text, action.mode)
      case 'allocate':
        return allocate(action.path, action.size)
      case 'copy':
        return this.#copy(action)
      case 'overlay':
        return this.#overlay(action)
      case 'verify':
        return this.#verify(action)
      case 'fetch':
        return this.#fetch(action)
      case 'unpack':
        return this.#unpack(action)
      case 'examine':
        return this.#examine(action)
      case 'check':
        return this.#check(action)
      case 'record':
        return this.#record(action)
      case 'publish':
        this.#unflushed.add(dirname(action.to))
        return publish(action.from, action.to)
      case 'rename':
        this.#unflushed.add(dirname(action.to))
        return renameSync(action.from, action.to)
      case 'remove':
        return removeFile(action.path)
      case 'set-aside':
        this.#unflushed.add(dirname(action.to))
        return renameSync(action.from, action.to)
      case 'touch':
        return action.paths.forEach(touch)
      case 'alarm':
        throw new Problem('failed', action.code, action.message, action.remedy)
      case 'rmdir':
        return rmdirSync(action.path)
    }
  }

  #progress(verb: string, path: string): (done: number, total?: number) => void {
    const what = `${verb} ${basename(path)}`
    return (done, total) => this.#tell({ type: 'progress', what, done, ...(total === undefined ? {} : { total }) })
  }

  /** Tell the percentages that qemu-img prints as bytes of the image that it works through. */
  async #percents(argv: string[], image: string): Promise<(chunk: string) => void> {
    const { percentIn } = await import('./qemu-img.ts')
    const told = this.#progress(argv[1] ?? '', image)
    const size = Number(this.#measured.get(image)?.['virtualSize'] ?? 0)
    return (chunk) => {
      const percent = percentIn(chunk)
      if (percent !== undefined && size > 0) told(Math.round((percent / 100) * size), size)
    }
  }

  async #run({ argv, why, env, writes, mode, works }: Of<'run'>): Promise<void> {
    const { program } = await import('./shell.ts')
    const options = {
      signal: this.#signal,
      why,
      ...(works ? { onOutput: await this.#percents(argv, works) } : {}),
      ...(env ? { env } : {}),
    }
    if (writes === undefined) return void (await program(argv, options))
    // A failed flush is told to the descriptors that were open then: ours is, the program's exit code may lie.
    const fd = openPart(writes, mode)
    try {
      await program(argv, options)
      fsyncSync(fd)
    } catch (error) {
      removeFile(writes)
      throw error
    } finally {
      closeSync(fd)
    }
  }

  #overlay({ path, base, baseFormat, size }: Of<'overlay'>): Promise<void> {
    return import('../image/qcow2.ts').then(({ overlayBytes }) => {
      const { bytes, fileSize } = overlayBytes({ virtualSize: size, backing: base, backingFormat: baseFormat })
      writePart(path, bytes, fileSize, 0o600)
    })
  }

  async #copy({ from, to, digest, size }: Of<'copy'>): Promise<void> {
    const stamp = fileAt(from)?.stamp
    const told = this.#progress('copy', from)
    // cp tells nothing, but what it has written is to be seen.
    const watch = setInterval(() => told(fileAt(to)?.allocated ?? 0, size), 250)
    const argv = ['cp', '--reflink=auto', '--sparse=always', '--no-preserve=mode', '--', from, to]
    try {
      await this.#run({ do: 'run', argv, why: `copy "${from}"`, writes: to })
    } finally {
      clearInterval(watch)
    }
    try {
      const { rememberDigest } = await import('../image/digest.ts')
      rememberDigest(from, stamp, await this.#prove(to, digest, from))
    } catch (error) {
      removeFile(to)
      throw error
    }
  }

  async #verify({ path, digest }: Of<'verify'>): Promise<void> {
    await this.#prove(path, digest, path)
  }

  /** Hash a file and keep its digest for the record. @param name what the operator calls it */
  async #prove(path: string, expected: string | undefined, name: string): Promise<string> {
    const { hashFile } = await import('../image/digest.ts')
    const told = this.#progress('hash', name)
    const total = fileAt(path)?.size
    const algorithm = (expected?.split(':')[0] ?? 'sha256') as Algorithm
    const digest = await hashFile(path, algorithm, { signal: this.#signal, onProgress: (done) => told(done, total) })
    if (expected !== undefined && digest !== expected) {
      const message = `Cannot use "${name}": its digest is ${digest}, expected ${expected}`
      refuse('CHECKSUM_MISMATCH', message, 'get the file again, or ask its maker for the right checksum')
    }
    this.#measured.set(path, { digest })
    return digest
  }

  async #fetch({ url, to, digest, ceiling, size }: Of<'fetch'>): Promise<void> {
    const { fetchImage } = await import('../image/fetch.ts')
    const onProgress = this.#progress('fetch', new URL(url).pathname)
    const got = await fetchImage({
      url,
      to,
      digest,
      ceiling,
      signal: this.#signal,
      onProgress,
      ...(size === undefined ? {} : { size }),
    })
    this.fetched += got.received
  }

  async #unpack({ from, packing, to, limit, name = from }: Of<'unpack'>): Promise<void> {
    const { unpack } = await import('../image/unpack.ts')
    const onProgress = this.#progress('unpack', name)
    try {
      await unpack({ from, name, packing, to, limit, signal: this.#signal, onProgress })
    } catch (error) {
      removeFile(to)
      throw error
    }
  }

  async #examine({ path, format, ceiling, of = path, name = path }: Of<'examine'>): Promise<void> {
    const { examine } = await import('../image/examine.ts')
    this.#measured.set(of, { ...this.#measured.get(of), ...(await examine(path, { format, ceiling, name })) })
  }

  async #check({ path, format, name = path }: Of<'check'>): Promise<void> {
    const { program } = await import('./shell.ts')
    const state = await program(checkImage(path, format), { signal: this.#signal, accept: [2, 3] }).then(
      // 3: clusters that nobody uses, which do no harm.
      ({ code }) => (code === 2 ? 'qemu-img check finds errors in it' : undefined),
      (error) => {
        const [, words] = /qemu-img failed with exit code 1: (.*)/.exec(error.message) ?? []
        if (words === undefined) throw error
        return `qemu-img check ends with: ${words}`
      },
    )
    if (state === undefined) return
    const message = `Cannot use image "${name}": it is damaged or cut short, ${state}`
    refuse('IMAGE_REJECTED', message, 'get the image again from its source, or use another one')
  }

  #record({ path, of, fields }: Of<'record'>): void {
    const { size, stamp } = fileAt(of) ?? {}
    writeWhole(
      path,
      `${JSON.stringify({ version: 1, ...fields, ...this.#measured.get(of), size, stamp }, null, 2)}\n`,
      0o644,
    )
    flush(dirname(path)) // a base is never there without it
  }
}
