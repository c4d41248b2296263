import { basename, dirname } from 'node:path'
import * as z from 'zod/mini'
import { ownFileAt } from '../../lib/host/files.ts'
import { endingReceivers, hasCome, requireStage } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { planArrival, Sent } from '../../lib/job/arrival.ts'
import { arrivingOf, type DiskName, diskNames } from '../../lib/job/layout.ts'
import { fail, misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, optional, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const receiveDisk = defineStep({
  name: 'receive-disk',
  summary: 'Take a disk that was sent to where its instance is put together, once it is proven',
  input: () =>
    z.strictObject({
      part: described(AbsolutePath, 'what was sent: NAME.incoming/part/disk'),
      disk: described(AbsolutePath, 'where it belongs: NAME.incoming/disk'),
      format: described(z.enum(['qcow2', 'raw']), 'what it is'),
      size: described(Bytes, 'what its guest saw'),
      stands: withDefault(z.boolean(), false, 'it stood on a base, and is put on one of this host next'),
      sent: optional(Sent, 'what was sent; left out where it was copied on this very host'),
    }),
  about: ({ disk }) => basename(disk),
  inspect: async ({ part, disk }, { instances }, ahead) => {
    const [stage, name] = [dirname(disk), basename(disk)]
    requireStage(stage, instances)
    if (!diskNames.includes(name as DiskName) || part !== `${arrivingOf(stage)}/${name}`)
      misuse(`Cannot receive "${disk}": that is no disk of an instance`, `give one of ${diskNames.join(', ')}`)
    return {
      hasCome: hasCome(stage, name),
      part: ownFileAt(part),
      isComing: ahead.has(part),
      ending: await endingReceivers(stage),
    }
  },
  plan({ part, disk, format, size, stands, sent }, found): Action[] {
    // What is pinned as raw is a disk, whatever its guest wrote into it: only its length can be wrong.
    if (format === 'raw' && found.part && !found.hasCome && found.part.size !== size)
      fail(
        'CHECKSUM_MISMATCH',
        `Cannot receive "${disk}": "${part}" has ${found.part.size} bytes, and its guest saw ${size}`,
        'run the same command again: what differs is sent again',
      )
    const prove: Action[] = format === 'qcow2' ? [{ do: 'inspect', path: part, size, stands }] : []
    return planArrival({ part, to: disk, sent, mode: 0o600 }, found, prove)
  },
})
