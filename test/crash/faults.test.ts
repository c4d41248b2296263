import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { baseName } from '../../lib/job/layout.ts'
import type { Result } from '../../lib/job/result.ts'

// A full disk, a disk that fails to flush, a directory that may not be written, a child that is killed: what is not
// whole never gets its final name (S30), the operator is told, and the same command again goes on.

const MiB = 2 ** 20
const binary = join(root, 'build/out/cowhand')
const here = mkdtempSync(join(tmpdir(), 'cowhand-faults-'))
const store = join(here, 'store')
const images = { small: join(here, 'small.qcow2'), big: join(here, 'big.qcow2') }
const digests: Record<string, string> = {}
let address: string

/** It does not say how large a file is: the disk is full in the middle, and not already in the plan. */
const server = createServer((request, response) => {
  const bytes = readFileSync(join(here, basename(request.url ?? '')))
  response.writeHead(200)
  for (let at = 0; at < bytes.length; at += MiB) response.write(bytes.subarray(at, at + MiB))
  response.end()
})

const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const sh = (script: string, ...words: string[]) => {
  const { status, stdout, stderr } = spawnSync('bash', ['-euc', script, 'bash', ...words], { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
  return stdout
}

type Ran = Partial<Result> & { code: number | null; stderr: string }

/** Run to the end; not synchronously, for the web server is in this very process. */
async function run(argv: string[], onStart: (child: ChildProcess) => void = () => {}): Promise<Ran> {
  const env = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }
  const child = spawn(argv[0] ?? '', argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], env, timeout: 60_000 })
  onStart(child)
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { ...(stdout.startsWith('{') ? (JSON.parse(stdout) as Result) : {}), code, stderr }
}
const places = (instances: string, images = store) => ['--instances', instances, '--store', `dir:${images}`, '--json']
const create = (image: string, ...more: string[]) => ['create', 'vm1', '--image', image, '--root', '1G', ...more]
const fromWeb = (name: keyof typeof images) => create(`${address}/${name}.qcow2`, '--checksum', digests[name] ?? '')

/** A small file system of its own, which only what runs in it sees; it ends with us. */
async function smallDisk(megabytes: number) {
  const mount = mkdtempSync(join(here, 'disk-'))
  const script = 'mount -t tmpfs -o size="$2"m none "$1"; echo ready; read -r _ || :'
  const keeper = spawn('unshare', ['-m', 'sh', '-euc', script, 'sh', mount, `${megabytes}`], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => keeper.stdout.once('data', resolve))
  const inside = ['nsenter', '-m', '-t', `${keeper.pid}`, '--']
  return {
    mount,
    run: (argv: string[], onStart?: (child: ChildProcess) => void) => run([...inside, ...argv], onStart),
    names: (path: string) => namesIn(join(`/proc/${keeper.pid}/root${mount}`, path)),
    remount: async (options: string) => {
      const { code, stderr } = await run([...inside, 'mount', '-o', `remount,${options}`, mount])
      assert.equal(code, 0, stderr)
    },
    [Symbol.asyncDispose]: async () => {
      const ended = new Promise((resolve) => keeper.on('close', resolve))
      keeper.stdin.end()
      await ended
    },
  }
}
const namesIn = (directory: string): string[] => (existsSync(directory) ? readdirSync(directory).sort() : [])
const fresh = () => mkdtempSync(join(here, 'instances-'))

function assertFailed(ran: Ran, code: string, exit = 1): void {
  assert.equal(ran.error?.code, code, `${ran.code} ${ran.error?.message} ${ran.stderr}`)
  assert.equal(ran.code, exit)
  assert.equal(ran.ok, false)
  assert.match(ran.stderr, /^cowhand: Cannot .+\n {2}remedy: .+\n$/m)
  assert.doesNotMatch(ran.stderr, /fault of cowhand/)
}
function assertDone(ran: Ran): void {
  assert.equal(ran.code, 0, ran.error?.message ?? ran.stderr)
}

