import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import { overlayBytes } from '../../lib/image/qcow2-write.ts'
import { Problem } from '../../lib/job/problem.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-qcow2-'))
after(() => rmSync(dir, { recursive: true }))

/** For luks, qemu-img measures how fast it is, and gives up where a busy machine's clock shows nothing: then again. */
function qemuImg(...args: string[]): string {
  for (let tries = 1; ; tries++)
    try {
      return execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' })
    } catch (error) {
      if (tries === 20 || !/accurate CPU usage/.test(String(error))) throw error
    }
}
const [K, M, G, T] = [2 ** 10, 2 ** 20, 2 ** 30, 2 ** 40] as const

describe('an overlay is byte for byte what qemu-img create writes', () => {
  const sizes = [
    512,
    M,
    G - 512,
    G,
    1.5 * G,
    2 * G,
    2 * G + 512,
    512 * G,
    512 * G + 512,
    T,
    4 * T,
    5 * T,
    64 * T - 512,
    64 * T,
  ]
  const deep = join(dir, ...Array(4).fill('d'.repeat(200)))
  // The longest name that fits into the header has 1023 bytes.
  const longest = join(deep, 'x'.repeat(1023 - deep.length - 1))
  const bases = { short: join(dir, 'b'), 'not ASCII': join(dir, 'базис'), longest }
  before(() => mkdirSync(deep, { recursive: true }))

  for (const backingFormat of ['raw', 'qcow2'] as const)
    for (const [length, name] of Object.entries(bases))
      test(`on a ${backingFormat} base with a ${length} name, in every size`, () => {
        rmSync(name, { force: true })
        qemuImg('create', '-q', '-f', backingFormat, name, '512')
        const theirs = join(dir, 'theirs.qcow2')
        for (const virtualSize of sizes) {
          qemuImg('create', '-q', '-f', 'qcow2', '-F', backingFormat, '-b', name, theirs, String(virtualSize))
          const { bytes, fileSize } = overlayBytes({ virtualSize, backing: name, backingFormat })
          assert.equal(fileSize, statSync(theirs).size, `size of the file for ${virtualSize}`)
          assert.ok(bytes.equals(readFileSync(theirs)), `bytes for ${virtualSize}`)
        }
      })

  test('2 GiB give a file of 196640 bytes', () =>
    assert.equal(overlayBytes({ virtualSize: 2 * G, backing: '/b', backingFormat: 'raw' }).fileSize, 196640))
})

describe('an overlay works', () => {
  for (const virtualSize of [M, 2 * G, 5 * T, 64 * T])
    test(`qemu-img finds no fault in one of ${virtualSize} bytes, also after a write to its end`, () => {
      const [base, disk] = [join(dir, 'base.raw'), join(dir, 'disk.qcow2')]
      writeFileSync(base, Buffer.alloc(M, 'base'))
      writeFileSync(disk, overlayBytes({ virtualSize, backing: base, backingFormat: 'raw' }).bytes)
      assert.match(qemuImg('check', '-f', 'qcow2', disk), /No errors/)
      if (virtualSize === M) assert.match(qemuImg('compare', '-s', '-f', 'raw', '-F', 'qcow2', base, disk), /identical/)
      execFileSync('qemu-io', ['-f', 'qcow2', '-c', `write ${virtualSize - 512} 512`, disk], { stdio: 'pipe' })
      assert.match(qemuImg('check', '-f', 'qcow2', disk), /No errors/)
      assert.equal(readQcow2(disk)?.virtualSize, virtualSize)
    })
})

describe('what cannot be an overlay is refused', () => {
  const rows: [when: string, virtualSize: number, backing: string, says: RegExp][] = [
    ['no size', 0, '/b', /0 bytes is no size/],
    ['half a sector', 700, '/b', /700 bytes is no size/],
    ['more than 64 TiB', 64 * T + 512, '/b', /is no size/],
    ['no number', Number.NaN, '/b', /is no size/],
    ['a name longer than 1023 bytes', M, `/${'x'.repeat(1023)}`, /1 to 1023 bytes/],
    ['a name longer than 1023 bytes in UTF-8', M, `/${'ж'.repeat(512)}`, /1 to 1023 bytes/],
    ['no name', M, '', /1 to 1023 bytes/],
  ]
  for (const [when, virtualSize, backing, says] of rows)
    test(when, () =>
      assert.throws(
        () => overlayBytes({ virtualSize, backing, backingFormat: 'raw' }),
        (error) => error instanceof Problem && error.code === 'UNSUPPORTED' && says.test(error.message),
      ),
    )
})

