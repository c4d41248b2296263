import { freeSpace } from '../../lib/host/files.ts'
import { bootId } from '../../lib/host/holder.ts'
import type { Answer, Offer } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'

// What is answered to an offer: by another host, or by this very one.

/** This very host has what it has. */
export function answerHere(offer: Offer, { instances, libvirt_uri: uri }: Settings): Answer {
  const bases = offer.disks.flatMap(({ base }) => {
    if (!base) return []
    const { unsized } = base
    const short = unsized?.identity ? [{ name: unsized.name, is: 'equal' as const }] : []
    return [{ name: base.name, is: 'equal' as const, size: base.size }, ...short]
  })
  return {
    version: 1,
    move: offer.move,
    host: offer.host,
    boot: bootId(),
    instances,
    shared: false,
    libvirt: uri !== undefined,
    instance: 'absent',
    running: false,
    proven: [],
    free: freeSpace(instances),
    bases,
  }
}

export async function askFor(host: string, offer: Offer, settings: Settings): Promise<Answer> {
  const { destinationAt } = await import('../../lib/host/destination.ts')
  const { answer } = await (await destinationAt(host, settings)).ask('look', offer)
  if (!answer) throw new TypeError(`${host} gave no answer`)
  return answer
}

/** @throws {Problem} UNSUPPORTED where the answer is this very host's, or the same files have another path there */
export function requireOther(host: string, offer: Offer, answer: Answer): void {
  if (answer.host === offer.host && answer.boot === bootId())
    refuse(
      'UNSUPPORTED',
      `Cannot ${offer.kind} "${offer.name}" to "${host}": that is this very host`,
      offer.kind === 'resize' ? 'leave --to out' : 'name another host',
    )
  if (answer.shared && answer.instances !== offer.instances)
    refuse(
      'UNSUPPORTED',
      `Cannot move "${offer.name}" to "${host}": both see the same files, there at "${answer.instances}"`,
      `mount them at "${offer.instances}" there as well`,
    )
}
