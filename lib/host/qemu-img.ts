import { closeSync, constants, fchownSync, fstatSync, ftruncateSync, openSync } from 'node:fs'
import { errno, Problem, refuse } from '../job/problem.ts'
import { type Format, formatSize } from '../job/spec.ts'
import { isSandboxUser, type Limits, memory, powers } from './sandbox.ts'
import type { End, RunOptions } from './shell.ts'

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants

/** The last percentage in what `qemu-img -p` prints: `    (12.34/100%)\r`. */
export function percentIn(output: string): number | undefined {
  const last = [...output.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)
  return last ? Number(last[1]) : undefined
}

/** Formats whose structure `qemu-img check` can prove: a truncated file of these converts without an error. */
export const checkable: readonly Format[] = ['qcow2', 'vmdk', 'vdi', 'vhdx']

/**
 * Convert to a sparse raw file. The format is always given: nothing is guessed from what an image's author wrote.
 * @param isDirect write past the page cache, which is four times as fast; out of order (`-W`) it pays only then
 */
export const convertToRaw = (from: string, format: Format, to: string, isDirect: boolean): string[] => [
  'qemu-img',
  'convert',
  '-p',
  ...(isDirect ? ['-t', 'none', '-W', '-m', '16'] : ['-m', '8']),
  '-f',
  format,
  '-O',
  'raw',
  from,
  to,
]

/** An image for qemu-img, whose path stands in its words. */
export interface Image {
  path: string
  format: Format
  /** Our descriptor of it, where it is to be changed. */
  fd?: number | undefined
  /** What it stands on. Without it that is nothing, whatever its header says. */
  on?: Image | undefined
  /** A disk of a guest that is off: where only its owner may read it, it is qemu-img's for as long as that reads it. */
  lent?: boolean
  /** Read past the page cache. */
  direct?: boolean
}

export interface Work {
  images: Image[]
  /** What a guest sees of them, in bytes, by our own reader: the limits follow from it. */
  size: number
  /** The file that it makes, raw unless it is said, with our descriptor of it; its path stands in the words too. */
  makes?: { path: string; fd: number; format?: 'qcow2' } | undefined
}

const MiB = 2 ** 20
const chainOf = (image: Image): Image[] => [image, ...(image.on ? chainOf(image.on) : [])]
/** Past the page cache, whole blocks are written, of up to 4096 bytes: the last may reach behind the disk's end. */
const padded = (size: number): number => Math.ceil(size / 4096) * 4096

/**
 * Run qemu-img on images that our own reader has examined, as a program that their authors may have taken over: see
 * `confine`. The words are as for a call by hand, with `-f`; what it is given in place of the paths are descriptors.
 * So none can be taken for a protocol, and no directory has to let it in. As root, all that an image could make it open
 * besides is what everybody may read. (A container that may not make namespaces cannot end what it leaves behind.)
 * It has 60 seconds of processor time and one more for each 16 MiB, ten times what the slowest formats were seen to take.
 * @throws {Problem} IMAGE_REJECTED when it needs more than it may have, crashes, or sees another size than our reader;
 *   NO_PERMISSION where an unprivileged user may not read an image; NOT_OURS, NO_SPACE, TOOL_MISSING, TOOL_FAILED
 */
export async function qemuImg(
  argv: readonly string[],
  { images, size, makes }: Work,
  options: Omit<RunOptions, 'sandbox' | 'files' | 'reword' | 'explain'> & { why: string },
): Promise<{ stdout: string; code: number }> {
  if (!argv.includes('-f')) throw new TypeError('qemu-img would guess the format')
  const { program } = await import('./shell.ts')
  // Of raw images nothing is interpreted, and some are for nobody else to read.
  const all = images.flatMap(chainOf)
  const isRaw = all.every(({ format }) => format === 'raw')
  const power = isRaw ? { ...powers(), user: undefined } : powers()
  const written = [makes?.fd, ...all.map(({ fd }) => fd)].filter((fd) => fd !== undefined)
  const { names, files, lent, close } = descriptors(images, makes, power.user)
  const isRawMade = makes !== undefined && makes.format === undefined
  try {
    // That the file system takes no file as large is told here: later it would look like a limit of ours.
    if (makes) for (const length of isRawMade ? [size, 0] : [0]) ftruncateSync(makes.fd, length)
    for (const fd of [...written, ...lent.keys()]) handOver(fd, power.user)
    // A qcow2 has tables. One that is changed may keep all that it has now (snapshots, leaks), and the disk beside it.
    const present = Math.max(0, ...written.map((fd) => fstatSync(fd).size))
    const output = isRawMade ? padded(size) : written.length > 0 ? present + size + size / 32 + 64 * MiB : 0
    const limits = { cpu: 60 + size / (16 * MiB), output }
    const done = await program(
      argv.map((word) => names.get(word) ?? word),
      {
        ...options,
        sandbox: { ...power, limits },
        files,
        reword: (words) => [...names].reduce((text, [path, name]) => text.replaceAll(name, path), words),
        explain: (end) => explainEnd(end, options.why, limits),
      },
    )
    const made = isRawMade ? fstatSync(makes.fd).size : size
    if (isRawMade && made === padded(size)) ftruncateSync(makes.fd, size)
    else if (made !== size)
      refuse(
        'IMAGE_REJECTED',
        `Cannot ${options.why}: qemu-img sees ${made} bytes in it, and cowhand ${size}`,
        'use another image: one of the two is misled',
      )
    return done
  } finally {
    // In a namespace nobody is left who could still write to it: see `confine`.
    for (const fd of written) handOver(fd, power.user === undefined ? undefined : process.geteuid?.())
    for (const [fd, owner] of lent) handOver(fd, owner)
    close()
  }
}

