import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, beforeEach, describe, test } from 'node:test'
import { setAsideIn } from '../../lib/host/bases.ts'
import { acquire } from '../../lib/host/locks.ts'
import { Effects } from '../../lib/host/perform.ts'
import { findImage } from '../../lib/image/store.ts'
import { type BaseRecord, readerVersion } from '../../lib/job/base.ts'
import { baseName, locksOf } from '../../lib/job/layout.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import type { StepResult } from '../../lib/job/result.ts'
import { planAll, runAll, Stopped } from '../../lib/job/runner.ts'
import { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { cacheBase, fromImage } from '../../scripts/steps/cache-base.ts'
import { createOverlay } from '../../scripts/steps/create-overlay.ts'
import { extendBase } from '../../scripts/steps/extend-base.ts'
import { importImage } from '../../scripts/steps/import-image.ts'
import { makeSwapBase } from '../../scripts/steps/make-swap-base.ts'
import { verifyBase } from '../../scripts/steps/verify-base.ts'

// Bases that are not what they were, with real files, locks and qemu-img: who notices, and what becomes of them.

const here = mkdtempSync(join(tmpdir(), 'cowhand-bases-'))
after(() => rmSync(here, { recursive: true }))
const MiB = 2 ** 20
const directory = join(here, 'images')

const source = join(here, 'debian.raw')
writeFileSync(source, Buffer.alloc(2 * MiB, 'this is Debian\n'))
truncateSync(source, 8 * MiB)
execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', source, join(here, 'debian.qcow2')])

let round = 0
let settings: Settings
const signal = new AbortController().signal

async function run(...calls: Call[]): Promise<StepResult[]> {
  const effects = new Effects(() => {}, signal, settings)
  const lock = (name: string) => acquire(locksOf(settings.instances), name, { task: 'test', wait: 0, signal })
  const world = {
    settings,
    tell: () => {},
    lock,
    perform: effects.perform.bind(effects),
    flush: effects.flush.bind(effects),
  }
  await planAll(calls, settings)
  return runAll(() => calls, [], world)
}

const actionsOf = (results: StepResult[]): string[] =>
  results.flatMap(({ actions }) => actions.map(({ action }) => action.replaceAll(`${settings.instances}/`, '')))

const bases = () => join(settings.instances, '_base')
const imageCalled = (name: string) => findImage(name, {}, settings)
const baseOf = async (name: string) => join(bases(), await baseName((await imageCalled(name)).id))
const record = (base: string): BaseRecord => JSON.parse(readFileSync(`${base}.json`, 'utf8'))
const rewrite = (base: string, change: Partial<Record<keyof BaseRecord, unknown>>) =>
  writeFileSync(`${base}.json`, JSON.stringify({ ...record(base), ...change }))
const cached = async (name: string, content = false) =>
  call(cacheBase, {
    ...fromImage(await imageCalled(name)),
    base: await baseOf(name),
    content,
    'allow-weak-checksum': false,
  })
const overlay = async (base: string, instance = 'web1') =>
  call(createOverlay, { disk: join(settings.instances, instance, 'disk'), base, size: 16 * MiB })
/** What `create` does of it: the base, and a disk on it. */
const create = async (name: string, instance = 'web1') =>
  actionsOf(await run(await cached(name), await overlay(await baseOf(name), instance)))
const verify = async (base: string) => actionsOf(await run(call(verifyBase, { base })))

async function refused(work: Promise<unknown>, code: Code, says?: RegExp): Promise<Problem> {
  const error = await work.then(
    () => assert.fail('it went through'),
    (thrown) => (thrown instanceof Stopped ? thrown.cause : thrown),
  )
  assert.ok(error instanceof Problem, String(error))
  assert.equal(error.code, code, error.message)
  if (says) assert.match(`${error.message}\n${error.remedy}`, says)
  return error
}

/** Overwrite a few bytes, at the same size. */
function spoil(path: string, at = MiB): void {
  const bytes = readFileSync(path)
  bytes.write('GUEST', at)
  // As an operator's mistake would: into the same file.
  writeFileSync(path, bytes)
}
const restore = (path: string) => execFileSync('cp', ['--sparse=always', source, path])

beforeEach(async () => {
  round += 1
  settings = Settings.parse({ instances: join(here, `instances${round}`), store: `dir:${directory}` })
  if (existsSync(directory)) return
  for (const format of ['qcow2', 'raw'] as const)
    await run(
      call(importImage, {
        file: join(here, `debian.${format}`),
        directory,
        name: format,
        format,
        properties: {},
        'allow-weak-checksum': false,
      } as never),
    )
})

test('a base is recorded with all that is known of it', async () => {
  const image = await imageCalled('qcow2')
  await run(
    call(cacheBase, {
      ...fromImage({ ...image, owner: 'p1', shared: true }),
      base: await baseOf('qcow2'),
      'allow-weak-checksum': false,
    }),
  )
  const { made, stamp, tool, arguments: words, ...rest } = record(await baseOf('qcow2'))
  assert.deepEqual(rest, {
    version: 1,
    id: image.id,
    name: 'qcow2',
    source: image.source,
    owner: 'p1',
    shared: true,
    digest: image.digest,
    format: 'qcow2',
    sourceSize: image.size,
    size: 8 * MiB,
    reader: readerVersion,
  })
  assert.ok(Math.abs(Date.parse(String(made)) - Date.now()) < 60_000, String(made))
  assert.match(`${tool} ${(words as string[]).join(' ')}`, /^qemu-img [\d.]+ qemu-img convert .* -f qcow2 -O raw /)
  assert.match(stamp ?? '', /^8388608\.\d+\.\d+$/)
  assert.deepEqual(await create('qcow2'), [
    'mkdir web1',
    `overlay web1/disk.part (16M) on _base/${basename(await baseOf('qcow2'))}`,
    'publish web1/disk.part web1/disk',
  ])
})

describe('a base that was written to since it was made', () => {
  test('and differs from its image: nothing new stands on it', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    spoil(base)
    await refused(create('qcow2', 'web2'), 'BASE_DIFFERS', /not that of its image.*cache verify [0-9a-f]{40}/s)
    assert.equal(existsSync(join(settings.instances, 'web2')), false)
  })
  test('and differs from its image, whose own bytes it is', async () => {
    await create('raw')
    spoil(await baseOf('raw'))
    await refused(create('raw', 'web2'), 'BASE_DIFFERS', /its digest is sha256:.* and its image's sha256:/)
  })
  test('and differs from what it was when its content was recorded, its image being gone', async () => {
    const [base, call_] = [await baseOf('qcow2'), await cached('qcow2', true)]
    await run(call_)
    const { content } = record(base)
    assert.equal(content?.proven, true)
    spoil(base)
    const gone = { ...(call_.input as object), from: '/nowhere' } as never
    await refused(run(call(cacheBase, gone)), 'BASE_DIFFERS', /not what it was when it was recorded/)
    restore(base)
    assert.deepEqual(actionsOf(await run(call(cacheBase, gone))), [`record _base/${basename(base)}.json`])
    assert.deepEqual(record(base).content, { ...content, stamp: record(base).stamp })
  })
  test('and nothing proves what is in it', async () => {
    const [base, call_] = [await baseOf('qcow2'), await cached('qcow2')]
    await run(call_)
    spoil(base)
    const gone = call(cacheBase, { ...(call_.input as object), from: '/nowhere' } as never)
    await refused(run(gone), 'BASE_DIFFERS', /nothing proves what is in it/)
  })
  for (const name of ['qcow2', 'raw'])
    test(`but holds what its ${name} image holds: it is proven, and that is written down once`, async () => {
      const base = await baseOf(name)
      await create(name)
      spoil(base)
      restore(base)
      assert.equal((await create(name, 'web2'))[0], `record _base/${basename(base)}.json`)
      assert.equal((await create(name, 'web3'))[0], 'mkdir web3')
    })
  test('but was only moved to another file system: it is proven', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    copyFileSync(base, join(here, 'moved'))
    renameSync(join(here, 'moved'), base)
    assert.equal((await create('qcow2', 'web2'))[0], `record _base/${basename(base)}.json`)
  })
  test('and is a made one, which nothing proves', async () => {
    const base = join(bases(), 'swap_16')
    const make = call(makeSwapBase, { base, size: 16 * MiB })
    await run(make)
    spoil(base)
    await refused(run(make), 'BASE_DIFFERS', /nothing proves what is in it/)
  })
  test('and has another size', async () => {
    await create('qcow2')
    appendFileSync(await baseOf('qcow2'), 'x'.repeat(512))
    await refused(create('qcow2', 'web2'), 'BASE_DIFFERS', /it has 8389120 bytes, and was made with 8388608/)
    truncateSync(await baseOf('qcow2'), 4 * MiB)
    await refused(create('qcow2', 'web2'), 'BASE_DIFFERS', /it has 4194304 bytes/)
  })
  test('a disk is not put on it by the step alone either', async () => {
    await create('qcow2')
    spoil(await baseOf('qcow2'))
    await refused(run(await overlay(await baseOf('qcow2'), 'web2')), 'BASE_DIFFERS')
  })
})

