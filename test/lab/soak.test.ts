import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import type { Result } from '../../lib/job/result.ts'

// Creating, deleting, cleaning, verifying and prefetching at once, for minutes, with a SIGKILL now and then: no overlay
// is ever without its base, and no image is ever downloaded by two at once. SOAK_SECONDS=600 makes it longer.

const seconds = Number(process.env['SOAK_SECONDS'] ?? 60)
const here = mkdtempSync(join(tmpdir(), 'cowhand-soak-'))
const instances = join(here, 'instances')
const binary = join(root, 'build/out/cowhand')

interface Served {
  url: string
  checksum: string
  file: string
  /** Downloads that are under way, and the most there were at one time. */
  active: number
  most: number
  /** Times that all of it, or the rest of it, was sent. */
  sent: number
}
const images: Served[] = []

/** Slow enough that many meet while it is downloaded. */
const server = createServer(async (request, response) => {
  const image = images[Number(request.url?.slice(1, 2))]
  if (!image) return void response.writeHead(404).end()
  const bytes = readFileSync(image.file)
  const [, from = '0', to] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? '') ?? []
  const [start, end] = [Number(from), Math.min(bytes.length, to ? Number(to) + 1 : bytes.length)]
  const isRange = request.headers.range !== undefined
  if (start >= bytes.length) return void response.writeHead(416, { 'content-range': `bytes */${bytes.length}` }).end()
  const range = isRange ? { 'content-range': `bytes ${start}-${end - 1}/${bytes.length}` } : {}
  response.writeHead(isRange ? 206 : 200, { 'content-length': end - start, ...range })
  const isDownload = end - start > 4096
  if (isDownload) {
    image.active += 1
    image.most = Math.max(image.most, image.active)
    response.once('close', () => {
      image.active -= 1
    })
  }
  let at = start
  for (; at < end && !response.destroyed; at += 2 ** 18) {
    response.write(bytes.subarray(at, Math.min(end, at + 2 ** 18)))
    if (isDownload) await sleep(10)
  }
  if (isDownload && at >= end) image.sent += 1
  response.end()
})

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  for (const index of [0, 1, 2, 3, 4, 5]) {
    const [raw, file] = [join(here, 'raw'), join(here, `${index}.qcow2`)]
    writeFileSync(raw, randomBytes(3 * 2 ** 20))
    for (const argv of [
      ['truncate', '-s', '16M', raw],
      ['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, file],
    ])
      assert.equal(spawnSync(argv[0] ?? '', argv.slice(1)).status, 0)
    const checksum = `sha256:${createHash('sha256').update(readFileSync(file)).digest('hex')}`
    images.push({ url: `http://127.0.0.1:${port}/${index}.qcow2`, checksum, file, active: 0, most: 0, sent: 0 })
  }
})
after(() => {
  server.closeAllConnections()
  server.close()
  rmSync(here, { recursive: true, force: true })
})

interface Ended {
  words: string[]
  code: number | null
  result: Result | undefined
  stderr: string
}
const running = new Set<ChildProcess>()
const ended: Ended[] = []

async function cowhand(...words: string[]): Promise<Ended> {
  const child = spawn(binary, ['--instances', instances, '--lock-wait', '60', '--json', ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
  })
  running.add(child)
  const closed = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), closed])
  running.delete(child)
  const end = { words, code, stderr, result: stdout === '' ? undefined : (JSON.parse(stdout) as Result) }
  ended.push(end)
  return end
}

const any = <T>(list: T[]): T => list[Math.floor(Math.random() * list.length)] as T
const chance = (one: number): boolean => Math.random() < 1 / one

/** Make and delete instances of its own; about half a dozen at a time. */
async function creator(name: string, until: number): Promise<void> {
  const alive: string[] = []
  for (let number = 0; performance.now() < until; number += 1) {
    const { url, checksum } = any(images)
    const disks = chance(2) ? ['--ephemeral', '64M', '--swap', '16M'] : []
    const vm = `${name}${number}`
    alive.push(vm)
    await cowhand('create', vm, '--image', url, '--checksum', checksum, '--root', '64M', ...disks)
    while (alive.length > 3) await cowhand('delete', alive.shift() ?? '', '--yes')
    // Now and then all that it had is gone, so that bases become unused.
    if (chance(4)) for (const one of alive.splice(0)) await cowhand('delete', one, '--yes')
  }
}

