import { basename, dirname } from 'node:path'
import { type DiskName, diskNames, keptOf, nvramOf } from '../job/layout.ts'
import { misuse } from '../job/problem.ts'
import { chainXml } from './domain.ts'
import { append, children, domainOf, type Element, serialize, targetOf } from './domain-xml.ts'

/** A disk of a definition that is a file. */
export interface FileDisk {
  path: string
  /** Device that the guest sees, such as vda. */
  target: string
  /** What it is taken for; where nobody says, libvirt takes it for raw. */
  type: string
  /** `disk`, `cdrom`, `floppy` or `lun`. */
  device: string
  readonly: boolean
  /** What it stands on, as far as the definition says: each file, with its format. Undefined: libvirt is to find out. */
  chain: string[] | undefined
}

/** How a disk of the instance is at its new place. `base`: what it stands on there, nothing where it is undefined. */
export interface MovedDisk {
  file: DiskName
  format: 'qcow2' | 'raw'
  base?: string | undefined
}

const first = (parent: Element | undefined, name: string): Element | undefined => parent && children(parent, name)[0]
const devicesOf = (domain: Element): Element[] =>
  children(domain, 'devices').flatMap((devices) =>
    Array.from(devices.childNodes).filter((node): node is Element => node.nodeType === 1),
  )
const disksOf = (domain: Element): Element[] => devicesOf(domain).filter(({ nodeName }) => nodeName === 'disk')
const fileOf = (disk: Element): string | undefined =>
  (disk.getAttribute('type') === 'file' && first(disk, 'source')?.getAttribute('file')) || undefined

/** @returns undefined where the last file that is named may stand on more */
function chainOf(disk: Element): string[] | undefined {
  const store = first(disk, 'backingStore')
  if (!store) return undefined
  const source = first(store, 'source')
  if (!source) return []
  const rest = chainOf(store)
  const own = `${first(store, 'format')?.getAttribute('type')}:${source.getAttribute('file') ?? serializeSource(source)}`
  return [own, ...(rest ?? ['?'])]
}

const serializeSource = (source: Element): string =>
  Array.from(source.attributes, ({ name, value }) => `${name}=${value}`).join(',')

/** The disks of a definition that are files; a drive without a medium is none. @throws {Problem} BAD_SPEC */
export function fileDisksOf(xml: string): FileDisk[] {
  return disksOf(domainOf(xml).domain).flatMap((disk) => {
    const path = fileOf(disk)
    if (path === undefined) return []
    return {
      path,
      target: targetOf(disk),
      type: first(disk, 'driver')?.getAttribute('type') ?? 'raw',
      device: disk.getAttribute('device') ?? 'disk',
      readonly: first(disk, 'readonly') !== undefined,
      chain: chainOf(disk),
    }
  })
}

const media = ['cdrom', 'floppy']
const ours: string[] = [...diskNames, 'disk.config']

/**
 * Files that a guest writes to and that do not travel with its instance: they are outside of its directory, or none of
 * cowhand's. Media (CDs) and read-only disks are not among them: see needsIn.
 */
export const foreignDisksIn = (xml: string, directory: string): FileDisk[] =>
  fileDisksOf(xml).filter(
    ({ path, device, readonly }) =>
      !media.includes(device) && !readonly && !(dirname(path) === directory && ours.includes(basename(path))),
  )

/**
 * In what a running guest's disks differ from those of its next start, for people: one was plugged in or out meanwhile,
 * or stands elsewhere since. Undefined: they are the same. Media are changed at any time, and are no difference.
 */
export function pluggedIn(live: string, inactive: string): string | undefined {
  const disks = (xml: string) =>
    new Map(fileDisksOf(xml).flatMap(({ path, target, device }) => (media.includes(device) ? [] : [[path, target]])))
  const [now, next] = [disks(live), disks(inactive)]
  for (const [path, target] of now)
    if (!next.has(path)) return `its guest has "${path}" as ${target}, and would not have it after its next start`
  for (const [path, target] of next)
    if (!now.has(path)) return `its definition has "${path}" as ${target}, and its guest runs without it`
  return undefined
}

/** What the firmware and a TPM of a guest remember, in files of libvirt's. */
export interface StateFiles {
  /** Variables of its UEFI. */
  nvram?: string
  /** An emulated TPM. `source`: its state is not in libvirt's own place for it. */
  tpm?: { source: boolean }
}

/** The element that names the file of the UEFI's variables, and where in it the path is. */
function nvramAt(domain: Element): { path: string; set: (path: string) => void } | undefined {
  const nvram = first(first(domain, 'os'), 'nvram')
  if (!nvram) return undefined
  const source = first(nvram, 'source')
  const file = source?.getAttribute('file')
  if (source && file) return { path: file, set: (path) => source.setAttribute('file', path) }
  const text = nvram.textContent?.trim()
  if (source || !text) return undefined // of a kind that is no file, or libvirt is to name it
  return {
    path: text,
    set: (path) => {
      nvram.textContent = path
    },
  }
}