describe('a base that is no file of its own', () => {
  test('it has another name (hard link)', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    linkSync(base, join(here, 'another-name'))
    await refused(create('qcow2', 'web2'), 'NOT_OURS', /hard link.*find .* -samefile/s)
    await refused(verify(base), 'NOT_OURS')
    rmSync(join(here, 'another-name'))
    await create('qcow2', 'web2')
  })
  test('it is a symbolic link', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    renameSync(base, join(here, 'elsewhere'))
    symlinkSync(join(here, 'elsewhere'), base)
    await refused(create('qcow2', 'web2'), 'NOT_OURS', /symbolic link/)
    await refused(verify(base), 'NOT_OURS')
    assert.ok(existsSync(join(here, 'elsewhere')))
  })
  test('its record is a symbolic link', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    renameSync(`${base}.json`, join(here, 'record.json'))
    symlinkSync(join(here, 'record.json'), `${base}.json`)
    await assert.rejects(create('qcow2', 'web2'))
    await assert.rejects(verify(base))
  })
})

describe('a base of another tool', () => {
  const theirs = async (name = 'qcow2') => {
    mkdirSync(bases(), { recursive: true })
    restore(await baseOf(name))
    return baseOf(name)
  }
  test('is examined and taken over; what is in it is not vouched for', async () => {
    const base = await theirs()
    const name = basename(base)
    const why = 'made by another tool: cowhand cache verify looks for a proof of it'
    assert.deepEqual((await create('qcow2')).slice(0, 2), [
      `examine _base/${name} (raw)`,
      `record _base/${name}.json (${why})`,
    ])
    const { id, digest, adopted, content, reader } = record(base)
    assert.deepEqual(
      [id, digest, adopted, content, reader],
      [(await imageCalled('qcow2')).id, undefined, true, undefined, readerVersion],
    )
  })
  for (const name of ['qcow2', 'raw'])
    test(`is proven by its ${name} image`, async () => {
      const base = await theirs(name)
      assert.deepEqual(await verify(base), [`record _base/${basename(base)}.json (proven)`])
      const { id, digest, content } = record(base)
      const image = await imageCalled(name)
      assert.deepEqual([id, digest, content?.proven], [image.id, image.digest, true])
      assert.deepEqual(await verify(base), [])
    })
  test('is proven after it was taken over', async () => {
    const base = await theirs()
    await create('qcow2')
    assert.deepEqual(await verify(base), [`record _base/${basename(base)}.json (proven)`])
  })
  test('differs from its image', async () => {
    const base = await theirs()
    await create('qcow2')
    spoil(base)
    await refused(verify(base), 'BASE_DIFFERS', /not that of its image/)
  })
  test('is a qcow2: it is not taken over', async () => {
    mkdirSync(bases(), { recursive: true })
    copyFileSync(join(here, 'debian.qcow2'), await baseOf('qcow2'))
    await refused(run(await cached('qcow2')), 'IMAGE_REJECTED', /_base\/[0-9a-f]{40}": .* its content is qcow2/)
    await refused(create('qcow2'), 'UNSUPPORTED')
  })
  test('is a qcow2: verify leaves it as it is', async () => {
    mkdirSync(bases(), { recursive: true })
    const base = await baseOf('qcow2')
    copyFileSync(join(here, 'debian.qcow2'), base)
    await refused(verify(base), 'UNSUPPORTED', /its content is qcow2/)
    assert.deepEqual(readdirSync(bases()), [basename(base)])
  })
  test('in the size of a disk has a grown file system: it is recorded, not proven', async () => {
    await theirs()
    const sized = `${await baseOf('qcow2')}_1`
    restore(sized)
    truncateSync(sized, 1024 * MiB)
    spoil(sized, 100)
    assert.match((await verify(sized)).join(), /recorded, not proven/)
    assert.deepEqual(await verify(sized), [])
  })
  test('in the size of a disk is a plain copy: it is proven', async () => {
    await theirs()
    const sized = `${await baseOf('qcow2')}_1`
    restore(sized)
    truncateSync(sized, 1024 * MiB)
    assert.match((await verify(sized)).join(), /\(proven\)/)
  })
  test('of a made disk is taken over as it is', async () => {
    const base = join(bases(), 'swap_16')
    mkdirSync(bases(), { recursive: true })
    writeFileSync(base, Buffer.alloc(16 * MiB))
    assert.match(
      actionsOf(await run(call(makeSwapBase, { base, size: 16 * MiB }))).join(),
      /^record _base\/swap_16.json/,
    )
    assert.equal(record(base).adopted, true)
  })
})

test('a base that an older version examined is examined again, once', async () => {
  const base = await baseOf('qcow2')
  await create('qcow2')
  rewrite(base, { reader: readerVersion - 1 })
  const name = basename(base)
  assert.deepEqual((await create('qcow2', 'web2')).slice(0, 2), [
    `examine _base/${name} (raw)`,
    `record _base/${name}.json`,
  ])
  assert.equal(record(base).reader, readerVersion)
  assert.equal((await create('qcow2', 'web3'))[0], 'mkdir web3')
})

test('a base that our reader rejects now is quarantined', async () => {
  const base = await baseOf('raw')
  const image = await imageCalled('qcow2')
  mkdirSync(bases(), { recursive: true })
  // An older version, say, had let this pass: raw by its record, a qcow2 by its bytes.
  copyFileSync(image.source, base)
  writeFileSync(`${base}.json`, JSON.stringify({ version: 1, id: 'x', format: 'raw', digest: image.digest, reader: 0 }))
  const { size, mtimeNs, ino } = statSync(base, { bigint: true })
  rewrite(base, { size: Number(size), stamp: [size, mtimeNs, ino].join('.') })
  await refused(verify(base), 'BASE_DIFFERS', /its content is qcow2.*set aside/s)
})

describe('verify', () => {
  test('proves a base by its image, once; then by what it found', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    assert.deepEqual(await verify(base), [`record _base/${basename(base)}.json (proven)`])
    const { content, stamp } = record(base)
    assert.equal(content?.stamp, stamp)
    assert.equal(content?.proven, true)
    assert.deepEqual(await verify(base), [])
    rmSync(`${directory}/qcow2.json`)
    assert.deepEqual(await verify(base), [])
    rmSync(directory, { recursive: true })
  })

  test('a made base has nothing to be compared with: it is recorded as it is, and compared with that', async () => {
    const base = join(bases(), 'swap_16')
    await run(call(makeSwapBase, { base, size: 16 * MiB }))
    assert.match((await verify(base)).join(), /recorded, not proven/)
    assert.equal(record(base).content?.proven, undefined)
    assert.deepEqual(await verify(base), [])
    spoil(base)
    await refused(
      verify(base),
      'BASE_DIFFERS',
      /not what it was when it was recorded; nothing stands on it.*set aside/s,
    )
  })

  test('a difference that nobody stands on is set aside, and the next create makes the base anew', async () => {
    const base = await baseOf('qcow2')
    await run(await cached('qcow2'))
    spoil(base)
    const { remedy } = await refused(verify(base), 'BASE_DIFFERS', /nothing stands on it, and it was set aside/)
    assert.match(remedy, /rm .*\.quarantined/)
    const name = basename(base)
    assert.deepEqual(readdirSync(bases()), [`${name}.quarantined`, `${name}.quarantined.json`])
    assert.match(readFileSync(`${base}.quarantined`, 'latin1').slice(MiB), /^GUEST/)
    assert.deepEqual(await verify(base), [])
    await create('qcow2')
    assert.deepEqual(await verify(base), [`record _base/${name}.json (proven)`])
  })

  test('one that was being set aside when that was cut off: it is ended', async () => {
    const base = await baseOf('qcow2')
    await run(await cached('qcow2'))
    rewrite(base, { quarantined: { since: 'then', why: 'it differs' } })
    renameSync(base, `${base}.quarantined`)
    assert.deepEqual(setAsideIn(bases()), { whole: [], half: [basename(base)] })
    await refused(verify(base), 'BASE_DIFFERS', /it differs; nothing stands on it, and it was set aside/)
    assert.deepEqual(setAsideIn(bases()), { whole: [basename(base)], half: [] })
    assert.equal(JSON.parse(readFileSync(`${base}.quarantined.json`, 'utf8')).quarantined.why, 'it differs')
    assert.deepEqual(await verify(base), [])
  })

  test('a second difference is not set aside over the first', async () => {
    const base = await baseOf('qcow2')
    await run(await cached('qcow2'))
    writeFileSync(`${base}.quarantined`, 'the first')
    spoil(base)
    await refused(verify(base), 'BASE_DIFFERS', /nothing stands on it, but .*quarantined is there already.*rm /s)
    assert.equal(readFileSync(`${base}.quarantined`, 'utf8'), 'the first')
    assert.ok(record(base).quarantined)
    rmSync(`${base}.quarantined`)
    await refused(verify(base), 'BASE_DIFFERS', /set aside as/)
  })

  test('a difference that instances stand on stays, is told each time, and nothing new stands on it', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2', 'web1')
    await create('qcow2', 'web2')
    spoil(base)
    const before = statSync(base)
    await refused(verify(base), 'BASE_DIFFERS', /not that of its image.*; on it stand web1, web2\n/)
    const { quarantined, stamp } = record(base)
    assert.match(quarantined?.why ?? '', /not that of its image/)
    assert.notEqual(stamp, [before.size, before.mtimeMs, before.ino].join('.'))
    await refused(verify(base), 'BASE_DIFFERS', /on it stand web1, web2\n/)
    assert.deepEqual(record(base).quarantined, quarantined)
    assert.equal(statSync(base).ino, before.ino)
    await refused(create('qcow2', 'web3'), 'BASE_DIFFERS')
    await refused(run(await overlay(base, 'web3')), 'BASE_DIFFERS')
    // Put back, it is as good as before.
    restore(base)
    await refused(create('qcow2', 'web3'), 'BASE_DIFFERS')
    assert.deepEqual(await verify(base), [`record _base/${basename(base)}.json (it is right again)`])
    assert.equal(record(base).quarantined, undefined)
    assert.equal((await create('qcow2', 'web3'))[0], 'mkdir web3')
  })

  test('once its last instance is gone, a quarantined base is set aside', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    spoil(base)
    await refused(verify(base), 'BASE_DIFFERS', /on it stand/)
    rmSync(join(settings.instances, 'web1'), { recursive: true })
    await refused(verify(base), 'BASE_DIFFERS', /set aside as/)
    await create('qcow2')
  })

  test('a base of another size is known by it when it is put back', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    truncateSync(base, 4 * MiB)
    await refused(verify(base), 'BASE_DIFFERS', /it has 4194304 bytes, and was made with 8388608; on it stand web1/)
    assert.equal(record(base).size, 8 * MiB)
    restore(base)
    assert.match((await verify(base)).join(), /it is right again/)
  })

  test('one that was written to, and nothing proves: told each time while somebody stands on it', async () => {
    const base = join(bases(), 'swap_16')
    await run(call(makeSwapBase, { base, size: 16 * MiB }), await overlay(base))
    spoil(base)
    await refused(verify(base), 'BASE_DIFFERS', /nothing proves what is in it; on it stand web1\n/)
    assert.equal(record(base).content, undefined)
    await refused(verify(base), 'BASE_DIFFERS', /nothing proves what is in it; on it stand web1\n/)
    rmSync(join(settings.instances, 'web1'), { recursive: true })
    await refused(verify(base), 'BASE_DIFFERS', /set aside/)
  })

  test('what could be an overlay on it and cannot be read counts', async () => {
    const base = await baseOf('qcow2')
    await run(await cached('qcow2'))
    mkdirSync(join(settings.instances, 'web1'))
    const bytes = readFileSync(join(here, 'debian.qcow2'))
    bytes.writeBigUInt64BE(2n ** 40n, 8) // the name of its backing file is said to be far outside
    bytes.writeUInt32BE(100, 16)
    writeFileSync(join(settings.instances, 'web1', 'disk'), bytes)
    spoil(base)
    await refused(verify(base), 'BASE_DIFFERS', /who stands on it cannot be told: .*web1\/disk/)
    assert.ok(existsSync(base))
  })

  test('a record that is lost: the base is proven, and recorded again', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    rmSync(`${base}.json`)
    assert.match((await verify(base)).join(), /proven/)
    assert.equal(record(base).id, (await imageCalled('qcow2')).id)
  })

  for (const [what, text] of Object.entries({ torn: '{"version": 1, "id', 'of another kind': '{"version": 2}' }))
    test(`a record that is ${what}: create refuses, verify proves the base and keeps what was there`, async () => {
      const base = await baseOf('qcow2')
      await create('qcow2')
      writeFileSync(`${base}.json`, text)
      await refused(create('qcow2', 'web2'), 'BASE_DIFFERS', /its record .* cannot be read.*cache verify/s)
      const name = basename(base)
      assert.deepEqual(await verify(base), [
        `set-aside _base/${name}.json _base/${name}.json.quarantined (it cannot be read)`,
        `record _base/${name}.json (proven)`,
      ])
      assert.equal(readFileSync(`${base}.json.quarantined`, 'utf8'), text)
      assert.equal((await create('qcow2', 'web2'))[0], 'mkdir web2')
    })

  test('an image that was replaced behind our back proves nothing', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    const file = `${directory}/qcow2.qcow2`
    const kept = readFileSync(file)
    writeFileSync(file, Buffer.from(kept).fill('x', 300_000, 300_100))
    assert.match((await verify(base)).join(), /recorded, not proven/)
    writeFileSync(file, kept)
    assert.match((await verify(base)).join(), /\(proven\)/)
  })

  test('a base that is gone is no matter', async () => assert.deepEqual(await verify(join(bases(), 'swap_16')), []))

  test('bytes that a touch hides are found', async () => {
    const base = await baseOf('qcow2')
    await create('qcow2')
    const { atime, mtime } = statSync(base)
    spoil(base)
    utimesSync(base, atime, mtime)
    await refused(verify(base), 'BASE_DIFFERS', /not that of its image/)
  })
})

