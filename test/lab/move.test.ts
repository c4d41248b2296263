import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { baseOn, done, good, inside, tree } from './moving.ts'
import { awaitConsole, consoleOf, type Pair, type PairHost, startPair } from './pair.ts'
import { patternImage } from './pattern-guest.ts'
import { canonical } from './xml.ts'

// Whole moves with real guests: each writes a pattern onto its disks, is moved, and proves it after every start.

const MiB = 2 ** 20
const GiB = 2 ** 30
const small = ['--memory', '128M', '--network', 'none']

const inactive = (host: PairHost, name: string): Promise<string> =>
  host.virsh('dumpxml', '--inactive', '--security-info', name)
const stateOn = (host: PairHost, name: string): Promise<string> =>
  host.virsh('domstate', name).catch((error) => (/failed to get domain/.test(`${error}`) ? 'unknown' : `${error}`))
const autostart = async (host: PairHost, name: string): Promise<string | undefined> =>
  /^Autostart: +(\w+)$/m.exec(await host.virsh('dominfo', name))?.[1]
const homes = (host: PairHost, name: string): string[] =>
  readdirSync(host.file(host.instances)).filter((home) => home.startsWith(name))
const digest = (data: Buffer): string => createHash('sha256').update(data).digest('hex')
const booted = (host: PairHost, name: string, boot: number, after = 'power-off'): Promise<RegExpExecArray> =>
  awaitConsole(host, name, new RegExp(`boot ${boot}, after a ${after}\n[\\s\\S]*PATTERN GOOD at boot ${boot}`))

/** The guest runs on this host alone. */
async function runsOnly(on: PairHost, notOn: PairHost, name: string): Promise<void> {
  assert.deepEqual([await stateOn(on, name), await stateOn(notOn, name)], ['running', 'unknown'])
}

async function addPattern(...hosts: PairHost[]): Promise<void> {
  const image = await patternImage()
  for (const host of hosts) await done(host, 'image', 'add', image, '--name', 'pattern')
}

