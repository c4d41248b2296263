// Headers of every format, mutated: the reader answers in bounded time, from bounded bytes, by nothing but a rejection;
// and what it takes, the real qemu-img either reads the same way or rejects itself.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { examine } from '../../lib/image/examine.ts'
import { mostInAll } from '../../lib/image/file.ts'
import { Problem } from '../../lib/job/problem.ts'
import type { Format } from '../../lib/job/spec.ts'
import { andThen, ceiling, converted, created, image, M, type Make, patched, reseal, source, u64be } from './images.ts'

/** Another seed finds other things: FUZZ_SEED=1 FUZZ_RUNS=100000 npx tsx --test test/unit/fuzz.test.ts */
const seed = Number(process.env['FUZZ_SEED'] ?? 1)
const numRuns = Number(process.env['FUZZ_RUNS'] ?? 2000)
/** Of so many that we accept, one is shown to the real qemu-img. */
const compareEvery = Number(process.env['FUZZ_COMPARE'] ?? 4)
const base = 'base-of-a-delta'

type Field = [at: number, width: 1 | 2 | 4 | 8]
/** An image to begin with, and where its numbers are; from the end where negative. */
interface Sample {
  what: string
  make: Make
  fields: Field[]
  littleEndian?: boolean
}
const wide = (...places: number[]) => places.map((at): Field => [at, 8])
const narrow = (...places: number[]) => places.map((at): Field => [at, 4])

const qcow2Fields: Field[] = [
  ...narrow(0, 4, 16, 20, 32, 36, 56, 60, 72, 76, 80, 84, 88, 92, 96, 100, 112, 116, 120, 124, 136, 140),
  ...wide(8, 24, 40, 48, 64),
  [104, 1],
]
const vmdkFields: Field[] = [...narrow(0, 4, 8, 44), ...wide(12, 20, 28, 36, 48, 56, 64), [73, 1], [77, 2]]
const vpcFooter = [
  ...narrow(8, 12, 60, 64),
  ...wide(0, 16, 40, 48),
  ...([
    [28, 4],
    [56, 2],
    [58, 1],
    [59, 1],
  ] as Field[]),
]
const fromEnd = (fields: Field[]) => fields.map(([at, width]): Field => [at - 512, width])
const twice = (fields: Field[]) => [...fields, ...fromEnd(fields)]

const samples: Sample[] = [
  { what: 'qcow2', make: converted('qcow2'), fields: qcow2Fields },
  { what: 'qcow2 version 2', make: converted('qcow2', 'compat=0.10'), fields: qcow2Fields },
  { what: 'qcow2 of small clusters', make: converted('qcow2', 'cluster_size=512'), fields: qcow2Fields },
  {
    what: 'qcow2 with snapshot and bitmap',
    make: andThen(
      converted('qcow2', 'extended_l2=on'),
      ['qemu-img', 'snapshot', '-q', '-c', 'one', 'FILE'],
      ['qemu-img', 'bitmap', '-f', 'qcow2', '--add', 'FILE', 'two'],
    ),
    fields: [...qcow2Fields, ...narrow(144, 148), ...wide(152, 160)],
  },
  {
    what: 'delta',
    make: patched(
      created('qcow2', '-F', 'raw', '-b', source, 'FILE'),
      [8, u64be(0x200n)],
      [16, Buffer.from([0, 0, 0, base.length])],
      [0x200, base],
    ),
    fields: qcow2Fields,
  },
  { what: 'vmdk', make: converted('vmdk'), fields: vmdkFields, littleEndian: true },
  { what: 'vmdk stream', make: converted('vmdk', 'subformat=streamOptimized'), fields: vmdkFields, littleEndian: true },
  {
    what: 'vdi',
    make: converted('vdi'),
    fields: [...narrow(0x40, 0x44, 0x48, 0x4c, 0x154, 0x158, 0x168, 0x178, 0x17c, 0x180, 0x184), ...wide(0x170, 0x1a8)],
    littleEndian: true,
  },
  { what: 'vpc', make: converted('vpc'), fields: [...twice(vpcFooter), ...narrow(540, 544), ...wide(512, 528, 552)] },
  { what: 'vpc fixed', make: converted('vpc', 'subformat=fixed'), fields: fromEnd(vpcFooter) },
  {
    what: 'vhdx',
    make: created('vhdx', 'FILE', '40G'),
    fields: [
      ...narrow(0x30008, 0x30028, 0x30048, 0x300030, 0x300034, 0x300050, 0x310000, 0x310004, 0x310020, 0x310024),
      ...wide(0, 0x10008, 0x10030, 0x10048, 0x20008, 0x20030, 0x20040, 0x30010, 0x30020, 0x30030, 0x30040, 0x310008),
      [0x30000a, 2],
    ],
    littleEndian: true,
  },
  {
    what: 'raw',
    make: patched(converted('raw'), [510, 'U\xaa'], [512, 'EFI PART'], [0x8001, 'CD001']),
    fields: [[0, 8]],
  },
]