describe('a larger copy of a base', () => {
  const sizedOf = async () => `${await baseOf('qcow2')}_1`
  const extend = async () => call(extendBase, { base: await baseOf('qcow2'), sized: await sizedOf(), size: 1024 * MiB })

  test('is recorded as what it is a copy of', async () => {
    await run(await cached('qcow2'), await extend())
    const [base, sized] = [await baseOf('qcow2'), await sizedOf()]
    const { id, name, digest, copyOf, size, adopted } = record(sized)
    const original = record(base)
    assert.deepEqual(
      [id, name, digest, copyOf, size, adopted],
      [original.id, 'qcow2', original.digest, base, 1024 * MiB, undefined],
    )
    assert.deepEqual(actionsOf(await run(await extend())), [])
  })
  test('is proven by the image of its original', async () => {
    await run(await cached('qcow2'), await extend())
    assert.match((await verify(await sizedOf())).join(), /\(proven\)/)
    assert.deepEqual(await verify(await sizedOf()), [])
    spoil(await sizedOf())
    await refused(run(await extend()), 'BASE_DIFFERS')
    await refused(verify(await sizedOf()), 'BASE_DIFFERS', /set aside/)
    await run(await extend())
  })
  test('is proven by its original, whose image is gone', async () => {
    await run(await cached('qcow2', true), await extend())
    const before = settings
    settings = { ...settings, store: `dir:${here}/nothing` }
    const sized = `${join(before.instances, '_base')}/${readdirSync(join(before.instances, '_base')).find((name) => name.endsWith('_1'))}`
    assert.match((await verify(sized)).join(), /\(proven\)/)
    spoil(sized)
    await refused(verify(sized), 'BASE_DIFFERS')
  })
  test('is not made of a base that something wrote to', async () => {
    await run(await cached('qcow2'))
    spoil(await baseOf('qcow2'))
    await refused(run(await extend()), 'BASE_DIFFERS')
  })
})