describe('two hosts', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'cowhand-move-'))
  let pair: Pair
  let a: PairHost
  let b: PairHost
  let loop = { device: '', fd: -1, digest: '' }
  /** Of each instance, the definition that it began with. */
  const began = new Map<string, string>()
  const put = (name: string, text: string | Buffer): string => {
    writeFileSync(join(scratch, name), text)
    return join(scratch, name)
  }

  /** A volume: it goes away when nobody has it open any more, and this process is one who has. */
  function attachVolume(): typeof loop {
    const content = randomBytes(4 * MiB)
    writeFileSync(join(scratch, 'volume'), content)
    const device = execFileSync('losetup', ['-f', '--show', join(scratch, 'volume')], { encoding: 'utf8' }).trim()
    const fd = openSync(device, 'r')
    execFileSync('losetup', ['-d', device])
    return { device, fd, digest: digest(content) }
  }

  before(async () => {
    loop = attachVolume()
    // Another place there, so that every path has to be the destination's own.
    pair = await startPair({ b: { instances: '/srv/guests' } })
    a = pair.a
    b = pair.b
    await addPattern(a, b)
    await done(b, 'cache', 'prefetch', 'pattern')

    // By ssh: all that cowhand gives a guest, and a volume that somebody else gave it.
    const volume = `<disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='${loop.device}'/><target dev='vdd' bus='virtio'/><serial>volume-1</serial></disk>`
    const console = inside(a, 'full', 'console.log')
    const template = (more: string, os = '', memory = 128) =>
      `<domain type='qemu'><name>any</name><memory unit='MiB'>${memory}</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type>${os}</os><features><acpi/></features><devices>${more}<serial type='pty'><log file='${console}' append='on'/><target port='0'/></serial></devices></domain>`
    const userData = put('user-data', '#cloud-config\n# pattern-mib=2\n')
    const all = ['--ephemeral', '64M', '--swap', '16M', '--user-data', userData]
    await done(
      a,
      ...words('create full --image pattern --root 200M'),
      ...all,
      '--xml',
      put('full.xml', template(volume)),
    )
    await a.virsh('autostart', 'full')

    // By the rsync daemon: on a sized base, of which nobody knows who made it.
    const sized = [
      'cowhand',
      ...words('create sized --image pattern --root 1G --ephemeral 64M --domain none'),
      ...small,
    ]
    await good(a, 'env', 'COWHAND_BASE_LAYOUT=sized', ...sized)
    for (const name of readdirSync(a.file(baseOn(a, '')))) if (name.endsWith('_1.json')) rmSync(a.file(baseOn(a, name)))
    await a.virsh('define', inside(a, 'sized', 'libvirt.xml'))
    await a.virsh('start', 'sized')

    // Raw, and deaf to its power button: on the same host.
    const seed = put('deaf-data', '#cloud-config\n# pattern-mib=2\n# pattern-deaf\n')
    await done(a, ...words('create deaf --image pattern --root 96M --domain none --user-data'), seed, ...small)
    const disk = inside(a, 'deaf', 'disk')
    await good(a, 'qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', disk, `${disk}.raw`)
    await good(a, 'mv', `${disk}.raw`, disk)
    writeFileSync(a.file(inside(a, 'deaf', 'disk.info')), JSON.stringify({ [disk]: 'raw' }))
    const definition = a.file(inside(a, 'deaf', 'libvirt.xml'))
    const plain = readFileSync(definition, 'utf8')
      .replace(/<backingStore[\s\S]*?<backingStore\/>\s*<\/backingStore>/, '')
      .replace("type='qcow2'", "type='raw'")
    writeFileSync(definition, plain)
    await a.virsh('define', inside(a, 'deaf', 'libvirt.xml'))
    await a.virsh('start', 'deaf')

    // Off, with a UEFI that remembers something, and a disk that is on a server.
    const uefi =
      "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>"
    const remote =
      "<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='x'><host name='127.0.0.1' port='10809'/></source><target dev='vdx' bus='virtio'/><iotune><total_bytes_sec>1048576</total_bytes_sec></iotune></disk>"
    const off = put('off.xml', template(remote + volume, uefi, 64).replace("machine='pc'", "machine='q35'"))
    await done(a, ...words('create off --image pattern --root 64M --domain define --xml'), off)
    await a.virsh('autostart', 'off')
    for (const name of ['full', 'sized', 'deaf', 'off']) began.set(name, await inactive(a, name))
  })
  after(async () => {
    if (loop.fd >= 0) closeSync(loop.fd)
    await pair?.stop()
    rmSync(scratch, { recursive: true, force: true })
  })

  const words = (line: string): string[] => line.split(' ')
  /** The definition there is the one from here, but for the paths, and where a disk stands on another base there. */
  async function hasSameDefinition(name: string, rebased = (xml: string) => xml): Promise<void> {
    const expected = rebased((began.get(name) ?? '').replaceAll(`${a.instances}/`, `${b.instances}/`))
    assert.equal(canonical(await inactive(b, name)), canonical(expected))
  }

  test('a guest that is off stays off: what its UEFI remembers, and that it starts with its host, go along and come back', async () => {
    const nvram = '/var/lib/libvirt/qemu/nvram/off_VARS.fd'
    const variables = Buffer.concat([randomBytes(1024), readFileSync('/usr/share/OVMF/OVMF_VARS_4M.fd').subarray(1024)])
    await good(a, 'mkdir', '-p', '/var/lib/libvirt/qemu/nvram')
    await good(a, 'cp', put('variables', variables), nvram)
    const sum = async (host: PairHost) => (await host.run(['sha256sum', nvram])).stdout.split(' ')[0]
    const was = tree(a.file(inside(a, 'off')))

    await done(a, ...words('migrate off --to beta'))
    assert.deepEqual([await stateOn(a, 'off'), await stateOn(b, 'off')], ['unknown', 'shut off'])
    assert.deepEqual([await sum(b), await sum(a)], [digest(variables), ''])
    assert.equal(await autostart(b, 'off'), 'enable')
    await hasSameDefinition('off')

    await done(a, ...words('revert off --yes'))
    assert.deepEqual([await stateOn(a, 'off'), await stateOn(b, 'off')], ['shut off', 'unknown'])
    assert.deepEqual([await sum(a), await sum(b)], [digest(variables), ''])
    assert.equal(await autostart(a, 'off'), 'enable')
    assert.equal(canonical(await inactive(a, 'off')), canonical(began.get('off') ?? ''))
    assert.deepEqual(tree(a.file(inside(a, 'off'))).map(isSettled), was.map(isSettled))
    assert.deepEqual([homes(a, 'off'), homes(b, 'off')], [['off'], []])
  })

  const written = (name: string) => awaitConsole(a, name, /PATTERN WRITTEN at boot 1/)

  test('by ssh, there and back again: root, ephemeral, swap, seed, volume', async () => {
    await written('full')
    const sent = pair.link.sentBy('alpha')
    const { downtimeSeconds = 0 } = await done(a, ...words('migrate full --to beta --transport ssh'))
    assert.ok(pair.link.sentBy('alpha') - sent < 24 * MiB, 'without its base')
    assert.ok(downtimeSeconds >= 0)
    await runsOnly(b, a, 'full')
    await hasSameDefinition('full')
    assert.equal(await autostart(b, 'full'), 'enable')
    assert.deepEqual([homes(a, 'full'), homes(b, 'full')], [['full_resize'], ['full']])
    await booted(b, 'full', 2)
    assert.match(
      consoleOf(b, 'full'),
      /WRITTEN at boot 1\n[\s\S]*vda 209715200 bytes\n[\s\S]*vdb 67108864 bytes ext4 LABEL=ephemeral0.*\n[\s\S]*vdc 16777216 bytes swap\n/,
    )

    // What was done to it there would be lost.
    assert.equal((await a.cowhand(['create', 'full', '--image', 'pattern', '--root', '200M'])).code, 3)
    await done(a, ...words('confirm full'))
    assert.deepEqual([homes(a, 'full'), homes(b, 'full')], [[], ['full']])
    await runsOnly(b, a, 'full')

    await done(b, ...words('migrate full --to alpha --transport ssh'))
    await runsOnly(a, b, 'full')
    assert.equal(canonical(await inactive(a, 'full')), canonical(began.get('full') ?? ''))
    await booted(a, 'full', 3)
    await done(b, ...words('confirm full'))
    assert.deepEqual([homes(a, 'full'), homes(b, 'full')], [['full'], []])
    assert.equal(digest(readFileSync(join(scratch, 'volume'))), loop.digest)
  })

  test('by the rsync daemon, with larger disks, from a sized base that nobody has proven; and back', async () => {
    await written('sized')
    const was = tree(a.file(inside(a, 'sized')))
    const larger = words('resize sized --to beta --transport rsyncd --root 2G --ephemeral 128M')
    await done(a, ...larger)
    await runsOnly(b, a, 'sized')
    // It stands on the unsized base there.
    await hasSameDefinition('sized', (xml) => xml.replace(/(_base\/[0-9a-f]{40})_1'/, "$1'"))
    await booted(b, 'sized', 2)
    const said = consoleOf(b, 'sized')
    assert.match(said, new RegExp(`vda ${2 * GiB} bytes`))
    assert.match(said, /wrote vda 2044 4\n[\s\S]*PATTERN GOOD at boot 2/, 'it uses what it was given')
    const inside64 = /vdb 67108864 bytes ext4 LABEL=ephemeral0 ([0-9]+)K inside/.exec(said)?.[1]
    const inside128 = /vdb 134217728 bytes ext4 LABEL=ephemeral0 ([0-9]+)K inside/.exec(said)?.[1]
    assert.ok(Number(inside128) > 1.8 * Number(inside64), `${inside64}K, then ${inside128}K`)

    await done(a, ...words('revert sized --yes'))
    await runsOnly(a, b, 'sized')
    assert.deepEqual([homes(a, 'sized'), homes(b, 'sized')], [['sized'], []])
    assert.equal(canonical(await inactive(a, 'sized')), canonical(began.get('sized') ?? ''))
    await booted(a, 'sized', 2)
    // But for what its guest, which runs again, has written.
    const isOf = (line: string) => !/^(disk|disk\.local|console\.log|instance\.json) /.test(line)
    assert.deepEqual(tree(a.file(inside(a, 'sized'))).filter(isOf), was.filter(isOf))
  })

  test('on the same host: a raw disk of a deaf guest, whose plug is pulled after its time; and back', async () => {
    await written('deaf')
    const start = performance.now()
    await done(a, ...words('resize deaf --root 128M --shutdown-timeout 2s'))
    assert.ok(performance.now() - start > 2000)
    assert.deepEqual(homes(a, 'deaf'), ['deaf', 'deaf_resize'])
    const size = (home: string) => statSync(a.file(inside(a, home, 'disk'))).size
    assert.deepEqual([size('deaf_resize'), size('deaf')], [96 * MiB, 128 * MiB])
    await booted(a, 'deaf', 2, 'hard stop')
    assert.match(consoleOf(a, 'deaf'), /vda 134217728 bytes[\s\S]*wrote vda 126 2\n[\s\S]*PATTERN GOOD at boot 2/)
    assert.equal(canonical(await inactive(a, 'deaf')), canonical(began.get('deaf') ?? ''))

    await done(a, ...words('revert deaf --yes'))
    assert.deepEqual(homes(a, 'deaf'), ['deaf'])
    assert.equal(size('deaf'), 96 * MiB)
    await booted(a, 'deaf', 2, 'hard stop')
    await done(a, ...words('resize deaf --root 128M --shutdown-timeout 0'))
    await done(a, ...words('confirm deaf'))
    assert.deepEqual(homes(a, 'deaf'), ['deaf'])
    assert.equal(await stateOn(a, 'deaf'), 'running')
  })

  const isSettled = (line: string): string => line.replace(/^(instance\.json) .*/, '$1')
})

