import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { before, describe, test } from 'node:test'
import { examine } from '../../lib/image/examine.ts'
import { mostInAll, openImage } from '../../lib/image/file.ts'
import { Problem } from '../../lib/job/problem.ts'
import {
  andThen,
  ceiling,
  converted,
  cut,
  image,
  M,
  type Make,
  patched,
  qemuImg,
  u32be,
  u64be,
  written,
} from './images.ts'

const snapshot = (name: string) => ['qemu-img', 'snapshot', '-q', '-c', name, 'FILE']
const bitmap = (name: string) => ['qemu-img', 'bitmap', '-f', 'qcow2', '--add', 'FILE', name]
const plain = converted('qcow2')

/** Where the things are that a maker put into the image. */
interface Places {
  /** Of the snapshot table. */
  snapshots: number
  /** Of the data of the bitmaps extension. */
  bitmaps: number
}
function placesIn(bytes: Buffer): Places {
  const type = Buffer.from('23852875', 'hex')
  return { snapshots: Number(bytes.readBigUInt64BE(64)), bitmaps: bytes.indexOf(type) + 8 }
}
/** Patches at places that are known only when the image is made. */
const patchedAt = (make: Make, patches: (at: Places, bytes: Buffer) => [at: number, put: Buffer][]): Make => {
  return () => {
    make()
    const bytes = readFileSync(image)
    patched(() => {}, ...patches(placesIn(bytes), bytes))()
  }
}

describe('the tables of a qcow2 image', () => {
  const withSnapshots = andThen(plain, snapshot('one'), snapshot('two'))
  const withBitmaps = andThen(plain, bitmap('one'))
  const rows: [what: string, make: Make, says: RegExp][] = [
    ['5000 snapshots', patched(withSnapshots, [60, u32be(5000)]), /its 5000 snapshots are absurd/],
    ['a snapshot more than there are', patched(withSnapshots, [60, u32be(3)]), /cut short/],
    [
      'a snapshot table beyond the end',
      patched(withSnapshots, [64, u64be(2n ** 40n)]),
      /its snapshot table is not inside the file/,
    ],
    [
      'a snapshot with an L1 table of 2^32 - 1 entries',
      patchedAt(withSnapshots, ({ snapshots }) => [[snapshots + 8, u32be(2 ** 32 - 1)]]),
      /L1 table of a snapshot, of 4294967295 entries, is absurd/,
    ],
    [
      'a snapshot with its L1 table beyond the end',
      patchedAt(withSnapshots, ({ snapshots }) => [[snapshots, u64be(2n ** 50n)]]),
      /the L1 table of a snapshot is not inside the file/,
    ],
    [
      'a snapshot with the L1 table of the disk',
      patchedAt(withSnapshots, ({ snapshots }, bytes) => [[snapshots, bytes.subarray(40, 48)]]),
      /two of its tables lie in the same place/,
    ],
    [
      'a snapshot with 2 GiB of extra data',
      patchedAt(withSnapshots, ({ snapshots }) => [[snapshots + 36, u32be(2 ** 31)]]),
      /2147483648 bytes of extra data in a snapshot/,
    ],
    [
      'a snapshot without what version 3 asks for',
      patchedAt(withSnapshots, ({ snapshots }) => [[snapshots + 36, u32be(8)]]),
      /8 bytes of extra data in a snapshot/,
    ],
    [
      'a snapshot with 1 EiB of memory',
      patchedAt(withSnapshots, ({ snapshots }) => [[snapshots + 40, u64be(2n ** 60n)]]),
      /the memory in a snapshot is larger/,
    ],
    [
      'a snapshot of version 2 with 4 GiB of memory',
      patchedAt(andThen(converted('qcow2', 'compat=0.10'), snapshot('one')), ({ snapshots }) => [
        [snapshots + 36, u32be(0)],
        [snapshots + 32, u32be(2 ** 32 - 1)],
      ]),
      /the memory in a snapshot is larger/,
    ],
    [
      'a snapshot table that ends in the middle of an entry',
      () => {
        withSnapshots()
        cut(() => {}, placesIn(readFileSync(image)).snapshots + 100)()
      },
      /cut short/,
    ],

    ['bitmaps of which there are none', patchedAt(withBitmaps, ({ bitmaps: at }) => [[at, u32be(0)]]), /its 0 bitmaps/],
    ['70000 bitmaps', patchedAt(withBitmaps, ({ bitmaps: at }) => [[at, u32be(70000)]]), /its 70000 bitmaps/],
    [
      'bitmaps with a reserved field',
      patchedAt(withBitmaps, ({ bitmaps: at }) => [[at + 4, u32be(1)]]),
      /its 1 bitmaps/,
    ],
    [
      'a bitmap directory of 1 TiB',
      patchedAt(withBitmaps, ({ bitmaps: at }) => [[at + 8, u64be(2n ** 40n)]]),
      /bitmap directory has an absurd size/,
    ],
    [
      'a bitmap directory beyond the end',
      patchedAt(withBitmaps, ({ bitmaps: at }) => [[at + 16, u64be(2n ** 40n)]]),
      /its bitmap directory is not inside the file/,
    ],
    [
      'a bitmap directory in the refcount table',
      patchedAt(withBitmaps, ({ bitmaps: at }, bytes) => [[at + 16, bytes.subarray(48, 56)]]),
      /two of its tables lie in the same place/,
    ],
    [
      'a bitmaps extension of 4 bytes',
      patchedAt(withBitmaps, ({ bitmaps: at }) => [[at - 4, u32be(4)]]),
      /its bitmaps extension is absurd/,
    ],
    ['the mark of bitmaps, and none', patched(plain, [92, u32be(1)]), /its bitmaps are missing/],

    [
      'an L1 table in the refcount table',
      patchedAt(plain, (_, bytes) => [[40, bytes.subarray(48, 56)]]),
      /two of its tables lie in the same place/,
    ],
    [
      'an encryption header without encryption',
      patched(plain, [112, u32be(0x0537be77)]),
      /encryption header and is not/,
    ],
    [
      'an extension twice',
      patched(plain, [112, u32be(7)], [116, u32be(0)], [120, u32be(7)], [124, u32be(0)]),
      /a header extension twice/,
    ],
    [
      'the name of a data file without its feature',
      patched(plain, [112, u32be(0x44415441)]),
      /its data is in another file/,
    ],
    ['the mark of raw data alone', patched(plain, [92, u32be(2)]), /its data is in another file/],
    [
      'version 2 with the features of version 3',
      patched(converted('qcow2', 'compat=0.10'), [72, u64be(4n)]),
      /the end of its header extensions has a length/,
    ],
    ['version 2 with zstd', patched(converted('qcow2', 'compat=0.10'), [72, u64be(8n)]), /extensions has a length/],
    ['zstd of no type', patched(plain, [76, u32be(8)]), /its compression type 0 is not known/],
  ]
  for (const [what, make, says] of rows)
    test(what, async () => {
      make()
      await assert.rejects(
        examine(image, { format: 'qcow2', ceiling }),
        (error) => error instanceof Problem && error.code === 'IMAGE_REJECTED' && says.test(error.message),
      )
    })

  test('of a hundred snapshots all are read', async () => {
    andThen(plain, ...Array.from({ length: 100 }, (_, i) => snapshot(`number ${i} ${'x'.repeat(i)}`)))()
    assert.deepEqual(await examine(image, { format: 'qcow2', ceiling }), { virtualSize: 3 * M })
  })

  test('bitmaps that are no longer valid are passed over, as qemu does', async () => {
    patchedAt(withBitmaps, ({ bitmaps }) => [
      [92, u32be(0)],
      [bitmaps + 16, u64be(2n ** 40n)],
    ])()
    assert.match(qemuImg('info', image), /3 MiB/)
    assert.deepEqual(await examine(image, { format: 'qcow2', ceiling }), { virtualSize: 3 * M })
  })
})

