import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { ownFileAt, ownNamesIn } from '../../lib/host/files.ts'
import { endingReceivers, hasCome, requireStage } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { isTravelling, planArrival, Sent } from '../../lib/job/arrival.ts'
import { arrivingOf } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const receiveFile = defineStep({
  name: 'receive-file',
  summary:
    'Take the seed, the NVRAM, the console or a file of the TPM that was sent to where its instance is put together',
  input: () =>
    z.strictObject({
      part: described(AbsolutePath, 'what was sent: NAME.incoming/part/FILE'),
      file: described(AbsolutePath, 'where it belongs: NAME.incoming/FILE'),
      sent: optional(Sent, 'what was sent; left out where it was copied on this very host, if there is such a file'),
    }),
  about: ({ file }) => file.slice(file.lastIndexOf('.incoming/') + '.incoming/'.length),
  inspect: async ({ part, file }, { instances }, ahead) => {
    const stage = file.slice(0, Math.max(0, file.indexOf('/', instances.length + 1)))
    const name = file.slice(stage.length + 1)
    requireStage(stage, instances)
    if (!isTravelling(name) || part !== `${arrivingOf(stage)}/${name}`)
      misuse(
        `Cannot receive "${file}": no such file travels with an instance`,
        'give disk.config, nvram.fd or tpm/FILE',
      )
    for (const path of [part, file]) ownNamesIn(dirname(path)) // none of them may be a link
    return {
      hasCome: hasCome(stage, name),
      part: ownFileAt(part),
      isComing: ahead.has(part),
      ending: await endingReceivers(stage),
      directory: ahead.has(dirname(file)) || ownNamesIn(dirname(file)) !== undefined,
    }
  },
  plan({ part, file, sent }, found): Action[] {
    if (!sent && !found.hasCome && !found.part && !found.isComing) return []
    const mode = file.endsWith('/console.log') ? 0o660 : 0o600
    const plan = planArrival({ part, to: file, sent, mode }, found)
    const needs = !found.directory && !found.hasCome
    return [...(needs ? [{ do: 'mkdir', path: dirname(file), mode: 0o700 } as const] : []), ...plan]
  },
})
