import { dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, leftoversOf } from '../../lib/host/bases.ts'
import { fileAt, freeSpace, isDirectAt, requireSpace } from '../../lib/host/files.ts'
import { checkable, convertToRaw } from '../../lib/host/qemu-img.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { baseLock, convertedOf, partOf, recordOf, unpackedOf } from '../../lib/job/layout.ts'
import { fail, misuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Digest, described, Format, optional, Packing } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'
import { showUrl } from '../../lib/job/url.ts'

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
    }),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ base, from, format, packing, stamp }, { image_ceiling }) => {
    const found = baseAt(base)
    const [leftovers, file] = [leftoversOf(base), from.startsWith('/') ? fileAt(from) : undefined]
    const free = freeSpace(dirname(base))
    const facts = { base: found, leftovers, file, free, ceiling: image_ceiling }
    if (found) return { ...facts, tool: '', data: 0, isDirect: false }
    const { dataSize } = await import('../../lib/host/qemu-img.ts')
    const { toolVersion } = await import('../../lib/host/ask.ts')
    const isProven = file !== undefined && file.stamp === stamp && !packing
    const data = isProven ? await dataSize(from, format) : (file?.size ?? 0)
    return { ...facts, tool: await toolVersion('qemu-img'), data, isDirect: isDirectAt(dirname(base)) }
  },
  plan({ from, digest, format, packing, base, id, size, stamp }, found): Action[] {
    const remove = found.leftovers.map((path): Action => ({ do: 'remove', path }))
    if (found.base) return remove
    const isLocal = from.startsWith('/')
    if (!isLocal && !/^https?:\/\//.test(from))
      misuse(`Cannot fetch "${from}": it is neither an absolute path nor a URL`, 'give one of these')
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
    const name = isLocal ? from : showUrl(from)
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
    const made = { id: id ?? digest, digest, format, packing, sourceSize: size ?? found.file?.size, tool: found.tool }
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
    actions.push(
      {
        do: 'record',
        path: recordOf(base),
        of: converted,
        fields: { ...made, arguments: format === 'raw' ? [] : convert },
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
