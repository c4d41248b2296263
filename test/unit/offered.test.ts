import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { fileAt } from '../../lib/host/files.ts'
import { offeredDisks } from '../../lib/host/offered.ts'
import { contentDigest } from '../../lib/image/content.ts'
import type { OfferedBase } from '../../lib/job/move.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'

// What the source of a move has, by real disks; and what it refuses while the guest still runs.

const M = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-offered-'))
after(() => rmSync(dir, { recursive: true }))
const settings = Settings.parse({ instances: dir, store: `dir:${dir}/store` })
const instance = join(dir, 'web1')
const sha1 = 'a'.repeat(40)
const inBases = (name: string) => join(dir, '_base', name)
const [base, sized, ephemeral] = [inBases(sha1), inBases(`${sha1}_1`), inBases('ephemeral_0_1_linux')]
const digest = `sha256:${'1'.repeat(64)}`
const run = (...argv: string[]) => execFileSync(argv[0] ?? '', argv.slice(1), { stdio: 'pipe', encoding: 'utf8' })
let content: string

const rawFile = (path: string, size: number, text: string) => {
  writeFileSync(path, text.repeat(1000))
  truncateSync(path, size)
}
const overlay = (name: string, on: string, ...options: string[]) =>
  run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', on, ...options, join(instance, name), '64M')
const pin = (pins: Record<string, string>) =>
  writeFileSync(
    join(instance, 'disk.info'),
    JSON.stringify(Object.fromEntries(Object.entries(pins).map(([file, format]) => [join(instance, file), format]))),
  )
/** As old drivers made it: without the format of its base. A reader passes over what it does not know. */
function undeclare(): void {
  const disk = readFileSync(join(instance, 'disk'))
  disk.write('none', disk.indexOf(Buffer.from('e2792aca', 'hex')), 'latin1')
  writeFileSync(join(instance, 'disk'), disk)
}
const record = (path: string, fields: object = {}) => {
  const { size, stamp } = fileAt(path) ?? {}
  const made = { version: 1, size, stamp, id: 'img', digest, format: 'qcow2', ...fields }
  writeFileSync(`${path}.json`, JSON.stringify(made))
}

before(async () => {
  for (const path of [join(dir, '_base'), instance]) mkdirSync(path)
  rawFile(base, 8 * M, 'some data. ')
  content = await contentDigest(base)
})
beforeEach(() => {
  rmSync(instance, { recursive: true })
  mkdirSync(instance)
  for (const path of [`${base}.json`, sized, `${sized}.json`, ephemeral, `${ephemeral}.json`])
    rmSync(path, { force: true })
  copyFileSync(base, sized)
  truncateSync(sized, 32 * M)
  rawFile(ephemeral, 16 * M, 'a file system. ')
  overlay('disk', base)
  pin({ disk: 'qcow2', 'disk.local': 'qcow2', 'disk.swap': 'qcow2' })
})

const offered = (measure: 'need' | 'all' = 'need') => offeredDisks(instance, settings, { measure })
const baseOf = async (measure?: 'need' | 'all'): Promise<OfferedBase> => {
  const [disk] = await offered(measure)
  return disk?.base ?? assert.fail('it stands on nothing')
}

test('each disk is told, with sizes as the guest and as the file system sees them', async () => {
  overlay('disk.local', ephemeral)
  run(
    'qemu-img',
    'create',
    '-q',
    '-u',
    '-f',
    'qcow2',
    '-F',
    'raw',
    '-b',
    '/gone/swap_64',
    join(instance, 'disk.swap'),
    '64M',
  )
  const disks = await offered()
  assert.deepEqual(
    disks.map(({ file, format, virtualSize, base }) => [file, format, virtualSize, base?.name, base?.size]),
    [
      ['disk', 'qcow2', 64 * M, sha1, 8 * M],
      ['disk.local', 'qcow2', 64 * M, 'ephemeral_0_1_linux', 16 * M],
      ['disk.swap', 'qcow2', 64 * M, undefined, undefined],
    ],
  )
  for (const { file, allocated } of disks) assert.equal(allocated, fileAt(join(instance, file))?.allocated)
})

test('a raw disk is told by its file, whatever its guest has written into it', async () => {
  pin({ disk: 'raw' })
  assert.deepEqual(await offered(), [
    {
      file: 'disk',
      format: 'raw',
      virtualSize: fileAt(join(instance, 'disk'))?.size,
      allocated: fileAt(join(instance, 'disk'))?.allocated,
    },
  ])
})

