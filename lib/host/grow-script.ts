import { becoming, powers, type Sandbox, ulimits } from './sandbox.ts'

// How the programs that grow a guest's file system are started: what they can do, if the guest takes them over.
//
// One bash is the first process of namespaces of its own, and everything happens under it: when it ends, or cowhand
// does, be it by SIGKILL, no program, mount, loop device or export is left. It mounts the disk as one file (FUSE), and
// two users without a name or a capability do the rest: one is qemu's export daemon, the other reads and writes what
// the guest wrote. Only the second may open the file, and it never gets at the image behind it.

/** Our descriptors as the daemon has them: the disk, the layer that takes what is written, the disk's base. */
export const [diskAt, layerAt, baseAt] = [3, 4, 5]
const fuseAt = 9
const file = '/tmp/disk'
const MiB = 2 ** 20

/** Programs that are needed, to be asked for while a plan is made. */
export const growTools = {
  ext: ['qemu-storage-daemon', 'qemu-img', 'unshare', 'setpriv', 'nice', 'mount', 'e2fsck', 'resize2fs'],
  xfs: ['qemu-storage-daemon', 'qemu-img', 'unshare', 'setpriv', 'nice', 'mount', 'xfs_repair', 'xfs_growfs'],
}

/** The daemon's words: what is opened, and how, is all said; no header and no name in it is followed. */
function daemon(format: 'qcow2' | 'raw', hasBase: boolean): string[] {
  const open = (fd: number) => ({ driver: 'file', filename: `/proc/self/fd/${fd}` })
  const reading = { 'read-only': true }
  const base = hasBase ? { driver: 'raw', ...reading, file: { ...open(baseAt), ...reading } } : null
  const disk = { driver: format, ...reading, file: { ...open(diskAt), ...reading } }
  const layer = {
    driver: 'qcow2',
    'node-name': 'layer',
    'detect-zeroes': 'on', // tables that are zeroed need no space
    cache: { 'no-flush': true }, // one that was not finished is worth nothing, and who finishes it flushes it
    file: open(layerAt),
    backing: format === 'qcow2' ? { ...disk, backing: base } : disk,
  }
  const shown = `type=fuse,id=disk,node-name=layer,mountpoint=/dev/fd/${fuseAt},writable=on,growable=off,allow-other=off`
  return ['qemu-storage-daemon', '--blockdev', `'${JSON.stringify(layer)}'`, '--export', shown]
}

/**
 * A script that grows the file system which the daemon shows, and proves afterwards that it is whole. It tells what it
 * is about to do in lines that begin with `@`, and ends with 1 where something did not succeed.
 * @param size of the disk, bytes
 */
export function growScript(
  kind: 'ext' | 'xfs',
  { format, hasBase, size }: { format: 'qcow2' | 'raw'; hasBase: boolean; size: number },
): string[] {
  const { namespaces, user } = powers()
  const worker = powers(1).user
  const cpu = 60 + size / (16 * MiB)
  // What is written is the file system's own: groups that are new, and what has to make room for their descriptors.
  const written = size / 4 + 256 * MiB
  const confined = (argv: string[], sandbox: Sandbox, apart = ''): string => {
    // xfs_repair takes every limit of a file's size from itself, and ends where it may not; it is to write nothing (-n).
    const limits = ulimits(sandbox)
      .filter((limit) => argv[0] !== 'xfs_repair' || !limit.startsWith('-f '))
      .map((limit) => `ulimit ${limit} 2>/dev/null || :; `)
    // Where we are not root, all have our own user, which is called root in this namespace.
    return `( ${limits.join('')}exec ${apart}setpriv ${[...becoming(namespaces ? sandbox.user : undefined), '--', ...argv].join(' ')} )`
  }
  const works = (...argv: string[]) => confined(argv, { user: worker, namespaces, limits: { cpu, output: size } })
  // The daemon must not be who unmounts XFS: the last process of a namespace does that while it ends, when all are
  // killed at once, and would wait for its own answers in the kernel, for ever.
  const shows = confined(daemon(format, hasBase), { user, namespaces, limits: { cpu, output: written } }, 'unshare -m ')
  const owner = namespaces ? worker : 0
  const options = [`fd=${fuseAt},rootmode=100000,user_id=${owner},group_id=${owner}`]
  // The kernel's own loop device has to read it, too.
  if (kind === 'xfs') options.push('allow_other')
  const script = [
    'set -Eu -o pipefail; trap "exit 1" ERR; trap "exit 143" TERM; exec 2>&1',
    'echo "@FUSE"',
    'mount -t tmpfs -o nosuid,noexec,mode=711,size=1m cowhand /tmp; cd /tmp',
    `mkdir dev dev/fd mnt; for f in disk dev/null dev/fd/${fuseAt}; do : >$f; done`,
    `exec ${fuseAt}<>/dev/fuse`,
    `mount -i -t fuse -o ${options.join(',')} cowhand ${file}`,
    // The daemon wants to mount a regular file itself, which needs rights. libfuse takes /dev/fd/N for one that is
    // mounted already, on descriptor N (fuse_session_mount): so this name is a regular file here.
    'mount --bind /dev/null dev/null; mount --rbind dev /dev',
    `${shows} <&0 & daemon=$!`,
    // From here on only the daemon has these: without it, who waits for the file is told so.
    `exec ${[diskAt, layerAt, baseAt, fuseAt].map((fd) => `${fd}<&-`).join(' ')}`,
    ...(kind === 'ext' ? growExt(works) : growXfs(works)),
    `echo "@export"; umount ${file}; kill $daemon; wait $daemon`,
  ]
  const apart = ['--mount', '--net', '--ipc', '--pid', '--fork', '--kill-child']
  const asRoot = namespaces ? [] : ['--user', '--map-root-user']
  // Not nicer than we are: a guest is off, and waits for it.
  return ['unshare', ...asRoot, ...apart, '--', '/bin/bash', '-c', script.join('\n')]
}

type Works = (...argv: string[]) => string

/** Exit code 1 of e2fsck: it mended something, such as what a guest that was not shut down leaves. */
const growExt = (works: Works): string[] => [
  `echo "@e2fsck -f -p"; ${works('e2fsck', '-f', '-p', file)} | tail -c 4000 || [ $? = 1 ]`,
  `echo "@resize2fs"; ${works('resize2fs', file)} | tail -c 4000`,
  `echo "@e2fsck -f -n"; ${works('e2fsck', '-f', '-n', file)} | tail -c 4000`,
]

/**
 * XFS can only be grown while it is mounted: by this host's kernel, which bytes that a guest wrote could lead astray.
 * So all of it has to be without fault before (also its log is empty: nothing is replayed), by a program that can do no
 * harm. The mount is seen by nobody else, and nothing in it can be run.
 */
const growXfs = (works: Works): string[] => {
  const check = `echo "@xfs_repair -n"; ${works('xfs_repair', '-n', '-f', file)} | { ! grep -qF ALERT; }`
  return [
    check,
    'umount -l /dev', // the daemon has what it needs of it; a loop device is to be had in the real one
    `echo "@mount"; mount -t xfs -o loop,nosuid,nodev,noexec,nouuid ${file} /tmp/mnt`,
    `echo "@xfs_growfs"; setpriv ${becoming(undefined, '-all,+sys_admin').join(' ')} -- xfs_growfs -d /tmp/mnt >/dev/null`,
    'echo "@umount"; umount /tmp/mnt',
    check,
  ]
}
