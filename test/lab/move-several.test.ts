import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'

import { baseOn, done, forget, good, inside, sameDisk, seen } from './moving.ts'
import { type Pair, type PairHost, startPair } from './pair.ts'

// Several moves at once, two tasks on one instance, and file systems that grow on the way; without libvirt.

const MiB = 2 ** 20
const scratch = mkdtempSync(join(tmpdir(), 'cowhand-several-'))
let pair: Pair
let a: PairHost
let b: PairHost

before(async () => {
  const settings = { libvirt_uri: undefined }
  pair = await startPair({ a: { settings }, b: { settings } })
  a = pair.a
  b = pair.b
  const files = join(scratch, 'files')
  mkdirSync(files)
  writeFileSync(join(files, 'data'), randomBytes(MiB))
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-d', files, join(scratch, 'fs.raw'), '16M'], { stdio: 'ignore' })
  for (const host of [a, b]) {
    await done(host, 'image', 'add', join(scratch, 'fs.raw'), '--name', 'fs')
    await done(host, 'cache', 'prefetch', 'fs')
  }
})
after(async () => {
  await pair?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

const homes = (host: PairHost): string[] =>
  readdirSync(host.file(host.instances)).filter((name) => name !== '_base' && name !== 'locks')

/** An instance whose overlay has so many MiB of its own that nothing can be made of by compressing them. */
async function create(name: string, own: number): Promise<void> {
  await done(a, 'create', name, '--image', 'fs', '--root', '64M')
  const source = join(scratch, 'random')
  writeFileSync(source, randomBytes(own * MiB))
  const word = `write -s ${source} 24M ${own}M`
  await good(a, 'qemu-io', '-f', 'qcow2', '-c', word, inside(a, name, 'disk'))
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + 60_000
  while (!holds()) {
    assert.ok(performance.now() < end, `after 60 s it was still not so: ${what}`)
    await sleep(20)
  }
}
const isArriving = (name: string): boolean =>
  readdirSync(b.file(b.instances)).includes(`${name}.incoming`) &&
  readdirSync(b.file(inside(b, `${name}.incoming`)), { recursive: true, encoding: 'utf8' }).some((file) =>
    /^part\/.*disk/.test(file),
  )

for (const transport of ['ssh', 'rsyncd'])
  test(`three instances, two at once, which share one bandwidth: ${transport}`, async () => {
    const names = ['one', 'two', 'three'].map((name) => `${name}-${transport}`)
    for (const name of names) await create(name, 12)
    const before = await Promise.all(names.map((name) => seen(a, inside(a, name, 'disk'))))
    const start = performance.now()
    const sent = pair.link.sentBy('alpha')
    const argv = ['migrate', ...names, '--to', 'beta', '--parallel', '2', '--bwlimit', '12M', '--transport', transport]
    const moving = await a.start(['cowhand', ...argv, '--json'])
    await until('two arrive at once', () => names.filter(isArriving).length === 2)
    const { code, stderr } = await moving.ended
    assert.equal(code, 0, stderr)
    const seconds = (performance.now() - start) / 1000
    const bytes = pair.link.sentBy('alpha') - sent
    assert.ok(bytes > 36 * MiB, `${bytes} bytes`)
    assert.ok(bytes / seconds < 12 * MiB * 1.1, `${bytes} bytes in ${seconds} s`)
    for (const [i, name] of names.entries()) {
      const now = await seen(b, inside(b, name, 'disk'))
      const was = before[i]
      if (was) sameDisk(was, now, 64 * MiB, name)
      forget(now, ...(was ? [was] : []))
      await done(a, 'confirm', name)
    }
    assert.deepEqual(homes(a), [])
    for (const name of names) await done(b, 'delete', name, '--yes')
  })

test('one of several that cannot be moved does not stop the others', async () => {
  for (const name of ['good', 'better']) await create(name, 1)
  mkdirSync(b.file(inside(b, 'good')), { recursive: true })
  writeFileSync(b.file(inside(b, 'good', 'theirs')), '')
  const answered = await a.cowhand(['migrate', 'good', 'better', '--to', 'beta'])
  assert.notEqual(answered.code, 0)
  assert.match(answered.error?.message ?? '', /good/)
  assert.deepEqual(homes(a), ['better_resize', 'good'])
  assert.deepEqual(readdirSync(b.file(inside(b, 'good'))), ['theirs'])
  rmSync(b.file(inside(b, 'good')), { recursive: true })
  await done(a, 'revert', 'better', '--yes')
  for (const name of ['good', 'better']) await done(a, 'delete', name, '--yes')
})

test('two tasks on one instance: the second is told who has it', async () => {
  await create('busy', 12)
  const moving = await a.start(['cowhand', 'migrate', 'busy', '--to', 'beta', '--bwlimit', '3M', '--json'])
  await until('it arrives', () => isArriving('busy'))
  const tasks = [
    ['resize', 'busy', '--root', '128M'],
    ['migrate', 'busy', '--to', 'beta'],
    ['confirm', 'busy'],
    ['revert', 'busy', '--yes'],
    ['delete', 'busy', '--yes'],
  ]
  for (const words of tasks) {
    const { code, error } = await a.cowhand([...words, '--lock-wait', '0'])
    assert.deepEqual([code, error?.code, error?.kind], [4, 'LOCKED', 'busy'], words.join(' '))
    assert.match(error?.message ?? '', /migrate busy/, words.join(' '))
  }
  // Nor is anything of it touched over there.
  const theirs = await b.cowhand(['create', 'busy', '--image', 'fs', '--root', '64M', '--lock-wait', '0'])
  assert.ok([3, 4].includes(theirs.code ?? 0), `${theirs.code}: ${theirs.error?.message}`)
  const { code, stderr } = await moving.ended
  assert.equal(code, 0, stderr)
  await done(a, 'confirm', 'busy')
  assert.deepEqual([homes(a), homes(b)], [[], ['busy']])
  await done(b, 'delete', 'busy', '--yes')
})

/** A bare file system on a disk is whole, fills it, and has the file that it had. */
async function isGrown(host: PairHost, name: string, file: string, size: number, data?: string): Promise<void> {
  const { path } = await seen(host, inside(host, name, file))
  try {
    execFileSync('e2fsck', ['-fn', path], { stdio: 'pipe' })
    const said = execFileSync('dumpe2fs', ['-h', path], { stdio: 'pipe', encoding: 'utf8' })
    const number = (of: string) => Number(new RegExp(`^${of}: +(\\d+)$`, 'm').exec(said)?.[1])
    const filled = number('Block count') * number('Block size')
    assert.ok(filled > size - MiB && filled <= size, `${filled} of ${size} bytes`)
    if (data === undefined) return
    const options = { maxBuffer: 64 * MiB, stdio: 'pipe' } as const
    assert.deepEqual(execFileSync('debugfs', ['-R', 'cat /data', path], options), readFileSync(data))
  } finally {
    rmSync(path)
  }
}

test('bare file systems of the root and the ephemeral disk grow on the way, also in a base of Nova where one had grown before', async () => {
  const data = join(scratch, 'files/data')
  await done(a, 'create', 'grows', '--image', 'fs', '--root', '64M', '--ephemeral', '64M')
  await done(a, 'resize', 'grows', '--root', '128M', '--ephemeral', '128M', '--to', 'beta')
  await isGrown(b, 'grows', 'disk', 128 * MiB, data)
  await isGrown(b, 'grows', 'disk.local', 128 * MiB)
  await done(a, 'confirm', 'grows')

  // As Nova's driver did: a copy of the base in the disk's size, and the file system in that one made larger.
  const { backing = '' } = (await done(b, 'show', 'grows')).disks?.[0] ?? {}
  const base = backing.split('/').at(-1) ?? ''
  await done(b, 'delete', 'grows', '--yes')
  await good(a, 'env', 'COWHAND_BASE_LAYOUT=sized', ...'cowhand create legacy --image fs --root 1G'.split(' '))
  const sized = baseOn(a, `${base}_1`)
  await a.run(['e2fsck', '-fp', sized])
  await good(a, 'resize2fs', sized)
  rmSync(a.file(`${sized}.json`))
  await done(a, ...'resize legacy --root 1536M --to beta --transport rsyncd'.split(' '))
  const [disk] = (await done(b, 'show', 'legacy')).disks ?? []
  assert.equal(disk?.backing, baseOn(b, base))
  await isGrown(b, 'legacy', 'disk', 1536 * MiB, data)
  await done(a, 'revert', 'legacy', '--yes')
  await isGrown(a, 'legacy', 'disk', 1024 * MiB, data)
  await done(a, 'resize', 'legacy', '--root', '2G')
  await isGrown(a, 'legacy', 'disk', 2048 * MiB, data)
  await done(a, 'confirm', 'legacy')
  await done(a, 'delete', 'legacy', '--yes')
})

test('XFS grows on the way, on a base that nobody else has the same of', async () => {
  const words = '--image fs --root 64M --ephemeral 320M --ephemeral-format xfs'
  await done(a, 'create', 'xfs', ...words.split(' '))
  await done(a, ...'resize xfs --ephemeral 640M --to beta'.split(' '))
  const { path } = await seen(b, inside(b, 'xfs', 'disk.local'))
  const ask = (tool: string, ...argv: string[]) => execFileSync(tool, [...argv, path], { encoding: 'utf8' })
  assert.match(ask('xfs_db', '-r', '-f', '-c', 'sb 0', '-c', 'print dblocks'), /^dblocks = 163840$/m)
  ask('xfs_repair', '-n', '-f')
  rmSync(path)
  await done(a, 'revert', 'xfs', '--yes')
  await done(a, 'delete', 'xfs', '--yes')
})

test('an ephemeral disk is made anew, or keeps its instance where it is, as asked', async () => {
  await done(a, 'create', 'local', '--image', 'fs', '--root', '64M', '--ephemeral', '64M')
  await good(a, 'qemu-io', '-f', 'qcow2', '-c', 'write -P 20 40M 1M', inside(a, 'local', 'disk.local'))
  const there = ['migrate', 'local', '--to', 'beta', '--ephemeral-policy']
  assert.equal((await a.cowhand([...there, 'refuse'])).code, 3)
  await done(a, ...there, 'recreate')
  await good(b, 'qemu-io', '-f', 'qcow2', '-r', '-c', 'read -P 0 40M 1M', inside(b, 'local', 'disk.local'))
  await isGrown(b, 'local', 'disk.local', 64 * MiB)
  await done(a, 'revert', 'local', '--yes')
  await good(a, 'qemu-io', '-f', 'qcow2', '-r', '-c', 'read -P 20 40M 1M', inside(a, 'local', 'disk.local'))
  await done(a, 'delete', 'local', '--yes')
  assert.deepEqual([homes(a), homes(b)], [[], []])
})
