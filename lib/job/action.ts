import type { Answer, MoveReference, Order, Phase, Transport } from './move.ts'
import type { Code } from './problem.ts'
import type { StepResult } from './result.ts'
import { exactSize, type Format, formatSize, type Packing } from './spec.ts'
import { showUrl } from './url.ts'

/**
 * One thing that changes the world. Actions are data, so that they can be printed, counted, timed and cut off;
 * the set is closed and `perform` knows how to do each.
 */
export type Action =
  /**
   * Start a program. `why`: VERB "THING", as in an error: Cannot VERB "THING". `writes`: the file it makes, held open meanwhile so that a failed flush is noticed;
   * `mode`: of that file [0644]; `space`: bytes that it may allocate, at most; `works`: the image that it works
   * through and tells percents of.
   */
  | {
      do: 'run'
      argv: string[]
      why: string
      writes?: string
      mode?: number
      env?: Record<string, string>
      space?: number
      works?: string
    }
  /** `operators`: the operator named it, and it may be a link to a directory elsewhere. */
  | { do: 'mkdir'; path: string; mode: number; operators?: boolean }
  /** A whole small file, by way of `PATH.part`. `text` may hold secrets and is never printed. */
  | { do: 'write'; path: string; text: string | Buffer; mode: number }
  /** An empty sparse file of this size. */
  | { do: 'allocate'; path: string; size: number }
  /** A sparse copy that shares blocks where the file system can. */
  | { do: 'copy'; from: string; to: string; size: number; digest?: string }
  /** A qcow2 overlay as `qemu-img create -b` makes it. */
  | { do: 'overlay'; path: string; base: string; baseFormat: 'raw' | 'qcow2'; size: number }
  /** Hash a file, and prove its digest where one is given; changes nothing. */
  | { do: 'verify'; path: string; digest?: string }
  /** Get bytes from a server into a part that can be resumed, and prove their digest. `rate`: bytes a second, at most. */
  | { do: 'fetch'; url: string; to: string; digest: string; ceiling: number; size?: number; rate?: number }
  /** Uncompress, sparsely, at most `limit` bytes. `name`: what the operator calls the packed file. */
  | { do: 'unpack'; from: string; packing: Packing; to: string; limit: number; name?: string }
  /**
   * Reject the image unless it is what was declared; changes nothing. `of`: the file that it was unpacked from;
   * `name`: what the operator calls it; `backing`: it is a delta, and must stand on the base of this plain name.
   */
  | { do: 'examine'; path: string; format: Format; ceiling: number; of?: string; name?: string; backing?: string }
  /** Reject a qcow2 that arrived unless it is a disk of `size` bytes; changes nothing. `stands`: it has a base, else none. */
  | { do: 'inspect'; path: string; size: number; stands: boolean }
  /** Write the name of a base of ours into the header of an examined delta, which is to be a disk of `size` bytes. */
  | { do: 'rebase'; path: string; base: string; size: number; name?: string }
  /** Reject the image where `qemu-img check` finds that it is damaged; changes nothing. */
  | { do: 'check'; path: string; format: Format; name?: string }
  /**
   * Digest of what a guest sees in a raw base, for its record; it has to be `digest`, where one is given (of any file
   * that was sent). `proven`: it was made of proven bytes just now.
   */
  | { do: 'measure'; path: string; proven?: boolean; digest?: string }
  /**
   * Write down beside a file how it was made, with what was measured of it on the way. `stamp`: what the file has to
   * be still; `by`: the program that made it, whose version is written down; `why`: for people.
   */
  | {
      do: 'record'
      path: string
      of: string
      fields: Record<string, unknown>
      stamp?: string
      by?: string
      why?: string
    }
  /** Flush the part, give it its name, flush the directory: from then on it is whole. `mode`: if it is to have another. */
  | { do: 'publish'; from: string; to: string; mode?: number }
  | { do: 'rename'; from: string; to: string }
  /** `why`: what makes it one to remove, for people; `frees`: bytes. */
  | { do: 'remove'; path: string; why?: string; frees?: number }
  /** Give a finished file another name, out of the way; nothing of it is lost. */
  | { do: 'set-aside'; from: string; to: string; why: string }
  /** Note that these files were used just now: their times of modification tell when. `what`: for people. */
  | { do: 'touch'; paths: string[]; what: string }
  /** All that could be done is done, and the operator has to look at something: the step fails with this. */
  | { do: 'alarm'; code: Code; message: string; remedy: string }
  /** Remove an empty directory. */
  | { do: 'rmdir'; path: string }
  /** End each rsync that still writes below a directory, though its sender is gone. */
  | { do: 'end-receivers'; path: string }
  /** Have the other host do its part. `plan`: what that is, in its own words. */
  | {
      do: 'ask'
      host: string
      phase: Phase
      round: number
      document: Order | MoveReference
      plan: StepResult['actions']
    }
  /**
   * Send files to another host, by rsync. What arrived before a cut is not sent again. `to`: absolute directory there;
   * `record`: where digest and size of each are written down, for the other host to prove them by.
   */
  | {
      do: 'push'
      host: string
      transport: Transport
      files: { path: string; name: string; size: number }[]
      to: string
      rsyncd?: Answer['rsyncd']
      rate?: number
      record?: string
    }
  /** Switch a guest off: by its power button, and after so many seconds by pulling the plug. */
  | { do: 'power-off'; uri: string; name: string; uuid: string; seconds: number }
  /** Wait until a guest is seen running. */
  | { do: 'await'; uri: string; name: string; uuid: string; seconds: number }
  /** Write the name of another base of ours into an overlay's header: no byte that the guest sees may change by it. */
  | { do: 'point'; path: string; base: string }
  /** Copy into an overlay what `from` has and `to` has not, and then put it on `to`. `space`: bytes, at most. */
  | { do: 'shift'; path: string; from: string; to: string; space: number }
  /** A qcow2 without a base, of what the guest sees in an overlay. `base`: what that stands on; `space`: bytes, at most. */
  | { do: 'flatten'; path: string; base: string; to: string; space: number }
  /** Give a disk this size, bytes; what is new of it are zeros. `base`: what a qcow2 stands on, if anything. */
  | { do: 'grow'; path: string; format: 'qcow2' | 'raw'; size: number; base?: string }
  /** Grow a bare file system inside a disk to the disk's end, where there is one; a partitioned disk is the guest's. */
  | { do: 'grow-fs'; path: string; format: 'qcow2' | 'raw'; base?: string }

