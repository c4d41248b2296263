import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { flattenOverlay, growDisk, pointOverlay, shiftOverlay } from '../../lib/host/chain.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'

// What a guest sees of its disk is the same before and after, whatever is done to the files that it is made of.

const M = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-chain-'))
after(() => rmSync(dir, { recursive: true }))
const file = (name: string) => join(dir, name)
const run = (...argv: string[]) =>
  execFileSync(argv[0] ?? '', argv.slice(1), { encoding: 'utf8', stdio: 'pipe', env: { ...process.env, TZ: 'UTC' } })

/** A raw file of this size, with bytes of its own in some places. */
function rawFile(path: string, size: number, ...places: [at: number, bytes: Buffer][]): string {
  const fd = openSync(path, 'w')
  for (const [at, bytes] of places) writeSync(fd, bytes, 0, bytes.length, at)
  closeSync(fd)
  truncateSync(path, size)
  return path
}

const digestOf = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex')
/** All that a guest sees, by the real qemu-img and the names in the headers. */
function seen(overlay: string): string {
  run('qemu-img', 'convert', '-U', '-f', 'qcow2', '-O', 'raw', overlay, file('seen.raw'))
  return digestOf(file('seen.raw'))
}
const backingOf = (overlay: string) => readQcow2(overlay)?.backing
const isWhole = (overlay: string) => run('qemu-img', 'check', '-q', '-f', 'qcow2', overlay)

const [small, same, sized] = [file('small'), file('same'), file('sized')]
const [one, two, three] = [randomBytes(2 * M), randomBytes(M + 512), randomBytes(M)]
before(() => {
  rawFile(small, 20 * M, [M, one], [6 * M, two], [12 * M, three])
  // The same, and zeros.
  rawFile(same, 40 * M, [M, one], [6 * M, two], [12 * M, three])
  // Other bytes in it, zeros where the small one has data, and data where that has zeros, or has ended.
  rawFile(sized, 40 * M, [M, one], [M + 70 * 1024, Buffer.from('other')], [9 * M + 512, two], [30 * M, three])
})

/** What a guest, and then an operator, may have done to an overlay. */
const overlays: [what: string, size: number, options: string, ...commands: string[]][] = [
  ['nothing was written to', 40 * M, ''],
  [
    'has data, some of it less than a cluster',
    40 * M,
    '',
    'write -P 1 5M 3M',
    'write -P 2 12800k 512',
    'write -P 3 39M 1M',
  ],
  ['has compressed clusters', 40 * M, '', 'write -c -P 4 1M 64k', 'write -c -P 5 30M 64k', 'write -c -P 6 7M 128k'],
  [
    'has zero clusters over what a base has',
    40 * M,
    '',
    'write -z 1M 1M',
    'write -z 12M 64k',
    'write -z 30M 1M',
    'write -z 9M 64k',
  ],
  [
    'has discarded clusters over what a base has',
    40 * M,
    '',
    'write -P 7 1M 1M',
    'discard 1M 2M',
    'discard 12M 1M',
    'discard 30M 512k',
  ],
  ['is larger than the bases', 64 * M, '', 'write -P 8 50M 1M', 'write -P 9 40000k 1M'],
  ['is smaller than the larger base', 30 * M, '', 'write -P 10 6M 1M'],
  ['is smaller than both', 10 * M, '', 'write -P 11 6M 1M'],
  ['is of version 2', 40 * M, 'compat=0.10', 'write -P 12 6M 1M', 'write -z 1M 64k'],
  ['has the smallest clusters', 40 * M, 'cluster_size=512', 'write -P 13 6M 100k', 'write -z 1M 1536'],
  ['has the largest clusters', 40 * M, 'cluster_size=2M', 'write -P 14 6M 1k', 'discard 12M 2M'],
  ['has subclusters', 40 * M, 'extended_l2=on,cluster_size=128k', 'write -P 15 6M 5k', 'write -z 1M 4k'],
  ['has lazy refcounts', 40 * M, 'lazy_refcounts=on', 'write -P 16 6M 1M'],
]
const made = (size: number, options: string, commands: string[], on: string): string => {
  const overlay = file('disk')
  rmSync(overlay, { force: true })
  const more = options === '' ? [] : ['-o', options]
  run('qemu-img', 'create', '-q', '-f', 'qcow2', ...more, '-F', 'raw', '-b', on, overlay, String(size))
  if (commands.length > 0)
    run('qemu-io', '-f', 'qcow2', '-d', 'unmap', ...commands.flatMap((words) => ['-c', words]), overlay)
  chmodSync(overlay, 0o600)
  return overlay
}

