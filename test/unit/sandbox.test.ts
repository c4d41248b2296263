import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { holderMark } from '../../lib/host/holder.ts'
import { Effects } from '../../lib/host/perform.ts'
import { checkable, convertToRaw, dataSize, explainEnd, isInUse, qemuImg } from '../../lib/host/qemu-img.ts'
import { type Powers, powers, type Sandbox } from '../../lib/host/sandbox.ts'
import { program } from '../../lib/host/shell.ts'
import { checkImage, run } from '../../lib/job/action.ts'
import { Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'
import type { Format } from '../../lib/job/spec.ts'

const MiB = 2 ** 20
/** Only root may enter it. */
const dir = mkdtempSync(join(tmpdir(), 'cowhand-sandbox-'))
const secret = join(dir, 'secret')
const server = createServer((socket) => socket.end('secret'))
let port = 0

before(async () => {
  writeFileSync(secret, 'secret'.padEnd(MiB, '\0'), { mode: 0o600 })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as { port: number }).port
})
after(() => {
  server.close()
  rmSync(dir, { recursive: true })
})

const tool = (...args: string[]) => execFileSync('qemu-img', args, { encoding: 'utf8', stdio: 'pipe' })
/** How it ended: its output, or the error's sentence. */
const said = (work: Promise<{ stdout: string }>): Promise<string> =>
  work.then(
    ({ stdout }) => stdout.trim(),
    (error) => (error instanceof Problem ? `${error.code}: ${error.message}` : assert.fail(error)),
  )
const bash = (script: string, sandbox: Partial<Sandbox> = {}, files: number[] = []) =>
  said(
    program(['bash', '-c', script], {
      why: 'try it',
      sandbox: { ...powers(), limits: { cpu: 60, output: 0 }, ...sandbox },
      files,
    }),
  )

/** Processes that this one has started and that live. */
const left = (): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      const isOurs = readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`COWHAND_HOLDER=${holderMark()}\0`)
      return isOurs && !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
    } catch {
      return false
    }
  })

const kinds: [string, Partial<Powers>][] = [
  ['as root', {}],
  ['as root without namespaces', { namespaces: false }],
  ['as somebody else', { user: undefined, namespaces: false }],
]

for (const [who, less] of kinds)
  describe(`each limit bites ${who}`, () => {
    test('processor time', async () => {
      const spin = bash('while :; do :; done', { ...less, limits: { cpu: 1, output: 0 } })
      assert.match(await spin, /^TOOL_FAILED: Cannot try it: bash was ended by SIGXCPU$/)
    })
    test('address space', async () => {
      assert.match(await said(program(['python3', '-c', 'bytearray(3 << 30)'], sandboxed(less))), /MemoryError/)
      assert.equal(await said(program(['python3', '-c', 'bytearray(1 << 30)'], sandboxed(less))), '')
    })
    test('bytes written', async () => {
      const fd = openSync(join(dir, 'written'), 'w+')
      if (!('user' in less)) chownSync(join(dir, 'written'), powers().user ?? 0, 0)
      const limits = { cpu: 60, output: MiB }
      const write = (size: string) => bash(`exec head -c ${size} /dev/zero >/proc/self/fd/3`, { ...less, limits }, [fd])
      assert.match(await write('2M'), /ended by SIGXFSZ/)
      assert.equal(statSync(join(dir, 'written')).size, MiB)
      assert.equal(await write('1M'), '')
      closeSync(fd)
    })
    test('no core is written', async () => assert.equal(await bash('ulimit -c', less), '0'))
    test('it is nice', async () => assert.equal(await bash('nice', less), '10'))
    test('it is nowhere', async () => assert.equal(await bash('pwd', less), '/'))
  })

const sandboxed = (less: Partial<Powers>) => ({
  sandbox: { ...powers(), ...less, limits: { cpu: 60, output: 0 } },
})

