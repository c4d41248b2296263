import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { growFileSystem, growthOf } from '../../lib/host/grow-fs.ts'
import { holderMark } from '../../lib/host/holder.ts'
import { Problem } from '../../lib/job/problem.ts'
import { growFileSystem as step } from '../../scripts/steps/grow-file-system.ts'
import { plans } from './plans.ts'

// Real file systems, with files in them, under overlays that are larger.

const MiB = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-grow-'))
chmodSync(dir, 0o755)
const [base, disk, raw, mounted] = ['base', 'disk', 'raw', 'mounted'].map((name) => join(dir, name)) as [
  string,
  string,
  string,
  string,
]
const notices: string[] = []
const options = {
  signal: new AbortController().signal,
  tell: (event: { type: string; message?: string }) => void (event.message && notices.push(event.message)),
}
const tool = (command: string, ...args: string[]): string =>
  execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe', env: { ...process.env, E2FSCK_CONFIG: '/dev/null' } })

/** What the files have, that every file system here is filled with. */
const content = [randomBytes(3 * MiB), randomBytes(700), randomBytes(90_000)]
const names = content.map((_, index) => `file${index}`)

before(() => {
  mkdirSync(mounted)
  mkdirSync(join(dir, 'source'))
  for (const [index, name] of names.entries())
    writeFileSync(join(dir, 'source', name), content[index] ?? Buffer.alloc(0))
})
after(() => rmSync(dir, { recursive: true }))
afterEach(() => {
  notices.length = 0
  for (const file of [base, disk, raw]) rmSync(file, { force: true })
})

const fileOf = (path: string, size: number) => {
  rmSync(path, { force: true })
  writeFileSync(path, '')
  truncateSync(path, size)
}
function makeExt(type: string, ...flags: string[]): void {
  fileOf(base, 64 * MiB)
  tool(`mkfs.${type}`, '-q', '-F', '-d', join(dir, 'source'), ...flags, base)
}
function mount(path: string, use: () => void, ...flags: string[]): void {
  tool('mount', '-o', ['loop', ...flags].join(','), path, mounted)
  try {
    use()
  } finally {
    tool('umount', mounted)
  }
}
function makeXfs(...flags: string[]): void {
  fileOf(base, 320 * MiB)
  tool('mkfs.xfs', '-q', ...flags, base)
  mount(base, () => tool('cp', '-r', `${join(dir, 'source')}/.`, mounted))
}
/** As a power cut leaves it: what the journal holds is not where it belongs. */
function makeDirty(): void {
  makeExt('ext4')
  mount(base, () => {
    mkdirSync(join(mounted, 'late'))
    writeFileSync(join(mounted, 'late/file'), 'late')
    tool('sync', '-f', mounted)
    copyFileSync(base, raw)
  })
  copyFileSync(raw, base)
  assert.match(tool('dumpe2fs', '-h', base), /needs_recovery/)
}
function makeDirtyXfs(): void {
  makeXfs()
  mount(base, () => {
    mkdirSync(join(mounted, 'late'))
    tool('xfs_io', '-x', '-c', 'shutdown -f', mounted)
  })
}
const overlay = (size: number, ...more: string[]) =>
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, ...more, disk, String(size))
const onBase = { path: disk, format: 'qcow2' as const, base }

/** Everything that a guest sees, as a raw file. */
const asRaw = () => tool('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', disk, raw)
const digest = (path: string): string => createHash('sha256').update(readFileSync(path)).digest('hex')
function hasFiles(path: string): void {
  mount(
    path,
    () => {
      for (const [index, name] of names.entries())
        assert.ok(readFileSync(join(mounted, name)).equals(content[index] ?? Buffer.alloc(0)), name)
    },
    'ro',
  )
}
/** True: the file system is whole, fills the disk, has its files; image, base and directory are as they should be. */
function isGrown(kind: 'ext' | 'xfs', size: number): void {
  // 3: clusters that nobody uses, which a qemu-img that was killed leaves; they do no harm.
  const { status, stdout } = spawnSync('qemu-img', ['check', '-q', '-f', 'qcow2', disk], { encoding: 'utf8' })
  assert.ok(status === 0 || status === 3, stdout)
  asRaw()
  assert.equal(statSync(raw).size, size)
  if (kind === 'ext') {
    tool('e2fsck', '-f', '-n', raw)
    const said = tool('dumpe2fs', '-h', raw)
    const [blocks, block] = [/Block count: +(\d+)/, /Block size: +(\d+)/].map((what) => Number(what.exec(said)?.[1]))
    assert.equal((blocks ?? 0) * (block ?? 0), size)
  } else {
    tool('xfs_repair', '-n', '-f', raw)
    mount(raw, () => assert.match(tool('xfs_info', mounted), new RegExp(`blocks=${size / 4096},`)), 'ro,nouuid')
  }
  hasFiles(raw)
  nothingLeft()
}
function nothingLeft(): void {
  assert.deepEqual(
    readdirSync(dir).filter((name) => name.includes('growing')),
    [],
  )
  assert.equal(programs(), '')
  assert.deepEqual(mountsOfOurs(), mountsBefore)
}
/** Mounts and loop devices of growing. What a test that was killed left there is none of ours. */
const mountsOfOurs = (): string[] =>
  [readFileSync('/proc/self/mounts', 'latin1'), tool('losetup', '-a')]
    .flatMap((text) => text.split('\n'))
    .filter((line) => /cowhand|\/tmp\/disk/.test(line))
