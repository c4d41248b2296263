import { readFileSync } from 'node:fs'

// A program that reads bytes which we did not write is taken for their author's: it gets the two or three files that
// it works on, and of everything else as little as there can be.

export interface Limits {
  /** Processor time, in seconds, of all its threads. */
  cpu: number
  /** Bytes that any one file it writes may have; 0: it writes none. */
  output: number
}

/** What we can take from a program. */
export interface Powers {
  /** Number of the user and group that it becomes; undefined: it stays ours. */
  user: number | undefined
  /** It gets namespaces of its own. */
  namespaces: boolean
}

export interface Sandbox extends Powers {
  limits: Limits
}

/**
 * Bytes of address space. Seen at most: 340 MiB (`convert -m 16 -W` of each format, zstd, 512 B to 2 MiB clusters).
 * Left over are the stacks of qemu's 64 threads, 8 MiB each, and the refcounts of a qcow2 of 60 TiB.
 */
export const memory = 2 * 2 ** 30

/** Of one user that nobody else is: the threads of qemu-img are about 70, and a fork bomb ends here. */
const processes = 256

/** Each arena of malloc takes 64 MiB of address space, and there are eight for a core where nobody says how many. */
export const sandboxEnvironment = { MALLOC_ARENA_MAX: '2' }

/** Limits as bash's `ulimit` takes them: at the soft limit of time SIGXCPU tells why it ended, and SIGKILL is final. */
export function ulimits({ limits: { cpu, output }, user }: Sandbox): string[] {
  const kib = (bytes: number) => Math.ceil(bytes / 1024)
  return [
    '-c 0',
    `-t ${Math.ceil(cpu) + 5}`,
    `-St ${Math.ceil(cpu)}`,
    `-v ${kib(memory)}`,
    `-f ${kib(output)}`,
    ...(user !== undefined && user >= ownUsers ? [`-u ${processes}`] : []),
  ]
}

/** Above all numbers that accounts, containers and systemd's services are given (systemd's UIDS-GIDS document). */
const ownUsers = 0x7f000000
/** No process has a higher number (PID_MAX_LIMIT). */
const mostProcesses = 2 ** 22
/** Where a container has fewer numbers: Debian reserves it, systemd leaves it alone, and no account has it. */
const spareUser = 65533

/** A file that is this user's was handed to a sandbox, by a run that was killed before it could take it back. */
export const isSandboxUser = (user: number): boolean => user >= ownUsers || user === spareUser

/** Capabilities by their bits, capabilities(7). */
const [chown, setgid, setuid, setpcap, sysAdmin] = [0, 6, 7, 8, 21]

const mapped = (file: string, id: number): boolean =>
  readFileSync(file, 'latin1')
    .trim()
    .split('\n')
    .some((line) => {
      const [first = 0, , count = 0] = line.trim().split(/\s+/).map(Number)
      return first <= id && id < first + count
    })

/**
 * All powers of a usual root, none of anybody else. The user is a number that no other process has, not even one of
 * another cowhand: programs of one user can read and change each other's memory.
 * @param nth of our users, where two programs are to be kept from each other: 0 or 1
 */
export function powers(nth: 0 | 1 = 0): Powers {
  const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? 0}`)
  const may = (bit: number) => ((capabilities >> BigInt(bit)) & 1n) === 1n
  if (process.geteuid?.() !== 0 || ![chown, setgid, setuid, setpcap].every(may))
    return { user: undefined, namespaces: false }
  const user = [ownUsers + nth * mostProcesses + process.pid, spareUser - nth].find((id) =>
    ['uid_map', 'gid_map'].every((map) => mapped(`/proc/self/${map}`, id)),
  )
  return { user, namespaces: user !== undefined && may(sysAdmin) }
}

/** Who was orphaned before it asked to die with its parent sees that by now, and goes no further. */
const isOurs = '[ "$PPID" = "$0" ] && exec "$@"'
/** Not by exec: signals mean nothing to the first process of a namespace, and it takes all others with it. */
const first = '"$@"; exit $?'

/** A change of user forgets whose death to die with, so that is asked for after it: by the same program. */
const dying = (become: string[], script: string, zero: string, argv: readonly string[]): string[] => {
  return ['setpriv', ...become, '--pdeathsig', 'KILL', '--', 'sh', '-c', script, zero, ...argv]
}

/** The program, started by a child of ours so that it dies with us, also of SIGKILL. */
export const withUs = (argv: readonly string[]): string[] => dying([], isOurs, String(process.pid), argv)

/** What makes setpriv take from a program what it does not need: the user's rights, and all capabilities but these. */
export const becoming = (user: number | undefined, capabilities = '-all'): string[] => [
  ...(user === undefined ? [] : ['--reuid', String(user), '--regid', String(user), '--clear-groups']),
  ...['--no-new-privs', '--inh-caps=-all', `--bounding-set=${capabilities}`],
]

/**
 * The program, nicer, and confined as far as we can: as root, it is a user without a name, capabilities or a way to
 * get any; as root that may make namespaces, it also has no network, and none of its children outlives it, so that
 * nobody still writes to what it wrote. As somebody else it stays our user, and has its limits only.
 */
export function confine(argv: readonly string[], { user, namespaces }: Powers): string[] {
  const become = user === undefined ? [] : becoming(user)
  const nice = ['nice', '-n', '10']
  if (!namespaces) return [...nice, ...dying(become, isOurs, String(process.pid), argv)]
  const unshare = ['unshare', '--net', '--ipc', '--pid', '--fork', '--kill-child', '--']
  return withUs([...nice, ...unshare, ...dying(become, first, 'sh', argv)])
}
