// Makes a small image that really boots: Debian's cloud kernel, busybox and syslinux on one FAT partition.
// Nothing is mounted and nothing is installed, so root is not needed. Kept in build/out/demo until its recipe changes.
//   npx tsx build/demo-image.ts     makes it and prints its path
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { errno, fail } from '../lib/job/problem.ts'

const cache = join(import.meta.dirname, 'out/demo')
const guest = join(import.meta.dirname, 'demo-guest')
const busybox = '/bin/busybox'
const bootCode = '/usr/lib/syslinux/mbr/mbr.bin'

/** What an image is made of, besides the kernel and busybox. */
export interface ImageRecipe {
  name: string
  /** Directory of what becomes the root of its first file system: `init`, and what that calls. */
  guest: string
  /** Drivers of the kernel, each after those it depends on; `init` finds them in /modules, and their order. */
  modules: string[]
  /** Drivers that lie there besides. */
  spare?: string[]
}

/** Loaded in this order: what a module depends on stands before it. ext4 is built into the kernel. */
export const diskModules = [
  ...['virtio_ring', 'virtio', 'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci', 'virtio_blk'],
  ...['scsi_common', 'scsi_mod', 'virtio_scsi', 'cdrom', 'sr_mod', 'isofs'],
  ...['nls_cp437', 'nls_ascii', 'fat', 'vfat'],
]

/** Start of the partition and size of the disk, in bytes. */
const partitionStart = 1024 ** 2
const diskSize = 48 * 1024 ** 2

const bootMenu =
  'DEFAULT linux\nPROMPT 0\nLABEL linux\n  KERNEL vmlinuz\n  INITRD initrd\n  APPEND console=ttyS0 quiet panic=-1\n'

