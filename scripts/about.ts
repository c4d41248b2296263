import * as z from 'zod/mini'
import { candidates, completionScript, shells } from '../lib/cli/completion.ts'
import { type Command, flagsOf, globals, membersOf } from '../lib/cli/flags.ts'
import { table } from '../lib/cli/table.ts'
import { Event } from '../lib/job/events.ts'
import { defineQuery, type Query } from '../lib/job/query.ts'
import { Result } from '../lib/job/result.ts'
import { Settings } from '../lib/job/settings.ts'
import { described } from '../lib/job/spec.ts'
import * as catalog from './catalog.ts'
import { runCommand } from './run.ts'

// What cowhand says about itself: all of it made from the definitions that it runs by.

const loaded = async (
  loaders: Record<string, () => Promise<Command | (Omit<Command, 'job'> & { input: () => z.ZodMiniType })>>,
): Promise<Command[]> =>
  Promise.all(
    Object.values(loaders).map(async (load) => {
      const found = await load()
      return 'job' in found ? found : { ...found, job: found.input() }
    }),
  )

const listing = (name: string, summary: string, loaders: Parameters<typeof loaded>[0]): Query =>
  defineQuery({
    name,
    summary,
    job: z.strictObject({}),
    run: async () => {
      const entries = await loaded(loaders)
      const rows = entries.map((entry) => [entry.name, entry.summary])
      return {
        data: { [name]: entries.map((entry) => ({ name: entry.name, summary: entry.summary })) },
        text: table(['NAME', 'WHAT IT DOES'], rows),
      }
    },
  }) as unknown as Query

const schema = defineQuery({
  name: 'schema',
  summary: 'Print the JSON schema of jobs, steps, settings, results and events',
  job: z.strictObject({}),
  run: async () => {
    const of = (type: z.ZodMiniType) => z.toJSONSchema(type, { io: 'input', unrepresentable: 'any' })
    const asJobs = (entries: Command[]) =>
      entries.map(({ name, job }) => {
        const { $schema: _, ...form } = of(job)
        return {
          ...form,
          properties: { task: { const: name }, ...(form.properties as object) },
          required: ['task', ...(form.required ?? [])],
        }
      })
    const steps = (await loaded(catalog.steps)).map((entry) => ({ ...entry, name: `step ${entry.name}` }))
    const tasks = [...(await loaded(catalog.pipelines)), ...(await loaded(catalog.queries)), ...steps]
    const data = { job: { oneOf: asJobs(tasks) }, settings: of(Settings), result: of(Result), event: of(Event) }
    return {
      data,
      text: JSON.stringify(
        { $schema: 'https://json-schema.org/draft/2020-12/schema', $defs: data, $ref: '#/$defs/job' },
        null,
        2,
      ),
    }
  },
})

const completion = defineQuery({
  name: 'completion',
  summary: 'Print the completion script for bash, zsh or fish',
  positional: ['shell'],
  examples: [['cowhand completion bash > /usr/share/bash-completion/completions/cowhand', 'for everybody on the host']],
  job: z.strictObject({ shell: described(z.enum(shells), 'bash, zsh or fish') }),
  run: async ({ shell }) => ({ data: { script: completionScript(shell) }, text: completionScript(shell) }),
})

export const about: Record<string, () => Promise<Query>> = {
  steps: async () => listing('steps', 'List the steps that "cowhand step" can run', catalog.steps),
  pipelines: async () => listing('pipelines', 'List the commands that change something', catalog.pipelines),
  schema: async () => schema as unknown as Query,
  completion: async () => completion as unknown as Query,
}

const ownCommands = async (): Promise<Command[]> => [
  ...(await loaded(catalog.pipelines)),
  ...(await loaded(catalog.queries)),
  runCommand,
  { name: 'step', summary: 'Run one step ad hoc: cowhand step STEP --help', job: z.strictObject({}) },
  ...(await Promise.all(Object.values(about).map((load) => load()))),
]

/** The help of the whole program. */
export async function overview(): Promise<string> {
  const own = await ownCommands()
  const width = Math.max(...own.map(({ name }) => name.length)) + 2
  const commands = own.map(({ name, summary }) => `  ${name.padEnd(width)}${summary}`)
  const flags = Object.entries(globals).map(([name, { describe }]) => `  ${`--${name}`.padEnd(width)}${describe}`)
  return [
    'cowhand COMMAND [flags]',
    '',
    'Copy-on-write disks for KVM guests: golden images are cached once, instances stand on them.',
    '',
    'Commands:',
    ...commands,
    '',
    'Everywhere:',
    ...flags,
    '',
    'Exit codes: 0 done or already so, 1 failed (run it again to go on), 2 usage, 3 refused (nothing was changed),',
    '4 busy (try again), 128+n ended by signal n.',
    '',
    'To begin: cowhand doctor; cowhand image add FILE --name NAME; cowhand create VM --image NAME --root 20G',
    'More of a command: cowhand COMMAND --help',
    '',
  ].join('\n')
}

const kindOf = ({ type }: { type?: unknown }): 'boolean' | 'value' => (type === 'boolean' ? 'boolean' : 'value')

/** The flags of every command, as completion knows them. */
const everywhere = Object.entries(globals).map(([name, option]) => ({
  name,
  type: kindOf(option),
  ...(option.choices ? { choices: option.choices.map(String) } : {}),
  isPath: name === 'config' || name === 'instances',
}))

/** Candidates for the last of the words, a line each. */
export async function complete(words: string[]): Promise<string> {
  const steps = (await loaded(catalog.steps)).map((entry) => ({ ...entry, name: `step ${entry.name}` }))
  const commands = [...(await ownCommands()).filter(({ name }) => name !== 'step'), ...steps].map((entry) => {
    const members = membersOf(entry.job)
    const valuesOf = ({ enum: choices, format }: (typeof members)[string]) => ({
      ...(choices ? { choices } : {}),
      isPath: format === 'path',
    })
    const own = flagsOf(entry, members).map(([name, member]) => ({ name, type: kindOf(member), ...valuesOf(member) }))
    const positional = (entry.positional ?? []).flatMap((place) => (members[place] ? [valuesOf(members[place])] : []))
    return { name: entry.name, options: [...own, ...everywhere], positional }
  })
  const found = candidates(words[0] === '--' ? words.slice(1) : words, { commands })
  return found.length > 0 ? `${found.join('\n')}\n` : ''
}
