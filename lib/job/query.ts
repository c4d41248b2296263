import type * as z from 'zod/mini'
import type { Settings } from './settings.ts'

/** A command that only looks: its data as JSON, and as text for people. */
export interface Query<I extends z.ZodMiniType = z.ZodMiniType> {
  name: string
  summary: string
  job: I
  positional?: string[]
  examples?: [command: string, what: string][]
  /** `ok` false: what was asked for is not as it should be, and the exit code says so. */
  run: (job: z.output<I>, settings: Settings) => Promise<{ data: Record<string, unknown>; text: string; ok?: boolean }>
}

export const defineQuery = <I extends z.ZodMiniType>(query: Query<I>): Query<I> => query