describe('what is read of an image is bounded', () => {
  before(() => written(Buffer.alloc(4 * M))())
  const rejected = (says: RegExp) => (error: unknown) => error instanceof Problem && says.test(error.message)

  test('at once', () =>
    openImage(image, ({ read }) => assert.throws(() => read(0, M), rejected(/structure of 1048576 bytes, which is/))))
  test('in all', () =>
    openImage(image, ({ read }) => {
      let bytes = 0
      const readOn = () => {
        for (;;) bytes += read(bytes, 65536).length
      }
      assert.throws(readOn, rejected(/its structures have more than 1048576 bytes/))
      assert.ok(bytes <= mostInAll && bytes > mostInAll / 2)
    }))
  test('in thousands of snapshots', async () => {
    andThen(plain, snapshot('one'))()
    const bytes = Buffer.concat([readFileSync(image), Buffer.alloc(2 * M)])
    const at = Math.ceil(readFileSync(image).length / 65536) * 65536
    const entry = bytes.subarray(Number(bytes.readBigUInt64BE(64)), Number(bytes.readBigUInt64BE(64)) + 40)
    for (let i = 0; i < 1024; i++) {
      entry.copy(bytes, at + i * 64)
      bytes.fill(0, at + i * 64, at + i * 64 + 16) // without an L1 table
      bytes.writeUInt32BE(16, at + i * 64 + 36)
      bytes.writeUInt16BE(8, at + i * 64 + 12)
    }
    bytes.writeUInt32BE(1024, 60)
    bytes.writeBigUInt64BE(BigInt(at), 64)
    writeFileSync(image, bytes)
    const start = process.cpuUsage()
    await examine(image, { format: 'qcow2', ceiling })
    const { user, system } = process.cpuUsage(start)
    assert.ok(user + system < 200_000, `${user + system} µs`)
  })
  test('it is named as the operator does', async () => {
    await assert.rejects(examine('/dev/zero', { format: 'raw', ceiling, name: 'debian' }), {
      message: 'Cannot use image "debian": it is not a regular file',
    })
  })
})
