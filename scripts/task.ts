import type { Typed } from '../lib/cli/flags.ts'
import { asJson, oneLine, printable } from '../lib/cli/printable.ts'
import { interrupt } from '../lib/host/interrupt.ts'
import type { Tell } from '../lib/job/events.ts'
import { joint, Problem, problemIn, refuse } from '../lib/job/problem.ts'
import type { Query } from '../lib/job/query.ts'
import type { Result, StepResult } from '../lib/job/result.ts'
import type { Settings } from '../lib/job/settings.ts'
import type { Call } from '../lib/job/step.ts'
import type { Found } from './find.ts'
import { openWorld } from './world.ts'

/** What one call of the program came to. */
export interface Outcome {
  text: string
  document: Record<string, unknown>
  exit: number
  /** Printed even where nobody looks: it is what was asked for. */
  wanted: boolean
}

/** Everything outside the process that a run of the program has; the crash test listens in on `onEvent`. */
export interface Process {
  argv: string[]
  environment: NodeJS.ProcessEnv
  isTerminal: { in: boolean; out: boolean; err: boolean }
  columns: number
  onEvent?: Tell
}

/** Look, and say what was seen. */
export async function runQuery(command: Query, typed: Typed, settings: Settings): Promise<Outcome> {
  const { jobFrom } = await import('../lib/cli/flags.ts')
  const { data, text, ok = true } = await command.run(jobFrom(command, typed.job), settings)
  const document = { version: 1, task: command.name, ok, changed: false, ...data }
  return { text: text && `${printable(text).replace(/\n$/, '')}\n`, document, exit: ok ? 0 : 1, wanted: true }
}

type Task = Exclude<Found, { kind: 'query' }>

/**
 * Plan, and unless it is a dry run, do it.
 * @throws {Failed} with the result document
 */
export async function runTask(
  task: Task,
  typed: Typed,
  settings: Settings,
  from: Process,
  tell: Tell,
  signal: AbortSignal,
): Promise<Outcome> {
  const { jobFrom } = await import('../lib/cli/flags.ts')
  const { globals } = typed
  const whole = jobFrom<Record<string, unknown>>(task.command, typed.job)
  const jobs = (task.kind === 'pipeline' && (task.command.each?.(whole) as (typeof whole)[] | undefined)) || [whole]
  const runOne = (job: Record<string, unknown>) => runJob(task, job, globals, settings, from, tell, signal)
  const [only] = jobs
  const limit = (task.kind === 'pipeline' && task.command.parallel?.(whole)) || 1
  const result = jobs.length === 1 && only ? await runOne(only) : await runEach(task, jobs, runOne, limit)
  const [dryRun, verbose] = [globals['dry-run'] === true, globals['verbose'] === true]
  const wanted = dryRun || verbose || from.isTerminal.out
  // It is piped on, so nothing else may be there.
  if (result.handOver) return { text: `${asJson(result.handOver, 2)}\n`, document: result, exit: 0, wanted: true }
  return { text: wanted ? await textOf(result, dryRun, verbose, from) : '', document: result, exit: 0, wanted }
}

/** What a job is about, if it is one instance. */
function instanceOf(task: Task, job: Record<string, unknown>): string | undefined {
  const { name } = task.kind === 'pipeline' && task.command.instance ? { name: task.command.instance(job) } : job
  const [one, ...more] = Array.isArray(name) ? name : [name]
  return typeof one === 'string' && more.length === 0 && !task.command.name.startsWith('image') ? one : undefined
}

/**
 * Do jobs that have nothing to do with each other, some at once: when one fails, the others are done all the same.
 * @throws {Failed} with one document of all
 */
