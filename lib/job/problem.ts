/** What went wrong, for a script: what kind of answer it is decides the exit code. */
export type Kind = 'failed' | 'usage' | 'refused' | 'busy'

/** The contract with callers: README, "The contract". Signals are 128+n. */
export const exitCode: Record<Kind, number> = { failed: 1, usage: 2, refused: 3, busy: 4 }

/** Every code that `error.code` can have. They are stable: scripts compare them. */
export const codes = [
  'AUTH_FAILED', // a cloud does not accept the credentials, or another host not our key (or we not its one)
  'BAD_SPEC', // a flag, a job document or the configuration is wrong
  'BASE_DIFFERS', // a base is not what its record or its image says
  'BASE_UNPROVEN', // nothing proves what is in a base that a disk's delta needs
  'CHECKSUM_MISMATCH',
  'CHECKSUM_MISSING', // nothing vouches for the bytes
  'CHECKSUM_WEAK', // only md5 or sha1 vouches for the bytes, and that was not allowed
  'CONFIRMATION_NEEDED', // destructive, nobody to ask, no --yes
  'DESTINATION_EXISTS', // the other host has an instance or a domain of this name
  'DISK_TOO_SMALL',
  'DOMAIN_EXISTS', // libvirt has another domain of this name
  'FETCH_FAILED',
  'HALVES_DIFFER', // what one half of a move was told is not what the other one says
  'HOST_UNKNOWN_STATE', // it cannot be told whether the guest runs on the other host, so it is not started here
  'HOST_UNREACHABLE',
  'IMAGE_AMBIGUOUS', // several images have this name
  'IMAGE_CHANGED', // a file of the store was replaced behind our back
  'IMAGE_EXISTS',
  'IMAGE_NOT_ACTIVE', // Glance has it, but its bytes are not (yet, or any more) to be had
  'IMAGE_NOT_FOUND',
  'IMAGE_REJECTED',
  'INSTANCE_DIFFERS', // it exists, and was made with another wish
  'INSTANCE_NOT_FOUND',
  'IN_USE', // a running guest has it open
  'INTERNAL',
  'INTERRUPTED',
  'IO_FAILED',
  'LOCKED',
  'MOVE_UNFINISHED', // a resize or migration of it waits to be finished, confirmed or reverted
  'MISSING_PREREQUISITE', // an earlier step has to be run first
  'NO_PERMISSION',
  'NO_SPACE',
  'NOT_MOVED', // there is nothing to confirm or to go back to
  'NOT_SETTLED', // a step ran, and its work is not done
  'NOT_OURS', // something that cowhand did not make is in the way
  'TOOL_FAILED',
  'TOOL_MISSING',
  'UNSUPPORTED',
  'VERSION_MISMATCH', // the other host has another version of cowhand
  'USERS_UNKNOWN', // it cannot be told which bases are needed, so none may go
] as const
export type Code = (typeof codes)[number]

/**
 * An error that an operator can act on: a sentence `Cannot VERB "THING": STATE` and a remedy that can be typed.
 * Whatever else is thrown is a fault of ours and is reported as INTERNAL.
 */
export class Problem extends Error {
  readonly code: Code
  readonly kind: Kind
  readonly remedy: string
  constructor(kind: Kind, code: Code, message: string, remedy: string) {
    super(message)
    this.name = 'Problem'
    this.kind = kind
    this.code = code
    this.remedy = remedy
  }
}

/** Between the messages of several problems that are told as one. */
export const joint = '\n  and: '

/** Something else is there, or a decision is needed: nothing is changed (exit 3). @throws {Problem} always */
export function refuse(code: Code, message: string, remedy: string): never {
  throw new Problem('refused', code, message, remedy)
}

/** It could not be done this time; the same command again goes on (exit 1). @throws {Problem} always */
export function fail(code: Code, message: string, remedy: string): never {
  throw new Problem('failed', code, message, remedy)
}

/** The request itself is wrong (exit 2). @throws {Problem} always */
export function misuse(message: string, remedy: string): never {
  throw new Problem('usage', 'BAD_SPEC', message, remedy)
}

/** The error code of the operating system (`ENOENT` …), if it is one of those. */
export const errno = (error: unknown): string | undefined =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined

/** An error as what it means to the operator; undefined where it is a fault of ours. */
export function problemIn(error: unknown): Problem | undefined {
  if (error instanceof Problem) return error
  try {
    return explainSystemError(error)
  } catch (explained) {
    return explained instanceof Problem ? explained : undefined
  }
}

/** What an error of the operating system means to the operator. */
export function explainSystemError(error: unknown): never {
  const path = error instanceof Error && 'path' in error && typeof error.path === 'string' ? error.path : undefined
  const what = path === undefined ? 'go on' : `use "${path}"`
  switch (errno(error)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return fail(
        'NO_SPACE',
        `Cannot ${what}: no space is left on the device`,
        'free some space, then run the same command again',
      )
    case 'EACCES':
    case 'EPERM':
      return refuse(
        'NO_PERMISSION',
        `Cannot ${what}: permission denied`,
        'run it as root, or choose --instances and --store that you may write to',
      )
    case 'EROFS':
      return refuse(
        'NO_PERMISSION',
        `Cannot ${what}: the file system is read-only`,
        'make it writable: mount -o remount,rw',
      )
    case 'ELOOP':
      return refuse('NOT_OURS', `Cannot ${what}: it is a symbolic link`, 'look at it, and move it away')
    case 'ENOTDIR':
      return refuse(
        'NOT_OURS',
        `Cannot ${what}: something on its path is not a directory`,
        'look at it, and move it away',
      )
    case 'EISDIR':
      return refuse('NOT_OURS', `Cannot ${what}: it is a directory`, 'look at it, and move it away')
    case 'ENAMETOOLONG':
      return refuse('UNSUPPORTED', `Cannot ${what}: its name is too long`, 'choose --instances with a shorter path')
    case 'EFBIG':
      return fail(
        'UNSUPPORTED',
        `Cannot ${what}: the file system takes no file as large as that`,
        'ask for a smaller disk, or put --instances on a file system such as XFS',
      )
    case 'EIO':
      return fail(
        'IO_FAILED',
        `Cannot ${what}: the device failed to read or write`,
        'look at dmesg; when the device is well, run the same command again',
      )
  }
  throw error
}
