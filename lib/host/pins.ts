import { basename, dirname } from 'node:path'
import * as z from 'zod/mini'
import { readQcow2 } from '../image/qcow2.ts'
import type { DiskName } from '../job/layout.ts'
import type { FoundDisk } from '../job/overlay.ts'
import { jsonAt, ownFileAt, textAt } from './files.ts'

/** What a disk is to be taken for. `unknown`: nobody wrote it down, and what the guest wrote into it does not say. */
export type Pin = 'qcow2' | 'raw' | 'unknown'

/** The file `disk.info`, as Nova's driver writes it too: a disk's path, and its format. */
const DiskInfo = z.record(z.string(), z.string())

const asPin = (format: string | undefined): Pin => (format === 'qcow2' || format === 'raw' ? format : 'unknown')

/**
 * The format that is pinned for a disk of an instance: by disk.info, else (hosts older than that file) by its domain.
 * Nothing of the disk itself is read: a guest can write a qcow2 header with any backing file into a raw disk
 * (CVE-2013-1922, CVE-2015-5163; BEHAVIOUR.md S74).
 * @param directory of the instance; it may have another name than when disk.info was written (NAME_resize)
 * @throws {Problem} NOT_OURS where disk.info is no JSON, or something else than a file
 */
export async function pinsOf(directory: string): Promise<(disk: DiskName) => Pin> {
  const info = DiskInfo.safeParse(jsonAt(`${directory}/disk.info`))
  const pinned = info.success ? Object.entries(info.data) : await fromDomain(directory)
  return (disk) => {
    const formats = new Set(pinned.flatMap(([path, format]) => (path.split('/').at(-1) === disk ? [format] : [])))
    return formats.size === 1 ? asPin([...formats][0]) : 'unknown'
  }
}

/**
 * A disk that a step is to make, as it is found; undefined where nothing is.
 * @throws {Problem} NOT_OURS where it is something else, or has a second name; IMAGE_REJECTED for a bad qcow2 header
 */
export async function diskFoundAt(path: string): Promise<FoundDisk | undefined> {
  if (!ownFileAt(path)) return undefined
  const formatOf = await pinsOf(dirname(path))
  // Whoever calls the step says that it is an overlay. What is pinned as raw is none, whatever its guest wrote into it.
  return formatOf(basename(path) as DiskName) === 'raw' ? 'raw' : (readQcow2(path) ?? 'raw')
}

/** Source and driver type of each disk of the instance's domain; none where it has no domain that can be read. */
async function fromDomain(directory: string): Promise<[path: string, format: string][]> {
  const xml = textAt(`${directory}/libvirt.xml`)
  if (xml === undefined) return []
  const { driverTypesIn } = await import('./domain-xml.ts')
  return driverTypesIn(xml).filter(([path]) => path.startsWith(`${directory}/`))
}