/** Its bytes, as those blocks of them that are not zero: so it is quickly written again, for each run. */
const block = 4096
interface Kept {
  size: number
  blocks: [at: number, bytes: Buffer][]
}
const kept: Kept[] = []
let fd = -1
before(() => {
  for (const { make } of samples) {
    make()
    const bytes = readFileSync(image)
    const blocks: Kept['blocks'] = []
    for (let at = 0; at < bytes.length; at += block) {
      const part = Buffer.from(bytes.subarray(at, at + block))
      if (part.some((byte) => byte !== 0)) blocks.push([at, part])
    }
    kept.push({ size: bytes.length, blocks })
  }
  fd = openSync(image, 'r+')
})
after(() => closeSync(fd))

const edges = [0n, 1n, 2n, 9n, 21n, 104n, 512n, 0x1000n, 0x10000n, 0x10001n, 2n ** 20n, 2n ** 31n, 2n ** 32n - 1n]
const beyond = [2n ** 40n, 2n ** 55n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 512n]
const value = fc.oneof(fc.constantFrom(...edges, ...beyond), fc.bigInt({ min: 0n, max: 2n ** 22n }))
const edit = fc.oneof(
  { weight: 5, arbitrary: fc.record({ field: fc.nat(), value }) },
  // Anywhere in the header, and in what follows it: names, descriptors, extensions.
  { weight: 2, arbitrary: fc.record({ at: fc.nat(2047), byte: fc.nat(255) }) },
)
const mutation = fc.record({
  sample: fc.nat(samples.length - 1),
  edits: fc.array(edit, { maxLength: 4 }),
  cut: fc.option(fc.nat(1_000_000), { freq: 8 }),
  splice: fc.option(fc.record({ sample: fc.nat(samples.length - 1), atEnd: fc.boolean() }), { freq: 8 }),
  sealed: fc.boolean(),
})
type Mutation = typeof mutation extends fc.Arbitrary<infer T> ? T : never

/** Write the mutated image. */
function write({ sample, edits, cut, splice, sealed }: Mutation): void {
  const { fields, littleEndian } = samples[sample] as Sample
  const { size, blocks } = kept[sample] as Kept
  ftruncateSync(fd, 0)
  ftruncateSync(fd, size)
  for (const [at, bytes] of blocks) writeSync(fd, bytes, 0, bytes.length, at)
  for (const change of edits) {
    if ('at' in change) {
      writeSync(fd, Buffer.from([change.byte]), 0, 1, change.at)
      continue
    }
    const [at, width] = fields[change.field % fields.length] as Field
    const bytes = u64be(BigInt.asUintN(8 * width, change.value)).subarray(8 - width)
    writeSync(fd, littleEndian ? bytes.reverse() : bytes, 0, width, at < 0 ? size + at : at)
  }
  if (splice) {
    const other = kept[splice.sample] as Kept
    const [at, bytes] = (splice.atEnd ? other.blocks.at(-1) : other.blocks[0]) ?? [0, Buffer.alloc(0)]
    const part = splice.atEnd && at + bytes.length === other.size ? bytes.subarray(-512) : bytes.subarray(0, 512)
    writeSync(fd, part, 0, part.length, splice.atEnd ? Math.max(0, size - part.length) : 0)
  }
  const { what } = samples[sample] as Sample
  if (sealed && what.startsWith('vpc')) reseal('vpc', image)
  if (sealed && what.startsWith('vhdx')) reseal('vhdx', image)
  if (cut !== null) ftruncateSync(fd, cut % size)
}

