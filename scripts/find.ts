import type { Command } from '../lib/cli/flags.ts'
import { misuse } from '../lib/job/problem.ts'
import type { Query } from '../lib/job/query.ts'
import type { Call, Pipeline } from '../lib/job/step.ts'
import { pipelines, queries, steps } from './catalog.ts'

/** A task of the catalogue, loaded. */
export type Found =
  | { kind: 'pipeline'; command: Pipeline & Command }
  | { kind: 'query'; command: Query & Command }
  | { kind: 'step'; command: Command; call: (input: unknown) => Call }

/** The task of this name. @throws {Problem} BAD_SPEC, with the nearest name there is */
export async function taskNamed(name: string): Promise<Found> {
  if (pipelines[name]) return { kind: 'pipeline', command: await pipelines[name]() }
  if (queries[name]) return { kind: 'query', command: await queries[name]() }
  const step = name.startsWith('step ') ? await steps[name.slice('step '.length)]?.() : undefined
  if (step) return { kind: 'step', command: { ...step, name, job: step.input() }, call: (input) => ({ step, input }) }
  const family = [
    ...Object.keys({ ...pipelines, ...queries }),
    ...Object.keys(steps).map((key) => `step ${key}`),
  ].filter((known) => known.startsWith(`${name} `))
  if (family.length > 0)
    misuse(
      `Cannot run "${name}": it does not say what`,
      name === 'step'
        ? 'name a step: cowhand steps lists them'
        : `one of: ${family.map((known) => `cowhand ${known}`).join(', ')}`,
    )
  const { about } = await import('./about.ts')
  if (about[name]) return { kind: 'query', command: await about[name]() }
  const { nearest } = await import('../lib/cli/nearest.ts')
  const names = Object.keys(steps).map((key) => `step ${key}`)
  const near = nearest(name, [...Object.keys({ ...pipelines, ...queries, ...about }), 'run', ...names])
  return misuse(
    `Cannot find the command "${name}": there is none`,
    near ? `did you mean: cowhand ${near}` : 'see what there is: cowhand --help',
  )
}

/** Flags before the command that take a value. */
const valued = ['--config', '--instances', '--store', '--os-cloud', '--progress', '--lock-wait']
const families = ['cache', 'image', 'step']

/** Split what was typed into the command's name and the words for it. */
export function splitWords(argv: string[]): { name: string; words: string[] } {
  const words = [...argv]
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? ''
    if (valued.includes(word)) index += 1
    else if (!word.startsWith('-')) {
      const isFamily = families.includes(word) && words[index + 1] !== undefined && !words[index + 1]?.startsWith('-')
      return { name: words.splice(index, isFamily ? 2 : 1).join(' '), words }
    }
  }
  return { name: '', words }
}
