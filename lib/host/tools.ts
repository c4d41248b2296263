import { Problem } from '../job/problem.ts'

/** Programs that cowhand starts, and the Debian package that brings each: what an error's remedy names. */
export const packageOf: Record<string, string> = {
  bash: 'bash',
  blkid: 'util-linux',
  bzip2: 'bzip2',
  cp: 'coreutils',
  e2fsck: 'e2fsprogs',
  flock: 'util-linux',
  genisoimage: 'genisoimage',
  gzip: 'gzip',
  mke2fs: 'e2fsprogs',
  'mkfs.ext3': 'e2fsprogs',
  'mkfs.ext4': 'e2fsprogs',
  'mkfs.vfat': 'dosfstools',
  'mkfs.xfs': 'xfsprogs',
  mkntfs: 'ntfs-3g',
  mkswap: 'util-linux',
  mount: 'mount',
  nice: 'coreutils',
  'qemu-img': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  'qemu-system-x86_64': 'qemu-system-x86',
  resize2fs: 'e2fsprogs',
  rsync: 'rsync',
  setpriv: 'util-linux',
  ssh: 'openssh-client',
  unshare: 'util-linux',
  virsh: 'libvirt-clients',
  xfs_growfs: 'xfsprogs',
  xfs_repair: 'xfsprogs',
  xorriso: 'xorriso',
  xz: 'xz-utils',
  zstd: 'zstd',
}

/** A program that is needed is not there. */
export const missingTool = (tool: string): Problem => {
  const remedy = `install it: apt install ${packageOf[tool] ?? tool}`
  return new Problem('refused', 'TOOL_MISSING', `Cannot run "${tool}": it is not installed`, remedy)
}

/** What makes a program tell its version, where that is not `--version`. */
export const versionOption: Record<string, string> = {
  bzip2: '--help',
  e2fsck: '-V',
  genisoimage: '-version',
  mke2fs: '-V',
  'mkfs.vfat': '--help',
  'mkfs.xfs': '-V',
  ssh: '-V',
  xfs_growfs: '-V',
  xfs_repair: '-V',
  xorriso: '-version',
}

/** The oldest version that does what we ask of it, where older ones are still met. */
export const minimumOf: Record<string, string> = {
  mke2fs: '1.47.0', // -E assume_storage_prezeroed
  'qemu-img': '6.0',
}

/** -1, 0 or 1, as `a` is older than, the same as or newer than `b`. Versions are numbers with dots. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number)) as [number[], number[]]
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0)
    if (difference !== 0) return Math.sign(difference)
  }
  return 0
}

/**
 * Is this rsync without the holes in its daemon (CVE-2024-12084 … 12088)?
 * @param upstream version that it tells itself
 * @param debian version of its package, where it comes from one: Debian mended 3.2.7 and 3.2.3 in place
 */
export function rsyncIsMended(upstream: string, debian = ''): boolean {
  if (compareVersions(upstream, '3.4.0') >= 0) return true
  return /^3\.2\.7-1\+deb12u([2-9]|\d\d)/.test(debian) || /^3\.2\.3-4\+deb11u([2-9]|\d\d)/.test(debian)
}
