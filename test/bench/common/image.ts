import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sh } from '../../../build/sh.ts'

/** A directory of its own, gone when `use` is done. */
export async function withDirectory(use: (directory: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'cowhand-bench-'))
  try {
    await use(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

/**
 * A qcow2 image with data that does not compress, as that of most images does not any more.
 * @param data MiB of data @param size MiB that the guest sees
 * @returns its sha256, in hex
 */
export async function makeImage(path: string, data: number, size: number): Promise<string> {
  const raw = `${path}.raw`
  await sh`head -c ${data}M /dev/urandom > ${raw}; truncate -s ${size}M ${raw}`
  await sh`qemu-img convert -f raw -O qcow2 ${raw} ${path}; rm ${raw}`
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) hash.update(chunk)
  return hash.digest('hex')
}
