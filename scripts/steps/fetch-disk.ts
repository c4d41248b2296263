import { basename, dirname } from 'node:path'
import * as z from 'zod/mini'
import { baseAt, requireProven } from '../../lib/host/bases.ts'
import { fileAt, freeSpace, ownNamesIn, requireSpace } from '../../lib/host/files.ts'
import { diskFoundAt } from '../../lib/host/pins.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { baseLock, partOf, recordOf, unpackedOf } from '../../lib/job/layout.ts'
import { requireSame } from '../../lib/job/overlay.ts'
import { fail, refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, Digest, described, optional, Packing } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'
import { AllowWeak, requireStrong, weaknessOf } from '../../lib/job/trust.ts'
import { showSource } from '../../lib/job/url.ts'

export const fetchDisk = defineStep({
  name: 'fetch-disk',
  summary: 'Make a disk from a delta snapshot: fetch its copy-on-write part, examine it, put it on our own base',
  input: () =>
    z.strictObject({
      disk: described(AbsolutePath, 'overlay to make'),
      from: described(z.string(), 'delta snapshot: file (absolute path), http(s) URL or glance:ID'),
      digest: described(Digest, 'what its bytes must have: sha256:HEX or sha512:HEX'),
      packing: optional(Packing, 'how the file is packed'),
      base: described(AbsolutePath, 'raw base that it is to stand on, and the only one that it may name'),
      size: described(Bytes, 'size that the guest is to see'),
      'allow-weak-checksum': AllowWeak,
      'file-size': optional(z.int(), 'size of the file, in bytes'),
      stamp: optional(z.string(), 'what the file was when the digest was proven'),
    }),
  // Under the lock of its base, so that a cleaner cannot take the base before the overlay is seen to need it.
  locks: ({ base }) => [baseLock(base)],
  warnings: ({ from, digest, 'allow-weak-checksum': allowed }) =>
    weaknessOf({ name: showSource(from), digest }, allowed),
  inspect: async ({ disk, from, base }, { image_ceiling }, ahead) => ({
    disk: await diskFoundAt(disk),
    file: from.startsWith('/') ? fileAt(from) : undefined,
    base: baseAt(base),
    isComing: ahead.has(base),
    isRenewed: ahead.has(recordOf(base)),
    directory: ahead.has(dirname(disk)) || ownNamesIn(dirname(disk)) !== undefined,
    leftovers: [partOf(disk), unpackedOf(disk)].filter((path) => fileAt(path)),
    free: freeSpace(dirname(disk)),
    ceiling: image_ceiling,
  }),
  plan(input, found): Action[] {
    const { disk, from, digest, packing, base, size, 'file-size': fileSize, stamp } = input
    requireStrong({ name: showSource(from), digest }, input['allow-weak-checksum'])
    const remove = (path: string): Action => ({ do: 'remove', path })
    if (found.disk) {
      requireSame(disk, base, size, found.disk)
      return found.leftovers.map(remove)
    }
    if (found.base) requireProven(base, found.base, found.isRenewed)
    else if (!found.isComing)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot put "${disk}" on base "${base}": there is no such base`,
        'make it: cowhand step cache-base',
      )
    const isLocal = from.startsWith('/')
    if (isLocal && !found.file)
      fail(
        'IMAGE_NOT_FOUND',
        `Cannot read image "${from}": there is no such file`,
        'see what the store has: cowhand image list',
      )
    requireSpace(found.file?.allocated ?? fileSize ?? 0, found.free, dirname(disk))
    const [part, unpacked] = [partOf(disk), unpackedOf(disk)]
    const [name, content] = [showSource(from), packing ? unpacked : part]
    const actions: Action[] = found.directory ? [] : [{ do: 'mkdir', path: dirname(disk), mode: 0o755 }]
    if (!isLocal) {
      const known = fileSize === undefined ? {} : { size: fileSize }
      actions.push({ do: 'fetch', url: from, to: part, digest, ceiling: found.ceiling, ...known })
    } else if (!packing) actions.push({ do: 'copy', from, to: part, size: found.file?.allocated ?? 0, digest })
    else if (found.file?.stamp !== stamp) actions.push({ do: 'verify', path: from, digest })
    if (packing)
      actions.push({ do: 'unpack', from: isLocal ? from : part, packing, to: unpacked, limit: found.ceiling, name })
    actions.push(
      { do: 'examine', path: content, format: 'qcow2', ceiling: found.ceiling, name, backing: basename(base) },
      // From here on nothing in it leads to any file but a base of ours, and qemu-img may look at it.
      { do: 'rebase', path: content, base, size, name },
      run(['qemu-img', 'resize', '-q', '-f', 'qcow2', content, String(size)], `grow "${content}"`, { writes: content }),
      { do: 'check', path: content, format: 'qcow2', name },
      { do: 'publish', from: content, to: disk, mode: 0o600 },
    )
    for (const path of [part, unpacked])
      if (path !== content && (packing || found.leftovers.includes(path))) actions.push(remove(path))
    return actions
  },
})
