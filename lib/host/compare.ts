import { identityOf, sameContent } from '../job/base.ts'
import type { BaseIdentity } from '../job/move.ts'
import type { Base } from './bases.ts'

/**
 * Whether a base of ours has the content that another host tells of its own: by what is recorded, and else by reading
 * ours, as far as that host has read its one (BEHAVIOUR.md S75).
 * @returns undefined where that cannot be told
 */
export async function isSameBase(path: string, base: Base, other: BaseIdentity): Promise<boolean | undefined> {
  const known = sameContent(identityOf(base.record, base.stamp), other)
  if (known !== undefined || other.content === undefined) return known
  const { contentOf } = await import('../image/content.ts')
  return (await contentOf(path)) === other.content
}
