import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { fileAt, freeSpace, requireSpace } from '../../lib/host/files.ts'
import { checkable } from '../../lib/host/qemu-img.ts'
import { recordIn } from '../../lib/image/directory.ts'
import type { ImageRecord } from '../../lib/image/image.ts'
import { baseOfDelta } from '../../lib/image/way.ts'
import type { Action } from '../../lib/job/action.ts'
import { imageLock, partOf, recordOf, unpackedOf } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import {
  AbsolutePath,
  algorithmOf,
  Digest,
  described,
  Format,
  ImageName,
  optional,
  Packing,
  withDefault,
} from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'
import { AllowWeak, requireStrong, weaknessOf } from '../../lib/job/trust.ts'

const nameTheFile = (file: string): string => `name the file itself: readlink -f ${file}`

type Facts = Pick<ImageRecord, 'format' | 'packing' | 'properties'> & { digest: string | undefined }

/** What the store has under the name instead, or undefined. */
function differenceOf(known: ImageRecord, wanted: Facts): string | undefined {
  if (known.digest !== wanted.digest) return 'another image of this name'
  if (known.format !== wanted.format || known.packing !== wanted.packing) return `it as ${known.format}`
  const keys = Object.keys({ ...known.properties, ...wanted.properties })
  const other = keys.find((key) => known.properties[key] !== wanted.properties[key])
  return other === undefined ? undefined : `it with another property ${other}`
}

export const importImage = defineStep({
  name: 'import-image',
  summary: 'Take an image file into the directory store: copy, hash, examine, record',
  input: () =>
    z.strictObject({
      file: described(AbsolutePath, 'image file'),
      directory: described(AbsolutePath, 'directory of the store'),
      name: described(ImageName, 'name it is to have'),
      format: described(Format, 'format of the image'),
      packing: optional(Packing, 'how the file is packed'),
      checksum: optional(Digest, 'what its bytes must have: sha256:HEX or sha512:HEX'),
      'allow-weak-checksum': AllowWeak,
      properties: withDefault(z.record(z.string(), z.string()), {}, 'kept with it'),
    }),
  locks: ({ directory, name }) => [imageLock(directory, name)],
  warnings: ({ file, checksum, 'allow-weak-checksum': allowed }) =>
    checksum === undefined ? [] : weaknessOf({ name: file, digest: checksum }, allowed),
  inspect: async ({ file, directory, name, format, packing, checksum }, { image_ceiling }) => {
    const target = `${directory}/${name}.${format}${packing ? `.${packing}` : ''}`
    const [record, source, kept] = [recordIn(directory, name), fileAt(file, nameTheFile(file)), fileAt(target)]
    const known = record && fileAt(`${directory}/${record.file}`) ? record : undefined
    const wanted = [known?.digest, checksum].flatMap((digest) => (digest === undefined ? [] : algorithmOf(digest)))
    const { digestsOf } = await import('../../lib/image/digest.ts')
    const digests = known && source ? await digestsOf(file, wanted) : []
    return {
      target,
      record,
      known,
      source,
      kept,
      digest: digests[0],
      proof: checksum && digests.length > 0 ? digests.at(-1) : checksum,
      free: freeSpace(directory),
      ceiling: image_ceiling,
      leftovers: [partOf(target), unpackedOf(target)].filter((path) => fileAt(path)),
    }
  },
  plan({ file, directory, name, format, packing, checksum, properties, ...allow }, found): Action[] {
    if (checksum) requireStrong({ name: file, digest: checksum }, allow['allow-weak-checksum'])
    const { target, record, known, source, kept, ceiling } = found
    if (!source) refuse('IMAGE_NOT_FOUND', `Cannot add "${file}": there is no such file`, 'name a file that exists')
    if (checksum !== found.proof)
      refuse(
        'CHECKSUM_MISMATCH',
        `Cannot use "${file}": its digest is ${found.proof}, expected ${checksum}`,
        'get the file again, or ask its maker for the right checksum',
      )
    const inPlace = file === target
    // The store's own file, replaced behind our back: to add it again is to say that it is meant.
    if (known && !(inPlace && known.digest !== found.digest)) {
      const difference = differenceOf(known, { digest: found.digest, format, packing, properties })
      if (difference)
        refuse(
          'IMAGE_EXISTS',
          `Cannot add "${file}" as "${name}": the store has ${difference}`,
          `choose another --name, or remove the old one: cowhand image remove ${name}`,
        )
      return found.leftovers.map((path) => ({ do: 'remove', path }))
    }
    if (kept && !inPlace && !record)
      refuse(
        'NOT_OURS',
        `Cannot add "${file}" as "${name}": "${target}" is there, and was never added`,
        `add that one: cowhand image add ${target}; or move it away`,
      )
    if (!inPlace) requireSpace(source.allocated, found.free, dirname(target))
    const copy = inPlace ? target : partOf(target)
    const content = packing ? unpackedOf(target) : copy
    const backing = baseOfDelta({ name, properties })
    const expected = checksum ? { digest: checksum } : {}
    const fields = { name, file: target.slice(directory.length + 1), format, packing, properties }
    return [
      { do: 'mkdir', path: directory, mode: 0o755, operators: true },
      inPlace
        ? { do: 'verify', path: file, ...expected }
        : { do: 'copy', from: file, to: copy, size: source.allocated, ...expected },
      ...(packing ? [{ do: 'unpack', from: copy, packing, to: content, limit: ceiling, name: file } as const] : []),
      { do: 'examine', path: content, format, ceiling, of: copy, name: file, ...(backing ? { backing } : {}) },
      ...(checkable.includes(format) ? [{ do: 'check', path: content, format, name: file } as const] : []),
      ...(packing ? [{ do: 'remove', path: content } as const] : []),
      { do: 'record', path: recordOf(`${directory}/${name}`), of: copy, fields },
      ...(inPlace ? [] : [{ do: 'publish', from: copy, to: target } as const]),
    ]
  },
})
