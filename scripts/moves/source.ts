import { type Moved, movedAt } from '../../lib/host/moves.ts'
import type { Task } from '../../lib/job/instance.ts'
import { Answer } from '../../lib/job/move.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { agreementOf, unmeasured } from '../../lib/job/ways.ts'
import { documentIn, type Given } from './documents.ts'
import type { MoveJob } from './flags.ts'
import { type FoundMove, type Offered, offerOf, orderOf, requireSameTask } from './look.ts'

// The source's half of a move, where an orchestrator carries what the hosts tell each other: what the other host is
// asked for in a whole move is in a document here.

export const sourcePhases = ['offer', 'order', 'bases', 'send', 'fence'] as const

export type SourceJob = MoveJob & { to: string; phase: (typeof sourcePhases)[number]; answer?: Given | undefined }

export interface FoundSource {
  moved: Moved
  task: Task
  uuid: string
  offered?: Offered
  /** Of an offer: bases to be read, for the other host cannot tell without whether it has them. */
  unread?: string[]
  /** What follows from the answer. */
  found?: FoundMove
}

/**
 * What a phase of the source follows from.
 * @throws {Problem} BAD_SPEC for a wrong document; HALVES_DIFFER where the halves do not mean the same; MOVE_UNFINISHED,
 *   MISSING_PREREQUISITE for a phase whose turn has not come; BASE_UNPROVEN; as lookForMove
 */
export async function lookAtSource(job: SourceJob, settings: Settings): Promise<FoundSource> {
  const { name, to, phase } = job
  const moved = movedAt(settings.instances, name)
  const { task: begun } = moved
  if (!begun && phase !== 'offer')
    refuse(
      'MISSING_PREREQUISITE',
      `Cannot ${phase} "${name}": no resize or migration of it was begun here`,
      `begin it: cowhand migrate-source ${name} --to ${to} --phase offer`,
    )
  const { root, ephemeral, swap } = job
  const isLarger = [root, ephemeral, swap].some((size) => size !== undefined)
  const kind = begun?.kind ?? (isLarger ? 'resize' : 'migrate')
  // What the offer was made for holds for all that follows; what is said again has to be the same.
  const sizes = { root: root ?? begun?.root, ephemeral: ephemeral ?? begun?.ephemeral, swap: swap ?? begun?.swap }
  if (phase === 'fence' && begun) {
    requireSameTask(kind, name, begun, { kind, host: to, ...sizes, root: sizes.root ?? 0 })
    if (begun.phase !== 'done') requireThere(job, answerFor(job, begun.move), begun)
    return { moved, task: begun, uuid: moved.kept?.uuid ?? moved.here?.uuid ?? '' }
  }
  const offered = await offerOf(kind, { ...job, ...sizes }, settings, { evenDone: true })
  if ('because' in offered) throw new TypeError(offered.because)
  const { offer, task, uuid } = offered
  const of = { moved, task, uuid, offered }
  if (phase === 'offer' && job.answer === undefined) return of
  const answer = answerFor(job, task.move)
  const unread = answer.instance === 'absent' ? unmeasured(offer, answer) : []
  if (phase === 'offer') return { ...of, unread }
  if (unread.length > 0)
    refuse(
      'BASE_UNPROVEN',
      `Cannot ${phase} "${name}": ${to} cannot tell without its content whether it has base ${unread.join(', ')}`,
      `tell it: cowhand migrate-source ${name} --to ${to} --phase offer --answer FILE; and let it look again`,
    )
  const found = await orderOf(offered, answer, job, settings)
  if (phase !== 'order' && task.phase !== 'done') requirePrepared(job, found)
  return { ...of, found }
}

/** What the destination has said of this very move. @throws {Problem} BAD_SPEC, HALVES_DIFFER */
function answerFor({ name, to, phase, answer: given }: SourceJob, move: string): Answer {
  const from = `migrate-destination --phase ${phase === 'fence' ? 'finish' : phase === 'order' ? 'look' : 'prepare'}`
  if (given === undefined)
    return misuse(
      `Cannot ${phase} "${name}": what ${to} has answered is not given`,
      `add --answer, with what this printed: cowhand ${from}`,
    )
  const answer = documentIn(given, Answer, { what: 'answer of a destination', from })
  if (answer.move !== move)
    refuse(
      'HALVES_DIFFER',
      `Cannot ${phase} "${name}": the answer is to another move, ${answer.move}, and this one is ${move}`,
      `offer it again, and give the answer to that: cowhand migrate-source ${name} --to ${to} --phase offer`,
    )
  return answer
}

/**
 * The other host has made ready for what would be sent, before the guest is switched off.
 * @throws {Problem} MISSING_PREREQUISITE, HALVES_DIFFER
 */
function requirePrepared({ name, to, phase }: SourceJob, { order, answer }: FoundMove): void {
  const { prepared, instance } = answer
  if (instance === 'arrived') return
  if (!prepared)
    refuse(
      'MISSING_PREREQUISITE',
      `Cannot ${phase} "${name}": the answer does not say that ${to} is ready for it`,
      `on ${to}: cowhand migrate-destination --phase prepare; and give what that prints`,
    )
  if (prepared.agreement !== agreementOf(order))
    refuse(
      'HALVES_DIFFER',
      `Cannot ${phase} "${name}": ${to} is ready for something else than what would be sent`,
      `order it again, with the same flags, and have that prepared: cowhand migrate-source ${name} --to ${to} --phase order --answer FILE`,
    )
  if (phase === 'send' && prepared.lacks.length > 0)
    refuse(
      'MISSING_PREREQUISITE',
      `Cannot send "${name}": ${to} lacks base ${prepared.lacks.join(', ')}`,
      `cowhand migrate-source ${name} --to ${to} --phase bases --answer FILE; then have it prepared again`,
    )
}

/** It is there, and runs if it is to: only then this host must not start it any more. @throws {Problem} */
function requireThere({ name, to }: SourceJob, { instance, shared, running }: Answer, { run }: Task): void {
  const isThere = (shared || instance === 'arrived') && (running || !run)
  if (isThere) return
  refuse(
    'MISSING_PREREQUISITE',
    `Cannot fence "${name}": the answer does not say that it ${run ? 'runs' : 'is'} on ${to}`,
    `on ${to}: cowhand migrate-destination --phase finish; and give what that prints`,
  )
}
