import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { fileAt } from '../../lib/host/files.ts'
import { findBaseOf, rebase } from '../../lib/image/delta.ts'
import type { Image } from '../../lib/image/image.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import { baseName } from '../../lib/job/layout.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'

// What a delta shows a guest has to be the same before and after its header names our own base.

const MiB = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-delta-'))
const [base, delta, truth] = [join(dir, 'base'), join(dir, 'delta'), join(dir, 'truth')]
after(() => rmSync(dir, { recursive: true }))

const qemuImg = (...args: string[]): string => execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' })
const write = (path: string, at: number, bytes: Buffer) => {
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
}

/** The base, and a delta on it with a guest's writing in it; `truth` is what its guest saw. */
function makeDelta(options: { size?: string; create?: string[]; named?: string }): void {
  const { size = '16M', create = [], named = 'b'.repeat(40) } = options
  rmSync(delta, { force: true })
  qemuImg('create', '-q', '-f', 'qcow2', ...create, '-F', 'raw', '-b', base, delta, size)
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 0x77 1M 300k', '-c', 'write -z 3M 1M', delta])
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', delta, truth)
  qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', named, delta)
}

const same = (): void => void qemuImg('compare', '-f', 'qcow2', '-F', 'raw', delta, truth)
const info = () => JSON.parse(qemuImg('info', '--output=json', '-f', 'qcow2', delta))
const codeOf = (work: () => void): Code => {
  try {
    work()
  } catch (error) {
    if (error instanceof Problem) return error.code
    throw error
  }
  return assert.fail('it was not refused')
}

beforeEach(() => {
  const bytes = Buffer.alloc(8 * MiB)
  for (let at = 0; at < bytes.length; at += 4096) bytes.writeUInt32LE(at + 1, at)
  writeFileSync(base, bytes)
})

describe('a delta is put on our own base, and shows the same', () => {
  const rows: [what: string, options: Parameters<typeof makeDelta>[0]][] = [
    ['version 3', {}],
    ['version 2', { create: ['-o', 'compat=0.10'] }],
    ['with clusters of 4 KiB', { create: ['-o', 'cluster_size=4k'] }],
    ['with clusters of 2 MiB', { create: ['-o', 'cluster_size=2M'] }],
    ['with extended L2 entries', { create: ['-o', 'extended_l2=on'] }],
    ['with lazy refcounts', { create: ['-o', 'lazy_refcounts=on'] }],
    ['that was made by the old driver', { named: `/var/lib/nova/instances/_base/${'b'.repeat(40)}` }],
    ['that stood on a larger copy', { named: `/var/lib/nova/instances/_base/${'b'.repeat(40)}_16` }],
    ['as large as its base', { size: '8M' }],
  ]
  for (const [what, options] of rows)
    test(what, () => {
      makeDelta(options)
      const before = info()
      rebase(delta, base, 16 * MiB, 'snap')
      same()
      qemuImg('check', '-q', '-f', 'qcow2', delta)
      const now = info()
      assert.deepEqual([now['backing-filename'], now['backing-filename-format']], [base, 'raw'])
      assert.deepEqual(now['format-specific'], before['format-specific'])
      assert.equal(readQcow2(delta)?.backing, base)
    })

  test('with a bitmap, which it keeps', () => {
    makeDelta({})
    qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', base, delta)
    qemuImg('bitmap', '-f', 'qcow2', '--add', delta, 'backup')
    qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', 'b'.repeat(40), delta)
    rebase(delta, base, 16 * MiB, 'snap')
    assert.equal(info()['format-specific'].data.bitmaps[0].name, 'backup')
    same()
  })
  test('twice is as once', () => {
    makeDelta({})
    rebase(delta, base, 16 * MiB, 'snap')
    const once = readFileSync(delta)
    rebase(delta, base, 16 * MiB, 'snap')
    assert.ok(readFileSync(delta).equals(once))
  })
})

