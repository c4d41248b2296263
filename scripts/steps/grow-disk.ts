import { basename } from 'node:path'
import * as z from 'zod/mini'
import { ownFileAt } from '../../lib/host/files.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import type { Action } from '../../lib/job/action.ts'
import { basesOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, exactSize } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const growDisk = defineStep({
  name: 'grow-disk',
  summary: 'Make a disk larger, with zeros behind what its guest knows of it',
  input: () =>
    z.strictObject({
      disk: described(AbsolutePath, 'disk of a guest that is off'),
      format: described(z.enum(['qcow2', 'raw']), 'what the disk is'),
      size: described(Bytes, 'size that it is to have'),
    }),
  about: ({ disk }) => basename(disk),
  inspect: async ({ disk, format }, { instances }, ahead) => {
    const file = ownFileAt(disk)
    const header = file && format === 'qcow2' ? readQcow2(disk) : undefined
    return {
      size: format === 'raw' ? file?.size : header?.virtualSize,
      backing: header?.backing,
      bases: basesOf(instances),
      isForeign: file !== undefined && format === 'qcow2' && !header,
      isComing: ahead.has(disk),
    }
  },
  plan({ disk, format, size }, { size: now, backing, bases, isForeign, isComing }): Action[] {
    const cannot = (code: Parameters<typeof refuse>[0], state: string, remedy: string) =>
      refuse(code, `Cannot grow "${disk}" to ${exactSize(size)}: ${state}`, remedy)
    if (isForeign) cannot('NOT_OURS', 'it is no qcow2', `look at it: qemu-img info ${disk}`)
    if (now === undefined && !isComing)
      cannot('MISSING_PREREQUISITE', 'there is no such disk', 'name a disk of an instance')
    if (now !== undefined && now > size)
      cannot('DISK_TOO_SMALL', `it has ${exactSize(now)}`, `ask for at least that: ${exactSize(now)}`)
    if (now === size) return []
    // Behind its end a base may have more than the disk shows. It is only opened where it is one of ours.
    if (backing !== undefined && backing !== `${bases}/${basename(backing)}`)
      cannot('NOT_OURS', `it stands on "${backing}"`, 'put it on a base of this host: cowhand step rebase-disk')
    return [{ do: 'grow', path: disk, format, size, ...(backing === undefined ? {} : { base: backing }) }]
  },
})
