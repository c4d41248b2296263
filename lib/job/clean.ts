import { basename, dirname } from 'node:path'
import { type BaseKind, baseOfFile, basesOf } from './layout.ts'
import { misuse, refuse } from './problem.ts'
import { formatSize } from './spec.ts'

/** A base as the cleaner looks at it: sizes in bytes, times in ms since 1970. */
export interface CachedBase {
  path: string
  name: string
  kind: BaseKind
  size: number
  allocated: number
  modified: number
  /** Who needs it. */
  users: string[]
  /** When it was last known to be needed, or made: when its record was written or touched. Without a record: never. */
  usedAt?: number
  /** It was found to differ from what it should be, or its record cannot be read: it stays to be looked at. */
  isQuarantined?: boolean
}

export interface Leftover {
  path: string
  allocated: number
  modified: number
}

export interface CacheFacts {
  now: number
  /** Bytes free on the file system of `_base`. */
  free: number
  bases: CachedBase[]
  leftovers: Leftover[]
  /** Files of bases that were set aside. */
  quarantined: { allocated: number }[]
}

/** Seconds, and bytes. */
export interface CleanWish {
  'unused-for': number
  'max-size'?: number | undefined
  'keep-free'?: number | undefined
}

/** What to clean. Paths, each list in the order in which it is done. */
export interface CleanDecision {
  /** Bases that nobody needs. */
  bases: string[]
  leftovers: string[]
  /** Bases that are needed, whose last note of that has become old. */
  used: string[]
  /** Bases that another tool made: their time without users begins now. */
  adopted: string[]
  reasons: string[]
  warnings: string[]
}

const seconds = (from: number, to: number): number => (to - from) / 1000

/** Such a base is made again in a moment: of another base, or of nothing. */
const soon = 3600
/** What is half-made may be being made, by a tool that does not know our locks; a download can go on for a day. */
const day = 86_400
/** Notes of use are that exact, in seconds: who cleans twice does nothing the second time. */
export const exactness = 600

/** What goes first where there is no room: what costs least to have again. */
const rank: Record<BaseKind, number> = { sized: 0, ephemeral: 1, swap: 1, image: 2, unknown: 3 }

const sum = (files: { allocated: number }[]): number => files.reduce((total, { allocated }) => total + allocated, 0)

/**
 * Which bases go: those that nobody needs, and that nobody needed for long enough. Younger ones only as far as there
 * is no room. Nova's bases go like ours: nobody could use one again without the image that it was made of, for its
 * name is the digest of that image's id. What has no name of a base is somebody's, and stays.
 */
export function decideCleaning(facts: CacheFacts, wish: CleanWish): CleanDecision {
  const { now, bases, leftovers } = facts
  const used = bases.filter(({ users }) => users.length > 0)
  const adopted = bases.filter(
    ({ kind, usedAt, modified }) => kind !== 'unknown' && usedAt === undefined && seconds(modified, now) > soon,
  )
  const spare = bases.flatMap((base) => {
    const { kind, users, usedAt, isQuarantined } = base
    return kind === 'unknown' || users.length > 0 || usedAt === undefined || isQuarantined ? [] : { ...base, usedAt }
  })
  const patience = ({ kind }: CachedBase): number =>
    kind === 'image' ? wish['unused-for'] : Math.min(wish['unused-for'], soon)
  const isOld = (base: CachedBase & { usedAt: number }) => seconds(base.usedAt, now) >= patience(base)
  const old = spare.filter(isOld)
  const young = spare
    .filter((base) => !isOld(base))
    .sort((one, other) => rank[one.kind] - rank[other.kind] || one.usedAt - other.usedAt)
  // Records are of use only together with their bases.
  const litter = leftovers.filter(
    ({ path, modified }) => /\.json(\.part)?$/.test(path) || seconds(modified, now) >= day,
  )

  let allocated = sum(bases) + sum(leftovers) + sum(facts.quarantined) - sum(old) - sum(litter)
  let free = facts.free + sum(old) + sum(litter)
  const lacks = () => Math.max(allocated - (wish['max-size'] ?? allocated), (wish['keep-free'] ?? free) - free, 0)
  const room: CachedBase[] = []
  const lacking = lacks()
  for (const base of young) {
    if (lacks() === 0) break
    room.push(base)
    allocated -= base.allocated
    free += base.allocated
  }
  const limits = [
    ...(wish['max-size'] === undefined ? [] : [`--max-size ${formatSize(wish['max-size'])}`]),
    ...(wish['keep-free'] === undefined ? [] : [`--keep-free ${formatSize(wish['keep-free'])}`]),
  ].join(' and ')
  const gone = [...old, ...room]
  return {
    bases: gone.map(({ path }) => path),
    leftovers: litter.map(({ path }) => path),
    used: used.filter(({ usedAt }) => usedAt !== undefined && seconds(usedAt, now) > exactness).map(({ path }) => path),
    adopted: adopted.map(({ path }) => path),
    reasons: [
      `${bases.length} bases: ${used.length} in use, ${old.length} unused for long enough, ${bases.length - used.length - old.length} others`,
      ...(room.length > 0
        ? [`${limits}: ${formatSize(lacking)} too little room, so ${room.length} of the others go as well`]
        : []),
    ],
    warnings:
      lacks() > 0
        ? [
            `${limits} is missed by ${formatSize(lacks())}: what is left in the cache is in use, in quarantine, or not known for long enough`,
          ]
        : [],
  }
}

/** The locks to take for these files of `_base`, in the order in which `create` takes those of one instance. */
export function inLockOrder(files: string[]): string[] {
  const names = new Set(files.map((file) => baseOfFile(basename(file))))
  const made = (name: string): number => (/^swap_/.test(name) ? 2 : /^ephemeral_/.test(name) ? 1 : 0)
  return [...names].sort((one, other) => made(one) - made(other) || (one < other ? -1 : 1))
}

/** Each is a file of this host's `_base`: of other directories nobody could tell who needs what. @throws {Problem} BAD_SPEC */
export function requireInBases(files: string[], instances: string): void {
  const directory = basesOf(instances)
  const other = files.find((file) => dirname(file) !== directory)
  if (other !== undefined)
    misuse(`Cannot clean "${other}": it is not in "${directory}"`, 'see what is there: cowhand cache list')
}

/** Something that stands in the way of telling which bases are needed. */
export interface Doubt {
  path: string
  /** `it is …` */
  state: string
  remedy: string
}

/** It is certain which bases nobody needs. @throws {Problem} USERS_UNKNOWN */
export function requireCertain(doubts: Doubt[]): void {
  const [first] = doubts
  if (!first) return
  const more = doubts.length > 1 ? ` (and ${doubts.length - 1} more such: cowhand cache list)` : ''
  refuse(
    'USERS_UNKNOWN',
    `Cannot clean the cache: "${first.path}" may need any base, for ${first.state}${more}`,
    first.remedy,
  )
}
