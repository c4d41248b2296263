import { answerTo, requireRoom } from '../../lib/host/answer.ts'
import { fileAt, freeSpace } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import { interrupt } from '../../lib/host/interrupt.ts'
import { movedAt } from '../../lib/host/moves.ts'
import { hasCome, stageAt } from '../../lib/host/stage.ts'
import { travelling } from '../../lib/host/travelling.ts'
import { findBaseImage } from '../../lib/image/store.ts'
import * as layout from '../../lib/job/layout.ts'
import { type Answer, MoveReference, type MoveState, Offer, Order, type Phase } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import type { Call } from '../../lib/job/step.ts'
import { agreementOf } from '../../lib/job/ways.ts'
import { arriveCalls, leaveCalls, prepareCalls, runOrder } from './arrive.ts'

// What the destination of a move does and says, whoever asks for it: the source, or an orchestrator.

/** Which move a document is of: an order, or just that. @throws {z.core.$ZodError} */
export function referenceIn(document: unknown): MoveReference {
  if (typeof document !== 'object' || document === null || !('record' in document)) return MoveReference.parse(document)
  const { name, move, shared, record } = Order.parse(document)
  return { name, move, uuid: record.uuid, shared }
}

const hasArrived = ({ name, move }: Pick<Order, 'name' | 'move'>, { instances }: Settings): boolean =>
  movedAt(instances, name).here?.arrived?.move === move

/** What became of a move here. */
export async function stateOf(reference: MoveReference, settings: Settings): Promise<MoveState> {
  const { libvirt_uri: uri, instances } = settings
  const { name, uuid, shared } = reference
  // On shared storage its files are here as they are there.
  const arrived = shared ? movedAt(instances, name).here !== undefined : hasArrived(reference, settings)
  if (!arrived || uri === undefined) return { arrived, running: false }
  const { domainAt } = await import('../../lib/host/libvirt.ts')
  const domain = await domainAt(uri, name)
  return { arrived, running: domain?.uuid === uuid && domain.state === 'running' }
}

/**
 * What is to be done here for a phase.
 * @param isPlan only what would be done: what is to be sent is not there yet
 * @throws {z.core.$ZodError}; {Problem} NO_SPACE, MISSING_PREREQUISITE
 */
export async function destinationCalls(
  phase: Phase,
  document: unknown,
  settings: Settings,
  isPlan = false,
): Promise<Call[]> {
  if (phase === 'look' || phase === 'status') return []
  const reference = referenceIn(document)
  const arrival = { isHere: false, hasArrived: hasArrived(reference, settings) }
  if (phase === 'undo') {
    requireNotMovedOn(reference, settings)
    return leaveCalls(reference, settings, arrival)
  }
  const order = Order.parse(document)
  if (phase === 'finish') {
    if (order.shared && !isPlan) requireSeen(order, settings)
    if (!order.shared && !arrival.hasArrived && !isPlan) requireWhole(order, settings)
    return [...(order.shared ? [] : arriveCalls(order, settings, arrival)), ...runOrder(order, settings)]
  }
  if (order.shared || arrival.hasArrived) return []
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

/**
 * Whoever goes back starts what the instance was: not while it goes on here as what it has become since.
 * @throws {Problem} DESTINATION_EXISTS
 */
function requireNotMovedOn({ name, move, uuid, shared }: MoveReference, { instances }: Settings): void {
  if (shared) return
  const [here, kept] = [layout.instanceOf(instances, name), layout.keptOf(instances, name)].map(instanceAt)
  const isOther = here?.uuid === uuid && here.arrived?.move !== move
  if (!isOther && kept?.uuid !== uuid && (here?.uuid !== uuid || !here.task)) return
  refuse(
    'DESTINATION_EXISTS',
    `Cannot undo the move of "${name}": it was resized or moved again since it came`,
    `see what it is now: cowhand show ${name}; go back from that first, or have it deleted: cowhand delete ${name}`,
  )
}

/**
 * What the source has written down is seen here: else these are other files, of a clone, or below what is not mounted.
 * @throws {Problem} MISSING_PREREQUISITE
 */
function requireSeen({ name, move }: Order, { instances }: Settings): void {
  if (movedAt(instances, name).task?.move === move) return
  refuse(
    'MISSING_PREREQUISITE',
    `Cannot finish the move of "${name}": the files under "${instances}" are not those of the host that it comes from`,
    `see what is mounted there: findmnt -T ${instances}`,
  )
}

/**
 * What is here was made ready for this very order, and each disk of it can be proven.
 * @throws {Problem} MISSING_PREREQUISITE
 */
function requireWhole(order: Order, { instances }: Settings): void {
  const { name, move, ways, sent } = order
  const stage = layout.stageOf(instances, name)
  const no = (state: string, remedy: string) =>
    refuse('MISSING_PREREQUISITE', `Cannot finish the move of "${name}": ${state}`, remedy)
  const mark = stageAt(stage)?.mark
  if (mark?.move !== move) no('nothing was made ready for it here', 'prepare it: migrate-destination --phase prepare')
  // One whose mark is gone already is whole: only its name is missing.
  if (mark?.agreement !== undefined && mark.agreement !== agreementOf(order))
    no(
      'what was made ready for it here is not what the document says',
      'give the document that the source has printed last, as it is; or have that prepared',
    )
  // Without the digest of what was sent, a disk that was cut off on the way would pass for a whole one.
  const unproven = ways.find(({ file, way }) => way !== 'new' && !sent?.[file] && !hasCome(stage, file))
  if (unproven)
    no(
      `the document does not tell the digest of "${unproven.file}"`,
      'give the document that the source prints once it has sent the disks: migrate-source --phase send',
    )
}

/** What the other half is told once a phase is done, where others carry the documents. */
export async function wordsFor(phase: Phase, document: unknown, settings: Settings): Promise<Answer | MoveState> {
  if (phase === 'undo' || phase === 'status') return stateOf(referenceIn(document), settings)
  const { signal } = interrupt
  if (phase === 'look') return answerTo(Offer.parse(document), settings, { signal })
  const order = Order.parse(document)
  const { shared } = order
  const answer = await answerTo(order, settings, { signal, shared })
  if (phase === 'finish') return answer
  const stage = layout.stageOf(settings.instances, order.name)
  const isThere = shared || hasArrived(order, settings)
  const agreement = isThere ? agreementOf(order) : stageAt(stage)?.mark?.agreement
  const bases = order.ways.flatMap(({ base }) => (base?.from === 'source' && !isThere ? [base.name] : []))
  const lacks = bases.filter((name) => !fileAt(`${layout.basesOf(settings.instances)}/${name}`))
  return { ...answer, ...(agreement === undefined ? {} : { prepared: { agreement, lacks } }) }
}
