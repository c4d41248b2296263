import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Needs, needsIn } from '../../lib/host/domain-needs.ts'

const directory = '/i/vm1'

interface Xml {
  os?: string
  devices?: string
  more?: string
}
const domain = ({ os = '', devices = '', more = '' }: Xml) =>
  `<domain type='kvm'><name>vm1</name>${more}<os><type>hvm</type>${os}</os><devices>${devices}</devices></domain>`
const disk = (type: string, source: string, device = 'disk') =>
  `<disk type='${type}' device='${device}'><source ${source}/><target dev='vdb'/></disk>`
const card = (type: string, inside: string) =>
  `<interface type='${type}'><mac address='52:54:00:00:00:01'/>${inside}</interface>`
const ofCard = 'its network card 52:54:00:00:00:01'

/** KIND NAME (OF), for each thing. */
const rows: [when: string, xml: Xml, things: string[]][] = [
  [
    'its own files',
    { devices: disk('file', `file='${directory}/disk'`) + disk('file', `file='${directory}/disk.config'`, 'cdrom') },
    [],
  ],
  ['a CD', { devices: disk('file', "file='/iso/a.iso'", 'cdrom') }, ['file /iso/a.iso (its CD vdb)']],
  ['a floppy', { devices: disk('file', "file='/a.img'", 'floppy') }, ['file /a.img (its floppy vdb)']],
  [
    'a CD in its directory',
    { devices: disk('file', `file='${directory}/a.iso'`, 'cdrom') },
    [`file ${directory}/a.iso (its CD vdb)`],
  ],
  ['a CD that may be missing', { devices: disk('file', "file='/a.iso' startupPolicy='optional'", 'cdrom') }, []],
  ['a drive without a medium', { devices: "<disk type='file' device='cdrom'><target dev='sda'/></disk>" }, []],
  ['a block device', { devices: disk('block', "dev='/dev/vg/a'") }, ['block /dev/vg/a (its disk vdb)']],
  ['a network disk', { devices: disk('network', "protocol='rbd' name='p/v'") }, []],
  ['an NVMe disk', { devices: disk('nvme', "type='pci'") }, ['hardware NVMe disk (the guest)']],
  ['a directory as a disk', { devices: disk('dir', "dir='/d'") }, ['directory /d (its disk vdb)']],
  ['a network', { devices: card('network', "<source network='lan'/>") }, [`network lan (${ofCard})`]],
  ['a bridge', { devices: card('bridge', "<source bridge='br0'/>") }, [`link br0 (${ofCard})`]],
  [
    'a device of the host',
    { devices: card('direct', "<source dev='eth0' mode='bridge'/>") },
    [`link eth0 (${ofCard})`],
  ],
  [
    "somebody else's tap",
    { devices: card('ethernet', "<target dev='tap7' managed='no'/>") },
    [`link tap7 (${ofCard})`],
  ],
  ['a tap that libvirt makes', { devices: card('ethernet', "<target dev='tap7'/>") }, []],
  ["QEMU's own network", { devices: card('user', '') }, []],
  ['a passed-through network card', { devices: card('hostdev', '') }, ['hardware network card (the guest)']],
  [
    'a PCI device',
    { devices: "<hostdev mode='subsystem' type='pci'><source/></hostdev>" },
    ['hardware pci device (the guest)'],
  ],
  [
    'a USB device that may be missing',
    { devices: "<hostdev type='usb'><source startupPolicy='optional'/></hostdev>" },
    [],
  ],
  ['a TPM', { devices: "<tpm><backend type='emulator'/></tpm>" }, ['swtpm swtpm (its TPM)']],
  ['the TPM of its host', { devices: "<tpm><backend type='passthrough'/></tpm>" }, ['hardware TPM (the guest)']],
  [
    'a shared directory',
    { devices: "<filesystem type='mount'><source dir='/s'/></filesystem>" },
    ['directory /s (its shared directory)'],
  ],
  [
    'a source of randomness',
    { devices: "<rng><backend model='random'>/dev/hwrng</backend></rng>" },
    ['device /dev/hwrng (its source of randomness)'],
  ],
  [
    'a serial port of the host',
    { devices: "<serial type='dev'><source path='/dev/ttyS0'/></serial>" },
    ['device /dev/ttyS0 (its serial port)'],
  ],
  ['its own log', { devices: `<serial type='pty'><log file='${directory}/console.log'/></serial>` }, []],
  [
    'a log elsewhere',
    { devices: "<serial type='pty'><log file='/logs/a.log'/></serial>" },
    ['directory /logs (its serial port)'],
  ],
  [
    "a socket of libvirt's own",
    { devices: "<channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/x/y'/></channel>" },
    [],
  ],
  [
    'a display',
    {
      devices:
        "<graphics type='vnc' listen='10.0.0.1'><listen type='address' address='10.0.0.2'/><listen type='network' network='lan'/></graphics>",
    },
    ['address 10.0.0.1 (its vnc display)', 'address 10.0.0.2 (its vnc display)', 'network lan (its vnc display)'],
  ],
  [
    'firmware',
    { os: "<loader>/f.fd</loader><nvram template='/t.fd'/>" },
    ['file /f.fd (its firmware)', 'file /t.fd (its firmware)'],
  ],
  [
    'a kernel',
    { os: '<kernel>/k</kernel><initrd>/r</initrd><dtb>/d</dtb>' },
    ['file /k (its kernel)', 'file /r (its initrd)', 'file /d (its device tree)'],
  ],
  [
    'a label',
    { more: "<seclabel model='apparmor'/><seclabel type='none' model='dac'/>" },
    ['label apparmor (its security label)'],
  ],
]

describe('what a definition needs of its host', () => {
  for (const [when, xml, things] of rows)
    test(when, () =>
      assert.deepEqual(
        needsIn(domain(xml), { directory, isNew: true }).things.map(({ kind, name, of }) => `${kind} ${name} (${of})`),
        things,
      ),
    )

  test('a template is needed as long as its guest never ran', () => {
    const xml = domain({ os: "<loader>/f.fd</loader><nvram template='/t.fd'/>" })
    assert.deepEqual(
      needsIn(xml, { directory, isNew: false }).things.map(({ name }) => name),
      ['/f.fd'],
    )
  })

  const numbers: [xml: string, found: Partial<Needs>][] = [
    ['<memory>1024</memory>', { memory: 2 ** 20, hugepages: undefined, pinned: [] }],
    ["<memory unit='b'>1024</memory>", { memory: 1024 }],
    ["<memory unit='bytes'>1024</memory>", { memory: 1024 }],
    ["<memory unit='KB'>1</memory>", { memory: 1000 }],
    ["<memory unit='G'>2</memory>", { memory: 2 ** 31 }],
    ["<memory unit='GiB'>2</memory>", { memory: 2 ** 31 }],
    ['<memoryBacking><hugepages/></memoryBacking>', { hugepages: 0 }],
    ["<memoryBacking><hugepages><page size='2' unit='M'/></hugepages></memoryBacking>", { hugepages: 2 ** 21 }],
    ["<vcpu cpuset='0-3'>1</vcpu><cputune><vcpupin vcpu='0' cpuset='1'/></cputune>", { pinned: ['0-3', '1'] }],
  ]
  for (const [xml, found] of numbers)
    test(xml, () => {
      const needs: Partial<Needs> = needsIn(domain({ more: xml }), { directory, isNew: true })
      for (const [key, value] of Object.entries(found)) assert.deepEqual(needs[key as keyof Needs], value)
    })
})
