import { isIP } from 'node:net'
import { Problem, problemIn } from '../job/problem.ts'
import { type Settings, storeOf } from '../job/settings.ts'
import { showUrl } from '../job/url.ts'
import { ask } from './ask.ts'
import type { Check } from './check.ts'

/** For all of it, in milliseconds. */
const limit = 3000

/** One try: that is what there is time for. */
const patience = { tries: 1, stall: limit }

/** Does the store answer, and does it let us in? Only where it is Glance. Whatever hangs, we answer in time, and end. */
export async function glanceChecks(settings: Settings): Promise<Check[]> {
  if (storeOf(settings).kind !== 'glance') return []
  const check = { name: 'glance', needs: ['create'] }
  const end = performance.now() + limit
  const late = new AbortController()
  let shown = 'Glance'
  const tooLate = () =>
    new Problem(
      'failed',
      'FETCH_FAILED',
      `Cannot fetch "${shown}": no answer within ${limit / 1000} s`,
      `see what it says: curl -v ${shown}`,
    )
  const before = async (url: URL) => {
    shown = showUrl(url.origin + url.pathname) // without a query it can be typed
    if (!(await isLookedUp(url.hostname, end - performance.now()))) throw tooLate()
  }
  const timer = setTimeout(() => late.abort(tooLate()), limit)
  try {
    const { tryGlance } = await import('../image/glance.ts')
    return [{ ...check, status: 'ok', found: await tryGlance(settings, { signal: late.signal, patience, before }) }]
  } catch (error) {
    const problem = problemIn(error)
    if (!problem) throw error
    return [{ ...check, status: 'missing', found: problem.message, remedy: problem.remedy }]
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Whether there is an answer in time, be it that nobody knows the name. A program is asked first, which can be killed:
 * where a name server is silent, a lookup of our own would keep this process alive, even past its exit.
 * @param time ms
 */
async function isLookedUp(host: string, time: number): Promise<boolean> {
  if (isIP(host.replace(/^\[|\]$/g, ''))) return true
  const { late } = await ask(['getent', 'ahosts', '--', host], { limit: Math.max(time, 1) })
  return !late
}
