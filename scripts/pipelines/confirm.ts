import * as z from 'zod/mini'
import { ownNamesIn } from '../../lib/host/files.ts'
import { isGoneThere, movedAt, requireLeads } from '../../lib/host/moves.ts'
import type { Task } from '../../lib/job/instance.ts'
import { instanceLock, instanceOf, keptOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { withDefault } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { nameOf } from '../moves/flags.ts'
import { clearSent } from '../steps/clear-sent.ts'
import { recordTask } from '../steps/record-task.ts'
import { removeInstance } from '../steps/remove-instance.ts'

/** First: from here on it is no whole any more, and nothing leads back to it. */
const begin = (directory: string, task: Task) =>
  call(recordTask, { directory, 'in-hand': { ...task, phase: 'confirming' } })

export const confirm = definePipeline({
  name: 'confirm',
  summary: 'Drop what a resize or migration kept for going back',
  positional: ['name'],
  examples: [
    ['cowhand confirm web1 --dry-run', 'what would be removed'],
    ['cowhand confirm web1', 'from then on there is no way back'],
  ],
  job: z.strictObject({
    name: nameOf,
    'without-host': withDefault(
      z.boolean(),
      false,
      'the other host cannot be asked whether it still has the instance; drop it all the same',
    ),
  }),
  locks: ({ name }) => [instanceLock(name)],
  look: async ({ name, 'without-host': isAlone }, settings) => {
    const moved = movedAt(settings.instances, name)
    const { task } = moved
    if (isAlone) return { ...moved, isGone: false }
    requireLeads('confirm', name, moved)
    if (task?.phase !== 'done' || task.host === undefined) return { ...moved, isGone: false }
    // What is dropped here is the only other copy: the other host has to have it.
    return { ...moved, isGone: await isGoneThere(name, moved, task.host, settings) }
  },
  calls({ name }, { task, here, kept, isGone }, { instances }) {
    if (!task && !kept) {
      // It was confirmed: that is what was asked for. Of a run that was cut off an empty directory may be left.
      const aside = keptOf(instances, name)
      if (here || ownNamesIn(aside)) return [call(removeInstance, { directory: aside })]
      return refuse(
        'NOT_MOVED',
        `Cannot confirm "${name}": no resize or migration of it is in hand here`,
        'see what there is: cowhand list',
      )
    }
    if (task?.phase !== 'done' && task?.phase !== 'confirming')
      return refuse(
        'MOVE_UNFINISHED',
        `Cannot confirm "${name}": its ${task?.kind === 'migrate' ? 'migration' : 'resize'} is not finished`,
        `run that command again, or go back: cowhand revert ${name}`,
      )
    if (isGone)
      refuse(
        'INSTANCE_NOT_FOUND',
        `Cannot confirm "${name}": ${task?.host} has it no more, and what is kept here would be lost`,
        `if it was moved on: cowhand confirm ${name} --without-host; if it is lost: cowhand revert ${name} --without-host`,
      )
    // On shared storage there is nothing to drop but the task.
    if (!kept) {
      const directory = instanceOf(instances, name)
      return [
        begin(directory, task),
        call(clearSent, { directory, state: true }),
        call(recordTask, { directory, 'in-hand': undefined }),
      ]
    }
    return [
      begin(keptOf(instances, name), task),
      call(clearSent, { directory: keptOf(instances, name), state: false }),
      call(removeInstance, { directory: keptOf(instances, name) }),
    ]
  },
})
