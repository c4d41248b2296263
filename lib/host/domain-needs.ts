import { basename, dirname } from 'node:path'
import { diskNames } from '../job/layout.ts'
import { children, domainOf, type Element, targetOf } from './domain-xml.ts'

/**
 * One thing that a definition needs of its host before its guest can start. `of`: what of the guest needs it, for
 * people. `link`: a bridge or another network device; `device`: a node in /dev; `address`: one of the host's own;
 * `label`: a security driver of libvirt's; `hardware`: one host has it, and no other.
 */
export interface Need {
  kind: 'file' | 'block' | 'directory' | 'device' | 'link' | 'network' | 'address' | 'swtpm' | 'label' | 'hardware'
  name: string
  of: string
}

/** What a definition needs of its host, besides what libvirt itself can say without starting it. */
export interface Needs {
  /** Kind of domain: kvm, qemu. */
  type: string
  things: Need[]
  /** Bytes. */
  memory: number
  /** It is of huge pages: their size in bytes, 0 where they are of the host's usual size. */
  hugepages: number | undefined
  /** Sets of the host's processors that it is pinned to, such as `0-3,^2`. */
  pinned: string[]
}

const own: string[] = [...diskNames, 'disk.config']
const first = (parent: Element | undefined, name: string): Element | undefined => parent && children(parent, name)[0]
const said = (element: Element | undefined, attribute: string): string => element?.getAttribute(attribute) || ''
const textOf = (element: Element | undefined): string => element?.textContent?.trim() ?? ''

const need = (kind: Need['kind'], name: string, of: string): Need[] => (name === '' ? [] : [{ kind, name, of }])

/** @throws {Problem} BAD_SPEC */
export function needsIn(xml: string, { directory, isNew }: { directory: string; isNew: boolean }): Needs {
  const { domain } = domainOf(xml)
  const devices = children(domain, 'devices').flatMap((all) =>
    Array.from(all.childNodes).filter((node): node is Element => node.nodeType === 1),
  )
  const backing = first(first(domain, 'memoryBacking'), 'hugepages')
  const pages = backing && (children(backing, 'page')[0] ?? backing)
  const tune = first(domain, 'cputune')
  const pins = ['vcpupin', 'emulatorpin', 'iothreadpin'].flatMap((name) => (tune ? children(tune, name) : []))
  return {
    type: said(domain, 'type'),
    things: [
      ...bootNeeds(first(domain, 'os'), isNew),
      ...children(domain, 'seclabel').flatMap((label) =>
        said(label, 'type') === 'none' ? [] : need('label', said(label, 'model'), 'its security label'),
      ),
      ...devices.flatMap((device) => deviceNeeds(device, directory)),
    ],
    memory: bytesOf(textOf(first(domain, 'memory')), said(first(domain, 'memory'), 'unit')),
    hugepages: pages && bytesOf(said(pages, 'size'), said(pages, 'unit')),
    pinned: [first(domain, 'vcpu'), ...pins].map((pin) => said(pin, 'cpuset')).filter(Boolean),
  }
}

/** Its units are those of libvirt.org/formatdomain.html, "Memory Allocation". */
function bytesOf(number: string, unit: string): number {
  const [, letter = 'k', ending = ''] = /^([kmgtpe]?)(i?b?)/i.exec(unit || 'KiB') ?? []
  const power = ' kmgtpe'.indexOf(letter.toLowerCase() || ' ')
  return Number(number) * (ending.toLowerCase() === 'b' ? 1000 : 1024) ** power
}

/** @param isNew its guest never ran: then the variables of its UEFI are a copy of their template */
function bootNeeds(os: Element | undefined, isNew: boolean): Need[] {
  const file = (name: string, of: string) => need('file', textOf(first(os, name)), of)
  return [
    ...file('loader', 'its firmware'),
    ...(isNew ? need('file', said(first(os, 'nvram'), 'template'), 'its firmware') : []),
    ...file('kernel', 'its kernel'),
    ...file('initrd', 'its initrd'),
    ...file('dtb', 'its device tree'),
    ...need('file', textOf(first(first(os, 'acpi'), 'table')), 'its ACPI table'),
  ]
}