describe('the header is read as qemu-img reads it', () => {
  const base = join(dir, 'below.raw')
  before(() => writeFileSync(base, Buffer.alloc(M)))
  const created = (...options: string[]) => ['create', '-q', '-f', 'qcow2', ...options]
  const rows: [what: string, make: string[], more?: string[][]][] = [
    ['version 2', created('-o', 'compat=0.10', 'FILE', '10M')],
    ['version 2 with a backing file', created('-o', 'compat=0.10', '-F', 'raw', '-b', base, 'FILE')],
    ['version 3', created('FILE', '10M')],
    ['of no size', created('FILE', '0')],
    ['with a backing file', created('-F', 'raw', '-b', base, 'FILE', '1G')],
    ['zstd', created('-o', 'compression_type=zstd', 'FILE', '10M')],
    ['extended L2 entries', created('-o', 'extended_l2=on', 'FILE', '10G')],
    ['lazy refcounts', created('-o', 'lazy_refcounts=on', 'FILE', '10M')],
    ['clusters of 512 bytes', created('-o', 'cluster_size=512', 'FILE', '1G')],
    ['clusters of 2 MiB', created('-o', 'cluster_size=2M', 'FILE', '10G')],
    ['refcounts of 1 bit', created('-o', 'refcount_bits=1', 'FILE', '10G')],
    ['refcounts of 64 bits', created('-o', 'refcount_bits=64', 'FILE', '10G')],
    ['preallocated metadata', created('-o', 'preallocation=metadata', 'FILE', '100M')],
    ['a data file', created('-o', `data_file=${dir}/data,data_file_raw=on`, 'FILE', '10M')],
    [
      'encrypted (luks)',
      created(
        '--object',
        'secret,id=s,data=x',
        '-o',
        'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
        'FILE',
        '1M',
      ),
    ],
    [
      'encrypted (aes)',
      created('--object', 'secret,id=s,data=x', '-o', 'encrypt.format=aes,encrypt.key-secret=s', 'FILE', '1M'),
    ],
    [
      'snapshots',
      created('FILE', '10M'),
      [
        ['snapshot', '-c', 'one', 'FILE'],
        ['snapshot', '-c', 'two', 'FILE'],
      ],
    ],
    ['a bitmap', created('FILE', '10M'), [['bitmap', '--add', 'FILE', 'b']]],
    ['grown', created('FILE', '10M'), [['resize', '-q', 'FILE', '30G']]],
    [
      'its backing file taken away',
      created('-F', 'raw', '-b', base, 'FILE', '1G'),
      [['rebase', '-u', '-b', '', 'FILE']],
    ],
  ]
  for (const [what, make, more = []] of rows)
    test(what, () => {
      const path = join(dir, 'read.qcow2')
      for (const args of [make, ...more]) qemuImg(...args.map((arg) => (arg === 'FILE' ? path : arg)))
      const info = JSON.parse(qemuImg('info', '--output=json', '-f', 'qcow2', path))
      const data = info['format-specific'].data
      assert.deepEqual(readQcow2(path), {
        version: data.compat === '0.10' ? 2 : 3,
        virtualSize: info['virtual-size'],
        clusterSize: info['cluster-size'],
        ...(info['backing-filename'] && { backing: info['backing-filename'] }),
        ...(info['backing-filename-format'] && { backingFormat: info['backing-filename-format'] }),
        dataFile: data['data-file'] !== undefined,
        encrypted: info.encrypted ?? false,
        dirty: info['dirty-flag'],
        extendedL2: data['extended-l2'] ?? false,
        compression: data['compression-type'],
        snapshots: info.snapshots?.length ?? 0,
      })
      rmSync(path)
    })

  test('one that was not closed is dirty', () => {
    const path = join(dir, 'dirty.qcow2')
    qemuImg(...created('-o', 'lazy_refcounts=on', path, '10M'))
    spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write 0 1M', '-c', 'abort', path], { cwd: dir })
    assert.equal(readQcow2(path)?.dirty, true)
  })
})

