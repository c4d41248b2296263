import * as z from 'zod/mini'
import { probeOf } from '../../lib/host/files.ts'
import { movedAt } from '../../lib/host/moves.ts'
import { offeredDisks } from '../../lib/host/offered.ts'
import { basesOf, instanceLock } from '../../lib/job/layout.ts'
import { described, optional } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { backCalls } from '../moves/back.ts'
import { fenceCalls, handOverOf, moveReasons, sendBases, sendCalls } from '../moves/calls.ts'
import { documentFlag, signed } from '../moves/documents.ts'
import { hostOf, moveFlags, nameOf, sizeFlags } from '../moves/flags.ts'
import { lookAtSource, sourcePhases } from '../moves/source.ts'
import { recordTask } from '../steps/record-task.ts'
import { verifyBase } from '../steps/verify-base.ts'

export const migrateSource = definePipeline({
  name: 'migrate-source',
  summary: "The source's half of a resize or migration, for an orchestrator that drives both hosts",
  positional: ['name'],
  examples: [
    ['cowhand migrate-source web1 --to beta --phase offer > offer.json', 'what this host has; the guest runs'],
    ['cowhand migrate-source web1 --to beta --phase order --answer answer.json > order.json', 'what each is to do'],
    ['cowhand migrate-source web1 --to beta --phase bases --answer ready.json', 'what the other host lacks'],
    ['cowhand migrate-source web1 --to beta --phase send --answer ready.json > sent.json', 'the guest is switched off'],
    ['cowhand migrate-source web1 --to beta --phase fence --answer there.json', 'it runs there, and never again here'],
    ['cowhand revert web1 --without-host', 'go back, after: migrate-destination --phase undo'],
  ],
  job: z.strictObject({
    name: nameOf,
    to: hostOf,
    phase: described(z.enum(sourcePhases), 'offer, order, bases, send, fence: in this order'),
    answer: optional(documentFlag, 'file with what the destination has printed last; - for standard input'),
    ...sizeFlags,
    ...moveFlags,
  }),
  locks: ({ name }) => [instanceLock(name)],
  look: lookAtSource,
  reasons: (_, { found }) => (found ? moveReasons(found) : []),
  calls(job, { moved, task, uuid, unread = [], found }, settings) {
    const { phase, to, name } = job
    const begun = call(recordTask, { directory: moved.directory, 'in-hand': task })
    if (phase === 'offer')
      return [begun, ...unread.map((base) => call(verifyBase, { base: `${basesOf(settings.instances)}/${base}` }))]
    if (task.phase === 'done' || phase === 'order') return []
    if (phase === 'fence') return fenceCalls(name, { task, uuid }, settings, moved.directory)
    if (!found) return []
    return [begun, ...(phase === 'bases' ? sendBases : sendCalls)(to, job, found, settings)]
  },
  handOver: async (job, { offered, found, unread = [] }, settings) => {
    if (!offered || job.phase === 'bases') return undefined
    const { directory } = movedAt(settings.instances, job.name)
    // Each word that is written down gives the record another time of change.
    const probe = probeOf(`${directory}/instance.json`) ?? offered.offer.probe
    if (found) return signed({ ...(job.phase === 'send' ? handOverOf(job, found, settings) : found.order), probe })
    const disks = unread.length > 0 ? await offeredDisks(directory, settings) : offered.offer.disks
    return signed({ ...offered.offer, probe, disks })
  },
  // Nobody was told to start it so far: it goes on here, and what has arrived there is for the next try.
  undo: async ({ name, phase }, settings) => {
    const moved = movedAt(settings.instances, name)
    const { task } = moved
    if (phase !== 'send' || task?.phase !== 'begun') return undefined
    const runs = task.run ? ', and it runs' : ''
    return {
      calls: backCalls(name, { moved, task, isAsked: false, isTriedAgain: true }, settings),
      said: `${name} is as it was${runs}; what has arrived on ${task.host} stays for the next try`,
    }
  },
})
