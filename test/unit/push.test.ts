import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { endStaleReceivers } from '../../lib/host/receivers.ts'
import { type Push, type PushOptions, push } from '../../lib/host/rsync.ts'
import { sampleRsyncdConf } from '../../lib/host/rsyncd.ts'
import { contentDigest } from '../../lib/image/content.ts'
import { Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'

// Pushes by the real rsync: over a shell that stands for ssh, and to a real daemon, through a wire that counts, and is
// cut. Its rsyncd.conf is the sample.

const MiB = 2 ** 20
const dir = mkdtempSync(join(tmpdir(), 'cowhand-push-'))
const [instances, from, secrets, record] = ['instances', 'from', 'secrets', 'record'].map((name) =>
  join(dir, name),
) as [string, string, string, string]
const stage = join(instances, 'vm1.incoming')
const to = join(stage, 'part')
const shell = join(dir, 'shell')

/** What goes through it is counted, and after so many bytes from the sender it is cut. */
const wire = { sent: 0, cuts: [] as number[], isDown: false }
const lines = new Set<Socket>()
let daemonPort = 0
const proxy = createServer((client) => {
  if (wire.isDown) return void client.destroy()
  const server = connect(daemonPort, '127.0.0.1')
  let passed = 0
  const limit = wire.cuts.shift() ?? Number.POSITIVE_INFINITY
  for (const [one, other] of [
    [client, server],
    [server, client],
  ] as const) {
    lines.add(one)
    one.on('error', () => {})
    one.on('close', () => {
      lines.delete(one)
      other.destroy()
    })
  }
  server.pipe(client)
  client.on('data', (chunk) => {
    wire.sent += chunk.length
    passed += chunk.length
    if (!server.write(chunk)) {
      client.pause()
      server.once('drain', () => client.resume())
    }
    // What was written arrives before the end does.
    if (passed >= limit) server.end(() => client.destroy())
  })
})
let daemon: ChildProcess
let settings: Settings
const listening = (server: typeof proxy): Promise<number> =>
  new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)))

before(async () => {
  for (const path of [instances, from]) mkdirSync(path)
  writeFileSync(secrets, 'cowhand:open sesame\n', { mode: 0o600 })
  // As sshd does: host and options are not for it, and the rest is a command line.
  writeFileSync(shell, '#!/bin/sh\nwhile [ "$1" != there ]; do shift; done\nshift\nexec sh -c "$*"\n', { mode: 0o755 })
  const probe = createServer()
  daemonPort = await listening(probe)
  await new Promise((resolve) => probe.close(resolve))
  const port = await listening(proxy)
  settings = Settings.parse({ instances, rsyncd_port: daemonPort, rsyncd_secrets: secrets, compress: 'none' })
  writeFileSync(join(dir, 'rsyncd.conf'), sampleRsyncdConf(settings))
  settings.rsyncd_port = port
  daemon = spawn('rsync', ['--daemon', '--no-detach', `--config=${dir}/rsyncd.conf`, `--log-file=${dir}/log`], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  for (let tries = 0; ; tries++) {
    const isUp = await new Promise((resolve) => {
      const socket = connect(daemonPort, '127.0.0.1', () => resolve(true)).on('error', () => resolve(false))
      socket.on('close', () => socket.destroy()).end()
    })
    if (isUp) break
    assert.ok(tries < 100, 'the daemon does not come up')
    await sleep(50)
  }
})
after(() => {
  daemon.kill()
  proxy.close()
  for (const line of lines) line.destroy()
  rmSync(dir, { recursive: true })
})

beforeEach(() => {
  mkdirSync(to, { recursive: true })
  Object.assign(wire, { sent: 0, cuts: [], isDown: false })
})
afterEach(async () => {
  await endStaleReceivers(stage)
  for (const directory of [instances, from])
    for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true })
  rmSync(record, { force: true })
})

/** A file to send, of these bytes. */
const file = (name: string, content: Buffer, path = join(from, name)) => {
  writeFileSync(path, content)
  return { name, path, size: content.length }
}
type Transport = Push['transport']
const action = (transport: Transport, files: Push['files'], more: Partial<Push> = {}): Push => ({
  do: 'push',
  host: transport === 'ssh' ? 'there' : '127.0.0.1',
  transport,
  files,
  to,
  record,
  rsyncd: { port: settings.rsyncd_port, module: 'cowhand' },
  ...more,
})
const notices: string[] = []
const options = (more: Partial<PushOptions> = {}): PushOptions => ({
  settings,
  signal: new AbortController().signal,
  ssh: [shell, '-o', 'BatchMode=yes'],
  tell: (event) => event.type === 'notice' && notices.push(event.message),
  pauses: [10, 20, 40],
  timeout: 20,
  ...more,
})
const refused = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => assert.fail('it was done'),
    (error) => (error instanceof Problem ? `${error.code}: ${error.message}` : assert.fail(error)),
  )
