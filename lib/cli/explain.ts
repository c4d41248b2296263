import type * as z from 'zod/mini'
import { misuse } from '../job/problem.ts'
import { nearest } from './nearest.ts'

/**
 * Parse, or say in one sentence what is wrong with the first wrong member.
 * @param name how the operator wrote that member, such as --root
 * @param what that it is a member of, such as: the command "create"
 * @param help a command that tells what there is
 * @throws {Problem} BAD_SPEC
 */
export function parseOrExplain<T>(
  schema: z.ZodMiniType<T>,
  value: unknown,
  name: (key: string) => string,
  what: string,
  help: string,
): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const { issues } = result.error
  const [unknown] = issues.flatMap((issue) => (issue.code === 'unrecognized_keys' ? issue.keys : []))
  if (unknown !== undefined) {
    const near = 'shape' in schema ? nearest(unknown, Object.keys(schema.shape as object)) : undefined
    const remedy = near
      ? `did you mean ${name(unknown).replace(unknown, near)}? what there is: ${help}`
      : `leave it out; what there is: ${help}`
    misuse(`Cannot use ${name(unknown)}: ${what} has no such name`, remedy)
  }
  const [issue] = issues
  const [key] = (issue?.path ?? []).map(String)
  const given = (issue?.path ?? []).reduce((at, step) => (at as Record<PropertyKey, unknown>)[step], value)
  if (key !== undefined && given === undefined)
    misuse(`Cannot read ${what}: ${name(key)} is missing`, `add it; what it means: ${help}`)
  const place = key === undefined ? what : name(key)
  const shown = typeof given === 'object' ? '' : ` "${String(given).slice(0, 100)}"`
  misuse(`Cannot read ${place}${shown}: it ${sentence(issue)}`, `see what it may be: ${help}`)
}

function sentence(issue: z.core.$ZodIssue | undefined): string {
  if (!issue) return 'is wrong'
  // What a schema has no words of its own for, zod calls 'Invalid input'.
  if (/^(is|may|has|ends)\b/.test(issue.message)) return issue.message
  if (issue.code === 'invalid_value') return `is not one of: ${issue.values.join(', ')}`
  if (issue.code === 'invalid_union') return sentence(issue.errors[0]?.[0])
  if (issue.code === 'invalid_type') return `is not ${kinds[issue.expected] ?? `a ${issue.expected}`}`
  if (issue.code === 'too_small') return `is less than ${issue.minimum}`
  if (issue.code === 'too_big') return `is more than ${issue.maximum}`
  return `is wrong: ${issue.message}`
}

const kinds: Record<string, string> = {
  int: 'a whole number',
  boolean: 'true or false',
  string: 'text',
  array: 'a list',
  object: 'a list of names and values',
}
