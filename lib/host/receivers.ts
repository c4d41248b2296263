import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { refuse } from '../job/problem.ts'

/** Milliseconds for those that were killed to be gone. One that hangs in the kernel stays. */
const patience = 10_000

/**
 * True afterwards: no rsync of this host works in a directory, or has a file below it open. One that lost its sender
 * stays for minutes and still writes what it has got. (A process of somebody else, and where /proc is hidden, nobody
 * can be seen.)
 * @returns how many were ended
 * @throws {Problem} IN_USE where one does not end
 */
export async function endStaleReceivers(directory: string): Promise<number> {
  const ended = new Set<number>()
  const end = performance.now() + patience
  for (;;) {
    const stale = receiversIn(directory)
    if (stale.length === 0) return ended.size
    for (const pid of stale) {
      if (ended.has(pid)) continue
      ended.add(pid)
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it has ended by itself, or is not ours: then it is seen again
      }
    }
    if (performance.now() > end)
      refuse(
        'IN_USE',
        `Cannot use "${directory}": rsync (process ${stale.join(', ')}) still writes to it, and does not end`,
        `look at it: ps ${stale.join(' ')}`,
      )
    await sleep(20)
  }
}

const identity = ({ dev, ino }: { dev: bigint; ino: bigint }): string => `${dev}.${ino}`

/** Ids of processes named rsync whose working directory is there, or that have a file there open. They may be in a chroot. */
export function receiversIn(directory: string): number[] {
  const running = numbersIn('/proc').filter((pid) => readable(() => isRsync(pid)))
  if (running.length === 0) return []
  const files = new Set<string>()
  collect(directory, files)
  const leadsThere = (link: string) => readable(() => files.has(identity(statSync(link, { bigint: true }))))
  return running.filter(
    (pid) =>
      leadsThere(`/proc/${pid}/cwd`) ||
      (readable(() => numbersIn(`/proc/${pid}/fd`)) ?? []).some((fd) => leadsThere(`/proc/${pid}/fd/${fd}`)),
  )
}

/** One that has ended and that nobody has waited for is a zombie (Z): it has nothing open any more. */
const isRsync = (pid: number): boolean => /^\d+ \(rsync\) [^ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'latin1'))

const numbersIn = (directory: string): number[] =>
  readdirSync(directory)
    .filter((name) => /^\d+$/.test(name))
    .map(Number)

/** What is read of a process; undefined where it has ended, or is not ours to look at. */
function readable<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

function collect(path: string, into: Set<string>): void {
  const facts = lstatSync(path, { bigint: true, throwIfNoEntry: false })
  if (!facts || facts.isSymbolicLink()) return
  into.add(identity(facts))
  if (facts.isDirectory()) for (const name of readdirSync(path)) collect(`${path}/${name}`, into)
}
