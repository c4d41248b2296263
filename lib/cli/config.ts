import type * as z from 'zod/mini'
import { operatorsTextAt } from '../host/files.ts'
import { parseDocument } from '../host/yaml.ts'
import { misuse } from '../job/problem.ts'
import { Settings } from '../job/settings.ts'
import { parseOrExplain } from './explain.ts'

const usual = '/etc/cowhand/cowhand.yaml'

const help = 'cowhand schema | jq \'."$defs".settings\''

/**
 * What holds for this call: flag, else COWHAND_*, else the configuration file, else the default.
 * @throws {Problem} BAD_SPEC naming where the wrong value came from
 */
export async function settingsFrom(flags: Record<string, unknown>, environment: NodeJS.ProcessEnv): Promise<Settings> {
  const path = typeof flags['config'] === 'string' ? flags['config'] : environment['COWHAND_CONFIG'] || usual
  const text = operatorsTextAt(path)
  if (text === undefined && path !== usual)
    misuse(`Cannot read configuration "${path}": there is no such file`, 'name a file that exists')
  const document = text === undefined ? {} : await parseDocument(text, `configuration "${path}"`)
  const found: Record<string, unknown> = {}
  const origin: Record<string, string> = {}
  const take = (key: string, value: unknown, from: string) => {
    if (value === undefined) return
    found[key] = value
    origin[key] = from
  }
  if (typeof document !== 'object' || Array.isArray(document))
    misuse(
      `Cannot read configuration "${path}": it is not a list of names and values`,
      'write lines such as base_layout: overlay',
    )
  if (document !== null) for (const [key, value] of Object.entries(document)) take(key, value, `${key} in ${path}`)
  for (const key of Object.keys(Settings.shape)) {
    const variable = `COWHAND_${key.toUpperCase()}`
    const value = environment[variable]
    take(key, value === 'true' ? true : value === 'false' ? false : value || undefined, variable)
    take(key, flags[key.replaceAll('_', '-')], `--${key.replaceAll('_', '-')}`)
  }
  return parseOrExplain(
    Settings as z.ZodMiniType<Settings>,
    found,
    (key) => origin[key] ?? key,
    'the configuration',
    help,
  )
}