/** One fixed time for every file, so that the same recipe makes the same bytes. */
const epoch = 1_700_000_000
const environment = {
  ...process.env,
  PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/usr/bin:/sbin:/bin`,
  LC_ALL: 'C.UTF-8',
  SOURCE_DATE_EPOCH: String(epoch),
  MTOOLS_SKIP_CHECK: '1',
}

/**
 * Run a program to its end.
 * @returns its standard output
 * @throws {Problem} TOOL_MISSING, TOOL_FAILED with what it said
 */
function tool(argv: string[], { cwd = cache, input = '' } = {}): Buffer {
  const [program = '', ...args] = argv
  try {
    return execFileSync(program, args, { cwd, input, env: environment, stdio: 'pipe', maxBuffer: 256 * 1024 ** 2 })
  } catch (error) {
    if (errno(error) === 'ENOENT') {
      fail(
        'TOOL_MISSING',
        `Cannot make an image that boots: ${program} is missing`,
        'build/setup.sh installs what is missing',
      )
    }
    const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error)
    fail(
      'TOOL_FAILED',
      `Cannot make an image that boots: ${argv.join(' ')} failed`,
      said || 'Run it by hand to see why',
    )
  }
}

/**
 * The path of Debian's kernel package, fetched (never installed) where it is not in the cache yet. apt proves its
 * digest and signature.
 */
function kernelPackage(): string {
  const cached = () => readdirSync(cache).find((name) => /^linux-image-.*-cloud-amd64_.*_amd64\.deb$/.test(name))
  let found = cached()
  if (!found) {
    try {
      downloadKernel([])
    } catch {
      // This host has no package lists, or stale ones: get fresh ones of our own, which needs no root.
      const apt = join(cache, 'apt')
      const own = [`Dir::State::lists=${apt}/lists`, `Dir::Cache=${apt}/cache`].flatMap((option) => ['-o', option])
      mkdirSync(join(apt, 'lists/partial'), { recursive: true })
      mkdirSync(join(apt, 'cache/archives/partial'), { recursive: true })
      tool(['apt-get', '-q', '-o', 'APT::Sandbox::User=root', ...own, 'update'])
      downloadKernel(own)
      rmSync(apt, { recursive: true })
    }
    found = cached()
  }
  if (!found)
    fail('FETCH_FAILED', 'Cannot make an image that boots: apt brought no kernel', 'apt-get update, then again')
  return join(cache, found)
}

/** linux-image-cloud-amd64 is only a name for the newest kernel: the package it depends on has the files. */
function downloadKernel(aptOptions: string[]): void {
  const about = String(tool(['apt-cache', ...aptOptions, 'show', '--no-all-versions', 'linux-image-cloud-amd64']))
  const name = /^Depends:.*?(linux-image-[\w.+-]+-cloud-amd64)/m.exec(about)?.[1]
  if (!name) fail('FETCH_FAILED', 'Cannot find the kernel: linux-image-cloud-amd64 names none', 'apt-get update')
  // In a directory of its own, so that a download cut short is never taken for a package.
  const part = mkdtempSync(join(cache, 'part-'))
  try {
    tool(['apt-get', '-q', '-o', 'APT::Sandbox::User=root', ...aptOptions, 'download', name], { cwd: part })
    for (const file of readdirSync(part)) renameSync(join(part, file), join(cache, file))
  } finally {
    rmSync(part, { recursive: true })
  }
}

/** The first file system the kernel sees, a cpio archive: busybox, the drivers and our scripts. */
function makeInitrd(scratch: string, kernelFiles: string, { guest, modules, spare = [] }: ImageRecipe): Buffer {
  const root = join(scratch, 'root')
  mkdirSync(join(root, 'bin'), { recursive: true })
  mkdirSync(join(root, 'modules'))
  const files = [[busybox, 'bin/busybox'], ...readdirSync(guest).map((name) => [join(guest, name), name])]
  const all = readdirSync(join(kernelFiles, 'lib/modules'), { recursive: true, encoding: 'utf8' })
  for (const module of [...modules, ...spare]) {
    const path = all.find((file) => basename(file) === `${module}.ko`)
    if (!path)
      fail('TOOL_FAILED', `Cannot make an image that boots: the kernel has no module ${module}`, 'Mend the list')
    files.push([join(kernelFiles, 'lib/modules', path), `modules/${module}.ko`])
  }
  for (const [from = '', to = ''] of files) copyFileSync(from, join(root, to))
  writeFileSync(join(root, 'modules/order'), `${modules.join('\n')}\n`)
  const names = ['bin', 'modules', 'modules/order', ...files.map(([, to = '']) => to)].sort()
  for (const name of names) {
    chmodSync(join(root, name), 0o755)
    utimesSync(join(root, name), epoch, epoch)
  }
  const archive = tool(['cpio', '--quiet', '--reproducible', '-o', '-H', 'newc', '-R', '0:0'], {
    cwd: root,
    input: `${names.join('\n')}\n`,
  })
  return gzipSync(archive)
}

/** A whole disk: boot code, a partition table with one active FAT16 partition, and syslinux on it. */
function makeDisk(scratch: string, kernelFiles: string, recipe: ImageRecipe): string {
  const raw = join(scratch, 'disk.raw')
  const sector = 512
  const table = Buffer.alloc(sector)
  readFileSync(bootCode).copy(table, 0, 0, 440)
  table.write('cowh', 440, 'latin1')
  table.set([0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff], 446) // active, FAT16 by LBA
  table.writeUInt32LE(partitionStart / sector, 454)
  table.writeUInt32LE((diskSize - partitionStart) / sector, 458)
  table.writeUInt16LE(0xaa55, 510)
  tool(['truncate', '-s', String(diskSize), raw])
  writeFileSync(raw, table, { flag: 'r+' })

  const offset = String(partitionStart / sector)
  const kibibytes = String((diskSize - partitionStart) / 1024)
  tool(['mkfs.vfat', '-F', '16', '--invariant', '-n', 'DEMO', '--offset', offset, '-h', offset, raw, kibibytes])
  const [vmlinuz = ''] = readdirSync(join(kernelFiles, 'boot')).filter((name) => name.startsWith('vmlinuz-'))
  copyFileSync(join(kernelFiles, 'boot', vmlinuz), join(scratch, 'vmlinuz'))
  writeFileSync(join(scratch, 'initrd'), makeInitrd(scratch, kernelFiles, recipe))
  writeFileSync(join(scratch, 'syslinux.cfg'), bootMenu)
  const files = ['vmlinuz', 'initrd', 'syslinux.cfg']
  for (const file of files) utimesSync(join(scratch, file), epoch, epoch)
  tool(['mcopy', '-m', '-i', `${raw}@@${partitionStart}`, ...files, '::'], { cwd: scratch })
  tool(['syslinux', '--install', '--offset', String(partitionStart), raw])
  return raw
}

/**
 * An image of this recipe is there; the second time nothing is made.
 * @returns its path, a qcow2 file
 * @throws {Problem} TOOL_MISSING, TOOL_FAILED, FETCH_FAILED
 */
export function bootableImage(recipe: ImageRecipe): string {
  mkdirSync(cache, { recursive: true })
  const { name, guest } = recipe
  const scripts = readdirSync(guest).map((file) => join(guest, file))
  const ingredients = [import.meta.filename, ...scripts.sort(), busybox, bootCode]
  // In the initrd there are no shared libraries: the other busybox, which names a loader for them, would not start.
  if (!ingredients.every((file) => existsSync(file)) || readFileSync(busybox).includes('\0/lib64/ld-linux')) {
    const remedy = 'apt-get install busybox-static syslinux syslinux-common'
    fail('TOOL_MISSING', 'Cannot make an image that boots: a static busybox or syslinux is missing', remedy)
  }
  const kernel = kernelPackage()
  // The recipe is all that can change the bytes; its digest is part of the name, so another recipe is another file.
  const digest = createHash('sha256')
    .update(basename(kernel))
    .update(JSON.stringify([recipe.modules, recipe.spare]))
  for (const file of ingredients) digest.update(readFileSync(file))
  const image = join(cache, `${name}-${digest.digest('hex').slice(0, 12)}.qcow2`)
  if (existsSync(image)) return image

  const scratch = mkdtempSync(join(cache, 'part-'))
  try {
    tool(['dpkg-deb', '-x', kernel, join(scratch, 'kernel')])
    const raw = makeDisk(scratch, join(scratch, 'kernel'), recipe)
    const part = join(scratch, 'disk.qcow2')
    tool(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, part])
    for (const old of readdirSync(cache)) if (old.startsWith(`${name}-`)) rmSync(join(cache, old))
    renameSync(part, image)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return image
}

/** The image of the demo, whose guest reports what it sees and powers itself off. See `bootableImage`. */
export const demoImage = (): string => bootableImage({ name: 'demo-image', guest, modules: diskModules })

if (process.argv[1] === import.meta.filename) process.stdout.write(`${demoImage()}\n`)
