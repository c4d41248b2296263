import type { Options } from 'yargs'
import * as z from 'zod/mini'
import { misuse } from '../job/problem.ts'
import { parseOrExplain } from './explain.ts'
import { nearest } from './nearest.ts'

/** Flags of every command, beside the settings that have a flag. */
export const globals: Record<string, Options> = {
  config: { type: 'string', describe: 'configuration file [/etc/cowhand/cowhand.yaml]' },
  instances: { type: 'string', describe: 'directory of the instances [/var/lib/cowhand/instances]' },
  store: { type: 'string', describe: 'where images come from [dir:/var/lib/cowhand/images]' },
  'os-cloud': { type: 'string', describe: 'cloud of clouds.yaml whose Glance is the store' },
  json: { type: 'boolean', describe: 'print the result as one JSON document' },
  'dry-run': { type: 'boolean', describe: 'print what would be done, and change nothing' },
  progress: {
    type: 'string',
    choices: ['auto', 'tty', 'plain', 'json', 'none'],
    describe: 'progress on standard error [auto]',
  },
  quiet: { type: 'boolean', describe: 'print errors only' },
  verbose: { type: 'boolean', describe: 'print each step and action' },
  'lock-wait': { type: 'string', describe: 'seconds to wait for another task [0 for an instance, 3600 for a base]' },
  yes: { type: 'boolean', describe: 'do not ask before something is destroyed' },
}

/** A command as its flags are made of it. */
export interface Command {
  name: string
  summary: string
  job: z.ZodMiniType
  positional?: string[]
  examples?: [command: string, what: string][]
}

interface Member {
  type?: string
  enum?: string[]
  anyOf?: Member[]
  description?: string
  format?: string
  default?: unknown
}

/** The members of a job's schema, as a JSON schema has them. */
export function membersOf(job: z.ZodMiniType): Record<string, Member & { required: boolean }> {
  const schema = z.toJSONSchema(job, { io: 'input', unrepresentable: 'any' }) as {
    properties?: Record<string, Member>
    required?: string[]
  }
  const members = Object.entries(schema.properties ?? {})
  return Object.fromEntries(
    members.map(([name, member]) => [name, { ...member, required: schema.required?.includes(name) ?? false }]),
  )
}

function optionOf(member: Member): Options {
  const isList = member.type === 'array'
  const type = member.type === 'boolean' ? 'boolean' : isList ? 'array' : 'string'
  return {
    type,
    describe: member.description ?? '',
    ...(isList ? { string: true } : {}),
    ...(member.enum ? { choices: member.enum } : {}),
    ...(member.default === undefined ? {} : { defaultDescription: String(member.default) }),
    ...(type === 'boolean' ? {} : { requiresArg: true }),
  }
}

async function parser(words: string[]) {
  const { default: yargs } = await import('yargs')
  return yargs(words)
    .parserConfiguration({
      'camel-case-expansion': false,
      'dot-notation': false,
      'parse-numbers': false,
      'parse-positional-numbers': false,
      'boolean-negation': false,
      'duplicate-arguments-array': true,
      'greedy-arrays': false,
    })
    .locale('en')
    .exitProcess(false)
    .showHelpOnFail(false)
    .fail((message, error) => {
      throw error ?? new Misuse(message)
    })
    .version(false)
    .help(false)
}

class Misuse extends Error {}

/** The members that are given as flags, not by place. */
export const flagsOf = <M>({ positional = [] }: Command, members: Record<string, M>): [string, M][] =>
  Object.entries(members).filter(([name]) => !positional.includes(name))

async function describeCommand(command: Command, words: string[], members: ReturnType<typeof membersOf>) {
  const { name, summary, positional = [], examples = [] } = command
  const places = positional.map((place) => {
    const word = `${place.toUpperCase()}${members[place]?.type === 'array' ? '…' : ''}`
    return members[place]?.required ? word : `[${word}]`
  })
  const meanings = positional.map((place) => `  ${place.toUpperCase()}  ${members[place]?.description}`)
  const usage = [`cowhand ${[name, ...places].join(' ')} [flags]`, summary, meanings.join('\n')].filter(Boolean)
  return (await parser(words))
    .scriptName('cowhand')
    .usage(usage.join('\n\n'))
    .options(
      Object.fromEntries(
        flagsOf(command, members).map(([member, type]) => [member, { ...optionOf(type), group: 'Flags:' }]),
      ),
    )
    .options(
      Object.fromEntries(Object.entries(globals).map(([flag, option]) => [flag, { ...option, group: 'Everywhere:' }])),
    )
    .option('help', { type: 'boolean', describe: 'this text', group: 'Everywhere:' })
    .example(examples)
}

/** The help of one command, as wide as the terminal. @param columns of the terminal */
export async function helpOf(command: Command, columns: number): Promise<string> {
  const members = membersOf(command.job)
  const required = flagsOf(command, members).filter(([, member]) => member.required)
  const described = (await describeCommand(command, [], members)).demandOption(required.map(([name]) => name))
  return described.wrap(Math.max(60, Math.min(columns, 110))).getHelp()
}

/** What the operator typed, before it is checked: the job's members, and the flags that are the same everywhere. */
export interface Typed {
  job: Record<string, unknown>
  globals: Record<string, unknown>
}

/**
 * Read the words after a command.
 * @throws {Problem} BAD_SPEC
 */
