import { basename } from 'node:path'

/**
 * Where things live: the names of the old Nova driver, so that an operator of such hosts recognises every file
 * (BEHAVIOUR.md S1-S10). Pure: paths follow from the job, nothing is looked up.
 */
const GiB = 2 ** 30
const MiB = 2 ** 20

export const basesOf = (instances: string): string => `${instances}/_base`
/** @param directory of the instances, or of a store */
export const locksOf = (directory: string): string => `${directory}/locks`
export const instanceOf = (instances: string, name: string): string => `${instances}/${name}`

/** What a resize or migration keeps of an instance, to go back to (BEHAVIOUR.md S9). */
export const keptOf = (instances: string, name: string): string => `${instances}/${name}_resize`
/** Where an instance arrives, until it is whole: from then on it has its own name. */
export const stageOf = (instances: string, name: string): string => `${instances}/${name}.incoming`
/** Files that are on their way; what is proven moves up, out of it. */
export const arrivingOf = (stage: string): string => `${stage}/part`
/** Empty overlays that keep the cleaner from bases which are ready for an instance that is still to arrive. */
export const reservedOf = (stage: string): string => `${stage}/reserved`
/** Which move a stage is of: the first file in it, and the last. */
export const markOf = (stage: string): string => `${stage}/move.json`

/** Where libvirt keeps the variables of a guest's UEFI, unless it is told otherwise. */
export const nvramOf = (name: string): string => `/var/lib/libvirt/qemu/nvram/${name}_VARS.fd`
/** Where libvirt keeps the state of a guest's emulated TPM. @param uuid of the domain */
export const swtpmOf = (uuid: string): string => `/var/lib/libvirt/swtpm/${uuid.toLowerCase()}`
/** In there, what a TPM remembers while its guest is off: by its version. */
export const tpmFiles: Record<string, string> = { 'tpm2-00.permall': 'tpm2', 'tpm-00.permall': 'tpm1.2' }

/** A base is named for its image's id, so that two images never meet in one file. */
export async function baseName(imageId: string): Promise<string> {
  // Not node:crypto: it loads the runtime's streams, which takes longer than the rest of a small command.
  return Buffer.from(await crypto.subtle.digest('SHA-1', Buffer.from(imageId))).toString('hex')
}

/** The base of one size that Nova put disks on (`base_layout: sized`). @param size bytes, whole GiB */
export const sizedBaseName = (base: string, size: number): string => `${base}_${size / GiB}`

/** Sizes that are no whole GiB, and other file systems than the default, get names that cannot meet Nova's. */
export function ephemeralBaseName(size: number, osType: string, format: string): string {
  const amount = size % GiB === 0 ? `${size / GiB}` : `${size}b`
  const usual = format === (osType === 'windows' ? 'ntfs' : 'ext4')
  return `ephemeral_0_${amount}_${osType}${usual ? '' : `_${format}`}`
}

/** @param size bytes, whole MiB */
export const swapBaseName = (size: number): string => `swap_${size / MiB}`

export const isWholeGiB = (size: number): boolean => size % GiB === 0
export const isWholeMiB = (size: number): boolean => size % MiB === 0

/** A file that is being made stands beside the one it becomes. */
export const partOf = (path: string): string => `${path}.part`
/** What is to be merged into a disk so that its file system fills it. */
export const growingOf = (disk: string): string => `${disk}.growing`
export const convertedOf = (base: string): string => `${base}.converted`
/** A base that was found to differ is called this, when nothing needs it. */
export const quarantineOf = (base: string): string => `${base}.quarantined`
export const unpackedOf = (base: string): string => `${base}.unpacked`

/** Endings of what stands beside a base X, or takes its place for a while. */
const beside = /\.(json|part|unpacked|converted|quarantined)$/
/** A file in `_base` that disks may stand on, whoever made it. */
export const isBaseFile = (name: string): boolean => !beside.test(name)
/** The base that a file in `_base` belongs to. */
export const baseOfFile = (name: string): string => (beside.test(name) ? baseOfFile(name.replace(beside, '')) : name)

export type BaseKind = 'image' | 'sized' | 'ephemeral' | 'swap' | 'unknown'

/** What a base is, by its name; Nova's names count as well. */
export function kindOfBase(name: string): BaseKind {
  if (/^[0-9a-f]{40}$/.test(name)) return 'image'
  if (/^[0-9a-f]{40}_\d+$/.test(name)) return 'sized'
  if (/^ephemeral_\w+$/.test(name)) return 'ephemeral'
  return /^swap_\d+$/.test(name) ? 'swap' : 'unknown'
}

/** How the file was made, written before the file gets its name. */
export const recordOf = (path: string): string => `${path}.json`

export const baseLock = (base: string): string => `base.${basename(base)}`
/** With the images themselves: several trees of instances may have one store. */
export const imageLock = (directory: string, name: string): string => `${locksOf(directory)}/image.${name}`
export const instanceLock = (name: string): string => `instance.${name}`
/** What a destination holds on shared storage, where the source has the instance's own lock: of two that it asks, one waits. */
export const arrivalLock = (name: string): string => `arrival.${name}`

/** Every file that cowhand puts into an instance's directory: what `delete` may remove. */
export const instanceFiles = [
  'disk',
  'disk.local',
  'disk.swap',
  'disk.config',
  'disk.info',
  'console.log',
  'libvirt.xml',
  'definition.xml',
  'nvram.fd',
  'instance.json',
] as const

/** An older part of console.log: virtlogd sets it aside when the log has grown to 2 MiB. */
export const isOldConsole = (name: string): boolean => /^console\.log\.\d+$/.test(name)

export const diskNames = ['disk', 'disk.local', 'disk.swap'] as const
export type DiskName = (typeof diskNames)[number]

/** One disk of a domain: the file and the device that the guest sees. */
export interface Device {
  file: DiskName
  target: 'vda' | 'vdb' | 'vdc'
}

/**
 * The devices of an instance (S10): root vda, ephemeral vdb, swap on the next free one. A volume that already maps
 * the second device takes the ephemeral disk's place.
 */
export function devicesOf(
  wish: { ephemeral?: number | undefined; swap?: number | undefined },
  volumes: string[],
): Device[] {
  const ephemeral = wish.ephemeral !== undefined && !volumes.includes('vdb')
  const devices: Device[] = [{ file: 'disk', target: 'vda' }]
  if (ephemeral) devices.push({ file: 'disk.local', target: 'vdb' })
  if (wish.swap !== undefined)
    devices.push({ file: 'disk.swap', target: ephemeral || volumes.includes('vdb') ? 'vdc' : 'vdb' })
  return devices
}