describe('a base is known', () => {
  test('by what cowhand has made it of: nothing is read', async () => {
    record(base)
    assert.deepEqual((await baseOf()).identity, { id: 'img', digest, format: 'qcow2' })
  })
  test('and by its content too, where that is asked for', async () => {
    record(base)
    assert.deepEqual((await baseOf('all')).identity, { id: 'img', digest, format: 'qcow2', content, proven: true })
  })
  test('by the content that is recorded', async () => {
    const recorded = `content-sha256:${'4'.repeat(64)}`
    record(base, { content: { digest: recorded, stamp: fileAt(base)?.stamp, proven: true } })
    assert.deepEqual((await baseOf()).identity, { id: 'img', digest, format: 'qcow2', content: recorded, proven: true })
  })
  test('by its content, where it has no record', async () => assert.deepEqual((await baseOf()).identity, { content }))
  test('by its content, where another tool made it and nobody has proven it', async () => {
    record(base, { adopted: true })
    assert.deepEqual((await baseOf()).identity, { id: 'img', content })
  })
  test('by its content, where its digest can be forged', async () => {
    record(base, { digest: `md5:${'1'.repeat(32)}` })
    assert.equal((await baseOf()).identity.content, content)
  })
  test('by its content, if a program made it', async () => {
    overlay('disk.local', ephemeral)
    const { size, stamp } = fileAt(ephemeral) ?? {}
    writeFileSync(`${ephemeral}.json`, JSON.stringify({ version: 1, size, stamp, deterministic: true }))
    const known = { content: await contentDigest(ephemeral), proven: true, deterministic: true }
    assert.deepEqual((await offered())[1]?.base?.identity, known)
  })
  test('by its content, where it was replaced by the same since', async () => {
    record(base, { stamp: 'another', content: { digest: content, stamp: 'another', proven: true } })
    assert.deepEqual((await baseOf()).identity, { id: 'img', digest, format: 'qcow2', content, proven: true })
  })
})

describe('a larger copy of a base', () => {
  beforeEach(() => overlay('disk', sized))
  const unsized = { name: sha1, size: 8 * M, allocated: () => fileAt(base)?.allocated }
  test('is it and zeros, as the records say: nothing is read', async () => {
    record(base)
    record(sized, { copyOf: base })
    const { identity, unsized: small } = await baseOf()
    assert.deepEqual(identity, { id: 'img', digest, format: 'qcow2' })
    assert.deepEqual(small, { ...unsized, allocated: unsized.allocated(), is: 'equal', identity })
  })
  test('is it and zeros, as both are read', async () => {
    const { identity, unsized: small } = await baseOf()
    assert.deepEqual(identity, { content })
    assert.deepEqual(small, { ...unsized, allocated: unsized.allocated(), is: 'equal', identity: { content } })
  })
  test('is more than it: a file system was grown in it', async () => {
    writeFileSync(sized, 'grown', { flag: 'r+' })
    const { identity, unsized: small } = await baseOf()
    assert.deepEqual([small?.is, small?.identity], ['differs', { content }])
    assert.equal(identity.content, await contentDigest(sized))
    assert.notEqual(identity.content, content)
  })
  test('is it and zeros by its own record, where that is not here', async () => {
    record(sized, { copyOf: base })
    rmSync(base)
    try {
      assert.deepEqual((await baseOf()).unsized, { name: sha1, is: 'equal' })
    } finally {
      rawFile(base, 8 * M, 'some data. ')
    }
  })
  test('is read where there is nothing to compare it with', async () => {
    record(base, { quarantined: { since: 'today', why: 'it is torn' } })
    const { identity, unsized: small } = await baseOf()
    assert.deepEqual([small, identity.content], [{ name: sha1, is: 'unknown' }, content])
  })
  test('is not believed to be of an image that the base is not of', async () => {
    record(base, { digest: `sha256:${'9'.repeat(64)}` })
    record(sized, { copyOf: base })
    assert.equal((await baseOf()).unsized?.is, 'equal') // by their contents
  })
})