test('on shared storage nothing is copied or removed: there, larger, and back', async () => {
  const pair = await startPair({ shared: true })
  const { a, b } = pair
  try {
    await addPattern(a)
    await done(a, 'create', 'vm', '--image', 'pattern', '--root', '200M', '--ephemeral', '64M', ...small)
    await awaitConsole(a, 'vm', /PATTERN WRITTEN at boot 1/)
    const inode = (file: string, home = 'vm') => statSync(a.file(inside(a, home, file))).ino
    const [disk, local] = [inode('disk'), inode('disk.local')]
    const definition = await inactive(a, 'vm')

    const sent = pair.link.sentBy('alpha')
    await done(a, 'migrate', 'vm', '--to', 'beta')
    assert.ok(pair.link.sentBy('alpha') - sent < MiB)
    await runsOnly(b, a, 'vm')
    assert.deepEqual([homes(a, 'vm'), inode('disk'), inode('disk.local')], [['vm'], disk, local])
    assert.equal(canonical(await inactive(b, 'vm')), canonical(definition))
    await booted(b, 'vm', 2)
    await done(a, 'confirm', 'vm')
    await runsOnly(b, a, 'vm')

    await done(b, 'resize', 'vm', '--root', '256M', '--to', 'alpha')
    await runsOnly(a, b, 'vm')
    assert.deepEqual([homes(a, 'vm'), inode('disk', 'vm_resize')], [['vm', 'vm_resize'], disk])
    await booted(a, 'vm', 3)
    assert.match(consoleOf(a, 'vm'), /vda 268435456 bytes[\s\S]*wrote vda 252 4\n[\s\S]*PATTERN GOOD at boot 3/)

    await done(b, 'revert', 'vm', '--yes')
    await runsOnly(b, a, 'vm')
    assert.deepEqual([homes(a, 'vm'), inode('disk'), inode('disk.local')], [['vm'], disk, local])
    await booted(b, 'vm', 3)

    // Its pattern was proven: from here on nobody waits for a guest.
    const back = ['migrate', 'vm', '--to', 'alpha', '--shutdown-timeout', '0']
    await done(b, ...back)
    await runsOnly(a, b, 'vm')
    await done(b, 'revert', 'vm', '--yes')
    await runsOnly(b, a, 'vm')
    await done(b, ...back)
    await done(b, 'confirm', 'vm')
    await runsOnly(a, b, 'vm')
    assert.deepEqual([homes(a, 'vm'), inode('disk')], [['vm'], disk])
    assert.equal(canonical(await inactive(a, 'vm')), canonical(definition))
  } finally {
    await pair.stop()
  }
})
