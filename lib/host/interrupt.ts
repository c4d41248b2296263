/**
 * Aborted when the operator or the system ends this run, with the problem to report as its reason. Whatever can take
 * long listens to its signal: programs, downloads, waiting.
 */
export const interrupt = new AbortController()
