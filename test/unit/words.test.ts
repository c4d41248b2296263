import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import * as z from 'zod/mini'
import { type Command, readAllWords, readPlainWords, readWords } from '../../lib/cli/flags.ts'
import { Bytes, Format } from '../../lib/job/spec.ts'

const command: Command = {
  name: 'try',
  summary: 'for this test',
  positional: ['name'],
  job: z.strictObject({
    name: z.string(),
    root: z.optional(Bytes),
    format: z.optional(Format),
    vcpus: z.optional(z.int()),
    kind: z._default(z.enum(['linux', 'windows']), 'linux'),
    hard: z.optional(z.boolean()),
    property: z.optional(z.array(z.string())),
  }),
}

const globals = ['config', 'instances', 'store', 'json', 'dry-run', 'progress', 'quiet', 'verbose', 'lock-wait', 'yes']
const known = (typed: { job: object; globals: Record<string, unknown> }) => ({
  job: { ...typed.job },
  globals: Object.fromEntries(globals.map((name) => [name, typed.globals[name]])),
})

/** Words that are read without yargs: it must read the same in them. */
const plain = [
  'vm',
  'vm --root 20G',
  '--root 20G vm',
  '--root 20G vm --vcpus 2 --kind windows --format vhd',
  'vm --hard --json',
  '--json --dry-run vm --instances /i --store dir:/s --lock-wait 5 --progress json',
  'vm --vcpus 02',
  'a=b --config x=y',
]

for (const line of plain)
  test(`the same with and without yargs: ${line}`, async () => {
    const words = line.split(' ')
    const typed = readPlainWords(command, words)
    assert.ok(typed)
    assert.deepEqual(known(typed), known(await readAllWords(command, words)))
  })

const valued = ['root', 'format', 'vcpus', 'kind', 'property', 'name', 'config', 'progress', 'lock-wait', 'unknown']
const alone = ['--hard', '--json', '--yes', '--no-hard', '--help', '--toString', '--root=1G', '--', '-', 'two', '']
const values = ['20G', '5', '02', '0x2', 'vhd', 'linux', 'json', 'true', 'a=b', ' a', '-1', '--json', '"x"', "'x'", '']

/** Lines that are nearly plain: a name somewhere, and flags with a value or without. */
const nearlyPlain = fc
  .array(fc.oneof(fc.tuple(fc.constantFrom(...valued), fc.constantFrom(...values)), fc.constantFrom(...alone)), {
    maxLength: 3,
  })
  .map((parts) => parts.flatMap((part) => (typeof part === 'string' ? [part] : [`--${part[0]}`, part[1]])))
  .chain((words) => fc.nat(words.length).map((at) => [...words.slice(0, at), 'vm', ...words.slice(at)]))

test('whatever is read without yargs, yargs reads in the same way', () =>
  fc.assert(
    fc.asyncProperty(nearlyPlain, async (words) => {
      const typed = readPlainWords(command, words)
      if (typed) assert.deepEqual(known(typed), known(await readAllWords(command, words)))
    }),
    { numRuns: 2000 },
  ))

/** Words that only yargs reads, or refuses in its own words. */
const other = [
  '',
  'vm --root',
  'vm --root=20G',
  'vm --root 20G --root 30G',
  'vm --root -1',
  'vm --root "20G"',
  "vm --instances '/i'",
  'vm --hard true',
  'vm --json false',
  'vm --progress loud',
  'vm --root 20=G',
  'vm --kind beos',
  'vm --property a=b',
  'vm --property a b',
  'vm two',
  'vm --name other',
  'vm --unknown x',
  'vm --constructor x',
  'vm --no-hard',
  'vm -h',
  'vm -- --root',
  'vm --',
]

for (const line of other)
  test(`left to yargs: ${line}`, () =>
    assert.equal(readPlainWords(command, line.split(' ').filter(Boolean)), undefined))

test('an unknown flag is refused', () =>
  assert.rejects(readWords(command, ['vm', '--rot', '20G']), { code: 'BAD_SPEC', message: /--rot/ }))
