import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { play, type Runtime, stories } from './golden/play.ts'

/** Stories that are told again with the sources under the other runtimes: few, as these start slowly. */
const told = ['dry-run', 'first-create', 'version']

/** STORY=NAME plays only that one. */
const wanted = stories().filter((story) => !process.env['STORY'] || story === process.env['STORY'])

const tell = (runtime: Runtime, names: string[]) =>
  describe(`stories on ${runtime}`, { concurrency: 2 }, () => {
    for (const story of names) {
      test(`${story} (${runtime})`, async () => {
        const difference = await play(story, runtime)
        if (difference !== undefined) assert.fail(`\n${difference}`)
      })
    }
  })

test('there are stories', () => assert.notDeepEqual(wanted, []))
tell('binary', wanted)
for (const runtime of ['tsx', 'deno'] as const)
  tell(
    runtime,
    wanted.filter((story) => told.includes(story)),
  )
