import * as z from 'zod/mini'
import { baseAt } from '../../lib/host/bases.ts'
import { disksOf, requireInstance } from '../../lib/host/instances.ts'
import { instanceOf } from '../../lib/job/layout.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { described, formatSize, InstanceName } from '../../lib/job/spec.ts'

export const show = defineQuery({
  name: 'show',
  summary: 'Show an instance: what was wished for, its disks and what they stand on',
  positional: ['name'],
  job: z.strictObject({ name: described(InstanceName, 'name of the instance') }),
  run: async ({ name }, { instances }) => {
    const { version: _, ...record } = requireInstance(instances, name)
    const disks = disksOf(instances, name).map((disk) => {
      const base = disk.backing === undefined ? undefined : baseAt(disk.backing)
      return { ...disk, ...(base ? { backingVirtualSize: base.size, backingActualSize: base.allocated } : {}) }
    })
    const wish = [
      ['image', record.image.name],
      ['image id', record.image.id],
      ['uuid', record.uuid],
      ['directory', instanceOf(instances, name)],
      ['os type', record['os-type']],
      ['memory', record.memory === undefined ? undefined : formatSize(record.memory)],
      ['vcpus', record.vcpus],
      ['network', record.network],
    ]
      .filter(([, value]) => value !== undefined)
      .map(([what, value]) => `  ${`${what}:`.padEnd(11)}${value}`)
    const chains = disks.flatMap((disk) => [
      `  ${disk.name} (${disk.format}, ${formatSize(disk.virtualSize)}, ${formatSize(disk.actualSize)} on disk)`,
      ...(disk.backing === undefined ? [] : [`  └─ ${disk.backing} (${baseFacts(disk)})`]),
    ])
    return { data: { ...record, disks }, text: [name, ...wish, ...chains].join('\n') }
  },
})

const baseFacts = (disk: { backingVirtualSize?: number; backingActualSize?: number }): string =>
  disk.backingVirtualSize === undefined
    ? 'MISSING: the guest cannot start'
    : `raw, ${formatSize(disk.backingVirtualSize)}, ${formatSize(disk.backingActualSize ?? 0)} on disk`
