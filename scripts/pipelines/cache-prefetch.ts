import * as z from 'zod/mini'
import type { Image } from '../../lib/image/image.ts'
import { findImage } from '../../lib/image/store.ts'
import { baseOfDelta } from '../../lib/image/way.ts'
import { baseName, basesOf } from '../../lib/job/layout.ts'
import { misuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { Digest, described, Format, NonEmpty, optional, Rate } from '../../lib/job/spec.ts'
import { call, definePipeline, eachOf, failing } from '../../lib/job/step.ts'
import { AllowWeak } from '../../lib/job/trust.ts'
import { cacheBase, fromImage } from '../steps/cache-base.ts'

export const cachePrefetch = definePipeline({
  name: 'cache prefetch',
  summary: 'Make the bases of images before they are needed',
  positional: ['image'],
  examples: [
    ['cowhand cache prefetch debian ubuntu --bwlimit 50M', 'for cron: what is there is not fetched again'],
    ['cowhand cache prefetch https://example.org/debian.qcow2 --checksum sha256:HEX', 'from a web server'],
  ],
  independent: true,
  job: z.strictObject({
    image: described(
      z.array(NonEmpty).check(z.minLength(1, 'is empty')),
      'names or ids of images in the store, or http(s) URLs',
    ),
    'image-format': optional(Format, 'format of an image whose name does not say it; for a single one'),
    checksum: optional(Digest, 'what the image must have: sha256:HEX or sha512:HEX; for a single one'),
    'allow-weak-checksum': AllowWeak,
    bwlimit: optional(Rate, 'bytes per second to fetch at most, such as 50M'),
  }),
  look: async ({ image: references, checksum, 'image-format': format }, settings) => {
    const given = checksum === undefined ? '--image-format' : '--checksum'
    if (references.length > 1 && (checksum ?? format) !== undefined)
      misuse(`Cannot use ${given} for ${references.length} images: it is of one`, 'prefetch that one by itself')
    return eachOf(references, async (reference) => {
      const image = await findImage(reference, { checksum, format }, settings)
      const base = `${basesOf(settings.instances)}/${baseOfDelta(image) ?? (await baseName(image.id))}`
      // Of a delta snapshot it is the base that is worth having: the rest goes into the disk of one instance.
      const whole = baseOfDelta(image) === undefined ? image : await wholeOf(image, base, settings)
      return whole ? [{ image: whole, base }] : []
    })
  },
  reasons: (_, { found }) => found.map(({ image, base }) => `${image.name}: base ${base}`),
  calls: ({ bwlimit, 'allow-weak-checksum': weak }, { found, problems }) => [
    ...found.map(({ image, base }) =>
      call(cacheBase, { ...fromImage(image), base, content: true, bwlimit, 'allow-weak-checksum': weak }),
    ),
    ...problems.map(([reference, problem]) => failing(cacheBase.name, reference, problem)),
  ],
})

const wholeOf = async (delta: Image, base: string, settings: Settings): Promise<Image | undefined> =>
  (await import('../../lib/image/delta.ts')).findBaseOf(delta, base, settings)
