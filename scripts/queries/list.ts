import { z } from 'zod'
import { table } from '../../lib/cli/table.ts'
import { disksOf, instanceAt, instanceNames } from '../../lib/host/instances.ts'
import { instanceOf } from '../../lib/job/layout.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { formatSize } from '../../lib/job/spec.ts'

const sum = (numbers: number[]): number => numbers.reduce((total, number) => total + number, 0)

export const list = defineQuery({
  name: 'list',
  summary: 'List the instances',
  job: z.strictObject({}),
  run: async (_, { instances }) => {
    const rows = instanceNames(instances).flatMap((name) => {
      const record = instanceAt(instanceOf(instances, name))
      if (!record) return []
      const disks = disksOf(instances, name)
      const { root, ephemeral, swap, image } = record
      return [{ name, image: image.name, root, ephemeral, swap, actualSize: sum(disks.map((disk) => disk.actualSize)) }]
    })
    const size = (bytes: number | undefined) => (bytes === undefined ? '-' : formatSize(bytes))
    const cells = rows.map((row) => [
      row.name,
      row.image,
      size(row.root),
      size(row.ephemeral),
      size(row.swap),
      size(row.actualSize),
    ])
    const text = rows.length > 0 ? table(['NAME', 'IMAGE', 'ROOT', 'EPHEMERAL', 'SWAP', 'ON DISK'], cells) : ''
    return { data: { instances: rows }, text }
  },
})
