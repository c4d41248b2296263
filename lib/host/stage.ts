import { lstatSync } from 'node:fs'
import { basename } from 'node:path'
import * as z from 'zod/mini'
import type { Action } from '../job/action.ts'
import { arrivingOf, diskNames, instanceOf, keptOf, markOf, partOf, stageOf } from '../job/layout.ts'
import { misuse, refuse } from '../job/problem.ts'
import { InstanceName, optional, Uuid } from '../job/spec.ts'
import { fileAt, jsonAt, ownNamesIn } from './files.ts'
import { instanceAt, sayTask } from './instances.ts'

// NAME.incoming: where an instance is put together, until it is whole and gets its name.

/** Which move a stage is of: kept in it as move.json until the instance is whole. */
const Mark = z.object({
  version: z.literal(1),
  move: Uuid,
  host: optional(z.string(), 'where it comes from; absent: from this very host'),
  since: z.string(),
  agreement: optional(z.string(), 'what it was made ready for (agreementOf)'),
})
export type Mark = z.output<typeof Mark>

export interface Stage {
  names: string[]
  /** The move that it is of; undefined where it was only begun, and holds nothing. */
  mark: (Pick<Mark, 'move' | 'host'> & { since?: string; agreement?: string | undefined }) | undefined
}

/**
 * A stage as it is found, or undefined where there is none.
 * @throws {Problem} NOT_OURS where it is something else
 */
export function stageAt(stage: string): Stage | undefined {
  const names = ownNamesIn(stage)
  if (!names) return undefined
  const json = jsonAt(markOf(stage))
  const mark = json === undefined ? undefined : Mark.safeParse(json)
  if (mark?.success) return { names, mark: mark.data }
  // The mark goes last, just before the stage gets its name: then the instance itself tells.
  const arrived = mark ? undefined : instanceAt(stage)?.arrived
  if (arrived) return { names, mark: arrived }
  // It is the first file in it as well.
  if (mark || names.some((name) => name !== partOf('move.json')))
    refuse(
      'NOT_OURS',
      `Cannot use "${stage}": it is of no move of cowhand`,
      `look at it, and move it away: ls -l ${stage}`,
    )
  return { names, mark: undefined }
}

/** Nothing is made or removed but where this host's own instances arrive. @throws {Problem} BAD_SPEC */
export function requireStage(stage: string, instances: string): void {
  const name = basename(arrivesAt(stage))
  if (stage !== stageOf(instances, name) || !InstanceName.safeParse(name).success)
    misuse(`Cannot use "${stage}": no instance arrives there`, `give ${stageOf(instances, 'NAME')}`)
}

/** The directory that the instance in a stage is to become. */
export const arrivesAt = (stage: string): string => stage.replace(/\.incoming$/, '')

/** Whether an instance has its name already, brought here by this move, or (where it is not said) by any. */
export function hasArrived(stage: string, move?: string): boolean {
  const arrived = instanceAt(arrivesAt(stage))?.arrived
  return arrived !== undefined && (move === undefined || arrived.move === move)
}

/** What a stage is waiting for, in words. */
export const sayMark = ({ move, host, since }: NonNullable<Stage['mark']>): string =>
  `from ${host ?? 'this host'}${since === undefined ? '' : ` since ${since}`} (move ${move})`

/** How what another move has left is cleared away, by hand. */
export const clearStage = (stage: string, move: string): string =>
  `finish that move where it comes from, or if it was given up, here: cowhand step remove-stage --stage ${stage} --move ${move}`

/**
 * True afterwards: no resize or migration of this name waits here for anything.
 * @param verb what is not done otherwise
 * @throws {Problem} MOVE_UNFINISHED
 */
export function requireNoMove(verb: string, instances: string, name: string): void {
  const [stage, kept] = [stageOf(instances, name), keptOf(instances, name)]
  const unfinished = (state: string, remedy: string) =>
    refuse('MOVE_UNFINISHED', `Cannot ${verb} "${name}": ${state}`, remedy)
  const task = instanceAt(instanceOf(instances, name))?.task ?? instanceAt(kept)?.task
  if (task) {
    const { state, remedy } = sayTask(name, task)
    unfinished(state, remedy)
  }
  if (ownNamesIn(kept)?.length) unfinished(`"${kept}" is there`, `look at it, and move it away: ls -l ${kept}`)
  const staged = stageAt(stage)
  if (staged?.mark) unfinished(`it is arriving ${sayMark(staged.mark)}`, clearStage(stage, staged.mark.move))
}

/**
 * What clears a directory of a stage away: whatever is in it was made, copied or sent for this move alone.
 * @throws {Problem} NOT_OURS where something else than files and directories is in it: before any is removed
 */
export function clearing(directory: string): Action[] {
  const names = ownNamesIn(directory)
  if (!names) return []
  const inside = names.flatMap((name): Action[] => {
    const path = `${directory}/${name}`
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory()) return clearing(path)
    return fileAt(path) ? [{ do: 'remove', path }] : []
  })
  return [...inside, { do: 'rmdir', path: directory }]
}

/**
 * What makes a stage one of a further move: a disk that was proven, perhaps put on its base and grown, is one that is on
 * its way again, of which only what differs is sent; all else is made anew.
 */
export function reusing(stage: string): Action[] {
  const others = (ownNamesIn(stage) ?? []).filter(
    (name) => name !== basename(arrivingOf(stage)) && name !== 'move.json',
  )
  return others.flatMap((name): Action[] => {
    const path = `${stage}/${name}`
    if ((diskNames as readonly string[]).includes(name))
      return [{ do: 'rename', from: path, to: `${arrivingOf(stage)}/${name}` }]
    return lstatSync(path).isDirectory() ? clearing(path) : [{ do: 'remove', path }]
  })
}

/** What ends whoever still writes to what arrives in a stage: one whose sender is gone stays for minutes. */
export async function endingReceivers(stage: string): Promise<Action[]> {
  const path = arrivingOf(stage)
  if (!ownNamesIn(path)) return []
  const { receiversIn } = await import('./receivers.ts')
  return receiversIn(path).length > 0 ? [{ do: 'end-receivers', path }] : []
}

/** A file of the stage has come already: it is there, or the whole instance has its name. */
export const hasCome = (stage: string, name: string): boolean =>
  fileAt(`${stage}/${name}`) !== undefined ||
  (ownNamesIn(stage) === undefined && hasArrived(stage) && fileAt(`${arrivesAt(stage)}/${name}`) !== undefined)
