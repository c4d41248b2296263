// Checks who imports whom (.dependency-cruiser.cjs), and first checks the checker: each rule has to find an import that
// is planted against it, and in the house itself modules have to be seen. (With TypeScript 7 it saw none, and was content.)
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { root, sh } from './sh.ts'

/** Against each rule: a file, and what it may not import. */
const planted: Record<string, [file: string, imported: string]> = {
  'lib-below-all': ['lib/host/a.ts', '../../scripts/catalog.ts'],
  'nobody-calls-main': ['scripts/queries/a.ts', '../cowhand.ts'],
  'main-by-catalog': ['scripts/cowhand.ts', './steps/a.ts'],
  'catalog-lists': ['scripts/catalog.ts', '../build/a.ts'],
  'pipelines-on-steps': ['scripts/pipelines/a.ts', '../catalog.ts'],
  'moves-on-steps': ['scripts/moves/a.ts', '../pipelines/a.ts'],
  'steps-alone': ['scripts/steps/a.ts', './b.ts'],
  'queries-on-lib': ['scripts/queries/b.ts', '../steps/b.ts'],
  'zod-mini': ['lib/job/a.ts', 'zod'],
  'door-zx': ['lib/host/b.ts', 'zx/core'],
  'door-yargs': ['scripts/steps/b.ts', 'yargs'],
  'door-chalk': ['lib/image/a.ts', 'chalk'],
  'door-lockfile': ['lib/host/c.ts', 'lockfile'],
  'door-xmldom': ['lib/host/d.ts', '@xmldom/xmldom'],
  'door-yaml': ['lib/cli/a.ts', 'yaml'],
  'pure-touch-nothing': ['lib/job/spec.ts', 'node:fs'],
  'pure-on-pure': ['lib/job/action.ts', '../host/a.ts'],
  'programs-by-lib': ['scripts/queries/c.ts', 'node:child_process'],
  'no-cycle': ['lib/image/b.ts', './c.ts'],
  'no-orphan': ['lib/image/d.ts', ''],
  'no-stranger': ['lib/image/e.ts', 'typescript'],
}

interface Report {
  summary: { totalCruised: number; violations: { from: string; to: string; rule: { name: string } }[] }
}

/** Looks at these trees below a directory. The exit code only counts the violations that the report lists. */
async function cruise(cwd: string, trees: string[]): Promise<Report['summary']> {
  const program = [join(root, 'node_modules/.bin/depcruise'), '--config', join(root, '.dependency-cruiser.cjs')]
  const { stdout } = await sh({ cwd, nothrow: true })`${program} --output-type json ${trees}`
  const { summary }: Report = JSON.parse(stdout)
  return summary
}

/** The rules that find nothing although something is planted against them. */
async function blindRules(): Promise<string[]> {
  const house = mkdtempSync(join(tmpdir(), 'cowhand-imports-'))
  try {
    const write = (file: string, text: string): void => {
      mkdirSync(dirname(join(house, file)), { recursive: true })
      writeFileSync(join(house, file), text, { flag: 'a' })
    }
    for (const [file, imported] of Object.values(planted)) {
      write(file, imported ? `import * as it from '${imported}'\nexport default it\n` : 'export default 1\n')
    }
    for (const file of ['scripts/steps/b.ts', 'lib/host/a.ts', 'build/a.ts']) write(file, 'export const there = 1\n')
    write('lib/image/c.ts', "import * as it from './b.ts'\nexport default it\n")
    copyFileSync(join(root, 'package.json'), join(house, 'package.json'))
    symlinkSync(join(root, 'node_modules'), join(house, 'node_modules'))
    const found = new Set((await cruise(house, ['lib', 'scripts', 'build'])).violations.map(({ rule }) => rule.name))
    const rules: { forbidden: { name: string }[] } = createRequire(import.meta.url)('../.dependency-cruiser.cjs')
    return rules.forbidden.map(({ name }) => name).filter((name) => !found.has(name))
  } finally {
    rmSync(house, { recursive: true })
  }
}

const blind = await blindRules()
const { totalCruised, violations } = await cruise(root, ['lib', 'scripts', 'build', 'test'])
for (const name of blind) process.stdout.write(`rule "${name}" is blind: an import planted against it is not found\n`)
for (const { from, to, rule } of violations) process.stdout.write(`${from} may not import ${to}: ${rule.name}\n`)
if (totalCruised === 0) process.stdout.write('no module was seen: does dependency-cruiser know this TypeScript?\n')
process.stdout.write(`${totalCruised} modules, ${violations.length} forbidden imports, ${blind.length} blind rules\n`)
process.exitCode = blind.length + violations.length > 0 || totalCruised === 0 ? 1 : 0
