import * as z from 'zod/mini'
import { isSentNow } from '../../lib/host/asking.ts'
import { fileAt } from '../../lib/host/files.ts'
import type { Action } from '../../lib/job/action.ts'
import { Answer } from '../../lib/job/move.ts'
import { AbsolutePath, described, HostName } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** What it arrives as: gone with the place where it arrives. */
const name = 'probe'

export const probeDaemon = defineStep({
  name: 'probe-daemon',
  summary: 'Send a small file by the rsync daemon of another host: what it writes is to be where disks arrive',
  input: () =>
    z.strictObject({
      file: described(AbsolutePath, 'any small file'),
      host: described(HostName, 'where to'),
      to: described(AbsolutePath, 'directory there, which has to be there'),
      rsyncd: described(Answer.shape.rsyncd, 'how its rsync daemon is reached'),
    }),
  inspect: async ({ file, host, to }) => ({ size: fileAt(file)?.size ?? 0, isSent: isSentNow({ host, to }, [name]) }),
  plan: ({ file, host, to, rsyncd }, { size, isSent }): Action[] =>
    isSent
      ? []
      : [
          {
            do: 'push',
            host,
            transport: 'rsyncd',
            files: [{ name, path: file, size }],
            to,
            ...(rsyncd ? { rsyncd } : {}),
          },
        ],
})
