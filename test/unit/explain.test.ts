import assert from 'node:assert/strict'
import { test } from 'node:test'
import * as z from 'zod/mini'
import { type Command, jobFrom } from '../../lib/cli/flags.ts'
import { AbsolutePath, Bytes, Format, NonEmpty, Uuid } from '../../lib/job/spec.ts'

const command: Command = {
  name: 'try',
  summary: 'for this test',
  positional: ['name'],
  job: z.strictObject({
    name: z.optional(NonEmpty),
    path: z.optional(AbsolutePath),
    root: z.optional(Bytes),
    format: z.optional(Format),
    uuid: z.optional(Uuid),
    vcpus: z.optional(z.int()),
    mark: z.optional(z.number().check(z.multipleOf(2))),
    hard: z.optional(z.boolean()),
    property: z.optional(z.array(z.string())),
    properties: z.optional(z.record(z.string(), z.string())),
  }),
}

const rows: [job: Record<string, unknown>, message: RegExp][] = [
  [{ rot: '20G' }, /^Cannot use --rot: the command "try" has no such name$/],
  [{ name: '' }, /^Cannot read NAME "": it is empty$/],
  [{ name: 5 }, /^Cannot read NAME "5": it is not text$/],
  [{ path: 'a' }, /^Cannot read --path "a": it is not an absolute path$/],
  [{ root: '20X' }, /^Cannot read --root "20X": it is not an absolute size such as /],
  [{ root: '511' }, /^Cannot read --root "511": it is not a multiple of 512 bytes$/],
  [{ root: true }, /^Cannot read --root "true": it is not text$/],
  [{ format: 'iso' }, /^Cannot read --format "iso": it is not one of: qcow2, .*, vhd$/],
  [{ uuid: 'z' }, /^Cannot read --uuid "z": it is not a UUID$/],
  [{ vcpus: '2' }, /^Cannot read --vcpus "2": it is not a number$/],
  [{ vcpus: 1.5 }, /^Cannot read --vcpus "1.5": it is not a whole number$/],
  [{ vcpus: 1e16 }, /^Cannot read --vcpus "10000000000000000": it is more than 9007199254740991$/],
  [{ vcpus: -1e16 }, /^Cannot read --vcpus "-10000000000000000": it is less than -9007199254740991$/],
  [{ mark: 3 }, /^Cannot read --mark "3": it is wrong: /],
  [{ hard: 'yes' }, /^Cannot read --hard "yes": it is not true or false$/],
  [{ property: 'a=b' }, /^Cannot read --property "a=b": it is not a list$/],
  [{ property: [5] }, /^Cannot read --property "5": it is not text$/],
  [{ properties: 'a=b' }, /^Cannot read --properties "a=b": it is not a record$/],
]

for (const [job, message] of rows)
  test(`what is wrong is said in a sentence: ${JSON.stringify(job)}`, () =>
    assert.throws(() => jobFrom(command, job), { code: 'BAD_SPEC', message }))
