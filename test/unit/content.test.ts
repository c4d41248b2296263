import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { contentDigest, contentOf } from '../../lib/image/content.ts'
import { Problem } from '../../lib/job/problem.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-content-'))
after(() => rmSync(dir, { recursive: true }))
let count = 0
const fresh = () => join(dir, `${++count}`)
const block = 65536

/** What the digest is defined to be, in the plainest way. */
function byDefinition(bytes: Buffer): string {
  const hash = createHash('sha256')
  for (let index = 0; index * block < bytes.length; index += 1) {
    const padded = Buffer.alloc(block)
    bytes.copy(padded, 0, index * block, (index + 1) * block)
    if (padded.every((byte) => byte === 0)) continue
    const number = Buffer.alloc(8)
    number.writeBigUInt64LE(BigInt(index))
    hash.update(number).update(padded)
  }
  return `content-sha256:${hash.digest('hex')}`
}

/** A sparse file with these bytes in these places. */
function sparse(size: number, pieces: [at: number, bytes: Buffer][]): string {
  const path = fresh()
  const fd = openSync(path, 'w')
  ftruncateSync(fd, size)
  for (const [at, bytes] of pieces) writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
  return path
}

const some = randomBytes(3 * block + 100)
const files: Record<string, () => string> = {
  'an empty file': () => sparse(0, []),
  'one byte': () => sparse(1, [[0, Buffer.from('x')]]),
  'nothing but a hole': () => sparse(50 * block, []),
  'zeros that are written': () => sparse(5 * block, [[0, Buffer.alloc(5 * block)]]),
  'whole blocks': () => sparse(3 * block, [[0, some.subarray(0, 3 * block)]]),
  'an end in the middle of a block': () => sparse(some.length, [[0, some]]),
  'data behind a hole, not at a block': () => sparse(100 * block, [[70 * block + 4096, some]]),
  'data in many places': () =>
    sparse(
      400 * block,
      Array.from({ length: 40 }, (_, index) => [index * 10 * block + index * 512, some.subarray(0, 5000 + index * 3)]),
    ),
  'data across the parts that it is read in': () => sparse(80 * block, [[20 * block, randomBytes(50 * block)]]),
  'a hole at the end of a block with data at its end': () => sparse(2 * block, [[block - 1, Buffer.from('x')]]),
}
describe('the digest is as it is defined', () => {
  for (const [what, make] of Object.entries(files))
    test(what, async () => {
      const path = make()
      assert.equal(await contentDigest(path), byDefinition(readFileSync(path)))
    })
})

describe('the digest depends on what a guest sees, and on nothing else', () => {
  const original = sparse(100 * block, [[70 * block + 4096, some]])
  const same: Record<string, (path: string) => void> = {
    'holes that are filled with zeros': (path) => copyFileSync(original, path),
    'a sparse copy': (path) => void execFileSync('cp', ['--sparse=always', original, path]),
    'zeros behind its end': (path) => {
      copyFileSync(original, path)
      truncateSync(path, 500 * block + 512)
    },
    'without the zeros at its end': (path) => {
      copyFileSync(original, path)
      truncateSync(path, 70 * block + 4096 + some.length)
    },
  }
  for (const [what, copy] of Object.entries(same))
    test(`the same: ${what}`, async () => {
      const path = fresh()
      copy(path)
      assert.equal(await contentDigest(path), await contentDigest(original))
    })

  const others: Record<string, [at: number, byte: number]> = {
    'a bit that is flipped': [70 * block + 5000, (some[5000 - 4096] ?? 0) ^ 1],
    'a byte in a hole': [20 * block, 1],
    'a byte at the end of a hole': [70 * block - 1, 1],
    'a byte at the very end': [100 * block - 1, 1],
  }
  for (const [what, [at, byte]] of Object.entries(others))
    test(`another: ${what}`, async () => {
      const path = fresh()
      execFileSync('cp', ['--sparse=always', original, path])
      const fd = openSync(path, 'r+')
      writeSync(fd, Buffer.from([byte]), 0, 1, at)
      closeSync(fd)
      assert.notEqual(await contentDigest(path), await contentDigest(original))
    })

  test('another: the same bytes one block further', async () => {
    const moved = sparse(100 * block, [[71 * block + 4096, some]])
    assert.notEqual(await contentDigest(moved), await contentDigest(original))
  })
})

test('holes are not read: a base of 1 TiB with a little data takes a moment', async () => {
  const path = sparse(2 ** 40, [[2 ** 39, some]])
  const told: number[] = []
  const started = performance.now()
  await contentDigest(path, { onProgress: (done) => told.push(done) })
  assert.ok(performance.now() - started < 5000, `${performance.now() - started} ms`)
  assert.ok((told.at(-1) ?? 0) < 2 ** 20, `${told.at(-1)} bytes were read`)
})

test('an abort in the middle ends it with the reason', async () => {
  const path = sparse(64 * 2 ** 20, [[0, Buffer.alloc(64 * 2 ** 20, 'x')]])
  const reason = new Error('enough')
  const abort = new AbortController()
  const onProgress = () => abort.abort(reason)
  await assert.rejects(contentDigest(path, { signal: abort.signal, onProgress }), reason)
  await assert.rejects(contentDigest(path, { signal: AbortSignal.abort(reason) }), reason)
})

test('a link and a FIFO are not read', async () => {
  const [link, fifo] = [fresh(), fresh()]
  symlinkSync(sparse(block, []), link)
  execFileSync('mkfifo', [fifo])
  await assert.rejects(contentDigest(link))
  await assert.rejects(contentDigest(fifo), (error) => error instanceof Problem && error.code === 'NOT_OURS')
})

test('it is known once it was read, until the file is written to', async () => {
  const path = sparse(4 * block, [[block, some.subarray(0, block)]])
  const first = await contentOf(path)
  assert.equal(await contentOf(path), first)
  const { size } = statSync(path)
  writeFileSync(path, Buffer.alloc(size, 'y'))
  assert.notEqual(await contentOf(path), first)
})
