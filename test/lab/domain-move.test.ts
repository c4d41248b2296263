import assert from 'node:assert/strict'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import { root } from '../../build/sh.ts'
import { moveDomain } from '../../lib/host/domain-move.ts'
import type { Result } from '../../lib/job/result.ts'
import { type Host, startHost } from './host.ts'
import { patternImage } from './pattern-guest.ts'
import { canonical } from './xml.ts'

// The domain's part of a resize or migration, with a real libvirtd, UEFI and TPM: every guest is emulated (TCG).

const uri = 'qemu:///system'
const lab = mkdtempSync(join(tmpdir(), 'cowhand-domain-'))
const instances = join(lab, 'instances')
const looker = join(lab, 'looker')
let host: Host

type Ran = Result & { code: number | null }
type Words = Record<string, string | number | boolean>

/** Run one step by the binary. */
async function step(name: string, input: Words): Promise<Ran> {
  const flags = Object.entries(input).flatMap(([flag, value]) => {
    if (typeof value === 'boolean') return value ? [`--${flag}`] : [`--no-${flag}`]
    return [`--${flag}`, String(value)]
  })
  const words = [join(root, 'build/out/cowhand'), 'step', name, ...flags, '--instances', instances, '--json', '--yes']
  const { code, stdout, stderr } = await host.run(words)
  assert.notEqual(stdout, '', stderr)
  return { code, ...(JSON.parse(stdout) as Result) }
}
/** It is done, and to be asked again does nothing. @returns the actions of the first time */
async function twice(name: string, input: Words): Promise<string[]> {
  const first = await step(name, input)
  assert.equal(first.code, 0, first.error?.message)
  const second = await step(name, input)
  assert.deepEqual([second.code, second.changed], [0, false], `${name}, a second time`)
  return (first.steps ?? []).flatMap(({ actions }) => actions.map(({ action }) => action))
}
const refused = async (name: string, input: Words): Promise<string> => {
  const { code, error, changed } = await step(name, input)
  assert.deepEqual([code, changed], [3, false])
  return error?.code ?? ''
}

async function virsh(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(['virsh', '-q', '-c', uri, ...words])
  assert.equal(code, 0, stderr)
  return stdout.trim()
}
const state = (name: string): Promise<string> => virsh('domstate', name)
const inactive = (name: string): Promise<string> => virsh('dumpxml', '--inactive', '--security-info', name)

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const end = performance.now() + 120_000
  while (!(await holds())) {
    assert.ok(performance.now() < end, `after 120 s it was still not so: ${what}`)
    await sleep(100)
  }
}

const inside = (name: string, file = ''): string => join(instances, name, file)
const chain = (base: string): string =>
  `<backingStore type='file'><format type='raw'/><source file='${base}'><seclabel model='dac' relabel='no'/></source><backingStore/></backingStore>`
const base = join(instances, '_base/a')

const uefi =
  "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>"
const tpm = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>"

interface Wish {
  machine?: string
  /** MiB. */
  memory?: number
  os?: string
  devices?: string
  more?: string
  onReboot?: string
}

const uuidOf = (name: string): string =>
  `11111111-2222-4333-8444-${Buffer.from(name).toString('hex').padEnd(12, '0').slice(0, 12)}`

/** An instance with an empty disk, that nothing boots from, on a base. @returns what every step asks for */
async function instance(
  name: string,
  { machine = 'q35', memory = 64, os = '', devices = '', more = '', onReboot = 'restart' }: Wish = {},
) {
  mkdirSync(inside(name), { recursive: true })
  mkdirSync(join(instances, '_base'), { recursive: true })
  const disk = inside(name, 'disk')
  if (!existsSync(base)) await host.run(['qemu-img', 'create', '-q', '-f', 'raw', base, '16M'])
  await host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', disk, '16M'])
  const uuid = uuidOf(name)
  const xml = `<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>${name}</name><uuid>${uuid}</uuid><memory unit='MiB'>${memory}</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='${machine}'>hvm</type>${os}</os><features><acpi/></features><on_reboot>${onReboot}</on_reboot><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='${disk}'/>${chain(base)}<target dev='vda' bus='virtio'/></disk><serial type='pty'><log file='${inside(name, 'console.log')}' append='on'/><target port='0'/></serial>${devices}</devices>${more}</domain>`
  writeFileSync(inside(name, 'libvirt.xml'), xml)
  await virsh('define', inside(name, 'libvirt.xml'))
  return { uri, name, uuid }
}

