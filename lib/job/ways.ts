import { createHash } from 'node:crypto'
import { ephemeralBaseName, kindOfBase } from './layout.ts'
import type { Answer, AnsweredBase, Offer, OfferedBase, OfferedDisk, Order, OrderedDisk } from './move.ts'
import { refuse } from './problem.ts'
import { exactSize, formatDuration, formatSize } from './spec.ts'

// Which way each disk goes in a resize or migration: what the source has and what the destination has decide it, so
// that both halves come to the same (BEHAVIOUR.md S40-S42, S45-S52, S58, S59, S65, S75).

export interface WayOptions {
  /** Merge each disk with its base, and send the whole. */
  flatten: boolean
  ephemeralPolicy: 'copy' | 'recreate' | 'refuse'
  /** Sizes that are asked for, bytes. */
  root: number
  ephemeral?: number
  swap?: number
}

/**
 * What both halves have to agree on, in a word: what becomes of each disk of which move. Where a base comes from is of
 * no matter: it is there once it was made ready.
 */
export function agreementOf({
  move,
  shared,
  growFs,
  ways,
}: Pick<Order, 'move' | 'shared' | 'growFs' | 'ways'>): string {
  const disks = ways.map(({ file, way, format, size, base, rebaseFirst, makes }) => [
    ...[file, way, format, size],
    ...[base?.name, rebaseFirst, makes],
  ])
  return createHash('sha256')
    .update(JSON.stringify([move, shared, growFs, disks]))
    .digest('hex')
}

type Standing = NonNullable<OrderedDisk['base']>

/**
 * What a base is called on a host that has another one of its name: by its content, so that it is met again there.
 * @param content `content-sha256:HEX`
 */
export function nameOfContent(name: string, content: string): string {
  const hex = content.slice(content.indexOf(':') + 1)
  if (kindOfBase(name) !== 'ephemeral') return createHash('sha1').update(content).digest('hex')
  const ending = `_${hex.slice(0, 12)}`
  return name.endsWith(ending) ? name : `${name}${ending}`
}

/**
 * Names of the bases that the source has to read before it asks again: the destination has another one of that name, or
 * one that it cannot compare with what it was told.
 */
export const unmeasured = ({ disks }: Pick<Offer, 'disks'>, { bases }: Pick<Answer, 'bases'>): string[] =>
  disks
    .flatMap(({ base }) => [base, base?.unsized])
    .flatMap((base) => {
      const is = bases.find(({ name }) => name === base?.name)?.is
      const isUntold = base?.identity !== undefined && base.identity.content === undefined
      return isUntold && (is === 'differs' || is === 'unproven') ? [base.name] : []
    })

/**
 * What becomes of each disk that the source offers.
 * @throws {Problem} DISK_TOO_SMALL where one would shrink; UNSUPPORTED where the ephemeral disk forbids the move
 */
export function waysOf(
  offer: Pick<Offer, 'name' | 'kind' | 'record' | 'disks'>,
  answer: Pick<Answer, 'bases'>,
  options: WayOptions,
): OrderedDisk[] {
  return offer.disks.map((disk) => wayOf(disk, offer, answer, options))
}

function wayOf(
  disk: OfferedDisk,
  offer: Pick<Offer, 'name' | 'kind' | 'record'>,
  { bases }: Pick<Answer, 'bases'>,
  options: WayOptions,
): OrderedDisk {
  const { file, format, virtualSize, allocated, base } = disk
  const asked = { disk: options.root, 'disk.local': options.ephemeral, 'disk.swap': options.swap }[file] ?? virtualSize
  const made = { file, way: 'new', format: 'qcow2', size: asked, send: 0 } as const
  if (file === 'disk.swap') return { ...made, makes: 'swap', reason: 'made anew there, nothing travels' }
  if (file === 'disk.local' && options.ephemeralPolicy === 'refuse')
    refuse(
      'UNSUPPORTED',
      `Cannot ${offer.kind} "${offer.name}": it has an ephemeral disk, and --ephemeral-policy is refuse`,
      'let it travel: --ephemeral-policy copy; or have an empty one made: --ephemeral-policy recreate',
    )
  if (file === 'disk.local' && options.ephemeralPolicy === 'recreate')
    return { ...made, makes: 'ephemeral', reason: 'made anew there, empty, as asked: nothing travels' }
  const size = sizeOf(disk, asked, offer)
  const common = { file, format, size, send: allocated }
  if (!base) {
    const why = format === 'raw' ? 'it is raw' : 'it stands on no base'
    return { ...common, way: 'whole', reason: `the whole file travels (${formatSize(allocated)}): ${why}` }
  }
  // As much as both have allocated, and no more than the guest sees.
  const merged = Math.min(allocated + base.allocated, virtualSize + tables(virtualSize))
  const flat = { ...common, way: 'flat', send: merged } as const
  if (options.flatten)
    return { ...flat, reason: `merged with its base, and then the whole travels (${atMost(merged)}), as asked` }
  const found = standingOf(base, offer, bases)
  if (!found)
    return {
      ...flat,
      reason: `merged with its base ${short(base.name)}, of which the destination has another, and then the whole travels (${atMost(merged)})`,
    }
  const { stands, words, isShifted = false } = found
  const overlay = isShifted ? merged : allocated
  const what = stands.from === 'source' ? 'the overlay travels' : 'only the overlay travels'
  return {
    ...common,
    way: 'delta',
    send: overlay,
    base: stands,
    ...(isShifted ? { rebaseFirst: base.unsized?.name ?? stands.name } : {}),
    reason: `${what} (${isShifted ? atMost(overlay) : formatSize(overlay)}), ${words}`,
  }
}

