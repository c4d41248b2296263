import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { sh } from '../../../build/sh.ts'
import { type Pair, type PairHost, startPair } from '../../lab/pair.ts'
import { withDirectory } from './image.ts'

// Two hosts on a wire of 1 Gbit/s, without libvirt, and instances that are worth sending.

/** Where a bench keeps what is none of cowhand's, on each host. */
export const own = '/var/lib/cowhand/bench'

/** Bytes that are alike in every round, and compress as those of most disks do (zstd: to 0.4): this machine's programs. */
const programs = 'LC_ALL=C tar --sort=name -C / -cf - usr/bin usr/lib usr/share 2>/dev/null'
/** The same again and again, for those of a small machine are not enough. Who reads it takes what he needs. */
const typical = `for i in $(seq 20); do ${programs} || :; done`

/** Bytes that do not compress, and are alike in every round. */
const noise = 'openssl enc -aes-128-ctr -pass pass:bench -nosalt -pbkdf2 -in /dev/zero 2>/dev/null'

const kinds = { typical, random: noise } as const
type Kind = keyof typeof kinds

/** Run a script on a host. @returns milliseconds @throws {Error} with what it said */
export async function timed(host: PairHost, script: string): Promise<number> {
  const start = performance.now()
  const { code, stderr } = await host.run(['bash', '-euc', script], {}, 600)
  const end = performance.now()
  if (code !== 0) throw new Error(`on ${host.name}: ${script}\n${stderr}`)
  return end - start
}

/** True when `use` runs: both hosts are up. What is on them is gone afterwards. */
export async function withPair(use: (pair: Pair) => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('Cannot run this bench: hosts of its own need root\n  remedy: sudo npm run bench\n')
    process.exit(1)
  }
  const settings = { libvirt_uri: undefined }
  const pair = await startPair({ a: { settings }, b: { settings } })
  try {
    for (const host of [pair.a, pair.b]) mkdirSync(host.file(own), { recursive: true })
    await use(pair)
  } finally {
    await pair.stop()
  }
}

/** An image in the store of both hosts, and its base on both. @param data MiB of data; a guest sees a quarter more */
export async function shareImage({ a, b }: Pair, name: string, kind: Kind, data: number): Promise<void> {
  await withDirectory(async (directory) => {
    const file = join(directory, `${name}.raw`)
    await timed(a, `(${kinds[kind]}) | head -c ${data}M >${file}; truncate -s ${Math.round(data * 1.25)}M ${file}`)
    for (const host of [a, b])
      await timed(host, `cowhand image add ${file} --name ${name} && cowhand cache prefetch ${name}`)
  })
}

/** Fill an overlay as a guest would: pieces of 16 MiB all over its disk. @param data MiB of data @param size MiB of disk */
export async function fillOverlay(host: PairHost, path: string, kind: Kind, data: number, size: number) {
  const piece = 16
  const [source, part] = [`${own}/source`, `${own}/piece`]
  await timed(host, `(${kinds[kind]}) | head -c ${data}M >${source}`)
  for (let done = 0; done < data; done += piece) {
    const at = Math.floor((done / data) * size)
    await timed(
      host,
      `dd if=${source} of=${part} bs=1M skip=${done} count=${piece} status=none
       qemu-io -f qcow2 -c "write -q -s ${part} ${at}M $(stat -c %s ${part})" ${path}`,
    )
  }
  await timed(host, `rm ${source} ${part}; sync ${path}`)
}

export const allocated = async (host: PairHost, path: string): Promise<number> =>
  Number((await sh`stat -c %b ${host.file(path)}`).stdout) * 512
