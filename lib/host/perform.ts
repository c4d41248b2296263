import { closeSync, fsyncSync, renameSync, rmdirSync } from 'node:fs'
import { basename, dirname } from 'node:path'
import { type Action, checkImage } from '../job/action.ts'
import type { Tell } from '../job/events.ts'
import { explainSystemError, fail, Problem, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { type Algorithm, algorithmOf, type Format, isWeak } from '../job/spec.ts'
import {
  allocate,
  fileAt,
  flush,
  flushData,
  makeDirectory,
  openPart,
  publish,
  removeFile,
  touch,
  writePart,
  writeWhole,
} from './files.ts'

import type { MoveAction } from './perform-move.ts'

/** What may stand beside names that are not flushed yet. */
const adding: Action['do'][] = ['mkdir', 'write', 'allocate', 'overlay', 'publish']

type Of<K extends Action['do']> = Extract<Action, { do: K }>

/** What one task has done and measured: bytes that came over the network, and facts of the files it made. */
export class Effects {
  fetched = 0
  /** Bytes that went to another host. */
  sent = 0
  /** Seconds that a guest was off. */
  downtime: number | undefined
  #offSince: number | undefined
  readonly #tell: Tell
  readonly #signal: AbortSignal
  readonly #settings: Settings
  readonly #measured = new Map<string, Record<string, unknown>>()
  /** Of images that were examined, what a guest sees of them: bytes. */
  readonly #sizes = new Map<string, number>()
  /** Directories with a new name that a power cut could still take away. */
  readonly #unflushed = new Set<string>()

  constructor(tell: Tell, signal: AbortSignal, settings: Settings) {
    this.#tell = tell
    this.#signal = signal
    this.#settings = settings
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
        for (const directory of makeDirectory(action.path, action.mode, action.operators))
          this.#unflushed.add(directory)
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
      case 'rebase':
        return this.#rebase(action)
      case 'check':
        return this.#check(action)
      case 'inspect':
        return this.#inspect(action)
      case 'measure':
        return this.#measure(action)
      case 'record':
        return this.#record(action)
      case 'publish':
        this.#unflushed.add(dirname(action.to))
        return publish(action.from, action.to, action.mode)
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
      case 'end-receivers':
        return import('./receivers.ts').then(
          async ({ endStaleReceivers }) => void (await endStaleReceivers(action.path)),
        )
      default:
        return this.#move(action)
    }
  }

  async #move(action: MoveAction): Promise<void> {
    const { performMove } = await import('./perform-move.ts')
    if (action.do === 'power-off') this.#offSince = performance.now()
    const { sent = 0 } = await performMove(action, {
      settings: this.#settings,
      signal: this.#signal,
      tell: this.#tell,
      progress: (verb, path) => this.#progress(verb, path),
    })
    this.sent += sent
    if (action.do === 'ask' && action.phase === 'finish') this.#isBack()
  }

  #isBack(): void {
    if (this.#offSince !== undefined) this.downtime = (performance.now() - this.#offSince) / 1000
  }

  #progress(verb: string, path: string): (done: number, total?: number) => void {
    const what = `${verb} ${basename(path)}`
    return (done, total) => this.#tell({ type: 'progress', what, done, ...(total === undefined ? {} : { total }) })
  }

  /** Tell the percentages that qemu-img prints as bytes of the image that it works through. */
  async #percents(argv: string[], image: string): Promise<(chunk: string) => void> {
    const { percentIn } = await import('./qemu-img.ts')
    const told = this.#progress(argv[1] ?? '', image)
    const size = this.#sizes.get(image) ?? 0
    return (chunk) => {
      const percent = percentIn(chunk)
      if (percent !== undefined && size > 0) told(Math.round((percent / 100) * size), size)
    }
  }

  async #run({ argv, why, env, writes, mode = 0o644, works }: Of<'run'>): Promise<void> {
    const { program } = await import('./shell.ts')
    const options = {
      signal: this.#signal,
      why,
      ...(works ? { onOutput: await this.#percents(argv, works) } : {}),
      ...(env ? { env } : {}),
    }
    if (writes === undefined) {
      await program(argv, options)
      if (argv[0] === 'virsh' && argv.includes('start')) this.#isBack()
      return
    }
    // A failed flush is told to the descriptors that were open then: ours is, the program's exit code may lie.
    const fd = openPart(writes, mode)
    try {
      if (argv[0] === 'qemu-img') await this.#qemuImg(argv, works, { path: writes, fd }, options)
      else await program(argv, options)
      fsyncSync(fd)
    } catch (error) {
      removeFile(writes)
      throw error
    } finally {
      closeSync(fd)
    }
  }

  /** It makes a file of the image that it works through, or changes that file, if there is no other. */
  async #qemuImg(
    argv: string[],
    works: string | undefined,
    file: { path: string; fd: number },
    options: { why: string },
  ) {
    const { qemuImg } = await import('./qemu-img.ts')
    const path = works ?? file.path
    const image = { path, format: argv[argv.indexOf('-f') + 1] as Format }
    const size = this.#sizeOf(path)
    if (works === undefined) await qemuImg(argv, { images: [{ ...image, fd: file.fd }], size }, options)
    else await qemuImg(argv, { images: [image], size, makes: file }, options)
  }

  /** Bytes that a guest sees of an image: our own reader has seen each before qemu-img does. */
  #sizeOf(image: string): number {
    const size = this.#sizes.get(image)
    if (size === undefined) throw new TypeError(`${image} was not examined`)
    return size
  }

  #overlay({ path, base, baseFormat, size }: Of<'overlay'>): Promise<void> {
    return import('../image/qcow2-write.ts').then(({ overlayBytes }) => {
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
      await this.#run({ do: 'run', argv, why: `copy "${from}"`, writes: to, mode: 0o600 })
    } finally {
      clearInterval(watch)
    }
    try {
      const { rememberDigest } = await import('../image/digest.ts')
      for (const proven of await this.#prove(to, digest, from)) rememberDigest(from, stamp, proven)
      closeSync(openPart(to, 0o644)) // until it was proven it was for nobody else
    } catch (error) {
      removeFile(to)
      throw error
    }
  }

  async #verify({ path, digest }: Of<'verify'>): Promise<void> {
    await this.#prove(path, digest, path)
  }

  /**
   * Hash a file and keep its digest for the record: one that cannot be forged, whatever it is proven by.
   * @param name what the operator calls it
   * @returns the digests that it has
   */
  async #prove(path: string, expected: string | undefined, name: string): Promise<string[]> {
    const { hashFile } = await import('../image/digest.ts')
    const told = this.#progress('hash', name)
    const total = fileAt(path)?.size
    const wanted = expected === undefined ? [] : [algorithmOf(expected)]
    const algorithms: Algorithm[] = expected === undefined || isWeak(expected) ? ['sha256', ...wanted] : wanted
    const options = { signal: this.#signal, onProgress: (done: number) => told(done, total) }
    const digests = await hashFile(path, algorithms, options)
    if (expected !== undefined && !digests.includes(expected)) {
      const message = `Cannot use "${name}": its digest is ${digests.at(-1)}, expected ${expected}`
      refuse('CHECKSUM_MISMATCH', message, 'get the file again, or ask its maker for the right checksum')
    }
    this.#measured.set(path, { digest: digests[0] })
    return digests
  }

  async #fetch({ url, to, digest, ceiling, size, rate }: Of<'fetch'>): Promise<void> {
    const { fetchImage } = await import('../image/fetch.ts')
    const onProgress = this.#progress('fetch', new URL(url).pathname)
    // Where Glance is and what lets us in is looked up now: an action has no secret in it.
    const from = url.startsWith('glance:')
      ? await (await import('../image/glance.ts')).fileOf(url, this.#settings)
      : { url }
    const got = await fetchImage({
      ...from,
      to,
      digest,
      ceiling,
      signal: this.#signal,
      onProgress,
      ...(size === undefined ? {} : { size }),
      ...(rate === undefined ? {} : { rate }),
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

  async #examine({ path, format, ceiling, of = path, name = path, backing }: Of<'examine'>): Promise<void> {
    const { examine } = await import('../image/examine.ts')
    const found = await examine(path, { format, ceiling, name, ...(backing === undefined ? {} : { backing }) })
    this.#sizes.set(path, found.virtualSize)
    this.#measured.set(of, { ...this.#measured.get(of), virtualSize: found.virtualSize })
  }

  async #rebase({ path, base, size, name = path }: Of<'rebase'>): Promise<void> {
    const { rebase } = await import('../image/delta.ts')
    rebase(path, base, size, name)
  }

  async #check({ path, format, name = path }: Of<'check'>): Promise<void> {
    const { qemuImg } = await import('./qemu-img.ts')
    const work = { images: [{ path, format }], size: this.#sizeOf(path) }
    const options = { why: `check "${name}"`, signal: this.#signal, accept: [2, 3] }
    const state = await qemuImg(checkImage(path, format), work, options).then(
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

  async #inspect({ path, size, stands }: Of<'inspect'>): Promise<void> {
    const { requireDisk } = await import('../image/arrived.ts')
    requireDisk(path, size, stands)
    this.#sizes.set(path, size)
  }

  async #measure({ path, proven = false, digest: expected }: Of<'measure'>): Promise<void> {
    const { contentDigest } = await import('../image/content.ts')
    const told = this.#progress('read', path)
    const facts = fileAt(path)
    const onProgress = (done: number) => told(done, facts?.allocated)
    // What has arrived is flushed before it gets its name: then there is little left to wait for.
    const flushed = expected === undefined ? undefined : flushData(path)
    const [digest] = await Promise.all([contentDigest(path, { signal: this.#signal, onProgress }), flushed])
    if (expected !== undefined && (digest !== expected || fileAt(path)?.stamp !== facts?.stamp)) {
      const message = `Cannot use "${path}": its content is ${digest}, and ${expected} was sent`
      fail('CHECKSUM_MISMATCH', message, 'run the same command again: what differs is sent again')
    }
    this.#measured.set(path, {
      ...this.#measured.get(path),
      content: { digest, stamp: facts?.stamp, ...(proven ? { proven } : {}) },
    })
  }

  async #record({ path, of, fields, stamp: expected, by }: Of<'record'>): Promise<void> {
    // Asked now, and not while it is planned: of fifty that want the same base, one makes it.
    const tool = by === undefined ? {} : { tool: await (await import('./ask.ts')).toolVersion(by) }
    const { size, stamp } = fileAt(of) ?? {}
    if (expected !== undefined && stamp !== expected)
      refuse('BASE_DIFFERS', `Cannot record "${of}": it was written to just now`, 'find out by whom, then run it again')
    const measured = this.#measured.get(of)
    const made = new Date().toISOString()
    writeWhole(
      path,
      `${JSON.stringify({ version: 1, made, ...tool, ...measured, ...fields, size, stamp }, null, 2)}\n`,
      0o644,
    )
    flush(dirname(path)) // a base is never there without it
  }
}
