import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openSparse } from '../../lib/host/sparse.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-sparse-'))
after(() => rmSync(dir, { recursive: true }))
let count = 0
const fresh = () => join(dir, `f${++count}`)

const block = 65536
const [data, zero] = [() => randomBytes(block), () => Buffer.alloc(block)]
const mixed = Buffer.concat([
  data(),
  zero(),
  ...Array.from({ length: 20 }, () => [data(), data(), zero()]).flat(),
  zero(),
])
const dataBlocks = 41

async function write(path: string, bytes: Buffer, piece: number, stops: number[] = []): Promise<void> {
  let file = await openSparse(path)
  for (const stop of [...stops, bytes.length]) {
    while (file.position < stop) await file.write(bytes.subarray(file.position, Math.min(file.position + piece, stop)))
    await file.settle()
    assert.equal(statSync(path).size, stop)
    await file.close()
    file = await openSparse(path)
    assert.equal(file.position, stop)
  }
  await file.close()
}

for (const [when, piece, stops] of [
  ['in large pieces', 5_000_000, []],
  ['in blocks', block, []],
  ['in odd pieces', 12_345, []],
  ['stopped and resumed at odd places', 99_999, [100, block + 7, 1_048_577, 3_000_000]],
] as const)
  test(`zeros are holes when written ${when}`, async () => {
    const path = fresh()
    await write(path, mixed, piece, [...stops])
    assert.ok(readFileSync(path).equals(mixed))
    assert.equal(statSync(path).blocks * 512, dataBlocks * block)
  })

for (const [what, bytes] of [
  ['nothing', Buffer.alloc(0)],
  ['only zeros', Buffer.alloc(2_500_000)],
  ['one byte', Buffer.from('x')],
  ['zeros, then one byte', Buffer.concat([Buffer.alloc(1_200_000), Buffer.from('x')])],
] as const)
  test(`${what} is written as it is`, async () => {
    const path = fresh()
    await write(path, bytes, 70_000)
    assert.ok(readFileSync(path).equals(bytes))
    assert.ok(statSync(path).blocks * 512 <= block)
  })

test('a buffer may be used again at once', async () => {
  const path = fresh()
  const file = await openSparse(path)
  const buffer = Buffer.alloc(1_500_000)
  for (const byte of [1, 2, 3]) await file.write(buffer.fill(byte))
  await file.settle()
  await file.close()
  const parts = [1, 2, 3].map((byte) => Buffer.alloc(1_500_000, byte))
  assert.ok(readFileSync(path).equals(Buffer.concat(parts)))
})

test('a restart leaves nothing of what was there', async () => {
  const path = fresh()
  writeFileSync(path, data())
  const file = await openSparse(path)
  await file.write(data())
  await file.restart()
  assert.equal(statSync(path).size, 0)
  await file.write(zero())
  await file.write(Buffer.from('end'))
  await file.finish(0o644)
  await file.close()
  assert.ok(readFileSync(path).equals(Buffer.concat([zero(), Buffer.from('end')])))
  assert.equal(statSync(path).mode & 0o777, 0o644)
})

test('a new file is only its owner’s until it is finished', async () => {
  const path = fresh()
  await (await openSparse(path)).close()
  assert.equal(statSync(path).mode & 0o777, 0o600)
})