for (const [what, size, options, ...commands] of overlays)
  describe(`an overlay that ${what}`, () => {
    test('shows the same when its header names an equal base', () => {
      const overlay = made(size, options, commands, same)
      const expected = seen(overlay)
      const bytes = readFileSync(overlay)
      pointOverlay(overlay, small)
      assert.deepEqual([backingOf(overlay), seen(overlay)], [small, expected])
      assert.deepEqual(readFileSync(overlay).subarray(4096), bytes.subarray(4096))
      assert.equal(statSync(overlay).mode & 0o777, 0o600)
      isWhole(overlay)
    })
    test('shows the same when it was put on a shorter base with other bytes', async () => {
      const overlay = made(size, options, commands, sized)
      const expected = seen(overlay)
      await shiftOverlay({ path: overlay, from: sized, to: small })
      assert.deepEqual([backingOf(overlay), seen(overlay)], [small, expected])
      assert.deepEqual([statSync(overlay).mode & 0o777, statSync(overlay).uid], [0o600, 0])
      isWhole(overlay)
    })
    test('shows the same when it was merged with its base', async () => {
      const overlay = made(size, options, commands, sized)
      const [expected, bytes] = [seen(overlay), readFileSync(overlay)]
      chownSync(overlay, 1234, 1234)
      await flattenOverlay({ path: overlay, base: sized, to: file('flat') })
      assert.deepEqual([backingOf(file('flat')), seen(file('flat'))], [undefined, expected])
      assert.deepEqual([statSync(file('flat')).mode & 0o777, statSync(file('flat')).uid], [0o600, 0])
      isWhole(file('flat'))
      assert.deepEqual([readFileSync(overlay), statSync(overlay).uid], [bytes, 1234])
    })
    test('shows zeros behind its end when it was grown, whatever its base has there', async () => {
      const overlay = made(size, options, commands, sized)
      seen(overlay)
      truncateSync(file('seen.raw'), 80 * M)
      const expected = digestOf(file('seen.raw'))
      await growDisk({ path: overlay, format: 'qcow2', size: 80 * M, base: sized })
      assert.equal(seen(overlay), expected)
      await growDisk({ path: overlay, format: 'qcow2', size: 80 * M, base: sized })
      await assert.rejects(growDisk({ path: overlay, format: 'qcow2', size, base: sized }), { code: 'DISK_TOO_SMALL' })
    })
  })

describe('a file system that was grown inside a larger copy of its base', () => {
  const [base, larger] = [file('ext4'), file('ext4_1')]
  const make = () => {
    rawFile(base, 24 * M)
    run('mke2fs', '-q', '-F', '-t', 'ext4', '-L', 'root', base)
    copyFileSync(base, larger)
    truncateSync(larger, 64 * M)
    run('e2fsck', '-fp', larger)
    run('resize2fs', larger)
    const overlay = made(64 * M, '', [], larger)
    // The guest writes into it.
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', overlay, file('guest.raw'))
    rawFile(file('content'), 3 * M, [0, randomBytes(3 * M)])
    run('debugfs', '-w', '-R', `write ${file('content')} content`, file('guest.raw'))
    made(64 * M, '', [], file('guest.raw'))
    run('qemu-img', 'rebase', '-f', 'qcow2', '-F', 'raw', '-b', larger, overlay)
    return { overlay, expected: seen(overlay) }
  }
  const requireWell = () => {
    run('e2fsck', '-fn', file('seen.raw'))
    run('debugfs', '-R', `dump content ${file('dumped')}`, file('seen.raw'))
    assert.equal(digestOf(file('dumped')), digestOf(file('content')))
  }
  test('is as it was on the short base', async () => {
    const { overlay, expected } = make()
    await shiftOverlay({ path: overlay, from: larger, to: base })
    assert.equal(seen(overlay), expected)
    requireWell()
  })
  test('would be torn if only the name were written', () => {
    const { overlay, expected } = make()
    pointOverlay(overlay, base)
    assert.notEqual(seen(overlay), expected)
  })
  test('is as it was when it stands on nothing', async () => {
    const { overlay, expected } = make()
    await flattenOverlay({ path: overlay, base: larger, to: file('flat') })
    assert.equal(seen(file('flat')), expected)
    requireWell()
  })
})

