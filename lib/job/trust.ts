import * as z from 'zod/mini'
import { refuse } from './problem.ts'
import { algorithmOf, isWeak, withDefault } from './spec.ts'

/** An image, or a file, and the digest that vouches for its bytes. */
interface Vouched {
  name: string
  digest: string
}

/** Member of each job and step that takes a digest; in the job its name is `allow-weak-checksum`. */
export const AllowWeak = withDefault(
  z.boolean(),
  false,
  'take an image that only md5 or sha1 vouches for: both can be forged',
)

/**
 * True afterwards: whoever made the image cannot have another one with the same digest, or the operator allowed that.
 * Two files with one md5 are made in seconds (RFC 6151), with one sha1 for a price (SHAttered, CVE-2005-4900).
 * @throws {Problem} CHECKSUM_WEAK
 */
export function requireStrong({ name, digest }: Vouched, allowed: boolean): void {
  if (!isWeak(digest) || allowed) return
  refuse(
    'CHECKSUM_WEAK',
    `Cannot use image "${name}": only ${algorithmOf(digest)} vouches for its bytes, and that can be forged`,
    'give a better one: --checksum sha256:HEX; or take it all the same: --allow-weak-checksum',
  )
}

/** What is to be said aloud of an image that was allowed all the same. */
export const weaknessOf = ({ name, digest }: Vouched, allowed: boolean): string[] =>
  isWeak(digest) && allowed
    ? [`image "${name}" is vouched for by ${algorithmOf(digest)} only, which can be forged`]
    : []
