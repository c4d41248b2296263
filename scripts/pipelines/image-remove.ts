import { z } from 'zod'
import { directoryOf, listDirectory } from '../../lib/image/directory.ts'
import { ImageName } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { removeImage } from '../steps/remove-image.ts'

export const imageRemove = definePipeline({
  name: 'image remove',
  summary: 'Remove an image from the store; bases made of it stay',
  positional: ['image'],
  examples: [['cowhand image remove debian --yes', 'without a question']],
  job: z.strictObject({ image: z.string().min(1, 'is empty').describe('name or id of the image') }),
  destroys: ({ image }) => `image "${image}" from the store`,
  look: async ({ image }, settings) =>
    listDirectory(settings).find(({ id }) => id === image)?.name ?? ImageName.parse(image),
  calls: (_, name, settings) => [call(removeImage, { store: directoryOf(settings), name })],
})