export const readWords = async (command: Command, words: string[]): Promise<Typed> =>
  readPlainWords(command, words) ?? readAllWords(command, words)

/** `string` and the like, whatever is wrapped around it. */
function kindOf(type: z.core.$ZodType): string {
  const def = type._zod.def as z.core.$ZodTypeDef & { innerType?: z.core.$ZodType }
  return def.innerType ? kindOf(def.innerType) : def.type
}

/**
 * Words as nearly everybody writes them: each flag once and by its name, `--flag value`, and a good job. For these
 * yargs need not be loaded, which takes longer than most commands.
 * @returns undefined for all else: yargs reads it, or says what is wrong with it
 */
export function readPlainWords(command: Command, words: string[]): Typed | undefined {
  if (!(command.job instanceof z.ZodMiniObject)) return undefined
  const { shape } = command.job
  const positional = command.positional ?? []
  const [job, all, places]: [Record<string, unknown>, Record<string, unknown>, string[]] = [{}, {}, [...positional]]
  for (let index = 0; index < words.length; index += 1) {
    const word = words[index] ?? ''
    const isFlag = word.startsWith('--')
    const name = isFlag ? word.slice(2) : (places.shift() ?? '')
    const [option, member] = isFlag
      ? [globals[name], positional.includes(name) ? undefined : shape[name]]
      : [undefined, shape[name]]
    if (name in all || (!option && !member)) return undefined
    const kind = member ? kindOf(member) : (option?.type ?? '')
    const value = isFlag ? words[index + 1] : word
    if (kind === 'boolean') {
      if (value === 'true' || value === 'false') return undefined
      all[name] = true
    } else {
      // What begins like a flag or a quotation may be meant otherwise.
      if (!/^(string|number|enum|union|pipe)$/.test(kind) || !value || /^[-'"]/.test(value)) return undefined
      if (option?.choices && !option.choices.includes(value)) return undefined
      all[name] = kind === 'number' && /^\d+$/.test(value) ? Number(value) : value
      if (isFlag) index += 1
    }
    if (member) job[name] = all[name]
  }
  return command.job.safeParse(job).success ? { job, globals: all } : undefined
}

const helpFor = ({ name }: Command): string => `cowhand ${name} --help`

/** What yargs says of the words, as a sentence of ours. @throws {Problem} BAD_SPEC always */
function explain(message: string, command: Command, known: string[]): never {
  const see = `see what there is: ${helpFor(command)}`
  const [, unknown] = /^Unknown arguments?: ([^\s,]+)/.exec(message) ?? []
  if (unknown !== undefined) {
    const near = nearest(unknown, known)
    const flag = `${unknown.length > 1 ? '--' : '-'}${unknown}`
    misuse(
      `Cannot use ${flag}: the command "${command.name}" has no such flag`,
      near ? `did you mean --${near}? ${see}` : see,
    )
  }
  const [, bare] = /^Not enough arguments following: (\S+)/.exec(message) ?? []
  if (bare !== undefined) misuse(`Cannot read --${bare}: it needs a value`, see)
  const [, flag, value, choices] = /Argument: (\S+), Given: (.*), Choices: (.*)/.exec(message) ?? []
  if (flag !== undefined)
    misuse(`Cannot read --${flag} ${value}: it is not one of: ${choices?.replaceAll('"', '')}`, see)
  misuse(`Cannot read the command line: ${message.split('\n')[0]}`, see)
}

/** Any words, by yargs. @throws {Problem} BAD_SPEC */
export async function readAllWords(command: Command, words: string[]): Promise<Typed> {
  const members = membersOf(command.job)
  const positional = command.positional ?? []
  let typed: Record<string, unknown>
  try {
    typed = (await describeCommand(command, words, members)).strictOptions().parseSync()
  } catch (error) {
    if (!(error instanceof Error)) throw error
    return explain(error.message, command, [
      ...flagsOf(command, members).map(([name]) => name),
      ...Object.keys(globals),
    ])
  }
  const options: Record<string, { type?: unknown }> = { ...globals, ...members }
  const twice = Object.keys(options).find((name) => Array.isArray(typed[name]) && options[name]?.type !== 'array')
  if (twice) misuse(`Cannot read --${twice}: it is given more than once`, 'leave all but one out')
  const places = (typed['_'] as unknown[]).map(String)
  const job: Record<string, unknown> = {}
  for (const [name, member] of Object.entries(members)) {
    const index = positional.indexOf(name)
    const value =
      index < 0
        ? typed[name]
        : index === positional.length - 1 && member.type === 'array'
          ? places.splice(index)
          : places[index]
    if (value !== undefined)
      job[name] = /^(integer|number)$/.test(member.type ?? '') && /^\d+$/.test(String(value)) ? Number(value) : value
  }
  const extra = places[positional.length]
  if (extra !== undefined)
    misuse(`Cannot read the command line: "${extra}" is one word too many`, `see what there is: ${helpFor(command)}`)
  return { job, globals: typed }
}

/** The job that was typed, checked. @throws {Problem} BAD_SPEC */
export function jobFrom<T>(command: Command, job: Record<string, unknown>): T {
  const name = (key: string) => (command.positional?.includes(key) ? key.toUpperCase() : `--${key}`)
  return parseOrExplain(command.job as z.ZodMiniType<T>, job, name, `the command "${command.name}"`, helpFor(command))
}
