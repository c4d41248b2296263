import { constants } from 'node:os'
import { $, type ProcessOutput, quote } from 'zx/core'
import { Problem } from '../job/problem.ts'
import { confined, isUnconfined, missingOf, unconfined } from './confined.ts'
import { environment } from './environment.ts'
import { interrupt } from './interrupt.ts'
import { type Sandbox, sandboxEnvironment, withUs } from './sandbox.ts'
import { missingTool } from './tools.ts'

// The one door to zx. Its defaults believe the caller's environment (a shell by PATH, ~/.bashrc, ZX_*): ours do not.
$.shell = '/bin/bash'
$.prefix = 'set -euo pipefail;'
$.quote = quote
$.quiet = true
$.verbose = false
$.detached = true // a process group of its own, so that a signal reaches all of it

export interface RunOptions {
  /** What an error says could not be done: VERB "THING". */
  why?: string
  /** Added to the clean environment. */
  env?: Record<string, string>
  /**
   * Ends the program: SIGTERM to its group, SIGKILL after ten seconds (in a sandbox: at once). Without it, the interrupt
   * of the run does.
   */
  signal?: AbortSignal | undefined
  onOutput?: (chunk: string) => void
  /** Exit codes that are answers, not failures. */
  accept?: number[]
  /** For a program that reads what we did not write. It starts in `/`. */
  sandbox?: Sandbox
  /** Descriptors of ours that it has as 3, 4 and so on. */
  files?: number[]
  /** What it says, in words that the operator knows. */
  reword?: (words: string) => string
  /** What an end of it means; undefined: what it means of any program. */
  explain?: (end: End) => Problem | undefined
}

/** How a program failed. `words`: the last of what it said; `said`: the last 4000 characters, line by line. */
export interface End {
  code: number
  signal: string | undefined
  words: string
  said: string
}

const grace = 10_000

/**
 * Run a program to its end and answer with its output. It starts in a clean environment and dies with us: no
 * orphan goes on writing after a SIGKILL.
 * @throws {Problem} TOOL_MISSING, NO_SPACE or TOOL_FAILED, with the program's own words; the signal's reason when aborted
 */
export async function program(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<{ stdout: string; code: number }> {
  const tool = argv[0] ?? ''
  for (const argument of argv)
    if (typeof argument !== 'string' || argument.includes('\0')) throw new TypeError('bad argument')
  const { sandbox } = options
  if (tool === 'qemu-img' && !sandbox) throw new TypeError('qemu-img runs only in its sandbox: see qemuImg')
  const signal = options.signal ?? interrupt.signal
  signal.throwIfAborted()
  const shell = $({
    stdio: ['ignore', 'pipe', 'pipe', ...(options.files ?? [])],
    env: { ...environment(), ...(sandbox ? sandboxEnvironment : {}), ...options.env },
    nothrow: true,
    ...(sandbox ? { cwd: '/' } : {}),
  })
  const words = sandbox ? confined(argv, sandbox) : withUs(argv)
  const child = shell`exec ${words}`
  if (options.onOutput) {
    const listener = options.onOutput
    child.stdout.on('data', (chunk: Buffer) => listener(String(chunk)))
  }
  let killer: NodeJS.Timeout | undefined
  const kill = (name: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, name)
    } catch {
      // it has ended by itself
    }
  }
  const stop = () => {
    // What is in a sandbox has nothing to put in order, and need not be asked.
    if (sandbox) return kill('SIGKILL')
    kill('SIGTERM')
    killer = setTimeout(kill, grace, 'SIGKILL')
  }
  signal.addEventListener('abort', stop, { once: true })
  let output: ProcessOutput
  try {
    output = await child
  } finally {
    clearTimeout(killer)
    signal.removeEventListener('abort', stop)
  }
  signal.throwIfAborted()
  const code = output.exitCode ?? -1
  const why = options.why ?? 'go on'
  const missing = code === 127 ? await missingOf(words, options.env?.['PATH']) : undefined
  if (missing !== undefined) throw missingTool(missing)
  // Before its exit code is asked for: 1 is also an answer of some programs, and this one did not even start.
  if (sandbox && code !== 0 && isUnconfined(output.stderr)) throw unconfined(tool, why, output.stderr)
  if (code === 127) throw missingTool(tool)
  if (code !== 0 && !options.accept?.includes(code)) {
    const end = endOf(output, code, options.reword)
    throw options.explain?.(end) ?? explain(tool, why, end)
  }
  return { stdout: output.stdout, code }
}

/** In a namespace of its own, the program's parent tells its signal, as 128 and more, with a line of its own. */
function endOf({ signal, stderr }: ProcessOutput, code: number, reword = (words: string) => words): End {
  const [told] = Object.entries(constants.signals).find(([, number]) => number === code - 128) ?? []
  const lines = stderr.trim().split('\n')
  if (!signal && told) lines.pop()
  return {
    code,
    signal: signal ?? told,
    words: reword(lines.slice(-3).join('; ')).slice(0, 500),
    said: lines.join('\n').slice(-4000),
  }
}

/** What a failed program's exit means to the operator. */
function explain(tool: string, why: string, { code, signal, words }: End): Problem {
  if (/No space left on device|ENOSPC/.test(words))
    return new Problem(
      'failed',
      'NO_SPACE',
      `Cannot go on with "${tool}": ${words}`,
      'free some space, then run the same command again',
    )
  const how = signal ? `was ended by ${signal}` : `failed with exit code ${code}`
  return new Problem(
    'failed',
    'TOOL_FAILED',
    `Cannot ${why}: ${tool} ${how}${words ? `: ${words}` : ''}`,
    'mend what it says, then run the same command again',
  )
}