/** Start a program: `argv` (never a command line), and why: VERB "THING". */
export const run = (
  argv: string[],
  why: string,
  more: Omit<Extract<Action, { do: 'run' }>, 'do' | 'argv' | 'why'> = {},
): Action => ({ do: 'run', argv, why, ...more })

/** How qemu-img is asked whether an image is whole. */
export const checkImage = (path: string, format: Format): string[] => ['qemu-img', 'check', '-q', '-f', format, path]

const word = (text: string): string => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`)

/** The action as one line for people: what a dry run prints and a log keeps. Without secrets. */
export function sayAction(action: Action): string {
  switch (action.do) {
    case 'run':
      return action.argv.map(word).join(' ')
    case 'mkdir':
      return `mkdir ${word(action.path)}`
    case 'write':
      return `write ${word(action.path)} (${Buffer.byteLength(action.text)} bytes)`
    case 'allocate':
      return `allocate ${word(action.path)} (${formatSize(action.size)}, sparse)`
    case 'copy':
      return `copy ${word(action.from)} ${word(action.to)} (${formatSize(action.size)})`
    case 'overlay':
      return `overlay ${word(action.path)} (${formatSize(action.size)}) on ${word(action.base)}`
    case 'verify':
      return `verify ${word(action.path)} (${action.digest ?? 'sha256'})`
    case 'fetch':
      return `fetch ${word(showUrl(action.url))} ${word(action.to)}${action.size === undefined ? '' : ` (${formatSize(action.size)})`}`
    case 'unpack':
      return `unpack ${word(action.from)} ${word(action.to)} (${action.packing})`
    case 'examine':
      return `examine ${word(action.path)} (${action.format}${action.backing === undefined ? '' : ` on ${action.backing}`})`
    case 'rebase':
      return `rebase ${word(action.path)} on ${word(action.base)}`
    case 'check':
      return checkImage(action.path, action.format).map(word).join(' ')
    case 'inspect':
      return `inspect ${word(action.path)} (qcow2, ${formatSize(action.size)}${action.stands ? ', on a base' : ''})`
    case 'measure':
      return `measure ${word(action.path)}${action.digest === undefined ? '' : ` (${action.digest})`}`
    case 'record':
      return `record ${word(action.path)}${action.why === undefined ? '' : ` (${action.why})`}`
    case 'publish':
    case 'rename':
      return `${action.do} ${word(action.from)} ${word(action.to)}`
    case 'remove':
      return `remove ${word(action.path)}${action.why === undefined ? '' : ` (${action.why})`}`
    case 'set-aside':
      return `set-aside ${word(action.from)} ${word(action.to)} (${action.why})`
    case 'touch':
      return `touch ${action.what}`
    case 'alarm':
      return `alarm: ${action.message}`
    case 'rmdir':
    case 'end-receivers':
      return `${action.do} ${word(action.path)}`
    case 'ask':
      return `ask ${action.host} to ${action.phase} ${action.document.name}`
    case 'push':
      return `push ${action.files.map(({ path }) => word(path)).join(' ')} ${word(`${action.host}:${action.to}/`)} (${formatSize(action.files.reduce((sum, { size }) => sum + size, 0))}, ${action.transport})`
    case 'power-off':
      return `power-off ${action.name} (${action.seconds === 0 ? 'by its plug' : `by its power button, after ${action.seconds} s by its plug`})`
    case 'await':
      return `await ${action.name} (running, ${action.seconds} s)`
    case 'point':
      return `point ${word(action.path)} to ${word(action.base)}`
    case 'shift':
      return `shift ${word(action.path)} from ${word(action.from)} to ${word(action.to)}`
    case 'flatten':
      return `flatten ${word(action.path)} ${word(action.to)} (with ${word(action.base)})`
    case 'grow':
      return `grow ${word(action.path)} to ${exactSize(action.size)}`
    case 'grow-fs':
      return `grow-fs ${word(action.path)}`
  }
}

/** Bytes that come over the network for an action, that it may allocate, and that it frees; absent where it is none. */
export function costOf(action: Action): { fetch?: number; space?: number; frees?: number; send?: number } {
  switch (action.do) {
    case 'push':
      return { send: action.files.reduce((sum, { size }) => sum + size, 0) }
    case 'shift':
    case 'flatten':
      return { space: action.space }
    case 'remove':
      return action.frees === undefined ? {} : { frees: action.frees }
    case 'fetch':
      return action.size === undefined ? {} : { fetch: action.size, space: action.size }
    case 'copy':
      return { space: action.size }
    case 'overlay':
      return { space: overlayCost }
    case 'run':
      return action.space === undefined ? {} : { space: action.space }
    default:
      return {}
  }
}

/** An empty overlay: header, refcounts and L1 table. */
const overlayCost = 4 * 2 ** 16
