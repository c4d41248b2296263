import { closeSync, constants, openSync } from 'node:fs'
import { basename } from 'node:path'
import { baseAt } from '../host/bases.ts'
import { openPart } from '../host/files.ts'
import { baseName } from '../job/layout.ts'
import { refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { exactSize } from '../job/spec.ts'
import type { Image } from './image.ts'
import { readQcow2 } from './qcow2.ts'
import { isBareExt, rebaseHeader } from './qcow2-write.ts'
import { baseOfDelta, makeFull } from './way.ts'

// A delta snapshot is an image of which only the copy-on-write part was uploaded. It names its base twice: in the
// property base_image_id_sha1, and as its backing file. Both are the word of whoever uploaded it.

/**
 * The image that a delta's base is made of. Undefined where the store has it no more: then the base itself must be in
 * the cache, and its record vouches for what it is.
 * @param base path that the base has, or is to have
 * @throws {Problem} IMAGE_REJECTED where the delta may not stand on it; as findBaseImage
 */
export async function findBaseOf(delta: Image, base: string, settings: Settings): Promise<Image | undefined> {
  const { findBaseImage } = await import('./store.ts')
  const sha1 = basename(base)
  const found = await findBaseImage(sha1, settings)
  if (found && baseOfDelta(found) !== undefined)
    refuse('IMAGE_REJECTED', `Cannot use image "${delta.name}": its base "${found.name}" is a delta itself`, makeFull)
  const known = found ?? baseAt(base)?.record
  if (!known)
    refuse(
      'IMAGE_NOT_FOUND',
      `Cannot use image "${delta.name}": the image of its base ${sha1} is not in the store, and the base not in the cache`,
      'add that image again, or use an image that holds the whole disk',
    )
  // What the record says counts only as far as it belongs to the name.
  if (!known.id || (await baseName(known.id)) !== sha1)
    refuse('IMAGE_REJECTED', `Cannot use image "${delta.name}": nothing proves what its base ${sha1} is`, makeFull)
  // Anybody can upload a delta that names a base which is in the cache because of another project.
  if (delta.owner !== undefined && known.owner !== delta.owner && known.shared !== true)
    refuse(
      'IMAGE_REJECTED',
      `Cannot use image "${delta.name}": its base belongs to another project`,
      'have the image of its base made public or community, or use an image that holds the whole disk',
    )
  return found
}

/**
 * Make an examined delta an overlay on our own base: what its header said of a backing file is gone afterwards.
 * @param size that the disk is to have, bytes
 * @param name what the operator calls the delta
 * @throws {Problem} DISK_TOO_SMALL, IMAGE_REJECTED, UNSUPPORTED
 */
export function rebase(path: string, base: string, size: number, name: string): void {
  const header = readQcow2(path)
  const below = baseAt(base)
  if (!header || !below) throw new TypeError('rebase comes after examine, and after its base')
  if (header.virtualSize > size)
    refuse(
      'DISK_TOO_SMALL',
      `Cannot make a disk of ${exactSize(size)} from image "${name}": it has ${exactSize(header.virtualSize)}`,
      `ask for at least that: --root ${exactSize(header.virtualSize)}`,
    )
  // Grown, it would show what the base has behind its end, which no guest ever saw there.
  if (header.virtualSize < below.size)
    refuse('IMAGE_REJECTED', `Cannot use image "${name}": it is smaller than its base`, makeFull)
  const wasSized = header.backing !== undefined && /_[0-9]+$/.test(header.backing)
  const fd = openSync(base, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    if (wasSized && isBareExt(fd))
      refuse(
        'UNSUPPORTED',
        `Cannot use image "${name}": it stood on a larger copy of its base, in which the file system was grown`,
        makeFull,
      )
  } finally {
    closeSync(fd)
  }
  const part = openPart(path)
  try {
    rebaseHeader(part, path, header, base)
  } finally {
    closeSync(part)
  }
}
