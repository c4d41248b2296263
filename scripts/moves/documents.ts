import { readFileSync } from 'node:fs'
import * as z from 'zod/mini'
import { readOperatorsFile } from '../../lib/host/files.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import { FilePath } from '../../lib/job/spec.ts'
import manifest from '../../package.json' with { type: 'json' }

// What the halves of a move tell each other, where an orchestrator carries it: the old driver's `disk_info`.

/** A file with a document, or `-`; in a job document it may stand as it is. */
export const documentFlag = z.union([FilePath, z.looseObject({})]).check(z.meta({ format: 'path' }))
export type Given = string | Record<string, unknown>

/** As they were read: a job is looked at more than once, and standard input is there only once. */
const read = new Map<string, unknown>()

const called = (given: Given): string =>
  typeof given !== 'string' ? 'the document' : given === '-' ? 'the document on standard input' : `"${given}"`

function contentOf(given: Given): unknown {
  if (typeof given !== 'string') return given
  if (read.has(given)) return read.get(given)
  const text = given === '-' ? readFileSync(0, 'utf8') : readOperatorsFile(given)
  try {
    read.set(given, JSON.parse(text))
  } catch {
    const state = text.trim() === '' ? 'it is empty: what was to print it has failed' : 'it is no JSON'
    misuse(`Cannot read ${called(given)}: ${state}`, 'give what the other half of the move has printed')
  }
  return read.get(given)
}

/**
 * The document that was given. That of a whole result (`--json`) is the one in it.
 * @param what it is to be, such as: answer of the destination
 * @param from the command that prints it
 * @throws {Problem} BAD_SPEC; VERSION_MISMATCH
 */
export function documentIn<T extends z.ZodMiniType>(
  given: Given,
  schema: T,
  { what, from }: { what: string; from: string },
): z.output<T> {
  const content = contentOf(given)
  const isResult = typeof content === 'object' && content !== null && 'handOver' in content
  const document = isResult ? content.handOver : content
  const result = z.safeParse(schema, document)
  if (!result.success) {
    const path = result.error.issues[0]?.path.join('.')
    const wrong = path ? `: ${path} is missing, or not what it has to be` : ''
    misuse(`Cannot read ${called(given)}: it is no ${what}${wrong}`, `give what this printed: cowhand ${from}`)
  }
  const { cowhand } = document as { cowhand?: string }
  if (cowhand !== undefined && cowhand !== manifest.version)
    refuse(
      'VERSION_MISMATCH',
      `Cannot use ${called(given)}: cowhand ${cowhand} has written it, and this one is ${manifest.version}`,
      'install the same version on both hosts, and begin again',
    )
  return result.data
}

/** A document as it leaves this host. */
export const signed = <T extends object>(document: T): T & { cowhand: string } => ({
  ...document,
  cowhand: manifest.version,
})
