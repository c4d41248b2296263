// What a guest sees of its disk, by our own reader and by the real qemu-img: of good images and of mutated ones.
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type GuestDisk, guestBytes, guestSize } from '../../lib/image/guest-bytes.ts'

/** Another seed finds other things: FUZZ_SEED=2 FUZZ_RUNS=1000 npx tsx --test test/unit/guest-bytes.test.ts */
const seed = Number(process.env['FUZZ_SEED'] ?? 1)
const runs = Number(process.env['FUZZ_RUNS'] ?? 30)
const KiB = 2 ** 10
const MiB = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-guest-'))
const [base, disk, out] = [join(dir, 'base'), join(dir, 'disk'), join(dir, 'out')] as const
const size = 8 * MiB
after(() => rmSync(dir, { recursive: true }))

let state = seed
/** A whole number below `n`; the same ones in each run. */
const random = (n: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * n)
}

before(() => {
  // It packs, and ends in the midst of a cluster.
  const bytes = Buffer.alloc(5 * MiB + 700)
  for (let at = 0; at + 4 < bytes.length; at += 64) bytes.writeUInt32LE(random(2 ** 32), at)
  writeFileSync(base, bytes)
})

const tool = (command: string, ...args: string[]) => execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe' })
const io = (...commands: string[]) => tool('qemu-io', '-f', 'qcow2', ...commands.flatMap((one) => ['-c', one]), disk)
const some = ['write -P 1 0 3k', 'write -P 2 70k 200k', 'write -z 512k 256k', 'write -P 3 1M 1500', 'write -P 4 6M 65k']
const onBase = (options: string) => () => {
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, '-F', 'raw', '-b', base, disk, String(size))
  io(...some)
}
const packed = (options: string) => () => {
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', options, '-F', 'raw', '-b', base, disk, String(size))
  io('write -c -P 5 0 64k', 'write -P 6 128k 64k', 'write -c -P 7 512k 64k')
}

const kinds: Record<string, [make: () => void, base?: string]> = {
  'an overlay': [onBase('cluster_size=64k'), base],
  'of an old version': [onBase('compat=0.10'), base],
  'of the smallest clusters': [onBase('cluster_size=512'), base],
  'of the largest clusters': [onBase('cluster_size=2M'), base],
  'with subclusters': [onBase('extended_l2=on,cluster_size=64k'), base],
  'with packed clusters': [packed('cluster_size=64k'), base],
  'with packed clusters and subclusters': [packed('extended_l2=on,cluster_size=64k'), base],
  'on nothing': [
    () => {
      tool('qemu-img', 'create', '-q', '-f', 'qcow2', disk, String(size))
      io(...some)
    },
  ],
}

/** What qemu-img makes of the same bytes; undefined where it fails. */
function byQemu(offset: number, length: number): Buffer | undefined {
  rmSync(out, { force: true })
  const words = ['bs=512', `skip=${offset / 512}`, `count=${(offset + length) / 512}`, `if=${disk}`, `of=${out}`]
  const { status } = spawnSync('qemu-img', ['dd', '-f', 'qcow2', '-O', 'raw', ...words], { timeout: 10_000 })
  return status === 0 ? readFileSync(out).subarray(0, length) : undefined
}
const places = [0, 512, 60 * KiB, 70 * KiB, 128 * KiB, 512 * KiB, MiB, 5 * MiB - 1024, 5 * MiB, 6 * MiB, size - 66_048]
const length = 66_048

for (const [what, [make, below]] of Object.entries(kinds))
  describe(what, () => {
    const given: GuestDisk = { path: disk, format: 'qcow2', base: below }
    test('the same bytes as qemu-img', async () => {
      make()
      assert.equal(guestSize(given), size)
      for (const at of places)
        assert.ok((await guestBytes(given, at, length))?.equals(byQemu(at, length) as Buffer), `${at}`)
      assert.equal(await guestBytes(given, size - 512, 1024), undefined)
    })
    test('mutated: the same bytes, or none', async () => {
      make()
      const whole = readFileSync(disk)
      const tables = tablesOf(whole)
      for (let run = 0; run < runs; run++) {
        const bytes = Buffer.from(whole)
        const table = tables[random(tables.length)] ?? 0
        const at = table + (random(3) ? random(16) : random(512))
        bytes[at] = random(3) ? (bytes[at] ?? 0) ^ (1 << random(8)) : random(256)
        writeFileSync(disk, bytes)
        const place = places[random(places.length)] ?? 0
        const ours = await guestBytes(given, place, length)
        if (ours) {
          const theirs = byQemu(place, length)
          // It fails for what is elsewhere, too.
          if (theirs) assert.ok(ours.equals(theirs), `byte ${at} is ${bytes[at]}, at ${place}`)
        }
      }
    })
  })

/** Where the L1 table and the L2 tables lie. */
function tablesOf(bytes: Buffer): number[] {
  const l1 = Number(bytes.readBigUInt64BE(40))
  const count = bytes.readUInt32BE(36)
  const tables = [l1]
  for (let index = 0; index < count; index++) {
    const at = Number(bytes.readBigUInt64BE(l1 + 8 * index) & 0x00fffffffffffe00n)
    if (at > 0) tables.push(at)
  }
  return tables
}

describe('nothing is read of', () => {
  const secret = join(dir, 'secret')
  const create = (...words: string[]) => tool('qemu-img', 'create', '-q', '-f', 'qcow2', ...words)
  const rows: [what: string, make: () => void, given?: Partial<GuestDisk>][] = [
    ['one that stands on something nobody named', () => create('-F', 'raw', '-b', secret, disk, '8M')],
    ['one whose data is elsewhere', () => create('-o', `data_file=${join(dir, 'data')}`, disk, '8M')],
    ['one that is torn', () => writeFileSync(disk, 'QFI\xfb')],
    ['one that is raw', () => writeFileSync(disk, Buffer.alloc(MiB))],
    ['one that is empty', () => writeFileSync(disk, ''), { format: 'raw' }],
    ['a link', () => tool('ln', '-sf', secret, disk), { format: 'raw' }],
    [
      'one that is encrypted',
      () => {
        const key = 'encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10'
        create('--object', 'secret,id=key,data=word', '-o', key, disk, '8M')
      },
    ],
    [
      'clusters packed by zstd',
      () => {
        create('-o', 'compression_type=zstd', disk, '8M')
        io('write -c -P 5 0 64k')
      },
    ],
  ]
  for (const [what, make, given] of rows)
    test(what, async () => {
      writeFileSync(secret, 'secret'.padEnd(MiB))
      rmSync(disk, { force: true })
      make()
      assert.equal(await guestBytes({ path: disk, format: 'qcow2', ...given }, 0, 512), undefined)
      rmSync(disk)
    })
})

test('a base that is named counts, and no other', async () => {
  const other = join(dir, 'other')
  writeFileSync(other, Buffer.alloc(MiB, 9))
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, disk, '8M')
  assert.ok((await guestBytes({ path: disk, format: 'qcow2', base: other }, 0, 4096))?.equals(Buffer.alloc(4096, 9)))
})

test('a raw disk: what stands in it means nothing', async () => {
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, disk, '8M')
  const fd = openSync(disk, 'r')
  const bytes = Buffer.alloc(4096)
  readSync(fd, bytes)
  closeSync(fd)
  assert.ok((await guestBytes({ path: disk, format: 'raw' }, 0, 4096))?.equals(bytes))
  assert.equal(guestSize({ path: disk, format: 'raw' }), statSync(disk).size)
})