/** @throws {Problem} DISK_TOO_SMALL */
function sizeOf(
  { file, virtualSize }: OfferedDisk,
  asked: number,
  { name, kind }: Pick<Offer, 'name' | 'kind'>,
): number {
  if (asked >= virtualSize) return asked
  // Nobody asks a migration for a size: what was once wished for may be less than what it has since got.
  if (kind === 'migrate') return virtualSize
  const flag = file === 'disk' ? '--root' : '--ephemeral'
  return refuse(
    'DISK_TOO_SMALL',
    `Cannot resize "${name}" to ${flag} ${exactSize(asked)}: its ${file === 'disk' ? 'root' : 'ephemeral'} disk has ${exactSize(virtualSize)} already`,
    `ask for at least that: ${flag} ${exactSize(virtualSize)}`,
  )
}

interface Found {
  stands: Standing
  /** What becomes of the base, to go behind what travels. */
  words: string
  /** What the unsized base has not is copied into the overlay before it travels. */
  isShifted?: boolean
}

/** A base as it could be used there. `of`: words on how it comes to be meant. */
type Candidate = Pick<OfferedBase, 'name' | 'size' | 'allocated' | 'identity'> & { of?: string }
type At = (name: string) => AnsweredBase | undefined

/** What an overlay is to stand on there, by the cheapest way that is proven; undefined where it can stand on nothing. */
function standingOf(base: OfferedBase, { record }: Pick<Offer, 'record'>, bases: AnsweredBase[]): Found | undefined {
  const at: At = (name) => bases.find((answered) => answered.name === name)
  const { unsized, ...own } = base
  if (!unsized) return cached(own, at) ?? stored(own, at) ?? maker(own, at, record) ?? sent(own, at)
  const { is, name, size, allocated } = unsized
  const isHere = size !== undefined && allocated !== undefined
  const identity = unsized.identity ?? base.identity
  const smaller = { ...own, name, identity, ...(isHere ? { size, allocated } : {}) }
  if (is === 'differs') {
    const shifted = (isHere && (cached(smaller, at) ?? stored(smaller, at) ?? sent(smaller, at))) || undefined
    const words = `what base ${short(base.name)} has besides is copied into it first; ${shifted?.words}`
    return cached(own, at) ?? (shifted && { ...shifted, words, isShifted: true }) ?? sent(own, at)
  }
  const copied = { ...smaller, of: `, of which ${short(base.name)} is a copy with zeros behind it,` }
  // Where the unsized one is gone, a file system may have been grown in this one: it would differ from its image.
  const isLikely = is === 'equal' || identity.digest !== undefined
  return (
    cached(copied, at) ??
    cached(own, at) ??
    (isLikely ? stored(copied, at) : undefined) ??
    (isHere ? sent(copied, at) : undefined) ??
    sent(own, at)
  )
}

const standing = (
  { size, allocated, identity }: Candidate,
  name: string,
  from: Standing['from'],
  answered?: AnsweredBase,
): Standing => ({ name, size: answered?.size ?? size, from, allocated, identity })

/** It is there, be it under the name that it was given beside another one. */
function cached(base: Candidate, at: At): Found | undefined {
  const { content } = base.identity
  const names = [base.name, ...(content === undefined ? [] : [nameOfContent(base.name, content)])]
  const there = names.map(at).find((answered) => answered?.is === 'equal')
  if (!there) return undefined
  const proof = content === undefined ? "its image's digest" : 'its content'
  const words = `base ${short(there.name)}${base.of ?? ''} is there already, proven by ${proof}`
  return { stands: standing(base, there.name, 'cache', there), words }
}

