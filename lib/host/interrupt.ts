import type { Tell } from '../job/events.ts'

/**
 * Aborted when the operator or the system ends this run, with the problem to report as its reason. Whatever can take
 * long listens to its signal: programs, downloads, waiting.
 */
export const interrupt = new AbortController()

/** Who is told of progress while something is only looked at: a file that has to be hashed to know what it is. */
export const audience: { tell: Tell } = { tell: () => {} }
