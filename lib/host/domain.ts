import type { OsType } from '../job/spec.ts'

/** A disk of a domain, in the format that is pinned for it [qcow2]. `base`: what it stands on; absent where nobody said. */
export interface DomainDisk {
  path: string
  target: string
  format?: 'qcow2' | 'raw'
  base?: string | undefined
}

/** What a domain is made of. Memory in bytes; paths are absolute. */
export interface Domain {
  name: string
  uuid: string
  virtType: 'kvm' | 'qemu'
  directory: string
  disks: DomainDisk[]
  seed: string | undefined
  memory?: number | undefined
  vcpus?: number | undefined
  network?: string | undefined
  'os-type': OsType
}

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&apos;', '"': '&quot;' }
const escaped = (text: string): string => text.replace(/[&<>'"]/g, (character) => escapes[character] ?? '')

const machines: Record<string, [arch: string, machine: string]> = { x64: ['x86_64', 'pc'], arm64: ['aarch64', 'virt'] }

/**
 * The whole chain, so that libvirt looks into no disk for it, and leaves the base to its owner: of a chain that it
 * finds by itself it gives each file to the user that QEMU runs as (dynamic ownership), and a QEMU that a guest has
 * broken out into could then write to the base of every other guest.
 */
export const chainXml = (base: string): string => `
      <backingStore type='file'>
        <format type='raw'/>
        <source file='${escaped(base)}'>
          <seclabel model='dac' relabel='no'/>
        </source>
        <backingStore/>
      </backingStore>`

/** A disk as the old driver wrote it (BEHAVIOUR.md S11), and what it stands on. */
export const diskXml = ({ path, target, format = 'qcow2', base }: DomainDisk): string => `
    <disk type='file' device='disk'>
      <driver name='qemu' type='${format}' cache='none'/>
      <source file='${escaped(path)}'/>${base === undefined ? '' : chainXml(base)}
      <target dev='${escaped(target)}' bus='virtio'/>
    </disk>`

/** The seed as a CD: by virtio-scsi, which also the kernels made for clouds know; Windows knows SATA from the start. */
export const seedXml = (seed: string, osType: string, target = 'sda'): string => `
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='${escaped(seed)}'/>
      <target dev='${escaped(target)}' bus='${osType === 'windows' ? 'sata' : 'scsi'}'/>
      <readonly/>
    </disk>`

export const scsiController = `
    <controller type='scsi' index='0' model='virtio-scsi'/>`

function interfaceXml(network: string): string {
  if (network === 'none') return ''
  const bridge = network.startsWith('bridge:') ? network.slice('bridge:'.length) : undefined
  const [type, source] =
    bridge === undefined ? ['network', `network='${escaped(network)}'`] : ['bridge', `bridge='${escaped(bridge)}'`]
  return `
    <interface type='${type}'>
      <source ${source}/>
      <model type='virtio'/>
    </interface>`
}

/** A complete libvirt domain. Source of the elements: libvirt.org/formatdomain.html */
export function domainXml(domain: Domain): string {
  const { name, uuid, virtType, directory, disks, seed, memory = 2 ** 30, vcpus = 1, network = 'default' } = domain
  const [arch, machine] = machines[process.arch] ?? ['x86_64', 'pc']
  const windows = domain['os-type'] === 'windows'
  return `<domain type='${virtType}'>
  <name>${escaped(name)}</name>
  <uuid>${uuid}</uuid>
  <memory unit='b'>${memory}</memory>
  <vcpu>${vcpus}</vcpu>
  <os>
    <type arch='${arch}' machine='${machine}'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>${virtType === 'kvm' ? "\n  <cpu mode='host-model'/>" : ''}
  <clock offset='${windows ? 'localtime' : 'utc'}'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>${disks.map(diskXml).join('')}${seed === undefined ? '' : seedXml(seed, domain['os-type'])}${seed === undefined || windows ? '' : scsiController}${interfaceXml(network)}
    <serial type='pty'>
      <log file='${escaped(directory)}/console.log' append='on'/>
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
}