describe('a program in it cannot', () => {
  const other = join(dir, 'others')
  before(() => {
    mkdirSync(other)
  })
  const rows: [what: string, script: () => string, says: RegExp][] = [
    ['read what only root may', () => `cat ${secret}`, /Permission denied/],
    ['read it by the name of an open file', () => 'cat /proc/self/fd/3', /Permission denied/],
    ['write elsewhere', () => `>${root}/x`, /Permission denied/],
    ['reach a server on this host', () => `cat </dev/tcp/127.0.0.1/${port}`, /Network is unreachable/],
    ['become root again', () => 'exec setpriv --reuid 0 true', /Operation not permitted/],
    ['see or end other processes', () => `kill -0 ${process.pid}`, /No such process/],
    ['look into other processes', () => `cat /proc/${process.pid}/environ`, /Permission denied/],
    ['fill the host with processes', () => "sh -c 'for i in $(seq 400); do sleep 60 & done'", /Cannot fork/],
  ]
  for (const [what, script, says] of rows)
    test(what, async () => {
      const fd = openSync(secret, 'a')
      try {
        assert.match(await bash(`(${script()}) 2>&1 || :`, {}, [fd]), says)
      } finally {
        closeSync(fd)
      }
    })
  test('and could, were it not in there', () => {
    const script = `cat ${secret} </dev/tcp/127.0.0.1/${port}; exec setpriv --reuid 0 kill -0 ${process.pid}`
    assert.equal(spawnSync('bash', ['-c', script]).status, 0)
  })
  test('leave a child behind', async () => {
    assert.equal(await bash('setsid sleep 60 >/dev/null 2>&1 & echo gone'), 'gone')
    assert.deepEqual(left(), [])
  })
})

test('an interrupt ends it at once, with all that it started', async () => {
  const controller = new AbortController()
  const options = { ...sandboxed({}), signal: controller.signal }
  const running = program(['bash', '-c', 'setsid sleep 60 & trap "" TERM; while :; do sleep 1; done'], options)
  setTimeout(() => controller.abort(new Error('interrupted')), 300)
  const start = performance.now()
  await assert.rejects(running, /interrupted/)
  // What was killed has not ended in the same moment.
  while (left().length > 0 && performance.now() - start < 5000) await sleep(20)
  assert.ok(performance.now() - start < 5000)
  assert.deepEqual(left(), [])
})

test('a program that confines is missing: it is named', async () => {
  const bin = join(dir, 'bin')
  mkdirSync(bin)
  for (const name of ['setpriv', 'sh', 'nice', 'true']) symlinkSync(`/usr/bin/${name}`, join(bin, name))
  const asked = said(program(['true'], { ...sandboxed({}), env: { PATH: bin } }))
  assert.equal(await asked, 'TOOL_MISSING: Cannot run "unshare": it is not installed')
})

describe('what is taken from it follows from what we are', () => {
  const tsx = join(root, 'node_modules/tsx/dist/loader.mjs')
  const child = [process.execPath, '--import', tsx, join(root, 'test/unit/sandbox-child.ts')]
  const without = (capability: string) => ['setpriv', `--bounding-set=-${capability}`]
  const ofFewUsers = `unshare -U sleep 60 & own=/proc/$!
    until [ "$(readlink $own/ns/user)" != "$(readlink /proc/self/ns/user)" ]; do sleep 0.05; done
    for map in uid_map gid_map; do echo 0 0 65536 >$own/$map; done
    nsenter -U -S 0 -G 0 -t $! -- "$@"; kill $!`
  const rows: [who: string, as: string[], says: string][] = [
    ['root', [], 'a user of its own, namespaces\nnot us'],
    ['root of a container', without('sys_admin'), 'a user of its own, no namespaces\nnot us'],
    ['root that may not change users', without('setuid'), 'our user, no namespaces\nus'],
    ['root by name only', ['unshare', '-r'], 'our user, no namespaces\nus'],
    ['root of few users', ['bash', '-c', ofFewUsers, 'bash'], 'a user of its own, namespaces\nnot us'],
  ]
  for (const [who, as, says] of rows)
    test(who, () => {
      const [first = '', ...rest] = [...as, ...child, '["sh","-c","[ $(id -u) = 0 ] && echo us || echo not us"]']
      const { stdout, stderr } = spawnSync(first, rest, { encoding: 'utf8' })
      assert.equal(stdout.trim(), says, stderr)
    })

  for (const [who, less] of kinds)
    test(`and it dies with us: ${who}`, async () => {
      const seconds = `60.${process.pid}${kinds.findIndex(([name]) => name === who)}`
      const powers = JSON.stringify(less, (_, value) => (value === undefined ? null : value))
      const [first = '', ...rest] = [...child, `["sleep","${seconds}"]`, powers]
      const parent = spawn(first, rest, { stdio: 'ignore' })
      const sleeping = () => spawnSync('pgrep', ['-f', `^sleep ${seconds}$`], { encoding: 'utf8' }).stdout.trim()
      for (let tries = 0; tries < 200 && !sleeping(); tries++) await sleep(50)
      assert.notEqual(sleeping(), '')
      parent.kill('SIGKILL')
      for (let tries = 0; tries < 100 && sleeping(); tries++) await sleep(20)
      assert.equal(sleeping(), '')
    })
})

