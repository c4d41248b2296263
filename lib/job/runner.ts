import { type Action, costOf, sayAction } from './action.ts'
import type { Tell } from './events.ts'
import { fail, joint, Problem, problemIn } from './problem.ts'
import type { StepResult } from './result.ts'
import type { Settings } from './settings.ts'
import type { Call } from './step.ts'

/** What the runner needs of the outside; tests cut it off here. */
export interface World {
  settings: Settings
  tell: Tell
  /** Do one action. @throws {Problem} when it cannot be done */
  perform: (action: Action) => Promise<void>
  /** True afterwards: what was done survives a power cut. */
  flush: () => void
  /** Hold a lock until it is given back. @param wait seconds, where they are not the caller's */
  lock: (name: string, wait?: number) => Promise<Held>
}

export interface Held {
  assertHeld: () => void
  release: () => void
}

/** The steps so far are kept on the error, so that a report can show how far it came. */
export class Stopped extends Error {
  readonly steps: StepResult[]
  constructor(steps: StepResult[], cause: unknown) {
    super('stopped', { cause })
    this.steps = steps
  }
}

const published = (action: Action): string[] => {
  if (action.do === 'publish' || action.do === 'rename') return [action.to]
  return action.do === 'write' || action.do === 'mkdir' || action.do === 'record' ? [action.path] : []
}

/** The unfinished file that an action makes, and the one that it does away with. */
const makes = (action: Action): string | undefined => {
  if (action.do === 'run') return action.writes
  if (action.do === 'allocate' || action.do === 'overlay') return action.path
  if (action.do === 'flatten') return action.to
  return action.do === 'copy' || action.do === 'unpack' || action.do === 'fetch' || action.do === 'rename'
    ? action.to
    : undefined
}
const ends = (action: Action): string | undefined => {
  if (action.do === 'remove') return action.path
  return action.do === 'publish' || action.do === 'rename' ? action.from : undefined
}

/**
 * What a step that stopped leaves unfinished and is of no more use. A download goes on where it was the next time,
 * unless what it brought was rejected.
 */
function scraps(begun: Action[], problem: unknown): string[] {
  // Not for a missing tool or permission: hours of downloading would be lost.
  const isRejected = problem instanceof Problem && problem.code === 'IMAGE_REJECTED'
  const paths = new Set<string>()
  for (const action of begun) {
    const [made, ended] = [makes(action), ends(action)]
    if (ended !== undefined) paths.delete(ended)
    if (made !== undefined && (isRejected || action.do !== 'fetch')) paths.add(made)
  }
  return [...paths]
}

type Title = Pick<StepResult, 'step' | 'about'>
const titleOf = ({ step, input }: Call): Title =>
  step.about ? { step: step.name, about: step.about(input) } : { step: step.name }

const asResult = (title: Title, actions: Action[], status: StepResult['status'], seconds = 0): StepResult => ({
  ...title,
  status,
  changed: status === 'changed',
  seconds,
  // What another host does for it is told in that host's words; space is taken there, not here.
  actions: actions.flatMap((action) => [
    { action: sayAction(action), ...costOf(action) },
    ...(action.do === 'ask'
      ? action.plan.map(({ space: _, ...its }) => ({ ...its, action: `${action.host}: ${its.action}` }))
      : []),
  ]),
})

/**
 * Locks are looked at again after so many ms: to look at hundreds before each of a thousand removals would take longer
 * than the work. Nobody takes one from us in less than minutes.
 */
const assured = 20

/** Refusals that an earlier step of the same plan may do away with. */
const waits: string[] = ['MISSING_PREREQUISITE', 'IN_USE']

/** One look and the plan that follows from it. `ahead`: paths that earlier steps of this plan are going to make. */
async function planOf({ step, input }: Call, settings: Settings, ahead: ReadonlySet<string>): Promise<Action[]> {
  return step.plan(input, await step.inspect(input, settings, ahead))
}

