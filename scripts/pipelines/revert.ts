import * as z from 'zod/mini'
import { movedAt } from '../../lib/host/moves.ts'
import { instanceLock } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { described, withDefault } from '../../lib/job/spec.ts'
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
    'without-host': described(
      withDefault(z.boolean(), false, ''),
      'the other host cannot be asked, and you have made sure that the guest does not run there',
    ),
  }),
  destroys: ({ name }) => `what "${name}" has become since its resize or migration`,
  locks: ({ name }) => [instanceLock(name)],
  look: async ({ name, 'without-host': isAlone }, settings) => {
    const moved = movedAt(settings.instances, name)
    // As long as it cannot be asked, everything stays as it is.
    const { task } = moved
    if (task?.host === undefined || isAlone) return { moved, isGone: false }
    const { destinationAt } = await import('../../lib/host/destination.ts')
    const destination = await destinationAt(task.host, settings)
    if (task.phase !== 'done') return { moved, isGone: false }
    // Where it went on from there, it may run on a host that nobody here knows of.
    const uuid = moved.kept?.uuid ?? moved.here?.uuid ?? ''
    const { state } = await destination.ask('status', { name, move: task.move, uuid, shared: task.shared === true })
    return { moved, isGone: state?.arrived !== true }
  },
  calls(job, { moved, isGone }, settings) {
    const { name, 'without-host': isAlone } = job
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
    return backCalls(name, { moved, task, isAsked: task.host !== undefined && !isAlone }, settings)
  },
})