const mountsBefore = mountsOfOurs()
/** Export daemons of ours, by the names of their descriptors: of another task's they are others. */
const programs = (): string =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid))
    .filter((pid) => {
      try {
        const isDaemon = readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('qemu-storage-daemon')
        return isDaemon && tool('ls', '-l', `/proc/${pid}/fd`).includes(dir)
      } catch {
        return false
      }
    })
    .join(' ')

describe('a bare file system grows to the end of its disk', () => {
  const rows: [what: string, make: () => void, kind: 'ext' | 'xfs', size: number][] = [
    ['ext2', () => makeExt('ext2'), 'ext', 256 * MiB],
    ['ext3', () => makeExt('ext3'), 'ext', 256 * MiB],
    ['ext4', () => makeExt('ext4'), 'ext', 256 * MiB],
    ['ext4, 1 GiB', () => makeExt('ext4', '-b', '4096'), 'ext', 1024 * MiB],
    ['ext4 with checksums and 64 bits', () => makeExt('ext4', '-O', 'metadata_csum,64bit'), 'ext', 256 * MiB],
    ['ext4 without either', () => makeExt('ext4', '-O', '^metadata_csum,^64bit'), 'ext', 256 * MiB],
    [
      'ext4 without room for descriptors',
      () => makeExt('ext4', '-O', '^resize_inode', '-b', '1024'),
      'ext',
      2048 * MiB,
    ],
    ['xfs', () => makeXfs(), 'xfs', 640 * MiB],
  ]
  for (const [what, make, kind, size] of rows)
    test(what, async () => {
      make()
      overlay(size)
      const was = digest(base)
      assert.equal((await growthOf(onBase))?.canGrow, true)
      assert.equal(await growFileSystem(onBase, options), 'grown')
      assert.equal(digest(base), was)
      isGrown(kind, size)
      assert.equal((await growthOf(onBase))?.canGrow, false)
      assert.equal(await growFileSystem(onBase, options), 'full')
      assert.deepEqual(notices, [])
    })
})

test('a guest that was not shut down: what its journal holds is not lost', async () => {
  makeDirty()
  overlay(256 * MiB)
  assert.equal(await growFileSystem(onBase, options), 'grown')
  isGrown('ext', 256 * MiB)
  mount(raw, () => assert.equal(readFileSync(join(mounted, 'late/file'), 'utf8'), 'late'), 'ro')
})

test('a raw disk, and a qcow2 without a base', async () => {
  makeExt('ext4')
  tool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', base, disk)
  tool('qemu-img', 'resize', '-q', '-f', 'qcow2', disk, '256M')
  truncateSync(base, 256 * MiB)
  assert.equal(await growFileSystem({ path: disk, format: 'qcow2' }, options), 'grown')
  isGrown('ext', 256 * MiB)
  assert.equal(await growFileSystem({ path: base, format: 'raw' }, options), 'grown')
  tool('e2fsck', '-f', '-n', base)
  assert.match(tool('dumpe2fs', '-h', base), /Block count: +262144/)
})

