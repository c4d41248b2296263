import { misuse } from '../job/problem.ts'

/** A YAML or JSON document that the operator wrote. @throws {Problem} BAD_SPEC */
export async function parseDocument(text: string, what: string): Promise<unknown> {
  const { parseDocument: read } = await import('yaml')
  try {
    const document = read(text)
    const [wrong] = [...document.errors, ...document.warnings]
    if (wrong) throw wrong
    return document.toJS({ maxAliasCount: 0 })
  } catch (error) {
    return misuse(
      `Cannot read ${what}: ${error instanceof Error ? error.message.split('\n')[0]?.replace(/:$/, '') : error}`,
      'mend the line that it names',
    )
  }
}

/**
 * A YAML document with anchors, every value as text: a password 0123 is no number. Messages quote nothing of it.
 * @throws {Problem} BAD_SPEC
 */
export async function parseSecrets(text: string, what: string): Promise<unknown> {
  const { parseDocument: read } = await import('yaml')
  const document = read(text, { schema: 'failsafe', merge: true })
  const [wrong] = [...document.errors, ...document.warnings]
  const line = wrong?.linePos?.[0].line
  const where = line === undefined ? '' : ` in line ${line}`
  try {
    // Without a bound on what anchors stand for, a few lines become gigabytes.
    if (!wrong) return document.toJS({ maxAliasCount: 100 })
  } catch {
    // An anchor that is not there.
  }
  return misuse(`Cannot read ${what}: it is not YAML${where}`, 'put values with signs such as * ! { : into quotes')
}