async function runEach(
  task: Task,
  jobs: Record<string, unknown>[],
  runOne: (job: Record<string, unknown>) => Promise<Result>,
  limit: number,
): Promise<Result> {
  const results: Result[] = []
  const problems: Problem[] = []
  const left = [...jobs.entries()]
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) {
      const [index, job] = next
      try {
        results[index] = await runOne(job)
      } catch (error) {
        if (!(error instanceof Failed)) throw error
        results[index] = error.document
        problems.push(error.problem)
        // Who stops one of them stops all.
        if (error.problem.code === 'INTERRUPTED') left.length = 0
      }
    }
  }
  await Promise.all(Array.from({ length: limit }, work))
  const named = (result: Result) => (text: string) => `${result.instance}: ${text}`
  const sum = (key: 'fetched' | 'sent') => results.reduce((bytes, result) => bytes + (result.bytes?.[key] ?? 0), 0)
  const words = (key: 'reasons' | 'warnings') => {
    const all = results.flatMap((result) => (result[key] ?? []).map(named(result)))
    return all.length > 0 ? { [key]: all } : {}
  }
  const whole: Result = {
    version: 1,
    task: task.command.name,
    ok: problems.length === 0,
    changed: results.some(({ changed }) => changed),
    ...words('reasons'),
    ...words('warnings'),
    steps: results.flatMap((result) =>
      result.steps.map((step) => ({ ...step, about: [result.instance, step.about].filter(Boolean).join(' ') })),
    ),
    bytes: { fetched: sum('fetched'), sent: sum('sent') },
  }
  const [first] = problems
  if (!first) return whole
  const message = problems.map((problem) => problem.message).join(joint)
  const { kind, code, remedy } = first
  throw new Failed(new Problem(kind, code, message, remedy), { ...whole, error: { kind, code, message, remedy } })
}

async function runJob(
  task: Task,
  job: Record<string, unknown>,
  globals: Record<string, unknown>,
  settings: Settings,
  from: Process,
  tell: Tell,
  signal: AbortSignal,
): Promise<Result> {
  const { oneByOne, planAll, runAll, Stopped } = await import('../lib/job/runner.ts')
  const dryRun = globals['dry-run'] === true
  const instance = instanceOf(task, job)
  let result: Result = {
    version: 1,
    task: task.command.name,
    ok: true,
    changed: false,
    ...(instance === undefined ? {} : { instance }),
    steps: [],
  }
  try {
    const pipeline = task.kind === 'pipeline' ? task.command : undefined
    let claims: string[] = []
    let found: unknown
    const callsOf = async (claimed?: ReadonlySet<string>): Promise<Call[]> => {
      if (task.kind === 'step') return [task.call(job)]
      found = await task.command.look(job, settings)
      const reasons = task.command.reasons?.(job, found, settings, claimed)
      if (reasons) result.reasons = reasons
      const warnings = task.command.warnings?.(job, found, settings)
      if (warnings) result.warnings = warnings
      claims = task.command.claims?.(job, found) ?? []
      return task.command.calls(job, found, settings, claimed)
    }
    const locks = pipeline?.locks?.(job) ?? []
    const what = [task.command.name, instance].filter(Boolean).join(' ')
    const worldFor = (its: AbortSignal, words: string) => openWorld(settings, tell, its, globals, words)
    const isIndependent = pipeline?.independent === true
    const planned = (call: Call) => planAll([call], settings)
    // What is independent is looked at when its turn comes: that may take as long as the work itself.
    const foresee = async (): Promise<{ calls: Call[]; foreseen: StepResult[] }> => {
      const calls = await callsOf()
      if (isIndependent) return { calls, foreseen: dryRun ? await oneByOne(calls, planned) : [] }
      return { calls, foreseen: await planAll(calls, settings) }
    }
    const { calls, foreseen } = await foresee().catch(async (error) => {
      // While somebody else is at work on it, half of that was seen: who it is, is told, or it is looked at anew after.
      if (dryRun || signal.aborted || !(await (await worldFor(signal, what)).waited(locks))) throw error
      return foresee()
    })
    let done = foreseen
    const said = new Set([
      ...(result.warnings ?? []),
      ...calls.flatMap(({ step, input }) => step.warnings?.(input) ?? []),
    ])
    if (said.size > 0) result.warnings = [...said]
    let bytes = { fetched: 0, sent: 0 }
    if (!dryRun) {
      const destroyed = pipeline?.destroys?.(job)
      if (destroyed !== undefined && done.some(({ status }) => status === 'planned'))
        await confirm(destroyed, globals['yes'] === true, from, signal)
      const world = await worldFor(signal, what)
      const runOne = async (call: Call) => {
        await planned(call)
        return runAll(() => [call], [], world)
      }
      const goBack = async (cause: unknown) => {
        interrupt.renew()
        const back = await pipeline?.undo?.(job, settings, cause)
        return back && { ...back, world: await worldFor(interrupt.signal, `undo ${what}`) }
      }
      done = isIndependent
        ? await oneByOne(calls, runOne)
        : await runAll(callsOf, locks, world, claims, pipeline?.undo && goBack)
      const { effects } = world
      bytes = { fetched: effects.fetched, sent: effects.sent }
      if (effects.downtime !== undefined) result.downtimeSeconds = effects.downtime
    }
    result = { ...result, changed: done.some(({ changed }) => changed), steps: done, bytes }
    const handOver = dryRun ? undefined : await pipeline?.handOver?.(job, found, settings)
    if (handOver) result.handOver = handOver
    // Only the document tells of them.
    if (instance !== undefined && !dryRun && globals['json'] === true) {
      const { disksOf } = await import('../lib/host/instances.ts')
      result.disks = await disksOf(settings.instances, instance)
    }
    return result
  } catch (error) {
    const stopped = error instanceof Stopped ? error : undefined
    const steps = stopped?.steps ?? []
    const problem = asProblem(stopped ? stopped.cause : error, globals['verbose'] === true)
    const step = (steps.find(({ status }) => status === 'failed') ?? steps.at(-1))?.step
    const { code, kind, message, remedy } = problem
    result = {
      ...result,
      ok: false,
      changed: steps.some(({ changed }) => changed),
      steps,
      error: { code, kind, message, remedy, ...(step === undefined ? {} : { step }) },
    }
    throw new Failed(problem, result)
  }
}

