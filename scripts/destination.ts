import { answerTo, requireRoom } from '../lib/host/answer.ts'
import { freeSpace } from '../lib/host/files.ts'
import { movedAt } from '../lib/host/moves.ts'
import { travelling } from '../lib/host/travelling.ts'
import { findBaseImage } from '../lib/image/store.ts'
import type { Tell } from '../lib/job/events.ts'
import * as layout from '../lib/job/layout.ts'
import { type Answer, MoveReference, type MoveState, Offer, Order, type Phase } from '../lib/job/move.ts'
import type { Result } from '../lib/job/result.ts'
import { planAll, runAll, Stopped } from '../lib/job/runner.ts'
import type { Settings } from '../lib/job/settings.ts'
import type { Call } from '../lib/job/step.ts'
import { arriveCalls, leaveCalls, prepareCalls, runOrder } from './moves/arrive.ts'
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
  const { name, move, shared } = MoveReference.parse(
    'record' in (document as Order) ? referenceOf(Order.parse(document)) : document,
  )
  const hasArrived = () => movedAt(settings.instances, name).here?.arrived?.move === move
  if (phase === 'status') return { state: await stateOf(name, hasArrived(), settings) }
  const callsOf = () => callsFor(phase, document, settings, hasArrived())
  const task = `${phase} ${name}`
  // On shared storage it is the source's lock, and held for us.
  const locks = shared ? [] : [layout.instanceLock(name)]
  let steps: Result['steps']
  try {
    steps = dryRun
      ? await planAll(await callsOf(), settings, phase === 'finish')
      : await runAll(callsOf, locks, await openWorld(settings, tell, signal, { 'lock-wait': 30 }, task))
  } catch (error) {
    throw error instanceof Stopped ? error.cause : error
  }
  return {
    result: { version: 1, task, ok: true, changed: steps.some(({ changed }) => changed), instance: name, steps },
  }
}

async function stateOf(name: string, arrived: boolean, { libvirt_uri: uri }: Settings): Promise<MoveState> {
  if (!arrived || uri === undefined) return { arrived, running: false }
  const { domainAt } = await import('../lib/host/libvirt.ts')
  return { arrived, running: (await domainAt(uri, name))?.state === 'running' }
}

const referenceOf = ({ name, move, shared, record: { uuid } }: Order): MoveReference => ({ name, move, uuid, shared })

async function callsFor(phase: Phase, document: unknown, settings: Settings, hasArrived: boolean): Promise<Call[]> {
  if (phase === 'undo') return leaveCalls(MoveReference.parse(document), settings, { isHere: false, hasArrived })
  const order = Order.parse(document)
  if (phase === 'finish') {
    const arrive = order.shared ? [] : arriveCalls(order, settings, { isHere: false, hasArrived })
    return [...arrive, ...runOrder(order, settings)]
  }
  const images = new Map()
  for (const { base } of order.ways)
    if (base?.from === 'store') images.set(base.name, await findBaseImage(base.name, settings))
  const stage = layout.stageOf(settings.instances, order.name)
  const here = [
    ...travelling(stage, [...layout.diskNames], true),
    ...travelling(layout.arrivingOf(stage), [...layout.diskNames], true),
  ]
  const bytes = here.reduce((sum, { size }) => sum + size, 0)
  requireRoom(order, freeSpace(settings.instances), settings.instances, bytes)
  return prepareCalls(order, settings, false, images)
}
