import * as z from 'zod/mini'
import { instanceLock } from '../../lib/job/layout.ts'
import { withDefault } from '../../lib/job/spec.ts'
import { definePipeline } from '../../lib/job/step.ts'
import { goBackFrom } from './go-back.ts'
import { hostOf, lookForMove, moveCalls, moveFlags, moveReasons, nameOf } from './move.ts'

export const migrate = definePipeline({
  name: 'migrate',
  summary: 'Move an instance to another host; what it was is kept here until you confirm or revert',
  positional: ['name'],
  examples: [
    ['cowhand migrate web1 --to beta --dry-run', 'what both hosts would do, and what would be sent'],
    ['cowhand migrate web1 --to beta', 'only the copy-on-write part travels'],
  ],
  job: z.strictObject({
    name: nameOf,
    to: hostOf,
    mode: withDefault(z.enum(['cold']), 'cold', 'cold: the guest is off while its disks are copied'),
    ...moveFlags,
  }),
  locks: ({ name }) => [instanceLock(name)],
  look: (job, settings) => lookForMove('migrate', job, settings),
  reasons: (job, found) => moveReasons(job, found),
  calls: (job, found, settings) => moveCalls(job, found, settings),
  undo: ({ name }, settings) => goBackFrom(name, settings),
})