/** Write bytes into the base. */
const patch = (at: number, bytes: Buffer | string) => {
  const fd = openSync(base, 'r+')
  writeSync(fd, typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, 0, bytes.length, at)
  closeSync(fd)
}
describe('is left as it is', () => {
  const blank = () => fileOf(base, 64 * MiB)
  const withBytes = (make: () => void, ...patches: [at: number, bytes: Buffer | string][]) => {
    return () => {
      make()
      for (const [at, bytes] of patches) patch(at, bytes)
    }
  }
  /** With another number in its superblock. */
  const ext4 = (at: number, ...bytes: number[]) =>
    withBytes(() => makeExt('ext4', '-O', '^metadata_csum'), [1024 + at, Buffer.from(bytes)])
  const ones = [0xff, 0xff, 0xff, 0xff]
  const entry = Buffer.from([0x80, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 2, 0])
  const rows: [what: string, make: () => void, notice?: RegExp][] = [
    ['nothing but zeros', blank],
    ['what is not known', withBytes(blank, [0, randomBytes(MiB)])],
    ['partitions', withBytes(() => makeExt('ext4'), [446, entry], [510, '\x55\xaa'])],
    ['partitions (GPT)', withBytes(blank, [512, 'EFI PART'])],
    ['LUKS', withBytes(blank, [0, 'LUKS\xba\xbe'])],
    ['LVM', withBytes(blank, [512, 'LABELONE'])],
    ['an image of a CD', withBytes(blank, [32769, 'CD001'])],
    ['ext4 with its journal elsewhere', ext4(224, 0, 0, 0, 0)],
    ['ext4 whose blocks have no size', ext4(24, ...ones)],
    ['ext4 of absurdly many blocks', ext4(4, ...ones)],
    ['ext4 with absurdly many inodes', ext4(40, ...ones)],
    ['ext4 that is a journal', ext4(96, 0xff)],
    ['ext4 with groups of one block', ext4(32, 1, 0, 0, 0), /e2fsck -f -p: e2fsck: The ext2 superblock is corrupt/],
    ['ext4 of no blocks', ext4(4, 0, 0, 0, 0), /not grown: e2fsck -f -p: .*; in the guest: resize2fs DEVICE$/],
    ['ext4 with features that nobody knows', ext4(98, 0xff), /e2fsck -f -p: .*unsupported feature/],
    [
      'ext4 whose root directory is gone',
      () => {
        makeExt('ext4')
        tool('debugfs', '-w', '-R', 'clri <2>', base)
      },
      /UNEXPECTED INCONSISTENCY/,
    ],
    ['xfs with a log on another device', withBytes(makeXfs, [48, Buffer.alloc(8)])],
    ['xfs whose blocks have no size', withBytes(makeXfs, [4, Buffer.alloc(4)])],
    ['xfs with features that nobody knows', withBytes(makeXfs, [216, Buffer.from(ones)]), /xfs_repair -n: .*errors/],
    ['xfs with a broken tree', withBytes(makeXfs, [4096, randomBytes(512)]), /xfs_repair -n: .*errors/],
    [
      'xfs with a log to be replayed',
      makeDirtyXfs,
      /xfs_repair -n: .*a log that is not empty; in the guest: xfs_growfs/,
    ],
  ]
  for (const [what, make, notice] of rows)
    test(what, async () => {
      make()
      overlay(640 * MiB)
      const was = [base, disk].map(digest)
      assert.notEqual(await growFileSystem(onBase, options), 'grown')
      assert.deepEqual([base, disk].map(digest), was)
      assert.equal(notices.length, notice ? 1 : 0, notices.join())
      if (notice) assert.match(notices.join(), notice)
      assert.equal((await growthOf(onBase))?.canGrow, false)
      nothingLeft()
    })
})

test('a mutated file system: either it is whole afterwards, or the disk is as it was', async () => {
  for (let round = 0; round < 12; round++) {
    makeExt('ext4', '-O', round % 2 ? 'metadata_csum' : '^metadata_csum')
    // In its superblock, descriptors, bitmaps and inodes.
    for (let count = 0; count < 4; count++) patch(1024 + (randomBytes(2).readUInt16LE() % 40_000), randomBytes(1))
    overlay(256 * MiB)
    const was = digest(disk)
    const done = await growFileSystem(onBase, options)
    if (done === 'grown') {
      asRaw()
      tool('e2fsck', '-f', '-n', raw)
    } else assert.equal(digest(disk), was, done)
    nothingLeft()
  }
})