/** What a move would begin with, or the code of what forbids it. */
async function look(
  name: string,
): Promise<{ code?: string; message?: string; facts?: unknown; autostart?: boolean; nvram?: string; tpm?: unknown }> {
  const { code, stdout, stderr } = await host.run([looker, uri, name, inside(name)])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout)
}

before(async () => {
  await compile('test/lab/domain-child.ts', looker)
  host = await startHost('domain')
})
afterEach(async () => {
  for (const uuid of (await virsh('list', '--uuid')).split('\n').filter(Boolean)) await virsh('destroy', uuid)
})
after(async () => {
  await host?.stop()
  rmSync(lab, { recursive: true, force: true })
})

describe('power-off', () => {
  test('a guest that hears its power button has written everything, and is off', async () => {
    const domain = await instance('listens', { machine: 'pc', memory: 128 })
    const disk = inside('listens', 'disk')
    rmSync(disk)
    assert.equal((await host.run(['cp', await patternImage(), disk])).code, 0)
    await virsh(
      'define',
      file(
        'listens.xml',
        (await inactive('listens')).replace(/<backingStore.*?<backingStore\/>\s*<\/backingStore>/s, '<backingStore/>'),
      ),
    )
    await virsh('start', 'listens')
    const heard = () => readFileSync(inside('listens', 'console.log'), 'utf8')
    await until('it says something', () => /guest: vda/.test(heard()))
    const began = performance.now()
    const actions = await twice('shutdown-domain', { ...domain, 'shutdown-timeout': '50s' })
    assert.deepEqual(actions, ['power-off listens (by its power button, after 50 s by its plug)'])
    assert.ok(performance.now() - began < 50_000, 'it took as long as pulling the plug')
    assert.equal(await virsh('domstate', '--reason', 'listens'), 'shut off (shutdown)')
    assert.match(heard(), /guest: power button/)
  })

  test('a deaf one loses its power after the time that it was given', async () => {
    const domain = await instance('deaf')
    await virsh('start', 'deaf')
    const began = performance.now()
    await twice('shutdown-domain', { ...domain, 'shutdown-timeout': '2s' })
    const seconds = (performance.now() - began) / 1000
    assert.ok(seconds > 2 && seconds < 10, `${seconds} s`)
    assert.equal(await virsh('domstate', '--reason', 'deaf'), 'shut off (destroyed)')
  })

  test('0: at once, also one that is paused; else that one is for people to decide', async () => {
    const domain = await instance('paused')
    await virsh('start', 'paused', '--paused')
    assert.equal(await refused('shutdown-domain', { ...domain, 'shutdown-timeout': '10s' }), 'UNSUPPORTED')
    assert.equal(await state('paused'), 'paused')
    await twice('shutdown-domain', { ...domain, 'shutdown-timeout': '0' })
    assert.equal(await state('paused'), 'shut off')
  })

  test('another domain of this name is left alone', async () => {
    const domain = await instance('theirs')
    await virsh('start', 'theirs')
    const other = { ...domain, uuid: uuidOf('ours') }
    assert.equal(await refused('shutdown-domain', { ...other, 'shutdown-timeout': '0' }), 'DOMAIN_EXISTS')
    assert.equal(await state('theirs'), 'running')
  })

  test('interrupted, it ends at once; the same again goes on', async () => {
    const domain = await instance('waits')
    await virsh('start', 'waits')
    const flags = Object.entries({ ...domain, 'shutdown-timeout': '50s' }).flatMap(([flag, value]) => [
      `--${flag}`,
      value,
    ])
    const words = [join(root, 'build/out/cowhand'), 'step', 'shutdown-domain', ...flags, '--instances', instances]
    const began = performance.now()
    const { code } = await host.run(['timeout', '--preserve-status', '-s', 'TERM', '2', ...words])
    assert.ok(performance.now() - began < 6000)
    assert.equal(code, 143)
    assert.equal(await state('waits'), 'running')
    await twice('shutdown-domain', { ...domain, 'shutdown-timeout': '1s' })
  })
})