const same = (path: string, name: string) => {
  assert.ok(readFileSync(path).equals(readFileSync(join(to, name))), `${name} differs`)
  assert.equal(statSync(join(to, name)).mode & 0o7777, 0o600)
}
/** Everything below the instances, and what is no directory. */
const tree = () =>
  readdirSync(instances, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(instances.length + 1))
    .sort()

/** Processes named rsync that have the test's directory in their words, or work there. */
function rsyncs(): { pid: number; words: string }[] {
  return readdirSync('/proc').flatMap((pid) => {
    try {
      if (readFileSync(`/proc/${pid}/comm`, 'utf8') !== 'rsync\n') return []
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
      const isOurs = words.includes(dir) || readlinkSync(`/proc/${pid}/cwd`).startsWith(dir)
      return isOurs && Number(pid) !== daemon.pid ? [{ pid: Number(pid), words }] : []
    } catch {
      return []
    }
  })
}
async function until(what: string, isSo: () => boolean): Promise<void> {
  for (let tries = 0; !isSo(); tries++) {
    assert.ok(tries < 400, `never: ${what}`)
    await sleep(25)
  }
}
const arrived = (name: string) => (existsSync(join(to, name)) ? statSync(join(to, name)).blocks * 512 : 0)

for (const transport of ['ssh', 'rsyncd'] as const)
  describe(`push by ${transport}`, { concurrency: false }, () => {
    it('sends files of several directories, under the names they are to have, and writes down what was sent', async () => {
      mkdirSync(join(from, 'tpm'))
      mkdirSync(join(from, 'send'))
      const files = [
        file('disk', randomBytes(3 * MiB + 5), join(from, 'send/disk')),
        file('disk.local', randomBytes(MiB)),
        file('tpm/state', Buffer.from('state'), join(from, 'tpm/state')),
        file('base.abc', randomBytes(MiB), join(from, 'abc')),
      ]
      chmodSync(join(from, 'abc'), 0o4755)
      const seen: [number, number | undefined][] = []
      const { sent } = await push(
        action(transport, files),
        options({ onProgress: (done, total) => seen.push([done, total]) }),
      )
      for (const { path, name } of files) same(path, name)
      assert.deepEqual(tree(), files.map(({ name }) => `vm1.incoming/part/${name}`).sort())
      const total = files.reduce((sum, { size }) => sum + size, 0)
      assert.ok(sent >= total && sent < total * 1.02, `${sent} of ${total}`)
      assert.deepEqual(seen.at(-1), [total, total])
      const written = JSON.parse(readFileSync(record, 'utf8'))
      assert.deepEqual(Object.keys(written).sort(), files.map(({ name }) => name).sort())
      for (const { path, name, size } of files)
        assert.deepEqual(written[name], { digest: await contentDigest(path), size })
    })

    it('sends what has the same size and the same second, and only what differs', async () => {
      const content = randomBytes(8 * MiB)
      const disk = file('disk', content)
      utimesSync(disk.path, 1e9, 1e9)
      await push(action(transport, [disk]), options())
      content[5 * MiB] = (content[5 * MiB] ?? 0) ^ 1
      writeFileSync(disk.path, content)
      utimesSync(disk.path, 1e9, 1e9)
      utimesSync(join(to, 'disk'), 1e9, 1e9)
      const { sent } = await push(action(transport, [disk]), options())
      same(disk.path, 'disk')
      assert.ok(sent < 256 * 1024, `${sent} bytes`)
    })

    it('mends a part that is not what it was', async () => {
      const disk = file('disk', randomBytes(8 * MiB))
      writeFileSync(join(to, 'disk'), readFileSync(disk.path).subarray(0, 6 * MiB))
      const fd = openSync(join(to, 'disk'), 'r+')
      writeSync(fd, Buffer.alloc(100_000), 0, 100_000, 2 * MiB)
      truncateSync(join(to, 'disk'), 20 * MiB)
      const { sent } = await push(action(transport, [disk]), options())
      same(disk.path, 'disk')
      assert.ok(sent < 2.5 * MiB, `${sent} bytes`)
    })

    it('leaves holes, and does not send them', async () => {
      const disk = file('disk', randomBytes(2 * MiB))
      const fd = openSync(disk.path, 'r+')
      writeSync(fd, randomBytes(MiB), 0, MiB, 300 * MiB)
      truncateSync(disk.path, 512 * MiB)
      const auto = options({ settings: { ...settings, compress: 'auto' } })
      // On the way to this host nothing else would be compressed.
      const { sent } = await push(action(transport, [disk]), auto)
      execFileSync('cmp', [disk.path, join(to, 'disk')])
      assert.ok(sent < 3 * MiB * 1.02, `${sent} bytes`)
      assert.ok(arrived('disk') <= 3.5 * MiB, `${arrived('disk')} bytes`)
    })

    it('fills the holes of a part, and makes some where it has data', async () => {
      const disk = file('disk', Buffer.concat([Buffer.alloc(8 * MiB), randomBytes(8 * MiB)]))
      writeFileSync(join(to, 'disk'), Buffer.concat([randomBytes(8 * MiB), Buffer.alloc(8 * MiB)]))
      execFileSync('fallocate', ['-d', disk.path])
      await push(action(transport, [disk]), options())
      same(disk.path, 'disk')
      assert.ok(arrived('disk') <= 8.5 * MiB, `${arrived('disk')} bytes`)
    })

    it('keeps to a rate', async () => {
      const start = performance.now()
      await push(action(transport, [file('disk', randomBytes(4 * MiB))], { rate: 2 * MiB }), options())
      const seconds = (performance.now() - start) / 1000
      assert.ok(seconds > 1.2 && seconds < 6, `${seconds} s`)
    })

    it('when a disk is written to meanwhile, says so, and vouches for nothing', async () => {
      const disk = file('disk', randomBytes(4 * MiB))
      const pushed = push(action(transport, [disk], { rate: 4 * MiB }), options())
      await sleep(300)
      const fd = openSync(disk.path, 'r+')
      writeSync(fd, 'x')
      assert.match(await refused(pushed), /^IN_USE: Cannot send "disk" to \S+: ".*\/disk" was written to meanwhile$/)
      assert.ok(!existsSync(record))
    })

    it('ends when it is told to, and leaves no process', async () => {
      const stop = new AbortController()
      const disk = file('disk', randomBytes(8 * MiB))
      const pushed = push(action(transport, [disk], { rate: MiB }), options({ signal: stop.signal }))
      await until('a part', () => arrived('disk') > 0)
      stop.abort(new Problem('failed', 'INTERRUPTED', 'Cannot go on: interrupted', 'again'))
      assert.match(await refused(pushed), /^INTERRUPTED/)
      await until('all ended', () => rsyncs().length === 0)
    })

    it('killed here, it tries again by itself and sends the rest', async () => {
      const disk = file('disk', randomBytes(16 * MiB))
      const pushed = push(action(transport, [disk], { rate: 6 * MiB }), options())
      await until('a part', () => arrived('disk') > 6 * MiB)
      const sender = rsyncs().find(({ words }) => words.startsWith('rsync --ignore-times'))
      process.kill(sender?.pid ?? assert.fail('no sender'), 'SIGKILL')
      const { sent } = await pushed
      same(disk.path, 'disk')
      assert.ok(sent < 10.5 * MiB, `${sent} bytes`)
      assert.deepEqual(tree(), ['vm1.incoming/part/disk'])
    })

    it('its receiver killed, it tries again by itself and sends the rest', async () => {
      const disk = file('disk', randomBytes(16 * MiB))
      notices.length = 0
      const pushed = push(action(transport, [disk], { rate: 6 * MiB }), options())
      await until('a part', () => arrived('disk') > 6 * MiB)
      const isReceiver = ({ words }: { words: string }) => !words.startsWith('rsync --ignore-times')
      for (const { pid } of rsyncs().filter(isReceiver)) process.kill(pid, 'SIGKILL')
      const { sent } = await pushed
      same(disk.path, 'disk')
      assert.ok(sent < 10.5 * MiB, `${sent} bytes`)
      assert.equal(notices.length, 1)
      assert.match(
        notices[0] ?? '',
        /^Cannot send "disk" to \S+: the connection broke.*; trying again in 1 s, from where/,
      )
    })

    it('where it arrives the disk is full: says so at once', { skip: process.geteuid?.() !== 0 }, async () => {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', to])
      try {
        notices.length = 0
        const disk = file('disk', randomBytes(8 * MiB))
        assert.match(await refused(push(action(transport, [disk]), options())), /^NO_SPACE: .*: no space is left on /)
        assert.deepEqual(notices, [])
        await until('all ended', () => rsyncs().length === 0)
      } finally {
        execFileSync('umount', [to])
      }
    })

    it('where it was to arrive is gone: says so, and makes nothing', async () => {
      rmSync(stage, { recursive: true })
      const work = push(action(transport, [file('disk', randomBytes(100))]), options())
      assert.match(await refused(work), /^MISSING_PREREQUISITE: .* is not there on /)
      assert.deepEqual(readdirSync(instances), [])
    })
  })

