import * as z from 'zod/mini'
import { isGoneThere, movedAt, requireLeads } from '../../lib/host/moves.ts'
import { instanceLock } from '../../lib/job/layout.ts'
import { Problem, refuse } from '../../lib/job/problem.ts'
import { withDefault } from '../../lib/job/spec.ts'
import { definePipeline } from '../../lib/job/step.ts'
import { backCalls } from '../moves/back.ts'
import { nameOf } from '../moves/flags.ts'

export const revert = definePipeline({
  name: 'revert',
  summary: 'Go back to what an instance was before its resize or migration',
  positional: ['name'],
  examples: [
    ['cowhand revert web1 --dry-run', 'what would be removed, here and on the other host'],
    ['cowhand revert web1 --yes', 'without a question; the guest runs here again, if it ran'],
  ],
  job: z.strictObject({
    name: nameOf,
    'without-host': withDefault(
      z.boolean(),
      false,
      'the other host cannot be asked, and you have made sure that the guest does not run there',
    ),
  }),
  destroys: ({ name }) => `what "${name}" has become since its resize or migration`,
  locks: ({ name }) => [instanceLock(name)],
  look: async ({ name, 'without-host': isAlone }, settings) => {
    const moved = movedAt(settings.instances, name)
    const { task } = moved
    if (task?.host === undefined || isAlone) return { moved, isAsked: false }
    requireLeads('revert', name, moved)
    try {
      // Where it went on from there, it may run on a host that nobody here knows of.
      return { moved, isAsked: true, isGone: await isGoneThere(name, moved, task.host, settings) }
    } catch (error) {
      // Else it may run there: as long as the host cannot be asked, everything stays as it is.
      if (!(error instanceof Problem) || error.code === 'INTERRUPTED' || task.phase !== 'begun') throw error
      return { moved, isAsked: false, left: `what arrived on ${task.host} stays there: ${error.message}` }
    }
  },
  warnings: (_, { left }) => (left === undefined ? [] : [left]),
  calls({ name }, { moved, isAsked, isGone }, settings) {
    const { task } = moved
    if (!task)
      return refuse(
        'NOT_MOVED',
        `Cannot revert "${name}": no resize or migration of it is in hand here`,
        'see what there is: cowhand list',
      )
    // What could be gone back to is no whole any more.
    if (task.phase === 'confirming')
      return refuse(
        'MOVE_UNFINISHED',
        `Cannot revert "${name}": what was kept of it is being dropped`,
        `finish that: cowhand confirm ${name}`,
      )
    if (isGone)
      return refuse(
        'INSTANCE_NOT_FOUND',
        `Cannot revert "${name}": ${task.host} has it no more as it came there, so it may have been moved on, and run elsewhere`,
        `if it is nowhere else: cowhand revert ${name} --without-host; if it is: cowhand confirm ${name} --without-host`,
      )
    return backCalls(name, { moved, task, isAsked }, settings)
  },
})