function deviceNeeds(device: Element, directory: string): Need[] {
  const source = first(device, 'source')
  const type = said(device, 'type')
  switch (device.nodeName) {
    case 'disk':
      return diskNeeds(device, directory)
    case 'interface':
      return interfaceNeeds(device)
    case 'filesystem':
      return ['mount', ''].includes(type) ? need('directory', said(source, 'dir'), 'its shared directory') : []
    case 'hostdev':
      // One that is optional is left out when it is not there.
      return said(source, 'startupPolicy') === 'optional' ? [] : hardware(`${type || 'host'} device`)
    case 'tpm': {
      const backend = first(device, 'backend')
      if (said(backend, 'type') === 'emulator') return need('swtpm', 'swtpm', 'its TPM')
      return said(backend, 'type') === 'passthrough' ? hardware('TPM') : []
    }
    case 'memory':
      return first(source, 'path') ? hardware('NVDIMM') : []
    case 'input':
      return ['passthrough', 'evdev'].includes(type) ? hardware('input device') : []
    case 'smartcard':
      return said(device, 'mode').startsWith('host') ? hardware('smart card') : []
    case 'rng': {
      const backend = first(device, 'backend')
      return said(backend, 'model') === 'random' ? need('device', textOf(backend), 'its source of randomness') : []
    }
    case 'graphics':
      return [device, ...children(device, 'listen')].flatMap((listen) => [
        ...need('address', said(listen, device === listen ? 'listen' : 'address'), `its ${type} display`),
        ...(said(listen, 'type') === 'network' ? need('network', said(listen, 'network'), `its ${type} display`) : []),
      ])
    default:
      return portNeeds(device, directory)
  }
}

const hardware = (name: string): Need[] => need('hardware', name, 'the guest')

/** Serial ports, consoles and channels: what they write to. */
function portNeeds(port: Element, directory: string): Need[] {
  const source = first(port, 'source')
  const path = said(source, 'path')
  const of = `its ${port.nodeName} port`
  const type = said(port, 'type')
  if (type === 'dev') return need('device', path, of)
  // Below its own directories libvirt makes what is missing.
  const isListening =
    type === 'unix' && said(source, 'mode') === 'bind' && !/^\/(var\/lib|var\/run|run)\/libvirt\//.test(path)
  const written = [said(first(port, 'log'), 'file'), type === 'file' || isListening ? path : '']
  return written.flatMap((file) =>
    file === '' || dirname(file) === directory ? [] : need('directory', dirname(file), of),
  )
}

const kinds: Record<string, string> = { cdrom: 'CD', floppy: 'floppy' }

function diskNeeds(disk: Element, directory: string): Need[] {
  const source = first(disk, 'source')
  const of = `its ${kinds[said(disk, 'device')] ?? 'disk'} ${targetOf(disk)}`
  if (said(source, 'startupPolicy') === 'optional') return []
  switch (said(disk, 'type')) {
    case 'file': {
      const path = said(source, 'file')
      return dirname(path) === directory && own.includes(basename(path)) ? [] : need('file', path, of)
    }
    case 'block':
      return need('block', said(source, 'dev'), of)
    case 'dir':
      return need('directory', said(source, 'dir'), of)
    case 'vhostuser':
      return need('device', said(source, 'path'), of)
    case 'nvme':
      return hardware('NVMe disk')
    default:
      return [] // of networks and volumes libvirt tells what is missing
  }
}

function interfaceNeeds(card: Element): Need[] {
  const source = first(card, 'source')
  const target = first(card, 'target')
  const of = `its network card ${said(first(card, 'mac'), 'address')}`.trim()
  switch (said(card, 'type')) {
    case 'network':
      return need('network', said(source, 'network'), of)
    case 'bridge':
      return need('link', said(source, 'bridge'), of)
    case 'direct':
      return need('link', said(source, 'dev'), of)
    case 'ethernet':
      return said(target, 'managed') === 'no' ? need('link', said(target, 'dev'), of) : []
    case 'vhostuser':
      return said(source, 'mode') === 'client' ? need('device', said(source, 'path'), of) : []
    case 'hostdev':
    case 'vdpa':
      return hardware('network card')
    default:
      return []
  }
}
