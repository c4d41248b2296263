import * as z from 'zod/mini'
import { instanceLock } from '../../lib/job/layout.ts'
import { optional, withDefault } from '../../lib/job/spec.ts'
import { definePipeline } from '../../lib/job/step.ts'
import { goBackFrom } from '../moves/back.ts'
import { moveCalls, moveReasons } from '../moves/calls.ts'
import { eachOf, hostOf, moveFlags, one, several, sizeFlags } from '../moves/flags.ts'
import { liveCalls, liveReasons, lookForLive } from '../moves/live.ts'
import { lookForMove } from '../moves/look.ts'

export const resize = definePipeline({
  name: 'resize',
  summary: 'Give an instance larger disks, here or on another host; what it was is kept until you confirm or revert',
  positional: ['name'],
  examples: [
    ['cowhand resize web1 --root 40G', 'on this host'],
    ['cowhand resize web1 --root 40G --mode live', 'while its guest runs; nothing is kept to go back to'],
    ['cowhand resize web1 --root 40G --to beta', 'on another one: only the copy-on-write part travels'],
    ['cowhand confirm web1', 'drop what was kept (or go back to it: cowhand revert web1)'],
  ],
  job: z.strictObject({
    ...several,
    ...sizeFlags,
    to: optional(hostOf, 'host that it is to go to [this one]'),
    mode: withDefault(
      z.enum(['cold', 'live']),
      'cold',
      'cold: the guest is off while its disks are copied; live: its disks grow on this host while it runs, for good',
    ),
    ...moveFlags,
  }),
  each: eachOf,
  parallel: ({ parallel }) => parallel,
  locks: (job) => [instanceLock(one(job).name)],
  look: async (job, settings) =>
    job.mode === 'live' ? lookForLive(one(job), settings) : lookForMove('resize', one(job), settings),
  reasons: (job, found) => ('disks' in found ? liveReasons(one(job), found) : moveReasons(found)),
  calls: (job, found, settings) =>
    'disks' in found ? liveCalls(one(job), found, settings) : moveCalls(one(job), found, settings),
  undo: (job, settings) => goBackFrom(one(job).name, settings),
})
