import type { Format } from '../job/spec.ts'
import { type ImageFile, makeWhole, type Reader, reject, roundUp, startsWith, tailOf } from './file.ts'
import { isQcow, qcow2Header } from './qcow2.ts'
import { vdi } from './vdi.ts'
import { vhdx } from './vhdx.ts'
import { vmdk } from './vmdk.ts'
import { vpc } from './vpc.ts'

const isQcow1 = (file: ImageFile): boolean => isQcow(file) && file.head.length >= 8 && file.head.readUInt32BE(4) === 1

/** qcow2 as an image, which has to stand alone; overlays of ours are read by readQcow2. */
const qcow2: Reader = {
  matches: (file) => isQcow(file) && !isQcow1(file),
  read(file) {
    const header = qcow2Header(file)
    if (header.backing !== undefined) reject(file.path, 'it has a backing file', makeWhole)
    if (header.dataFile) reject(file.path, 'its data is in another file', makeWhole)
    if (header.encrypted) reject(file.path, 'it is encrypted', 'decrypt it where its secret is known')
    return header.virtualSize
  },
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
