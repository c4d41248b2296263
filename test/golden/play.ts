import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { root } from '../../build/sh.ts'
import type { Ran } from '../lab/host.ts'

const here = join(root, 'test/golden')
const main = join(root, 'scripts/cowhand.ts')
const deno = `DENO_DIR='${root}/build/out/deno' DENO_NO_UPDATE_CHECK=1 '${root}/node_modules/deno/deno'`

/** What `cowhand` in a story is: a line of shell to start it with. */
const runtimes = {
  binary: `exec '${root}/build/out/cowhand' "$@"`,
  tsx: `exec '${process.execPath}' --import '${root}/node_modules/tsx/dist/loader.mjs' '${main}' "$@"`,
  deno: `${deno} run -A --quiet --config '${root}/deno.json' '${main}' "$@"`,
}
export type Runtime = keyof typeof runtimes

/** The names of all stories: test/golden/NAME.t. */
export const stories = (): string[] =>
  readdirSync(here)
    .flatMap((file) => (file.endsWith('.t') ? [file.slice(0, -2)] : []))
    .sort()

/** Run a program on this machine, with nothing of the caller's environment. */
async function onMachine(argv: string[], env: Record<string, string>): Promise<Ran> {
  const [file = '', ...words] = argv
  const child = spawn(file, words, { cwd: here, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = new Promise<number | null>((resolve, reject) => child.on('close', resolve).on('error', reject))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  return { code, stdout, stderr }
}

/** The same on the first of two hosts of the lab (test/lab/pair.ts), which end with it. */
async function onPair(argv: string[], env: Record<string, string>, seconds: number): Promise<Ran> {
  const { startPair } = await import('../lab/pair.ts')
  const pair = await startPair()
  try {
    return await pair.a.run(['env', '-C', here, ...argv], env, seconds)
  } finally {
    await pair.stop()
  }
}

/**
 * Plays a story and compares what is said with what is written there. One of two hosts (two-hosts.sh) needs root.
 * @param seconds until it is ended
 * @param promote write what is said into the story
 * @returns undefined when it is word for word the same, else cram's report with the difference
 */
export async function play(
  story: string,
  runtime: Runtime,
  seconds = 240,
  promote = false,
): Promise<string | undefined> {
  const home = mkdtempSync(join(tmpdir(), 'cowhand-story-'))
  try {
    const bin = join(home, 'bin')
    mkdirSync(bin)
    writeFileSync(join(bin, 'cowhand'), `#!/bin/sh\n${runtimes[runtime]}\n`, { mode: 0o755 })
    const PATH = `${bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`
    const options = [`--shell=${join(here, 'shell')}`, ...(promote ? ['-i', '-y'] : [])]
    const cram = ['timeout', '-k', '5', String(seconds), 'cram3', ...options, `${story}.t`]
    // Nothing of the caller's environment. What cram leaves behind when it is ended lies below HOME.
    const env = { PATH, HOME: home, TMPDIR: home, TERM: 'dumb', LC_ALL: 'C.UTF-8' }
    const isOfTwoHosts = readFileSync(join(here, `${story}.t`), 'utf8').includes('/two-hosts.sh"')
    const { code, stdout, stderr } = await (isOfTwoHosts ? onPair(cram, env, seconds + 10) : onMachine(cram, env))
    if (code === 124 || code === 137) return `${story}.t did not end within ${seconds} s\n${stdout}${stderr}`
    // cram takes a story that exits with 80 for one to be skipped, and is content; here nothing is.
    return code === 0 && stdout.includes('# Ran 1 tests, 0 skipped, 0 failed.') ? undefined : `${stdout}${stderr}`
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}
