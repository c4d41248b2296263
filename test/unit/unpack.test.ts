import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
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
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { unpack } from '../../lib/image/unpack.ts'
import type { Packing } from '../../lib/job/spec.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-unpack-'))
after(() => rmSync(dir, { recursive: true }))
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

/** Our own children. */
const children = () =>
  readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && existsSync(`/proc/${pid}/stat`))
    .filter(
      (pid) =>
        readFileSync(`/proc/${pid}/stat`, 'utf8')
          .replace(/^.*\) /, '')
          .split(' ')[1] === String(process.pid),
    )
    .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '))
    .filter((line) => /gzip|setpriv/.test(line))

/** A directory with a program that takes the place of gzip. */
function insteadOfGzip(script: string): Record<string, string> {
  const bin = mkdtempSync(join(dir, 'bin-'))
  writeFileSync(join(bin, 'gzip'), `#!/bin/sh\n${script}\n`)
  chmodSync(join(bin, 'gzip'), 0o755)
  return { PATH: `${bin}:/usr/bin:/bin` }
}

test('an abort kills the program and ends with the reason', async () => {
  const to = fresh()
  const controller = new AbortController()
  setTimeout(() => controller.abort(new Error('the reason')), 200)
  const env = insteadOfGzip('echo begun; exec sleep 60')
  const before = performance.now()
  await assert.rejects(unpack({ from, packing: 'gz', to, limit, signal: controller.signal, env }), /the reason/)
  assert.ok(performance.now() - before < 5000)
  assert.deepEqual([children(), existsSync(to)], [[], false])
})

test('a program that has written too much is killed, whatever it does then', async () => {
  const env = insteadOfGzip('head -c 2000 /dev/zero; exec sleep 60')
  const before = performance.now()
  await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit: 1000, env }), { code: 'IMAGE_REJECTED' })
  assert.ok(performance.now() - before < 5000)
  assert.deepEqual(children(), [])
})

test('the program dies with us', async () => {
  const bin = insteadOfGzip(`echo $$ > ${dir}/pid; exec sleep 60`)
  const program = `
    const { unpack } = await import(${JSON.stringify(new URL('../../lib/image/unpack.ts', import.meta.url).href)})
    await unpack(${JSON.stringify({ from, packing: 'gz', to: fresh(), limit, env: bin })})`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { stdio: 'inherit' })
  const exited = new Promise((resolve) => child.on('exit', resolve))
  const pause = () => new Promise((resolve) => setTimeout(resolve, 20))
  const pid = () => existsSync(join(dir, 'pid')) && readFileSync(join(dir, 'pid'), 'utf8').trim()
  while (child.exitCode === null && !pid()) await pause()
  child.kill('SIGKILL')
  await exited
  const gone = performance.now() + 5000
  const lives = () =>
    existsSync(`/proc/${pid()}/cmdline`) && readFileSync(`/proc/${pid()}/cmdline`, 'utf8').startsWith('sleep')
  while (lives() && performance.now() < gone) await pause()
  assert.equal(lives(), false)
})

test('only its own environment reaches the program', async () => {
  const to = fresh()
  process.env['GZIP'] = '--best'
  await unpack({
    from,
    packing: 'gz',
    to,
    limit,
    env: { ...insteadOfGzip('cat >/dev/null; exec env'), COWHAND_HOLDER: 'mark' },
  })
  delete process.env['GZIP']
  const names = readFileSync(to, 'utf8')
    .split('\n')
    .map((line) => line.split('=')[0])
  assert.deepEqual(names.filter((name) => name && !['PWD', '_', 'OLDPWD', 'SHLVL'].includes(name)).sort(), [
    'COWHAND_HOLDER',
    'PATH',
  ])
})

const failures: { when: string; env: () => Record<string, string>; said: object }[] = [
  {
    when: 'the program is not installed',
    env: () => ({ PATH: onlySetpriv() }),
    said: {
      code: 'TOOL_MISSING',
      message: 'Cannot run "xz": it is not installed',
      remedy: 'install it: apt install xz-utils',
    },
  },
  {
    when: 'setpriv is not installed',
    env: () => ({ PATH: mkdtempSync(join(dir, 'bin-')) }),
    said: {
      code: 'TOOL_MISSING',
      message: 'Cannot run "setpriv": it is not installed',
      remedy: 'install it: apt install util-linux',
    },
  },
]
function onlySetpriv(): string {
  const bin = mkdtempSync(join(dir, 'bin-'))
  symlinkSync('/usr/bin/setpriv', join(bin, 'setpriv'))
  return bin
}
for (const { when, env, said } of failures)
  test(when, async () => {
    const to = fresh()
    await assert.rejects(unpack({ from: join(dir, 'image.xz'), packing: 'xz', to, limit, env: env() }), said)
    assert.equal(existsSync(to), false)
  })

test('a program that the kernel killed says nothing of the image', async () => {
  const said = { code: 'TOOL_FAILED', message: /gzip was ended by SIGKILL$/ }
  await assert.rejects(unpack({ from, packing: 'gz', to: fresh(), limit, env: insteadOfGzip('kill -KILL $$') }), said)
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
