import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Powers, powers } from '../../lib/host/sandbox.ts'
import { unpack } from '../../lib/image/unpack.ts'
import type { Packing } from '../../lib/job/spec.ts'

/** Only root may enter it. */
const dir = mkdtempSync(join(tmpdir(), 'cowhand-unpack-'))
/** Everybody may. */
const open = mkdtempSync(join(tmpdir(), 'cowhand-unpack-open-'))
chmodSync(open, 0o755)
const server = createServer((socket) => socket.end('secret'))
let port = 0
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as { port: number }).port
})
after(() => {
  server.close()
  for (const path of [dir, open]) rmSync(path, { recursive: true })
})
let count = 0
const fresh = () => join(dir, `${++count}.part`)

const image = Buffer.concat([
  randomBytes(500_000),
  Buffer.alloc(9_000_000),
  randomBytes(300_001),
  Buffer.alloc(1_000_000),
])
const limit = 20_000_000
const pack = (tool: string, bytes: Buffer) =>
  execFileSync(tool, ['-c', '-q'].slice(0, tool === 'gzip' ? 1 : 2), { input: bytes, maxBuffer: 2 ** 26 })

const tools: Record<Packing, string> = { gz: 'gzip', xz: 'xz', zst: 'zstd', bz2: 'bzip2' }
for (const [packing, tool] of Object.entries(tools) as [Packing, string][]) {
  const from = join(dir, `image.${packing}`)
  const packed = pack(tool, image)
  writeFileSync(from, packed)

  test(`${packing}: all of it comes out, and zeros are holes`, async () => {
    const to = fresh()
    assert.deepEqual(await unpack({ from, packing, to, limit }), { size: image.length })
    assert.ok(readFileSync(to).equals(image))
    const { size, blocks, mode } = statSync(to)
    assert.deepEqual([size, mode & 0o777], [image.length, 0o644])
    assert.ok(blocks * 512 < 1_200_000, `${blocks * 512} bytes are allocated`)
  })

  const broken: [string, Buffer][] = [
    ['truncated', packed.subarray(0, packed.length - 100_000)],
    ['truncated in its first bytes', packed.subarray(0, 5)],
    ['flipped', Buffer.concat([packed.subarray(0, 200_000), Buffer.from('flipped'), packed.subarray(200_007)])],
    ['not packed at all', image],
  ]
  // bzip2 leaves out what follows an archive that is whole, and is content.
  if (packing !== 'bz2')
    broken.push(['followed by something else', Buffer.concat([packed, Buffer.from('something else')])])
  for (const [when, bytes] of broken)
    test(`${packing}: ${when}`, async () => {
      const [bad, to] = [fresh(), fresh()]
      writeFileSync(bad, bytes)
      const message = new RegExp(`^Cannot unpack "${bad}": ${tool}: [^\\n]+$`)
      await assert.rejects(unpack({ from: bad, packing, to, limit }), { code: 'IMAGE_REJECTED', message })
      assert.equal(existsSync(to), false)
    })

  test(`${packing}: a bomb`, async () => {
    const [bomb, to] = [fresh(), fresh()]
    writeFileSync(bomb, pack(tool, Buffer.alloc(30_000_000)))
    const said = { code: 'IMAGE_REJECTED', message: `Cannot unpack "${bomb}": it unpacks to more than ${limit} bytes` }
    await assert.rejects(unpack({ from: bomb, packing, to, limit }), said)
    assert.equal(existsSync(to), false)
  })
}

const from = join(dir, 'image.gz')

test('exactly the limit is no bomb', async () => {
  const to = fresh()
  await unpack({ from, packing: 'gz', to, limit: image.length })
  await assert.rejects(unpack({ from, packing: 'gz', to, limit: image.length - 1 }), { code: 'IMAGE_REJECTED' })
})

test('what an earlier run left is gone', async () => {
  const to = fresh()
  writeFileSync(to, randomBytes(15_000_000))
  await unpack({ from, packing: 'gz', to, limit })
  assert.ok(readFileSync(to).equals(image))
})

test('progress ends with the size of the packed file', async () => {
  const told: [number, number][] = []
  await unpack({ from, packing: 'gz', to: fresh(), limit, onProgress: (...args) => told.push(args) })
  const { size } = statSync(from)
  assert.deepEqual(told.at(-1), [size, size])
  assert.ok((told[0]?.[0] ?? 0) > 0, 'nothing was told of the way')
})

/** What was started with this mark and lives, wherever it is now. */
const mark = `unpack-${process.pid}`
const left = () =>
  readdirSync('/proc').filter((pid) => {
    try {
      const isOurs = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`COWHAND_HOLDER=${mark}\0`)
      return isOurs && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
    } catch {
      return false
    }
  })
/** What was killed has not ended in the same moment. */
async function nothingLeft(): Promise<void> {
  for (let wait = 0; wait < 250 && left().length > 0; wait++) await new Promise((resolve) => setTimeout(resolve, 20))
  assert.deepEqual(left(), [])
}