describe('a wire that is cut', { concurrency: false }, () => {
  it('is tried again, and what arrived is not sent again', async () => {
    const disk = file('disk', randomBytes(32 * MiB))
    notices.length = 0
    wire.cuts = [5 * MiB, 12 * MiB, 3 * MiB]
    await push(action('rsyncd', [disk]), options())
    same(disk.path, 'disk')
    assert.equal(notices.length, 3)
    assert.ok(wire.sent < 33 * MiB, `${wire.sent} bytes`)
  })

  it('and never comes back: HOST_UNREACHABLE; later the same sends the rest', async () => {
    const disk = file('disk', randomBytes(16 * MiB))
    wire.cuts = [8 * MiB]
    const pushed = push(action('rsyncd', [disk]), options())
    await until('the cut', () => wire.sent >= 8 * MiB)
    wire.isDown = true
    assert.match(await refused(pushed), /^HOST_UNREACHABLE: Cannot send "disk" to 127.0.0.1: the connection broke/)
    assert.ok(!existsSync(record))
    wire.isDown = false
    await push(action('rsyncd', [disk]), options())
    same(disk.path, 'disk')
    assert.ok(wire.sent < 16.8 * MiB, `${wire.sent} bytes`)
  })

  it('a link that died with its master is replaced', async () => {
    const dead = join(dir, 'dead')
    writeFileSync(dead, '#!/bin/sh\necho "Connection closed by 10.0.0.1 port 22" >&2\nexit 255\n', { mode: 0o755 })
    const disk = file('disk', randomBytes(MiB))
    let times = 0
    const reconnect = async () => {
      if (++times === 1) throw new Problem('failed', 'HOST_UNREACHABLE', 'Cannot reach "there": no route', 'wait')
      return [shell]
    }
    await push(action('ssh', [disk]), options({ ssh: [dead], reconnect }))
    same(disk.path, 'disk')
    assert.equal(times, 2)
  })
})