before(async () => {
  mkdirSync(store)
  writeFileSync(join(here, 'user-data'), '#cloud-config\n')
  for (const [name, megabytes] of [
    ['small', 1],
    ['big', 40],
  ] as const) {
    const raw = join(here, 'raw')
    writeFileSync(raw, randomBytes(megabytes * MiB))
    sh('truncate -s 64M "$1"; qemu-img convert -f raw -O qcow2 "$1" "$2"; rm "$1"', raw, images[name])
    digests[name] = sha256(readFileSync(images[name]))
    assertDone(await run([binary, ...places(fresh()), 'image', 'add', images[name]]))
  }
  sh('gzip -kn "$1"', images.big)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
after(() => {
  server.closeAllConnections()
  server.close()
  rmSync(here, { recursive: true, force: true })
})

describe('a full disk', () => {
  test('in the middle of a download', async () => {
    await using disk = await smallDisk(16)
    const words = [binary, ...places(disk.mount), ...fromWeb('big')]
    const full = await disk.run(words)
    assertFailed(full, 'NO_SPACE')
    assert.equal(full.error?.step, 'cache-base')
    assert.deepEqual(disk.names('_base'), [])
    assert.deepEqual(disk.names('vm1'), [])
    assert.deepEqual(disk.names('locks'), [])
    await disk.remount('size=200m')
    assertDone(await disk.run(words))
    const base = await baseName(digests['big'] ?? '')
    assert.deepEqual(disk.names('_base'), [base, `${base}.json`])
  })

  test('in the middle of a conversion: the download is kept', async () => {
    await using disk = await smallDisk(64)
    const words = [binary, ...places(disk.mount), ...fromWeb('big')]
    assertFailed(await disk.run(words), 'NO_SPACE')
    const base = await baseName(digests['big'] ?? '')
    assert.deepEqual(disk.names('_base'), [`${base}.part`])
    await disk.remount('size=200m')
    const again = await disk.run(words)
    assertDone(again)
    assert.equal(again.bytes?.fetched, 0)
    assert.deepEqual(disk.names('_base'), [base, `${base}.json`])
  })

  test('in the middle of an import', async () => {
    await using disk = await smallDisk(64)
    const words = [binary, ...places(fresh(), `${disk.mount}/store`), 'image', 'add', `${images.big}.gz`]
    assertFailed(await disk.run(words), 'NO_SPACE')
    assert.deepEqual(
      disk.names('store').filter((name) => !name.endsWith('.part')),
      ['locks'],
    )
    await disk.remount('size=200m')
    assertDone(await disk.run(words))
    assert.deepEqual(disk.names('store'), ['big.json', 'big.qcow2.gz', 'locks'])
  })

  test('that the plan foresees is refused, and nothing is written', async () => {
    await using disk = await smallDisk(16)
    assertFailed(await disk.run([binary, ...places(disk.mount), ...create('big')]), 'NO_SPACE', 3)
    assertFailed(await disk.run([binary, ...places(fresh(), disk.mount), 'image', 'add', images.big]), 'NO_SPACE', 3)
    assert.deepEqual(disk.names(''), [])
  })
})

describe('a disk that fails to flush', () => {
  /** Fail the n-th flush of each thread, from the first to one that never comes. */
  const everyFlush = async (
    name: string,
    words: (directory: string) => string[],
    check: (ran: Ran, directory: string) => Promise<void>,
  ) => {
    let failures = 0
    for (let at = 1; ; at += 1) {
      const directory = fresh()
      const log = join(here, `${name}-${at}`)
      const strace = [
        'strace',
        '-f',
        '-qq',
        '-o',
        log,
        '-e',
        'trace=fsync,fdatasync',
        '-e',
        `inject=fsync,fdatasync:error=EIO:when=${at}`,
      ]
      const ran = await run([...strace, binary, ...words(directory)])
      if (!readFileSync(log, 'utf8').includes('(INJECTED)')) {
        assertDone(ran)
        break
      }
      failures += 1
      assert.equal(ran.code, 1, `flush ${at}: ${ran.error?.message} ${ran.stderr}`)
      assert.match(ran.stderr, /^cowhand: Cannot .+\n {2}remedy: .+\n$/m)
      assert.notEqual(ran.error?.code, 'INTERNAL', ran.stderr)
      await check(ran, directory)
      assertDone(await run([binary, ...words(directory)]))
    }
    return failures
  }

  for (const [from, words] of [
    ['the store', () => create('small', '--swap', '1M')],
    ['a web server', () => fromWeb('small')],
  ] as const)
    test(`create from ${from}: no base and no disk gets its name that was not flushed`, async () => {
      const base = await baseName(digests['small'] ?? '')
      const failures = await everyFlush(
        `create-${from.replaceAll(' ', '-')}`,
        (directory) => [...places(directory), ...words()],
        async (_, directory) => {
          const [bases, own] = [namesIn(join(directory, '_base')), namesIn(join(directory, 'vm1'))]
          // A name that is there stands for a whole file: only the flush of its directory came too late.
          if (bases.includes(base))
            sh('qemu-img compare -f raw -F qcow2 "$1" "$2"', join(directory, '_base', base), images.small)
          if (own.includes('disk')) sh('qemu-img check -q -f qcow2 "$1"', join(directory, 'vm1/disk'))
          for (const name of [...bases, ...own].filter((one) => one.endsWith('.json')))
            JSON.parse(readFileSync(join(directory, bases.includes(name) ? '_base' : 'vm1', name), 'utf8'))
          assert.deepEqual(namesIn(join(directory, 'locks')), [])
        },
      )
      assert.ok(failures >= 8, `only ${failures} flushes`)
    })

  test('image add: no image gets its name that was not flushed', async () => {
    const failures = await everyFlush(
      'add',
      (directory) => [...places(directory, join(directory, 'store')), 'image', 'add', images.small],
      async (_, directory) => {
        const file = join(directory, 'store/small.qcow2')
        if (existsSync(file)) assert.equal(sha256(readFileSync(file)), digests['small'])
      },
    )
    assert.ok(failures >= 3, `only ${failures} flushes`)
  })

  test('every name is given to a flushed file, and the directory is flushed after it', async () => {
    const [directory, log] = [fresh(), join(here, 'order')]
    const strace = ['strace', '-f', '-y', '-qq', '-o', log, '-e', 'trace=fsync,fdatasync,rename,renameat,renameat2']
    const own = join(directory, 'own')
    const all = ['--ephemeral', '64M', '--swap', '1M', '--user-data', join(here, 'user-data')]
    for (const words of [['image', 'add', images.small], create('small', ...all)])
      assertDone(await run([...strace, '-A', binary, ...places(directory, own), ...words]))
    // Each line as: what is flushed, or from and to of a rename.
    const events = readFileSync(log, 'utf8')
      .split('\n')
      .map((line) => /sync\(\d+<([^>]+)>|"([^"]+)".*"([^"]+)"/.exec(line)?.slice(1) ?? [])
    const named = events.flatMap(([, from, to], index) =>
      from && to && !to.endsWith('.lock') ? [{ from, to, index }] : [],
    )
    const wanted = [
      '_base/',
      'own/small.qcow2',
      'own/small.json',
      'disk',
      'disk.local',
      'disk.swap',
      'disk.config',
      'instance.json',
      'libvirt.xml',
    ]
    for (const name of wanted)
      assert.ok(
        named.some(({ to }) => to.includes(name)),
        `nothing was named ${name}`,
      )
    for (const { from, to, index } of named) {
      assert.ok(
        events.slice(0, index).some(([flushed]) => flushed === from),
        `${from} was not flushed before it became ${to}`,
      )
      assert.ok(
        events.slice(index).some(([flushed]) => flushed === dirname(to)),
        `${dirname(to)} was not flushed after ${basename(to)} came into it`,
      )
    }
    const flushed = new Set(events.map(([path]) => path))
    assert.ok(flushed.has(directory), `the names of ${directory}/_base and /small were not flushed`)
  })

  test('the very flush of a base that was just made: it has no name', async () => {
    const directory = fresh()
    const base = await baseName(digests['small'] ?? '')
    const path = join(directory, '_base', `${base}.converted`)
    // Of this one file alone, whoever asks for it, qemu-img too.
    const strace = ['strace', '-f', '-qq', '-o', '/dev/null', '-P', path, '-e', 'inject=fsync,fdatasync:error=EIO']
    const ran = await run([...strace, binary, ...places(directory), ...create('small')])
    assert.equal(ran.code, 1, ran.stderr)
    assert.deepEqual(namesIn(join(directory, '_base')), [])
    assertDone(await run([binary, ...places(directory), ...create('small')]))
  })
})

describe('a place that may not be written to', () => {
  test('a read-only file system', async () => {
    await using disk = await smallDisk(16)
    await disk.remount('ro')
    assertFailed(await disk.run([binary, ...places(disk.mount), ...create('small')]), 'NO_PERMISSION', 3)
    assertFailed(
      await disk.run([binary, ...places(fresh(), disk.mount), 'image', 'add', images.small]),
      'NO_PERMISSION',
      3,
    )
    await disk.remount('rw')
    assertDone(await disk.run([binary, ...places(disk.mount), ...create('small')]))
  })

  test("somebody else's directory", async () => {
    const [directory, tool] = [fresh(), join(here, 'cowhand')]
    copyFileSync(binary, tool)
    for (const path of [here, directory, store, tool]) chmodSync(path, 0o755)
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--', tool]
    const ran = await run([...nobody, ...places(directory), ...create('small')])
    assertFailed(ran, 'NO_PERMISSION', 3)
    assert.deepEqual(namesIn(directory), [])
    chownSync(directory, 65534, 65534)
    assertDone(await run([...nobody, ...places(directory), ...create('small')]))
  })
})

describe('a child that is killed', () => {
  /** Processes whose words begin like these, and that have a file of this test open. */
  const below = (words: string): number[] =>
    readdirSync('/proc')
      .filter((pid) => /^\d+$/.test(pid))
      .filter((pid) => {
        try {
          const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
          if (!line.startsWith(words)) return false
          const files = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`))
          return files.some((file) => file.includes(here))
        } catch {
          return false // it has ended
        }
      })
      .map(Number)

  for (const signal of ['SIGKILL', 'SIGTERM'] as const)
    test(`qemu-img in the middle of a conversion, by ${signal}`, async () => {
      const directory = fresh()
      // It is made slow, so that it is met in the middle.
      const slow = [
        'strace',
        '-f',
        '-qq',
        '-o',
        '/dev/null',
        '-e',
        'trace=pwrite64,pwritev',
        '-e',
        'inject=pwrite64,pwritev:delay_enter=20000',
      ]
      let killed = 0
      const ran = await run([...slow, binary, ...places(directory), ...create('big')], async () => {
        for (let tries = 0; killed === 0 && tries < 2000; tries += 1) {
          await sleep(5)
          const [pid] = below('qemu-img convert')
          if (pid === undefined || !namesIn(join(directory, '_base')).some((name) => name.endsWith('.converted')))
            continue
          process.kill(pid, signal)
          killed += 1
        }
      })
      assert.equal(killed, 1)
      assertFailed(ran, 'TOOL_FAILED')
      assert.match(ran.error?.message ?? '', new RegExp(`qemu-img was ended by ${signal}`))
      assert.deepEqual(namesIn(join(directory, '_base')), [])
      assert.deepEqual(namesIn(join(directory, 'vm1')), [])
      assert.deepEqual(namesIn(join(directory, 'locks')), [])
      assertDone(await run([binary, ...places(directory), ...create('big')]))
    })
})
