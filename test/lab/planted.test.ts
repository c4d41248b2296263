import assert from 'node:assert/strict'
import { type ExecFileException, execFile, execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'

// Something that cowhand did not make stands where it has a file of its own: it is refused, or does no harm. What it
// leads to stays as it is, and nothing hangs.

const lab = mkdtempSync(join(tmpdir(), 'cowhand-planted-'))
const binary = join(root, 'build/out/cowhand')
const image = join(lab, 'blank.qcow2')
let base = ''
let sharedStore = ''
after(() => rmSync(lab, { recursive: true, force: true }))

/** A tree of its own for each case. */
interface Tree {
  path: string
  env: Record<string, string>
  /** A file and a directory that are none of cowhand's. */
  victim: string
  outside: string
}

function newTree(store?: string): Tree {
  const path = mkdtempSync(join(lab, 'tree-'))
  const outside = join(path, 'outside')
  mkdirSync(outside)
  const victim = join(outside, 'victim')
  writeFileSync(victim, 'precious', { mode: 0o640 })
  const env = { COWHAND_INSTANCES: join(path, 'instances'), COWHAND_STORE: store ?? `dir:${join(path, 'images')}` }
  return { path, env, victim, outside }
}

interface Ran {
  code: number
  stderr: string
  result: Result
}

/** Run the binary to its end, which comes within 20 s. */
const cowhand = ({ env }: Tree, ...words: string[]): Promise<Ran> =>
  new Promise((resolve, reject) => {
    const options = { env: { PATH: process.env['PATH'] ?? '', ...env }, timeout: 20_000 }
    execFile(binary, [...words, '--json'], options, (error: ExecFileException | null, stdout, stderr) => {
      const code = error === null ? 0 : error.code
      if (typeof code === 'number' && stdout) resolve({ code, stderr, result: JSON.parse(stdout) as Result })
      else reject(new Error(`${words.join(' ')}: ${error?.killed ? 'it hangs' : `${error?.message} ${stderr}`}`))
    })
  })

const userData = join(lab, 'user-data')
const creating = ['create', 'web1', '--image', 'blank', '--root', '64M', '--user-data', userData]
const adding = ['image', 'add', image, '--name', 'blank']

before(async () => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '16M'])
  writeFileSync(userData, '#cloud-config\n')
  const tree = newTree()
  sharedStore = tree.env['COWHAND_STORE'] ?? ''
  await cowhand(tree, ...adding)
  const { base: found } = (await cowhand(tree, 'image', 'show', 'blank')).result as unknown as {
    base: { path: string }
  }
  base = `_base/${found.path.split('/').at(-1)}`
})

const kinds = ['symlink', 'dangling symlink', 'hard link', 'FIFO', 'directory'] as const
type Kind = (typeof kinds)[number]

/** Put it there, in the place of whatever is there. */
function plant(kind: Kind, path: string, isDirectory: boolean, { victim, outside }: Tree): void {
  mkdirSync(dirname(path), { recursive: true })
  rmSync(path, { recursive: true, force: true })
  if (kind === 'symlink') symlinkSync(isDirectory ? outside : victim, path)
  if (kind === 'dangling symlink') symlinkSync(join(outside, 'new'), path)
  if (kind === 'hard link') linkSync(victim, path)
  if (kind === 'FIFO') execFileSync('mkfifo', [path])
  if (kind === 'directory') mkdirSync(path)
}

/** What is outside: names, modes, owners, sizes, times, bytes. That it has one link more or less harms nobody. */
const outsideOf = ({ outside }: Tree) =>
  readdirSync(outside).map((name) => {
    const path = join(outside, name)
    const { mode, uid, gid, size, mtimeNs } = lstatSync(path, { bigint: true })
    return `${name} ${mode} ${uid} ${gid} ${size} ${mtimeNs} ${readFileSync(path)}`
  })

/** Done, or refused with a reason: never a fault of cowhand, and never half-way. */
function fair(ran: Ran, what: string): void {
  const { code, result } = ran
  const said = `${what}: exit ${code}, ${result.error?.code}: ${result.error?.message}`
  assert.ok([0, 1, 3].includes(code), said)
  if (code === 3)
    assert.ok(
      ['NOT_OURS', 'BASE_DIFFERS', 'INSTANCE_DIFFERS', 'IMAGE_REJECTED'].includes(`${result.error?.code}`),
      said,
    )
  // Only a list that names a problem ends with 1.
  if (code === 1) assert.equal(result.error, undefined, said)
}

