import * as z from 'zod/mini'
import { baseAt } from '../../lib/host/bases.ts'
import { ownNamesIn, textAt } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import type { Action } from '../../lib/job/action.ts'
import { firstDifference, type InstanceRecord } from '../../lib/job/instance.ts'
import { diskNames, partOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import {
  AbsolutePath,
  Bytes,
  described,
  exactSize,
  InstanceName,
  OsType,
  optional,
  Uuid,
  withDefault,
} from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** Of these only the digest is kept. */
const madeOf: Record<string, string> = {
  seed: '--user-data, --meta-data or --network-config',
  xml: '--xml',
}

export const recordInstance = defineStep({
  name: 'record-instance',
  summary: "Write down what an instance is to be (instance.json), and its disks' formats (disk.info)",
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory"),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      'image-id': described(z.string(), 'id of its image'),
      'image-name': described(z.string(), 'what the image was called'),
      root: described(Bytes, 'size of the root disk'),
      base: optional(AbsolutePath, 'what the root disk is to stand on: nothing is written down that cannot be made'),
      ephemeral: optional(Bytes, 'size of the ephemeral disk'),
      'ephemeral-format': optional(z.string(), 'file system of the ephemeral disk'),
      swap: optional(Bytes, 'size of the swap disk'),
      'os-type': withDefault(OsType, 'linux', 'operating system of the guest'),
      memory: optional(Bytes, 'memory of the guest'),
      vcpus: optional(z.int(), 'processors of the guest'),
      network: optional(z.string(), 'network of the guest'),
      seed: optional(z.string(), 'digest of the files of the seed'),
      xml: optional(z.string(), 'digest of the file given with --xml'),
      disks: described(z.array(z.enum(diskNames)), 'files of the disks that it has, such as disk'),
    }),
  inspect: async ({ directory, base }) => ({
    record: instanceAt(directory),
    formats: textAt(`${directory}/disk.info`),
    names: ownNamesIn(directory),
    base: base === undefined ? undefined : baseAt(base),
  }),
  plan(
    { directory, disks, 'image-id': id, 'image-name': image, base: _, ...wish },
    { record, formats, names, base },
  ): Action[] {
    const wanted: InstanceRecord = { version: 1, image: { id, name: image }, ...wish }
    const write = (name: string, value: unknown): Action => ({
      do: 'write',
      path: `${directory}/${name}`,
      text: `${JSON.stringify(value, null, 2)}\n`,
      mode: 0o644,
    })
    // Pinned for ever: what a guest writes into its disk can never change what the disk is taken for (S74).
    const pinned = write('disk.info', Object.fromEntries(disks.map((disk) => [`${directory}/${disk}`, 'qcow2'])))
    if (record) {
      const difference = firstDifference(record, wanted)
      if (difference) {
        const { what } = difference
        const files = madeOf[what]
        if (files)
          refuse(
            'INSTANCE_DIFFERS',
            `Cannot create "${wish.name}": it exists, made with another ${files}`,
            `give the same as then, or remove it: cowhand delete ${wish.name}`,
          )
        const [was, wished] = [difference.was, difference.wanted].map((value) =>
          typeof value === 'number' && what !== 'vcpus' ? exactSize(value) : value,
        )
        const has = was === undefined ? `without ${what}` : `with ${what} ${was}`
        refuse(
          'INSTANCE_DIFFERS',
          `Cannot create "${wish.name}": it exists ${has}${was === undefined || wished === undefined ? '' : `, not ${wished}`}`,
          `ask for what it has (cowhand show ${wish.name}), or remove it: cowhand delete ${wish.name}`,
        )
      }
      return formats === undefined ? [pinned] : []
    }
    const ours = ['instance.json', 'disk.info'].map(partOf)
    const foreign = names?.filter((name) => !ours.includes(name) && name !== 'disk.info') ?? []
    if (foreign.length > 0)
      refuse(
        'NOT_OURS',
        `Cannot create "${wish.name}": "${directory}" holds ${foreign[0]}, which cowhand did not make`,
        'choose another name, or look at it and move it away',
      )
    // Of many images the size is known only when they are a base.
    if (base && base.size > wish.root)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot create "${wish.name}" with --root ${exactSize(wish.root)}: image "${image}" has ${exactSize(base.size)}`,
        `ask for at least that: --root ${exactSize(base.size)}`,
      )
    return [
      ...(names ? [] : [{ do: 'mkdir', path: directory, mode: 0o755 } as const]),
      pinned,
      write('instance.json', wanted),
    ]
  },
})
