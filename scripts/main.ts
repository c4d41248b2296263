import type { Typed } from '../lib/cli/flags.ts'
import { tryToWrite, writeAll } from '../lib/cli/output.ts'
import { asJson, oneLine } from '../lib/cli/printable.ts'
import type { ProgressMode } from '../lib/cli/progress.ts'
import { caller } from '../lib/host/caller.ts'
import { closeAll } from '../lib/host/closing.ts'
import { audience, interrupt } from '../lib/host/interrupt.ts'
import type { Tell } from '../lib/job/events.ts'
import { exitCode, misuse, Problem } from '../lib/job/problem.ts'
import manifest from '../package.json' with { type: 'json' }
import { type Found, splitWords, taskNamed } from './find.ts'
import { asProblem, Failed, type Outcome, type Process, runQuery, runTask } from './task.ts'

// The dispatcher: words or a job document in, one result out.

const interrupts = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const
class Interrupted extends Problem {
  readonly exit: number
  constructor(signal: keyof typeof interrupts) {
    super(
      'failed',
      'INTERRUPTED',
      `Cannot go on: interrupted by ${signal}`,
      'run the same command again: it goes on where it was',
    )
    this.exit = 128 + interrupts[signal]
  }
}

/** What was typed at the top: the version, the help, or a command. */
async function dispatch(
  from: Process,
  tell: (typed: Typed) => Promise<Tell>,
  signal: AbortSignal,
): Promise<{ outcome: Outcome; typed: Typed }> {
  const nothing: Typed = { job: {}, globals: {} }
  const { name, words } = splitWords(from.argv)
  if (name === '') {
    const { overview } = await import('./about.ts')
    if (words.length > 0 && !words.includes('--help') && !words.includes('-h'))
      misuse(`Cannot read "${words[0]}": no command is named`, 'see what there is: cowhand --help')
    return {
      outcome: { text: await overview(), document: {}, exit: words.length > 0 ? 0 : 2, wanted: true },
      typed: nothing,
    }
  }
  if (name === '__complete') {
    const { complete } = await import('./about.ts')
    return { outcome: { text: await complete(words), document: {}, exit: 0, wanted: true }, typed: nothing }
  }
  const { helpOf, readWords } = await import('../lib/cli/flags.ts')
  const { settingsFrom } = await import('../lib/cli/config.ts')
  if (name === '__serve') {
    const { serve, serveCommand } = await import('./serve.ts')
    const { answerPhase } = await import('./destination.ts')
    const { globals } = await readWords(serveCommand, words)
    await serve(answerPhase, await settingsFrom(globals, from.environment), from.onEvent)
    return { outcome: { text: '', document: {}, exit: 0, wanted: false }, typed: nothing }
  }
  let task: Found | undefined = name === 'run' ? undefined : await taskNamed(name)
  const command = task?.command ?? (await import('./run.ts')).runCommand
  if (words.includes('--help') || words.includes('-h'))
    return {
      outcome: { text: `${await helpOf(command, from.columns)}\n`, document: {}, exit: 0, wanted: true },
      typed: nothing,
    }
  let typed = await readWords(command, words)
  const settings = await settingsFrom(typed.globals, from.environment)
  if (!task) {
    const { jobFrom } = await import('../lib/cli/flags.ts')
    const { readJob } = await import('./run.ts')
    const { name: inner, job } = await readJob(jobFrom<{ job: string }>(command, typed.job).job)
    task = await taskNamed(inner)
    typed = { ...typed, job }
  }
  const outcome =
    task.kind === 'query'
      ? await runQuery(task.command, typed, settings)
      : await runTask(task, typed, settings, from, await tell(typed), signal)
  return { outcome, typed }
}

/**
 * Run the program once.
 * @returns its exit code: 0 done, 1 failed, 2 usage, 3 refused, 4 busy, 128+n ended by a signal
 */
export async function main(from: Process): Promise<number> {
  if (from.argv.includes('--version')) {
    writeAll(
      1,
      from.argv.includes('--json')
        ? `${JSON.stringify({ version: manifest.version })}\n`
        : `cowhand ${manifest.version}\n`,
    )
    return 0
  }
  caller.environment = from.environment
  // The caller's habits must not decide what our files look like, nor where programs are found.
  process.umask(0o022)
  for (const signal of Object.keys(interrupts) as (keyof typeof interrupts)[])
    process.on(signal, () => {
      if (interrupt.signal.aborted) process.exit(128 + interrupts[signal])
      interrupt.abort(new Interrupted(signal))
    })
  let voice: Voice | undefined
  const tell = async (typed: Typed): Promise<Tell> => {
    voice = await voiceFor(typed.globals, from)
    audience.tell = voice.tell
    return voice.tell
  }
  try {
    const { outcome, typed } = await dispatch(from, tell, interrupt.signal)
    voice?.end()
    if (typed.globals['quiet'] !== true) warn(outcome.document)
    if (typed.globals['json'] === true && Object.keys(outcome.document).length > 0)
      writeAll(1, `${asJson(outcome.document, 2)}\n`)
    else if (outcome.wanted && typed.globals['quiet'] !== true) writeAll(1, outcome.text)
    return outcome.exit
  } catch (error) {
    voice?.end()
    const problem = error instanceof Failed ? error.problem : asProblem(error, from.argv.includes('--verbose'))
    const { code, kind, message, remedy } = problem
    const nothing = { version: 1, task: splitWords(from.argv).name, ok: false, changed: false, steps: [] }
    // The words themselves may be what is wrong: whether a document is wanted is read off them as they are.
    if (from.argv.includes('--json'))
      tryToWrite(
        1,
        `${asJson(error instanceof Failed ? error.document : { ...nothing, error: { code, kind, message, remedy } }, 2)}\n`,
      )
    if (error instanceof Failed) warn(error.document)
    const { coloursFor, reportProblem } = await import('../lib/cli/report.ts')
    tryToWrite(2, reportProblem(problem, coloursFor(from.isTerminal.err, from.environment)))
    return problem instanceof Interrupted ? problem.exit : exitCode[problem.kind]
  } finally {
    await closeAll()
  }
}

/** Told also where a success is silent. */
function warn({ warnings = [] }: { warnings?: string[] | undefined }): void {
  for (const warning of warnings) tryToWrite(2, `warning: ${oneLine(warning)}\n`)
}

interface Voice {
  tell: Tell
  end: () => void
}
const silent: Voice = { tell: () => {}, end: () => {} }

async function loudVoice(mode: ProgressMode): Promise<Voice> {
  const { teller, standardError } = await import('../lib/cli/progress.ts')
  return teller(mode, standardError())
}

/** How progress is told: asked for, or as a terminal can show it; where nobody looks, not at all. */
async function voiceFor(globals: Record<string, unknown>, from: Process): Promise<Voice> {
  const { quiet, verbose, progress = 'auto' } = globals
  const usual = from.isTerminal.err && !quiet ? 'tty' : verbose ? 'plain' : 'none'
  const mode = (progress === 'auto' ? usual : progress) as ProgressMode
  const voice = mode === 'none' ? silent : await loudVoice(mode)
  const { onEvent } = from
  if (!onEvent) return voice
  const tellBoth: Tell = (event) => {
    onEvent(event)
    voice.tell(event)
  }
  return { ...voice, tell: tellBoth }
}
