import { answerTo } from '../lib/host/answer.ts'
import type { Tell } from '../lib/job/events.ts'
import * as layout from '../lib/job/layout.ts'
import { type Answer, type MoveState, Offer, type Phase } from '../lib/job/move.ts'
import type { Result } from '../lib/job/result.ts'
import { planAll, runAll, Stopped } from '../lib/job/runner.ts'
import type { Settings } from '../lib/job/settings.ts'
import { destinationCalls, referenceIn, stateOf } from './moves/there.ts'
import { openWorld } from './world.ts'

export interface PhaseContext {
  settings: Settings
  tell: Tell
  signal: AbortSignal
  /** Only what would be done is asked for. */
  dryRun?: boolean
}

/**
 * What a host does for a move to it: asked by the source, or by whoever drives both.
 * @param document as the source made it: it is checked here
 * @throws {Problem} as its steps
 */
export async function answerPhase(
  phase: Phase,
  document: unknown,
  { settings, tell, signal, dryRun = false }: PhaseContext,
): Promise<{ answer?: Answer; result?: Result; state?: MoveState }> {
  if (phase === 'look') return { answer: await answerTo(Offer.parse(document), settings, { signal }) }
  const reference = referenceIn(document)
  const { name, shared } = reference
  if (phase === 'status') return { state: await stateOf(reference, settings) }
  const callsOf = () => destinationCalls(phase, document, settings, dryRun)
  const task = `${phase} ${name}`
  // On shared storage the instance's is the source's, and held for us.
  const locks = [shared ? layout.arrivalLock(name) : layout.instanceLock(name)]
  let steps: Result['steps']
  try {
    steps = dryRun
      ? await planAll(await callsOf(), settings, phase === 'finish')
      : await runAll(callsOf, locks, await openWorld(settings, tell, signal, { 'lock-wait': 60 }, task))
  } catch (error) {
    throw error instanceof Stopped ? error.cause : error
  }
  return {
    result: { version: 1, task, ok: true, changed: steps.some(({ changed }) => changed), instance: name, steps },
  }
}
