import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Domain, domainXml } from '../../lib/host/domain.ts'
import { editDomain, volumesIn } from '../../lib/host/domain-xml.ts'
import { Problem } from '../../lib/job/problem.ts'
import { canonical } from '../lab/xml.ts'

const uuid = '11111111-2222-4333-8444-555555555555'
const wish: Domain = {
  name: 'vm1',
  uuid,
  virtType: 'kvm',
  directory: '/i/vm1',
  disks: [{ path: '/i/vm1/disk', target: 'vda' }],
  seed: undefined,
  'os-type': 'linux',
}
const [arch, machine] = process.arch === 'arm64' ? ['aarch64', 'virt'] : ['x86_64', 'pc']

const linux = `<domain type='kvm'>
  <name>vm1</name>
  <uuid>${uuid}</uuid>
  <memory unit='b'>1073741824</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='${arch}' machine='${machine}'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-model'/>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/i/vm1/disk'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <log file='/i/vm1/console.log' append='on'/>
      <target port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <memballoon model='virtio'/>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
  </devices>
</domain>
`
const cd = (bus: string) => `
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/i/vm1/disk.config'/>
      <target dev='sda' bus='${bus}'/>
      <readonly/>
    </disk>`
const root = linux.slice(linux.indexOf("    <disk type='file'"), linux.indexOf('    <interface'))
const nic = linux.slice(linux.indexOf('    <interface'), linux.indexOf('    <serial'))
const scsi = `
    <controller type='scsi' index='0' model='virtio-scsi'/>`
const disk = (file: string, target: string) => root.replace('/i/vm1/disk', `/i/vm1/${file}`).replace('vda', target)

