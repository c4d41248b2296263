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
  examples: [['cowhand revert web1 --yes', 'without a question']],
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
    const host = isAlone ? undefined : moved.task?.host
    if (host !== undefined) await (await import('../../lib/host/destination.ts')).destinationAt(host, settings)
    return moved
  },
  calls(job, moved, settings) {
    const { name, 'without-host': isAlone } = job
    const { task } = moved
    if (!task)
      return refuse(
        'NOT_MOVED',
        `Cannot revert "${name}": no resize or migration of it is in hand here`,
        'see what there is: cowhand list',
      )
    return backCalls(name, { moved, task, isAsked: task.host !== undefined && !isAlone }, settings)
  },
})