describe('a delta is refused, and stays as it was', () => {
  const rows: [
    when: string,
    options: Parameters<typeof makeDelta>[0],
    size: number,
    code: Code,
    change?: () => void,
  ][] = [
    ['it is larger than the disk', {}, 8 * MiB, 'DISK_TOO_SMALL'],
    ['it is smaller than its base, whose end would show when it grows', { size: '4M' }, 16 * MiB, 'IMAGE_REJECTED'],
    [
      'it stood on a larger copy in which a file system may have been grown',
      { named: `${'b'.repeat(40)}_16` },
      16 * MiB,
      'UNSUPPORTED',
      () => write(base, 1080, Buffer.from([0x53, 0xef])),
    ],
    ['its first cluster has no room for the name', { create: ['-o', 'cluster_size=512'] }, 16 * MiB, 'UNSUPPORTED'],
  ]
  for (const [when, options, size, code, change] of rows)
    test(when, () => {
      makeDelta(options)
      change?.()
      const was = readFileSync(delta)
      const on = options.create?.includes('cluster_size=512')
        ? join(dir, 'd'.repeat(200), 'd'.repeat(200), 'base')
        : base
      if (on !== base) {
        mkdirSync(join(on, '..'), { recursive: true })
        copyFileSync(base, on)
      }
      assert.equal(
        codeOf(() => rebase(delta, on, size, 'snap')),
        code,
      )
      assert.ok(readFileSync(delta).equals(was))
    })
})

describe("the image of a delta's base", () => {
  const store = join(dir, 'images')
  const instances = join(dir, 'instances')
  const settings = Settings.parse({ store: `dir:${store}`, instances })
  const digest = `sha256:${'a'.repeat(64)}`
  const snapshot = (more: object = {}): Image => ({
    id: 'delta',
    name: 'snap',
    source: '/x',
    digest: `sha256:${'d'.repeat(64)}`,
    format: 'qcow2',
    properties: { image_type: 'snapshot', base_image_id_sha1: sha1 },
    ...more,
  })
  let sha1: string
  before(async () => {
    sha1 = await baseName(digest)
  })
  const add = (name: string, properties: object = {}) => {
    mkdirSync(store, { recursive: true })
    writeFileSync(join(store, `${name}.qcow2`), 'x')
    const { stamp } = fileAt(join(store, `${name}.qcow2`)) ?? {}
    const record = { version: 1, name, file: `${name}.qcow2`, digest, format: 'qcow2', size: 1, stamp, properties }
    writeFileSync(join(store, `${name}.json`), JSON.stringify(record))
  }
  const cache = (record: object) => {
    mkdirSync(join(instances, '_base'), { recursive: true })
    copyFileSync(base, join(instances, '_base', sha1))
    writeFileSync(join(instances, '_base', `${sha1}.json`), JSON.stringify({ version: 1, ...record }))
  }
  const find = (image: Image) => findBaseOf(image, join(instances, '_base', sha1), settings)
  const refused = async (image: Image): Promise<[Code, string]> => {
    const problem = await find(image).then(
      () => assert.fail('it was not refused'),
      (error) => error,
    )
    return [problem.code, problem.message]
  }
  beforeEach(() => {
    for (const path of [store, instances]) rmSync(path, { recursive: true, force: true })
  })

  test('is not there, and neither is the base: nothing can be made', async () => {
    assert.deepEqual((await refused(snapshot()))[0], 'IMAGE_NOT_FOUND')
  })
  test('is gone, but the base is in the cache, and its record says of which image', async () => {
    cache({ id: digest })
    assert.equal(await find(snapshot()), undefined)
  })
  for (const [what, record] of [
    ['says nothing of an image', {}],
    ['is that of another image', { id: 'another' }],
  ] as const)
    test(`is gone, and the record of the base ${what}`, async () => {
      cache(record)
      const [code, message] = await refused(snapshot())
      assert.equal(code, 'IMAGE_REJECTED')
      assert.match(message, /nothing proves what its base [0-9a-f]{40} is/)
    })
  test('is a delta itself', async () => {
    add('middle', { image_type: 'snapshot', base_image_id_sha1: 'c'.repeat(40) })
    const [code, message] = await refused(snapshot())
    assert.equal(code, 'IMAGE_REJECTED')
    assert.match(message, /its base "middle" is a delta itself/)
  })
  for (const [when, delta, record, good] of [
    ['belongs to the same project', { owner: 'one' }, { owner: 'one' }, true],
    ['is for every project', { owner: 'one' }, { owner: 'two', shared: true }, true],
    ['belongs to another project', { owner: 'one' }, { owner: 'two' }, false],
    ['belongs to nobody knows whom', { owner: 'one' }, {}, false],
    ['is of a store that knows no projects', {}, {}, true],
  ] as const)
    test(`may${good ? '' : ' not'} be used where the base ${when}`, async () => {
      cache({ id: digest, ...record })
      if (good) assert.equal(await find(snapshot(delta)), undefined)
      else assert.match((await refused(snapshot(delta)))[1], /its base belongs to another project/)
    })
})
