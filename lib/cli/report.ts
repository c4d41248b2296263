import chalk, { Chalk, type ChalkInstance } from 'chalk'
import { joint, type Problem } from '../job/problem.ts'
import type { Result, StepResult } from '../job/result.ts'
import { formatSize } from '../job/spec.ts'
import { oneLine, printable } from './printable.ts'

/** Colours where a person looks at them: NO_COLOR (no-color.org) and a dumb terminal have none. */
export function coloursFor(isTerminal: boolean, environment: NodeJS.ProcessEnv): ChalkInstance {
  const wanted = isTerminal && !environment['NO_COLOR'] && environment['TERM'] !== 'dumb'
  return new Chalk({ level: wanted ? (Math.max(1, chalk.level) as 1 | 2 | 3) : 0 })
}

const costOf = ({ fetch, space, frees }: StepResult['actions'][number]): string => {
  const costs = [
    frees === undefined ? '' : `frees ${formatSize(frees)}`,
    fetch === undefined ? '' : `${formatSize(fetch)} to fetch`,
    space === undefined ? '' : `${formatSize(space)} of space`,
  ]
  return costs.some(Boolean) ? `  [${costs.filter(Boolean).join(', ')}]` : ''
}

const sum = (steps: StepResult[], key: 'fetch' | 'send' | 'space' | 'frees'): number =>
  steps.flatMap(({ actions }) => actions).reduce((total, action) => total + (action[key] ?? 0), 0)

function stepLines(step: StepResult, withActions: boolean, colours: ChalkInstance): string[] {
  const paint = {
    changed: colours.green,
    planned: colours.cyan,
    pending: colours.yellow,
    failed: colours.red,
    ok: colours.dim,
    skipped: colours.dim,
  }
  const why = step.status === 'pending' ? ' (follows from the steps before)' : ''
  const actions = withActions ? step.actions.map((action) => `  ${oneLine(action.action)}${costOf(action)}`) : []
  const title = oneLine([step.step, step.about].filter(Boolean).join(' '))
  return [`${title}: ${paint[step.status](step.status)}${why}`, ...actions]
}

/** What a task did, or would do, as text for people. */
export function reportTask(
  result: Result,
  options: { dryRun: boolean; verbose: boolean; colours: ChalkInstance },
): string {
  const { dryRun, verbose, colours } = options
  const reasons = dryRun || verbose ? (result.reasons ?? []).map(oneLine) : []
  const steps = result.steps.flatMap((step) => stepLines(step, dryRun || verbose, colours))
  const lines = [...reasons, ...steps]
  const title = [result.task, result.instance].filter(Boolean).join(' ')
  if (dryRun) {
    const planned = result.steps.filter(({ status }) => status !== 'ok')
    const [fetch, send] = [sum(planned, 'fetch'), sum(planned, 'send')]
    const [space, frees] = [sum(planned, 'space'), sum(planned, 'frees')]
    const costs = [
      fetch > 0 && `${formatSize(fetch)} to fetch`,
      send > 0 && `${formatSize(send)} to send at most`,
      space > 0 && `about ${formatSize(space)} of space`,
      frees > 0 && `frees ${formatSize(frees)}`,
    ].filter(Boolean)
    const shown = costs.length > 0 ? ` (${costs.join(', ')})` : ''
    const summary = `${planned.length} of ${result.steps.length} steps to do${shown}; nothing was changed`
    return [...lines, `${title}: ${planned.length > 0 ? summary : 'nothing to do'}`].join('\n')
  }
  const { fetched = 0, sent = 0 } = result.bytes ?? {}
  const freed = sum(result.steps, 'frees')
  const facts = [
    fetched > 0 && `${formatSize(fetched)} fetched`,
    sent > 0 && `${formatSize(sent)} sent`,
    freed > 0 && `${formatSize(freed)} freed`,
    result.downtimeSeconds !== undefined && `guest away for ${result.downtimeSeconds.toFixed(1)} s`,
  ]
  const done = ['done', ...facts.filter(Boolean)].join(', ')
  return [...lines, `${title}: ${result.changed ? done : 'nothing to do'}`].join('\n')
}

/** A problem as the operator reads it: the sentence, and what to do. */
export const reportProblem = (problem: Problem, colours: ChalkInstance): string =>
  `cowhand: ${colours.red(sentences(problem))}\n  remedy: ${oneLine(problem.remedy)}\n`

/** Several problems in one are told each on its line; a line break in a name is none of these. */
const sentences = ({ code, message }: Problem): string =>
  code === 'INTERNAL' ? printable(message) : message.split(joint).map(oneLine).join(joint)
