import type { z } from 'zod'
import { misuse } from '../job/problem.ts'

/**
 * Parse, or say in one sentence what is wrong with the first wrong member.
 * @param name how the operator wrote that member, such as --root
 * @throws {Problem} BAD_SPEC
 */
export function parseOrExplain<T>(
  schema: z.ZodType<T>,
  value: unknown,
  name: (key: string) => string,
  what: string,
): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const [key, ...rest] = (issue?.path ?? []).map(String)
  if (issue?.code === 'unrecognized_keys')
    misuse(
      `Cannot read ${what}: there is no ${name(issue.keys[0] ?? '')}`,
      'leave it out, or see --help for what there is',
    )
  const given = key === undefined ? value : (value as Record<string, unknown>)[key]
  if (key !== undefined && given === undefined)
    misuse(`Cannot read ${what}: ${name(key)} is missing`, 'add it; see --help for what it means')
  const place = key === undefined ? what : [name(key), ...rest].join(' ')
  const shown = typeof given === 'object' ? '' : ` "${String(given).slice(0, 100)}"`
  misuse(`Cannot read ${place}${shown}: it ${sentence(issue)}`, 'see --help for what it may be')
}

function sentence(issue: z.core.$ZodIssue | undefined): string {
  if (!issue) return 'is wrong'
  if (issue.code === 'invalid_value') return `is none of ${issue.values.join(', ')}`
  if (issue.code === 'invalid_union') return sentence(issue.errors[0]?.[0])
  if (issue.code === 'invalid_type') return `is not a ${issue.expected === 'int' ? 'whole number' : issue.expected}`
  if (issue.code === 'too_small') return `is less than ${issue.minimum}`
  return /^(is|may|has|ends)\b/.test(issue.message) ? issue.message : `is wrong: ${issue.message}`
}
