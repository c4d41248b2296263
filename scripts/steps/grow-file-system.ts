import * as z from 'zod/mini'
import { growthOf, requireGrowTools } from '../../lib/host/grow-fs.ts'
import type { Action } from '../../lib/job/action.ts'
import { growingOf, partOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional, withDefault } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const growFileSystem = defineStep({
  name: 'grow-file-system',
  summary: 'Grow the file system of a disk without partitions to the end of the disk: ext2, ext3, ext4 or xfs',
  input: () =>
    z.strictObject({
      disk: described(AbsolutePath, 'disk whose file system is to grow; no guest may use it'),
      format: described(z.enum(['qcow2', 'raw']), 'format of the disk'),
      base: optional(AbsolutePath, 'raw base that it stands on'),
      'grow-fs': withDefault(z.enum(['auto', 'never']), 'auto', 'auto, or never: leave it to the guest'),
    }),
  about: ({ disk }) => disk.slice(disk.lastIndexOf('/') + 1),
  inspect: async ({ disk, format, base, 'grow-fs': wish }) => {
    const found = await growthOf({ path: disk, format, base })
    if (found?.canGrow && wish === 'auto') await requireGrowTools(found.is)
    return { found }
  },
  plan({ disk, format, base, 'grow-fs': wish }, { found }): Action[] {
    if (!found)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot grow the file system in "${disk}": there is no such disk`,
        'make it first: cowhand step create-overlay',
      )
    // What was begun is finished, whatever is wished now: until then the disk is not whole.
    const grows = found.isCut || (found.canGrow && wish === 'auto')
    return [
      ...(found.leftover ? [{ do: 'remove', path: partOf(growingOf(disk)) } as const] : []),
      ...(grows ? [{ do: 'grow-fs', path: disk, format, ...(base === undefined ? {} : { base }) } as const] : []),
    ]
  },
})