/** An image of 4 MiB with some data, made once for each name. */
const source = join(dir, 'source.raw')
function imageOf(format: Format, name: string, ...options: string[]): string {
  const image = join(dir, name)
  tool(
    'convert',
    '-f',
    'raw',
    '-O',
    format,
    ...options.flatMap((option) => (option === '-c' ? ['-c'] : ['-o', option])),
    source,
    image,
  )
  return image
}
before(() => {
  writeFileSync(source, Buffer.alloc(MiB, 'some data that compresses. '))
  truncateSync(source, 4 * MiB)
})
const settings = Settings.parse({ instances: dir, store: `dir:${dir}` })
const effects = () => new Effects(() => {}, new AbortController().signal, settings)

describe('qemu-img works in it', () => {
  const rows: [Format, string, ...string[]][] = [
    ['qcow2', 'v2.qcow2', 'compat=0.10'],
    ['qcow2', 'zlib.qcow2', '-c'],
    ['qcow2', 'zstd.qcow2', '-c', 'compression_type=zstd'],
    ['qcow2', 'small.qcow2', 'cluster_size=512'],
    ['qcow2', 'large.qcow2', 'cluster_size=2M'],
    ['qcow2', "nbd:[x],json:{'a'}.qcow2"],
    ['vmdk', 'sparse.vmdk'],
    ['vmdk', 'stream.vmdk', 'subformat=streamOptimized'],
    ['vdi', 'image.vdi'],
    ['vpc', 'dynamic.vpc', 'force_size=on'],
    ['vpc', 'fixed.vpc', 'subformat=fixed', 'force_size=on'],
    ['vhdx', 'image.vhdx'],
  ]
  for (const [format, name, ...options] of rows)
    for (const isDirect of [false, true])
      test(`${name}${isDirect ? ', directly' : ''}`, async () => {
        const [image, to] = [imageOf(format, name, ...options), join(dir, 'out.raw')]
        const before = statSync(image)
        const effect = effects()
        assert.ok((await dataSize(image, format)) >= MiB)
        await effect.perform({ do: 'examine', path: image, format, ceiling: 2 ** 40 })
        if (checkable.includes(format)) await effect.perform({ do: 'check', path: image, format })
        const convert = convertToRaw(image, format, to, isDirect)
        const umask = process.umask(0o077)
        await effect.perform(run(convert, 'convert it', { writes: to, works: image }))
        process.umask(umask)
        tool('compare', '-f', 'raw', '-F', 'raw', source, to)
        const { uid, gid, mode, size } = statSync(to)
        assert.deepEqual([uid, gid, mode & 0o777, size], [0, 0, 0o644, 4 * MiB])
        assert.deepEqual([before.uid, before.mode], [statSync(image).uid, statSync(image).mode])
        rmSync(to)
      })

  test('on what a run that was killed has left to its user', async () => {
    const [image, to] = [imageOf('qcow2', 'again.qcow2'), join(dir, 'again.raw')]
    writeFileSync(to, 'torn')
    chownSync(to, powers().user ?? 0, 0)
    const effect = effects()
    await effect.perform({ do: 'examine', path: image, format: 'qcow2', ceiling: 2 ** 40 })
    await effect.perform(run(convertToRaw(image, 'qcow2', to, false), 'convert it', { writes: to, works: image }))
    assert.equal(statSync(to).uid, 0)
    tool('compare', '-f', 'raw', '-F', 'raw', source, to)
    chownSync(to, powers().user ?? 0, 0)
    await effect.perform({ do: 'publish', from: to, to: join(dir, 'published') })
    assert.equal(statSync(join(dir, 'published')).uid, 0)
  })

  test('to change an image in place', async () => {
    const image = imageOf('qcow2', 'grown.qcow2')
    const effect = effects()
    await effect.perform({ do: 'examine', path: image, format: 'qcow2', ceiling: 2 ** 40 })
    const grow = ['qemu-img', 'resize', '-q', '-f', 'qcow2', image, String(2 ** 34)]
    await effect.perform(run(grow, 'grow it', { writes: image }))
    assert.equal(JSON.parse(tool('info', '--output=json', '-f', 'qcow2', image))['virtual-size'], 2 ** 34)
    assert.equal(statSync(image).uid, 0)
  })

  test('in no other way', async () => {
    const image = imageOf('qcow2', 'other.qcow2')
    await assert.rejects(program(checkImage(image, 'qcow2')), TypeError)
    await assert.rejects(qemuImg(['qemu-img', 'check', image], { images: [], size: MiB }, { why: 'guess' }), TypeError)
    await assert.rejects(effects().perform({ do: 'check', path: image, format: 'qcow2' }), /was not examined/)
  })
})

