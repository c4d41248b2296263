import * as z from 'zod/mini'
import { oneLine } from '../../lib/cli/printable.ts'
import { baseAt } from '../../lib/host/bases.ts'
import { findImage } from '../../lib/image/store.ts'
import { baseName, basesOf } from '../../lib/job/layout.ts'
import { defineQuery } from '../../lib/job/query.ts'
import { described, formatSize, NonEmpty } from '../../lib/job/spec.ts'

export const imageShow = defineQuery({
  name: 'image show',
  summary: 'Show an image of the store and its base in the cache',
  positional: ['image'],
  job: z.strictObject({ image: described(NonEmpty, 'name or id of the image') }),
  run: async ({ image: reference }, settings) => {
    const { stamp: _, ...image } = await findImage(reference, {}, settings)
    const path = `${basesOf(settings.instances)}/${await baseName(image.id)}`
    const cached = baseAt(path)
    const lines = [
      ['id', image.id],
      [image.source.startsWith('/') ? 'file' : 'source', image.source],
      ['format', image.packing ? `${image.format}, packed with ${image.packing}` : image.format],
      ['disk', image.virtualSize === undefined ? 'unknown' : formatSize(image.virtualSize)],
      ...(image.minDisk === undefined ? [] : [['wants', `a disk of ${formatSize(image.minDisk)} or more`]]),
      ...(image.owner === undefined ? [] : [['owner', `${image.owner}${image.shared ? ', for everybody' : ''}`]]),
      ['base', cached ? `${path} (${formatSize(cached.allocated)} on disk)` : `${path} (not cached)`],
      ...Object.entries(image.properties).map(([key, value]) => ['property', `${key}=${value}`]),
    ]
    const text = [image.name, ...lines.map(([what, value]) => `  ${`${what}:`.padEnd(10)}${value}`)].map(oneLine)
    return { data: { ...image, base: { path, cached: cached !== undefined } }, text: text.join('\n') }
  },
})