/** Bytes that this process has read, files and all. */
const bytesRead = (): number => Number(/rchar: (\d+)/.exec(readFileSync('/proc/self/io', 'utf8'))?.[1])

/** As the real qemu-img sees it; undefined where it does not take it. */
function theirView(format: Format | undefined) {
  const args = ['info', '--output=json', ...(format ? ['-f', format] : []), image]
  const { status, stdout, stderr } = spawnSync('qemu-img', args, { encoding: 'utf8', timeout: 10_000 })
  assert.ok(status === 0 || status === 1, `qemu-img info ended with ${status}: ${stderr}`)
  return status === 0 ? JSON.parse(stdout) : undefined
}

const formats: Format[] = ['qcow2', 'raw', 'vmdk', 'vdi', 'vhdx', 'vpc']
const declarations = [...formats.map((format) => ({ format })), { format: 'qcow2' as const, backing: base }]

test(`${numRuns} mutated images (seed ${seed})`, async (t) => {
  let accepted = 0
  let compared = 0
  let slowest = 0
  let most = 0
  const property = fc.asyncProperty(mutation, async (mutant) => {
    write(mutant)
    for (const declared of declarations) {
      const [read, start] = [bytesRead(), process.cpuUsage()]
      const answer = await examine(image, { ...declared, ceiling }).catch((error) => {
        assert.ok(error instanceof Problem && error.code === 'IMAGE_REJECTED', String(error?.stack ?? error))
        assert.ok(error.message.startsWith(`Cannot use image "${image}": `) && !/\n|NaN|undefined/.test(error.message))
        return undefined
      })
      const { user, system } = process.cpuUsage(start)
      slowest = Math.max(slowest, user + system)
      most = Math.max(most, bytesRead() - read)
      if (!answer) continue
      accepted++
      assert.ok(answer.virtualSize > 0 && answer.virtualSize <= ceiling && answer.virtualSize % 512 === 0)
      // A process takes 10 ms and more.
      if (accepted % compareEvery > 0) continue
      compared++
      const theirs = theirView(declared.format)
      if (theirs) {
        assert.equal(theirs['virtual-size'], answer.virtualSize)
        assert.equal(theirs['backing-filename'], answer.backing)
        assert.ok([undefined, 'raw'].includes(theirs['backing-filename-format']))
        const { 'data-file': dataFile, extents = [], encrypt } = theirs['format-specific']?.data ?? {}
        assert.deepEqual([dataFile, encrypt, theirs.encrypted], [undefined, undefined, undefined])
        for (const { filename } of extents) assert.equal(filename, image)
      }
      if (declared.format === 'raw') assert.equal(theirView(undefined)?.format, 'raw')
    }
  })
  await fc.assert(property, { seed, numRuns })
  t.diagnostic(`${accepted} accepted, ${compared} compared, slowest ${slowest} µs, most read ${most} bytes`)
  assert.ok(compared > numRuns / 20, 'too few were accepted: this would show nothing')
  assert.ok(slowest < 200_000, `one took ${slowest} µs`)
  assert.ok(most <= mostInAll + M / 16, `of one ${most} bytes were read`)
})
