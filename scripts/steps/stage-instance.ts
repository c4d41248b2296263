import * as z from 'zod/mini'
import { ownNamesIn, requireNoLink } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import {
  arrivesAt,
  clearing,
  clearStage,
  endingReceivers,
  hasArrived,
  requireStage,
  reusing,
  sayMark,
  stageAt,
} from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { arrivingOf, instanceLock, keptOf, markOf, reservedOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, InstanceName, optional, Uuid, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const directory = (path: string): Action => ({ do: 'mkdir', path, mode: 0o700 })

export const stageInstance = defineStep({
  name: 'stage-instance',
  summary: 'Make the place where an instance arrives (NAME.incoming)',
  input: () =>
    z.strictObject({
      stage: described(AbsolutePath, 'directory to make, NAME.incoming'),
      name: described(InstanceName, 'name of the instance'),
      move: described(Uuid, 'id of the resize or migration'),
      replaces: optional(Uuid, 'an earlier one that was given up: what arrived of it is used'),
      host: optional(z.string(), 'where it comes from'),
      agreement: optional(z.string(), 'what it is made ready for: another document is not taken for it later'),
      here: withDefault(z.boolean(), false, 'it is this very host, and the instance has its name still'),
    }),
  locks: ({ name }) => [instanceLock(name)],
  inspect: async ({ stage, name, move }, { instances }) => {
    requireStage(stage, instances)
    requireNoLink(arrivesAt(stage))
    const kept = keptOf(instances, name)
    return {
      stage: stageAt(stage),
      reusing: reusing(stage),
      hasArrived: hasArrived(stage, move),
      inTheWay: [arrivesAt(stage), kept].find((path) => ownNamesIn(path) !== undefined),
      isKept: instanceAt(kept)?.task?.move === move,
      part: ownNamesIn(arrivingOf(stage)) !== undefined,
      reserved: ownNamesIn(reservedOf(stage)) !== undefined,
      clearing: clearing(reservedOf(stage)),
      ending: await endingReceivers(stage),
      now: new Date().toISOString(),
    }
  },
  plan({ stage, name, move, replaces, host, agreement, here }, found): Action[] {
    if (found.hasArrived) return []
    const exists = (state: string, remedy: string) =>
      refuse('DESTINATION_EXISTS', `Cannot receive "${name}": ${state}`, remedy)
    const { mark, names } = found.stage ?? {}
    const isGivenUp = mark !== undefined && mark.move === replaces && mark.move !== move
    if (mark && mark.move !== move && !isGivenUp)
      exists(`another one is arriving, ${sayMark(mark)}`, clearStage(stage, mark.move))
    if (found.inTheWay !== undefined && !here && !found.isKept)
      exists(
        `"${found.inTheWay}" is there`,
        `look at it: cowhand show ${name}; choose another host, or remove it: cowhand delete ${name}`,
      )
    const since = (mark?.move === move && mark.since) || found.now
    const text = `${JSON.stringify({ version: 1, move, host, since, agreement }, null, 2)}\n`
    const isMarked = mark !== undefined && !isGivenUp && mark.agreement === agreement
    // It was made ready for another plan, on other bases.
    const isOther = mark !== undefined && !isMarked && !isGivenUp && found.reserved
    return [
      ...(names ? [] : [{ do: 'mkdir', path: stage, mode: 0o755 } as const]),
      // First and last of what is in it: so it is always told whose it is, and only then something arrives in it.
      ...(isGivenUp ? found.reusing : []),
      ...(isOther ? found.clearing : []),
      ...(isMarked ? [] : [{ do: 'write', path: markOf(stage), text, mode: 0o644 } as const]),
      ...(found.part ? [] : [directory(arrivingOf(stage))]),
      ...(found.reserved && !isGivenUp && !isOther ? [] : [directory(reservedOf(stage))]),
      // They would write into what is sent again.
      ...found.ending,
    ]
  },
})
