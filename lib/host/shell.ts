import { $, type ProcessOutput, quote } from 'zx/core'
import { Problem } from '../job/problem.ts'
import { environment } from './environment.ts'
import { interrupt } from './interrupt.ts'
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
  /** Text for standard input; without it, the program gets none. */
  input?: string
  /** Added to the clean environment. */
  env?: Record<string, string>
  /** Ends the program: SIGTERM to its group, SIGKILL after ten seconds. Without it, the interrupt of the run does. */
  signal?: AbortSignal | undefined
  onOutput?: (chunk: string) => void
  /** Exit codes that are answers, not failures. */
  accept?: number[]
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
  const signal = options.signal ?? interrupt.signal
  signal.throwIfAborted()
  const shell = $({
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    env: { ...environment(), ...options.env },
    nothrow: true,
    ...(options.input === undefined ? {} : { input: options.input }),
  })
  // Who was orphaned before it asked to die with its parent sees that by now, and goes no further.
  const isOurs = '[ "$PPID" = "$0" ] && exec "$@"'
  const child = shell`exec setpriv --pdeathsig KILL -- sh -c ${isOurs} ${process.pid} ${argv}`
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
  if (code !== 0 && !options.accept?.includes(code)) {
    throw explain(tool, options.why ?? 'go on', code, output.signal, output.stderr)
  }
  return { stdout: output.stdout, code }
}

/** What a failed program's exit means to the operator. */
function explain(tool: string, why: string, code: number, signal: string | null, stderr: string): Problem {
  const words = stderr.trim().split('\n').slice(-3).join('; ').slice(0, 500)
  if (code === 127) return missingTool(tool)
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