describe('the XML of a domain', () => {
  const rows: [when: string, wish: Partial<Domain>, xml: string][] = [
    ['linux, and nothing else said', {}, linux],
    ['windows keeps local time', { 'os-type': 'windows' }, linux.replace("'utc'", "'localtime'")],
    ['without KVM', { virtType: 'qemu' }, linux.replace("'kvm'", "'qemu'").replace("  <cpu mode='host-model'/>\n", '')],
    [
      'all its disks (S10, S11)',
      {
        disks: [
          { path: '/i/vm1/disk', target: 'vda' },
          { path: '/i/vm1/disk.local', target: 'vdb' },
          { path: '/i/vm1/disk.swap', target: 'vdc' },
        ],
      },
      linux.replace(root, root + disk('disk.local', 'vdb') + disk('disk.swap', 'vdc')),
    ],
    [
      'a seed: a CD by virtio-scsi',
      { seed: '/i/vm1/disk.config' },
      linux.replace(root.trimEnd(), root.trimEnd() + cd('scsi') + scsi),
    ],
    [
      'a seed for windows: a CD by SATA',
      { seed: '/i/vm1/disk.config', 'os-type': 'windows' },
      linux.replace("'utc'", "'localtime'").replace(root.trimEnd(), root.trimEnd() + cd('sata')),
    ],
    ['no network', { network: 'none' }, linux.replace(nic, '')],
    ['another network', { network: 'lab' }, linux.replace("network='default'", "network='lab'")],
    [
      'a bridge',
      { network: 'bridge:br0' },
      linux
        .replace("<interface type='network'>", "<interface type='bridge'>")
        .replace("network='default'", "bridge='br0'"),
    ],
    [
      'memory and processors',
      { memory: 4 * 2 ** 30, vcpus: 8 },
      linux.replace('>1073741824<', '>4294967296<').replace('<vcpu>1<', '<vcpu>8<'),
    ],
  ]
  for (const [when, more, xml] of rows) test(when, () => assert.equal(domainXml({ ...wish, ...more }), xml))

  test('hostile names, paths and networks stay text', () => {
    const evil = `a</name><evil x='"'>&amp;<![CDATA[`
    const hostile = domainXml({
      ...wish,
      name: evil,
      directory: `/i/${evil}`,
      disks: [{ path: `/i/${evil}`, target: 'vda' }],
      seed: `/s'/><evil/>`,
      network: `bridge:'/><evil/>`,
    })
    // A parser has to find what was put in, where it was put, and no element more.
    const quoted = (text: string) => text.replace(/[&<>"]/g, (letter) => `&#${letter.codePointAt(0)};`)
    const expected = canonical(linux.replace(root.trimEnd(), root.trimEnd() + cd('scsi') + scsi))
      .replace('    vm1\n', `    ${quoted(evil)}\n`)
      .replace('/i/vm1/disk.config', quoted(`/s'/><evil/>`))
      .replace('/i/vm1/disk"', `${quoted(`/i/${evil}`)}"`)
      .replace('/i/vm1/console.log', `${quoted(`/i/${evil}`)}/console.log`)
      .replace('<interface type="network">', '<interface type="bridge">')
      .replace('network="default"', `bridge="${quoted(`'/><evil/>`)}"`)
    assert.equal(canonical(hostile), expected)
  })
})

const theirs = `<?xml version="1.0"?>
<!-- by hand -->
<domain type="kvm" xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">
  <name>other</name>
  <uuid>99999999-2222-4333-8444-555555555555</uuid>
  <metadata>
    <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1"><nova:name>a &amp; b</nova:name></nova:instance>
  </metadata>
  <title><![CDATA[5 < 6 & so on]]></title>
  <memory unit="KiB">1048576</memory>
  <currentMemory unit="KiB">524288</currentMemory>
  <vcpu placement="static" current="1">4</vcpu>
  <future><thing with="&quot;quotes&quot;">some <b>mixed</b> text</thing></future>
  <devices>
    <!-- a volume -->
    <disk type="block" device="disk"><source dev="/dev/vg/data"/><target dev="vdc" bus="virtio"/></disk>
    <disk type="network" device="disk"><source protocol="rbd" name="p/v"/><target dev="vdd" bus="virtio"/></disk>
    <hostdev mode="subsystem" type="pci" managed="yes"/>
  </devices>
  <qemu:commandline>
    <qemu:arg value="-newarg"/>
  </qemu:commandline>
</domain>
`
/** What our disk looks like at the end of their devices. */
const rootDisk = `<disk type="file" device="disk">
      <driver name="qemu" type="qcow2" cache="none"/>
      <source file="/i/vm1/disk"/>
      <target dev="vda" bus="virtio"/>
    </disk>`
const inTheirs = (...more: [from: string, to: string][]) =>
  more.reduce(
    (xml, [from, to]) => xml.replace(from, to),
    theirs.replace('>other<', '>vm1<').replace('99999999-', '11111111-').replace('</devices>', `${rootDisk}</devices>`),
  )

describe('an operator’s definition', () => {
  test('keeps everything that is not ours, byte by byte: namespaces, comments, CDATA, elements nobody knows', () =>
    assert.equal(editDomain(theirs, wish).trimEnd(), inTheirs().trimEnd()))

  test('keeps its memory and processors unless others are asked for', () =>
    assert.equal(
      canonical(editDomain(theirs, { ...wish, memory: 2 ** 31, vcpus: 2 })),
      canonical(
        inTheirs(
          ['<memory unit="KiB">1048576<', '<memory unit="b">2147483648<'],
          ['<currentMemory unit="KiB">524288</currentMemory>', ''],
          ['<vcpu placement="static" current="1">4<', '<vcpu placement="static">2<'],
        ),
      ),
    ))

  test('gets what it lacks', () =>
    assert.equal(
      canonical(editDomain('<domain type="kvm"/>', wish)),
      canonical(`<domain type="kvm"><name>vm1</name><uuid>${uuid}</uuid><devices>${rootDisk}</devices></domain>`),
    ))

  test('has its own disk of that device replaced, what was said of the device staying', () => {
    const own = `<disk type="file" device="disk"><driver name="qemu" type="raw" cache="writeback" io="native" discard="unmap"/>
      <source file="/etc/shadow"/><backingStore type="file"><source file="/b"/></backingStore><target dev="vda" bus="virtio"/>
      <iotune><total_iops_sec>500</total_iops_sec></iotune><boot order="1"/></disk>`
    const wanted = `<disk type="file" device="disk"><driver name="qemu" type="qcow2" cache="none" io="native" discard="unmap"/>
      <source file="/i/vm1/disk"/><target dev="vda" bus="virtio"/>
      <iotune><total_iops_sec>500</total_iops_sec></iotune><boot order="1"/></disk>`
    const edited = canonical(editDomain(theirs.replace('<!-- a volume -->', own), wish))
    assert.equal(edited, canonical(inTheirs(['<!-- a volume -->', wanted], [`${rootDisk}</devices>`, '</devices>'])))
  })

  test('is the same again when it is edited again', () => {
    const wanted = { ...wish, seed: '/i/vm1/disk.config' }
    const once = editDomain(theirs, wanted)
    assert.equal(canonical(editDomain(once, wanted)), canonical(once))
  })

  test('names that are markup stay text', () => {
    const evil = `a</name><evil/>&amp;"'`
    const edited = editDomain('<domain/>', { ...wish, name: evil, disks: [{ path: `/${evil}`, target: 'vda' }] })
    assert.doesNotMatch(edited, /<evil/)
    assert.ok(canonical(edited).includes("    a&#60;/name&#62;&#60;evil/&#62;&#38;amp;&#34;'\n"))
  })

  test('has the devices that block and network disks map (S13)', () =>
    assert.deepEqual(volumesIn(theirs), ['vdc', 'vdd']))

  for (const [what, xml] of [
    ['empty', ''],
    ['no XML', 'hello'],
    ['cut off', theirs.slice(0, 900)],
    ['of a network', '<network/>'],
    ['of two domains', '<domain/><domain/>'],
    ['with an element left open', '<domain><name></domain>'],
    [
      'with an entity of its own',
      '<!DOCTYPE domain [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>',
    ],
  ] as const)
    test(`${what} is refused`, () =>
      assert.throws(
        () => editDomain(xml, wish),
        (error) => error instanceof Problem && error.code === 'BAD_SPEC' && error.remedy.includes('virsh dumpxml'),
      ))

  test('with a volume where a disk of ours goes is refused', () =>
    assert.throws(
      () => editDomain(theirs, { ...wish, disks: [{ path: '/i/vm1/disk.swap', target: 'vdc' }] }),
      (error) => error instanceof Problem && error.code === 'BAD_SPEC' && /on vdc/.test(error.message),
    ))
})
