import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Maker, mkfsCommand, mkswapCommand, uuidOf } from '../../lib/host/mkfs.ts'

const directory = mkdtempSync(join(tmpdir(), 'cowhand-mkfs-'))
after(() => rmSync(directory, { recursive: true }))

const MiB = 2 ** 20
const GiB = 2 ** 30
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const run = (argv: string[], env: Record<string, string> = {}): string =>
  execFileSync(argv[0] as string, argv.slice(1), {
    env: { PATH, ...env },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })

/** Runs the maker on a fresh sparse file. */
function make(name: string, size: number, maker: (path: string) => Maker, host: Record<string, string>): string {
  const path = join(directory, name)
  const file = openSync(path, 'w')
  ftruncateSync(file, size)
  closeSync(file)
  const { argv, env } = maker(path)
  run(argv, { ...host, ...env })
  return path
}

const allocated = (path: string): number => statSync(path).blocks * 512

/** Equal bytes, holes skipped; qemu-img does so without reading them. */
function same(a: string, b: string): boolean {
  try {
    run(['qemu-img', 'compare', '-f', 'raw', '-F', 'raw', a, b])
    return true
  } catch {
    return false
  }
}

// A configuration that changes what has no option: two hosts that differ by it must make the same.
const odd = join(directory, 'mke2fs.conf')
writeFileSync(
  odd,
  '[defaults]\n\tblocksize = 1024\n\tdefault_mntopts = journal_data\n\tenable_periodic_fsck = 1\n\terrors = panic\n',
)
const here = { LC_ALL: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent' }
const there = { LC_ALL: 'C', TZ: 'Asia/Tokyo', HOME: '/root', MKE2FS_CONFIG: odd }

const rows: {
  name: string
  size: number
  make: (path: string, size: number) => Maker
  sees: string[]
  check?: string[]
  most: number
}[] = [
  {
    name: 'ext4',
    size: 100 * GiB,
    make: (path, size) => mkfsCommand({ path, size }),
    sees: ['ephemeral0', 'ext4', uuidOf(`cowhand ephemeral0 ext4 ${100 * GiB}`)],
    check: ['e2fsck', '-fn'],
    most: 10 * MiB,
  },
  {
    name: 'ext4 small',
    size: 64 * MiB,
    make: (path, size) => mkfsCommand({ path, size }),
    sees: ['ephemeral0', 'ext4'],
    check: ['e2fsck', '-fn'],
    most: 1 * MiB,
  },
  {
    name: 'ext3', // its journal cannot be left out of the file
    size: 1 * GiB,
    make: (path, size) => mkfsCommand({ path, format: 'ext3', size }),
    sees: ['ephemeral0', 'ext3'],
    check: ['e2fsck', '-fn'],
    most: 40 * MiB,
  },
  {
    name: 'xfs', // it writes its log
    size: 1 * GiB,
    make: (path, size) => mkfsCommand({ path, format: 'xfs', size }),
    sees: ['ephemeral0', 'xfs', uuidOf(`cowhand ephemeral0 xfs ${GiB}`)],
    check: ['xfs_repair', '-n', '-f'],
    most: 80 * MiB,
  },
  {
    name: 'vfat',
    size: 1 * GiB,
    make: (path, size) => mkfsCommand({ path, format: 'vfat', size }),
    sees: ['ephemeral0', 'vfat'],
    check: ['fsck.vfat', '-n'],
    most: 10 * MiB,
  },
  {
    name: 'ntfs',
    size: 1 * GiB,
    make: (path, size) => mkfsCommand({ path, format: 'ntfs', size }),
    sees: ['ephemeral0', 'ntfs'],
    check: ['ntfsfix', '-n'],
    most: 20 * MiB,
  },
  {
    name: 'swap',
    size: 256 * MiB,
    make: (path, size) => mkswapCommand({ path, size }),
    sees: ['swap0', 'swap', uuidOf(`cowhand swap0 swap ${256 * MiB}`)],
    most: 1 * MiB,
  },
]

describe('a file system made on two hosts at two times', { concurrency: true }, () => {
  for (const row of rows)
    it(`${row.name}: is ${row.make('x', row.size).deterministic ? 'the same' : 'not promised to be the same'}, found by blkid, clean and sparse`, async () => {
      const slug = row.name.replace(' ', '-')
      const one = make(`${slug}.one`, row.size, (path) => row.make(path, row.size), here)
      await sleep(1100)
      const other = make(`${slug}.other`, row.size, (path) => row.make(path, row.size), there)
      // Where it is not promised, it must really differ: else the promise is missing.
      assert.equal(same(one, other), row.make(one, row.size).deterministic)
      const found = run(['blkid', '-p', '-o', 'export', one])
      const [label, type, uuid] = row.sees
      assert.match(found, new RegExp(`^LABEL=${label}$`, 'm'))
      assert.match(found, new RegExp(`^TYPE=${type}$`, 'm'))
      if (uuid) assert.match(found, new RegExp(`^UUID=${uuid}$`, 'm'))
      if (row.check) run([...row.check, one])
      assert.ok(allocated(one) < row.most, `${allocated(one)} bytes are allocated`)
    })
})

describe('the UUID', () => {
  it('follows from the name and has the form of version 5', () => {
    assert.equal(uuidOf('cowhand'), uuidOf('cowhand'))
    assert.match(uuidOf('cowhand'), /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })
  it('differs by format and by size', () => {
    const made = (['ext3', 'ext4', 'xfs', 'vfat'] as const).flatMap((format) =>
      [GiB, 2 * GiB].map((size) => mkfsCommand({ path: '/x', format, size }).argv.join(' ')),
    )
    assert.equal(new Set(made).size, 8)
  })
})
