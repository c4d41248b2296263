import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import type { Code } from '../../lib/job/problem.ts'
import { done, good, tree } from './moving.ts'
import { type Pair, type PairHost, startPair } from './pair.ts'

// Whatever would keep a guest from starting at the other host, or its disks from getting there, is told while it runs:
// the guest goes on, and nothing is left of the attempt on either host.

const scratch = mkdtempSync(join(tmpdir(), 'cowhand-refused-'))
const image = join(scratch, 'blank.raw')
const name = 'web1'
let pair: Pair
let a: PairHost
let b: PairHost
/** Definition of its next start, as it was created. */
let xml = ''
let id = ''

before(async () => {
  writeFileSync(image, '')
  truncateSync(image, 2 ** 20)
  pair = await startPair()
  a = pair.a
  b = pair.b
  await done(a, 'image', 'add', image, '--name', 'blank')
  await done(a, 'create', name, '--image', 'blank', '--root', '16M', '--memory', '64M', '--network', 'none')
  xml = await a.virsh('dumpxml', name, '--inactive')
  id = await a.virsh('domid', name)
})
after(async () => {
  await pair?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

/** Its next start is by another definition; the guest runs on by the one that it has. */
async function define(text: string): Promise<void> {
  writeFileSync(a.file('/var/lib/cowhand/next.xml'), text)
  await a.virsh('define', '/var/lib/cowhand/next.xml')
}
const withDevice = (device: string): string => xml.replace('</devices>', `${device}</devices>`)
const cd = (path: string): string =>
  withDevice(
    `<disk type='file' device='cdrom'><source file='${path}'/><target dev='sdz' bus='scsi'/><readonly/></disk>`,
  )
const card = (type: string, source: string): string =>
  withDevice(`<interface type='${type}'><source ${source}/></interface>`)

interface Row {
  when: string
  /** Its definition on alpha. */
  xml?: () => string
  /** What is to be different on the hosts. */
  given?: () => Promise<unknown> | unknown
  words?: string[]
  code: Code
  exit?: number
  says: RegExp
  remedy?: RegExp
}

const rsyncd = ['--transport', 'rsyncd']
const rows: Row[] = [
  {
    when: 'its network is not there',
    xml: () => card('network', "network='lan'"),
    code: 'MISSING_PREREQUISITE',
    says: /^Cannot run "web1": on beta: libvirt has no network "lan", which its network card 52:54:\S+ needs$/,
    remedy: /^on beta: define it/,
  },
  {
    when: 'its network is not active',
    xml: () => card('network', "network='lan'"),
    given: async () => {
      writeFileSync(b.file('/var/lib/cowhand/net.xml'), "<network><name>lan</name><bridge name='virbr7'/></network>")
      await b.virsh('net-define', '/var/lib/cowhand/net.xml')
    },
    code: 'MISSING_PREREQUISITE',
    says: /network "lan", which its network card \S+ needs, is not active$/,
    remedy: /net-start lan$/,
  },
  {
    when: 'its bridge is not there',
    xml: () => card('bridge', "bridge='br7'"),
    code: 'MISSING_PREREQUISITE',
    says: /there is no network device "br7"/,
  },
  {
    when: 'the device of its network card is not there',
    xml: () => card('direct', "dev='eth7' mode='bridge'"),
    code: 'MISSING_PREREQUISITE',
    says: /there is no network device "eth7"/,
  },
  {
    when: 'its CD is not there',
    xml: () => cd('/srv/a.iso'),
    given: () => good(a, 'touch', '/srv/a.iso'),
    code: 'MISSING_PREREQUISITE',
    says: /^Cannot run "web1": on beta: there is no file "\/srv\/a.iso", which its CD sdz needs$/,
    remedy: /virsh change-media web1 sdz --eject/,
  },
  {
    when: 'its CD is in its own directory, and does not travel',
    xml: () => cd(`${a.instances}/${name}/own.iso`),
    code: 'MISSING_PREREQUISITE',
    says: /is "\S+own.iso", in its own directory/,
  },
  {
    when: 'its volume is not there',
    xml: () =>
      withDevice("<disk type='block' device='disk'><source dev='/dev/vg/v'/><target dev='vdx' bus='virtio'/></disk>"),
    code: 'MISSING_PREREQUISITE',
    says: /there is no block device "\/dev\/vg\/v", which its disk vdx needs/,
  },
  {
    when: 'libvirt does not know the secret of its volume',
    xml: () =>
      withDevice(
        "<disk type='network' device='disk'><auth username='u'><secret type='ceph' uuid='11111111-2222-4333-8444-555555555599'/></auth><source protocol='rbd' name='p/v'><host name='h'/></source><target dev='vdx' bus='virtio'/></disk>",
      ),
    code: 'UNSUPPORTED',
    says: /libvirt would not start it: Secret not found/,
  },
  {
    when: 'its firmware and its kernel are not there',
    xml: () => xml.replace('</os>', '<kernel>/srv/vmlinuz</kernel><initrd>/srv/initrd</initrd></os>'),
    code: 'MISSING_PREREQUISITE',
    says: /"\/srv\/vmlinuz", which its kernel needs\n {2}and: Cannot run "web1": on beta: .*"\/srv\/initrd"/,
  },
  {
    when: 'its emulator is not there',
    xml: () => xml.replace(/<emulator>.*?<\/emulator>/, '<emulator>/srv/qemu</emulator>'),
    given: () => good(a, 'ln', '-sfn', '/usr/bin/qemu-system-x86_64', '/srv/qemu'),
    code: 'TOOL_MISSING',
    says: /libvirt would not start it: .*\/srv\/qemu/,
  },
  {
    when: 'it is of KVM, and the other host runs guests without',
    xml: () => xml.replace("<domain type='qemu'", "<domain type='kvm'"),
    code: 'UNSUPPORTED',
    says: /of type kvm, and here guests run without KVM/,
  },
  {
    when: 'it has huge pages, and there are none',
    xml: () => xml.replace('</memory>', '</memory><memoryBacking><hugepages/></memoryBacking>'),
    code: 'UNSUPPORTED',
    says: /huge/,
  },
  {
    when: 'it has more memory than the other host',
    xml: () => xml.replace(/<memory .*?<\/memory>/, "<memory unit='TiB'>64</memory>"),
    code: 'UNSUPPORTED',
    says: /it has 64T of memory, and this host/,
  },
  {
    when: 'it is pinned to processors that are not there',
    xml: () => xml.replace(/<vcpu.*?>/, "<vcpu cpuset='4000-4002'>"),
    code: 'MISSING_PREREQUISITE',
    says: /pinned to processors 4000-4002/,
  },
  {
    when: 'it has a device of its host',
    xml: () =>
      withDevice(
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>",
      ),
    code: 'UNSUPPORTED',
    says: /its guest has a usb device that is a part of its host/,
  },
  {
    when: 'its display listens on an address of its host',
    xml: () => withDevice("<graphics type='vnc' port='-1' listen='10.99.0.1'/>"),
    code: 'MISSING_PREREQUISITE',
    says: /its vnc display listens on 10.99.0.1, which is no address here/,
  },
  {
    when: 'its security label is of a driver that is not there',
    xml: () => xml.replace('</domain>', "<seclabel type='dynamic' model='selinux' relabel='yes'/></domain>"),
    code: 'MISSING_PREREQUISITE',
    says: /no security driver "selinux"/,
  },
  {
    when: 'the directory that it shares is not there, nor that of a log',
    xml: () =>
      withDevice(
        "<filesystem type='mount'><source dir='/srv/share'/><target dir='s'/></filesystem><serial type='pty'><log file='/srv/logs/b.log'/><target port='1'/></serial>",
      ),
    code: 'MISSING_PREREQUISITE',
    says: /"\/srv\/share".*\n.*"\/srv\/logs"/,
  },
  {
    when: 'it could not be started again where it is',
    xml: () => cd('/srv/b.iso'),
    given: () => good(b, 'touch', '/srv/b.iso'),
    code: 'MISSING_PREREQUISITE',
    says: /^Cannot migrate "web1", which could not be started here again: there is no file "\/srv\/b.iso"/,
  },
  {
    when: 'its directory is to be made on a read-only file system',
    given: () => good(b, 'mount', '-o', 'remount,bind,ro', '/var/lib/cowhand'),
    code: 'NO_PERMISSION',
    says: /on beta: the file system is read-only/,
  },
  {
    when: 'the name of its base would not fit into the header',
    given: () => b.configure({ instances: `/srv${`/${'x'.repeat(190)}`.repeat(6)}` }),
    code: 'UNSUPPORTED',
    says: /no room for the name/,
  },
  {
    when: 'the rsync daemon knows another password',
    words: rsyncd,
    given: () =>
      good(a, 'sh', '-c', `echo cowhand:wrong >/etc/cowhand/wrong; chmod 600 /etc/cowhand/wrong`).then(() =>
        a.configure({ rsyncd_secrets: '/etc/cowhand/wrong' }),
      ),
    code: 'AUTH_FAILED',
    says: /its rsync daemon does not let us into module cowhand/,
  },
  {
    when: 'the rsync daemon has no such module',
    words: rsyncd,
    given: () => b.configure({ rsyncd_module: 'other' }),
    code: 'MISSING_PREREQUISITE',
    says: /its rsync daemon has no module other/,
  },
  {
    when: 'no rsync daemon is there',
    words: rsyncd,
    given: () => b.configure({ rsyncd_port: 874 }),
    code: 'HOST_UNREACHABLE',
    exit: 1,
    says: /Cannot send anything to beta/,
  },
  {
    when: 'there is no password for the rsync daemon',
    words: rsyncd,
    given: () => a.configure({ rsyncd_secrets: '/etc/cowhand/none' }),
    code: 'MISSING_PREREQUISITE',
    says: /"\/etc\/cowhand\/none"/,
  },
  {
    when: 'rsync does not run there',
    given: () =>
      good(
        b,
        'sh',
        '-c',
        "printf '#!/bin/sh\\necho broken >&2; exit 5\\n' >/usr/local/bin/rsync; chmod +x /usr/local/bin/rsync",
      ),
    code: 'HOST_UNREACHABLE',
    exit: 1,
    says: /Cannot send anything to beta: .*broken/,
  },
]

describe('a guest that could not go on at the other host is not switched off', () => {
  afterEach(async () => {
    await b.run(['mount', '-o', 'remount,bind,rw', '/var/lib/cowhand'])
    await b.run(['rm', '-f', '/srv/b.iso', '/usr/local/bin/rsync'])
    await b.run(['virsh', '-q', '-c', 'qemu:///system', 'net-undefine', 'lan'])
    for (const host of [a, b]) host.configure({})
    await define(xml)
  })

  for (const { when, xml: next, given, words = [], code, exit = 3, says, remedy } of rows)
    test(when, async () => {
      await given?.()
      if (next) await define(next())
      const seen = () => [tree(a.file(a.instances)), tree(b.file(b.instances))]
      const was = seen()
      const { code: ended, error } = await a.cowhand(['migrate', name, '--to', 'beta', ...words])
      assert.deepEqual([ended, error?.code], [exit, code], error?.message)
      assert.match(error?.message ?? '', says)
      if (remedy) assert.match(error?.remedy ?? '', remedy)
      assert.equal(await a.virsh('domid', name), id, 'the guest is another, or off')
      assert.equal(await a.virsh('domstate', name), 'running')
      assert.equal(await b.virsh('list', '--all', '--name'), '')
      assert.deepEqual(seen(), was)
    })
})

test('the rsync daemon writes elsewhere: the guest runs on, and nothing is left', async () => {
  const conf = await good(b, 'cat', '/etc/rsyncd.conf')
  const put = (text: string) => good(b, 'sh', '-c', 'cp "$1" /etc/rsyncd.conf', 'sh', text)
  for (const [path, text] of [
    ['elsewhere', conf.replace(/path = .*/, 'path = /srv')],
    ['before', conf],
  ] as const)
    writeFileSync(b.file(`/var/lib/cowhand/${path}`), `${text}\n`)
  const seen = () => [tree(a.file(a.instances), /^(locks|web1\/instance.json)/), tree(b.file(b.instances))]
  const was = seen()
  await put('/var/lib/cowhand/elsewhere')
  const { code, error } = await a.cowhand(['migrate', name, '--to', 'beta', '--transport', 'rsyncd'])
  assert.deepEqual([code, error?.code], [1, 'MISSING_PREREQUISITE'], error?.message)
  assert.match(error?.message ?? '', /is not there on beta \(undone: web1 is as it was, and it runs\)$/)
  assert.equal(await a.virsh('domid', name), id, 'the guest is another, or off')
  await put('/var/lib/cowhand/before')
  assert.deepEqual(seen(), was)
})

test('with all of it there, it goes, and runs there', async () => {
  for (const host of [a, b]) {
    writeFileSync(host.file('/var/lib/cowhand/net.xml'), "<network><name>lan</name><bridge name='virbr7'/></network>")
    await host.virsh('net-define', '/var/lib/cowhand/net.xml')
    await host.virsh('net-start', 'lan')
    await good(host, 'sh', '-c', 'mkdir -p /srv/share /srv/logs; truncate -s 1M /srv/all.iso')
    await good(host, 'ip', 'link', 'add', 'br7', 'type', 'bridge')
  }
  const devices = [
    "<interface type='network'><source network='lan'/></interface>",
    "<interface type='bridge'><source bridge='br7'/></interface>",
    "<disk type='file' device='cdrom'><source file='/srv/all.iso'/><target dev='sdz' bus='scsi'/><readonly/></disk>",
    "<disk type='file' device='cdrom'><source file='/srv/none.iso' startupPolicy='optional'/><target dev='sdy' bus='scsi'/><readonly/></disk>",
    "<disk type='file' device='cdrom'><target dev='sdx' bus='scsi'/><readonly/></disk>",
    "<graphics type='vnc' port='-1' listen='127.0.0.1'/>",
    "<filesystem type='mount'><source dir='/srv/share'/><target dir='s'/></filesystem>",
    "<serial type='pty'><log file='/srv/logs/b.log'/><target port='1'/></serial>",
  ].filter((device) => !device.includes('/dev/loop7'))
  await define(withDevice(devices.join('')))
  await done(a, 'migrate', name, '--to', 'beta', '--shutdown-timeout', '0', ...rsyncd)
  assert.equal(await b.virsh('domstate', name), 'running')
})
