import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { root } from '../../build/sh.ts'
import { baseName } from '../../lib/job/layout.ts'
import type { Result } from '../../lib/job/result.ts'

// What the tests of the Glance store share: the binary, its directories, and the rule that no secret is ever told.

/** The result document; what was found by a command that only looks is in it under its own names. */
export type Ran = Result & Record<string, unknown> & { code: number | null; stderr: string }

export const MiB = 2 ** 20
export const here = mkdtempSync(join(tmpdir(), 'cowhand-glance-lab-'))
export const home = join(here, 'home')
export const file = (name: string): string => join(here, name)
export const fresh = (): string => mkdtempSync(join(here, 'instances-'))

/** Whatever a run may know and must not tell; a Fernet token begins as the last one does. */
export const secrets = new Set(['gAAAAA'])

export const tell = (...words: string[]): string => execFileSync(words[0] ?? '', words.slice(1), { encoding: 'utf8' })

/** A raw disk of random bytes, with a hole at its end. */
export function makeDisk(name: string, bytes: number, size = bytes): string {
  writeFileSync(file(name), randomBytes(bytes))
  tell('truncate', '-s', `${size}`, file(name))
  return file(name)
}

export function convert(from: string, format: string, name: string, ...options: string[]): string {
  tell('qemu-img', 'convert', '-f', 'raw', '-O', format, ...options, from, file(name))
  return file(name)
}

/** Run the binary, as talkative as it can be. @param env of the cloud; the store is Glance unless it says another one */
export async function cowhand(
  words: string[],
  env: Record<string, string> = {},
  instances: string = fresh(),
  prefix: string[] = [],
): Promise<Ran> {
  mkdirSync(home, { recursive: true })
  const flags = ['--instances', instances, '--json', '--verbose', '--progress', 'json']
  const [program = '', ...argv] = [...prefix, join(root, 'build/out/cowhand'), ...words, ...flags]
  const child = spawn(program, argv, {
    cwd: here,
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', HOME: home, COWHAND_STORE: 'glance', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  for (const secret of secrets) assert.ok(!`${stdout}${stderr}`.includes(secret), `it told "${secret}": ${stderr}`)
  assert.notEqual(stdout, '', stderr)
  return { code, stderr, ...JSON.parse(stdout) }
}

/** The same, and it has to end well. */
export async function good(...call: Parameters<typeof cowhand>): Promise<Ran> {
  const ran = await cowhand(...call)
  assert.equal(ran.code, 0, `${ran.error?.message}\n${ran.stderr}`)
  return ran
}

export const outcome = ({ code, error }: Ran): [number | null, string | undefined] => [code, error?.code]

/** Files below a directory, without the guard of the locks, which stays for ever. */
export const filesIn = (directory: string): string[] =>
  readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== 'takeover.guard')
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort()

/** The base is called by the sha1 of the image's id, the disk stands on it, and both hold what the source holds. */
export async function assertMade(instances: string, name: string, id: string, source: string): Promise<void> {
  const base = join(instances, '_base', await baseName(id))
  const disk = join(instances, name, 'disk')
  tell('qemu-img', 'check', '-f', 'qcow2', disk)
  const info = JSON.parse(tell('qemu-img', 'info', '--output=json', '-f', 'qcow2', disk))
  assert.deepEqual([info['full-backing-filename'], info['backing-filename-format']], [base, 'raw'])
  tell('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', base, source)
  tell('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', disk, source)
}

/** No file that cowhand wrote holds a secret. To be called at the end; it removes everything. */
export function finish(): void {
  try {
    for (const path of filesIn(here).filter(
      (path) => path.startsWith('instances-') && !/\/(disk|_base\/\w+)$/.test(path),
    ))
      for (const secret of secrets)
        assert.ok(!readFileSync(file(path), 'latin1').includes(secret), `${secret} in ${path}`)
  } finally {
    rmSync(here, { recursive: true, force: true })
  }
}
