import { basename, dirname } from 'node:path'
import type { Tell } from '../lib/job/events.ts'
import { misuse, Problem } from '../lib/job/problem.ts'
import type { Settings } from '../lib/job/settings.ts'

/** Seconds that another task's lock is waited for: a base in the making is worth it, an instance in other hands is not. */
const busyWait = { instance: 0, base: 3600 }

/** The outside, for a runner. @param globals flags of every command @param task who holds the locks, for people */
export async function openWorld(
  settings: Settings,
  tell: Tell,
  signal: AbortSignal,
  globals: Record<string, unknown>,
  task: string,
) {
  const { Effects } = await import('../lib/host/perform.ts')
  const { acquire, requireFree } = await import('../lib/host/locks.ts')
  const { locksOf } = await import('../lib/job/layout.ts')
  const effects = new Effects(tell, signal, settings)
  const given = globals['lock-wait']
  if (given !== undefined && !/^\d{1,6}$/.test(String(given)))
    misuse(`Cannot read --lock-wait "${given}": it is not a number of seconds`, 'give a number such as 60')
  const usual = (name: string) => (name.startsWith('instance.') ? busyWait.instance : busyWait.base)
  const placeOf = (name: string) => (name.startsWith('/') ? dirname(name) : locksOf(settings.instances))
  const lock = (name: string, wait = given === undefined ? usual(name) : Number(given)) =>
    acquire(placeOf(name), basename(name), {
      task,
      signal,
      wait,
      onWait: ({ task: other, pid, host, since }) =>
        tell({
          type: 'notice',
          message: `waiting for ${basename(name)}: pid ${pid} on ${host} has it for "${other}" since ${since}`,
        }),
    })
  /**
   * Whether somebody else had one of these locks, who is waited for as long as for a lock.
   * @throws {Problem} LOCKED
   */
  const waited = async (names: string[]): Promise<boolean> => {
    let wasBusy = false
    for (const name of names) {
      try {
        await requireFree(placeOf(name), basename(name), { wait: 0 })
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'LOCKED') throw error
        ;(await lock(name)).release()
        wasBusy = true
      }
    }
    return wasBusy
  }
  return {
    settings,
    tell,
    lock,
    waited,
    effects,
    perform: effects.perform.bind(effects),
    flush: effects.flush.bind(effects),
  }
}
