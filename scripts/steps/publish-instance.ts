import * as z from 'zod/mini'
import { fileAt, jsonAt, ownNamesIn } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import { arrivesAt, clearing, hasArrived, requireStage, stageAt } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { arrivingOf, markOf, reservedOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const publishInstance = defineStep({
  name: 'publish-instance',
  summary: 'Give an instance that has arrived its name: from then on it is here',
  input: () =>
    z.strictObject({
      stage: described(AbsolutePath, 'where it was put together, NAME.incoming'),
      directory: described(AbsolutePath, 'what that is to become, NAME'),
      move: described(Uuid, 'id of the resize or migration'),
    }),
  inspect: async ({ stage, directory, move }, { instances }, ahead) => {
    requireStage(stage, instances)
    const pins = jsonAt(`${stage}/disk.info`) ?? {}
    const disks = Object.keys(pins).map((path) => `${stage}${path.slice(path.lastIndexOf('/'))}`)
    const files = [`${stage}/instance.json`, `${stage}/disk.info`, ...disks]
    return {
      isPlace: directory === arrivesAt(stage),
      hasArrived: hasArrived(stage, move),
      mark: stageAt(stage)?.mark?.move,
      isComing: ahead.has(stage),
      missing: files.filter((path) => !ahead.has(path) && !fileAt(path)),
      // A resize on the same host gives the old one another name before this.
      isTaken: ownNamesIn(directory) !== undefined && !ahead.has(`${directory}_resize`),
      isOld: ahead.has(stage) || instanceAt(directory)?.task?.move === move,
      clear: [...clearing(reservedOf(stage)), ...clearing(arrivingOf(stage))],
      hasMark: fileAt(markOf(stage)) !== undefined,
    }
  },
  plan({ stage, directory, move }, found): Action[] {
    if (found.hasArrived) return []
    const [missing] = found.missing
    if (!found.isPlace || (found.mark !== move && !found.isComing) || missing !== undefined)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot publish "${directory}": ${missing === undefined ? `it does not arrive in "${stage}"` : `"${missing}" is not there yet`}`,
        'run the same command again, on the host that it comes from',
      )
    // Pending as long as its guest has not been switched off.
    if (found.isTaken && found.isOld)
      refuse(
        'IN_USE',
        `Cannot publish "${directory}": what it was has this name still`,
        'cowhand step set-aside-instance',
      )
    if (found.isTaken)
      refuse('DESTINATION_EXISTS', `Cannot publish "${directory}": it is there`, 'look at it, and move it away')
    return [
      // Its own disks keep the cleaner from its bases now.
      ...found.clear,
      ...(found.hasMark ? [{ do: 'remove', path: markOf(stage) } as const] : []),
      { do: 'rename', from: stage, to: directory },
    ]
  },
})
