import { createHash } from 'node:crypto'
import type { EphemeralFormat } from '../job/spec.ts'

/** A program to start, and whether it writes the same bytes on every host and at any time (same tool version). */
export interface Maker {
  argv: string[]
  /** To be added to a clean environment. */
  env?: Record<string, string>
  deterministic: boolean
}

const label = 'ephemeral0' // BEHAVIOUR.md S7: guests mount it by this name
const TiB = 2 ** 40

/** 2020-01-01T00:00:00Z, in seconds: when every file system of ours was made. 0 would mean "now" to mke2fs. */
const epoch = '1577836800'

/** A UUID that follows from a name (RFC 9562 version 5 in form, without a name space). */
export function uuidOf(name: string): string {
  const bytes = createHash('sha1').update(name).digest().subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x50, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

// Every feature is named, for the defaults differ between versions, and old guests must be able to mount the disk.
const journaled = [
  'none',
  'has_journal',
  'ext_attr',
  'resize_inode',
  'dir_index',
  'filetype',
  'sparse_super',
  'large_file',
]
const features = {
  ext3: journaled,
  ext4: [...journaled, 'extent', '64bit', 'flex_bg', 'huge_file', 'dir_nlink', 'extra_isize', 'metadata_csum'],
}

/** Bytes per inode, as mke2fs itself chooses: fewer inodes where they would become too many. */
const inodeRatio = (size: number): number => (size < 4 * TiB ? 16384 : size < 16 * TiB ? 32768 : 65536)

function mke2fs(path: string, format: 'ext3' | 'ext4', size: number, uuid: string): Maker {
  const extended = [
    `hash_seed=${uuid}`,
    'root_owner=0:0',
    'assume_storage_prezeroed=1', // the file is fresh and sparse: nothing needs zeroing, here or in the guest
  ]
  return {
    argv: [
      ...['mke2fs', '-q', '-F', '-T', 'default', '-L', label, '-U', uuid],
      ...['-b', '4096', '-I', '256', '-i', `${inodeRatio(size)}`, '-m', '5'],
      ...['-O', features[format].join(','), '-E', extended.join(',')],
      path,
    ],
    // An empty configuration: /etc/mke2fs.conf differs between hosts, and some of its keys have no option.
    env: { MKE2FS_CONFIG: '/dev/null', E2FSPROGS_FAKE_TIME: epoch, SOURCE_DATE_EPOCH: epoch },
    deterministic: true,
  }
}

/**
 * The program that makes an ephemeral disk's file system, labelled `ephemeral0`, on a fresh sparse file.
 * Its UUID follows from format and size, so that every host makes the same.
 * @param options.size of the file, bytes
 */
export function mkfsCommand(options: { path: string; format?: EphemeralFormat; size: number }): Maker {
  const { path, format = 'ext4', size } = options
  const uuid = uuidOf(`cowhand ${label} ${format} ${size}`)
  switch (format) {
    case 'ext3':
    case 'ext4':
      return mke2fs(path, format, size, uuid)
    case 'xfs':
      // Up to xfsprogs 6.1 at least, times and inode generations of its first inodes cannot be given.
      return { argv: ['mkfs.xfs', '-q', '-f', '-L', label, '-m', `uuid=${uuid}`, path], deterministic: false }
    case 'vfat': // --invariant sets an id too: ours has to come after it
      return { argv: ['mkfs.vfat', '--invariant', '-i', uuid.slice(0, 8), '-n', label, path], deterministic: true }
    case 'ntfs': {
      // -T: all times 0, and the serial number's seed is the time. The geometry: what it cannot learn from a file.
      const geometry = ['-s', '512', '-p', '0', '-H', '255', '-S', '63']
      return { argv: ['mkntfs', '-q', '-Q', '-F', '-T', '-L', label, ...geometry, path], deterministic: true }
    }
  }
}

/** The program that makes a swap disk, labelled `swap0`, on a fresh sparse file. @param options.size bytes */
export function mkswapCommand(options: { path: string; size: number }): Maker {
  const uuid = uuidOf(`cowhand swap0 swap ${options.size}`)
  // The page size is named: by default it is the host's, and the guest's is 4096.
  return { argv: ['mkswap', '-q', '-p', '4096', '-L', 'swap0', '-U', uuid, options.path], deterministic: true }
}
