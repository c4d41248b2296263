import type { Format } from '../job/spec.ts'
import { type ImageFile, makeWhole, type Reader, reject, roundUp, startsWith, tailOf, u64le } from './file.ts'
import { isQcow, type Qcow2Header, qcow2Header } from './qcow2.ts'
import { vdi } from './vdi.ts'
import { vhdx } from './vhdx.ts'
import { vmdk } from './vmdk.ts'
import { vpc } from './vpc.ts'

const isQcow1 = (file: ImageFile): boolean => isQcow(file) && file.head.length >= 8 && file.head.readUInt32BE(4) === 1

/** A qcow2 that no secret and no other file is needed for, but what it stands on. @throws {Problem} IMAGE_REJECTED */
export function closedQcow2(file: ImageFile): Qcow2Header {
  const header = qcow2Header(file)
  if (header.dataFile) reject(file.path, 'its data is in another file', makeWhole)
  if (header.encrypted) reject(file.path, 'it is encrypted', 'decrypt it where its secret is known')
  return header
}

/** qcow2 as an image, which has to stand alone; overlays of ours are read by readQcow2. */
const qcow2: Reader = {
  matches: (file) => isQcow(file) && !isQcow1(file),
  read(file) {
    const header = closedQcow2(file)
    if (header.backing !== undefined) reject(file.path, 'it has a backing file', makeWhole)
    return header.virtualSize
  },
}

/**
 * A delta: a qcow2 that stands on one base, which it names plainly, or by the path that it had on a host with the old
 * driver's layout (`/any/where/_base/NAME`). Of such a path only the last part counts; nothing ever opens it, and
 * whoever uses the delta must first write a backing name of our own into it.
 * @param base plain name of the only base it may name; behind it the size of the old driver's larger copies may stand:
 *   `<sha1>_<GiB>` (BEHAVIOUR.md S46)
 * @returns virtual size in bytes, and the backing file's name as it stands
 * @throws {Problem} IMAGE_REJECTED where it names another one, or calls it anything but raw
 */
export function readDelta(file: ImageFile, base: string): { virtualSize: number; backing: string } {
  const { virtualSize, backing, backingFormat = 'raw' } = closedQcow2(file)
  const getRight = `give the image that stands on the base ${base}`
  if (backing === undefined) reject(file.path, `it has no backing file, and should stand on the base ${base}`, getRight)
  const plain = backing.startsWith('/') ? (backing.split('/_base/').at(-1) ?? '') : backing
  // A name with a colon or a slash would be a protocol or a path to qemu, whoever asked for it.
  if (plain.replace(/_[0-9]{1,6}$/, '') !== base || !/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(base))
    reject(file.path, `its backing file is not the base ${base}`, getRight)
  if (backingFormat !== 'raw') reject(file.path, 'its backing file is declared other than raw', getRight)
  return { virtualSize, backing }
}

/** raw is what is none of the others: it has nothing to be known by. qemu reads whole sectors. */
const raw: Reader = { matches: () => false, read: (file) => roundUp(file.size, 512) }

export const readers: Record<Format, Reader> = { qcow2, raw, vmdk, vdi, vpc, vhdx }

const magic = (...words: string[]) => ({
  matches: ({ head }: ImageFile) => words.some((word) => startsWith(head, word)),
})

/**
 * What cowhand does not take, but qemu would recognise in a file that is called raw (block/*.c, the probe functions):
 * one forgotten `-f raw` and the guest's bytes would be read as a format that can name files of the host.
 */
export const foreign: { name: string; matches: (file: ImageFile) => boolean }[] = [
  { name: 'qcow (version 1)', matches: isQcow1 },
  { name: 'qed', ...magic('QED\0') },
  { name: 'luks', ...magic('LUKS\xba\xbe') },
  { name: 'parallels', ...magic('WithoutFreeSpace', 'WithouFreSpacExt') },
  { name: 'bochs', ...magic('Bochs Virtual HD Image') },
  { name: 'cloop', ...magic('#!/bin/sh\n#V2.0 Format\nmodprobe cloop') },
  { name: 'dmg', matches: (file) => startsWith(tailOf(file), 'koly') },
]

/**
 * What a disk begins with. A raw image may be all of these at once (an ISO that boots from a USB stick is), and so may a
 * fixed vpc, whose data is the disk from byte 0. Any other format has its own header there: who reads the file by the one
 * finds other data than who reads it by the other (CVE-2024-40767), and no honest tool makes such a file.
 */
export function disksIn(file: ImageFile): string[] {
  const { head, size } = file
  if (startsWith(tailOf(file), 'conectix') && !startsWith(head, 'conectix')) return []
  const volume = size >= 0x8006 ? file.read(0x8001, 5).toString('latin1') : ''
  // Where sectors have 4096 bytes. A guest's own table may come to lie here by chance, but then it fits the guest's disk.
  const wide = size >= 8192 && isWideGpt(file.read(4096, 512), size)
  return [
    ...(['CD001', 'BEA01', 'NSR02', 'NSR03', 'CDW02'].includes(volume) ? ['iso'] : []),
    ...(startsWith(head, 'U\xaa', 510) ? ['mbr'] : []),
    ...(startsWith(head, 'EFI PART', 512) || wide ? ['gpt'] : []),
  ]
}

/** A GPT header on a disk of 4096-byte sectors: its other copy lies inside the file too. */
const isWideGpt = (header: Buffer, size: number): boolean =>
  startsWith(header, 'EFI PART') && u64le(header, 32) * 4096 < size
