import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { domainOn, type Faulty, filesOf, oldOf, processesOf, startFaulty, stateOf } from './faulty.ts'
import type { Ran, Started } from './host.ts'
import { done, good, inside } from './moving.ts'
import type { PairHost } from './pair.ts'

// A migration between two hosts, while what it needs breaks: programs that are killed in mid-transfer, the wire, space,
// power, and the operator's patience. It goes on by itself, or everything is as it was, and the same command again ends
// well, without sending again what arrived.

const MiB = 2 ** 20
/** What its guest wrote: that is what travels. */
const written = 24 * MiB
const migrate = (name: string): string[] => ['migrate', name, '--to', 'beta', '--shutdown-timeout', '0']
const revert = (name: string): string[] => ['revert', name, '--yes']

let lab: Faulty
let a: PairHost
let b: PairHost
const scratch = mkdtempSync(join(tmpdir(), 'cowhand-move-faults-'))
/** Without a guest, and with one that idles: nothing can be booted from its disk. */
const disks = { name: 'disks', hasLibvirt: false, old: undefined as unknown, end: undefined as unknown }
const guest = { ...disks, name: 'guest', hasLibvirt: true }
type Subject = typeof disks

let used = disks
function use(its: Subject): void {
  used = its
  lab.configure(its.hasLibvirt ? {} : { libvirt_uri: undefined })
}

async function until(what: string, holds: () => unknown, seconds = 60): Promise<void> {
  const end = performance.now() + seconds * 1000
  while (!(await holds())) {
    assert.ok(performance.now() < end, `after ${seconds} s it was still not so: ${what}`)
    await sleep(2)
  }
}

/** Start it, and be there when so many bytes were sent. */
async function inTransfer(words: string[], bytes = 6 * MiB): Promise<{ running: Started; sent: () => number }> {
  const { link } = lab.pair
  link.shape('60mbit')
  const begin = link.sentBy('alpha')
  const running = await a.start(['cowhand', ...words])
  await until('it is being sent', () => link.sentBy('alpha') > begin + bytes)
  return { running, sent: () => link.sentBy('alpha') - begin }
}
const isGood = ({ code, stderr }: Ran, where = ''): void => assert.equal(code, 0, `${where}: ${stderr}`)
const count = (bytes: number): string => `${(bytes / MiB).toFixed(1)} MiB were sent`

/** The same command, now that nothing is in its way. @returns bytes that it sent */
async function again(name: string, where: string): Promise<number> {
  const { link } = lab.pair
  link.shape('1gbit')
  const begin = link.sentBy('alpha')
  isGood(await lab.run(migrate(name)), where)
  return link.sentBy('alpha') - begin
}

async function assertEnd({ name, hasLibvirt, end }: Subject, where: string): Promise<void> {
  await lab.assertQuiet(where)
  assert.deepEqual(await stateOf(lab, name, hasLibvirt), end, where)
}
/** It is what it was, byte for byte, and runs here alone. @param left what arrived there may still be there */
async function assertOld({ name, hasLibvirt, old }: Subject, where: string, left = false): Promise<void> {
  if (!left) await lab.assertQuiet(where)
  assert.deepEqual(await oldOf(a, name, hasLibvirt), old, where)
  if (!left) assert.deepEqual(filesOf(b, name), [], where)
  if (hasLibvirt && !left) assert.equal(await domainOn(b, name), undefined, where)
}
async function back(its: Subject, where: string): Promise<void> {
  isGood(await lab.run(revert(its.name)), where)
  await assertOld(its, where)
}

/** Of one of these processes, the last that was started is killed. */
function kill(host: PairHost, words: RegExp): void {
  const pid = processesOf(host).findLast((its) => words.test(its.words))?.pid
  assert.ok(
    pid,
    `${host.name} has no ${words}: ${processesOf(host)
      .map((its) => its.words)
      .join('\n')}`,
  )
  process.kill(pid, 'SIGKILL')
}
/** On the way back its files have their own name again before that is done. */
const phaseOf = (name: string): string | undefined => {
  for (const home of [`${name}_resize`, name])
    try {
      const phase = JSON.parse(readFileSync(a.file(inside(a, home, 'instance.json')), 'utf8')).task?.phase
      if (phase) return phase
    } catch {
      // it is not there, or is just being renamed
    }
  return undefined
}