describe('it is refused, and nothing is changed, when', () => {
  const patch = (at: number, bytes: number[]) => {
    const disk = readFileSync(join(instance, 'disk'))
    Buffer.from(bytes).copy(disk, at)
    writeFileSync(join(instance, 'disk'), disk)
  }
  const standing =
    (backing: string, ...options: string[]) =>
    () => {
      run('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', ...options, '-b', backing, join(instance, 'disk'), '64M')
    }
  const rows: [when: string, make: () => void, code: Code, says: RegExp][] = [
    ['there is no root disk', () => rmSync(join(instance, 'disk')), 'MISSING_PREREQUISITE', /there is no such disk/],
    ['nobody wrote its format down', () => pin({}), 'UNSUPPORTED', /its format is not known/],
    ['it is pinned as qcow2 and is none', () => rawFile(join(instance, 'disk'), M, 'x'), 'NOT_OURS', /is none/],
    [
      'it is a link',
      () => {
        rmSync(join(instance, 'disk'))
        symlinkSync(base, join(instance, 'disk'))
      },
      'NOT_OURS',
      /symbolic link/,
    ],
    ['its backing file is a relative path', standing(`../_base/${sha1}`, '-F', 'raw'), 'NOT_OURS', /no absolute path/],
    [
      'its backing file is described by json:',
      standing(`json:{"driver":"raw","file":{"driver":"file","filename":"${base}"}}`, '-F', 'raw'),
      'NOT_OURS',
      /json:/,
    ],
    ['its backing file is elsewhere', standing('/etc/shadow', '-F', 'raw'), 'NOT_OURS', /no base in/],
    [
      'its backing file leads out of _base',
      standing(`${dir}/_base/../web1/disk`, '-F', 'raw'),
      'NOT_OURS',
      /no base in/,
    ],
    ['its backing file is of another tree', standing(`/srv/_base/${sha1}`, '-F', 'raw'), 'NOT_OURS', /no base in/],
    ['its backing file is a record', standing(`${base}.json`, '-F', 'raw'), 'NOT_OURS', /no base in/],
    ['its base is missing', standing(inBases('b'.repeat(40)), '-F', 'raw'), 'MISSING_PREREQUISITE', /is missing/],
    ['its base is declared qcow2', standing(base, '-F', 'qcow2'), 'UNSUPPORTED', /is not raw/],
    [
      'its chain is longer',
      () => {
        run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', base, inBases('b'.repeat(40)))
        standing(inBases('b'.repeat(40)), '-F', 'qcow2')()
      },
      'UNSUPPORTED',
      /is not raw/,
    ],
    [
      'its base is a qcow2 that is declared raw',
      () => {
        standing(inBases('b'.repeat(40)), '-F', 'raw')()
      },
      'UNSUPPORTED',
      /is not raw/,
    ],
    [
      'its base has no declared format, and qemu would take it for another',
      () => {
        writeFileSync(sized, 'KDMV'.padEnd(M, '\0'))
        standing(sized, '-F', 'raw')()
        undeclare()
      },
      'IMAGE_REJECTED',
      /its content is vmdk/,
    ],
    [
      'its data is in another file',
      () => run('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `data_file=${dir}/data`, join(instance, 'disk'), '1M'),
      'UNSUPPORTED',
      /another file/,
    ],
    [
      'it is encrypted',
      () =>
        run(
          'qemu-img',
          'create',
          '-q',
          '-f',
          'qcow2',
          '--object',
          'secret,id=s,data=abc',
          '-o',
          'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10',
          join(instance, 'disk'),
          '1M',
        ),
      'UNSUPPORTED',
      /encrypted/,
    ],
    [
      'it has internal snapshots',
      () => run('qemu-img', 'snapshot', '-c', 'one', join(instance, 'disk')),
      'UNSUPPORTED',
      /1 internal snapshots/,
    ],
    ['it was not closed', () => patch(79, [1]), 'UNSUPPORTED', /not closed/],
    ['it is marked as corrupt', () => patch(79, [2]), 'IMAGE_REJECTED', /marked as corrupt/],
    ['its header is torn', () => truncateSync(join(instance, 'disk'), 60), 'IMAGE_REJECTED', /cut short/],
    [
      'its base is in quarantine',
      () => record(base, { quarantined: { since: 'today', why: 'it is torn' } }),
      'BASE_DIFFERS',
      /it is torn/,
    ],
    [
      'its base was written to since',
      () => record(base, { stamp: 'another' }),
      'BASE_DIFFERS',
      /written to or replaced/,
    ],
    ["its base's record is torn", () => writeFileSync(`${base}.json`, '{'), 'BASE_DIFFERS', /cannot be read/],
  ]
  after(() => rmSync(inBases('b'.repeat(40)), { force: true }))
  for (const [when, make, code, says] of rows)
    test(when, async () => {
      make()
      const before = fileAt(base)
      await assert.rejects(offered(), (error) => {
        assert.ok(error instanceof Problem, String(error))
        assert.equal(error.code, code, error.message)
        assert.match(error.message, says)
        assert.ok(error.remedy.length > 0)
        return true
      })
      assert.deepEqual(fileAt(base), before)
    })
})

test('an overlay whose header does not say the format of its base is taken, as old drivers made it', async () => {
  undeclare()
  assert.equal((await baseOf()).name, sha1)
})