describe('who does not get in', { concurrency: false }, () => {
  const disk = () => [file('disk', Buffer.from('disk'))]
  it('with a wrong password', async () => {
    const wrong = join(dir, 'wrong')
    writeFileSync(wrong, 'cowhand:guess\n', { mode: 0o600 })
    const work = push(action('rsyncd', disk()), options({ settings: { ...settings, rsyncd_secrets: wrong } }))
    assert.match(await refused(work), /^AUTH_FAILED: .* does not let us into module cowhand$/)
  })
  it('to a module that there is not', async () => {
    const rsyncd = { port: settings.rsyncd_port, module: 'other' }
    const work = push(action('rsyncd', disk(), { rsyncd }), options())
    assert.match(await refused(work), /^MISSING_PREREQUISITE: .* has no module other$/)
  })
  it('where there is no rsync', async () => {
    const without = { ...settings, remote_cowhand: '/nonexistent/sudo cowhand' }
    const work = push(action('ssh', disk()), options({ settings: without }))
    assert.match(await refused(work), /^TOOL_MISSING: .*: rsync is not installed on there$/)
  })

  // With the password, and words of one's own.
  const url = (path: string) => `rsync://cowhand@127.0.0.1:${daemonPort}/cowhand/${path}`
  const rows: [when: string, words: (path: string) => string[]][] = [
    ['to read a disk', (path) => [url('vm1/disk'), `${path}.read`]],
    ['to read what arrived', (path) => [url('vm1.incoming/part/disk'), `${path}.read`]],
    ['to list', () => [url('')]],
    ['to write into an instance', (path) => [path, url('vm1/disk')]],
    ['to write into an instance, by a detour', (path) => [path, url('vm1.incoming/part/../../vm1/disk')]],
    ['to write a base', (path) => [path, url('_base/')]],
    ['to write beside the part', (path) => [path, url('vm1.incoming/instance.json')]],
    ['to make an instance', (path) => [path, url('vm3/')]],
    ['to delete', (path) => ['-r', '--delete', `${path}.empty/`, url('vm1.incoming/part/')]],
    ['to send links', (path) => ['-l', path, url('vm1.incoming/part/')]],
    ['to send owners', (path) => ['-o', path, url('vm1.incoming/part/')]],
    ['to send devices', (path) => ['-D', path, url('vm1.incoming/part/')]],
    ['to keep backups elsewhere', (path) => ['-b', '--backup-dir=/vm1', path, url('vm1.incoming/part/')]],
    ['to use a directory elsewhere', (path) => ['--temp-dir=/vm1', path, url('vm1.incoming/part/')]],
    ['to take files away', (path) => ['--remove-source-files', url('vm1.incoming/part/disk'), `${path}.read`]],
  ]
  const isOld = /version 3\.[0-3]\./.test(spawnSync('rsync', ['--version'], { encoding: 'utf8' }).stdout)
  // The filter of 3.2 is not asked of a path with dots. (What the module is for, and its password, stay.)
  for (const [when, words] of rows)
    it(`to the daemon ${when}`, { skip: isOld && when.includes('detour') }, () => {
      mkdirSync(join(instances, 'vm1'))
      mkdirSync(join(instances, '_base'))
      writeFileSync(join(instances, 'vm1/disk'), 'running')
      writeFileSync(join(to, 'disk'), 'arrived')
      const [{ path }] = [file('evil', Buffer.from('evil'))]
      mkdirSync(`${path}.empty`)
      const env = { PATH: process.env['PATH'], RSYNC_PASSWORD: 'open sesame' }
      const { status, stdout } = spawnSync('rsync', words(path), { env, encoding: 'utf8', timeout: 20_000 })
      assert.notEqual(status, 0, stdout)
      assert.deepEqual(tree(), ['vm1.incoming/part/disk', 'vm1/disk'])
      assert.equal(readFileSync(join(instances, 'vm1/disk'), 'utf8'), 'running')
      assert.equal(readFileSync(join(to, 'disk'), 'utf8'), 'arrived')
      assert.ok(!existsSync(`${path}.read`))
    })
})

