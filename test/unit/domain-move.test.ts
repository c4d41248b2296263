import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  essenceOf,
  foreignDisksIn,
  type MovedDisk,
  moveDomain,
  pluggedIn,
  stateIn,
} from '../../lib/host/domain-move.ts'
import { requireFree, type Ties } from '../../lib/host/libvirt-move.ts'
import { Problem } from '../../lib/job/problem.ts'
import { canonical } from '../lab/xml.ts'

const uuid = '11111111-2222-4333-8444-555555555555'
const from = '/old/instances/vm1'
const to = '/new/instances/vm1'

const chain = (base: string) =>
  `<backingStore type='file'><format type='raw'/><source file='${base}'><seclabel model='dac' relabel='no'/></source><backingStore/></backingStore>`
interface Disk {
  path?: string
  target?: string
  store?: string
  type?: string
  more?: string
}
const disk = ({ path = `${from}/disk`, target = 'vda', store = '', type = 'qcow2', more = '' }: Disk = {}) =>
  `<disk type='file' device='disk'><driver name='qemu' type='${type}' cache='none'/><source file='${path}'/>${store}<target dev='${target}' bus='virtio'/>${more}</disk>`
const cd = (path: string) =>
  `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${path}'/><target dev='sda' bus='scsi'/><readonly/></disk>`
const volumes = `<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='${from}/disk'/><target dev='vdx'/></disk><disk type='network' device='disk'><source protocol='rbd' name='p/v'/><target dev='vdy'/></disk>`
const domain = (devices: string, { os = '', more = '' } = {}) =>
  `<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>vm1</name><uuid>${uuid}</uuid><metadata><a:b xmlns:a="urn:a" c="${from}/disk"/></metadata><os><type>hvm</type>${os}</os><devices>${devices}</devices>${more}</domain>`

const pflash = "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
const own = '/var/lib/libvirt/qemu/nvram/vm1_VARS.fd'
const nvram = (path: string) => `<nvram template='/t.fd'>${path}</nvram>`
const nvramFile = (path: string) => `<nvram type='file' format='raw'><source file='${path}'/></nvram>`

