import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { some } from '../crash/some.ts'
import { adopt, baseOn, done, forget, good, inside, type Seen, sameDisk, seen, tree } from './moving.ts'
import { type Pair, type PairHost, startPair } from './pair.ts'

// Disks on every kind of base, moved whole between two hosts without libvirt: what a guest would see is compared, and
// what travelled for it is counted.

const MiB = 2 ** 20
const GiB = 2 ** 30

const scratch = mkdtempSync(join(tmpdir(), 'cowhand-bases-'))
const images = { plain: join(scratch, 'plain.raw'), fs: join(scratch, 'fs.raw') }
/** Of both images, bytes. What cannot be compressed is most of it, so that it shows whether a base has travelled. */
const imageSize = 24 * MiB
let pair: Pair
let a: PairHost
let b: PairHost

before(async () => {
  writeFileSync(images.plain, randomBytes(imageSize))
  mkdirSync(join(scratch, 'files'))
  writeFileSync(join(scratch, 'files/data'), randomBytes(16 * MiB))
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', join(scratch, 'files'), images.fs, `${imageSize / 1024}K`])
  // Another place there, so that every path has to be the destination's own.
  pair = await startPair({
    a: { settings: { libvirt_uri: undefined } },
    b: { instances: '/srv/guests', settings: { libvirt_uri: undefined } },
  })
  a = pair.a
  b = pair.b
})
after(async () => {
  await pair?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

/** Both hosts as they are when nothing was ever done on them. */
function empty(): void {
  for (const host of [a, b])
    for (const place of [host.instances, '/var/lib/cowhand/images', '/var/lib/cowhand'])
      for (const name of entries(host.file(place)))
        if (name !== 'instances') rmSync(join(host.file(place), name), { recursive: true, force: true })
}

const entries = (directory: string): string[] => {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}

type ImageName = keyof typeof images

/** The store's id of an image, and the name of its base. */
async function imageOn(
  host: PairHost,
  name: ImageName,
): Promise<{ image: { id: string; name: string }; base: string }> {
  await done(host, 'image', 'add', images[name], '--name', name)
  const { id } = (await done(host, 'image', 'show', name)) as unknown as { id: string }
  return { image: { id, name }, base: createHash('sha1').update(id).digest('hex') }
}

/** As a guest writes: over what the base has, behind its end, and zeros over something. */
async function write(disk: string, size: number): Promise<void> {
  const words = ['write -P 17 1M 512k', 'write -z 2M 1M', 'write -P 18 3000k 4k', `write -P 19 ${size - MiB} 512k`]
  await good(a, 'qemu-io', '-f', 'qcow2', ...words.flatMap((word) => ['-c', word]), disk)
}

const root = 40 * MiB
const disk = () => inside(a, 'vm', 'disk')

/** What an instance on alpha, called vm, was made of: the image, and the name of its base. */
interface Made {
  image: ImageName
  base: string
}
type Maker = () => Promise<Made>

/** Of cowhand's own. */
const created =
  (more: string[] = [], size = root, env: Record<string, string> = {}): Maker =>
  async () => {
    const { base } = await imageOn(a, 'plain')
    const { code, error } = await a.cowhand(['create', 'vm', '--image', 'plain', '--root', `${size}`, ...more], env)
    assert.equal(code, 0, error?.message)
    await write(disk(), size)
    if (more.includes('--ephemeral'))
      await good(a, 'qemu-io', '-f', 'qcow2', '-c', 'write -P 20 40M 1M', inside(a, 'vm', 'disk.local'))
    return { image: 'plain', base }
  }

/** A disk that stands on nothing. */
const alone =
  (format: 'qcow2' | 'raw'): Maker =>
  async () => {
    const { image, base } = await imageOn(a, 'plain')
    adopt(a, 'vm', { image, root, pins: { disk: format } })
    await good(a, 'qemu-img', 'convert', '-f', 'raw', '-O', format, images.plain, disk())
    await good(a, 'qemu-img', 'resize', '-q', '-f', format, disk(), `${root}`)
    if (format === 'qcow2') await write(disk(), root)
    return { image: 'plain', base }
  }

interface LegacyRow {
  /** A file system was grown in the sized base. */
  grown?: boolean
  /** The unsized base is there no more: Nova removes those that nothing uses. */
  isSizedOnly?: boolean
  onlyXml?: boolean
  ephemeral?: boolean
}

/** As Nova's driver left it: `_base/SHA1`, its copy `SHA1_1` of 1 GiB, the disk on that one; no record of any of it. */
const legacy =
  ({ grown = false, isSizedOnly = false, onlyXml = false, ephemeral = false }: LegacyRow = {}): Maker =>
  async () => {
    const name = grown ? 'fs' : 'plain'
    const { image, base } = await imageOn(a, name)
    const [unsized, sized] = [baseOn(a, base), baseOn(a, `${base}_1`)]
    const local = ephemeral ? ({ ephemeral: GiB, pins: { disk: 'qcow2', 'disk.local': 'qcow2' } } as const) : {}
    adopt(a, 'vm', { image, root: GiB, pins: { disk: 'qcow2' }, onlyXml, ...local })
    mkdirSync(a.file(baseOn(a, '')), { recursive: true })
    copyFileSync(images[name], a.file(unsized))
    await good(a, 'cp', '--sparse=always', unsized, sized)
    await good(a, 'qemu-img', 'resize', '-q', '-f', 'raw', sized, '1G')
    if (grown) {
      await a.run(['e2fsck', '-fp', sized])
      await good(a, 'resize2fs', sized)
    }
    const overlay = (path: string, on: string) =>
      good(a, 'qemu-img', 'create', '-q', '-f', 'qcow2', '-b', on, '-F', 'raw', path, '1G')
    await overlay(disk(), sized)
    await write(disk(), GiB)
    if (ephemeral) {
      // As Nova called it, and with what its mkfs made up there and then.
      const own = baseOn(a, 'ephemeral_1_40d1d2c')
      await good(a, 'truncate', '-s', '1G', own)
      await good(a, 'mkfs.ext4', '-q', '-F', '-L', 'ephemeral0', own)
      await overlay(inside(a, 'vm', 'disk.local'), own)
      await good(a, 'qemu-io', '-f', 'qcow2', '-c', 'write -P 20 40M 1M', inside(a, 'vm', 'disk.local'))
    }
    if (isSizedOnly) rmSync(a.file(unsized))
    return { image: name, base }
  }

/** What beta has in the place of the base. */
type There = (made: Made) => Promise<unknown>
const putBase = (name: string, fill: (path: string) => void): void => {
  const path = b.file(baseOn(b, name))
  mkdirSync(join(path, '..'), { recursive: true })
  fill(path)
}
const there = {
  equal: async (made: Made) => {
    await imageOn(b, made.image)
    await done(b, 'cache', 'prefetch', made.image)
  },
  'only in its store': (made: Made) => imageOn(b, made.image),
  absent: async () => {},
  'absent, and deleted from the store': (made: Made) => done(a, 'image', 'remove', made.image, '--yes'),
  'another one': async ({ base }: Made) => putBase(base, (path) => writeFileSync(path, randomBytes(imageSize))),
  "another tool's": async (made: Made) => putBase(made.base, (path) => copyFileSync(images[made.image], path)),
} satisfies Record<string, There>

interface Row {
  from: string
  make: Maker
  /** Left out: it stays on its host. */
  there?: keyof typeof there
  words: string
  /** What the plan says of the root disk; left out: only that nothing is lost is looked at, not how it goes. */
  says?: RegExp
  /** Name of the base that it stands on afterwards: SHA1 is that of the image; none where it is left out. */
  stands?: RegExp
  /** The base travels too. */
  sendsBase?: boolean
  sizes?: { disk?: number; 'disk.local'?: number; 'disk.swap'?: number }
  more?: (host: PairHost, made: Made) => Promise<void>
}

const ephemeralAndSwap = ['--ephemeral', '64M', '--swap', '16M']
const rows: Row[] = [
  {
    from: 'root, ephemeral, swap',
    make: created(ephemeralAndSwap),
    there: 'equal',
    words: 'migrate vm --to beta --transport ssh',
    says: /is there already, proven by its image's digest/,
    stands: /^SHA1$/,
  },
  {
    from: 'root, ephemeral, swap',
    make: created(ephemeralAndSwap),
    there: 'only in its store',
    words: 'resize vm --to beta --transport rsyncd --root 50M --ephemeral 96M --swap 32M --grow-fs never',
    says: /comes from the image store there/,
    stands: /^SHA1$/,
    sizes: { disk: 50 * MiB, 'disk.local': 96 * MiB, 'disk.swap': 32 * MiB },
  },
  {
    from: 'root',
    make: created(),
    there: 'absent, and deleted from the store',
    words: 'migrate vm --to beta --transport ssh',
    says: /not there, and the image is not in the store/,
    stands: /^SHA1$/,
    sendsBase: true,
    more: async (host, { base }) => {
      // The record came with it: the next instance finds it proven.
      const { stdout } = await host.run(['cat', baseOn(host, `${base}.json`)])
      const record = JSON.parse(stdout)
      assert.deepEqual([record.receivedFrom, record.name, record.adopted], ['alpha', 'plain', undefined])
    },
  },
  {
    from: 'root',
    make: created(),
    there: 'another one',
    words: 'migrate vm --to beta --transport rsyncd',
    says: /another one has its name there/,
    stands: /^(?!SHA1)[0-9a-f]{40}$/,
    sendsBase: true,
  },
  {
    from: 'root',
    make: created(),
    there: "another tool's",
    words: 'migrate vm --to beta --transport ssh',
    says: /is there already, proven by its content/,
    stands: /^SHA1$/,
  },
  {
    from: 'root and ephemeral, merged as asked',
    make: created(ephemeralAndSwap),
    there: 'equal',
    words: 'migrate vm --to beta --transport rsyncd --flatten',
    says: /merged with its base, .* as asked/,
    sendsBase: true,
  },
  {
    from: 'raw root disk',
    make: alone('raw'),
    there: 'absent',
    words: 'resize vm --to beta --transport rsyncd --root 64M',
    says: /it is raw/,
    sendsBase: true,
    sizes: { disk: 64 * MiB },
  },
  {
    from: 'qcow2 without a base',
    make: alone('qcow2'),
    there: 'absent',
    words: 'migrate vm --to beta --transport ssh',
    says: /it stands on no base/,
    sendsBase: true,
  },
  {
    from: "cowhand's own sized base",
    make: created([], GiB, { COWHAND_BASE_LAYOUT: 'sized' }),
    there: 'only in its store',
    words: 'migrate vm --to beta --transport ssh',
    says: /a copy with zeros behind it, comes from the image store there/,
    stands: /^SHA1$/,
  },
  {
    from: 'legacy sized base',
    make: legacy({ ephemeral: true }),
    there: 'equal',
    words: 'migrate vm --to beta --transport rsyncd',
    says: /a copy with zeros behind it, is there already/,
    stands: /^SHA1$/,
  },
  {
    from: 'legacy sized base, its format only in the definition',
    make: legacy({ onlyXml: true }),
    there: "another tool's",
    words: 'resize vm --to beta --transport ssh --root 2G',
    says: /a copy with zeros behind it, is there already, proven by its content/,
    stands: /^SHA1$/,
    sizes: { disk: 2 * GiB },
  },
  {
    from: 'legacy sized base',
    make: legacy(),
    there: 'absent, and deleted from the store',
    words: 'migrate vm --to beta --transport ssh',
    says: /a copy with zeros behind it, \(24M\): it is not there/,
    stands: /^SHA1$/,
    sendsBase: true,
  },
  {
    from: 'legacy sized base',
    make: legacy(),
    there: 'only in its store',
    words: 'migrate vm --to beta --transport ssh',
    says: /a copy with zeros behind it, comes from the image store there/,
    stands: /^SHA1$/,
  },
  {
    from: 'legacy sized base, of which the unsized one is gone',
    make: legacy({ isSizedOnly: true }),
    there: 'only in its store',
    words: 'migrate vm --to beta --transport rsyncd',
    says: /and base [^ ]+_1 /,
    stands: /^SHA1_1$/,
    sendsBase: true,
  },
  {
    from: 'legacy base with a grown file system',
    make: legacy({ grown: true }),
    there: 'equal',
    words: 'migrate vm --to beta --transport ssh',
    says: /what base [^ ]+ has besides is copied into it first/,
    stands: /^SHA1$/,
  },
  {
    from: 'legacy base with a grown file system',
    make: legacy({ grown: true }),
    there: 'another one',
    words: 'migrate vm --to beta --transport rsyncd',
    says: /copied into it first; .* another one has its name there/,
    stands: /^(?!SHA1)[0-9a-f]{40}$/,
    sendsBase: true,
  },
  {
    from: 'legacy base with a grown file system, of which the unsized one is gone',
    make: legacy({ grown: true, isSizedOnly: true }),
    there: 'absent, and deleted from the store',
    words: 'migrate vm --to beta --transport ssh',
    says: /and base [^ ]+_1 /,
    stands: /^SHA1_1$/,
    sendsBase: true,
  },
  {
    from: 'root, ephemeral, swap',
    make: created(ephemeralAndSwap),
    words: 'resize vm --root 50M --ephemeral 96M --swap 32M --grow-fs never',
    says: /^disk: /,
    stands: /^SHA1$/,
    sizes: { disk: 50 * MiB, 'disk.local': 96 * MiB, 'disk.swap': 32 * MiB },
  },
  {
    from: 'raw root disk',
    make: alone('raw'),
    words: 'resize vm --root 64M',
    says: /^disk: /,
    sizes: { disk: 64 * MiB },
  },
  {
    from: 'legacy sized base',
    make: legacy(),
    words: 'resize vm --root 2G',
    says: /^disk: /,
    stands: /^SHA1$/,
    sizes: { disk: 2 * GiB },
  },
  {
    from: 'legacy base with a grown file system',
    make: legacy({ grown: true }),
    words: 'resize vm --root 2G --grow-fs never',
    says: /^disk: /,
    stands: /^SHA1_1$/,
    sizes: { disk: 2 * GiB },
  },
]

/** Every kind of disk by every way onto whatever is there. Those that are not above: some each day, all with KILL_ALL=1. */
const makers: [from: string, make: Maker][] = [
  ['root, ephemeral, swap', created(ephemeralAndSwap)],
  ['raw root disk', alone('raw')],
  ['qcow2 without a base', alone('qcow2')],
  ["cowhand's own sized base", created([], GiB, { COWHAND_BASE_LAYOUT: 'sized' })],
  ['legacy sized base', legacy({ ephemeral: true })],
  ['legacy sized base, of which the unsized one is gone', legacy({ isSizedOnly: true })],
  ['legacy base with a grown file system', legacy({ grown: true })],
  [
    'legacy base with a grown file system, of which the unsized one is gone',
    legacy({ grown: true, isSizedOnly: true }),
  ],
]
const others = makers
  .flatMap(([from, make]) => (Object.keys(there) as (keyof typeof there)[]).map((at) => ({ from, make, there: at })))
  .flatMap((row) => ['ssh', 'rsyncd'].map((way) => ({ ...row, words: `migrate vm --to beta --transport ${way}` })))
  .filter(
    (row) => !rows.some(({ from, there, words }) => from === row.from && there === row.there && words === row.words),
  )

const instancesOn = (host: PairHost): string[] =>
  entries(host.file(host.instances)).filter((name) => name !== '_base' && name !== 'locks')

/** Each base, and when it was last written to. Of their records nothing: more is written down in them with time. */
const basesOn = (host: PairHost): string[] => {
  const directory = host.file(baseOn(host, ''))
  return entries(directory)
    .filter((name) => !name.endsWith('.json'))
    .map((name) => {
      const { ino, size, mtimeNs } = statSync(join(directory, name), { bigint: true })
      return `${name} ${ino} ${size} ${mtimeNs}`
    })
}

describe('what a guest sees is the same', () => {
  for (const row of [...rows, ...some<Row>(others, 20)]) {
    const { from, make, there: at, words, says, stands, sendsBase = false, sizes = {}, more } = row
    const where = at === undefined ? '' : `, its base there: ${at}`
    test(`${from}${where}: ${words.replace('vm ', '')}`, async () => {
      empty()
      const made = await make()
      if (at) await there[at](made)
      const host = at ? b : a
      const argv = words.split(' ')
      const shown = (await done(a, 'show', 'vm')).disks ?? []
      const disks = shown.filter(({ name }) => name !== 'disk.swap')
      const were = new Map<string, Seen>()
      for (const { name, format } of disks) were.set(name, await seen(a, inside(a, 'vm', name), format))
      const was = { a: tree(a.file(inside(a, 'vm'))), b: tree(b.file(b.instances)) }
      const bases = [a, b].map(basesOn)

      const { reasons = [] } = await done(a, ...argv, '--dry-run')
      assert.match(reasons.find((line) => line.startsWith('disk:')) ?? '', says ?? /./)
      assert.deepEqual(tree(a.file(inside(a, 'vm'))), was.a, 'a plan changes nothing here')
      assert.deepEqual(tree(b.file(b.instances)), was.b, 'a plan changes nothing there')

      const isSame = async () => {
        const now = (await done(host, 'show', 'vm')).disks ?? []
        assert.deepEqual(
          now.map(({ name }) => name),
          shown.map(({ name }) => name),
        )
        for (const { name, format, path, backing, virtualSize } of now) {
          assert.equal(path, inside(host, 'vm', name))
          const size = sizes[name as keyof typeof sizes] ?? shown.find((its) => its.name === name)?.virtualSize ?? 0
          assert.equal(virtualSize, size, name)
          const is = await seen(host, path, format)
          const old = were.get(name)
          if (old) sameDisk(old, is, size, name)
          else assert.match(execFileSync('file', ['-b', is.path], { encoding: 'utf8' }), /^Linux swap file/)
          forget(is)
          if (backing !== undefined) assert.equal(backing, baseOn(host, backing.split('/').at(-1) ?? ''))
          if (format === 'qcow2') await good(host, 'qemu-img', 'check', '-q', '-f', 'qcow2', path)
        }
        const name = now[0]?.backing?.split('/').at(-1)
        if (!says) return
        if (stands) assert.match(name?.replace(made.base, 'SHA1') ?? '', stands)
        else assert.equal(name, undefined)
        await more?.(host, made)
      }

      const sent = pair.link.sentBy('alpha')
      await done(a, ...argv)
      const travelled = pair.link.sentBy('alpha') - sent
      if (!says) assert.ok(travelled > 0)
      else if (sendsBase) assert.ok(travelled > 16 * MiB, `${travelled} bytes with the base`)
      else assert.ok(travelled < 8 * MiB, `${travelled} bytes without the base`)
      assert.deepEqual(instancesOn(a), at ? ['vm_resize'] : ['vm', 'vm_resize'])
      await isSame()
      assert.equal((await done(a, ...argv)).changed, false, 'the same again')

      await done(a, 'revert', 'vm', '--yes')
      assert.deepEqual(instancesOn(a), ['vm'])
      assert.deepEqual(instancesOn(b), [])
      assert.deepEqual(
        tree(a.file(inside(a, 'vm'))).map(withoutRecord),
        was.a.map(withoutRecord),
        'byte for byte as before',
      )

      await done(a, ...argv)
      await done(a, 'confirm', 'vm')
      assert.deepEqual([instancesOn(a), instancesOn(b)], at ? [[], ['vm']] : [['vm'], []])
      await isSame()
      for (const [i, its] of [a, b].entries())
        for (const line of bases[i] ?? [])
          assert.ok(basesOn(its).includes(line), `on ${its.name}, base ${line} is touched`)
      forget(...were.values())
    })
  }
})

/** The record is written anew, with the same in it. */
const withoutRecord = (line: string): string => line.replace(/^(instance\.json) .*/, '$1')