/** Where the state is that belongs to a definition; a file that is not there is one that was not needed so far. */
export function stateIn(xml: string, name: string): StateFiles {
  const { domain } = domainOf(xml)
  const os = first(domain, 'os')
  const loader = first(os, 'loader')
  // libvirt names the file itself where nobody did: by `firmware` only when the guest starts.
  const hasUefi = os?.getAttribute('firmware') === 'efi' || loader?.getAttribute('type') === 'pflash'
  const isOfFile = [null, 'file'].includes(first(os, 'nvram')?.getAttribute('type') ?? null)
  const nvram = nvramAt(domain)?.path ?? (hasUefi && isOfFile ? nvramOf(name) : undefined)
  const backends = devicesOf(domain)
    .filter(({ nodeName }) => nodeName === 'tpm')
    .flatMap((tpm) => children(tpm, 'backend'))
  const emulator = backends.find((backend) => backend.getAttribute('type') === 'emulator')
  return {
    ...(nvram === undefined ? {} : { nvram }),
    ...(emulator ? { tpm: { source: first(emulator, 'source') !== undefined } } : {}),
  }
}

/** Paths that the definition of an instance has in its directory, also while that is set aside (NAME_resize). */
function placeOf(path: string | null | undefined, from: string): string | undefined {
  const directory = dirname(path ?? '')
  return directory === from || directory === keptOf(dirname(from), basename(from)) ? basename(path ?? '') : undefined
}

/** Of the disk's own element, what tells what it stands on. */
function setChain(disk: Element, { format, base }: MovedDisk): void {
  for (const store of children(disk, 'backingStore')) disk.removeChild(store)
  // Said also where there is nothing: else libvirt looks into the disk for it, and there the guest's words count.
  if (format === 'qcow2' || base !== undefined) {
    const store = append(disk, base === undefined ? '<backingStore/>' : chainXml(base))
    disk.insertBefore(store, first(disk, 'source')?.nextSibling ?? null)
  }
  const driver = first(disk, 'driver') ?? append(disk, "<driver name='qemu'/>")
  driver.setAttribute('type', format)
}

/**
 * The definition of an instance at its new place: its disks, its seed and its console.log are in `to`, the disks stand
 * on what they stand on there, and the UEFI's variables are in libvirt's own place for them. Everything else, known to
 * us or not, stays as it is; block and network disks too.
 * @param xml of its next start (`virsh dumpxml --inactive --security-info`): a live one has what only holds for one run
 * @param from absolute path of the instance on the source
 * @param stays the UEFI's variables are where they are: it is the same host
 * @throws {Problem} BAD_SPEC when it is not the XML of this domain
 */
export function moveDomain(
  xml: string,
  {
    name,
    from,
    to,
    disks,
    stays = false,
  }: { name: string; from: string; to: string; disks: MovedDisk[]; stays?: boolean },
): string {
  const { document, domain } = domainOf(xml)
  const called = first(domain, 'name')?.textContent?.trim()
  if (called !== name)
    misuse(`Cannot move "${name}": its definition is of "${called}"`, `define it by its own name: virsh define`)
  const move = (element: Element | undefined, attribute: string): string | undefined => {
    const file = placeOf(element?.getAttribute(attribute), from)
    if (file !== undefined) element?.setAttribute(attribute, `${to}/${file}`)
    return file
  }
  for (const disk of disksOf(domain)) {
    if (fileOf(disk) === undefined) continue
    const file = move(first(disk, 'source'), 'file')
    const moved = disks.find((its) => its.file === file)
    if (moved) setChain(disk, moved)
  }
  for (const device of devicesOf(domain)) {
    if (device.nodeName === 'disk') continue
    move(first(device, 'log'), 'file')
    if (device.getAttribute('type') === 'file') move(first(device, 'source'), 'path')
  }
  // A path that another host tells is never written to: what is placed there goes to where libvirt itself would put it.
  if (!stays) nvramAt(domain)?.set(nvramOf(name))
  return serialize(document)
}

/**
 * What a domain has to have in common with a definition to be what that says: its file disks with what they stand on,
 * and its UEFI's variables. To the rest libvirt adds much of its own. Two that agree in it have the same text.
 */
export function essenceOf(xml: string): string {
  const { domain } = domainOf(xml)
  const said = (name: string) => first(domain, name)?.textContent?.trim() ?? ''
  const disks = fileDisksOf(xml).map(({ path, target, type, chain }) =>
    [target, path, type, ...(chain ?? ['?'])].join(),
  )
  return JSON.stringify([said('uuid').toLowerCase(), stateIn(xml, said('name')).nvram, disks.sort()])
}
