import assert from 'node:assert/strict'
import { test } from 'node:test'
import { globals, membersOf } from '../../lib/cli/flags.ts'
import { pipelines, queries, steps } from '../../scripts/catalog.ts'
import { splitWords } from '../../scripts/find.ts'

const commands = { ...pipelines, ...queries }

for (const [key, load] of Object.entries(commands))
  test(`"${key}" is found by its name, and each of its flags is its own and explained`, async () => {
    const { name, job, positional = [] } = await load()
    assert.equal(name, key)
    const members = membersOf(job)
    for (const [flag, { description }] of Object.entries(members)) {
      assert.ok(!(flag in globals), `--${flag} means something else everywhere`)
      assert.ok(description, `--${flag} is not explained`)
    }
    for (const place of positional) assert.ok(place in members, place)
  })

for (const [key, load] of Object.entries(steps))
  test(`step "${key}" is found by its name, and each of its flags is its own and explained`, async () => {
    const { name, input } = await load()
    assert.equal(name, key)
    for (const [flag, { description }] of Object.entries(membersOf(input()))) {
      assert.ok(!(flag in globals), `--${flag} means something else everywhere`)
      assert.ok(description, `--${flag} is not explained`)
    }
  })

for (const [flag, { type }] of Object.entries(globals))
  test(`the command is found behind --${flag}`, () => {
    const words = type === 'boolean' ? [`--${flag}`] : [`--${flag}`, 'value']
    assert.deepEqual(splitWords([...words, 'show', 'vm']), { name: 'show', words: [...words, 'vm'] })
  })
