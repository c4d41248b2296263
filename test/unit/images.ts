// Images for tests: the real qemu-img makes them, and then some of their bytes are changed.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after } from 'node:test'
import type { Format } from '../../lib/job/spec.ts'

/** Each test file has its own, until it ends. */
export const dir = mkdtempSync(join(tmpdir(), 'cowhand-images-'))
after(() => rmSync(dir, { recursive: true }))

export const [M, T] = [2 ** 20, 2 ** 40] as const
export const ceiling = 8 * T
export const source = join(dir, 'source.raw')
/** The file that every maker makes. */
export const image = join(dir, 'image')

/** For luks, qemu-img measures how fast it is, and gives up where a busy machine's clock shows nothing: then again. */
export function qemuImg(...args: string[]): string {
  for (let tries = 1; ; tries++)
    try {
      return execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' })
    } catch (error) {
      if (tries === 20 || !/accurate CPU usage/.test(String(error))) throw error
    }
}
export const u32be = (n: number) => Buffer.from(n.toString(16).padStart(8, '0'), 'hex')
export const u32le = (n: number) => u32be(n).reverse()
export const u64be = (n: bigint) => Buffer.from(n.toString(16).padStart(16, '0'), 'hex')
export const u64le = (n: bigint) => u64be(n).reverse()

/** A disk of 3 MiB with bytes in it that do not compress to nothing. */
const bytes = Buffer.alloc(3 * M)
for (let at = M; at < M + 65536; at += 4) bytes.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at)
writeFileSync(source, bytes)

/** Makes the file `image`. */
export type Make = () => void
/** qemu-img converts each kind once; later rows get the same bytes. */
const made = new Map<string, Buffer>()
export const converted = (format: Format, ...options: string[]): Make => {
  const args = ['-O', format, ...options.flatMap((option) => ['-o', option])]
  return () => {
    const bytes = made.get(args.join())
    if (bytes) return writeFileSync(image, bytes)
    qemuImg('convert', '-f', 'raw', ...args, source, image)
    made.set(args.join(), readFileSync(image))
  }
}
export const created = (...args: string[]): Make => {
  return () => qemuImg('create', '-q', '-f', ...args.map((arg) => (arg === 'FILE' ? image : arg)))
}
export const written = (content: string | Buffer): Make => {
  return () => writeFileSync(image, content)
}
/** The image, with other bytes at some places (from the end where negative). */
export const patched = (make: Make, ...patches: [at: number, bytes: Buffer | string][]): Make => {
  return () => {
    make()
    const bytes = readFileSync(image)
    for (const [at, put] of patches) Buffer.from(put as Buffer).copy(bytes, at < 0 ? bytes.length + at : at)
    writeFileSync(image, bytes)
  }
}
/** The image, with other words in its vmdk descriptor, which has 20 sectors behind the first. */
export const reworded = (make: Make, from: RegExp | string, to: string): Make => {
  return () => {
    make()
    const bytes = readFileSync(image)
    const text = bytes.toString('latin1', 512, 21 * 512)
    assert.notEqual(text.replace(from, to), text, 'the word is there')
    bytes.write(text.replace(from, to).slice(0, 20 * 512), 512, 20 * 512, 'latin1')
    writeFileSync(image, bytes)
  }
}
export const cut = (make: Make, size: number): Make => {
  return () => {
    make()
    truncateSync(image, size < 0 ? readFileSync(image).length + size : size)
  }
}

const sumOf = (bytes: Buffer): number => ~bytes.reduce((sum, byte) => sum + byte, 0) >>> 0
function crc32cOf(bytes: Buffer): number {
  let crc = ~0
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return ~crc >>> 0
}
/** Make the checksums of a format right again. */
export function reseal(format: 'vpc' | 'vhdx', path: string): void {
  const fd = openSync(path, 'r+')
  const seal = (at: number, length: number, sumAt: number) => {
    const part = Buffer.alloc(length)
    readSync(fd, part, 0, length, at)
    part.writeUInt32BE(0, sumAt)
    if (format === 'vpc') part.writeUInt32BE(sumOf(part), sumAt)
    else part.writeUInt32LE(crc32cOf(part), sumAt)
    writeSync(fd, part, sumAt, 4, at + sumAt)
  }
  const { size } = statSync(path)
  if (format === 'vpc') {
    const magic = Buffer.alloc(8)
    readSync(fd, magic, 0, 8, 0)
    const dynamic = magic.toString('latin1') === 'conectix'
    if (dynamic) seal(0, 512, 64)
    if (dynamic) seal(512, 1024, 36)
    seal(Math.ceil(size / 512) * 512 - 512, 512, 64)
  } else {
    seal(0x10000, 4096, 4)
    seal(0x20000, 4096, 4)
    seal(0x30000, 65536, 4)
  }
  closeSync(fd)
}
/** The image, with its checksums right: who makes a hostile image does not forget them. */
export const sealed = (format: 'vpc' | 'vhdx', make: Make): Make => {
  return () => {
    make()
    reseal(format, image)
  }
}

/** The image, and then what the real qemu-img or qemu-io does to it; `FILE` stands for its path. */
export const andThen = (make: Make, ...commands: string[][]): Make => {
  return () => {
    make()
    for (const [command = '', ...args] of commands)
      execFileSync(
        command,
        args.map((arg) => (arg === 'FILE' ? image : arg)),
        { stdio: 'pipe' },
      )
  }
}
