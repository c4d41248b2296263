import * as z from 'zod/mini'
import { fileAt, ownNamesIn } from '../../lib/host/files.ts'
import { pinsOf } from '../../lib/host/pins.ts'
import { isInUse } from '../../lib/host/qemu-img.ts'
import { backingNameAt } from '../../lib/image/backing.ts'
import type { Action } from '../../lib/job/action.ts'
import {
  basesOf,
  diskNames,
  growingOf,
  instanceFiles,
  isOldConsole,
  kindOfBase,
  partOf,
  recordOf,
  tpmFiles,
  unpackedOf,
} from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const growing = diskNames.map(growingOf)
const ours = new Set<string>([
  ...instanceFiles,
  ...growing,
  ...[...instanceFiles, ...growing].map(partOf),
  unpackedOf('disk'),
])

/** Directories in it: the files that a seed is made of, and the state of the guest's TPM. */
const within = ['disk.config.d', 'tpm']

const isOurs = (name: string): boolean => ours.has(name) || isOldConsole(name) || within.includes(name)

const isTpm = (name: string): boolean => name.replace(/\.part$/, '') in tpmFiles

/** Bases of this host that its disks stand on, as far as the disks tell: this must not keep them from being removed. */
async function basesUnder(directory: string, instances: string): Promise<string[]> {
  const found = new Set<string>()
  const formatOf = await pinsOf(directory).catch(() => undefined)
  if (!formatOf) return []
  for (const disk of diskNames) {
    if (formatOf(disk) === 'raw') continue // what its guest wrote into it says nothing
    try {
      const backing = backingNameAt(`${directory}/${disk}`)
      const name = backing?.slice(backing.lastIndexOf('/') + 1) ?? ''
      const base = `${basesOf(instances)}/${name}`
      if (kindOfBase(name) !== 'unknown' && fileAt(recordOf(base))) found.add(base)
    } catch {
      // there is no such disk, or it has no good header
    }
  }
  return [...found]
}

/** @throws {Problem} NOT_OURS where one with a name of ours is no file: before any is removed */
function filesIn(directory: string, isWithin = false): string[] | undefined {
  const names = ownNamesIn(directory)
  for (const name of names ?? [])
    if (isWithin || (isOurs(name) && !within.includes(name))) fileAt(`${directory}/${name}`)
  return names
}

export const removeInstance = defineStep({
  name: 'remove-instance',
  summary: "Remove an instance's directory: the files that cowhand made, never a base",
  input: () => z.strictObject({ directory: described(AbsolutePath, "the instance's directory") }),
  inspect: async ({ directory }, { instances }) => ({
    names: filesIn(directory),
    bases: await basesUnder(directory, instances),
    inside: within.flatMap((name) => {
      const names = filesIn(`${directory}/${name}`, true)
      return names ? [{ name, names }] : []
    }),
    inUse: fileAt(`${directory}/disk`) !== undefined && (await isInUse(`${directory}/disk`)),
  }),
  plan({ directory }, { names, inside, inUse, bases }): Action[] {
    if (!names) return []
    const strange = inside.flatMap((its) => (its.name === 'tpm' ? its.names.filter((name) => !isTpm(name)) : []))
    const foreign = [...names.filter((name) => !isOurs(name)), ...strange.map((name) => `tpm/${name}`)]
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
    const files = names.filter((name) => !within.includes(name) && name !== 'instance.json')
    return [
      // Their time without users begins now. They are told by the disks, so it comes before these go.
      ...(bases.length > 0
        ? [{ do: 'touch', paths: bases.map(recordOf), what: `the records of its bases` } as const]
        : []),
      ...files.map(remove),
      ...inside.flatMap((its): Action[] => [
        ...its.names.map((name) => remove(`${its.name}/${name}`)),
        { do: 'rmdir', path: `${directory}/${its.name}` },
      ]),
      ...names.filter((name) => name === 'instance.json').map(remove),
      { do: 'rmdir', path: directory },
    ]
  },
})