test('an overlay that says it stands on something else is taken for what we say', async () => {
  const overlay = made(40 * M, '', ['write -P 1 5M 3M'], sized)
  const expected = seen(overlay)
  const flat = async () => {
    await flattenOverlay({ path: overlay, base: sized, to: file('flat') })
    return seen(file('flat'))
  }
  for (const name of ['/etc/shadow', 'json:{"driver":"file","filename":"/etc/shadow"}', 'nbd://127.0.0.1/x']) {
    pointOverlay(overlay, name)
    assert.equal(await flat(), expected)
  }
  await shiftOverlay({ path: overlay, from: sized, to: small })
  assert.deepEqual([backingOf(overlay), seen(overlay)], [small, expected])
})

test('an overlay that was not closed is mended on the way: its guest was switched off the hard way', async () => {
  const notClosed = () => {
    const overlay = made(40 * M, 'lazy_refcounts=on', ['write -P 1 5M 3M'], sized)
    const bytes = readFileSync(overlay)
    bytes[79] = 1
    writeFileSync(overlay, bytes)
    return overlay
  }
  const expected = seen(notClosed())
  await flattenOverlay({ path: notClosed(), base: sized, to: file('flat') })
  assert.equal(seen(file('flat')), expected)
  const overlay = notClosed()
  await shiftOverlay({ path: overlay, from: sized, to: small })
  assert.deepEqual([seen(overlay), readQcow2(overlay)?.dirty], [expected, false])
})

test('what cannot be flattened leaves nothing behind', async () => {
  const overlay = made(40 * M, '', [], sized)
  const controller = new AbortController()
  const onProgress = () => controller.abort(new Error('interrupted'))
  const options = { signal: controller.signal, onProgress }
  await assert.rejects(flattenOverlay({ path: overlay, base: sized, to: file('flat') }, options), /interrupted/)
  assert.ok(!existsSync(file('flat')))
  assert.equal(statSync(overlay).uid, 0)
  await assert.rejects(flattenOverlay({ path: sized, base: sized, to: file('flat') }), { code: 'NOT_OURS' })
  await assert.rejects(shiftOverlay({ path: file('none'), from: sized, to: small }), { code: 'ENOENT' })
})

test('a raw disk is grown by a hole', async () => {
  const disk = rawFile(file('raw'), 20 * M, [M, one])
  const { blocks } = statSync(disk)
  await growDisk({ path: disk, format: 'raw', size: 80 * M })
  assert.deepEqual([statSync(disk).size, statSync(disk).blocks], [80 * M, blocks])
  assert.deepEqual(readFileSync(disk).subarray(M, 4 * M), Buffer.concat([one, Buffer.alloc(M)]))
  await assert.rejects(growDisk({ path: disk, format: 'raw', size: 20 * M }), { code: 'DISK_TOO_SMALL' })
})

describe('a kill -9', () => {
  const tsx = join(root, 'node_modules/tsx/dist/loader.mjs')
  const [from, to] = [file('much'), file('little')]
  before(() => {
    const some = Array.from({ length: 50 }, (_, i): [number, Buffer] => [4 * i * M, randomBytes(M)])
    rawFile(from, 200 * M, ...some)
    rawFile(to, 150 * M, ...some.slice(0, 20))
  })
  const killed = async (overlay: string, share: number): Promise<void> => {
    const argv = ['--import', tsx, join(root, 'test/unit/chain-child.ts'), overlay, from, to]
    const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] })
    const ended = new Promise((resolve) => child.once('close', resolve))
    child.stdout.on('data', (told) => Number(String(told).trim().split('\n').at(-1)) >= share && child.kill('SIGKILL'))
    await ended
    // Its program dies with it, but not in the same moment.
    for (let wait = 0; wait < 500 && isOpen(overlay); wait++) await sleep(10)
  }
  const isOpen = (path: string): boolean =>
    readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .some((pid) => {
        try {
          return readdirSync(`/proc/${pid}/fd`).some((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`) === path)
        } catch {
          return false
        }
      })
  for (const share of [0.3, 0.6, 0.9])
    test(`in the middle of a rebase (${share * 100} %) is mended by doing it again`, async () => {
      const overlay = made(220 * M, '', ['write -P 1 190M 20M'], from)
      const expected = seen(overlay)
      await killed(overlay, share)
      assert.notEqual(backingOf(overlay), to)
      // Nobody writes to it any more, and on its old base it is what it was.
      if (backingOf(overlay) === from) assert.equal(seen(overlay), expected)
      await shiftOverlay({ path: overlay, from, to })
      assert.deepEqual([backingOf(overlay), seen(overlay)], [to, expected])
      assert.equal(statSync(overlay).uid, 0)
    })
})