/** A directory with a program that takes the place of gzip, for everybody. */
function insteadOfGzip(script: string): Record<string, string> {
  const bin = mkdtempSync(join(open, 'bin-'))
  chmodSync(bin, 0o755)
  writeFileSync(join(bin, 'gzip'), `#!/bin/sh\n${script}\n`)
  chmodSync(join(bin, 'gzip'), 0o755)
  return { PATH: `${bin}:/usr/bin:/bin`, COWHAND_HOLDER: mark }
}

test('an abort kills the program and ends with the reason', async () => {
  const to = fresh()
  const controller = new AbortController()
  setTimeout(() => controller.abort(new Error('the reason')), 200)
  const env = insteadOfGzip('echo begun; setsid sleep 60 & exec sleep 60')
  const start = performance.now()
  await assert.rejects(unpack({ from, packing: 'gz', to, limit, signal: controller.signal, env }), /the reason/)
  assert.ok(performance.now() - start < 5000)
  assert.deepEqual([left(), existsSync(to)], [[], false])
})

test('a program that has written too much is killed, whatever it does then', async () => {
  const env = insteadOfGzip('head -c 2000 /dev/zero; setsid sleep 60 & exec sleep 60')
  const start = performance.now()
  await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit: 1000, env }), { code: 'IMAGE_REJECTED' })
  await nothingLeft()
  assert.ok(performance.now() - start < 5000)
})

test('the program dies with us, with all that it started', async () => {
  const env = insteadOfGzip('echo begun; setsid sleep 60 & exec sleep 60')
  const program = `
    const { unpack } = await import(${JSON.stringify(new URL('../../lib/image/unpack.ts', import.meta.url).href)})
    await unpack(${JSON.stringify({ from, packing: 'gz', to: fresh(), limit, env })})`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { stdio: 'inherit' })
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const pause = () => new Promise((resolve) => setTimeout(resolve, 20))
  const sleeping = () =>
    left().filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('sleep')).length
  while (child.exitCode === null && sleeping() < 2) await pause()
  child.kill('SIGKILL')
  await exited
  await nothingLeft()
})

test('only its own environment reaches the program', async () => {
  const to = fresh()
  process.env['GZIP'] = '--best'
  await unpack({
    from,
    packing: 'gz',
    to,
    limit,
    env: insteadOfGzip('cat >/dev/null; exec env'),
  })
  delete process.env['GZIP']
  const names = readFileSync(to, 'utf8')
    .split('\n')
    .map((line) => line.split('=')[0])
  assert.deepEqual(names.filter((name) => name && !['PWD', '_', 'OLDPWD', 'SHLVL'].includes(name)).sort(), [
    'COWHAND_HOLDER',
    'MALLOC_ARENA_MAX',
    'PATH',
  ])
})

const confining = ['sh', 'nice', 'setpriv', 'unshare']
const failures: { when: string; has: string[]; said: object }[] = ['xz', 'nice', 'setpriv', 'unshare'].map((tool) => ({
  when: `${tool} is not installed`,
  has: [...confining, 'xz'].filter((other) => other !== tool),
  said: {
    code: 'TOOL_MISSING',
    message: `Cannot run "${tool}": it is not installed`,
    remedy: `install it: apt install ${{ xz: 'xz-utils', nice: 'coreutils' }[tool] ?? 'util-linux'}`,
  },
}))
function onlyWith(programs: string[]): Record<string, string> {
  const bin = mkdtempSync(join(open, 'bin-'))
  chmodSync(bin, 0o755)
  for (const program of programs) symlinkSync(`/usr/bin/${program}`, join(bin, program))
  return { PATH: bin }
}
for (const { when, has, said } of failures)
  test(when, async () => {
    const to = fresh()
    await assert.rejects(unpack({ from: join(dir, 'image.xz'), packing: 'xz', to, limit, env: onlyWith(has) }), said)
    assert.equal(existsSync(to), false)
  })

test('a program that the kernel killed says nothing of the image', async () => {
  const said = { code: 'TOOL_FAILED', message: /gzip was ended by SIGKILL$/ }
  await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit, env: insteadOfGzip('kill -KILL $$') }), said)
})