const inInstance = [
  ...['disk', 'disk.part', 'disk.info', 'disk.info.part', 'instance.json', 'instance.json.part', 'libvirt.xml'],
  ...['libvirt.xml.part', 'console.log', 'console.log.part', 'disk.config', 'disk.config.part', 'disk.config.d'],
]
const places = (): string[] =>
  [
    ...['web1', ...inInstance.map((name) => `web1/${name}`), '_base', 'locks'],
    ...['', '.part', '.json', '.json.part', '.converted', '.unpacked'].map((ending) => base + ending),
    ...[`locks/${base.replace('_base/', 'base.')}.lock`, 'locks/instance.web1.lock', 'locks/takeover.guard'],
    'locks/instance.web1.lock.00000000-1-1-1-00000000',
  ].map((place) => `instances/${place}`)
const isDirectory = (place: string): boolean => /\/(web1|_base|locks|disk\.config\.d)$/.test(place)

for (const [when, plants] of [
  ['before there is an instance', false],
  ['in the place of what an instance has', true],
] as const)
  describe(`planted ${when}`, { concurrency: 2 }, () => {
    for (const kind of kinds)
      test(`${kind}`, async () => {
        for (const place of places()) {
          const directory = isDirectory(place)
          if (directory && (kind === 'directory' || kind === 'hard link')) continue // no harm, and impossible
          const tree = newTree(sharedStore)
          if (plants) fair(await cowhand(tree, ...creating), 'to begin')
          const was = outsideOf(tree)
          plant(kind, join(tree.path, place), directory, tree)
          for (const words of [creating, ['list'], ['delete', 'web1', '--yes']]) {
            fair(await cowhand(tree, ...words), `${place}: ${words}`)
            assert.deepEqual(outsideOf(tree), was, `${place}: ${words[0]} touched what is outside`)
          }
        }
      })
  })

describe('planted in a store', { concurrency: 2 }, () => {
  for (const kind of kinds)
    test(`${kind}`, async () => {
      const names = [
        'blank.qcow2',
        'blank.qcow2.part',
        'blank.json',
        'blank.json.part',
        'locks',
        'locks/image.blank.lock',
      ]
      for (const place of names)
        for (const isAdded of [false, true]) {
          const directory = place === 'locks'
          if (directory && (kind === 'directory' || kind === 'hard link')) continue
          const tree = newTree()
          const all = (...words: string[]) => cowhand(tree, ...words).then((ran) => fair(ran, `${place}: ${words}`))
          if (isAdded) await all(...adding)
          const was = outsideOf(tree)
          plant(kind, join(tree.path, 'images', place), directory, tree)
          for (const words of [adding, ['image', 'list'], ['image', 'remove', 'blank', '--yes']]) {
            await all(...words)
            assert.deepEqual(outsideOf(tree), was, `${place}: ${words} touched what is outside`)
          }
        }
    })
})

test('directories that the operator names may be links', async () => {
  const tree = newTree()
  for (const name of ['instances', 'images']) {
    mkdirSync(join(tree.path, `real-${name}`))
    symlinkSync(`real-${name}`, join(tree.path, name))
  }
  for (const words of [adding, creating, ['list'], ['show', 'web1'], ['delete', 'web1', '--yes']])
    assert.equal((await cowhand(tree, ...words)).code, 0, words.join(' '))
})

test('what cowhand writes has tight modes, whatever the umask and whatever was left over', async () => {
  const tree = newTree()
  // A part that was left open to everybody.
  mkdirSync(join(tree.path, 'instances/_base'), { recursive: true })
  writeFileSync(join(tree.path, `instances/${base}.converted`), 'left over')
  chmodSync(join(tree.path, `instances/${base}.converted`), 0o666)
  const mask = process.umask(0)
  try {
    for (const words of [adding, [...creating, '--swap', '16M', '--ephemeral', '16M']]) {
      const { code, result } = await cowhand(tree, ...words)
      assert.equal(code, 0, result.error?.message)
    }
  } finally {
    process.umask(mask)
  }
  const modes = Object.fromEntries(
    readdirSync(tree.path, { recursive: true, encoding: 'utf8' })
      .filter((name) => !name.startsWith('outside'))
      .map((name) => [name, (lstatSync(join(tree.path, name)).mode & 0o7777).toString(8)]),
  )
  const inInstances = (names: Record<string, string>) =>
    Object.fromEntries(Object.entries(names).map(([name, mode]) => [`instances/${name}`, mode]))
  assert.deepEqual(modes, {
    images: '755',
    'images/blank.json': '644',
    'images/blank.qcow2': '644',
    'images/locks': '755',
    instances: '755',
    ...inInstances({
      _base: '755',
      [base]: '644',
      [`${base}.json`]: '644',
      '_base/ephemeral_0_16777216b_linux': '644',
      '_base/ephemeral_0_16777216b_linux.json': '644',
      '_base/swap_16': '644',
      '_base/swap_16.json': '644',
      locks: '755',
      web1: '755',
      'web1/console.log': '660',
      'web1/disk': '600',
      'web1/disk.config': '600',
      'web1/disk.info': '644',
      'web1/disk.local': '600',
      'web1/disk.swap': '600',
      'web1/instance.json': '644',
      'web1/libvirt.xml': '600',
    }),
  })
})

