import { basename } from 'node:path'
import * as z from 'zod/mini'
import { fileAt } from '../../lib/host/files.ts'
import { arrivesAt, clearing, endingReceivers, requireStage, stageAt } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import {
  arrivingOf,
  diskNames,
  growingOf,
  instanceFiles,
  instanceLock,
  isOldConsole,
  markOf,
  partOf,
  reservedOf,
} from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const files = [...instanceFiles, 'move.json', ...diskNames.map(growingOf)]
const ours = new Set([...files, ...files.map(partOf), ...diskNames.map((disk) => `${disk}.converted`)])
const directories = ['part', 'reserved', 'tpm']

export const removeStage = defineStep({
  name: 'remove-stage',
  summary: 'Remove what has arrived of an instance by a move that was given up, never a base',
  input: () =>
    z.strictObject({
      stage: described(AbsolutePath, 'where it was put together, NAME.incoming'),
      move: described(Uuid, 'id of the resize or migration; what is of another one stays'),
    }),
  locks: ({ stage }) => [instanceLock(basename(arrivesAt(stage)))],
  inspect: async ({ stage }, { instances }) => {
    requireStage(stage, instances)
    const found = stageAt(stage)
    const names = found?.names.filter((name) => !directories.includes(name)) ?? []
    for (const name of names) if (ours.has(name)) fileAt(`${stage}/${name}`)
    const inside = [`${stage}/tpm`, arrivingOf(stage), reservedOf(stage)].flatMap(clearing)
    return { names: found && names, mark: found?.mark, inside, ending: await endingReceivers(stage) }
  },
  plan({ stage, move }, { names, mark, inside, ending }): Action[] {
    if (!names || (mark && mark.move !== move)) return []
    const foreign = names.filter((name) => !ours.has(name) && !isOldConsole(name))
    if (foreign.length > 0)
      refuse(
        'NOT_OURS',
        `Cannot remove "${stage}": it holds ${foreign.join(', ')}, which cowhand did not make`,
        'look at it, and move it away',
      )
    const remove = (name: string): Action => ({ do: 'remove', path: `${stage}/${name}` })
    // What tells whose it is goes last, so that a removal that was cut off is seen and goes on.
    const mine = names.filter((name) => `${stage}/${name}` !== markOf(stage) && name !== 'instance.json')
    const last = ['instance.json', 'move.json'].filter((name) => names.includes(name))
    return [...ending, ...mine.map(remove), ...inside, ...last.map(remove), { do: 'rmdir', path: stage }]
  },
})
