import * as z from 'zod/mini'
import { directoryOf, listDirectory } from '../../lib/image/directory.ts'
import { misuse } from '../../lib/job/problem.ts'
import { described, ImageName, NonEmpty } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { removeImage } from '../steps/remove-image.ts'

const nameIn = (image: string): string =>
  ImageName.safeParse(image).success
    ? image
    : misuse(`Cannot remove image "${image}": it is no name or id of an image`, 'see what there is: cowhand image list')

export const imageRemove = definePipeline({
  name: 'image remove',
  summary: 'Remove an image from the store; bases made of it stay',
  positional: ['image'],
  examples: [['cowhand image remove debian --yes', 'without a question']],
  job: z.strictObject({ image: described(NonEmpty, 'name or id of the image') }),
  destroys: ({ image }) => `image "${image}" from the store`,
  look: async ({ image }, settings) =>
    listDirectory(settings).images.find(({ id }) => id === image)?.name ?? nameIn(image),
  calls: (_, name, settings) => [call(removeImage, { directory: directoryOf(settings), name })],
})
