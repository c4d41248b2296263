import { basename, dirname } from 'node:path'
import * as z from 'zod/mini'
import { type Base, baseAt, leftoversOf, planKnown, proofOf, requireSound } from '../../lib/host/bases.ts'
import { isSameBase } from '../../lib/host/compare.ts'
import { freeSpace, isOneFileSystem, ownFileAt, requireSpace } from '../../lib/host/files.ts'
import { endingReceivers, requireStage } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { readerVersion } from '../../lib/job/base.ts'
import { requireInBases } from '../../lib/job/clean.ts'
import { baseLock, isBaseFile, partOf, recordOf } from '../../lib/job/layout.ts'
import { BaseIdentity } from '../../lib/job/move.ts'
import { fail, misuse, refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const receiveBase = defineStep({
  name: 'receive-base',
  summary: 'Take a base that another host has sent into the cache, once it is proven',
  input: () =>
    z.strictObject({
      file: described(AbsolutePath, 'what was sent: NAME.incoming/part/FILE'),
      base: described(AbsolutePath, 'base that it is to become, in _base'),
      size: described(z.int(), 'what a guest sees in it, bytes'),
      identity: described(BaseIdentity, 'what it is, with the digest of its content'),
      host: described(z.string(), 'where it comes from'),
    }),
  about: ({ base }) => basename(base),
  locks: ({ base }) => [baseLock(base)],
  inspect: async ({ file, base, identity }, { instances, image_ceiling: ceiling }, ahead) => {
    requireStage(dirname(dirname(file)), instances)
    requireInBases([base], instances)
    const found = baseAt(base)
    const proof = await proofOf(base, found, {})
    return {
      base: found,
      proof,
      isSame: found && isUsable(base, found, proof) && (await isSameBase(base, found, identity)),
      part: ownFileAt(file),
      isComing: ahead.has(file),
      ending: await endingReceivers(dirname(dirname(file))),
      isOneFileSystem: isOneFileSystem(dirname(file), dirname(base)),
      leftovers: leftoversOf(base),
      free: freeSpace(dirname(base)),
      ceiling,
    }
  },
  plan({ file, base, size, identity, host }, found): Action[] {
    const remove = (path: string): Action => ({ do: 'remove', path })
    if (!isBaseFile(basename(base)) || basename(base).startsWith('.'))
      misuse(`Cannot receive base "${base}": that is no name of a base`, 'see what there is: cowhand cache list')
    const { content } = identity
    if (content === undefined)
      return refuse(
        'BASE_UNPROVEN',
        `Cannot receive base "${base}": ${host} does not tell the digest of its content`,
        `measure it there: cowhand cache verify ${basename(base)}`,
      )
    const known = { id: identity.id, name: identity.name, source: identity.source, owner: identity.owner }
    if (found.base) {
      requireSound(base, found.base, found.proof)
      if (!found.isSame)
        refuse(
          'BASE_DIFFERS',
          `Cannot receive base "${base}": there is one of this name, with another content than that of ${host}`,
          `find out which of them is right, on both hosts: cowhand cache verify ${basename(base)}`,
        )
      const stale = [...found.leftovers, ...(found.part ? [file] : [])]
      return [...planKnown(base, found.base, { proof: found.proof, identity: known }), ...stale.map(remove)]
    }
    if (!found.part && !found.isComing)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot receive base "${base}": "${file}" has not come`,
        'run the same command again, on the host that it comes from',
      )
    if (found.part && found.part.size !== size)
      fail(
        'CHECKSUM_MISMATCH',
        `Cannot receive base "${base}": "${file}" has ${found.part.size} bytes, and ${size} were sent`,
        'run the same command again: what differs is sent again',
      )
    const { digest, format, packing, shared, proven } = identity
    const isMade = digest !== undefined || proven === true
    const fields = {
      ...{ ...known, shared, digest, format, packing },
      ...{ receivedFrom: host, reader: readerVersion },
      // What nobody could prove there is as one that another tool made.
      ...(isMade ? {} : { adopted: true }),
    }
    const whole = found.isOneFileSystem ? file : partOf(base)
    if (whole !== file) requireSpace(found.part?.allocated ?? size, found.free, dirname(base))
    return [
      ...found.ending,
      { do: 'mkdir', path: dirname(base), mode: 0o755 },
      ...found.leftovers.map(remove),
      ...(whole === file ? [] : [{ do: 'copy', from: file, to: whole, size: found.part?.allocated ?? size } as const]),
      { do: 'examine', path: whole, format: 'raw', ceiling: found.ceiling },
      { do: 'measure', path: whole, proven: proven === true, digest: content },
      { do: 'record', path: recordOf(base), of: whole, fields },
      { do: 'publish', from: whole, to: base, mode: 0o644 },
      ...(whole === file ? [] : [remove(file)]),
    ]
  },
})

/** One that is not is not compared: the plan says why it cannot be used. */
function isUsable(path: string, base: Base, proof: Parameters<typeof requireSound>[2]): boolean {
  try {
    requireSound(path, base, proof)
    return true
  } catch {
    return false
  }
}
