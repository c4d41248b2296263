import { fileAt } from '../../lib/host/files.ts'
import { type Moved, movedAt, referenceTo } from '../../lib/host/moves.ts'
import type { Task } from '../../lib/job/instance.ts'
import * as layout from '../../lib/job/layout.ts'
import { Problem } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { askDestination } from '../steps/ask-destination.ts'
import { clearSent } from '../steps/clear-sent.ts'
import { recordTask } from '../steps/record-task.ts'
import { restoreInstance } from '../steps/restore-instance.ts'
import { leaveCalls, runCalls } from './arrive.ts'
import { cameBefore } from './look.ts'

/** Seconds until the guest has to be seen running again. */
const patience = 60

/** How to get from where a move is to where it began: the same for a failure and for `revert`. */
export function backCalls(
  name: string,
  { moved, task, isAsked, isTriedAgain = false }: Back,
  settings: Settings,
): Call[] {
  const { instances } = settings
  const [directory, kept] = [layout.instanceOf(instances, name), layout.keptOf(instances, name)]
  const reference = referenceTo(name, moved, task)
  const { uuid, shared } = reference
  const abandoned = task.host !== undefined && !isAsked ? { move: task.move, host: task.host } : undefined
  const hasArrived = moved.kept !== undefined && moved.here !== undefined
  // Told before it was changed: of one whose guest was only switched off it is still in force.
  const hasDefinition = fileAt(`${moved.directory}/definition.xml`) !== undefined
  return [
    // First: from here on what it has become is no whole any more, and nothing leads on.
    call(recordTask, { directory: moved.directory, 'in-hand': { ...task, phase: 'reverting' } }),
    ...(task.host !== undefined && isAsked
      ? [call(askDestination, { host: task.host, phase: 'undo', document: reference, round: 1 })]
      : []),
    ...(task.host === undefined || shared ? leaveCalls(reference, settings, { hasArrived, isHere: true }) : []),
    call(restoreInstance, { aside: kept, directory }),
    ...runCalls({ name, directory, uuid, domain: task }, settings, {
      xml: hasDefinition ? `${directory}/definition.xml` : undefined,
      patience,
    }),
    call(clearSent, { directory, state: true }),
    // Last: as long as it is there, the same command again goes on with this.
    call(recordTask, { directory, ...(isTriedAgain ? { 'in-hand': { ...task, phase: 'begun' } } : { abandoned }) }),
  ]
}

export interface Back {
  moved: Moved
  task: Task
  /** The other host is asked to undo its part. */
  isAsked: boolean
  /** The move stays in hand: what is there on the other host is for the next try. */
  isTriedAgain?: boolean
}

/**
 * After a failure: everything is as it was. Not where the guest was seen running in its new place: then the way leads on.
 * @throws {Problem} HOST_UNKNOWN_STATE where it may run on the other host, and that cannot be asked; MOVE_UNFINISHED
 *   where it had arrived before this run
 */
export async function goBackFrom(
  name: string,
  settings: Settings,
): Promise<{ calls: Call[]; said: string } | undefined> {
  const moved = movedAt(settings.instances, name)
  const { task } = moved
  if (!task) return undefined
  if (task.phase === 'done') return undefined
  let isAsked = task.host !== undefined
  let left = ''
  if (task.host !== undefined) {
    const { ConnectionLost, destinationAt } = await import('../../lib/host/destination.ts')
    try {
      const destination = await destinationAt(task.host, settings)
      const reference = referenceTo(name, moved, task)
      const ask = () => destination.ask('status', reference)
      const { state } = await ask().catch((error) => {
        if (!(error instanceof ConnectionLost)) throw error
        return ask() // by a new connection
      })
      if (state?.running) return undefined
      // Nothing can have been started there, so the guest is not kept off where that host cannot clear away (its disk is
      // full, say): the next move takes over what is left.
      if (task.phase === 'begun' && !state?.arrived) await destination.ask('undo', reference)
    } catch (error) {
      if (!(error instanceof Problem) || task.phase === 'handed-over') throw unknownState(name, task.host, error)
      isAsked = false
      left = `; what arrived on ${task.host} stays there: ${error.message}`
    }
  }
  // Only who says so may lose what its guest has written since.
  if (cameBefore.has(task.move))
    throw new Problem(
      'failed',
      'MOVE_UNFINISHED',
      `Cannot go back with "${name}": it had arrived before, and what its guest may have written since would be lost`,
      `run the same command again; or lose that, and go back: cowhand revert ${name}`,
    )
  const runs = task.run ? ', and it runs' : ''
  return { calls: backCalls(name, { moved, task, isAsked }, settings), said: `${name} is as it was${runs}${left}` }
}

function unknownState(name: string, host: string, cause: unknown): Problem {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new Problem(
    'failed',
    'HOST_UNKNOWN_STATE',
    `Cannot tell whether "${name}" runs on ${host}, so it is not started here: ${why}`,
    `when ${host} can be reached, run the same command again, or go back: cowhand revert ${name}`,
  )
}
