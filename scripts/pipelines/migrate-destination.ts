import * as z from 'zod/mini'
import { instanceLock } from '../../lib/job/layout.ts'
import { MoveReference, Offer, Order, type Phase, phases } from '../../lib/job/move.ts'
import { described } from '../../lib/job/spec.ts'
import { definePipeline } from '../../lib/job/step.ts'
import { documentFlag, documentIn, type Given, signed } from '../moves/documents.ts'
import { destinationCalls, wordsFor } from '../moves/there.ts'

interface Job {
  phase: Phase
  document: Given
}

/** The document that a phase goes by. @throws {Problem} BAD_SPEC, VERSION_MISMATCH */
function documentOf({ phase, document }: Job): Offer | Order | MoveReference {
  const from = (source: string) => `migrate-source NAME --to HOST --phase ${source}`
  if (phase === 'look') return documentIn(document, Offer, { what: 'offer of a source', from: from('offer') })
  const what = 'hand-over document'
  if (phase === 'prepare') return documentIn(document, Order, { what, from: from('order') })
  if (phase === 'finish') return documentIn(document, Order, { what, from: from('send') })
  return documentIn(document, z.union([Order, MoveReference]), { what, from: from('order') })
}

const isLooking = ({ phase }: Job): boolean => phase === 'look' || phase === 'status'

export const migrateDestination = definePipeline({
  name: 'migrate-destination',
  summary: "The destination's half of a resize or migration, for an orchestrator that drives both hosts",
  positional: ['document'],
  examples: [
    ['cowhand migrate-destination --phase look offer.json > answer.json', 'what this host has; changes nothing'],
    ['cowhand migrate-destination --phase prepare order.json > ready.json', 'bases and a place; the guest runs still'],
    ['cowhand migrate-destination --phase finish sent.json > there.json', 'prove what was sent, and start the guest'],
    ['cowhand migrate-destination --phase undo order.json --yes', 'it was given up: all of it goes, but for bases'],
  ],
  job: z.strictObject({
    phase: described(z.enum(phases), 'look, prepare, finish; undo; or status: whether it is there, and runs'),
    document: described(documentFlag, 'file with what the source has printed last; - for standard input'),
  }),
  instance: (job) => documentOf(job).name,
  destroys: (job) => (job.phase === 'undo' ? `what has arrived of "${documentOf(job).name}"` : undefined),
  // On shared storage as well: here nobody holds it for us.
  locks: (job) => (isLooking(job) ? [] : [instanceLock(documentOf(job).name)]),
  look: async (job, settings) => destinationCalls(job.phase, documentOf(job), settings),
  calls: (_, found) => found,
  handOver: async (job, _, settings) => {
    const words = await wordsFor(job.phase, documentOf(job), settings)
    return 'version' in words ? signed(words) : words
  },
})