/**
 * The whole plan, with nothing changed: this is the dry run, and it comes before every run, so that whatever can be
 * refused is refused while everything is still as it was.
 * @param isNext another host has steps to do before, which are not among these
 * @throws {Stopped} at the first step that refuses
 */
export async function planAll(calls: Call[], settings: Settings, isNext = false): Promise<StepResult[]> {
  const ahead = new Set<string>()
  const results: StepResult[] = []
  for (const call of calls) {
    const title = titleOf(call)
    try {
      const actions = await planOf(call, settings, ahead)
      for (const path of actions.flatMap(published)) ahead.add(path)
      results.push(asResult(title, actions, actions.length > 0 ? 'planned' : 'ok'))
    } catch (problem) {
      // What an earlier step will change cannot be looked at yet, so this one cannot be foreseen.
      if (
        problem instanceof Problem &&
        waits.includes(problem.code) &&
        (isNext || results.some(({ status }) => status === 'planned'))
      )
        results.push(asResult(title, [], 'pending'))
      else throw new Stopped([...results, asResult(title, [], 'failed')], problem)
    }
  }
  return results
}

/** How everything becomes as it was before a job that failed. `said`: what it is then, behind `undone:`. */
export interface GoingBack {
  calls: Call[]
  said: string
  /** One that is not interrupted. */
  world: World
}

/**
 * Run the calls in turn: under its locks each step looks, plans, acts and looks again; then nothing may be left.
 * A lock is kept from step to step while a later one needs it too, so that nobody comes in between.
 * @param callsOf looks what the calls follow from: under the job's locks, for who had them may have changed it
 * @param claims locks that are taken as far as they are free; `callsOf` is told which
 * @param goBack asked when a step failed; undefined: nothing is to be undone
 * @throws {Stopped} with the steps so far
 */
export async function runAll(
  callsOf: (claimed: ReadonlySet<string>) => Call[] | Promise<Call[]>,
  jobLocks: string[],
  world: World,
  claims: string[] = [],
  goBack?: (cause: unknown) => Promise<GoingBack | undefined>,
): Promise<StepResult[]> {
  const held = new Map<string, Held>()
  const hold = async (names: string[]) => {
    for (const name of names) if (!held.has(name)) held.set(name, await world.lock(name))
  }
  const letGo = (keep: string[]) => {
    for (const [name, lock] of held) {
      if (keep.includes(name)) continue
      held.delete(name)
      lock.release()
    }
  }
  let lookedAt = Number.NEGATIVE_INFINITY
  const assertHeld = () => {
    if (performance.now() - lookedAt < assured) return
    for (const lock of held.values()) lock.assertHeld()
    lookedAt = performance.now()
  }
  const results: StepResult[] = []
  let title: Title | undefined
  let begun: Action[] = []
  const doAll = async (calls: Call[], { settings, tell, perform, flush }: World) => {
    const needs = calls.map(({ step, input }) => step.locks?.(input) ?? [])
    for (const [index, call] of calls.entries()) {
      const { name } = call.step
      title = titleOf(call)
      const started = performance.now()
      await hold(needs[index] ?? [])
      const actions = await planOf(call, settings, new Set())
      tell({ type: 'step', step: name, status: actions.length > 0 ? 'running' : 'ok' })
      for (const action of actions) {
        tell({ type: 'action', step: name, action: sayAction(action) })
        assertHeld()
        begun.push(action)
        await perform(action)
      }
      begun = []
      if (actions.length > 0) {
        flush()
        await settle(call, settings)
      }
      const seconds = (performance.now() - started) / 1000
      results.push(asResult(title, actions, actions.length > 0 ? 'changed' : 'ok', seconds))
      tell({ type: 'step', step: name, status: actions.length > 0 ? 'changed' : 'ok' })
      letGo([...jobLocks, ...needs.slice(index + 1).flat()])
    }
  }
  const failed = () => {
    // An alarm is the last thing: what came before it was done.
    const done = begun.at(-1)?.do === 'alarm' ? begun.slice(0, -1) : []
    if (title) results.push({ ...asResult(title, done, 'failed'), changed: done.length > 0 })
    title = undefined
  }
  try {
    await hold(jobLocks)
    const claimed = new Set<string>()
    for (const claim of claims) {
      // Never waited for: who holds several and waits for one more could wait for one that waits for it.
      const lock = await world.lock(claim, 0).catch(unlessLocked)
      if (!lock) continue
      held.set(claim, lock)
      claimed.add(claim)
    }
    await doAll(await callsOf(claimed), world)
    return results
  } catch (cause) {
    // Without its locks, or interrupted, it stays: the next run finds it.
    for (const path of scraps(begun, cause)) {
      try {
        for (const lock of held.values()) lock.assertHeld()
        await world.perform({ do: 'remove', path })
      } catch {
        break
      }
    }
    const isAtWork = title !== undefined
    failed()
    throw new Stopped(results, isAtWork && goBack ? await undo(cause) : cause)
  } finally {
    letGo([])
  }

  /** @returns what is told in the end: the first problem, and what became of the attempt to go back */
  async function undo(cause: unknown): Promise<unknown> {
    begun = []
    try {
      const back = await goBack?.(cause)
      if (!back) return cause
      letGo(jobLocks)
      await doAll(back.calls, back.world)
      // There is nothing any more that it could go on with.
      const isInterrupted = cause instanceof Problem && cause.code === 'INTERRUPTED'
      return withWords(cause, ` (undone: ${back.said})`, isInterrupted ? 'run the same command again' : undefined)
    } catch (second) {
      failed()
      const words = second instanceof Error ? second.message : String(second)
      const remedy = second instanceof Problem ? second.remedy : undefined
      return withWords(cause, `${joint}it could not be undone: ${words}`, remedy)
    }
  }
}

