import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { table } from '../../lib/cli/table.ts'
import { disksOf, instanceNames, knownInstance, sayTask } from '../../lib/host/instances.ts'
import type { Task } from '../../lib/job/instance.ts'
import { Problem } from '../../lib/job/problem.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { formatSize } from '../../lib/job/spec.ts'

const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0)

interface Row {
  name: string
  image?: string
  root?: number
  ephemeral?: number | undefined
  swap?: number | undefined
  actualSize?: number
  /** A resize or migration in hand. */
  task?: Task
  problem?: string
}

/** What a row tells of an instance; one that cannot be read must not hide the others. */
async function rowOf(instances: string, name: string): Promise<Row> {
  try {
    const { record, home, task } = knownInstance(instances, name)
    const { root, ephemeral, swap, image } = record
    const disks = await disksOf(instances, home)
    const actualSize = sum(disks.map((disk) => disk.actualSize))
    const [problem] = disks.flatMap((disk) => disk.problem ?? [])
    return {
      ...{ name, image: image.name, root, ephemeral, swap, actualSize },
      ...(task ? { task } : {}),
      ...(problem === undefined ? {} : { problem }),
    }
  } catch (problem) {
    if (problem instanceof Problem) return { name, problem: problem.message }
    throw problem
  }
}

export const list = defineQuery({
  name: 'list',
  summary: 'List the instances',
  job: z.strictObject({}),
  run: async (_, { instances }) => {
    const rows = await Promise.all(instanceNames(instances).map((name) => rowOf(instances, name)))
    const size = (bytes: number | undefined) => (bytes === undefined ? '-' : formatSize(bytes))
    const cells = rows.map((row) => [
      row.name,
      row.image ?? '-',
      size(row.root),
      size(row.ephemeral),
      size(row.swap),
      size(row.actualSize),
    ])
    const problems = rows.flatMap(({ problem }) => problem ?? [])
    const notes = rows.flatMap(({ name, task }) => {
      const { state, remedy } = task ? sayTask(name, task) : {}
      return state === undefined ? [] : [`${name}: ${state}: ${remedy}`]
    })
    const text = rows.length > 0 ? [table(['NAME', 'IMAGE', 'ROOT', 'EPHEMERAL', 'SWAP', 'ON DISK'], cells)] : []
    return {
      data: { instances: rows },
      text: [...text, ...[...notes, ...problems].map(oneLine)].join('\n'),
      ok: problems.length === 0,
    }
  },
})
