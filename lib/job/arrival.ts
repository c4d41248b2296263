import * as z from 'zod/mini'
import type { Action } from './action.ts'
import { fail, refuse } from './problem.ts'
import { described } from './spec.ts'

/** What was sent of a file, by which it is proven. */
export const Sent = z.object({
  digest: described(z.string(), 'of its content, content-sha256:HEX'),
  size: described(z.int(), 'bytes'),
})
export type Sent = z.output<typeof Sent>

/** A file that arrives: in `part/` until it is proven, then in the stage. */
export interface Arrival {
  hasCome: boolean
  part: { size: number } | undefined
  /** An earlier step of the same plan brings it. */
  isComing: boolean
  /** Ends whoever still writes to it. */
  ending: Action[]
}

/** Other files than disks that travel with an instance: nothing that is sent can have another name, or lead elsewhere. */
export const isTravelling = (name: string): boolean =>
  ['disk.config', 'nvram.fd', 'console.log'].includes(name) || /^tpm\/[A-Za-z0-9][A-Za-z0-9._-]{0,100}$/.test(name)

/**
 * What is missing until a file that was sent is where it belongs: prove it, and only then give it its name.
 * @param sent left out where it was copied on this host, and only ever whole
 * @param prove more that it is asked, once its bytes are those that were sent
 * @throws {Problem} MISSING_PREREQUISITE, CHECKSUM_MISMATCH
 */
export function planArrival(
  { part, to, sent, mode }: { part: string; to: string; sent?: Sent | undefined; mode: number },
  found: Arrival,
  prove: Action[] = [],
): Action[] {
  // An instance goes on from what has come, so what may have been sent again is of no use.
  if (found.hasCome) return found.part ? [{ do: 'remove', path: part }] : []
  if (!found.part && !found.isComing)
    refuse(
      'MISSING_PREREQUISITE',
      `Cannot receive "${to}": "${part}" has not come`,
      'run the same command again, on the host that it comes from',
    )
  if (found.part && sent && found.part.size !== sent.size)
    fail(
      'CHECKSUM_MISMATCH',
      `Cannot receive "${to}": "${part}" has ${found.part.size} bytes, and ${sent.size} were sent`,
      'run the same command again: what differs is sent again',
    )
  return [
    ...found.ending,
    ...(sent ? [{ do: 'measure', path: part, digest: sent.digest } as const] : []),
    ...prove,
    { do: 'publish', from: part, to, mode },
  ]
}
