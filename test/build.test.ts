// The binary runs as root in directories that others may write to: what lies there must not become part of it.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { compile, flags, hardening } from '../build/bun.ts'
import { root } from '../build/sh.ts'

const cowhand = join(root, 'build/out/cowhand')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))

/** A directory with traps in it: foreign settings, and foreign code to be loaded first, which leaves `evil` behind. */
function trapped(settings: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'cowhand-build-'))
  writeFileSync(join(directory, '.env'), `${settings}\n`)
  writeFileSync(join(directory, 'bunfig.toml'), 'preload = ["./evil.ts"]\n')
  writeFileSync(join(directory, 'evil.ts'), "require('node:fs').writeFileSync('evil', 'it ran')\n")
  return directory
}

/** Runs a program in a trapped directory. `evil`: did foreign code run? */
function runTrapped(program: string, args: string[], settings: string, env: Record<string, string> = {}) {
  const directory = trapped(settings)
  try {
    const { status, stdout, stderr } = spawnSync(program, args, { cwd: directory, env, encoding: 'utf8' })
    return { status, stdout, stderr, evil: existsSync(join(directory, 'evil')) }
  } finally {
    rmSync(directory, { recursive: true })
  }
}

describe('what lies in the working directory', () => {
  let scratch = ''
  before(() => {
    scratch = mkdtempSync(join(tmpdir(), 'cowhand-probe-'))
    writeFileSync(join(scratch, 'probe.ts'), "process.stdout.write(process.env['COWHAND_INSTANCES'] ?? 'default')\n")
  })
  after(() => rmSync(scratch, { recursive: true }))

  for (const { name, using, shows } of [
    { name: 'is settings and code without the hardening flags', using: [], shows: { stdout: '/evil', evil: true } },
    { name: 'is nothing with them', using: hardening, shows: { stdout: 'default', evil: false } },
  ]) {
    test(name, async () => {
      const probe = join(scratch, `probe-${using.length}`)
      await compile(join(scratch, 'probe.ts'), probe, [...flags.filter((flag) => !hardening.includes(flag)), ...using])
      const { stdout, evil } = runTrapped(probe, [], 'COWHAND_INSTANCES=/evil')
      assert.deepEqual({ stdout, evil }, shows)
    })
  }

  test('is not code of cowhand', () => {
    const { status, stdout, evil } = runTrapped(cowhand, ['--version'], 'COWHAND_INSTANCES=/evil')
    assert.deepEqual({ status, evil }, { status: 0, evil: false })
    assert.ok(stdout.split(/\s+/).includes(version), `"${stdout}" does not say ${version}`)
  })

  test('is not settings of cowhand, although the environment is', () => {
    // The setting is one that no command accepts, so it shows whether it is read.
    const bad = { COWHAND_STORE: 'nonsense' }
    const good = { COWHAND_INSTANCES: join(scratch, 'instances'), COWHAND_STORE: `dir:${scratch}` }
    const ours = runTrapped(cowhand, ['list'], 'COWHAND_NOTHING=1', { ...good, ...bad })
    assert.equal(ours.status, 2, ours.stderr)
    const theirs = runTrapped(cowhand, ['list'], 'COWHAND_STORE=nonsense', {
      COWHAND_INSTANCES: good.COWHAND_INSTANCES,
    })
    assert.equal(theirs.status, 0, theirs.stderr)
    assert.equal(theirs.evil, false)
  })
})