function stored(base: Candidate, at: At): Found | undefined {
  const answered = at(base.name)
  if (answered?.is !== 'absent' || answered.from !== 'store') return undefined
  const bytes = answered.fetch === undefined ? '' : ` (${formatSize(answered.fetch)})`
  const words = `base ${short(base.name)}${base.of ?? ''} comes from the image store there${bytes}`
  return { stands: standing(base, base.name, 'store'), words }
}

/** An empty file system can be made there, if that comes to the same, and under this name. */
function maker(base: Candidate, at: At, record: Offer['record']): Found | undefined {
  const answered = at(base.name)
  if (answered?.is !== 'absent' || answered.from !== 'maker' || !base.identity.deterministic) return undefined
  const osType = record['os-type']
  const format = record['ephemeral-format'] ?? (osType === 'windows' ? 'ntfs' : 'ext4')
  if (ephemeralBaseName(base.size, osType, format) !== base.name) return undefined
  const words = `base ${short(base.name)} is made there, and its content compared`
  return { stands: standing(base, base.name, 'maker'), words }
}

/** The source sends its own. Where another one has the name, that stays, and this one gets the name of its content. */
function sent(base: Candidate, at: At): Found | undefined {
  const answered = at(base.name)
  const { content } = base.identity
  const bytes = formatSize(base.allocated)
  const stands = (name: string) => ({ ...standing(base, name, 'source'), sends: base.name })
  if (answered === undefined || answered.is === 'absent') {
    const why = answered?.why === undefined ? 'not there' : `not there, and ${answered.why}`
    return { stands: stands(base.name), words: `and base ${short(base.name)}${base.of ?? ''} (${bytes}): it is ${why}` }
  }
  const name = content === undefined ? base.name : nameOfContent(base.name, content)
  if (name === base.name || at(name)?.is === 'differs') return undefined
  const words = `and base ${short(base.name)}${base.of ?? ''} (${bytes}), as ${short(name)}: another one has its name there`
  return { stands: stands(name), words }
}

/** A disk's way in words. @param isHere it stays on this host: nothing travels */
export function sayWay(disk: OrderedDisk, { disks }: Pick<Offer, 'disks'>, isHere: boolean): string {
  const { file, way, size, send, base, reason } = disk
  const was = disks.find((offered) => offered.file === file)?.virtualSize ?? size
  const grows = was === size ? '' : `; ${exactSize(was)} becomes ${exactSize(size)}`
  if (!isHere) return `${reason}${grows}`
  const here = {
    delta: `the overlay is copied (${formatSize(send)}), and stays on base ${short(base?.name ?? '')}`,
    whole: `the whole file is copied (${formatSize(send)})`,
    flat: `merged with its base, as asked (${atMost(send)})`,
    new: disk.makes === 'swap' ? 'made anew' : 'made anew, empty, as asked',
  }
  return `${here[way]}${grows}`
}

/** Names of bases are sha1 sums: their beginning tells which is meant. */
const short = (name: string): string => name.replace(/^([0-9a-f]{12})[0-9a-f]{28}/, '$1…')
const atMost = (bytes: number): string => `at most ${formatSize(bytes)}`
/** What a qcow2 has beside a disk of this size, about. */
const tables = (size: number): number => 2 ** 20 + Math.ceil(size / 2 ** 12)

/** What a move takes, for its plan. Bytes. */
export interface Totals {
  /** To be sent: overlays, and bases of the source. At most. */
  send: number
  /** To be allocated at the destination: what is sent, fetched and made. At most. */
  space: number
  /** @param free bytes at the destination */
  words: (free: number) => string
}

/** @param rate bytes per second that the link takes, where that is known */
export function totals({ ways }: Pick<Order, 'ways'>, rate?: number): Totals {
  // Two disks may stand on one base.
  const bases = [...new Map(ways.flatMap(({ base }) => (base ? [[base.name, base] as const] : []))).values()]
  const allocated = (some: Standing[]) => some.reduce((sum, { allocated }) => sum + allocated, 0)
  const overlays = ways.reduce((sum, { send }) => sum + send, 0)
  const send = overlays + allocated(bases.filter(({ from }) => from === 'source'))
  const made = ways.filter(({ way }) => way === 'new').reduce((sum, { size }) => sum + emptySize(size), 0)
  const space = overlays + made + allocated(bases.filter(({ from }) => from !== 'cache'))
  const time = rate === undefined ? '' : `, about ${formatDuration(Math.ceil(send / rate))} at ${formatSize(rate)}/s`
  const words = (free: number) =>
    `${formatSize(send)} to send at most${time}; ${formatSize(space)} to allocate of ${formatSize(free)} free`
  return { send, space, words }
}

/** What an empty overlay, and an empty file system or swap space below it, allocate, about. */
const emptySize = (size: number): number => 2 ** 18 + Math.ceil(size / 2 ** 13)
