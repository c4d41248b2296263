import { refuse } from '../job/problem.ts'
import type { Image } from './image.ts'

/** What the choice of the way depends on. */
export interface WayFacts {
  /** The image's property `image_type`; undefined when its metadata could not be looked up. */
  imageType: 'image' | 'snapshot' | undefined
  /** An existing `disk` has a backing file. */
  backing: boolean
  /** The image's property `base_image_id_sha1` is set: only the copy-on-write part was uploaded. */
  delta: boolean
  /** The setting `snapshot_optimization`. */
  allowed: boolean
  /** Disks are qcow2 overlays. */
  overlays: boolean
  /** The image boots with a kernel or ramdisk of its own. */
  kernel: boolean
  /** The root disk is a volume. */
  rootIsVolume: boolean
}

export interface Way {
  optimised: boolean
  reason: string
}

/** The image's own words, as the way needs them. Source: BEHAVIOUR.md S16-S25. */
export const imageTypeOf = (properties: Record<string, string>): 'image' | 'snapshot' =>
  properties['image_type'] === 'snapshot' ? 'snapshot' : 'image'

/**
 * Which way a root disk is made: from the whole image, or optimised, with the copy-on-write part alone on a base that
 * is found by its name. The answer carries its reason.
 */
export function wayOf(facts: WayFacts): Way {
  const { imageType, backing, delta } = facts
  const plain = (reason: string): Way => ({ optimised: false, reason })
  const optimised = (reason: string): Way => ({ optimised: true, reason })
  if (!facts.allowed) return plain('snapshot_optimization is off')
  if (!facts.overlays) return plain('disks are not qcow2 overlays')
  if (facts.kernel) return plain('the image has a kernel or ramdisk of its own')
  if (facts.rootIsVolume) return plain('the root disk is a volume')
  if (imageType === undefined) return plain("the image's metadata could not be looked up")
  if (imageType === 'snapshot' && delta)
    return optimised(
      backing
        ? 'resize of a delta snapshot: only the overlay travels'
        : 'the image is a delta snapshot: its base is found by name',
    )
  if (delta) return plain('the image names a base, but is no snapshot')
  return backing ? optimised('resize: only the overlay travels') : plain(`create from the whole ${imageType}`)
}

export const makeFull = 'use an image that holds the whole disk'

/**
 * Name of the base that a delta says it stands on; undefined for a whole image.
 * @throws {Problem} IMAGE_REJECTED where that is no name of a base
 */
export function baseOfDelta({ name, properties }: Pick<Image, 'name' | 'properties'>): string | undefined {
  const base = properties['base_image_id_sha1']
  if (base === undefined || base === '' || imageTypeOf(properties) !== 'snapshot') return undefined
  if (!/^[0-9a-f]{40}$/.test(base))
    refuse('IMAGE_REJECTED', `Cannot use image "${name}": its base_image_id_sha1 is not the name of a base`, makeFull)
  return base
}