describe('receivers that lost their sender', { concurrency: false }, () => {
  it('are ended where they are told to be, and nowhere else', async () => {
    const elsewhere = join(instances, 'vm2.incoming/part')
    mkdirSync(elsewhere, { recursive: true })
    const disk = file('disk', randomBytes(8 * MiB))
    copyFileSync(disk.path, join(from, 'disk.local'))
    const start = (where: string, ...words: string[]) =>
      spawn('rsync', ['--inplace', '--bwlimit=512', ...words, disk.path, where], {
        stdio: 'ignore',
        env: {
          PATH: process.env['PATH'],
          RSYNC_PASSWORD: 'open sesame',
        },
      })
    const senders = [
      start(`there:${to}/`, '-e', shell),
      start(`rsync://cowhand@127.0.0.1:${daemonPort}/cowhand/vm1.incoming/part/other`),
      start(`there:${elsewhere}/`, '-e', shell),
    ]
    try {
      const other = join(elsewhere, 'disk')
      await until('parts', () => arrived('disk') > 0 && arrived('other') > 0 && existsSync(other))
      // They do not go away by themselves: their sender is there, and silent.
      for (const sender of senders) sender.kill('SIGSTOP')
      assert.ok((await endStaleReceivers(stage)) >= 2)
      const left = rsyncs().map(({ pid }) => readlinkSync(`/proc/${pid}/cwd`))
      assert.ok(!left.some((cwd) => cwd.startsWith(stage)))
      assert.ok(left.some((cwd) => cwd.startsWith(elsewhere)))
      assert.equal(await endStaleReceivers(stage), 0)
    } finally {
      for (const sender of senders) sender.kill('SIGKILL')
      await endStaleReceivers(instances)
    }
  })
  it('where there is no directory there are none', async () =>
    assert.equal(await endStaleReceivers(join(dir, 'no')), 0))
})