describe('an image that our reader let through', () => {
  const converted = async (image: string, format: Format, size = MiB) => {
    const to = join(dir, 'reached.raw')
    const fd = openSync(to, 'w+')
    try {
      const work = { images: [{ path: image, format }], size, makes: { path: to, fd } }
      const words = await said(qemuImg(convertToRaw(image, format, to, false), work, { why: 'convert it' }))
      assert.equal(statSync(to).uid, 0)
      assert.doesNotMatch(readFileSync(to, 'latin1'), /secret/)
      return words
    } finally {
      closeSync(fd)
    }
  }
  const hostile = (name: string) => join(dir, `hostile-${name}`)

  test('does not get its backing file', async () => {
    tool('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', secret, hostile('backing'))
    await converted(hostile('backing'), 'qcow2')
  })
  test('does not get its data file', async () => {
    tool('create', '-q', '-f', 'qcow2', '-o', `data_file=${secret}2,data_file_raw=on`, hostile('data'), '1M')
    writeFileSync(`${secret}2`, readFileSync(secret), { mode: 0o600 })
    assert.match(await converted(hostile('data'), 'qcow2'), /Permission denied/)
  })
  test('does not get an extent', async () => {
    tool('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', `${hostile('flat')}.vmdk`, '1M')
    const text = readFileSync(`${hostile('flat')}.vmdk`, 'latin1').replace('hostile-flat-flat.vmdk', secret)
    writeFileSync(`${hostile('flat')}.vmdk`, text)
    assert.match(await converted(`${hostile('flat')}.vmdk`, 'vmdk'), /Permission denied/)
  })
  test('does not get another format', async () => {
    assert.match(await converted(imageOf('qcow2', 'called.qcow2'), 'vmdk'), /TOOL_FAILED: .*invalid VMDK/)
  })
  test('is not larger for qemu-img than for us', async () =>
    assert.match(
      await converted(imageOf('qcow2', 'more.qcow2'), 'qcow2', 2 * MiB),
      /^IMAGE_REJECTED: Cannot convert it: qemu-img writes more than 2097152 bytes, its limit$/,
    ))
  test('is not smaller for qemu-img than for us', async () =>
    assert.match(
      await converted(imageOf('qcow2', 'less.qcow2'), 'qcow2', 8 * MiB),
      /^IMAGE_REJECTED: Cannot convert it: qemu-img sees 4194304 bytes in it, and cowhand 8388608$/,
    ))
  test('is called by its own name in an error', async () =>
    assert.match(await converted(imageOf('qcow2', 'named.qcow2'), 'vdi'), /Could not open '.*named\.qcow2'/))
})