test('a disk that a guest uses', async () => {
  makeExt('ext4')
  overlay(256 * MiB)
  const guest = spawn('qemu-io', ['-f', 'qcow2', disk], { stdio: ['pipe', 'pipe', 'inherit'] })
  guest.stdin.write('read 0 512\n')
  await once(guest.stdout, 'data')
  const isUsed = (error: unknown) => error instanceof Problem && error.code === 'IN_USE'
  await assert.rejects(growFileSystem(onBase, options), isUsed)
  // A merge that was cut off has to wait, too.
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-u', '-b', disk, `${disk}.growing`, '256M')
  await assert.rejects(growFileSystem(onBase, options), isUsed)
  guest.stdin.end()
  await once(guest, 'exit')
  assert.equal(await growFileSystem(onBase, options), 'grown')
  isGrown('ext', 256 * MiB)
})

test('no space is left', async () => {
  makeExt('ext3')
  const small = join(dir, 'small')
  mkdirSync(small)
  tool('mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', small)
  try {
    const path = join(small, 'disk')
    tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, path, '8G')
    const was = digest(path)
    const isFull = (error: unknown) => error instanceof Problem && error.code === 'NO_SPACE'
    await assert.rejects(growFileSystem({ path, format: 'qcow2', base }, options), isFull)
    assert.equal(digest(path), was)
    tool('mount', '-o', 'remount,size=300m', small)
    assert.equal(await growFileSystem({ path, format: 'qcow2', base }, options), 'grown')
    assert.deepEqual(readdirSync(small), ['disk'])
  } finally {
    tool('umount', small)
  }
})

test('it keeps its owner and mode', async () => {
  makeExt('ext4')
  overlay(256 * MiB)
  chownSync(disk, 1234, 5678)
  chmodSync(disk, 0o600)
  assert.equal(await growFileSystem(onBase, options), 'grown')
  const { uid, gid, mode } = statSync(disk)
  assert.deepEqual([uid, gid, mode & 0o777], [1234, 5678, 0o600])
})

const tsx = import.meta.resolve('tsx')
const child = (...args: string[]) =>
  spawn(process.execPath, ['--import', tsx, join(root, 'test/unit/grow-fs-child.ts'), disk, base, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
const gone = async () => {
  for (let wait = 0; wait < 100 && programs() !== ''; wait++) await sleep(20)
  // One that waits in the kernel for itself has no words and no descriptors left, and is there for ever.
  for (let wait = 0; wait < 500 && ending().length > 0; wait++) await sleep(20)
  assert.deepEqual(ending(), [])
}
const ending = (): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+ \(qemu-storage-da\) [DZ]/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))
    } catch {
      return false
    }
  })
/** The file system that is grown is mounted, in a namespace of its own. */
const isMounted = (): boolean =>
  readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop'))
    .some((name) => {
      const file = `/sys/block/${name}/loop/backing_file`
      return existsSync(file) && readFileSync(file, 'utf8').startsWith('/tmp/disk')
    })

describe('cowhand is killed while it grows', () => {
  const growing = `${disk}.growing`
  const kinds = [
    ['ext', () => makeExt('ext4'), 256 * MiB],
    ['xfs', () => makeXfs(), 640 * MiB],
  ] as const
  const begun = (name: string) => () => existsSync(name)
  for (const [kind, make, size] of kinds)
    for (const [when, name, isAt, delays] of [
      ['the file system', `${growing}.part`, begun(`${growing}.part`), [0, 80, 160]],
      ...(kind === 'xfs' ? [['the mount', `${growing}.part`, isMounted, [0, 5, 10, 20, 30, 40]] as const] : []),
      ['the disk', growing, begun(growing), [0, 20]],
    ] as const)
      test(`${kind}: ${when}`, async () => {
        let caught = 0
        for (const delay of delays) {
          make()
          overlay(size)
          const grower = child('wait')
          await once(grower.stdout, 'data')
          const ended = once(grower, 'exit')
          grower.stdin.write('go')
          for (let wait = 0; wait < 5000 && !isAt() && grower.exitCode === null; wait++) await sleep(1)
          await sleep(delay)
          grower.kill('SIGKILL')
          await ended
          await gone()
          if (existsSync(name)) caught++
          assert.equal(programs(), '')
          const again = await growFileSystem(onBase, options)
          assert.ok(again === 'grown' || again === 'full', notices.join())
          isGrown(kind, size)
        }
        assert.ok(caught > 0, 'it was never at it')
      })
})

