import * as z from 'zod/mini'
import { table } from '../../lib/cli/table.ts'
import { listDirectory } from '../../lib/image/directory.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { formatSize } from '../../lib/job/spec.ts'

export const imageList = defineQuery({
  name: 'image list',
  summary: 'List the images of the store',
  job: z.strictObject({}),
  run: async (_, settings) => {
    const { images, problems } = listDirectory(settings)
    const rows = images.map((image) => [
      image.name,
      image.packing ? `${image.format}.${image.packing}` : image.format,
      image.virtualSize === undefined ? '-' : formatSize(image.virtualSize),
      image.size === undefined ? '-' : formatSize(image.size),
      image.id,
    ])
    const text = rows.length > 0 ? [table(['NAME', 'FORMAT', 'DISK', 'FILE', 'ID'], rows)] : []
    return { data: { images, problems }, text: [...text, ...problems].join('\n'), ok: problems.length === 0 }
  },
})
