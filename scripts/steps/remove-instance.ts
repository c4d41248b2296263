import * as z from 'zod/mini'
import { fileAt, ownNamesIn } from '../../lib/host/files.ts'
import { isInUse } from '../../lib/host/qemu-img.ts'
import type { Action } from '../../lib/job/action.ts'
import { instanceFiles, isOldConsole, partOf, unpackedOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const ours = new Set<string>([...instanceFiles, ...instanceFiles.map(partOf), unpackedOf('disk')])

export const removeInstance = defineStep({
  name: 'remove-instance',
  summary: "Remove an instance's directory: the files that cowhand made, never a base",
  input: () => z.strictObject({ directory: described(AbsolutePath, "the instance's directory") }),
  inspect: async ({ directory }) => ({
    names: ownNamesIn(directory),
    staged: ownNamesIn(`${directory}/disk.config.d`),
    inUse: fileAt(`${directory}/disk`) !== undefined && (await isInUse(`${directory}/disk`)),
  }),
  plan({ directory }, { names, staged, inUse }): Action[] {
    if (!names) return []
    const foreign = names.filter((name) => !ours.has(name) && !isOldConsole(name) && name !== 'disk.config.d')
    if (foreign.length > 0)
      refuse(
        'NOT_OURS',
        `Cannot remove "${directory}": it holds ${foreign.join(', ')}, which cowhand did not make`,
        'look at it, and move it away',
      )
    if (inUse)
      refuse(
        'IN_USE',
        `Cannot remove "${directory}": a running guest has its disk open`,
        'stop the guest first, or set libvirt_uri so that cowhand does',
      )
    const remove = (name: string): Action => ({ do: 'remove', path: `${directory}/${name}` })
    // What tells that there is an instance goes last, so that a removal that was cut off is seen and goes on.
    const files = names.filter((name) => name !== 'disk.config.d' && name !== 'instance.json')
    return [
      ...files.map(remove),
      ...(staged ?? []).map((name) => remove(`disk.config.d/${name}`)),
      ...(staged ? [{ do: 'rmdir', path: `${directory}/disk.config.d` } as const] : []),
      ...names.filter((name) => name === 'instance.json').map(remove),
      { do: 'rmdir', path: directory },
    ]
  },
})
