import * as z from 'zod/mini'
import { isSentNow } from '../../lib/host/asking.ts'
import { baseAt, requireSound } from '../../lib/host/bases.ts'
import type { Action } from '../../lib/job/action.ts'
import { baseLock } from '../../lib/job/layout.ts'
import { Answer, Transport } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, HostName, optional, Rate } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const pushBase = defineStep({
  name: 'push-base',
  summary: 'Send a base to another host that cannot get it elsewhere',
  input: () =>
    z.strictObject({
      base: described(AbsolutePath, 'base of this host'),
      file: described(z.string(), 'what it arrives as'),
      host: described(HostName, 'where to'),
      to: described(AbsolutePath, 'directory there'),
      transport: described(Transport, 'ssh or rsyncd'),
      rsyncd: optional(Answer.shape.rsyncd, 'how its rsync daemon is reached'),
      bwlimit: optional(Rate, 'bytes per second, at most'),
    }),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ base, file, host, to }) => ({ base: baseAt(base), isSent: isSentNow({ host, to }, [file]) }),
  plan({ base, file, host, to, transport, rsyncd, bwlimit }, { base: found, isSent }): Action[] {
    if (isSent) return []
    if (!found) return refuse('MISSING_PREREQUISITE', `Cannot send base "${base}": there is none`, 'cowhand cache list')
    requireSound(base, found)
    return [
      {
        do: 'push',
        host,
        transport,
        files: [{ name: file, path: base, size: found.allocated }],
        to,
        ...(rsyncd === undefined ? {} : { rsyncd }),
        ...(bwlimit === undefined ? {} : { rate: bwlimit }),
      },
    ]
  },
})
