import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { root } from '../../build/sh.ts'
import { baseName } from '../../lib/job/layout.ts'
import type { Result } from '../../lib/job/result.ts'

// Many callers at once, each the binary in a process of its own: the work is done once, and all of it is whole (S28).

const GiB = 2 ** 30
const here = mkdtempSync(join(tmpdir(), 'cowhand-concurrent-'))
const image = join(here, 'image.qcow2')
/** What was asked of the web server: the first byte, and bytes of the body that were sent. */
let served: { from: number; sent: number }[] = []
let bytes: Buffer
let url: string
let digest: string

/** A web server that is slow enough for all callers to meet. */
const server = createServer(async (request, response) => {
  const [, from, to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []
  const start = Number(from ?? 0)
  const end = Math.min(bytes.length, to ? Number(to) + 1 : bytes.length)
  response.writeHead(from === undefined ? 200 : 206, {
    'content-length': end - start,
    ...(from === undefined ? {} : { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` }),
  })
  const entry = { from: start, sent: 0 }
  served.push(entry)
  const chunk = Math.ceil(bytes.length / 20)
  for (let at = start; at < end && !response.destroyed; at += chunk) {
    const piece = bytes.subarray(at, Math.min(end, at + chunk))
    entry.sent += piece.length
    response.write(piece)
    if (end - start > 4096) await new Promise((resolve) => setTimeout(resolve, 25))
  }
  response.end()
})

before(async () => {
  const raw = join(here, 'raw')
  writeFileSync(raw, randomBytes(16 * 2 ** 20))
  for (const argv of [
    ['truncate', '-s', '64M', raw],
    ['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, image],
  ])
    assert.equal(spawnSync(argv[0] ?? '', argv.slice(1)).status, 0)
  bytes = readFileSync(image)
  digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/image.qcow2`
})
after(() => {
  server.closeAllConnections()
  server.close()
  rmSync(here, { recursive: true, force: true })
})

/** Run the binary; the web server is in this process, so nothing may wait for it here. */
async function create(instances: string, name: string, ...more: string[]): Promise<Result & { code: number | null }> {
  const words = ['create', name, '--image', url, '--checksum', digest, '--root', '1G', '--json', ...more]
  const child = spawn(join(root, 'build/out/cowhand'), ['--instances', instances, ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
    timeout: 60_000,
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  assert.notEqual(stdout, '', stderr)
  return { ...JSON.parse(stdout), code }
}

const many = <T>(count: number, work: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_, index) => work(index)))
const statusOf = (result: Result, step: string) => result.steps.find((one) => one.step === step)?.status
const fresh = () => mkdtempSync(join(here, 'instances-'))

/** Every file of a directory tree, but for the guard, which stays for ever. */
const filesIn = (instances: string) =>
  readdirSync(instances, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(instances.length + 1))
    .filter((file) => file !== 'locks/takeover.guard')
    .sort()

/** An overlay of the size that was asked for, without a fault, on this base. */
function assertGood(disk: string, base: string): void {
  const run = (...words: string[]) => spawnSync('qemu-img', words, { encoding: 'utf8' })
  const check = run('check', '-f', 'qcow2', disk)
  assert.equal(check.status, 0, check.stderr)
  const info = JSON.parse(run('info', '--output=json', '-f', 'qcow2', disk).stdout)
  assert.deepEqual(
    [info['full-backing-filename'], info['backing-filename-format'], info['virtual-size']],
    [base, 'raw', GiB],
  )
  const compare = run('compare', '-f', 'qcow2', '-F', 'qcow2', disk, image)
  assert.equal(compare.status, 0, compare.stdout + compare.stderr)
}

test('twenty instances of one image that is not cached: one download, one conversion, twenty disks', async () => {
  const instances = fresh()
  served = []
  const results = await many(20, (index) => create(instances, `vm${index}`))
  for (const { code, error } of results) assert.equal(code, 0, error?.message)
  assert.equal(results.filter((result) => statusOf(result, 'cache-base') === 'changed').length, 1)
  assert.equal(results.filter((result) => statusOf(result, 'cache-base') === 'ok').length, 19)
  // Each may ask for the first bytes, to tell the size; the image itself is sent once.
  const downloads = served.filter(({ sent }) => sent > 4096)
  assert.deepEqual(downloads, [{ from: 0, sent: bytes.length }])
  const fetched = results.map((result) => result.bytes?.fetched).filter(Boolean)
  assert.deepEqual(fetched, [bytes.length])

  const base = await baseName(digest)
  const own = ['console.log', 'disk', 'disk.info', 'instance.json', 'libvirt.xml']
  const expected = results.flatMap((_, index) => own.map((file) => `vm${index}/${file}`))
  assert.deepEqual(filesIn(instances), [`_base/${base}`, `_base/${base}.json`, ...expected].sort())
  for (const index of results.keys()) assertGood(join(instances, `vm${index}`, 'disk'), join(instances, '_base', base))
  assert.equal(
    new Set(
      results.map((_, index) => JSON.parse(readFileSync(join(instances, `vm${index}/instance.json`), 'utf8')).uuid),
    ).size,
    20,
  )
})

for (const [how, wait, codes] of [
  ['who waits finds it done', ['--lock-wait', '60'], [0]],
  ['who does not wait is told that it is busy', [], [0, 4]],
] as const)
  test(`ten times the same instance at once: one makes it, ${how}`, async () => {
    const instances = fresh()
    served = []
    const all = ['--ephemeral', '64M', '--swap', '16M']
    const results = await many(10, () => create(instances, 'vm1', ...all, ...wait))
    for (const { code, error, steps } of results) {
      assert.ok(
        codes.some((good) => good === code),
        `${code}: ${error?.message}`,
      )
      if (code === 4) assert.deepEqual([error?.code, steps], ['LOCKED', []])
    }
    const [made] = results.filter(({ changed }) => changed)
    assert.equal(results.filter(({ changed }) => changed).length, 1)
    assert.equal(made?.code, 0)
    assert.equal(served.filter(({ sent }) => sent > 4096).length, 1)
    if (wait.length === 0)
      assert.ok(
        results.some(({ code }) => code === 4),
        'nobody met anybody',
      )

    const base = await baseName(digest)
    const expected = [
      ...[
        base,
        `${base}.json`,
        'ephemeral_0_67108864b_linux',
        'ephemeral_0_67108864b_linux.json',
        'swap_16',
        'swap_16.json',
      ].map((file) => `_base/${file}`),
      ...['console.log', 'disk', 'disk.info', 'disk.local', 'disk.swap', 'instance.json', 'libvirt.xml'].map(
        (file) => `vm1/${file}`,
      ),
    ]
    assert.deepEqual(filesIn(instances), expected.sort())
    assertGood(join(instances, 'vm1/disk'), join(instances, '_base', base))
    // The definition and the record are of one and the same maker.
    const { uuid } = JSON.parse(readFileSync(join(instances, 'vm1/instance.json'), 'utf8'))
    assert.match(readFileSync(join(instances, 'vm1/libvirt.xml'), 'utf8'), new RegExp(`<uuid>${uuid}</uuid>`))
    const again = await create(instances, 'vm1', ...all)
    assert.deepEqual([again.code, again.changed], [0, false])
  })

test('ten instances with ephemeral and swap disks: each base is made once', async () => {
  const instances = fresh()
  const results = await many(10, (index) => create(instances, `vm${index}`, '--ephemeral', '64M', '--swap', '16M'))
  for (const { code, error } of results) assert.equal(code, 0, error?.message)
  for (const step of ['cache-base', 'make-ephemeral-base', 'make-swap-base'])
    assert.equal(results.filter((result) => statusOf(result, step) === 'changed').length, 1, step)
  assert.deepEqual(
    filesIn(instances).filter((file) => /^locks|\.(part|converted|unpacked)$/.test(file)),
    [],
  )
})
