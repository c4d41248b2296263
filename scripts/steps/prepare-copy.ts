import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { fileAt, freeSpace, ownFileAt, requireSpace } from '../../lib/host/files.ts'
import { requireOverlay } from '../../lib/host/offered.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { basesOf, diskNames, partOf } from '../../lib/job/layout.ts'
import { BaseName } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const prepareCopy = defineStep({
  name: 'prepare-copy',
  summary:
    'Make what travels in place of a disk: merged with its base, or put on the unsized base; the disk stays as it is',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, 'where the disk is: NAME_resize'),
      file: described(z.enum(diskNames), 'the disk'),
      'rebase-first': optional(BaseName, 'base that it is put on, in _base; without it, it is merged with its base'),
    }),
  about: ({ file }) => file,
  inspect: async ({ directory, file, 'rebase-first': onto }, settings) => {
    const [disk, copy] = [`${directory}/${file}`, `${directory}/send/${file}`]
    const isThere = fileAt(disk) !== undefined
    const overlay = isThere ? await requireOverlay(disk, settings) : undefined
    return {
      overlay,
      allocated: (fileAt(disk)?.allocated ?? 0) + (overlay ? (fileAt(overlay.base)?.allocated ?? 0) : 0),
      onto:
        onto === undefined
          ? undefined
          : {
              path: `${basesOf(settings.instances)}/${onto}`,
              file: ownFileAt(`${basesOf(settings.instances)}/${onto}`),
            },
      copy: ownFileAt(copy) && readQcow2(copy),
      part: ownFileAt(partOf(copy)),
      free: freeSpace(directory),
    }
  },
  plan({ directory, file }, { overlay, allocated, onto, copy, part: leftover, free }): Action[] {
    const [disk, to] = [`${directory}/${file}`, `${directory}/send/${file}`]
    const part = partOf(to)
    if (!overlay)
      return refuse('MISSING_PREREQUISITE', `Cannot prepare "${disk}": there is no such disk`, `ls -l ${directory}`)
    if (onto && !onto.file)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot put a copy of "${disk}" on base "${onto.path}": there is no such base`,
        'run the same command again: the plan is then another',
      )
    // The disk is of a guest that is off: what was made of it is still right.
    if (copy && copy.backing === onto?.path && copy.virtualSize === overlay.virtualSize)
      return leftover ? [{ do: 'remove', path: part }] : []
    const space = Math.min(allocated, overlay.virtualSize + 2 ** 20 + Math.ceil(overlay.virtualSize / 2 ** 12))
    requireSpace(space, free, directory)
    return [
      { do: 'mkdir', path: dirname(to), mode: 0o700 },
      ...(onto
        ? [
            run(['cp', '--reflink=auto', '--sparse=always', '--no-preserve=mode', '--', disk, part], `copy "${disk}"`, {
              writes: part,
              mode: 0o600,
            }),
            { do: 'shift', path: part, from: overlay.base, to: onto.path, space } as const,
          ]
        : [{ do: 'flatten', path: disk, base: overlay.base, to: part, space } as const]),
      { do: 'publish', from: part, to },
    ]
  },
})