describe('wait until it runs', () => {
  test('one that runs', async () => {
    const domain = await instance('runs')
    assert.equal((await step('await-domain', domain)).code, 1, 'off: nothing starts it')
    await virsh('start', 'runs')
    assert.deepEqual(await twice('await-domain', domain), [])
  })

  test('one that ends as soon as it is started, is told at once', async () => {
    const domain = await instance('ends', { os: "<bios rebootTimeout='0'/>", onReboot: 'destroy' })
    await virsh('start', 'ends')
    const began = performance.now()
    let ran = await step('await-domain', { ...domain, 'start-timeout': '50s' })
    // How long its BIOS takes is not for us to say.
    while (ran.code === 0) ran = await step('await-domain', { ...domain, 'start-timeout': '50s' })
    assert.ok(performance.now() - began < 40_000)
    assert.equal(ran.error?.code, 'NOT_SETTLED')
    assert.match(ran.error?.message ?? '', /ended as soon as it was started/)
    assert.match(ran.error?.remedy ?? '', /console\.log/)
  })

  test('one that does not get to run', async () => {
    const domain = await instance('hangs')
    await virsh('start', 'hangs', '--paused')
    const { code, error } = await step('await-domain', { ...domain, 'start-timeout': '1s' })
    assert.equal(code, 1)
    assert.equal(error?.message, 'Cannot see "hangs" running: after 1 s it is paused')
    setTimeout(() => void virsh('resume', 'hangs'), 3000)
    assert.deepEqual(await twice('await-domain', { ...domain, 'start-timeout': '20s' }), [
      'await hangs (running, 20 s)',
    ])
  })
})

const file = (name: string, text: string): string => {
  const path = join(lab, name)
  writeFileSync(path, text)
  return path
}

describe('the definition elsewhere', () => {
  test('defined there, libvirt has the same, but for the paths and what the disk stands on', async () => {
    const devices = `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${inside('goes', 'disk.config')}'/><target dev='sda' bus='scsi'/><readonly/></disk><disk type='file' device='cdrom'><target dev='sdb' bus='scsi'/><readonly/></disk><disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='x'><host name='127.0.0.1' port='10809'/></source><target dev='vdx' bus='virtio'/><iotune><total_bytes_sec>1048576</total_bytes_sec></iotune></disk><disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/null'/><target dev='vdy' bus='virtio'/></disk><graphics type='vnc' port='-1' autoport='yes' passwd='secret'/>${tpm}`
    const more = `<qemu:commandline><qemu:arg value='-no-hpet'/><qemu:env name='A' value='${inside('goes', 'disk')}'/></qemu:commandline>`
    const { name, uuid } = await instance('goes', { os: uefi, devices, more })
    await virsh('metadata', name, 'urn:cowhand:test', '--key', 't', '--set', '<a b="c &amp; d">e</a>', '--config')
    // What libvirt adds by itself it puts in another place once it reads it again.
    await virsh('define', file('was.xml', await inactive(name)))
    const was = await inactive(name)
    const to = join(lab, 'elsewhere/goes')
    const moved = moveDomain(was, {
      name,
      from: inside('goes'),
      to,
      disks: [{ file: 'disk', format: 'qcow2', base: '/elsewhere/_base/b' }],
    })
    await virsh('undefine', '--nvram', uuid)
    await virsh('define', '--validate', file('moved.xml', moved))
    const expected = was
      .replaceAll(`<source file='${inside('goes')}/`, `<source file='${to}/`)
      .replaceAll(`<log file='${inside('goes')}/`, `<log file='${to}/`)
      .replace(`<source file='${base}'>`, "<source file='/elsewhere/_base/b'>")
    assert.notEqual(expected, was)
    assert.match(was, /passwd='secret'/)
    assert.equal(canonical(await inactive(name)), canonical(expected))
  })

  test('replace-domain has libvirt know what a disk stands on now, and whether it starts with the host', async () => {
    const domain = await instance('anew')
    const xml = file('anew.xml', (await inactive('anew')).replace(base, `${base}.b`))
    const given = { ...domain, xml, autostart: true }
    assert.equal(await refused('replace-domain', { ...given, uuid: uuidOf('ours') }), 'DOMAIN_EXISTS')
    const actions = await twice('replace-domain', given)
    assert.deepEqual(actions, [`virsh -q -c ${uri} define ${xml}`, `virsh -q -c ${uri} autostart ${domain.uuid}`])
    assert.match(await inactive('anew'), new RegExp(`<source file='${base}.b'>`))
    assert.match(await virsh('dominfo', 'anew'), /^Autostart:\s+enable$/m)
    await virsh('undefine', domain.uuid)
    assert.equal((await twice('replace-domain', given)).length, 2, 'one that is not there is defined')
    // Its first definition, which libvirt has made longer, is one too.
    await virsh('undefine', domain.uuid)
    const written = { ...domain, xml: inside('anew', 'libvirt.xml') }
    assert.equal((await twice('replace-domain', written)).length, 1)
    await virsh('start', 'anew')
    assert.deepEqual(await twice('replace-domain', written), [])
    assert.equal(await refused('replace-domain', given), 'IN_USE')
  })
})

