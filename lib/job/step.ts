import type * as z from 'zod/mini'
import type { Action } from './action.ts'
import { Problem } from './problem.ts'
import type { Result } from './result.ts'
import type { Settings } from './settings.ts'

/**
 * One idempotent change. `inspect` reads the world and changes nothing; `plan` is pure and answers with the actions
 * that are missing: none when it is already so. When something else is in the way, `plan` refuses.
 */
export interface Step<I extends z.ZodMiniType = z.ZodMiniType, F = unknown> {
  name: string
  summary: string
  /** Made when it is asked for: a pipeline's calls are checked by the compiler, and need not wait for it. */
  input: () => I
  /** What one call is about, in a word, where a report has many of them. */
  about?: (input: z.output<I>) => string
  /**
   * Names of the locks that it needs (`base.NAME`, `instance.NAME`): held from the last look to the end. One that is
   * not kept beside the instances is given by its path (`DIRECTORY/locks/image.NAME`).
   */
  locks?: (input: z.output<I>) => string[]
  /** What is done all the same and should be known: told also where a success is silent. */
  warnings?: (input: z.output<I>) => string[]
  /** `ahead`: paths that earlier steps of the same plan are going to make; empty when it is about to run. */
  inspect: (input: z.output<I>, settings: Settings, ahead: ReadonlySet<string>) => Promise<F>
  plan: (input: z.output<I>, found: F) => Action[]
}

/** A step together with what it is to work on: what a pipeline is made of. */
export interface Call {
  step: Step
  input: unknown
}

/**
 * A job's recipe. `look` reads what the calls follow from (an image's id, say); `calls` is pure.
 * `locks` are held from before the first step to the end.
 */
export interface Pipeline<J extends z.ZodMiniType = z.ZodMiniType, C = unknown> {
  name: string
  summary: string
  job: J
  /** Members of the job that are given by place on the command line. */
  positional?: string[]
  examples?: [command: string, what: string][]
  /** What it destroys, for the question before it; undefined: nothing, do not ask. */
  destroys?: (job: z.output<J>) => string | undefined
  /** Name of the instance that it is about, where that is no member of the job. */
  instance?: (job: z.output<J>) => string
  locks?: (job: z.output<J>) => string[]
  /** Locks that are taken as far as they are free: whatever somebody works on is left alone. */
  claims?: (job: z.output<J>, found: C) => string[]
  /** Each call is a matter of its own: when one fails, the others are done all the same. */
  independent?: boolean
  /** One job for each thing that is named, where several may be: each is a matter of its own. */
  each?: (job: z.output<J>) => z.output<J>[]
  /** How many of these are done at once, at most [1]. */
  parallel?: (job: z.output<J>) => number
  look: (job: z.output<J>, settings: Settings) => Promise<C>
  /** `claimed`: the claims that were got, once it is about to run. */
  calls: (job: z.output<J>, found: C, settings: Settings, claimed?: ReadonlySet<string>) => Call[]
  /** Decisions on the way to the calls, each with its reason, for the plan. */
  reasons?: (job: z.output<J>, found: C, settings: Settings, claimed?: ReadonlySet<string>) => string[]
  /** What is done all the same and should be known: told also where a success is silent. */
  warnings?: (job: z.output<J>, found: C, settings: Settings) => string[]
  /** The document that it is run for, once all steps are done: it is printed in place of a report. */
  handOver?: (job: z.output<J>, found: C, settings: Settings) => Promise<Result['handOver']>
  /**
   * What is to be done when a step failed, under the same locks, so that everything is as it was before; `said`: what
   * it then is. Undefined: there is nothing to go back from, or the way leads on.
   */
  undo?: (job: z.output<J>, settings: Settings, cause: unknown) => Promise<{ calls: Call[]; said: string } | undefined>
}

export const defineStep = <I extends z.ZodMiniType, F>(step: Step<I, F>): Step<I, F> => step

export const definePipeline = <J extends z.ZodMiniType, C>(pipeline: Pipeline<J, C>): Pipeline<J, C> => pipeline

/** A step call; what it is given is in its final form, and checked by the compiler. */
export const call = <I extends z.ZodMiniType, F>(step: Step<I, F>, input: z.output<I>): Call => ({
  step: step as unknown as Step,
  input,
})

/** A call that could not even be made out. It fails with this when its turn comes, and the others are done all the same. */
export function failing(name: string, about: string, problem: Problem): Call {
  const fail = () => {
    throw problem
  }
  return { step: { name, summary: '', about: () => about, input: fail, inspect: fail, plan: fail }, input: undefined }
}

/**
 * Make out what each word means; one that cannot be made out does not stop the others, and is for `failing`.
 * @throws whatever is no Problem, and an interruption
 */
export async function eachOf<T>(
  words: string[],
  meaning: (word: string) => Promise<T[]>,
): Promise<{ found: T[]; problems: [word: string, problem: Problem][] }> {
  const found: T[] = []
  const problems: [word: string, problem: Problem][] = []
  for (const word of words) {
    try {
      found.push(...(await meaning(word)))
    } catch (error) {
      if (!(error instanceof Problem) || error.code === 'INTERRUPTED') throw error
      problems.push([word, error])
    }
  }
  return { found, problems }
}