test('an image that only its owner may read is refused, and stays as it is', async () => {
  const image = imageOf('qcow2', 'closed.qcow2')
  chmodSync(image, 0o640)
  await assert.rejects(dataSize(image, 'qcow2'), {
    code: 'NO_PERMISSION',
    message: `Cannot read "${image}": qemu-img works as an unprivileged user, and only its owner may read this file`,
    remedy: `chmod o+r ${image}`,
  })
  assert.equal(statSync(image).mode & 0o777, 0o640)
  const raw = join(dir, 'closed.raw')
  writeFileSync(raw, Buffer.alloc(MiB, 1), { mode: 0o600 })
  assert.ok((await dataSize(raw, 'raw')) >= MiB)
})

describe('an end of qemu-img that says something of the image', () => {
  const rows: [signal: string | undefined, words: string, says: RegExp | undefined][] = [
    ['SIGXCPU', '', /works on it for more than 60 s, its limit/],
    ['SIGXFSZ', '', /writes more than 1024 bytes, its limit/],
    [undefined, 'qemu-img: x: error while converting raw: File too large', /writes more than 1024 bytes/],
    [undefined, "qemu-img: Could not open 'x': Cannot allocate memory", /needs more than 2G of memory, its limit/],
    ['SIGABRT', 'GLib: failed to allocate 8589934592 bytes', /needs more than 2G of memory/],
    ['SIGSEGV', '', /qemu-img crashes on it \(SIGSEGV\)/],
    ['SIGKILL', '', undefined],
    ['SIGTERM', '', undefined],
    [undefined, 'qemu-img: x: No space left on device', undefined],
  ]
  for (const [signal, words, says] of rows)
    test(signal ?? words, () => {
      const problem = explainEnd({ code: 1, signal, words }, 'convert "x"', { cpu: 60, output: 1024 })
      if (says === undefined) return assert.equal(problem, undefined)
      assert.equal(problem?.code, 'IMAGE_REJECTED')
      assert.match(problem?.message ?? '', says)
    })
})

describe('a disk', () => {
  const disk = join(dir, 'disk')
  before(() => {
    tool('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', source, disk)
    chmodSync(disk, 0o600)
  })
  test('that a guest runs on is in use, and is not once it has ended', async () => {
    const drive = `if=none,id=root,format=qcow2,file=${disk}`
    const words = ['-S', '-display', 'none', '-accel', 'tcg', '-m', '16', '-nodefaults', '-monitor', 'stdio']
    const guest = spawn('qemu-system-x86_64', [...words, '-drive', drive, '-device', 'virtio-blk-pci,drive=root'])
    await new Promise((resolve) => guest.stdout.once('data', resolve)) // its monitor answers: the disk is open
    assert.equal(await isInUse(disk), true)
    const ended = new Promise((resolve) => guest.once('close', resolve))
    guest.stdin.end('quit\n')
    await ended
    assert.equal(await isInUse(disk), false)
  })
  test('that a guest only reads is not in use', async () => {
    const reader = spawn('qemu-io', ['-r', '-f', 'qcow2', disk])
    reader.stdin.write('map\n')
    await new Promise((resolve) => reader.stdout.once('data', resolve))
    assert.equal(await isInUse(disk), false)
    reader.stdin.end('quit\n')
    await new Promise((resolve) => reader.once('close', resolve))
  })
  test('that a guest has made a mess of is not in use', async () => {
    writeFileSync(disk, 'QFI\xfb\xff\xff\xff', { encoding: 'latin1' })
    assert.equal(await isInUse(disk), false)
    assert.equal(statSync(disk).mode & 0o777, 0o600)
  })
})
