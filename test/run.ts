// npm test: the checks, then all tests in one run of node's runner, whose closing lines count everything.
//   tsx test/run.ts [CHECK|GROUP]...   these only; a GROUP is test/GROUP/ or test/GROUP.test.ts
//   tsx test/run.ts golden --promote STORY   what the story says now becomes what it is to say
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { root, show } from '../build/sh.ts'

/** Scripts of package.json. */
const checks = ['types', 'lint', 'imports', 'unused']

const say = (text: string): void => void process.stdout.write(`${text}\n`)
const failed: string[] = []

/** Runs one part under a heading, and says how long it took. */
async function part(name: string, work: () => Promise<boolean>): Promise<boolean> {
  say(`── ${name}`)
  const start = performance.now()
  const good = await work()
  if (!good) failed.push(name)
  if (name !== 'tests') say(`   ${good ? 'ok' : 'FAILED'}, ${((performance.now() - start) / 1000).toFixed(1)} s`)
  return good
}

const script = (name: string): Promise<boolean> =>
  part(name, async () => (await show`npm run --silent ${name}`).exitCode === 0)

/** All test files below test/, or those of the groups. Node 20 takes no `**`. */
function testFiles(groups: string[]): string[] {
  const all = readdirSync(join(root, 'test'), { recursive: true, encoding: 'utf8' })
  const files = all.filter((file) => file.endsWith('.test.ts')).sort()
  const of = (group: string) => (file: string) => file.startsWith(`${group}/`) || file === `${group}.test.ts`
  return (groups.length === 0 ? files : groups.flatMap((group) => files.filter(of(group)))).map(
    (file) => `test/${file}`,
  )
}

/** Runs the files with node's runner. Good is: there were tests, and each of them ran and passed. */
async function tests(files: string[]): Promise<boolean> {
  if (files.length === 0) {
    say('there are no such tests')
    return false
  }
  const record = join(root, 'build/out/tests.tap')
  mkdirSync(join(root, 'build/out'), { recursive: true })
  rmSync(record, { force: true })
  const seen = process.stdout.isTTY && !process.env['CI'] ? 'spec' : 'tap'
  const reporters = [
    ...[`--test-reporter=${seen}`, '--test-reporter-destination=stdout'],
    ...['--test-reporter=tap', `--test-reporter-destination=${record}`],
  ]
  const { exitCode } = await show`node_modules/.bin/tsx --test --test-concurrency=3 ${reporters} ${files}`
  const count = (of: string): number => {
    const number = new RegExp(`^# ${of} ([0-9]+)$`, 'm').exec(readFileSync(record, 'utf8'))?.[1]
    return number === undefined ? Number.NaN : Number(number)
  }
  return exitCode === 0 && count('tests') > 0 && count('tests') === count('pass')
}

async function promote(story: string): Promise<boolean> {
  const { play } = await import('./golden/play.ts')
  say((await play(story, 'binary', 120, true)) ?? 'It says that already.')
  const difference = await play(story, 'binary')
  if (difference !== undefined) say(`And now it says something else again:\n${difference}`)
  return difference === undefined
}

async function main(words: string[]): Promise<void> {
  const all = words.length === 0
  const story = words[words.indexOf('--promote') + 1]
  const groups = words.filter((word) => !checks.includes(word))
  for (const name of all ? checks : words.filter((word) => checks.includes(word))) await script(name)
  // Unit tests are of the sources; everything else is of the binary.
  const compiled = (!all && groups.every((group) => group === 'unit')) || (await script('build'))
  if (compiled && words.includes('--promote')) await part('promote', () => promote(story ?? ''))
  else if (compiled && (all || groups.length > 0)) await part('tests', () => tests(testFiles(groups)))
  if (failed.length > 0) say(`FAILED: ${failed.join(', ')}`)
  process.exitCode = failed.length > 0 ? 1 : 0
}

if (process.env['CI']) {
  delete process.env['FORCE_COLOR']
  process.env['NO_COLOR'] = '1'
}
await main(process.argv.slice(2))
