import { type GuestDisk, guestBytes, guestSize } from './guest-bytes.ts'

// Whether a disk holds one bare file system, and whether that could be larger. Sources: the kernel's
// Documentation/filesystems/ext4/super.rst and fs/xfs/libxfs/xfs_format.h.

/** `partitioned`: or a volume of LVM, LUKS and the like; its layout is the guest's. `none`: it begins with zeros. */
export type FileSystem = 'ext2' | 'ext3' | 'ext4' | 'xfs' | 'partitioned' | 'none' | 'unknown'

export interface FoundFileSystem {
  is: FileSystem
  /** Nothing to grow: it reaches to the end of the disk, but for what is too little for one more of its groups. */
  isFull: boolean
}

/** What is looked at, bytes: the superblocks, and where others have their marks (btrfs: 64 KiB and 64 bytes). */
const looked = 2 ** 16 + 512
const other: FoundFileSystem = { is: 'unknown', isFull: true }

/**
 * What a guest's disk holds, without a program started for it; a few reads, whatever the guest wrote.
 * @throws the system's error (`ENOENT` …) where a file cannot be read
 */
export async function fileSystemOn(disk: GuestDisk): Promise<FoundFileSystem> {
  const size = guestSize(disk)
  const head = size === undefined || size < looked ? undefined : await guestBytes(disk, 0, looked)
  return head && size !== undefined ? fileSystemIn(head, size) : other
}

const has = (head: Buffer, at: number, mark: string): boolean => head.toString('latin1', at, at + mark.length) === mark

/** @param head the first bytes of a disk @param size of the disk, bytes */
export function fileSystemIn(head: Buffer, size: number): FoundFileSystem {
  if (isPartitioned(head)) return { ...other, is: 'partitioned' }
  if (has(head, 0, 'XFSB')) return xfsIn(head, size)
  if (head.readUInt16LE(1080) === 0xef53) return extIn(head, size)
  return head.every((byte) => byte === 0) ? { ...other, is: 'none' } : other
}

function isPartitioned(head: Buffer): boolean {
  // A boot sector alone has the same mark as a table of partitions. There, each entry begins with 0x00 or 0x80, and one
  // that is in use has a type.
  const entries = head.readUInt16LE(510) === 0xaa55 ? [446, 462, 478, 494] : []
  const isMbr = entries.every((at) => head[at] === 0 || head[at] === 0x80) && entries.some((at) => head[at + 4] !== 0)
  const isGpt = [512, 4096].some((at) => has(head, at, 'EFI PART'))
  const isLvm = [0, 512, 1024, 1536].some((at) => has(head, at, 'LABELONE'))
  return isMbr || isGpt || isLvm || has(head, 0, 'LUKS') || has(head, 32769, 'CD001') || has(head, 65600, '_BHRfS_M')
}

/** Journal on another device; several hosts at once. Of all else e2fsck and resize2fs know whether they can do it. */
const [isJournal, isShared] = [0x8, 0x100]

function extIn(head: Buffer, size: number): FoundFileSystem {
  const at = (offset: number) => head.readUInt32LE(1024 + offset)
  const [compatible, incompatible, readOnly] = [at(92), at(96), at(100)]
  const hasJournal = (compatible & 0x4) !== 0
  const isOutside = hasJournal && at(224) === 0
  if (at(24) > 6 || (incompatible & (isJournal | isShared)) !== 0 || isOutside) return other
  // What ext3 does not know: extents, 64 bits, groups together; huge files, checksums, large inodes.
  const isNew = (incompatible & ~0x16) !== 0 || (readOnly & ~0x7) !== 0
  const is = isNew ? 'ext4' : hasJournal ? 'ext3' : 'ext2'
  const blockSize = 1024 * 2 ** at(24)
  const blocks = at(4) + ((incompatible & 0x80) !== 0 ? at(336) * 2 ** 32 : 0)
  // A group at the end that has room for its tables and 50 blocks only is left out (resize2fs, adjust_fs_info).
  const inodes = Math.ceil((at(40) * Math.max(128, head.readUInt16LE(1024 + 88))) / blockSize)
  const descriptors = Math.ceil(((size / blockSize / Math.max(1, at(32))) * 64) / blockSize)
  const least = 2 + inodes + 1 + descriptors + head.readUInt16LE(1024 + 206) + 50
  return { is, isFull: size / blockSize - blocks < Math.max(least, 4096 / blockSize) }
}

function xfsIn(head: Buffer, size: number): FoundFileSystem {
  const blockSize = head.readUInt32BE(4)
  const blocks = Number(head.readBigUInt64BE(8))
  // Blocks of a real-time device; a log on another.
  const isElsewhere = head.readBigUInt64BE(16) !== 0n || head.readBigUInt64BE(48) === 0n
  if (blockSize < 512 || blockSize > 65536 || isElsewhere) return other
  // Groups have 64 blocks at least (XFS_MIN_AG_BLOCKS).
  return { is: 'xfs', isFull: size / blockSize - blocks < 64 }
}
