import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import { awaitConsole, type Pair, type PairHost, startPair } from './pair.ts'
import { patternImage } from './pattern-guest.ts'

// The lab of two hosts itself: what the tests of resize and migration build upon.

const MiB = 2 ** 20
const there = (name: string): string[] => ['ssh', '-o', 'BatchMode=yes', '-o', 'ConnectTimeout=2', name]

async function until(what: string, holds: () => Promise<boolean> | boolean, seconds = 120): Promise<void> {
  const end = performance.now() + seconds * 1000
  while (!(await holds())) {
    assert.ok(performance.now() < end, `after ${seconds} s it was still not so: ${what}`)
    await sleep(50)
  }
}

async function good(host: PairHost, argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(argv)
  assert.equal(code, 0, `${argv.join(' ')} on ${host.name}: ${stderr}`)
  return stdout.trim()
}

describe('two hosts on a wire', () => {
  let pair: Pair
  let a: PairHost
  let b: PairHost
  before(async () => {
    pair = await startPair()
    a = pair.a
    b = pair.b
    mkdirSync(arrived(''), { recursive: true })
  })
  after(() => pair?.stop())

  /** Where disks arrive: the daemon takes nothing that goes elsewhere. */
  const arrival = 'vm.incoming/part'
  const arrived = (name: string): string => b.file(join(b.instances, arrival, name))
  const push = (name: string, to = `${arrival}/`): string[] => [
    ...['rsync', '--ignore-times', `--password-file=${pair.rsync.password}`, join(a.instances, name)],
    `rsync://${pair.rsync.user}@beta/${pair.rsync.module}/${to}`,
  ]
  /** A file of random bytes among alpha's instances. */
  const fill = (name: string, bytes: number): void => writeFileSync(a.file(join(a.instances, name)), randomBytes(bytes))

  test('each root reaches the other by ssh, and finds cowhand there', async () => {
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      assert.equal(
        await good(from, [...there(to.name), 'hostname && command -v cowhand']),
        `${to.name}\n/usr/local/bin/cowhand`,
      )
    }
    const ids = ['cat', '/etc/machine-id', '/proc/sys/kernel/random/boot_id', '/etc/ssh/ssh_host_ed25519_key.pub']
    const [its, others] = [await good(a, ids), await good(b, ids)].map((text) => text.split('\n'))
    for (const [i, id] of (its ?? []).entries()) assert.notEqual(id, others?.[i])
  })

  test('a host that is not known, or a key that is not, is not let through', async () => {
    const stranger = await a.run([...there('beta'), '-o', 'UserKnownHostsFile=/dev/null', 'true'])
    assert.deepEqual([stranger.code, /Host key verification failed/.test(stranger.stderr)], [255, true])
    const nobody = await a.run([...there('beta'), '-o', 'IdentitiesOnly=yes', '-i', '/dev/null', 'true'])
    assert.deepEqual([nobody.code, /Permission denied/.test(nobody.stderr)], [255, true])
  })

  test('rsync pushes to the module of the other host, where disks arrive, and gets nothing from it', async () => {
    fill('pushed', MiB)
    await good(a, push('pushed'))
    assert.deepEqual(readFileSync(arrived('pushed')), readFileSync(a.file(join(a.instances, 'pushed'))))
    const [from = '', to = ''] = push('pushed', `${arrival}/pushed`).slice(-2)
    const refused: [why: string, argv: string[], env?: Record<string, string>][] = [
      ['it gives nothing', ['rsync', `--password-file=${pair.rsync.password}`, to, '/tmp/']],
      ['it takes nothing to elsewhere', push('pushed', '')],
      ['it takes nothing without the password', ['rsync', from, to], { RSYNC_PASSWORD: 'x' }],
      ['not from itself', ['rsync', `--password-file=${pair.rsync.password}`, from, to.replace('beta', 'alpha')]],
    ]
    for (const [why, argv, env] of refused) assert.notEqual((await a.run(argv, env)).code, 0, why)
    assert.deepEqual(readdirSync(b.file(b.instances)), ['vm.incoming'])
  })

  test('the wire carries 1 Gbit/s, or what it is told to, and counts the bytes', async () => {
    fill('big', 100 * MiB)
    fill('other', 100 * MiB)
    const seconds = async (name: string): Promise<number> => {
      const start = performance.now()
      await good(a, push(name))
      return (performance.now() - start) / 1000
    }
    const sent = pair.link.sentBy('alpha')
    const usual = await seconds('big')
    const counted = pair.link.sentBy('alpha') - sent
    assert.ok(counted > 100 * MiB && counted < 110 * MiB, `${counted} bytes for 100 MiB`)
    pair.link.shape('200mbit')
    const slow = await seconds('other')
    pair.link.shape('1gbit')
    // At full rate 0.84 s and 4.2 s; a busy machine may take longer, the wire may not be faster.
    assert.ok(usual > 0.7 && usual < 30, `100 MiB in ${usual} s`)
    assert.ok(slow > 3.5 && slow < 30, `100 MiB at 200 Mbit/s in ${slow} s`)
  })

  test('when the wire is cut nothing comes through, and when it is mended what waited goes on', async () => {
    fill('cut', 100 * MiB)
    pair.link.shape('200mbit')
    const sending = await a.start(push('cut'))
    const sent = pair.link.sentBy('alpha')
    await until('some of it was sent', () => pair.link.sentBy('alpha') > sent + 5 * MiB)
    pair.link.down()
    assert.equal((await a.run([...there('beta'), 'true'])).code, 255)
    assert.ok(!existsSync(arrived('cut')))
    pair.link.up()
    pair.link.shape('1gbit')
    const { code, stderr } = await sending.ended
    assert.equal(code, 0, stderr)
    assert.ok(existsSync(arrived('cut')))
  })

  test('a process can be killed in the midst of its work, by its number or its name, on its host alone', async () => {
    const [one, other, far] = [
      await a.start(['sleep', '600']),
      await a.start(['sleep', '600']),
      await b.start(['sleep', '600']),
    ]
    one.kill()
    assert.equal((await one.ended).code, null)
    assert.equal(await a.killAll('sleep'), 1)
    assert.equal((await other.ended).code, null)
    assert.equal(await a.killAll('sleep'), 0)
    assert.equal(await b.killAll('sleep'), 1)
    assert.equal((await far.ended).code, null)
  })

  test('a daemon that was killed is there again', async () => {
    for (const name of ['sshd', 'rsync']) assert.ok((await b.killAll(name)) > 0)
    await until('ssh is there', async () => (await a.run([...there('beta'), 'true'])).code === 0)
    fill('again', 10)
    await until('the rsync daemon is there', async () => (await a.run(push('again'))).code === 0)
  })

  test('guests run on both hosts, prove their disks after a power-off, and after their host has lost its power', async () => {
    const image = await patternImage()
    const disks = ['--root', '200M', '--ephemeral', '64M', '--swap', '16M', '--memory', '128M', '--network', 'none']
    for (const host of [a, b]) {
      for (const words of [
        ['image', 'add', image, '--name', 'pattern'],
        ['create', `on-${host.name}`, '--image', 'pattern', ...disks],
      ]) {
        const { code, error } = await host.cowhand(words)
        assert.equal(code, 0, error?.message)
      }
    }
    for (const host of [a, b]) await awaitConsole(host, `on-${host.name}`, /PATTERN WRITTEN at boot 1/)
    assert.deepEqual([await a.virsh('list', '--name'), await b.virsh('list', '--name')], ['on-alpha', 'on-beta'])
    const boot = () => good(b, ['cat', '/proc/sys/kernel/random/boot_id'])
    const [id, sent] = [await boot(), pair.link.sentBy('beta')]

    await a.virsh('shutdown', 'on-alpha')
    await Promise.all([
      until('alpha powered off', async () => (await a.virsh('domstate', 'on-alpha')) === 'shut off'),
      b.reboot(),
    ])
    assert.equal(await b.virsh('domstate', 'on-beta'), 'shut off')
    assert.notEqual(await boot(), id)
    assert.ok(pair.link.sentBy('beta') >= sent)
    await good(a, [...there('beta'), 'true'])

    for (const host of [a, b]) await host.virsh('start', `on-${host.name}`)
    const said = await Promise.all(
      [a, b].map((host) =>
        awaitConsole(host, `on-${host.name}`, /boot 2, after a ([a-z -]+)\n[\s\S]*PATTERN GOOD at boot 2/),
      ),
    )
    assert.deepEqual(
      said.map(([, how]) => how),
      ['power-off', 'hard stop'],
    )
    const seen = await awaitConsole(
      a,
      'on-alpha',
      /vda 209715200 bytes\n[\s\S]*vdb 67108864 bytes ext4 LABEL=ephemeral0 [0-9]+K inside\n[\s\S]*vdc 16777216 bytes swap\n/,
    )
    assert.ok(seen)
  })

  test('a guest tells when its disk is not what it was', async () => {
    await a.virsh('destroy', 'on-alpha')
    const disk = join(a.instances, 'on-alpha/disk')
    await good(a, ['qemu-io', '-f', 'qcow2', '-c', 'write -P 7 196M 64k', disk])
    await a.virsh('start', 'on-alpha')
    await awaitConsole(a, 'on-alpha', /bad: vda 196 4\n[\s\S]*PATTERN BAD at boot 3/)
  })

  test('a guest can be told to be deaf to its power button, and how much to write, and knows XFS', async () => {
    const userData = a.file('/var/lib/cowhand/user-data')
    writeFileSync(userData, '#cloud-config\n# pattern-deaf\n# pattern-mib=2\n')
    const words = 'create deaf --image pattern --root 96M --ephemeral 512M --ephemeral-format xfs --memory 128M'.split(
      ' ',
    )
    const { code, error } = await a.cowhand([
      ...words,
      '--network',
      'none',
      '--user-data',
      '/var/lib/cowhand/user-data',
    ])
    assert.equal(code, 0, error?.message)
    await awaitConsole(
      a,
      'deaf',
      /vdb 536870912 bytes xfs LABEL=ephemeral0[\s\S]*wrote vda 94 2\n[\s\S]*PATTERN WRITTEN/,
    )
    await a.virsh('shutdown', 'deaf')
    await sleep(3000)
    assert.equal(await a.virsh('domstate', 'deaf'), 'running')
  })
})

