import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { type Base, baseAt } from '../../lib/host/bases.ts'
import { disksOf, knownInstance, sayAbandoned, sayTask } from '../../lib/host/instances.ts'
import { instanceOf } from '../../lib/job/layout.ts'
import { defineQuery } from '../../lib/job/query.ts'
import type { DiskResult } from '../../lib/job/result.ts'
import { described, formatSize, InstanceName } from '../../lib/job/spec.ts'

export const show = defineQuery({
  name: 'show',
  summary: 'Show an instance: what was wished for, its disks and what they stand on',
  positional: ['name'],
  job: z.strictObject({ name: described(InstanceName, 'name of the instance') }),
  run: async ({ name }, { instances }) => {
    const known = knownInstance(instances, name)
    const { version: _, ...record } = known.record
    const task = known.task && sayTask(name, known.task)
    const disks = (await disksOf(instances, known.home)).map((disk) => {
      const base = disk.backing === undefined ? undefined : baseAt(disk.backing)
      const facts: BaseFacts = base ? factsOf(base) : {}
      return { ...disk, ...facts }
    })
    const wish = [
      ['image', record.image.name],
      ['image id', record.image.id],
      ['uuid', record.uuid],
      ['in hand', task && `${task.state}: ${task.remedy}`],
      ['left', sayAbandoned(known.record)],
      ['directory', instanceOf(instances, known.home)],
      ['os type', record['os-type']],
      ['memory', record.memory === undefined ? undefined : formatSize(record.memory)],
      ['vcpus', record.vcpus],
      ['network', record.network],
    ]
      .filter(([, value]) => value !== undefined)
      .map(([what, value]) => `  ${`${what}:`.padEnd(11)}${value}`)
    const chains = disks.flatMap((disk) => [
      `  ${disk.name} (${sizesOf(disk)})`,
      ...(disk.backing === undefined ? [] : [`  └─ ${disk.backing} (${baseFacts(disk)})`]),
      ...(disk.problem === undefined ? [] : [`  └─ ${disk.problem}`]),
    ])
    const ok = disks.every(({ problem }) => problem === undefined)
    const data = { ...record, ...(known.task ? { task: known.task } : {}), disks }
    return { data, text: [name, ...wish, ...chains].map(oneLine).join('\n'), ok }
  },
})

const sizesOf = ({ format, virtualSize, actualSize }: DiskResult): string =>
  [
    format === 'unknown' ? 'format unknown' : format,
    ...(virtualSize === undefined ? [] : [formatSize(virtualSize)]),
    `${formatSize(actualSize)} on disk`,
  ].join(', ')

interface BaseFacts {
  backingVirtualSize?: number
  backingActualSize?: number
  /** Why it is quarantined. */
  backingProblem?: string
}

const factsOf = ({ size, allocated, record }: Base): BaseFacts => ({
  backingVirtualSize: size,
  backingActualSize: allocated,
  ...(record?.quarantined ? { backingProblem: record.quarantined.why } : {}),
})

const baseFacts = (disk: BaseFacts): string =>
  disk.backingVirtualSize === undefined
    ? 'MISSING: the guest cannot start'
    : [
        `raw, ${formatSize(disk.backingVirtualSize)}, ${formatSize(disk.backingActualSize ?? 0)} on disk`,
        ...(disk.backingProblem === undefined ? [] : [`QUARANTINED: ${disk.backingProblem}`]),
      ].join('; ')
