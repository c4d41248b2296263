import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { hostname } from 'node:os'
import { errno } from '../job/problem.ts'

/** Who holds a lock: what its file says. With it, a process on the same kernel can be told dead or alive exactly. */
export interface Identity {
  host: string
  /** Of the installation (machine-id): two hosts may have one name. */
  machine: string
  /** Of the kernel: another one after each start. */
  bootId: string
  pidNamespace: string
  pid: number
  /** Clock ticks from the kernel's start to the process's: a reused pid has another. */
  startTime: string
  /** What its children carry in COWHAND_HOLDER. Known to root only, or any user could pose as one. */
  mark: string
  /** One for each lock that is taken; see `makerEnded`. */
  nonce: string
  task: string
  /** ISO 8601 */
  since: string
}

/** dead: proven. unknown: another host or pid namespace, which only long silence tells. Else a process that lives. */
export type Fate = 'dead' | 'unknown' | { pid: number }

type Process = Omit<Identity, 'nonce' | 'task' | 'since'>

let own: (Process & { seesItself: boolean }) | undefined

/** Which start of this machine it is. */
export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()

function ownProcess(): Process & { seesItself: boolean } {
  if (own) return own
  const { startTime } = statOf('self')
  own = {
    host: hostname(),
    machine: textOf('/etc/machine-id').trim(),
    bootId: bootId(),
    pidNamespace: readlinkSync('/proc/self/ns/pid'),
    pid: process.pid,
    startTime,
    mark: `${process.pid}.${startTime}.${crypto.randomUUID()}`,
    // A /proc of another pid namespace would tell us of other processes than the ones meant.
    seesItself: readlinkSync('/proc/self') === String(process.pid),
  }
  return own
}

/** The value of COWHAND_HOLDER for every program that we start: while one of them lives, our locks count as held. */
export const holderMark = (): string => ownProcess().mark

/** A new identity of this process. @param task what the lock is wanted for, for people */
export function identify(task: string): Identity {
  const { seesItself: _, ...me } = ownProcess()
  return {
    ...me,
    nonce: `${nonceStart(me)}-${me.pid}-${me.startTime}-${crypto.randomUUID().slice(0, 8)}`,
    task,
    since: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
  }
}

/** The identity in a lock file's text, or undefined where none was written (or it was lost in a power cut). */
export function parseIdentity(text: string): Identity | undefined {
  try {
    const found = JSON.parse(text)
    const words = ['host', 'machine', 'bootId', 'pidNamespace', 'startTime', 'mark', 'nonce', 'task', 'since']
    const whole = words.every((word) => typeof found[word] === 'string') && Number.isInteger(found.pid) && found.pid > 0
    return whole ? found : undefined
  } catch {
    return undefined
  }
}

/** What became of a holder, and of the children that it left: they go on writing after a SIGKILL. */
export function fateOf(holder: Identity): Fate {
  const me = ownProcess()
  if (holder.bootId !== me.bootId) return holder.host === me.host && holder.machine === me.machine ? 'dead' : 'unknown' // dead: we started again since
  if (holder.pidNamespace !== me.pidNamespace || !me.seesItself) return 'unknown'
  if (!hasEnded(holder)) return { pid: holder.pid }
  const child = markedProcess(holder.mark)
  return child === undefined ? 'dead' : { pid: child }
}

const nonceStart = (of: Process): string => `${of.bootId.slice(0, 8)}-${of.pidNamespace.replace(/\D/g, '')}`

/** Whether the process that made a nonce is proven dead, for a file that bears the nonce and was never filled. */
export function makerEnded(nonce: string): boolean {
  const me = ownProcess()
  const [boot, namespace, pid, startTime = ''] = nonce.split('-')
  return me.seesItself && nonceStart(me) === `${boot}-${namespace}` && hasEnded({ pid: Number(pid), startTime })
}

/** Whether that very process is gone. Not being sure (hidden by hidepid, ending just now) means no. */
function hasEnded({ pid, startTime }: Pick<Identity, 'pid' | 'startTime'>): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (errno(error) === 'ESRCH') return true // EPERM: it lives, and is another user's
  }
  try {
    const found = statOf(pid)
    // A zombie has ended once none of its threads is left in an unfinished write.
    return found.startTime !== startTime || (found.state === 'Z' && found.threads <= 1)
  } catch {
    return false
  }
}

/** Fields of proc_pid_stat(5). They come after the name, which may hold spaces and parentheses. */
function statOf(pid: number | 'self'): { state: string; threads: number; startTime: string } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const [state, threads, startTime] = [fields[0], fields[17], fields[19]]
  if (!state || !threads || !startTime) throw new Error(`/proc/${pid}/stat cannot be read`)
  return { state, threads: Number(threads), startTime }
}

/**
 * Pid of a process, other than this one, that carries the mark in its environment; undefined when none does.
 * One without an environment is a kernel thread, or is being started, or has just ended and may have left a child that
 * was not listed yet: look again when a new one of these was met. To be missed, a child would have to hand over to a
 * child of its own during each of five looks.
 */
export function markedProcess(mark: string): number | undefined {
  const bare = new Set<number>()
  for (let look = 0, sure = false; look < 5 && !sure; look++) {
    sure = true
    for (const name of readdirSync('/proc')) {
      const pid = Number(name)
      if (!Number.isInteger(pid) || pid === process.pid) continue
      const environment = textOf(`/proc/${pid}/environ`)
      if (environment.includes(`COWHAND_HOLDER=${mark}\0`)) return pid
      if (environment || bare.has(pid)) continue
      bare.add(pid)
      sure = false
    }
  }
  return undefined
}

/** Text of a small file, '' where it cannot be read. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}
