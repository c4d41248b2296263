import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { table } from '../../lib/cli/table.ts'
import { namesIn } from '../../lib/host/files.ts'
import { disksOf, instanceNames, knownInstance, sayAbandoned, sayTask } from '../../lib/host/instances.ts'
import { arrivesAt, clearStage, sayMark, stageAt } from '../../lib/host/stage.ts'
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
  /** What waits for a decision, for people. */
  notes?: string[]
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
      notes: [task && sayInHand(name, task), sayAbandoned(record)].filter((note) => note !== undefined),
      ...(problem === undefined ? {} : { problem }),
    }
  } catch (problem) {
    if (problem instanceof Problem) return { name, problem: problem.message }
    throw problem
  }
}

function sayInHand(name: string, task: Task): string {
  const { state, remedy } = sayTask(name, task)
  return `${state}: ${remedy}`
}

/** What is on its way here, or was left on the way by a move that was given up. */
const arriving = (instances: string): string[] =>
  (namesIn(instances) ?? []).flatMap((home) => {
    const stage = `${instances}/${home}`
    if (!home.endsWith('.incoming')) return []
    try {
      const mark = stageAt(stage)?.mark
      return mark ? [`${arrivesAt(home)}: it is arriving ${sayMark(mark)}: ${clearStage(stage, mark.move)}`] : []
    } catch (problem) {
      if (problem instanceof Problem) return [problem.message]
      throw problem
    }
  })

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
    const notes = [
      ...rows.flatMap(({ name, notes = [] }) => notes.map((note) => `${name}: ${note}`)),
      ...arriving(instances),
    ]
    const text = rows.length > 0 ? [table(['NAME', 'IMAGE', 'ROOT', 'EPHEMERAL', 'SWAP', 'ON DISK'], cells)] : []
    return {
      data: { instances: rows.map(({ notes: _, ...row }) => row) },
      text: [...text, ...[...notes, ...problems].map(oneLine)].join('\n'),
      ok: problems.length === 0,
    }
  },
})
