import { basename } from 'node:path'
import * as z from 'zod/mini'
import { baseFileAt, readRecord } from '../../lib/host/bases.ts'
import { type FileFacts, fileAt } from '../../lib/host/files.ts'
import type { Originals, Proof } from '../../lib/image/proof.ts'
import type { Action } from '../../lib/job/action.ts'
import { type BaseRecord, readerVersion } from '../../lib/job/base.ts'
import { baseLock, kindOfBase, quarantineOf, recordOf } from '../../lib/job/layout.ts'
import { errno, Problem, refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** A base, read from end to end. */
interface Found {
  file: FileFacts
  record: BaseRecord | undefined
  /** Something is there in the place of the record, and cannot be read. */
  torn: boolean
  proof: Proof
  /** Digest of its content, where it is not wrong. */
  content: string
  identity: Originals['identity']
  /** Why our reader rejects it. */
  rejected: string | undefined
  /** Who stands on it, where it is not right. */
  users: string[]
  /** Why more may stand on it than are known. */
  doubt: string | undefined
  /** One that differed before it has been set aside already. */
  aside: boolean
  now: string
}

export const verifyBase = defineStep({
  name: 'verify-base',
  summary: 'Read a base again, compare it with its record and its image, and quarantine it where it differs',
  input: () => z.strictObject({ base: described(AbsolutePath, 'base to verify, in _base') }),
  about: ({ base }) => basename(base),
  locks: ({ base }) => [baseLock(base)],
  // It is read while the plan is made, without the lock, so that nobody waits; under the lock only its stamp is.
  inspect: async ({ base }, settings) => {
    for (;;) {
      const stamp = fileAt(base)?.stamp
      try {
        return await inspectBase(base, settings)
      } catch (error) {
        // Without the lock, a cleaner may take it while it is read; and whoever needs it may make it anew.
        if (errno(error) !== 'ENOENT' || fileAt(base)?.stamp === stamp) throw error
      }
    }
  },
  plan({ base }, { base: found, halfAside }): Action[] {
    if (!found) return halfAside === undefined ? [] : finishAside(base, halfAside)
    const { file, record, torn, proof, rejected } = found
    // Nova can be told to keep its bases as they came.
    if (rejected && !record && !torn)
      refuse(
        'UNSUPPORTED',
        `Cannot verify base "${base}": ${rejected}`,
        'leave it to the tool that made it: bases of cowhand are raw',
      )
    const isChanged = record !== undefined && (record.stamp !== file.stamp || record.quarantined !== undefined)
    if (proof.is === 'other') return quarantine(base, found, proof.why ?? 'it differs')
    if (proof.is === 'unknown' && isChanged)
      return quarantine(
        base,
        found,
        record.quarantined?.why ?? 'it was written to or replaced since it was made, and nothing proves what is in it',
        !record.quarantined,
      )
    const keep: Action[] = torn
      ? [{ do: 'set-aside', from: recordOf(base), to: quarantineOf(recordOf(base)), why: 'it cannot be read' }]
      : []
    const { fields, why } = renewed(found, base)
    const { content, reader } = record ?? {}
    const isKnown = content?.digest === fields.content.digest && content.stamp === file.stamp
    if (isKnown && !isChanged && content.proven === fields.content.proven && reader === fields.reader) return []
    return [...keep, { do: 'record', path: recordOf(base), of: base, fields, stamp: file.stamp, why }]
  },
})

async function inspectBase(base: string, settings: Settings): Promise<{ base: Found | undefined; halfAside?: string }> {
  const file = baseFileAt(base)
  const read = readRecord(base)
  if (!file) {
    const why = typeof read === 'object' && fileAt(quarantineOf(base)) ? read.quarantined?.why : undefined
    return { base: undefined, ...(why === undefined ? {} : { halfAside: why }) }
  }
  const record = read === 'torn' ? undefined : read
  const { originalsOf, proveBase } = await import('../../lib/image/proof.ts')
  const { contentOf } = await import('../../lib/image/content.ts')
  const rejected = await rejection(base, record, settings)
  // What was proven once is compared with its own digest: the store need not be asked.
  const originals = record?.content?.proven || rejected ? {} : await originalsOf(base, settings)
  const proof: Proof = rejected ? { is: 'other', why: rejected } : await proveBase(base, { ...file, record }, originals)
  const found = {
    file,
    record,
    torn: read === 'torn',
    proof,
    content: proof.is === 'other' ? '' : await contentOf(base),
    identity: originals.identity,
    rejected,
    ...(proof.is === 'equal' ? { users: [], doubt: undefined } : await usersOf(base, settings)),
    aside: fileAt(quarantineOf(base)) !== undefined,
    now: new Date().toISOString(),
  }
  return { base: found }
}

const isOfImage = (base: string): boolean => ['image', 'sized'].includes(kindOfBase(basename(base)))

/** What a base that is right is known as from now on, and what people are told of it. */
function renewed({ file, record, proof, content, identity }: Found, base: string) {
  const { quarantined, ...kept } = record ?? { version: 1, adopted: true, quarantined: undefined }
  const proven = proof.proven ?? false
  const fields = {
    ...kept,
    // Only what is proven to be of an image is called after it.
    ...(proven && !record?.digest ? identity : {}),
    content: { digest: content, stamp: file.stamp, ...(proven ? { proven } : {}) },
    ...(isOfImage(base) ? { reader: readerVersion } : {}),
  }
  if (quarantined) return { fields, why: 'it is right again' }
  if (proven) return { fields, why: 'proven' }
  if (record?.content) return { fields, why: 'its content is what it was' }
  return { fields, why: 'there is nothing to compare it with: what is in it now was recorded, not proven' }
}

const alarm = (base: string, why: string, state: string, remedy: string): Action => ({
  do: 'alarm',
  code: 'BASE_DIFFERS',
  message: `Cannot use base "${base}": ${why}; ${state}`,
  remedy,
})

/** The base is out of the way; its record follows: the other way round the base would be taken for another tool's. */
function finishAside(base: string, why: string): Action[] {
  const there = quarantineOf(base)
  return [
    { do: 'set-aside', from: recordOf(base), to: recordOf(there), why },
    alarm(
      base,
      why,
      `nothing stands on it, and it was set aside as ${there}`,
      `the next create makes it anew; look at what became of it, and remove it: rm ${there}`,
    ),
  ]
}

/** @param isUnknown nothing says that it is wrong, and nothing that it is right */
function quarantine(base: string, found: Found, why: string, isUnknown = false): Action[] {
  const { record, users, doubt, aside, now } = found
  const there = quarantineOf(base)
  const isFree = users.length === 0 && doubt === undefined
  // What the record says of the base as it was stays: by that it is known when it is put back.
  const { size, stamp } = found.file
  const marks = { ...(record ?? { version: 1, adopted: true, size, stamp }), quarantined: { since: now, why } }
  const mark: Action = { do: 'write', path: recordOf(base), text: `${JSON.stringify(marks, null, 2)}\n`, mode: 0o644 }
  const marked = record?.quarantined ? [] : [mark]
  if (isFree && !aside) return [...marked, { do: 'set-aside', from: base, to: there, why }, ...finishAside(base, why)]
  const standing =
    users.length > 0 ? `on it stand ${instancesOf(users).join(', ')}` : `who stands on it cannot be told: ${doubt}`
  const [state, remedy] = isFree
    ? [`nothing stands on it, but ${there} is there already`, `look at that, and remove it: rm ${there}`]
    : [standing, 'put back what was in it, or remove these instances']
  const again = `${remedy}; then: cowhand cache verify ${basename(base)}`
  return [...(isUnknown ? [] : marked), alarm(base, why, state, again)]
}

/** Of `web1/disk`, `web1/libvirt.xml` and `domain web1` people want to know that it is web1. */
const instancesOf = (users: string[]): string[] => [
  ...new Set(
    users.map((user) => (user.startsWith('_base/') ? user : user.replace(/^domain /, '').replace(/\/.*/, ''))),
  ),
]

/** Why our reader, as it is now, does not take this base; it is asked once for each version. */
async function rejection(base: string, record: BaseRecord | undefined, { image_ceiling: ceiling }: Settings) {
  if (!isOfImage(base) || (record?.reader ?? 0) >= readerVersion) return undefined
  try {
    const { examine } = await import('../../lib/image/examine.ts')
    await examine(base, { format: 'raw', ceiling })
    return undefined
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    return error.message.replace(/^Cannot use image ".*?": /, '')
  }
}

async function usersOf(base: string, { instances, libvirt_uri }: Settings): Promise<Pick<Found, 'users' | 'doubt'>> {
  try {
    const { usageOf } = await import('../../lib/host/usage.ts')
    const { users, doubts } = await usageOf(instances, libvirt_uri)
    const [first] = doubts
    return { users: users.get(basename(base)) ?? [], doubt: first && `${first.path}: ${first.state}` }
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    return { users: [], doubt: error.message }
  }
}