describe('torn and absurd headers are refused', () => {
  const whole = join(dir, 'whole.qcow2')
  const path = join(dir, 'torn.qcow2')
  let bytes: Buffer
  before(() => {
    qemuImg('create', '-q', '-f', 'raw', join(dir, 'under.raw'), '1M')
    qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', join(dir, 'under.raw'), whole, '2G')
    bytes = readFileSync(whole)
  })
  const u32 = (n: number) => Buffer.from(n.toString(16).padStart(8, '0'), 'hex')
  const u64 = (n: bigint) => Buffer.from(n.toString(16).padStart(16, '0'), 'hex')
  const rows: [what: string, at: number, put: Buffer, says: RegExp][] = [
    ['version 1', 4, u32(1), /qcow version 1/],
    ['version 4', 4, u32(4), /qcow version 4/],
    ['clusters of 2^8', 20, u32(8), /clusters of 2\^8/],
    ['clusters of 2^22', 20, u32(22), /clusters of 2\^22/],
    ['a header of 96 bytes', 100, u32(96), /header length of 96/],
    ['a header of 2^31 bytes', 100, u32(2 ** 31), /header length/],
    ['a header larger than what we read', 100, u32(8192), /cut short/],
    ['an odd header length', 100, u32(113), /header length of 113/],
    ['feature bit 5', 76, u32(0x20), /not known/],
    ['feature bit 63', 72, u32(2 ** 31), /not known/],
    ['the corrupt bit', 76, u32(2), /marked as corrupt/],
    ['a compression type without its feature', 104, Buffer.from([1]), /compression type 1/],
    ['compression 7', 104, Buffer.from([7]), /compression type 7/],
    ['refcounts of 2^7 bits', 96, u32(7), /refcounts/],
    ['encryption 3', 32, u32(3), /encryption 3/],
    ['a virtual size of 1 EiB', 24, u64(2n ** 60n), /virtual size is absurd/],
    ['a virtual size beyond its L1 table', 24, u64(2n ** 41n), /L1 table is too small/],
    ['half a sector', 24, u64(700n), /virtual size is absurd/],
    ['an L1 table of 2^32 - 1 entries', 36, u32(2 ** 32 - 1), /L1 table of 4294967295 entries is absurd/],
    ['an L1 table beyond the end', 40, u64(0x40000n), /L1 table is not inside/],
    ['an L1 table at 2^63', 40, u64(2n ** 63n), /L1 table is not inside/],
    ['an L1 table in the header', 40, u64(0n), /L1 table is not inside/],
    ['an L1 table between clusters', 40, u64(0x20008n), /L1 table is not inside/],
    ['no refcount table', 56, u32(0), /refcount table is missing/],
    ['a refcount table of 2^32 - 1 clusters', 56, u32(2 ** 32 - 1), /refcount table is missing or absurd/],
    ['a refcount table beyond the end', 48, u64(0x1000000n), /refcount table is not inside/],
    ['2^32 - 1 snapshots', 60, u32(2 ** 32 - 1), /snapshots are absurd/],
    ['a snapshot table that is not there', 60, u32(9), /snapshot table is not inside/],
    ['a name of 1024 bytes', 16, u32(1024), /1024 bytes is too long/],
    ['a name of no bytes', 16, u32(0), /name is absurd/],
    ['a name in the header', 8, u64(24n), /lies in its header/],
    ['a name beyond the first cluster', 8, u64(65530n), /not in its first cluster/],
    ['a name at 2^63', 8, u64(2n ** 63n), /not in its first cluster/],
    ['a NUL in the name', 0x214, Buffer.from([0]), /name is absurd/],
    ['an extension of 2^32 - 1 bytes', 0x74, u32(2 ** 32 - 1), /reaches beyond/],
    ['an extension that covers the name', 0x74, u32(0x1a0), /reaches beyond/],
    ['a backing format of 16 bytes', 0x74, u32(16), /backing format is absurd/],
  ]
  for (const [what, at, put, says] of rows)
    test(what, () => {
      const torn = Buffer.from(bytes)
      put.copy(torn, at)
      writeFileSync(path, torn)
      assert.throws(() => readQcow2(path), rejected(says))
    })

  for (const [size, says] of [
    [40, /header is cut short/],
    [100, /header is cut short/],
    [112, /not inside|cut short/],
    [0x210, /not inside|cut short/],
    [65536, /not inside/],
    [3 * 65536, /L1 table is not inside/],
    [196632, /L1 table is not inside/],
  ] as const)
    test(`cut off after ${size} bytes`, () => {
      writeFileSync(path, bytes)
      truncateSync(path, size)
      assert.throws(() => readQcow2(path), rejected(says))
    })
})

describe('what is no qcow2', () => {
  for (const [what, content] of [
    ['an empty file', ''],
    ['three bytes of the magic', 'QFI'],
    ['a raw disk', Buffer.alloc(64 * K)],
  ] as const)
    test(`${what} is told from it`, () => {
      const path = join(dir, 'other')
      writeFileSync(path, content)
      assert.equal(readQcow2(path), undefined)
    })

  test('a missing file is the error of the system', () =>
    assert.throws(() => readQcow2(join(dir, 'none')), { code: 'ENOENT' }))
  test('a directory is refused', () => assert.throws(() => readQcow2(dir), rejected(/not a regular file/)))
  test('a symbolic link is refused', () => {
    symlinkSync('/etc/passwd', join(dir, 'link'))
    assert.throws(() => readQcow2(join(dir, 'link')), rejected(/symbolic link/))
  })
  test('a FIFO is refused, without waiting for a writer', () => {
    execFileSync('mkfifo', [join(dir, 'fifo')])
    assert.throws(() => readQcow2(join(dir, 'fifo')), rejected(/not a regular file/))
  })
  test('a device is refused', () => assert.throws(() => readQcow2('/dev/zero'), rejected(/not a regular file/)))
})

const rejected = (says: RegExp) => (error: unknown) =>
  error instanceof Problem && error.code === 'IMAGE_REJECTED' && error.kind === 'refused' && says.test(error.message)
