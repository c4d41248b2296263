import * as z from 'zod/mini'
import { instanceLock } from '../../lib/job/layout.ts'
import { withDefault } from '../../lib/job/spec.ts'
import { definePipeline } from '../../lib/job/step.ts'
import { goBackFrom } from '../moves/back.ts'
import { moveCalls, moveReasons } from '../moves/calls.ts'
import { eachOf, hostOf, moveFlags, one, several } from '../moves/flags.ts'
import { lookForMove } from '../moves/look.ts'

export const migrate = definePipeline({
  name: 'migrate',
  summary: 'Move an instance to another host; what it was is kept here until you confirm or revert',
  positional: ['name'],
  examples: [
    ['cowhand migrate web1 --to beta --dry-run', 'what both hosts would do, and what would be sent'],
    ['cowhand migrate web1 --to beta', 'only the copy-on-write part travels'],
    ['cowhand migrate web1 web2 web3 --to beta --parallel 2 --bwlimit 80M', 'two at once, which share 80M a second'],
  ],
  job: z.strictObject({
    ...several,
    to: hostOf,
    mode: withDefault(z.enum(['cold']), 'cold', 'cold: the guest is off while its disks are copied'),
    ...moveFlags,
  }),
  each: eachOf,
  parallel: ({ parallel }) => parallel,
  locks: (job) => [instanceLock(one(job).name)],
  look: (job, settings) => lookForMove('migrate', one(job), settings),
  reasons: (_, found) => moveReasons(found),
  calls: (job, found, settings) => moveCalls(one(job), found, settings),
  undo: (job, settings) => goBackFrom(one(job).name, settings),
})
