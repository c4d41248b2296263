import * as z from 'zod/mini'
import { isSentNow } from '../../lib/host/asking.ts'
import { ownNamesIn } from '../../lib/host/files.ts'
import { travelling } from '../../lib/host/travelling.ts'
import type { Action } from '../../lib/job/action.ts'
import { Answer, Transport } from '../../lib/job/move.ts'
import { AbsolutePath, described, HostName, optional, Rate } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const pushFiles = defineStep({
  name: 'push-files',
  summary: 'Send what travels with an instance to another host: disks, seed, NVRAM, state of its TPM',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, 'where the files are: NAME_resize'),
      before: described(AbsolutePath, 'where they are as long as the guest runs'),
      disks: described(z.array(z.string()), 'files of the disks that travel, such as disk'),
      sends: described(z.array(z.int()), 'bytes of each of them, at most'),
      host: described(HostName, 'where to'),
      to: described(AbsolutePath, 'directory there'),
      transport: described(Transport, 'ssh or rsyncd'),
      rsyncd: optional(Answer.shape.rsyncd, 'how its rsync daemon is reached'),
      bwlimit: optional(Rate, 'bytes per second, at most'),
      record: described(AbsolutePath, 'where it is written down what was sent'),
    }),
  inspect: async ({ directory, before, disks, host, to }) => {
    const files = travelling(ownNamesIn(directory) ? directory : before, disks, true)
    const names = files.map(({ name }) => name)
    return { files, isSent: isSentNow({ host, to }, [...disks, ...names]) }
  },
  plan({ directory, host, to, transport, rsyncd, bwlimit, record, disks, sends }, { isSent, files }): Action[] {
    if (isSent) return []
    const sized = new Map(disks.map((disk, index) => [disk, sends[index]]))
    return [
      {
        do: 'push',
        host,
        transport,
        // A disk that is merged first is there only then: what it comes to is known before.
        files: [
          ...disks
            .filter((disk) => !files.some(({ name }) => name === disk))
            .map((name) => ({ name, path: name, size: 0 })),
          ...files,
        ].map(({ name, path, size }) => ({
          name,
          path: `${directory}/${path}`,
          size: Math.min(sized.get(name) ?? size, sized.has(name) && size > 0 ? size : Number.POSITIVE_INFINITY),
        })),
        to,
        record,
        ...(rsyncd === undefined ? {} : { rsyncd }),
        ...(bwlimit === undefined ? {} : { rate: bwlimit }),
      },
    ]
  },
})
