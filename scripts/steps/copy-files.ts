import * as z from 'zod/mini'
import { fileAt, freeSpace, ownNamesIn, requireSpace } from '../../lib/host/files.ts'
import { travelling } from '../../lib/host/travelling.ts'
import type { Action } from '../../lib/job/action.ts'
import { partOf } from '../../lib/job/layout.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const copyFiles = defineStep({
  name: 'copy-files',
  summary:
    'Copy what travels with an instance to where it arrives on the same host, sharing blocks where that is possible',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, 'where the files are: NAME_resize'),
      before: described(AbsolutePath, 'where they are as long as the guest runs'),
      disks: described(z.array(z.string()), 'files of the disks that travel, such as disk'),
      to: described(AbsolutePath, 'directory that they arrive in'),
    }),
  inspect: async ({ directory, before, disks, to }, _, ahead) => {
    const [own, stage] = [
      travelling(ownNamesIn(directory) ? directory : before, disks, false),
      to.replace(/\/part$/, ''),
    ]
    const isThere = ({ name }: { name: string }) => fileAt(`${to}/${name}`) || fileAt(`${stage}/${name}`)
    return {
      missing: own.filter((file) => !isThere(file)),
      // Once it was published, nothing is left to copy.
      isOver: !ahead.has(to) && ownNamesIn(to) === undefined,
      free: freeSpace(to),
    }
  },
  plan({ directory, to }, { missing, isOver, free }): Action[] {
    if (isOver) return []
    requireSpace(
      missing.reduce((sum, { size }) => sum + size, 0),
      free,
      to,
    )
    return missing.flatMap(({ name, path, size }): Action[] => [
      { do: 'copy', from: `${directory}/${path}`, to: partOf(`${to}/${name}`), size },
      { do: 'publish', from: partOf(`${to}/${name}`), to: `${to}/${name}`, mode: 0o600 },
    ])
  },
})
