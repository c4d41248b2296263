import { dirname } from 'node:path'
import { z } from 'zod'
import { fileAt, freeSpace, requireSpace } from '../../lib/host/files.ts'
import { checkable, checkImage } from '../../lib/host/qemu-img.ts'
import { recordIn } from '../../lib/image/directory.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { partOf, recordOf, unpackedOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, type Algorithm, Digest, Format, ImageName, type Packing, packers } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const importImage = defineStep({
  name: 'import-image',
  summary: 'Take an image file into the directory store: copy, hash, examine, record',
  input: z.strictObject({
    file: AbsolutePath.describe('image file'),
    store: AbsolutePath.describe('directory of the store'),
    name: ImageName.describe('name it is to have'),
    format: Format.describe('format of the image'),
    packing: z
      .enum(Object.keys(packers) as [Packing, ...Packing[]])
      .optional()
      .describe('how the file is packed'),
    checksum: Digest.optional().describe('what its bytes must have: sha256:HEX or sha512:HEX'),
    properties: z.record(z.string(), z.string()).default({}).describe('kept with it'),
  }),
  locks: ({ name }) => [`image.${name}`],
  inspect: async ({ file, store, name, format, packing }, { image_ceiling }) => {
    const target = `${store}/${name}.${format}${packing ? `.${packing}` : ''}`
    const [record, source, kept] = [recordIn(store, name), fileAt(file), fileAt(target)]
    const { hashFile } = await import('../../lib/image/digest.ts')
    const digest = record && source ? await hashFile(file, record.digest.split(':')[0] as Algorithm, {}) : undefined
    return {
      target,
      record,
      source,
      kept,
      digest,
      free: freeSpace(store),
      ceiling: image_ceiling,
      leftovers: [partOf(target), unpackedOf(target)].filter((path) => fileAt(path)),
    }
  },
  plan({ file, store, name, format, packing, checksum, properties }, found): Action[] {
    const { target, record, source, kept, ceiling } = found
    if (!source) refuse('IMAGE_NOT_FOUND', `Cannot add "${file}": there is no such file`, 'name a file that exists')
    if (record && kept) {
      if (record.digest !== found.digest || record.format !== format)
        refuse(
          'IMAGE_EXISTS',
          `Cannot add "${file}" as "${name}": the store has another image of this name`,
          `choose another --name, or remove the old one: cowhand image remove ${name}`,
        )
      return found.leftovers.map((path) => ({ do: 'remove', path }))
    }
    const inPlace = file === target
    if (kept && !inPlace && !record)
      refuse(
        'NOT_OURS',
        `Cannot add "${file}" as "${name}": "${target}" is there, and was never added`,
        `add that one: cowhand image add ${target}; or move it away`,
      )
    if (!inPlace) requireSpace(source.allocated, found.free, dirname(target))
    const copy = inPlace ? target : partOf(target)
    const content = packing ? unpackedOf(target) : copy
    const expected = checksum ? { digest: checksum } : {}
    const fields = { name, file: target.slice(store.length + 1), format, packing, properties }
    return [
      { do: 'mkdir', path: store, mode: 0o755 },
      inPlace
        ? { do: 'verify', path: file, ...expected }
        : { do: 'copy', from: file, to: copy, size: source.allocated, ...expected },
      ...(packing ? [{ do: 'unpack', from: copy, packing, to: content, limit: ceiling } as const] : []),
      { do: 'examine', path: content, format, ceiling, of: copy },
      ...(checkable.includes(format) ? [run(checkImage(content, format), 'find out whether it is whole')] : []),
      ...(packing ? [{ do: 'remove', path: content } as const] : []),
      { do: 'record', path: recordOf(`${store}/${name}`), of: copy, fields },
      ...(inPlace ? [] : [{ do: 'publish', from: copy, to: target } as const]),
    ]
  },
})