describe('the definition of an instance elsewhere', () => {
  const rows: [when: string, before: string, disks: MovedDisk[], after: string][] = [
    [
      'its disk is there, on the base that is there',
      domain(disk({ store: chain('/old/instances/_base/a') })),
      [{ file: 'disk', format: 'qcow2', base: '/new/instances/_base/b' }],
      domain(disk({ path: `${to}/disk`, store: chain('/new/instances/_base/b') })),
    ],
    [
      'nobody said what it stands on: it is said',
      domain(disk()),
      [{ file: 'disk', format: 'qcow2', base: '/b' }],
      domain(disk({ path: `${to}/disk`, store: chain('/b') })),
    ],
    [
      'merged with its base, it stands on nothing',
      domain(disk({ store: chain('/a') })),
      [{ file: 'disk', format: 'qcow2' }],
      domain(disk({ path: `${to}/disk`, store: '<backingStore/>' })),
    ],
    [
      'a raw disk stays raw',
      domain(disk({ type: 'raw' })),
      [{ file: 'disk', format: 'raw' }],
      domain(disk({ path: `${to}/disk`, type: 'raw' })),
    ],
    [
      'a long chain that became one overlay',
      domain(
        disk({
          store: `<backingStore type='file'><format type='qcow2'/><source file='/m'/>${chain('/a')}</backingStore>`,
        }),
      ),
      [{ file: 'disk', format: 'qcow2', base: '/b' }],
      domain(disk({ path: `${to}/disk`, store: chain('/b') })),
    ],
    [
      'what is said of the device stays, known or not',
      domain(disk({ more: "<iotune><total_bytes_sec>1</total_bytes_sec></iotune><boot order='1'/><new a='b'/>" })),
      [{ file: 'disk', format: 'qcow2', base: '/b' }],
      domain(
        disk({
          path: `${to}/disk`,
          store: chain('/b'),
          more: "<iotune><total_bytes_sec>1</total_bytes_sec></iotune><boot order='1'/><new a='b'/>",
        }),
      ),
    ],
    [
      'several disks, the seed, and a CD of somebody',
      domain(
        disk() + disk({ path: `${from}/disk.local`, target: 'vdb' }) + cd(`${from}/disk.config`) + cd('/iso/x.iso'),
      ),
      [
        { file: 'disk', format: 'qcow2', base: '/b' },
        { file: 'disk.local', format: 'qcow2', base: '/e' },
      ],
      domain(
        disk({ path: `${to}/disk`, store: chain('/b') }) +
          disk({ path: `${to}/disk.local`, target: 'vdb', store: chain('/e') }) +
          cd(`${to}/disk.config`) +
          cd('/iso/x.iso'),
      ),
    ],
    [
      'while it is set aside',
      domain(disk({ path: `${from}_resize/disk` }) + cd(`${from}_resize/disk.config`)),
      [{ file: 'disk', format: 'qcow2', base: '/b' }],
      domain(disk({ path: `${to}/disk`, store: chain('/b') }) + cd(`${to}/disk.config`)),
    ],
    ['volumes are not touched', domain(volumes), [{ file: 'disk', format: 'qcow2', base: '/b' }], domain(volumes)],
    [
      'a directory whose name only begins so is another',
      domain(disk({ path: '/old/instances/vm10/disk' }) + disk({ path: `${from}/sub/disk`, target: 'vdb' })),
      [{ file: 'disk', format: 'qcow2', base: '/b' }],
      domain(disk({ path: '/old/instances/vm10/disk' }) + disk({ path: `${from}/sub/disk`, target: 'vdb' })),
    ],
    [
      'its console.log, however it is written',
      domain(
        `<serial type='pty'><log file='${from}/console.log' append='on'/></serial><serial type='file'><source path='${from}/console.log'/></serial><console type='pty'><log file='/var/log/x'/></console>`,
      ),
      [],
      domain(
        `<serial type='pty'><log file='${to}/console.log' append='on'/></serial><serial type='file'><source path='${to}/console.log'/></serial><console type='pty'><log file='/var/log/x'/></console>`,
      ),
    ],
    [
      'a socket, a share and words for QEMU are none of its files',
      domain(
        `<channel type='unix'><source mode='bind' path='${from}/agent'/></channel><filesystem><source dir='${from}'/></filesystem>`,
        { more: `<qemu:commandline><qemu:arg value='${from}/disk'/></qemu:commandline>` },
      ),
      [],
      domain(
        `<channel type='unix'><source mode='bind' path='${from}/agent'/></channel><filesystem><source dir='${from}'/></filesystem>`,
        { more: `<qemu:commandline><qemu:arg value='${from}/disk'/></qemu:commandline>` },
      ),
    ],
    [
      "its UEFI's variables are where libvirt has them, wherever another host says",
      domain('', { os: pflash + nvram('/etc/shadow') }),
      [],
      domain('', { os: pflash + nvram(own) }),
    ],
    [
      'also in the other way to write it',
      domain('', { os: pflash + nvramFile(`${from}/nvram.fd`) }),
      [],
      domain('', { os: pflash + nvramFile(own) }),
    ],
    [
      'variables that libvirt is still to make',
      domain('', { os: `${pflash}<nvram template='/t.fd'/>` }),
      [],
      domain('', { os: `${pflash}<nvram template='/t.fd'/>` }),
    ],
  ]
  for (const [when, before, disks, after] of rows)
    test(when, () => {
      const moved = moveDomain(before, { name: 'vm1', from, to, disks })
      assert.equal(canonical(moved), canonical(after))
      assert.equal(moveDomain(moved, { name: 'vm1', from: to, to, disks }), moved)
    })

  test('a name with markup in it', () => {
    const odd = '/new/a&b<c'
    const moved = moveDomain(domain(disk()), {
      name: 'vm1',
      from,
      to: odd,
      disks: [{ file: 'disk', format: 'qcow2', base: `${odd}/_base/'"` }],
    })
    assert.match(moved, /\/new\/a&amp;b&lt;c\/disk/)
    assert.match(canonical(moved), /&#39;|'/)
  })
  test('of another domain', () =>
    assert.throws(() => moveDomain(domain('').replace('vm1', 'vm2'), { name: 'vm1', from, to, disks: [] }), {
      code: 'BAD_SPEC',
    }))
  test('no XML', () =>
    assert.throws(() => moveDomain('no', { name: 'vm1', from, to, disks: [] }), { code: 'BAD_SPEC' }))
})

describe("where the state of a guest's firmware is", () => {
  const tpm = (backend: string) => domain(`<tpm model='tpm-crb'>${backend}</tpm>`)
  const rows: [when: string, xml: string, state: ReturnType<typeof stateIn>][] = [
    ['a BIOS has none', domain(''), {}],
    ['the definition says it', domain('', { os: pflash + nvram('/x/y.fd') }), { nvram: '/x/y.fd' }],
    ['as a source', domain('', { os: pflash + nvramFile('/x/y.fd') }), { nvram: '/x/y.fd' }],
    ['libvirt is to say it', domain('', { os: `${pflash}<nvram template='/t'/>` }), { nvram: own }],
    ['libvirt chooses the firmware', domain('').replace('<os>', "<os firmware='efi'>"), { nvram: own }],
    ['it is no file', domain('', { os: `${pflash}<nvram type='network'><source protocol='nbd'/></nvram>` }), {}],
    ['an emulated TPM', tpm("<backend type='emulator' version='2.0'/>"), { tpm: { source: false } }],
    [
      'a TPM with a place of its own',
      tpm("<backend type='emulator'><source type='dir' path='/t'/></backend>"),
      { tpm: { source: true } },
    ],
    ["the host's TPM", tpm("<backend type='passthrough'><device path='/dev/tpm0'/></backend>"), {}],
  ]
  for (const [when, xml, state] of rows) test(when, () => assert.deepEqual(stateIn(xml, 'vm1'), state))
})

describe('disks of a definition', () => {
  test('what does not travel', () => {
    const xml = domain(
      disk() +
        disk({ path: `${from}/disk.config`, target: 'vdb', type: 'raw' }) +
        disk({ path: `${from}/extra.img`, target: 'vdc' }) +
        disk({ path: '/data/x', target: 'vdd' }) +
        disk({ path: '/ro/x', target: 'vde', more: '<readonly/>' }) +
        cd('/iso/x.iso') +
        cd(`${from}/disk.config`) +
        volumes,
    )
    assert.deepEqual(
      foreignDisksIn(xml, from).map(({ path }) => path),
      [`${from}/extra.img`, '/data/x'],
    )
  })

  const two = domain(disk() + disk({ path: '/x', target: 'vdb' }))
  test('the same', () => assert.equal(pluggedIn(domain(disk() + cd('/a')), domain(disk() + cd('/b'))), undefined))
  test('one was plugged in', () =>
    assert.equal(
      pluggedIn(two, domain(disk())),
      'its guest has "/x" as vdb, and would not have it after its next start',
    ))
  test('one was plugged out', () =>
    assert.equal(pluggedIn(domain(disk()), two), 'its definition has "/x" as vdb, and its guest runs without it'))
  test('it stands elsewhere since', () =>
    assert.match(pluggedIn(domain(disk({ path: '/y' })), domain(disk())) ?? '', /^its guest has "\/y"/))
})

describe('a definition and what libvirt has', () => {
  const xml = domain(disk({ store: chain('/b') }))
  const rows: [when: string, other: string, same: boolean][] = [
    [
      'libvirt added to it',
      xml
        .replace('<os>', '<currentMemory>1</currentMemory><os>')
        .replace("bus='virtio'/>", "bus='virtio'/><address type='pci'/>"),
      true,
    ],
    ['capitals in the uuid', xml.replace(uuid, uuid.toUpperCase()), true],
    ['another base', domain(disk({ store: chain('/c') })), false],
    ['no base', domain(disk({ store: '<backingStore/>' })), false],
    ['libvirt is to find the base', domain(disk()), false],
    ['a longer chain', domain(disk({ store: chain('/b').replace('<backingStore/>', chain('/c')) })), false],
    ['an open end', domain(disk({ store: chain('/b').replace('<backingStore/>', '') })), false],
    ['another file', domain(disk({ path: '/x', store: chain('/b') })), false],
    ['another format', domain(disk({ type: 'raw', store: chain('/b') })), false],
    ['another device', domain(disk({ target: 'vdb', store: chain('/b') })), false],
    ['one more disk', domain(disk({ store: chain('/b') }) + disk({ path: '/x', target: 'vdb' })), false],
    ['one disk less', domain(''), false],
    ['another domain', xml.replace(uuid, uuid.replace('1', '9')), false],
  ]
  for (const [when, other, same] of rows) test(when, () => assert.equal(essenceOf(other) === essenceOf(xml), same))
})

describe('what forbids a move', () => {
  const free: Ties = {
    facts: { name: 'vm1', uuid, state: 'running', persistent: true, saved: false },
    xml: domain(disk()),
    live: domain(disk()),
    snapshots: [],
    checkpoints: [],
    jobs: [],
  }
  const uri = 'qemu:///system'
  const tpm = domain(`${disk()}<tpm><backend type='emulator'/></tpm>`)
  const rows: [when: string, ties: Partial<Ties>, code: string | undefined, uri?: string][] = [
    ['nothing', {}, undefined],
    ['nothing, and it is off', { live: undefined, facts: { ...free.facts, state: 'shut off' } }, undefined],
    ['a TPM goes along', { xml: tpm, live: undefined }, undefined],
    ['a transient domain', { facts: { ...free.facts, persistent: false } }, 'UNSUPPORTED'],
    ['saved memory', { facts: { ...free.facts, saved: true } }, 'UNSUPPORTED'],
    ['snapshots', { snapshots: ['s'] }, 'UNSUPPORTED'],
    ['checkpoints', { checkpoints: ['c'] }, 'UNSUPPORTED'],
    ['a job', { jobs: ['Block Copy: [ 9 %]'] }, 'IN_USE'],
    ['a plugged disk', { live: domain(disk() + disk({ path: '/x', target: 'vdb' })) }, 'UNSUPPORTED'],
    ['a disk elsewhere', { xml: domain(disk({ path: '/x' })), live: undefined }, 'NOT_OURS'],
    ['a TPM of another libvirt', { xml: tpm, live: undefined }, 'UNSUPPORTED', 'qemu:///session'],
  ]
  for (const [when, ties, code, at = uri] of rows)
    test(when, () => {
      const look = () => requireFree({ ...free, ...ties }, at, from)
      if (code === undefined) return look()
      assert.throws(
        look,
        (error) => error instanceof Problem && error.code === code && error.message.startsWith('Cannot move "vm1": '),
      )
    })
})
