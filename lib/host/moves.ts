import { hostname } from 'node:os'
import type { InstanceRecord, Task } from '../job/instance.ts'
import { instanceOf, keptOf } from '../job/layout.ts'
import type { MoveReference } from '../job/move.ts'
import { refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { ownNamesIn } from './files.ts'
import { instanceAt } from './instances.ts'

/** An instance, and a resize or migration of it that is in hand on this host. */
export interface Moved {
  /** Its record under its own name, where it is there. */
  here: InstanceRecord | undefined
  /** The record in NAME_resize. */
  kept: InstanceRecord | undefined
  task: Task | undefined
  /** Where its files are, as far as the task has not finished: NAME, or NAME_resize. */
  directory: string
}

/**
 * How far a resize or migration of an instance came, as the disk tells.
 * @throws {Problem} NOT_OURS where NAME_resize is of something else, or another instance has the name now
 */
export function movedAt(instances: string, name: string): Moved {
  const [directory, aside] = [instanceOf(instances, name), keptOf(instances, name)]
  const [here, names] = [instanceAt(directory), ownNamesIn(aside)]
  // Of a confirm that was cut off an empty one is left.
  if (!names?.length) return { here, kept: undefined, task: here?.task, directory }
  const kept = instanceAt(aside)
  const task = kept?.task
  const notOurs = (state: string) =>
    refuse('NOT_OURS', `Cannot move "${name}": ${state}`, `look at it, and move it away: ls -l ${aside}`)
  if (!kept || !task) return notOurs(`"${aside}" is there, and it is of no resize or migration of cowhand`)
  const isOurs = here?.arrived?.move === task.move && (task.host === undefined || task.shared)
  if (here && !isOurs) return notOurs(`"${aside}" is of an earlier instance of this name`)
  return { here, kept, task, directory: aside }
}

/** What the other host is asked by what became of a move there. */
export const referenceTo = (name: string, { here, kept }: Moved, { move, shared = false }: Task): MoveReference => ({
  name,
  move,
  uuid: (kept ?? here)?.uuid ?? '',
  shared,
})

/**
 * On shared storage both hosts see what is in hand, and the one that has begun it leads.
 * @throws {Problem} UNSUPPORTED
 */
export function requireLeads(verb: 'confirm' | 'revert', name: string, { task }: Moved): void {
  const { shared, source = '' } = task ?? {}
  if (!shared || source === hostname()) return
  refuse(
    'UNSUPPORTED',
    `Cannot ${verb} "${name}" here: ${source || 'the host that it came from'} has begun its move`,
    `run it there: cowhand ${verb} ${name}; if that host is lost: cowhand ${verb} ${name} --without-host`,
  )
}

/** What arrived on the other host is no longer there. @throws {Problem} as destinationAt */
export async function isGoneThere(name: string, moved: Moved, host: string, settings: Settings): Promise<boolean> {
  const { destinationAt } = await import('./destination.ts')
  const destination = await destinationAt(host, settings)
  // Before it was seen there, it is enough that the host can be asked.
  if (moved.task?.phase !== 'done') return false
  const { state } = await destination.ask('status', referenceTo(name, moved, moved.task))
  return state?.arrived !== true
}