describe('a guest that writes a qcow2 header into its raw disk', () => {
  const secret = '/etc/shadow'
  for (const pinnedBy of ['disk.info', 'libvirt.xml'])
    test(`changes nothing, for ${pinnedBy} says what the disk is`, async () => {
      const tree = newTree()
      for (const words of [adding, creating]) await cowhand(tree, ...words)
      const file = (name: string) => join(tree.path, 'instances/web1', name)
      // As on a host of the old driver with use_cow_images off.
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', 'raw', '-u', '-b', secret, file('disk'), '64M'])
      if (pinnedBy === 'disk.info') writeFileSync(file('disk.info'), JSON.stringify({ [file('disk')]: 'raw' }))
      else {
        rmSync(file('disk.info'))
        const xml = readFileSync(file('libvirt.xml'), 'utf8').replace(/type='qcow2'/, "type='raw'")
        writeFileSync(file('libvirt.xml'), xml)
      }
      const was = readFileSync(file('disk'))
      for (const words of [['list'], ['show', 'web1'], creating, ['cache', 'list']]) {
        const { result, stderr } = await cowhand(tree, ...words)
        assert.doesNotMatch(JSON.stringify(result) + stderr, /shadow/, words.join(' '))
        assert.deepEqual(readFileSync(file('disk')), was)
      }
      const { disks } = (await cowhand(tree, 'show', 'web1')).result
      assert.deepEqual(
        disks?.map(({ format, virtualSize, backing }) => [format, virtualSize, backing]),
        [['raw', was.length, undefined]],
      )
      const { code, result } = await cowhand(tree, ...creating)
      assert.deepEqual([code, result.error?.code], [3, 'NOT_OURS'])
      // A new definition takes it for what it is, too.
      if (pinnedBy === 'disk.info') {
        rmSync(file('libvirt.xml'))
        const { uuid } = JSON.parse(readFileSync(file('instance.json'), 'utf8')) as { uuid: string }
        const step = ['step', 'write-domain', '--directory', join(file(''), '.'), '--name', 'web1', '--uuid', uuid]
        const ran = await cowhand(tree, ...step, '--disks', 'disk=vda', '--bases', `disk=${join(tree.path, base)}`)
        assert.equal(ran.code, 0, ran.result.error?.message)
        assert.match(
          readFileSync(file('libvirt.xml'), 'utf8'),
          /type='raw' cache='none'\/>\s*<source [^>]*\/>\s*<target/,
        )
      }
      assert.equal((await cowhand(tree, 'delete', 'web1', '--yes')).code, 0)
      assert.ok(!existsSync(file('')))
    })

  test('where nothing says what a disk is, nothing is read from it', async () => {
    const tree = newTree()
    for (const words of [adding, creating]) await cowhand(tree, ...words)
    const file = (name: string) => join(tree.path, 'instances/web1', name)
    for (const name of ['disk.info', 'libvirt.xml']) rmSync(file(name))
    const { disks } = (await cowhand(tree, 'show', 'web1')).result
    assert.deepEqual(
      disks?.map(({ format, virtualSize, backing }) => [format, virtualSize, backing]),
      [['unknown', undefined, undefined]],
    )
    assert.equal((await cowhand(tree, 'delete', 'web1', '--yes')).code, 0)
  })

  test('a disk that is pinned as qcow2 and is none is said', async () => {
    const tree = newTree()
    for (const words of [adding, creating]) await cowhand(tree, ...words)
    writeFileSync(join(tree.path, 'instances/web1/disk'), 'no header')
    for (const words of [['list'], ['show', 'web1']]) {
      const { code, result } = await cowhand(tree, ...words)
      assert.equal(code, 1)
      assert.match(JSON.stringify(result), /pinned as qcow2 and is none/)
    }
    assert.equal((await cowhand(tree, 'delete', 'web1', '--yes')).code, 0)
  })
})

test('two trees of instances with one store do not add one name at once', async () => {
  const [one, other] = [newTree(), newTree()]
  const { acquire } = await import('../../lib/host/locks.ts')
  const store = one.env['COWHAND_STORE'] ?? ''
  const lock = await acquire(`${store.slice('dir:'.length)}/locks`, 'image.blank', { task: 'test', wait: 0 })
  const sharing = { ...other, env: { ...other.env, COWHAND_STORE: store } }
  const busy = await cowhand(sharing, ...adding, '--lock-wait', '0')
  assert.deepEqual([busy.code, busy.result.error?.code], [4, 'LOCKED'])
  assert.match(`${busy.result.error?.message}`, /^Cannot lock "image\.blank"/)
  lock.release()
  assert.equal((await cowhand(sharing, ...adding)).code, 0)
})
