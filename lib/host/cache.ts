import { lstatSync } from 'node:fs'
import type { BaseRecord } from '../job/base.ts'
import type { CachedBase, Leftover } from '../job/clean.ts'
import { baseOfFile, basesOf, isBaseFile, kindOfBase, quarantineOf, recordOf } from '../job/layout.ts'
import { Problem } from '../job/problem.ts'
import { readRecord } from './bases.ts'
import { ownNamesIn } from './files.ts'

/** What is in `_base`; sizes in bytes, times in ms. */
export interface Cache {
  bases: (CachedBase & { record?: BaseRecord })[]
  /** What making or removing a base has left, and what is being made. */
  leftovers: Leftover[]
  quarantined: Leftover[]
  /** What cannot be read, in words. */
  problems: string[]
}

/**
 * Everything in `_base`, by name. Nothing is opened but the records.
 * @param users see usageOf
 */
export function cacheAt(instances: string, users: ReadonlyMap<string, string[]>): Cache {
  const cache: Cache = { bases: [], leftovers: [], quarantined: [], problems: [] }
  const names = new Set(ownNamesIn(basesOf(instances)))
  for (const name of names) {
    const path = `${basesOf(instances)}/${name}`
    const facts = lstatSync(path, { throwIfNoEntry: false })
    if (!facts) continue // removed meanwhile
    const file = { path, allocated: facts.blocks * 512, modified: facts.mtimeMs }
    const kind = facts.isFile() ? kindOfBase(baseOfFile(name)) : 'unknown'
    if (isInQuarantine(name, names)) cache.quarantined.push(file)
    else if (isBaseFile(name) || kind === 'unknown') {
      const base = { ...file, name, kind, size: facts.size, users: users.get(name) ?? [] }
      cache.bases.push({ ...base, ...recordFor(path, names.has(`${name}.json`), cache.problems) })
    } else if (name !== recordOf(baseOfFile(name)) || !names.has(baseOfFile(name))) cache.leftovers.push(file)
  }
  return cache
}

/** Also the record of a base that was being set aside when that was cut off; not one whose base was removed from there. */
function isInQuarantine(name: string, names: ReadonlySet<string>): boolean {
  const there = quarantineOf(baseOfFile(name))
  if (name === recordOf(there)) return names.has(there)
  if (name === recordOf(baseOfFile(name)))
    return !names.has(baseOfFile(name)) && names.has(there) && !names.has(recordOf(there))
  return /\.quarantined(\.|$)/.test(name)
}

/** What the record beside a base says, and when it was last found in use. */
function recordFor(base: string, isThere: boolean, problems: string[]): Partial<Cache['bases'][number]> {
  const usedAt = isThere ? touchedAt(recordOf(base)) : undefined
  if (usedAt === undefined) return {}
  try {
    const record = readRecord(base)
    if (record !== 'torn') return record ? { usedAt, record, isQuarantined: record.quarantined !== undefined } : {}
    problems.push(`Cannot read "${recordOf(base)}": it is not a record of this version of cowhand`)
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    problems.push(error.message)
  }
  // It may say that the base is in quarantine: then it stays.
  return { usedAt, isQuarantined: true }
}

/** When a file was written or touched last, in ms since 1970; undefined where there is none. */
export const touchedAt = (path: string): number | undefined => lstatSync(path, { throwIfNoEntry: false })?.mtimeMs