test('what reads the bytes of a guest has no rights, and the export is of another user', async () => {
  makeExt('ext3')
  overlay(2048 * MiB)
  const seen = new Map<string, { user: number; capabilities: string; fds: string[] }>()
  const watch = setInterval(() => {
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)))
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`COWHAND_HOLDER=${holderMark()}\0`)) continue
        const status = readFileSync(`/proc/${pid}/status`, 'latin1')
        const name = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')[0] ?? ''
        const [, user = '0'] = /^Uid:\t(\d+)/m.exec(status) ?? []
        const [, capabilities = ''] = /^CapBnd:\t(\w+)/m.exec(status) ?? []
        const fds = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
        seen.set(name, { user: Number(user), capabilities, fds })
      } catch {
        // it has ended
      }
  }, 5)
  assert.equal(await growFileSystem(onBase, options), 'grown')
  clearInterval(watch)
  const daemon = seen.get('qemu-storage-daemon')
  const checker = seen.get('e2fsck') ?? seen.get('resize2fs')
  assert.ok(daemon && checker, [...seen.keys()].join())
  assert.deepEqual([daemon.capabilities, checker.capabilities], ['0000000000000000', '0000000000000000'])
  assert.ok(daemon.user >= 0x7f000000 && checker.user >= 0x7f000000 && daemon.user !== checker.user)
  assert.ok(daemon.fds.includes(disk) && !checker.fds.some((file) => file.startsWith(dir)), checker.fds.join())
})

test('a run that is interrupted ends soon, and leaves nothing', async () => {
  makeExt('ext4')
  overlay(256 * MiB)
  const was = digest(disk)
  const ended = new Error('interrupted')
  for (const delay of [10, 60, 110]) {
    const stop = new AbortController()
    const grows = growFileSystem(onBase, { ...options, signal: stop.signal })
    const started = performance.now()
    setTimeout(() => stop.abort(ended), delay)
    await assert.rejects(grows, ended)
    assert.ok(performance.now() - started < 2000)
    assert.equal(digest(disk), was)
    nothingLeft()
  }
})

test('a merge is not finished when the disk was written to since', async () => {
  makeExt('ext4')
  overlay(256 * MiB)
  tool('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', disk, `${disk}.growing`)
  utimesSync(`${disk}.growing`, 1e9, 1e9)
  const was = digest(disk)
  await assert.rejects(growFileSystem(onBase, options), /written to after that was cut off/)
  assert.equal(digest(disk), was)
  rmSync(`${disk}.growing`)
})

test('as somebody else than root', async () => {
  makeExt('ext4')
  overlay(256 * MiB)
  for (const path of [dir, disk]) chownSync(path, 1234, 1234)
  const grower = spawn(
    'setpriv',
    [
      '--reuid',
      '1234',
      '--regid',
      '1234',
      '--clear-groups',
      '--',
      process.execPath,
      '--import',
      tsx,
      join(root, 'test/unit/grow-fs-child.ts'),
      disk,
      base,
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  let said = ''
  grower.stdout.on('data', (chunk) => {
    said += chunk
  })
  await once(grower, 'exit')
  // Where the system lets nobody but root make namespaces, it is left to the guest.
  assert.match(said, /^begins\n(grown|the ext4 file system in .* was not grown: (unshare|FUSE): .*\nnone)\n$/)
  if (said.includes('grown\n')) isGrown('ext', 256 * MiB)
  nothingLeft()
})

plans(
  step,
  { disk: '/i/vm/disk', format: 'qcow2', base: '/i/_base/b' },
  { found: { is: 'ext4', canGrow: true, isCut: false, leftover: false } },
  [
    { name: 'it does not fill the disk', then: ['grow-fs /i/vm/disk'] },
    {
      name: 'it fills the disk',
      found: { found: { is: 'ext4', canGrow: false, isCut: false, leftover: false } },
      then: [],
    },
    { name: 'it is for the guest', input: { 'grow-fs': 'never' }, then: [] },
    {
      name: 'it is for the guest, and was begun',
      input: { 'grow-fs': 'never' },
      found: { found: { is: 'ext4', canGrow: true, isCut: true, leftover: false } },
      then: ['grow-fs /i/vm/disk'],
    },
    {
      name: 'a run was killed',
      found: { found: { is: 'ext4', canGrow: true, isCut: false, leftover: true } },
      then: ['remove /i/vm/disk.growing.part', 'grow-fs /i/vm/disk'],
    },
    { name: 'there is no disk', found: { found: undefined }, then: 'MISSING_PREREQUISITE' },
  ],
)