/** What stands for each path in qemu-img's words, and the descriptors that it is started with, from 3 on. */
function descriptors(images: Image[], makes: Work['makes'], user: number | undefined) {
  const [files, opened, names]: [number[], number[], Map<string, string>] = [[], [], new Map()]
  /** Whose it is that is lent, by our descriptor. A run that was killed may have left it to the user that it had. */
  const lent = new Map<number, number>()
  const close = () => opened.forEach(closeSync)
  const file = (fd: number) => ({
    driver: 'file',
    filename: `/proc/self/fd/${2 + files.push(fd)}`,
  })
  function openImage({ path, lent: isLent }: Image): number {
    const fd = openReadable(path, isLent ? undefined : user)
    opened.push(fd)
    const { mode, uid } = fstatSync(fd)
    if (isLent && user !== undefined && (mode & 0o004) === 0)
      lent.set(fd, isSandboxUser(uid) ? (process.geteuid?.() ?? uid) : uid)
    return fd
  }
  // No name in a header is followed: what an image stands on is said, where it matters here.
  const node = (image: Image): object => ({
    driver: image.format,
    ...(image.direct ? { cache: { direct: true } } : {}),
    file: file(image.fd ?? openImage(image)),
    backing: image.on ? node(image.on) : null,
  })
  try {
    for (const image of images) names.set(image.path, `json:${JSON.stringify(node(image))}`)
    if (makes) names.set(makes.path, `file:${file(makes.fd).filename}`)
  } catch (error) {
    close()
    throw error
  }
  return { names, files, lent, close }
}

/** @throws {Problem} NO_PERMISSION rather than to change the mode of an operator's file; NOT_OURS; the system's error */
export function openReadable(path: string, user: number | undefined): number {
  const fd = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  const facts = fstatSync(fd)
  if (facts.isFile() && (user === undefined || (facts.mode & 0o004) !== 0)) return fd
  closeSync(fd)
  if (!facts.isFile())
    refuse('NOT_OURS', `Cannot read "${path}": it is not a regular file`, `look at it: ls -ld ${path}`)
  return refuse(
    'NO_PERMISSION',
    `Cannot read "${path}": qemu-img works as an unprivileged user, and only its owner may read this file`,
    `chmod o+r ${path}`,
  )
}

/** True afterwards: the file is this user's, and its group's as before. */
export function handOver(fd: number, user: number | undefined): void {
  if (user === undefined) return
  try {
    fchownSync(fd, user, -1)
  } catch (error) {
    if (errno(error) !== 'EPERM') throw error
    const message = 'Cannot give a file to an unprivileged user, which qemu-img works as: its file system refuses'
    refuse('NO_PERMISSION', message, 'put --instances where root may change owners (NFS: no_root_squash)')
  }
}

/** What crashes a program. */
const crashes = ['SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGSEGV', 'SIGTRAP']

/** What an end says of the image; undefined where it says something of this host. Exported for its table test. */
export function explainEnd(
  { signal, words }: Omit<End, 'said'>,
  why: string,
  { cpu, output }: Limits,
): Problem | undefined {
  const rejected = (state: string) => {
    const remedy = 'get the image again from its source, or use another one'
    return new Problem('refused', 'IMAGE_REJECTED', `Cannot ${why}: ${state}`, remedy)
  }
  if (signal === 'SIGXCPU') return rejected(`qemu-img works on it for more than ${Math.ceil(cpu)} s, its limit`)
  if (signal === 'SIGXFSZ' || /File too large/.test(words))
    return rejected(`qemu-img writes more than ${output} bytes, its limit`)
  if (/Cannot allocate memory|failed to allocate/i.test(words))
    return rejected(`qemu-img needs more than ${formatSize(memory)} of memory, its limit`)
  if (signal && crashes.includes(signal)) return rejected(`qemu-img crashes on it (${signal})`)
  return undefined
}

/** Bytes of data in an image, at most: what a sparse copy of it allocates. @throws {Problem} as `qemuImg` and `examine` */
export async function dataSize(path: string, format: Format): Promise<number> {
  const { examine } = await import('../image/examine.ts')
  const { virtualSize: size } = await examine(path, { format, ceiling: Number.MAX_SAFE_INTEGER })
  const argv = ['qemu-img', 'measure', '--output=json', '-f', format, '-O', 'qcow2', path]
  const { stdout } = await qemuImg(argv, { images: [{ path, format }], size }, { why: `measure "${path}"` })
  return Number(JSON.parse(stdout).required)
}

/**
 * Whether a running guest may write to this disk: then qemu's own lock keeps us out, also from another host where the
 * file system is shared (block/file-posix.c, and BLK_PERM_WRITE of block-common.h). Not one byte of the disk is read.
 * @throws {Problem} NOT_OURS, TOOL_MISSING, TOOL_FAILED
 */
export async function isInUse(disk: string): Promise<boolean> {
  const { program } = await import('./shell.ts')
  const fd = openReadable(disk, undefined)
  try {
    // blkdebug passes everything on, and does here what qcow2 would do: it wants nobody else to write.
    const image = { driver: 'file', filename: '/proc/self/fd/3' }
    const name = `json:${JSON.stringify({ driver: 'blkdebug', image, 'unshare-child-perms': ['write'] })}`
    await program(['qemu-img', 'info', '-f', 'blkdebug', name], {
      why: `see whether "${disk}" is in use`,
      // As ourselves: a guest's disk is for nobody else to read, and it is only opened.
      sandbox: { ...powers(), user: undefined, limits: { cpu: 60, output: 0 } },
      files: [fd],
    })
    return false
  } catch (error) {
    if (error instanceof Error && /Failed to get .*lock/i.test(error.message)) return true
    throw error
  } finally {
    closeSync(fd)
  }
}