describe('what forbids a move', () => {
  const rows: [when: string, begin: (name: string) => Promise<unknown>, code: string][] = [
    ['saved memory', (name) => virsh('managedsave', name), 'UNSUPPORTED'],
    ['a snapshot', (name) => virsh('snapshot-create-as', name, 's1'), 'UNSUPPORTED'],
    [
      'a checkpoint',
      (name) => virsh('checkpoint-create-as', name, 'c1', '--diskspec', 'vda,checkpoint=bitmap'),
      'UNSUPPORTED',
    ],
    [
      'a disk that was plugged in',
      async (name) => {
        const extra = inside(name, 'extra')
        await host.run(['qemu-img', 'create', '-q', '-f', 'raw', extra, '1M'])
        await virsh('attach-disk', name, extra, 'vdb', '--live')
      },
      'UNSUPPORTED',
    ],
    [
      'a disk of somebody else',
      async (name) => {
        const extra = join(lab, `${name}.img`)
        await host.run(['qemu-img', 'create', '-q', '-f', 'raw', extra, '1M'])
        await virsh('attach-disk', name, extra, 'vdb', '--live', '--config')
      },
      'NOT_OURS',
    ],
    [
      'a copy of a disk is being made',
      (name) => virsh('blockcopy', name, 'vda', join(lab, `${name}.copy`), '--transient-job'),
      'IN_USE',
    ],
    [
      'a backup is being made',
      async (name) => {
        const scratch = join(lab, `${name}.scratch`)
        const server = `<server transport='unix' socket='${lab}/${name}.sock'/>`
        const disks = `<disks><disk name='vda' type='file'><scratch file='${scratch}'/></disk></disks>`
        await virsh(
          'backup-begin',
          name,
          file('backup.xml', `<domainbackup mode='pull'>${server}${disks}</domainbackup>`),
        )
      },
      'IN_USE',
    ],
  ]
  for (const [index, [when, begin, code]] of rows.entries())
    test(when, async () => {
      const name = `tied${index}`
      await instance(name)
      await virsh('start', name)
      assert.equal((await look(name)).code, undefined)
      await begin(name)
      const found = await look(name)
      assert.equal(found.code, code)
      assert.match(found.message ?? '', new RegExp(`^Cannot move "${name}": `))
    })

  test('nothing: what goes along is told', async () => {
    const { uuid } = await instance('free', { os: uefi, devices: tpm })
    await virsh('autostart', 'free')
    const { facts, autostart, nvram, tpm: its } = await look('free')
    assert.deepEqual(
      { facts, autostart, nvram, its },
      {
        facts: { name: 'free', uuid, state: 'shut off', autostart: true, persistent: true, saved: false },
        autostart: true,
        nvram: '/var/lib/libvirt/qemu/nvram/free_VARS.fd',
        its: { directory: `/var/lib/libvirt/swtpm/${uuid}` },
      },
    )
    assert.equal(await look('nobody'), null)
  })
})

