import type { Tell } from '../job/events.ts'

let controller = new AbortController()
/** Of several jobs that are done at once, some may still listen to an earlier one. */
const earlier: AbortController[] = []

/**
 * Aborted when the operator or the system ends this run, with the problem to report as its reason. Whatever can take
 * long listens to its signal: programs, downloads, waiting.
 */
export const interrupt = {
  get signal(): AbortSignal {
    return controller.signal
  },
  abort: (reason: unknown): void => {
    for (const each of [...earlier, controller]) each.abort(reason)
  },
  /** From now on it is as if it had not been interrupted: what was begun has to be undone, whatever ended it. */
  renew: (): void => {
    earlier.push(controller)
    controller = new AbortController()
  },
}

/** Who is told of progress while something is only looked at: a file that has to be hashed to know what it is. */
export const audience: { tell: Tell } = { tell: () => {} }
