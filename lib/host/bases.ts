import { convertedOf, partOf, recordOf, unpackedOf } from '../job/layout.ts'
import { refuse } from '../job/problem.ts'
import { type FileFacts, fileAt, jsonAt } from './files.ts'

/**
 * A base that is whole: it has its name, and the size that it had when it got it. A base without a record (from
 * another tool) is taken as it is; who needs to know what is in it has to prove it.
 * @throws {Problem} NOT_OURS when the record and the file disagree
 */
export function baseAt(base: string): FileFacts | undefined {
  const facts = fileAt(base)
  if (!facts) return undefined
  const record = jsonAt(recordOf(base))
  const size = typeof record === 'object' && record !== null && 'size' in record ? record.size : facts.size
  if (size !== facts.size)
    refuse(
      'NOT_OURS',
      `Cannot use base "${base}": it has ${facts.size} bytes, and was made with ${size}`,
      'something wrote to it; see which instances stand on it before you move it away: cowhand list',
    )
  return facts
}

/** Files that an interrupted making of this base has left. */
export const leftoversOf = (base: string): string[] =>
  [partOf(base), partOf(recordOf(base)), unpackedOf(base), convertedOf(base)].filter((path) => fileAt(path))