async function textOf(result: Result, dryRun: boolean, verbose: boolean, from: Process): Promise<string> {
  const { coloursFor, reportTask } = await import('../lib/cli/report.ts')
  return `${reportTask(result, { dryRun, verbose, colours: coloursFor(from.isTerminal.out, from.environment) })}\n`
}

/** A task that failed, with its result document. */
export class Failed extends Error {
  readonly document: Result
  readonly problem: Problem
  constructor(problem: Problem, document: Result) {
    super(problem.message)
    this.problem = problem
    this.document = document
  }
}

/** @throws {Problem} CONFIRMATION_NEEDED unless somebody says yes */
async function confirm(what: string, isSure: boolean, { isTerminal }: Process, signal: AbortSignal): Promise<void> {
  if (isSure) return
  const remedy = 'say that you are sure: --yes'
  if (!isTerminal.in || !isTerminal.err)
    refuse('CONFIRMATION_NEEDED', `Cannot delete ${what}: there is nobody to ask`, remedy)
  const { createInterface } = await import('node:readline/promises')
  const { stdin: input, stderr: output } = await import('node:process')
  // The terminal edits the line itself: then it also sends its signals, Ctrl-C and that it hangs up.
  const asker = createInterface({ input, output, terminal: false })
  // The end of the input answers no question.
  const gone = new Promise<string>((resolve) => asker.once('close', () => resolve('')))
  const stopped = new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  const question = asker.question(`Delete ${oneLine(what)}? This cannot be undone [y/N] `)
  const answer = await Promise.race([question, gone, stopped]).finally(() => asker.close())
  if (!/^y(es)?$/i.test(answer.trim()))
    refuse('CONFIRMATION_NEEDED', `Cannot delete ${what}: you did not say yes`, remedy)
}

/** Whatever was thrown, as a problem: what is none of ours is a fault of cowhand. */
export function asProblem(error: unknown, verbose: boolean): Problem {
  const problem = problemIn(error)
  if (problem) return problem
  const words = error instanceof Error ? (verbose ? error.stack : error.message) : String(error)
  return new Problem(
    'failed',
    'INTERNAL',
    `Cannot go on: ${words}`,
    'this is a fault of cowhand: please report it with the output of the same command and --verbose',
  )
}