before(async () => {
  lab = await startFaulty()
  a = lab.a
  b = lab.b
  const [image, data] = [join(scratch, 'image'), join(scratch, 'data')]
  writeFileSync(image, randomBytes(2 * MiB))
  writeFileSync(data, randomBytes(written))
  for (const host of [a, b]) await done(host, 'image', 'add', image, '--name', 'image', '--format', 'raw')
  for (const its of [disks, guest]) {
    const { name, hasLibvirt } = its
    use(its)
    const words = ['--image', 'image', '--root', '32M', '--network', 'none', '--memory', '64M']
    await done(a, 'create', name, ...words, '--domain', hasLibvirt ? 'define' : 'none')
    await good(a, 'qemu-io', '-f', 'qcow2', '-c', `write -s ${data} 4M ${written}`, inside(a, name, 'disk'))
    if (hasLibvirt) await a.virsh('start', name)
    its.old = await oldOf(a, name, hasLibvirt)
    isGood(await lab.run(migrate(name)))
    its.end = await stateOf(lab, name, hasLibvirt)
    isGood(await lab.run(revert(name)))
    await assertOld(its, 'undisturbed')
  }
  lab.noteBases()
})
// One that failed is not the end of all that follow.
afterEach(async () => {
  lab.pair.link.up()
  lab.pair.link.shape('1gbit')
  for (const its of [disks, guest]) {
    if (phaseOf(its.name) === undefined) continue
    const before = used
    use(its)
    await lab.run(revert(its.name))
    use(before)
  }
})
after(async () => {
  await lab?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

describe('killed in mid-transfer, it tries again by itself, and sends nothing twice:', () => {
  before(() => use(disks))
  const rows: [what: string, transport: string, host: () => PairHost, words: RegExp][] = [
    ['rsync here', 'ssh', () => a, /^rsync --ignore-times/],
    ['rsync there', 'ssh', () => b, /^rsync --server/],
    ['ssh here', 'ssh', () => a, /^ssh .*__serve/],
    ['sshd there', 'ssh', () => b, /^sshd.*: root/],
    ['cowhand there', 'ssh', () => b, /__serve$/],
    ['rsync here, to the daemon', 'rsyncd', () => a, /^rsync --ignore-times/],
    ['the process of the rsync daemon', 'rsyncd', () => b, /^rsync --daemon/],
  ]
  for (const [what, transport, host, words] of rows)
    test(what, async () => {
      const { running, sent } = await inTransfer([...migrate('disks'), '--transport', transport])
      kill(host(), words)
      isGood(await running.ended, what)
      assert.ok(sent() < written * 1.25, count(sent()))
      await assertEnd(disks, what)
      await back(disks, what)
    })
})

describe('the wire', () => {
  before(() => use(guest))

  test('is cut in mid-transfer and mended after 3 s: it goes on by itself', async () => {
    const { running, sent } = await inTransfer(migrate('guest'))
    lab.pair.link.down()
    await sleep(3000)
    lab.pair.link.up()
    isGood(await running.ended)
    assert.ok(sent() < written * 1.25, count(sent()))
    await assertEnd(guest, 'mended')
    await back(guest, 'mended')
  })

  test('is cut for good: the guest runs again where it was, and later little is left to send', async () => {
    const { running } = await inTransfer(migrate('guest'), 14 * MiB)
    lab.pair.link.down()
    const { code, stderr } = await running.ended
    assert.equal(code, 1, stderr)
    assert.match(stderr, /\(undone: guest is as it was, and it runs; what arrived on beta stays there: /)
    assert.equal(await a.virsh('domstate', 'guest'), 'running')
    lab.pair.link.up()
    const sent = await again('guest', 'mended')
    assert.ok(sent < written * 0.7, count(sent))
    await assertEnd(guest, 'mended')
    await back(guest, 'mended')
  })

  test('is cut for good, and cowhand here was killed: nothing was handed over, so revert needs nobody', async () => {
    const { running } = await inTransfer(migrate('guest'), 14 * MiB)
    running.kill('SIGKILL')
    await running.ended
    lab.pair.link.down()
    const tried = await lab.run(migrate('guest'))
    assert.equal(tried.code, 1, tried.stderr)
    assert.match(tried.stderr, /Cannot reach "beta".*\n.*; or go back: cowhand revert guest$/m)
    assert.equal(await a.virsh('domstate', 'guest'), 'shut off')
    const reverted = await lab.run(revert('guest'))
    isGood(reverted)
    assert.match(reverted.stderr, /what arrived on beta stays there: Cannot reach/)
    assert.equal(await a.virsh('domstate', 'guest'), 'running')
    lab.pair.link.up()
    const list = async (host: PairHost) => (await host.run(['cowhand', 'list'])).stdout
    assert.match(await list(a), /^guest: what came to beta of a move that was given up may still be there/m)
    assert.match(await list(b), /^guest: it is arriving from alpha since .*cowhand step remove-stage/m)
    const sent = await again('guest', 'mended')
    assert.ok(sent < written * 0.7, count(sent))
    await assertEnd(guest, 'mended')
    await back(guest, 'mended')
  })

  /** Once it was handed over nobody here can tell whether it runs there. */
  async function unknown(running: Started): Promise<void> {
    const { code, stderr } = await running.ended
    assert.equal(code, 1, stderr)
    assert.match(stderr, /Cannot tell whether "guest" runs on beta, so it is not started here/)
    assert.equal(await a.virsh('domstate', 'guest'), 'shut off')
    const tried = await lab.run(revert('guest'))
    assert.equal(tried.code, 1, tried.stderr)
    assert.equal(await a.virsh('domstate', 'guest'), 'shut off')
    lab.pair.link.up()
  }

  test('is cut when the guest was just handed over: it is started nowhere until the wire is mended', async () => {
    const running = await a.start(['cowhand', ...migrate('guest')])
    await until('it was handed over', () => phaseOf('guest') === 'handed-over')
    lab.pair.link.down()
    await unknown(running)
    await again('guest', 'mended')
    await assertEnd(guest, 'mended')
    await back(guest, 'mended')
  })

  test('is cut when the guest runs there, and nobody knows: revert brings it back, and it runs here alone', async () => {
    const running = await a.start(['cowhand', ...migrate('guest')])
    await until('it runs there', () => processesOf(b).some(({ words }) => words.includes('guest=guest,')))
    lab.pair.link.down()
    await unknown(running)
    await back(guest, 'mended')
  })
})

describe('space there', () => {
  const small = (size: string) => good(b, 'mount', '-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', b.instances)
  before(() => use(guest))

  test('is too small: it is refused while the guest runs', async () => {
    await small('16M')
    try {
      const { code, stderr } = await lab.run(migrate('guest'))
      assert.equal(code, 3, stderr)
      assert.match(stderr, /only .* free there/)
      assert.deepEqual(await oldOf(a, 'guest', true), guest.old)
      assert.equal(await good(b, 'ls', '-A', b.instances), '')
    } finally {
      await good(b, 'umount', b.instances)
    }
    await assertOld(guest, 'too small')
  })

  test('is taken by others in mid-transfer: the guest runs again where it was, and later it moves', async () => {
    use(disks)
    await small('48M')
    try {
      const { running } = await inTransfer(migrate('disks'))
      await b.run(['sh', '-c', `cat /dev/zero > ${b.instances}/other`])
      const { code, stderr } = await running.ended
      assert.equal(code, 1, stderr)
      // There is not even room for a lock, so that host cannot clear away: the guest does not wait for that.
      assert.match(stderr, /no space is left on beta \(undone: disks is as it was/)
      assert.match(filesOf(a, 'disks').join('\n'), /^disks \d/)
      await good(b, 'rm', join(b.instances, 'other'))
      await again('disks', 'with space')
      isGood(await lab.run(revert('disks')))
    } finally {
      await good(b, 'umount', b.instances)
    }
    await assertOld(disks, 'taken')
  })
})

describe('power is lost', () => {
  before(() => use(guest))

  test('there, in mid-transfer: it goes on by itself when that host is back', async () => {
    const { running, sent } = await inTransfer(migrate('guest'))
    await b.reboot()
    isGood(await running.ended)
    assert.ok(sent() < written * 1.4, count(sent()))
    await assertEnd(guest, 'rebooted')
    await back(guest, 'rebooted')
  })

  test('there, when it had begun to put the instance together: the same command again ends well', async () => {
    const running = await a.start(['cowhand', ...migrate('guest')])
    await until('it is put together', () => existsSync(b.file(inside(b, 'guest.incoming', 'disk'))))
    await b.reboot()
    const { code, stderr } = await running.ended
    assert.equal(code, 1, stderr)
    if (/undone: /.test(stderr)) await assertOld(guest, 'undone')
    else assert.equal(await a.virsh('domstate', 'guest'), 'shut off')
    await again('guest', 'rebooted')
    await assertEnd(guest, 'rebooted')
    await back(guest, 'rebooted')
  })

  for (const [what, next] of [
    ['the same command goes on', again],
    ['revert goes back', undefined],
  ] as const)
    test(`here, in mid-transfer: ${what}`, async () => {
      const { running } = await inTransfer(migrate('guest'), 14 * MiB)
      await a.reboot()
      await running.ended
      assert.equal(await a.virsh('domstate', 'guest'), 'shut off')
      if (next) {
        const sent = await next('guest', what)
        assert.ok(sent < written * 0.7, count(sent))
        await assertEnd(guest, what)
      }
      await back(guest, what)
    })
})

describe('Ctrl-C', () => {
  before(() => use(guest))
  /** Pressed, and what it came to. */
  async function interrupted(running: Started): Promise<string> {
    const { code, stderr } = await running.ended
    assert.equal(code, 130, stderr)
    assert.match(stderr, /interrupted by SIGINT \(undone: guest is as it was, and it runs\)/)
    await assertOld(guest, stderr)
    return stderr
  }

  test('while the other host makes ready', async () => {
    const running = await a.start(['cowhand', ...migrate('guest')])
    await until('it is made ready', () => existsSync(b.file(inside(b, 'guest.incoming'))))
    running.kill('SIGINT')
    await interrupted(running)
  })
  test('while the guest, which is deaf, is asked to switch itself off', async () => {
    const running = await a.start(['cowhand', 'migrate', 'guest', '--to', 'beta', '--shutdown-timeout', '60s'])
    await until('it is ready', () => existsSync(b.file(inside(b, 'guest.incoming', 'reserved/disk'))))
    await sleep(1000)
    running.kill('SIGINT')
    await interrupted(running)
  })
  test('in mid-transfer', async () => {
    const { running } = await inTransfer(migrate('guest'))
    running.kill('SIGINT')
    await interrupted(running)
  })
  test('when the guest was handed over', async () => {
    lab.pair.link.shape('1gbit')
    const running = await a.start(['cowhand', ...migrate('guest')])
    await until('it is put together', () => existsSync(b.file(inside(b, 'guest.incoming', 'disk'))))
    running.kill('SIGINT')
    await interrupted(running)
  })
  test('again, while that is undone: it ends at once, and revert goes back', async () => {
    const { running } = await inTransfer(migrate('guest'))
    running.kill('SIGINT')
    await until('it is undone', () => phaseOf('guest') === 'reverting')
    running.kill('SIGINT')
    const { code, stderr } = await running.ended
    assert.equal(code, 130, stderr)
    await back(guest, stderr)
  })
})

test('a guest that ends as soon as it is started there runs again where it was', async () => {
  use(guest)
  lab.pair.link.shape('1gbit')
  const killer = await b.start(['sh', '-c', 'until pkill -KILL -f "^/usr/bin/qemu-system.*guest=guest,"; do :; done'])
  const { code, stderr } = await lab.run(migrate('guest'))
  killer.kill()
  assert.equal(code, 1, stderr)
  assert.match(stderr, /\(undone: guest is as it was, and it runs\)/)
  await assertOld(guest, stderr)
})