describe('a program that an image has taken over cannot', () => {
  const secret = join(open, 'secret')
  before(() => writeFileSync(secret, 'secret', { mode: 0o600 }))
  const rows: [what: string, script: () => string, says: RegExp][] = [
    ['read what only root may', () => `cat ${secret}`, /Permission denied/],
    ['write to what it reads', () => 'echo changed >/proc/self/fd/0', /Permission denied/],
    ['write elsewhere', () => "sh -c 'echo x >/tmp/cowhand-unpacked-this'; :", /File size limit exceeded/],
    ["change what is root's", () => `rm -f ${secret}`, /Permission denied/],
    ['reach a server on this host', () => `exec bash -c 'cat </dev/tcp/127.0.0.1/${port}'`, /Network is unreachable/],
    ['become root again', () => 'exec setpriv --reuid 0 true', /Operation not permitted/],
    ['see other processes', () => `kill -0 ${process.pid}`, /No such process/],
    ['have more memory than its limit', () => 'exec python3 -c "bytearray(3 << 30)"', /MemoryError/],
  ]
  for (const [what, script, says] of rows)
    test(what, async () => {
      const to = fresh()
      const env = insteadOfGzip(`(${script()}) 2>&1; rm -f /tmp/cowhand-unpacked-this; exit 0`)
      await unpack({ from, packing: 'gz', to, limit, env })
      assert.match(readFileSync(to, 'utf8'), says)
    })
  test('and could, were it not confined', () => {
    const script = `cat ${secret} </dev/tcp/127.0.0.1/${port}; exec setpriv --reuid 0 kill -0 ${process.pid}`
    assert.equal(spawnSync('bash', ['-c', script]).status, 0)
  })
  test('leave a child behind', async () => {
    await unpack({ from, packing: 'gz', to: fresh(), limit, env: insteadOfGzip('setsid sleep 60 & echo gone') })
    assert.deepEqual(left(), [])
  })
})

describe('with less to take from it', () => {
  const rows: [who: string, power: Powers][] = [
    ['without namespaces', { ...powers(), namespaces: false }],
    ['as our user', { user: undefined, namespaces: false }],
  ]
  for (const [who, power] of rows) {
    test(`${who}, all of it comes out`, async () => {
      const to = fresh()
      await unpack({ from, packing: 'gz', to, limit, power })
      assert.ok(readFileSync(to).equals(image))
    })
    test(`${who}, a program that was killed says nothing of the image`, async () => {
      const said = { code: 'TOOL_FAILED', message: /gzip was ended by SIGKILL$/ }
      const env = insteadOfGzip('kill -KILL $$')
      await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit, env, power }), said)
    })
    test(`${who}, it writes no file`, async () => {
      const said = { code: 'TOOL_FAILED', message: /gzip was ended by SIGXFSZ$/ }
      const env = insteadOfGzip(`umask 0; echo x >/tmp/cowhand-unpacked-${process.pid}`)
      try {
        await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit, env, power }), said)
      } finally {
        rmSync(`/tmp/cowhand-unpacked-${process.pid}`)
      }
    })
    test(`${who}, an abort ends it, whoever still holds its output`, async () => {
      const controller = new AbortController()
      setTimeout(() => controller.abort(new Error('the reason')), 300)
      const env = insteadOfGzip('setsid sleep 5 & echo begun')
      const options = { from, packing: 'gz', to: fresh(), limit, env, power, signal: controller.signal } as const
      const start = performance.now()
      await assert.rejects(unpack(options), /the reason/)
      assert.ok(performance.now() - start < 3000)
    })
  }
})

describe('there is memory for', () => {
  const content = Buffer.alloc(1_000_000, 'some text. ')
  const rows: [what: string, packing: Packing, pack: string[], says?: RegExp][] = [
    ['the largest dictionary that xz is allowed', 'xz', ['xz', '-c', '--lzma2=dict=768MiB,mode=fast,mf=hc3,nice=4']],
    ['the largest window of zstd', 'zst', ['zstd', '-cq', '--ultra', '-22', '--long=27']],
  ]
  for (const [what, packing, [tool = '', ...args]] of rows)
    test(what, async () => {
      const [packed, to] = [fresh(), fresh()]
      writeFileSync(packed, execFileSync(tool, args, { input: content, maxBuffer: 2 ** 26 }))
      await unpack({ from: packed, packing, to, limit })
      assert.ok(readFileSync(to).equals(content))
    })
})

test('a packed file that is for nobody else to read is unpacked', async () => {
  const [closed, to] = [fresh(), fresh()]
  writeFileSync(closed, readFileSync(from), { mode: 0o600 })
  await unpack({ from: closed, packing: 'gz', to, limit })
  assert.ok(readFileSync(to).equals(image))
})

test('on a full disk the part goes', async () => {
  const program = `
    import { readdirSync } from 'node:fs'
    const { unpack } = await import(${JSON.stringify(new URL('../../lib/image/unpack.ts', import.meta.url).href)})
    const to = process.argv[1] + '/x.part'
    const told = await unpack({ from: ${JSON.stringify(from)}, packing: 'gz', to, limit: ${limit} }).catch((e) => e)
    process.stdout.write(JSON.stringify([told.code, readdirSync(process.argv[1])]))`
  const script = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" --import tsx --input-type=module -e "$3" "$1"'
  const argv = ['-rm', 'sh', '-c', script, 'sh', mkdtempSync(join(dir, 'full-')), process.execPath, program]
  assert.deepEqual(JSON.parse(execFileSync('unshare', argv, { encoding: 'utf8' })), ['ENOSPC', []])
})

test('a packed file that is a symbolic link or no file is refused', async () => {
  const link = fresh()
  symlinkSync(from, link)
  await assert.rejects(unpack({ from: link, packing: 'gz', to: fresh(), limit }), { code: 'ELOOP' })
  await assert.rejects(unpack({ from: dir, packing: 'gz', to: fresh(), limit }), { code: 'NOT_OURS' })
})
