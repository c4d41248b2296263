import * as z from 'zod/mini'
import { fileAt } from '../../lib/host/files.ts'
import { recordIn } from '../../lib/image/directory.ts'
import type { Action } from '../../lib/job/action.ts'
import { imageLock, recordOf } from '../../lib/job/layout.ts'
import { AbsolutePath, described, ImageName } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const removeImage = defineStep({
  name: 'remove-image',
  summary: 'Remove an image from the directory store; bases made of it stay',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, 'directory of the store'),
      name: described(ImageName, 'name of the image'),
    }),
  locks: ({ directory, name }) => [imageLock(directory, name)],
  inspect: async ({ directory, name }) => {
    const record = recordIn(directory, name)
    return { record, file: record && fileAt(`${directory}/${record.file}`) && `${directory}/${record.file}` }
  },
  plan({ directory, name }, { record, file }): Action[] {
    if (!record) return []
    // The record goes last: what was cut off is still known, and the same command goes on.
    return [
      ...(file ? [{ do: 'remove', path: file } as const] : []),
      { do: 'remove', path: recordOf(`${directory}/${name}`) },
    ]
  },
})
