import { basename, resolve } from 'node:path'
import * as z from 'zod/mini'
import { directoryOf } from '../../lib/image/directory.ts'
import { declaredBy, formatOf } from '../../lib/image/image.ts'
import { misuse } from '../../lib/job/problem.ts'
import { Digest, described, FilePath, Format, ImageName, optional } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { AllowWeak } from '../../lib/job/trust.ts'
import { importImage } from '../steps/import-image.ts'

export const imageAdd = definePipeline({
  name: 'image add',
  summary: 'Add an image file to the store',
  positional: ['file'],
  examples: [
    ['cowhand image add debian-12.qcow2 --name debian', 'as "debian"'],
    ['cowhand image add disk.img --format raw --checksum sha256:HEX', 'proven against its checksum'],
  ],
  job: z.strictObject({
    file: described(FilePath, 'image file, also packed: .gz .xz .zst .bz2'),
    name: optional(ImageName, "name it is to have [the file's]"),
    format: optional(Format, "format of the image [by the file's name]"),
    checksum: optional(Digest, 'what its bytes must have: sha256:HEX or sha512:HEX'),
    'allow-weak-checksum': AllowWeak,
    property: optional(
      z.array(z.string().check(z.regex(/^(?!__proto__=)[A-Za-z0-9_.:-]+=\P{Cc}*$/u, 'is not KEY=VALUE, in one line'))),
      'KEY=VALUE to keep with it; may be repeated',
    ),
  }),
  look: async () => undefined,
  calls(job, _, settings) {
    const file = resolve(job.file)
    const { stem, packing } = declaredBy(basename(file))
    const properties = Object.fromEntries(
      (job.property ?? []).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
    )
    const format = formatOf(basename(file), job.format, '--format')
    const name = job.name ?? stem
    if (!ImageName.safeParse(name).success)
      misuse(`Cannot add "${file}" as "${name}": that is no name for an image`, 'choose one, such as --name debian')
    return [
      call(importImage, {
        file,
        directory: directoryOf(settings),
        name,
        format,
        packing,
        checksum: job.checksum,
        'allow-weak-checksum': job['allow-weak-checksum'],
        properties,
      }),
    ]
  },
})