test('one directory of instances can be shared, and another can be elsewhere', async () => {
  const pair = await startPair({ shared: true, b: { instances: '/srv/guests', settings: { base_layout: 'sized' } } })
  try {
    await good(pair.a, ['touch', '/var/lib/cowhand/instances/here'])
    assert.equal(await good(pair.b, ['ls', '/srv/guests']), 'here')
    assert.match(
      await good(pair.b, ['cat', '/etc/cowhand/cowhand.yaml']),
      /^instances: "\/srv\/guests"\n[\s\S]*^base_layout: "sized"$/m,
    )
    assert.ok(existsSync(pair.b.file('/srv/guests/here')))
  } finally {
    await pair.stop()
  }
})

test('the pair ends with the process that started it, even when that is killed', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'cowhand-pair-'))
  const script = `import(${JSON.stringify(join(import.meta.dirname, 'pair.ts'))}).then((m) => m.startPair()).then(({ a, b }) => console.log(a.pid, b.pid))`
  const child = spawn(process.execPath, ['--import', 'tsx', '--eval', script], {
    cwd: root,
    env: { ...process.env, TMPDIR: scratch },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const [said] = (await once(child.stdout, 'data')) as [Buffer]
    // Everything that the pair has started is a descendant of the process, also what another one was its parent of.
    const networkOf = (pid: string): string | undefined => {
      try {
        return readlinkSync(`/proc/${pid}/ns/net`)
      } catch {
        return undefined
      }
    }
    const hosts = String(said).trim().split(' ')
    const networks = hosts.map(networkOf)
    const inside = () =>
      readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && networks.includes(networkOf(pid) ?? ''))
    assert.ok(inside().length >= 2 * 6, 'unshare, the first process, and four daemons on each')
    const wires = () => readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && parentOf(pid) === String(child.pid))
    const wire = wires().filter((pid) => !hosts.includes(pid) && networkOf(pid) !== networkOf('self'))
    assert.equal(wire.length, 1)
    child.kill('SIGKILL')
    await until('every process is gone', () => inside().length === 0 && !existsSync(`/proc/${wire[0]}`))
  } finally {
    child.kill('SIGKILL')
    await rm(scratch, { recursive: true, force: true })
  }
})

function parentOf(pid: string): string | undefined {
  try {
    return /^PPid:\t(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}
