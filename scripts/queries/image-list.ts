import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { table } from '../../lib/cli/table.ts'
import { listImages } from '../../lib/image/store.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { formatSize } from '../../lib/job/spec.ts'

export const imageList = defineQuery({
  name: 'image list',
  summary: 'List the images of the store',
  job: z.strictObject({}),
  run: async (_, settings) => {
    const { images, problems } = await listImages(settings)
    const rows = images.map((image) => [
      image.name,
      image.packing ? `${image.format}.${image.packing}` : image.format,
      image.virtualSize === undefined ? '-' : formatSize(image.virtualSize),
      image.size === undefined ? '-' : formatSize(image.size),
      image.id,
    ])
    const text = rows.length > 0 ? [table(['NAME', 'FORMAT', 'DISK', 'FILE', 'ID'], rows)] : []
    return {
      data: { images, problems },
      text: [...text, ...problems.map(oneLine)].join('\n'),
      ok: problems.length === 0,
    }
  },
})
