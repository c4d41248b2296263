import { basename, dirname } from 'node:path'
import type { Originals, Proof } from '../image/proof.ts'
import type { Action } from '../job/action.ts'
import { BaseRecord } from '../job/base.ts'
import { baseOfFile, convertedOf, isBaseFile, partOf, quarantineOf, recordOf, unpackedOf } from '../job/layout.ts'
import { refuse } from '../job/problem.ts'
import { algorithmOf } from '../job/spec.ts'
import { type FileFacts, fileAt, ownFileAt, ownNamesIn, requireNoLink, textAt } from './files.ts'

/** A base with its name, and what is known of it; one of another tool has no record until cowhand meets it. */
export interface Base extends FileFacts {
  record: BaseRecord | undefined
}

const seeVerify = (path: string): string =>
  `find out what is in it and who stands on it: cowhand cache verify ${basename(path)}`

/**
 * The base of this path as it is now, or undefined. Whether it is what its record says is asked by `requireSound`.
 * @throws {Problem} NOT_OURS when it is no file of its own; BASE_DIFFERS when its record cannot be read
 */
export function baseAt(base: string): Base | undefined {
  const facts = baseFileAt(base)
  if (!facts) return undefined
  const record = readRecord(base)
  if (record === 'torn')
    refuse('BASE_DIFFERS', `Cannot use base "${base}": its record ${recordOf(base)} cannot be read`, seeVerify(base))
  return { ...facts, record }
}

/**
 * Facts of a base's file.
 * @throws {Problem} NOT_OURS when it is no regular file, has another name to be written by, or `_base` is a link
 */
export function baseFileAt(base: string): FileFacts | undefined {
  requireNoLink(dirname(base))
  return ownFileAt(base, `find that one, and remove it: find / -xdev -samefile ${base}`)
}

/** By their text, what records say: each is looked at several times in a run. */
const records = new Map<string, BaseRecord | 'torn'>()

/** What is written down of a base; `torn`: something, but no record. */
export function readRecord(base: string): BaseRecord | 'torn' | undefined {
  const text = textAt(recordOf(base))
  if (text === undefined) return undefined
  const record = records.get(text) ?? parseRecord(text)
  records.set(text, record)
  return record
}

function parseRecord(text: string): BaseRecord | 'torn' {
  try {
    const record = BaseRecord.safeParse(JSON.parse(text))
    return record.success ? record.data : 'torn'
  } catch {
    return 'torn'
  }
}

/** Names of the bases in a directory, sorted. */
export const baseNames = (directory: string): string[] => (ownNamesIn(directory) ?? []).filter(isBaseFile)

/** Names of bases that were set aside; `half`: that was cut off, and their records are still in place. */
export function setAsideIn(directory: string): { whole: string[]; half: string[] } {
  const names = new Set(ownNamesIn(directory))
  const bases = [...names].filter((name) => name === quarantineOf(baseOfFile(name))).map(baseOfFile)
  const isHalf = (base: string) => !names.has(base) && names.has(recordOf(base))
  return { whole: bases.filter((base) => !isHalf(base)), half: bases.filter(isHalf) }
}

/** A base whose file is not the one that its record is of is read from end to end; of any other nothing is asked. */
export async function proofOf(path: string, base: Base | undefined, from: Originals): Promise<Proof | undefined> {
  const { record } = base ?? {}
  if (!base || !record || record.quarantined || record.size !== base.size || record.stamp === base.stamp)
    return undefined
  return (await import('../image/proof.ts')).proveBase(path, base, from)
}

/**
 * True afterwards: something new may stand on this base.
 * @param proof what `proofOf` answered
 * @throws {Problem} BASE_DIFFERS
 */
export function requireSound(path: string, base: Base, proof?: Proof): void {
  const { record, size } = base
  const differs = (why: string) => refuse('BASE_DIFFERS', `Cannot use base "${path}": ${why}`, seeVerify(path))
  if (!record) return
  if (record.quarantined) differs(record.quarantined.why)
  if (record.size !== undefined && record.size !== size)
    differs(`it has ${size} bytes, and was made with ${record.size}`)
  if (record.stamp === base.stamp || proof?.is === 'equal') return
  differs(proof?.why ?? 'it was written to or replaced since it was made, and nothing proves what is in it now')
}

/**
 * True afterwards: what is in this base is what its image has. Half of what a delta's guest sees was written against
 * that, so a base of which nobody knows will not do (BEHAVIOUR.md S75).
 * @param isRenewed a step before proves it, as far as it needs that
 * @throws {Problem} BASE_DIFFERS
 */
export function requireProven(path: string, base: Base, isRenewed: boolean): void {
  if (!isRenewed) requireSound(path, base)
  const { record } = base
  if (record && (!record.adopted || record.content?.proven)) return
  const state = 'another tool made it, and what is in it is not proven'
  refuse('BASE_DIFFERS', `Cannot put a delta on base "${path}": ${state}`, seeVerify(path))
}

/** What a base is known as, beside how it was made. */
export type Identity = Pick<BaseRecord, 'id' | 'name' | 'source' | 'owner' | 'shared' | 'minDisk'>

export interface Wish {
  proof: Proof | undefined
  /** Digest that its image has now. */
  digest?: string
  /** For the record of a base that has none. */
  identity?: Identity
  /** Our reader has to have seen it, as it is now. */
  reader?: { version: number; ceiling: number }
  /** The digest of its content is to be known. */
  content?: boolean | undefined
}

/**
 * What is to be done before something new may stand on a base that is there: mostly nothing. One without a record is
 * taken over, one that an older reader examined is examined again, and of one that was proven that is written down.
 * @throws {Problem} BASE_DIFFERS
 */
export function planKnown(path: string, base: Base, { proof, digest, identity, reader, content }: Wish): Action[] {
  requireSound(path, base, proof)
  const { record, stamp } = base
  if (record?.digest && digest && record.digest !== digest && algorithmOf(record.digest) === algorithmOf(digest))
    refuse(
      'BASE_DIFFERS',
      `Cannot use base "${path}": it was made of an image with ${record.digest}, and that has ${digest} now`,
      'find out who changed the image; then prove the base: cowhand cache verify',
    )
  const actions: Action[] = []
  const isExamined = !reader || (record?.reader ?? 0) >= reader.version
  if (!isExamined) actions.push({ do: 'examine', path, format: 'raw', ceiling: reader.ceiling })
  // What was proven has the content that was recorded, or it would not have come so far.
  const isMeasured = !content || record?.content?.stamp === stamp || (record?.content && proof)
  if (!isMeasured) actions.push({ do: 'measure', path })
  if (record && actions.length === 0 && record.stamp === stamp) return []
  const { content: known, ...facts } = record ?? { ...identity, adopted: true, content: undefined }
  const fields = {
    ...facts,
    ...(known && isMeasured ? { content: { ...known, ...(proof ? { stamp } : {}) } } : {}),
    ...(reader ? { reader: reader.version } : {}),
  }
  const why = record ? undefined : 'made by another tool: cowhand cache verify looks for a proof of it'
  return [...actions, { do: 'record', path: recordOf(path), of: path, fields, stamp, ...(why ? { why } : {}) }]
}

/** Files that an interrupted making of this base has left. */
export const leftoversOf = (base: string): string[] =>
  [partOf(base), partOf(recordOf(base)), unpackedOf(base), convertedOf(base)].filter((path) => fileAt(path))
