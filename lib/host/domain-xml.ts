import { DOMParser, type Document, type Element, ParseError, XMLSerializer } from '@xmldom/xmldom'
import { misuse, Problem } from '../job/problem.ts'
import { type Domain, diskXml, scsiController, seedXml } from './domain.ts'

function parse(xml: string, what: string): Document {
  try {
    return new DOMParser({
      onError: (level, message) => {
        if (level !== 'warning') throw new ParseError(message)
      },
    }).parseFromString(xml, 'text/xml')
  } catch (error) {
    return misuse(
      `Cannot read ${what}: ${error instanceof Error ? error.message.split('\n')[0] : error}`,
      'give the XML of a libvirt domain, such as virsh dumpxml prints',
    )
  }
}

export type { Element }

export const children = (parent: Element, name: string): Element[] =>
  Array.from(parent.childNodes).filter((node): node is Element => node.nodeType === 1 && node.nodeName === name)

/** The child element of this name, made where there is none. */
const child = (parent: Element, name: string): Element => children(parent, name)[0] ?? append(parent, `<${name}/>`)

/** The element that our own `xml` is, as the last one of `parent`. */
export function append(parent: Element, xml: string): Element {
  const made = parse(xml.trim(), 'our own XML').documentElement
  const copy = made && parent.ownerDocument?.importNode(made, true)
  if (!copy) throw new TypeError('no element')
  parent.appendChild(copy)
  return copy
}

/** @throws {Problem} BAD_SPEC when it is not the XML of a domain */
export function domainOf(xml: string): { document: Document; domain: Element } {
  const document = parse(xml, 'the domain definition')
  const domain = document.documentElement
  if (domain?.nodeName !== 'domain')
    misuse(
      `Cannot read the domain definition: its root is <${domain?.nodeName}>`,
      'give the XML of a libvirt domain, such as virsh dumpxml prints',
    )
  return { document, domain }
}

export const serialize = (document: Document): string => `${new XMLSerializer().serializeToString(document)}\n`

export const targetOf = (disk: Element): string => children(disk, 'target')[0]?.getAttribute('dev') ?? ''

/** Of a disk of the operator's, what tells where its bytes are; the rest (boot order, address, limits …) is the device's. */
const ofTheFile = ['driver', 'source', 'target', 'backingStore', 'mirror']

/**
 * Put our disk into the place of `theirs`, if there is one, and keep what was said of the device.
 * @throws {Problem} BAD_SPEC when a volume is there
 */
function putDisk(devices: Element, xml: string, theirs: Element | undefined): void {
  const ours = append(devices, xml)
  if (!theirs) return
  if (theirs.getAttribute('type') !== 'file')
    misuse(
      `Cannot put a disk on ${targetOf(theirs)}: the domain definition has a volume there`,
      'give that volume another device',
    )
  const [driver, theirDriver] = [children(ours, 'driver')[0], children(theirs, 'driver')[0]]
  for (const { name, value } of theirDriver?.attributes ?? [])
    if (driver && !driver.hasAttribute(name)) driver.setAttribute(name, value)
  const bus = (disk: Element) => children(disk, 'target')[0]?.getAttribute('bus')
  const gone = bus(ours) === bus(theirs) ? ofTheFile : [...ofTheFile, 'address']
  const own = Array.from(ours.childNodes, ({ nodeType, nodeName }) => (nodeType === 1 ? nodeName : ''))
  for (const node of Array.from(theirs.childNodes))
    if (![...gone, ...own].includes(node.nodeName)) ours.appendChild(node)
  devices.replaceChild(ours, theirs)
}

/** Devices that block and network disks of a definition map: they are never touched (BEHAVIOUR.md S13). @throws {Problem} BAD_SPEC */
export function volumesIn(xml: string): string[] {
  const { domain } = domainOf(xml)
  const disks = children(domain, 'devices').flatMap((devices) => children(devices, 'disk'))
  return disks.filter((disk) => disk.getAttribute('type') !== 'file').map(targetOf)
}

/** File and driver type of each disk of a definition; none where it is no XML of a domain. */
export function driverTypesIn(xml: string): [file: string, type: string][] {
  try {
    const { domain } = domainOf(xml)
    const disks = children(domain, 'devices').flatMap((devices) => children(devices, 'disk'))
    return disks.map((disk) => {
      const said = (name: string, attribute: string) => children(disk, name)[0]?.getAttribute(attribute) ?? ''
      return [said('source', 'file'), said('driver', 'type')]
    })
  } catch (problem) {
    if (problem instanceof Problem) return []
    throw problem
  }
}

/**
 * The operator's definition with our name, uuid and disks in it; everything else, known to us or not, stays as it is.
 * @throws {Problem} BAD_SPEC when it is not the XML of a domain
 */
export function editDomain(xml: string, wish: Domain): string {
  const { document, domain } = domainOf(xml)
  const set = (name: string, value: string | number) => {
    child(domain, name).textContent = String(value)
  }
  set('name', wish.name)
  set('uuid', wish.uuid)
  if (wish.vcpus !== undefined) {
    set('vcpu', wish.vcpus)
    child(domain, 'vcpu').removeAttribute('current')
  }
  if (wish.memory !== undefined) {
    for (const extra of children(domain, 'currentMemory')) domain.removeChild(extra)
    set('memory', wish.memory)
    child(domain, 'memory').setAttribute('unit', 'b')
  }
  const devices = child(domain, 'devices')
  const at = (target: string) => children(devices, 'disk').find((disk) => targetOf(disk) === target)
  for (const disk of wish.disks) putDisk(devices, diskXml(disk), at(disk.target))
  if (wish.seed !== undefined) {
    // A definition that was dumped from one of our domains has a seed, of that domain; any other CD or disk stays.
    const isSeed = (disk: Element) => children(disk, 'source')[0]?.getAttribute('file')?.endsWith('/disk.config')
    const seed = children(devices, 'disk').find(isSeed)
    const free = Array.from('abcdefghijklmnopqrstuvwxyz', (letter) => `sd${letter}`).find((target) => !at(target))
    putDisk(devices, seedXml(wish.seed, wish['os-type'], seed ? targetOf(seed) : free), seed)
    const scsi = children(devices, 'controller').some((controller) => controller.getAttribute('type') === 'scsi')
    if (!scsi && wish['os-type'] !== 'windows') append(devices, scsiController)
  }
  // The console.log of another instance, which a dumped definition names, is that one's; libvirt would not share it.
  for (const port of [...children(devices, 'serial'), ...children(devices, 'console')])
    for (const [name, attribute] of [
      ['log', 'file'],
      ['source', 'path'],
    ] as const)
      for (const log of children(port, name))
        if (log.getAttribute(attribute)?.endsWith('/console.log'))
          log.setAttribute(attribute, `${wish.directory}/console.log`)
  return serialize(document)
}