describe("what a guest's UEFI and TPM remember", () => {
  /** Of a file that only the host sees. */
  const digest = async (path: string): Promise<string> =>
    (await host.run(['sha256sum', path])).stdout.split(' ')[0] ?? ''
  const digestHere = async (path: string): Promise<string> => digest(path)

  test('is kept, goes along, and is in its place again', async () => {
    const domain = await instance('remembers', { os: uefi, devices: tpm })
    const { uuid } = domain
    const [nvram, remembered] = [
      '/var/lib/libvirt/qemu/nvram/remembers_VARS.fd',
      `/var/lib/libvirt/swtpm/${uuid}/tpm2/tpm2-00.permall`,
    ]
    const directory = inside('remembers')
    await virsh('start', 'remembers')
    // The UEFI writes its boot entries, and talks to the TPM.
    const fresh = await digest('/usr/share/OVMF/OVMF_VARS_4M.fd')
    await until('the UEFI has written its variables', async () => (await digest(nvram)) !== fresh)
    assert.equal(await refused('collect-state', { ...domain, directory }), 'IN_USE')
    await virsh('destroy', 'remembers')
    const was = [await digest(nvram), await digest(remembered)]
    const definition = await inactive('remembers')

    await twice('collect-state', { ...domain, directory })
    assert.deepEqual(
      await Promise.all(['nvram.fd', 'tpm/tpm2-00.permall'].map((name) => digestHere(inside('remembers', name)))),
      was,
    )
    assert.equal(readFileSync(inside('remembers', 'definition.xml'), 'utf8').trim(), definition)
    for (const name of ['definition.xml', 'nvram.fd', 'tpm/tpm2-00.permall'])
      assert.equal(statSync(inside('remembers', name)).mode & 0o777, 0o600, name)

    await twice('undefine-domain', domain)
    assert.equal((await host.run(['ls', '-d', nvram, remembered])).code, 2, 'libvirt has removed them')
    // Cut off after a part of it, it goes on.
    await host.run(['mkdir', '-p', `/var/lib/libvirt/swtpm/${uuid}/tpm2`])
    await twice('place-state', { ...domain, directory })
    assert.deepEqual([await digest(nvram), await digest(remembered)], was)
    assert.deepEqual(
      readdirSync(directory).filter((name) => /nvram|tpm/.test(name)),
      [],
      'old ones are not kept',
    )
    await twice('replace-domain', { ...domain, xml: inside('remembers', 'definition.xml') })

    const log = '/var/log/swtpm/libvirt/qemu/remembers-swtpm.log'
    const made = async () => (await host.run(['grep', '-c', 'Starting vTPM manufacturing', log])).stdout.trim()
    const before = await made()
    await virsh('start', 'remembers')
    await twice('await-domain', domain)
    assert.equal(await made(), before, 'a TPM was made anew')
    const owner = async (path: string) => (await host.run(['stat', '-c', '%U %a', path])).stdout.trim()
    assert.equal(await owner(remembered), 'tss 600')
    // While it runs, nothing is put under its feet.
    writeFileSync(inside('remembers', 'nvram.fd'), 'old')
    assert.equal(await refused('place-state', { ...domain, directory }), 'IN_USE')
    await virsh('destroy', 'remembers')
    assert.equal((await step('remove-instance', { directory })).code, 0)
    assert.ok(!existsSync(directory))
  })

  test('planted links are not followed', async () => {
    const domain = await instance('planted', { os: uefi, devices: tpm })
    const directory = inside('planted')
    const secret = file('secret', 'secret')
    const nvram = '/var/lib/libvirt/qemu/nvram/planted_VARS.fd'
    await host.run(['ln', '-s', secret, nvram])
    assert.equal(await refused('collect-state', { ...domain, directory }), 'NOT_OURS')
    await host.run(['ln', '-f', secret, nvram])
    assert.equal(await refused('collect-state', { ...domain, directory }), 'NOT_OURS')
    await host.run(['rm', nvram])
    writeFileSync(inside('planted', 'nvram.fd'), 'mine')
    await host.run(['ln', '-s', secret, `${nvram}.part`])
    const { code } = await step('place-state', { ...domain, directory })
    assert.notEqual(code, 0)
    assert.equal(readFileSync(secret, 'utf8'), 'secret')
  })
})

describe('a disk of a running guest', () => {
  test('grows, is seen to have grown, and never shrinks', async () => {
    const domain = await instance('grows')
    const disk = inside('grows', 'disk')
    const size = async () => Number(/^Capacity:\s+(\d+)$/m.exec(await virsh('domblkinfo', 'grows', 'vda'))?.[1])
    assert.equal(await refused('blockresize-disk', { ...domain, disk, size: '32M' }), 'MISSING_PREREQUISITE')
    await virsh('start', 'grows')
    const actions = await twice('blockresize-disk', { ...domain, disk, size: '32M' })
    assert.deepEqual(actions, [`virsh -q -c ${uri} blockresize ${domain.uuid} ${disk} ${2 ** 25}B`])
    assert.equal(await size(), 2 ** 25)
    assert.equal(await refused('blockresize-disk', { ...domain, disk, size: '16M' }), 'UNSUPPORTED')
    assert.equal(
      await refused('blockresize-disk', { ...domain, disk: join(lab, 'other'), size: '64M' }),
      'MISSING_PREREQUISITE',
    )
    assert.equal(
      await refused('blockresize-disk', { ...domain, uuid: uuidOf('ours'), disk, size: '64M' }),
      'DOMAIN_EXISTS',
    )
    assert.equal(await size(), 2 ** 25)
    assert.equal(readFileSync(disk).readBigUInt64BE(24), BigInt(2 ** 25), 'its header says so too')
  })
})
