import { DOMParser, type Document, type Element, ParseError, XMLSerializer } from '@xmldom/xmldom'
import { misuse } from '../job/problem.ts'
import { type Domain, diskXml, scsiController, seedXml } from './domain.ts'

function parse(xml: string, what: string): Document {
  try {
    return new DOMParser({ onError: (level, message) => { if (level !== 'warning') throw new ParseError(message) } }).parseFromString(xml, 'text/xml')
  } catch (error) {
    return misuse(`Cannot read ${what}: ${error instanceof Error ? error.message.split('\n')[0] : error}`, 'give the XML of a libvirt domain, such as virsh dumpxml prints')
  }
}

const children = (parent: Element, name: string): Element[] =>
  Array.from(parent.childNodes).filter((node): node is Element => node.nodeType === 1 && node.nodeName === name)

/** The child element of this name, made where there is none. */
function child(parent: Element, name: string): Element {
  const [found] = children(parent, name)
  return found ?? (parent.appendChild(parent.ownerDocument!.createElement(name)) as Element)
}

function domainOf(xml: string): { document: Document; domain: Element } {
  const document = parse(xml, 'the domain definition')
  const domain = document.documentElement
  if (domain?.nodeName !== 'domain') misuse(`Cannot read the domain definition: its root is <${domain?.nodeName}>`, 'give the XML of a libvirt domain, such as virsh dumpxml prints')
  return { document, domain }
}

const targetOf = (disk: Element): string => children(disk, 'target')[0]?.getAttribute('dev') ?? ''

/** Devices that block and network disks of a definition map: they are never touched (BEHAVIOUR.md S13). @throws {Problem} BAD_SPEC */
export function volumesIn(xml: string): string[] {
  const { domain } = domainOf(xml)
  const disks = children(domain, 'devices').flatMap((devices) => children(devices, 'disk'))
  return disks.filter((disk) => disk.getAttribute('type') !== 'file').map(targetOf)
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
  if (wish.vcpus !== undefined) set('vcpu', wish.vcpus)
  if (wish.memory !== undefined) {
    for (const extra of children(domain, 'currentMemory')) domain.removeChild(extra)
    set('memory', wish.memory)
    child(domain, 'memory').setAttribute('unit', 'b')
  }
  const devices = child(domain, 'devices')
  const targets = [...wish.disks.map(({ target }) => target), ...(wish.seed === undefined ? [] : ['sda'])]
  for (const disk of children(devices, 'disk'))
    if (disk.getAttribute('type') === 'file' && targets.includes(targetOf(disk))) devices.removeChild(disk)
  const scsi = children(devices, 'controller').some((controller) => controller.getAttribute('type') === 'scsi')
  const seed = wish.seed === undefined ? '' : seedXml(wish.seed, wish['os-type'])
  const controller = wish.seed === undefined || scsi || wish['os-type'] === 'windows' ? '' : scsiController
  const added = parse(`<devices>${wish.disks.map(diskXml).join('')}${seed}${controller}</devices>`, 'our own disks')
  for (const node of Array.from(added.documentElement!.childNodes)) devices.appendChild(document.importNode(node, true))
  return `${new XMLSerializer().serializeToString(document)}\n`
}
