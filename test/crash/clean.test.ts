import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { compile } from '../../build/bun.ts'
import { root } from '../../build/sh.ts'
import { overlayBytes } from '../../lib/image/qcow2-write.ts'

// A cleaner that is killed at any moment has removed nothing that is needed, and the same command again ends it.

const binary = join(root, 'build/out/cowhand')
const here = mkdtempSync(join(tmpdir(), 'cowhand-clean-crash-'))
const suicidal = join(here, 'cowhand-crash')
const instances = join(here, 'instances')
const inBases = (name: string) => join(instances, '_base', name)
const [needed, old, nova] = ['a', 'b', 'c'].map((digit) => digit.repeat(40)) as [string, string, string]

before(() => compile('test/crash/entry.ts', suicidal))
after(() => rmSync(here, { recursive: true, force: true }))

/** A base that is needed, some that are not, one of another tool, and leftovers: none touched for days. */
function makeCache(): void {
  rmSync(instances, { recursive: true, force: true })
  mkdirSync(join(instances, '_base'), { recursive: true })
  mkdirSync(join(instances, 'web1'))
  const make = (name: string, content = '') => {
    const then = Date.now() / 1000 - 3 * 86_400
    writeFileSync(inBases(name), content)
    if (content === '') truncateSync(inBases(name), 2 ** 20)
    utimesSync(inBases(name), then, then)
  }
  for (const name of [needed, old, 'swap_512', 'ephemeral_0_10_linux']) {
    make(name)
    make(`${name}.json`, '{"version":1}')
  }
  for (const name of [nova, `${old}.part`, 'swap_7.converted']) make(name)
  make('swap_8.json', '{"version":1}')
  const disk = { virtualSize: 2 ** 20, backing: inBases(needed), backingFormat: 'raw' } as const
  writeFileSync(join(instances, 'web1/disk'), overlayBytes(disk).bytes)
}

const clean = (program: string, env: Record<string, string> = {}, ...more: string[]) =>
  spawnSync(program, ['--instances', instances, 'cache', 'clean', ...more], {
    encoding: 'utf8',
    env: { PATH: '/usr/bin:/bin', ...env },
    timeout: 60_000,
  })
const left = () => readdirSync(join(instances, '_base')).sort()

test('cache clean, killed at every action, ends the same', () => {
  makeCache()
  const { stderr, status } = clean(binary, {}, '--progress', 'json')
  assert.equal(status, 0, stderr)
  const whole = [needed, `${needed}.json`, nova, `${nova}.json`]
  assert.deepEqual(left(), whole)
  const events = stderr.trim().split('\n')
  assert.ok(events.length >= 14, stderr)
  for (let at = 1; at <= events.length; at += 1) {
    makeCache()
    const killed = clean(suicidal, { KILL_AT: String(at) })
    assert.equal(killed.signal, 'SIGKILL', `at ${events[at - 1]}: ${killed.stderr}`)
    assert.ok(left().includes(needed))
    const again = clean(binary)
    assert.equal(again.status, 0, again.stderr)
    assert.deepEqual(left(), whole, `after ${events[at - 1]}`)
    assert.equal(JSON.parse(clean(binary, {}, '--json').stdout).changed, false)
  }
})
