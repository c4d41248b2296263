import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, leftoversOf, planKnown, proofOf } from '../../lib/host/bases.ts'
import { fileAt, freeSpace, isDirectAt, requireSpace } from '../../lib/host/files.ts'
import { checkable, convertToRaw } from '../../lib/host/qemu-img.ts'
import type { Image } from '../../lib/image/image.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { readerVersion } from '../../lib/job/base.ts'
import { baseLock, convertedOf, partOf, recordOf, unpackedOf } from '../../lib/job/layout.ts'
import { fail, misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Digest, described, Format, optional, Packing, Rate } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'
import { AllowWeak, requireStrong, weaknessOf } from '../../lib/job/trust.ts'
import { showSource, showUrl } from '../../lib/job/url.ts'

/** What the step needs to know of an image, and the record keeps. */
export const fromImage = (image: Image) => {
  const { source: from, digest, format, packing, id, size, stamp, name, owner, shared, minDisk } = image
  return { from, digest, format, packing, id, size, stamp, name, owner, shared, 'min-disk': minDisk }
}

export const cacheBase = defineStep({
  name: 'cache-base',
  summary: 'Make a raw base in the cache from an image: fetch, verify, examine, convert, publish',
  input: () =>
    z.strictObject({
      from: described(z.string(), 'image file (absolute path) or http(s) URL'),
      digest: described(Digest, 'what its bytes must have: sha256:HEX or sha512:HEX'),
      format: described(Format, 'format of the image'),
      packing: optional(Packing, 'how the file is packed'),
      base: described(AbsolutePath, 'base that it is to become, in _base'),
      id: optional(z.string(), 'id of the image, for the record'),
      size: optional(z.int(), 'size of the file, in bytes'),
      stamp: optional(z.string(), 'what the file was when the digest was proven'),
      'allow-weak-checksum': AllowWeak,
      name: optional(z.string(), 'what the image is called, for the record'),
      owner: optional(z.string(), 'project that the image belongs to, for the record'),
      shared: optional(z.boolean(), 'the image is for every project, for the record'),
      'min-disk': optional(z.int(), 'the smallest disk that its owner wants it on, bytes, for the record'),
      content: optional(z.boolean(), "record the digest of the base's content as well"),
      bwlimit: optional(Rate, 'bytes per second to fetch at most, such as 50M'),
    }),
  locks: ({ base }) => [baseLock(base)],
  warnings: ({ from, name = showSource(from), digest, 'allow-weak-checksum': allowed }) =>
    weaknessOf({ name, digest }, allowed),
  inspect: async ({ base, from, format, packing, stamp }, { image_ceiling }) => {
    const found = baseAt(base)
    const [leftovers, file] = [leftoversOf(base), from.startsWith('/') ? fileAt(from) : undefined]
    const free = freeSpace(dirname(base))
    const isProven = file !== undefined && file.stamp === stamp && !packing
    const originals = isProven ? { image: { path: from, format, ceiling: image_ceiling } } : {}
    const proof = await proofOf(base, found, originals)
    const facts = { base: found, proof, leftovers, file, free, ceiling: image_ceiling }
    if (found) return { ...facts, data: 0, isDirect: false }
    const { dataSize } = await import('../../lib/host/qemu-img.ts')
    const { requireProgram } = await import('../../lib/host/ask.ts')
    await requireProgram('qemu-img')
    const data = isProven ? await dataSize(from, format) : (file?.size ?? 0)
    return { ...facts, data, isDirect: isDirectAt(dirname(base)) }
  },
  plan(input, found): Action[] {
    const { from, digest, format, packing, base, id, size, stamp, content, bwlimit } = input
    const remove = found.leftovers.map((path): Action => ({ do: 'remove', path }))
    const isLocal = from.startsWith('/')
    const name = showSource(from)
    const { name: title, owner, shared, 'min-disk': minDisk } = input
    requireStrong({ name: title ?? name, digest }, input['allow-weak-checksum'])
    const identity = { id: id ?? digest, name: title, source: name, owner, shared, minDisk }
    if (found.base) {
      const reader = { version: readerVersion, ceiling: found.ceiling }
      return [...remove, ...planKnown(base, found.base, { proof: found.proof, digest, identity, reader, content })]
    }
    if (!isLocal && !/^(https?:\/\/|glance:)/.test(from))
      misuse(`Cannot fetch "${showUrl(from)}": it is neither an absolute path nor a URL`, 'give one of these')
    if (isLocal && !found.file)
      fail(
        'IMAGE_NOT_FOUND',
        `Cannot read image "${from}": there is no such file`,
        'see what the store has: cowhand image list',
      )
    // A download is kept until the base is there, so it needs its space twice, and more when it is packed or compressed.
    const need = isLocal ? found.data : (size ?? 0) * (format === 'raw' ? 1 : 2)
    requireSpace(need, found.free, dirname(base))

    const [part, unpacked, converted] = [partOf(base), unpackedOf(base), convertedOf(base)]
    const actions: Action[] = [{ do: 'mkdir', path: dirname(base), mode: 0o755 }]
    let image = from
    if (!isLocal) {
      image = part
      actions.push({
        do: 'fetch',
        url: from,
        to: part,
        digest,
        ceiling: found.ceiling,
        ...(size === undefined ? {} : { size }),
        ...(bwlimit === undefined ? {} : { rate: bwlimit }),
      })
    } else if (found.file?.stamp !== stamp) actions.push({ do: 'verify', path: from, digest })
    // Only proven bytes are unpacked, and only examined ones meet qemu-img.
    if (packing) {
      const to = format === 'raw' ? converted : unpacked
      actions.push({ do: 'unpack', from: image, packing, to, limit: found.ceiling, name })
      image = to
    }
    actions.push({ do: 'examine', path: image, format, ceiling: found.ceiling, name })
    if (checkable.includes(format)) actions.push({ do: 'check', path: image, format, name })
    const made = { ...identity, digest, format, packing, sourceSize: size ?? found.file?.size }
    // Of a download only its own size is known beforehand.
    const known = isLocal ? found.data : size
    const convert = convertToRaw(image, format, converted, found.isDirect)
    if (format !== 'raw')
      actions.push(
        run(convert, `convert "${name}"`, {
          writes: converted,
          works: image,
          ...(known === undefined ? {} : { space: known }),
        }),
      )
    else if (image === part) actions.push({ do: 'rename', from: part, to: converted })
    else if (image !== converted) actions.push({ do: 'copy', from: image, to: converted, size: found.data, digest })
    if (content) actions.push({ do: 'measure', path: converted, proven: true })
    actions.push(
      {
        do: 'record',
        path: recordOf(base),
        of: converted,
        fields: { ...made, arguments: format === 'raw' ? [] : convert, reader: readerVersion },
        by: 'qemu-img',
      },
      { do: 'publish', from: converted, to: base },
    )
    // Last, so that what was downloaded is not lost before the base is there.
    // With it goes what another way to the same base has left (a download that was given up, say).
    const spent = [...(packing && format !== 'raw' ? [unpacked] : []), ...(isLocal ? [] : [part])]
    const stale = found.leftovers.filter((path) => [unpacked, part].includes(path) && !spent.includes(path))
    for (const path of [...spent, ...stale]) actions.push({ do: 'remove', path })
    return actions
  },
})