/** The same problem (also what it makes of the exit code), with more words; what is none of ours stays as it is. */
function withWords(cause: unknown, words: string, remedy?: string): unknown {
  const problem = problemIn(cause)
  if (!problem) return cause
  const told: Problem = Object.create(Object.getPrototypeOf(problem), Object.getOwnPropertyDescriptors(problem))
  return Object.assign(told, { message: problem.message + words }, remedy === undefined ? {} : { remedy })
}

function unlessLocked(error: unknown): undefined {
  if (!(error instanceof Problem) || error.code !== 'LOCKED') throw error
}

/**
 * Do calls that have nothing to do with each other: when one fails, the next is done all the same.
 * @param work one call
 * @throws {Stopped} with all steps, and all that failed in one problem
 */
export async function oneByOne(calls: Call[], work: (call: Call) => Promise<StepResult[]>): Promise<StepResult[]> {
  const results: StepResult[] = []
  const problems: Problem[] = []
  for (const call of calls) {
    try {
      results.push(...(await work(call)))
    } catch (error) {
      if (!(error instanceof Stopped)) throw error
      const { cause, steps } = error
      if (!(cause instanceof Problem) || cause.code === 'INTERRUPTED') throw new Stopped([...results, ...steps], cause)
      results.push(...steps.map((step) => (step.status === 'failed' ? { ...step, error: cause.message } : step)))
      problems.push(cause)
    }
  }
  const [first] = problems
  if (!first) return results
  const message = problems.map((problem) => problem.message).join(joint)
  throw new Stopped(results, new Problem(first.kind, first.code, message, first.remedy))
}

/** Look again: what is still to do did not last (a guest that ended at once), or the step does not do what it says. */
async function settle(call: Call, settings: Settings): Promise<void> {
  const [left] = await planOf(call, settings, new Set())
  if (left)
    fail(
      'NOT_SETTLED',
      `Cannot finish "${call.step.name}": after it was done, this is to do again: ${sayAction(left)}`,
      'look at why it did not last (for a guest: its console.log), then run the same command again',
    )
}
