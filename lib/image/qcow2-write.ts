import { readSync, writeSync } from 'node:fs'
import { refuse } from '../job/problem.ts'
import { roundUp } from './file.ts'
import type { Qcow2Header } from './qcow2.ts'

const clusterSize = 65536
const backingFormatType = 0xe2792aca

/** Feature names, as qemu 7.2 writes them: kind (incompatible, compatible, autoclear), bit, name. */
const featureNames: [kind: number, bit: number, name: string][] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
]

function extension(type: number, data: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + roundUp(data.length, 8))
  bytes.writeUInt32BE(type, 0)
  bytes.writeUInt32BE(data.length, 4)
  data.copy(bytes, 8)
  return bytes
}

/** Refuse what no overlay can be. @param virtualSize in bytes @throws {Problem} UNSUPPORTED */
export function checkOverlay(backing: string, virtualSize: number): void {
  if (!(virtualSize > 0 && virtualSize % 512 === 0 && virtualSize <= 64 * 2 ** 40))
    refuse(
      'UNSUPPORTED',
      `Cannot make an overlay on "${backing}": ${virtualSize} bytes is no size for it`,
      'ask for a multiple of 512 bytes, at most 64T',
    )
  const length = Buffer.byteLength(backing)
  if (length === 0 || length > 1023 || backing.includes('\0'))
    refuse(
      'UNSUPPORTED',
      `Cannot make an overlay on "${backing}": qcow2 has room for a name of 1 to 1023 bytes`,
      'use a directory with a shorter path: --instances DIR',
    )
}

/**
 * An empty overlay, byte for byte as `qemu-img create -f qcow2 -F FORMAT -b BACKING PATH SIZE` of qemu 7.2 writes it:
 * version 3, clusters of 64 KiB, and four things in a row: header, refcount table, refcount block, L1 table.
 * To start that program takes longer than the whole of a warm `create` may.
 * @param virtualSize in bytes, a multiple of 512, at most 64 TiB
 * @returns the whole content; `fileSize` is its length in bytes
 * @throws {Problem} UNSUPPORTED where the size or the name cannot be had
 */
export function overlayBytes(overlay: { virtualSize: number; backing: string; backingFormat: 'raw' | 'qcow2' }): {
  bytes: Buffer
  fileSize: number
} {
  const { virtualSize, backing, backingFormat } = overlay
  checkOverlay(backing, virtualSize)
  const name = Buffer.from(backing)
  const l1Entries = Math.ceil(virtualSize / (clusterSize * (clusterSize / 8)))
  const fileSize = 3 * clusterSize + l1Entries * 8
  const bytes = Buffer.alloc(fileSize)

  const names = featureNames.map(([kind, bit, text]) => {
    const entry = Buffer.alloc(48)
    entry.set([kind, bit])
    entry.write(text, 2)
    return entry
  })
  const extensions = Buffer.concat([
    extension(backingFormatType, Buffer.from(backingFormat)),
    extension(0x6803f857, Buffer.concat(names)),
    extension(0, Buffer.alloc(0)),
  ])
  const headerLength = 112
  bytes.write('QFI\xfb', 0, 'latin1')
  bytes.writeUInt32BE(3, 4) // version
  bytes.writeBigUInt64BE(BigInt(headerLength + extensions.length), 8) // backing file name, after the extensions
  bytes.writeUInt32BE(name.length, 16)
  bytes.writeUInt32BE(16, 20) // cluster bits
  bytes.writeBigUInt64BE(BigInt(virtualSize), 24)
  bytes.writeUInt32BE(l1Entries, 36)
  bytes.writeBigUInt64BE(BigInt(3 * clusterSize), 40) // L1 table
  bytes.writeBigUInt64BE(BigInt(clusterSize), 48) // refcount table
  bytes.writeUInt32BE(1, 56) // of one cluster
  bytes.writeUInt32BE(4, 96) // refcounts of 2^4 bits
  bytes.writeUInt32BE(headerLength, 100)
  extensions.copy(bytes, headerLength)
  name.copy(bytes, headerLength + extensions.length)

  bytes.writeBigUInt64BE(BigInt(2 * clusterSize), clusterSize) // the only refcount block
  // Each cluster is used once. 64 TiB needs 16 clusters of L1 table; one block has room for 32768.
  const clusters = Math.ceil(fileSize / clusterSize)
  for (let cluster = 0; cluster < clusters; cluster++) bytes.writeUInt16BE(1, 2 * clusterSize + 2 * cluster)
  return { bytes, fileSize }
}

/**
 * The first cluster of a qcow2, with another backing file in it. All else stays as it is: its feature bits, its tables,
 * and the extensions that are not about the backing file. To write it is a `qemu-img rebase -u` that opens nothing.
 * Source: qemu's docs/interop/qcow2.txt, "Header" and "Header extensions".
 * @param cluster the first cluster, of a header that `qcow2Header` has accepted
 * @throws {Problem} UNSUPPORTED where the name does not fit into it
 */
export function rebasedCluster(cluster: Buffer, path: string, backing: string): Buffer {
  const headerLength = cluster.readUInt32BE(4) === 3 ? cluster.readUInt32BE(100) : 72
  const end = Number(cluster.readBigUInt64BE(8)) || cluster.length
  const extensions: Buffer[] = [extension(backingFormatType, Buffer.from('raw'))]
  for (let at = headerLength; at + 8 <= end && cluster.readUInt32BE(at) !== 0; ) {
    const [type, length] = [cluster.readUInt32BE(at), cluster.readUInt32BE(at + 4)]
    if (type !== backingFormatType) extensions.push(extension(type, cluster.subarray(at + 8, at + 8 + length)))
    at += 8 + roundUp(length, 8)
  }
  extensions.push(extension(0, Buffer.alloc(0)))
  const name = Buffer.from(backing)
  const head = Buffer.concat([cluster.subarray(0, headerLength), ...extensions])
  if (head.length + name.length > cluster.length || name.length > 1023)
    refuse(
      'UNSUPPORTED',
      `Cannot put "${path}" on base "${backing}": there is no room for the name in its first cluster`,
      'choose --instances with a shorter path',
    )
  const bytes = Buffer.alloc(cluster.length)
  head.copy(bytes)
  name.copy(bytes, head.length)
  bytes.writeBigUInt64BE(BigInt(head.length), 8)
  bytes.writeUInt32BE(name.length, 16)
  return bytes
}

/** Write another backing file's name into the header of an open qcow2. It is not flushed. */
export function rebaseHeader(fd: number, path: string, { clusterSize }: Qcow2Header, backing: string): void {
  const cluster = Buffer.alloc(clusterSize)
  readSync(fd, cluster, 0, clusterSize, 0)
  const bytes = rebasedCluster(cluster, path, backing)
  // No more than what changes, which is in the first page: a run that is killed here leaves one name or the other.
  const end = bytes.findLastIndex((byte, at) => byte !== cluster[at]) + 1
  writeSync(fd, bytes, 0, end, 0)
}

/**
 * Whether a raw file is one bare ext2, ext3 or ext4 file system: the old driver grew those inside its larger copies of
 * a base, so that such a copy is not the base and zeros. The magic is at byte 1080.
 */
export function isBareExt(fd: number): boolean {
  const magic = Buffer.alloc(2)
  return readSync(fd, magic, 0, 2, 1080) === 2 && magic.readUInt16LE(0) === 0xef53
}