async function again(until: number, work: () => Promise<unknown>): Promise<void> {
  while (performance.now() < until) {
    await work()
    await sleep(50)
  }
}

/** Disks that are there now, and whose base is not. */
function orphaned(): string[] {
  if (!existsSync(instances)) return []
  return readdirSync(instances).flatMap((name) =>
    ['disk', 'disk.local', 'disk.swap'].flatMap((file) => {
      const path = join(instances, name, file)
      try {
        const backing = readQcow2(path)?.backing
        // Looked at once more: both may have gone in the meantime, the disk first.
        return backing && !existsSync(backing) && existsSync(path) && !existsSync(backing)
          ? [`${path} on ${backing}`]
          : []
      } catch {
        return [] // it went while it was looked at
      }
    }),
  )
}

test(`everything at once for ${seconds} s`, { timeout: (seconds + 120) * 1000 }, async () => {
  const until = performance.now() + seconds * 1000
  const lost: string[] = []
  const watch = setInterval(() => lost.push(...orphaned()), 20)
  const killer = setInterval(() => any([...running])?.kill('SIGKILL'), 1500)
  await Promise.all([
    ...['a', 'b', 'c'].map((name) => creator(name, until)),
    again(until, () => cowhand('cache', 'clean', '--unused-for', '0')),
    again(until, () => cowhand('cache', 'verify')),
    again(until, () => {
      const { url, checksum } = any(images)
      return cowhand('cache', 'prefetch', url, '--checksum', checksum)
    }),
    again(until, () => cowhand('cache', 'list')),
  ])
  clearInterval(watch)
  clearInterval(killer)
  assert.deepEqual([...new Set(lost), ...orphaned()], [])

  const failed = ended.filter(({ code }) => code !== 0 && code !== null)
  assert.deepEqual(
    failed.map(({ words, code, stderr }) => `${words.join(' ')}: ${code}: ${stderr}`),
    [],
  )
  const count = (word: string) => ended.filter(({ words, code }) => words.includes(word) && code === 0).length
  const counts = Object.fromEntries(
    ['create', 'delete', 'clean', 'verify', 'prefetch', 'list'].map((word) => [word, count(word)]),
  )
  const removed = ended.filter(({ words, result }) => words.includes('clean') && result?.changed).length
  const killed = ended.filter(({ code }) => code === null).length
  process.stdout.write(
    `# soak: ${JSON.stringify({ ...counts, removed, killed, sent: images.map(({ sent }) => sent) })}\n`,
  )
  for (const [what, times] of Object.entries({ ...counts, removed, killed }))
    assert.ok(times > 3, `${what}: only ${times}`)

  for (const { most } of images) assert.equal(most, 1, 'two downloaded the same image at once')
  // Whoever made a base has downloaded it; who was killed may have, too.
  const made = (image: Served) =>
    ended.filter(({ words, result }) => words.includes(image.url) && (result?.bytes?.fetched ?? 0) > 0).length
  for (const image of images)
    assert.ok(image.sent <= made(image) + killed, `${image.sent} downloads, ${made(image)} bases`)

  // The same command again, after each that was killed: whatever it had done, it ends well, and nothing is left of it.
  for (const { words } of ended.filter(({ code }) => code === null)) {
    const { code, stderr } = await cowhand(...words)
    assert.equal(code, 0, `${words.join(' ')}: ${stderr}`)
  }

  // What is left is good, and one more run of everything finds nothing to complain about.
  for (const name of readdirSync(instances)) {
    const disk = join(instances, name, 'disk')
    if (!existsSync(disk)) continue
    const { status, stderr } = spawnSync('qemu-img', ['check', '-q', '-f', 'qcow2', disk], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
  }
  for (const words of [
    ['cache', 'verify'],
    ['cache', 'clean', '--unused-for', '0'],
    ['cache', 'list'],
  ])
    assert.equal((await cowhand(...words)).code, 0)
  assert.deepEqual(orphaned(), [])
  assert.deepEqual(
    readdirSync(join(instances, 'locks')).filter((file) => file !== 'takeover.guard'),
    [],
  )
})
