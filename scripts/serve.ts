import { hostname } from 'node:os'
import * as z from 'zod/mini'
import type { Command } from '../lib/cli/flags.ts'
import { writeAll } from '../lib/cli/output.ts'
import { audience, interrupt } from '../lib/host/interrupt.ts'
import { linesOf } from '../lib/host/lines.ts'
import { longestLine, protocol, pulse, type Reply, Request } from '../lib/job/conversation.ts'
import type { Tell } from '../lib/job/events.ts'
import { misuse, Problem } from '../lib/job/problem.ts'
import type { Settings } from '../lib/job/settings.ts'
import manifest from '../package.json' with { type: 'json' }
import type { answerPhase } from './destination.ts'
import { asProblem, Failed } from './task.ts'

// The other end of lib/host/destination.ts: `cowhand __serve`, which another host's cowhand starts by ssh. Requests
// come by standard input, one at a time; what goes out by standard output is nothing but replies.

/** What does the phases. */
export type Handler = typeof answerPhase

const say = (reply: Reply | object): void => writeAll(1, `${JSON.stringify(reply)}\n`)

/** Milliseconds between two words on the same progress: it goes over the network, and is for people. */
const redraw = 200

/** Who asks is told what happens here. @param onEvent the crash test listens in */
function teller(onEvent: Tell | undefined): Tell {
  const told = new Map<string, number>()
  return (event) => {
    onEvent?.(event)
    if (event.type === 'progress' && event.done !== event.total) {
      const now = performance.now()
      if (now - (told.get(event.what) ?? -redraw) < redraw) return
      told.set(event.what, now)
    }
    say({ event })
  }
}

/** Hidden: no person types it. Its flags are those of every command. */
export const serveCommand: Command = { name: '__serve', summary: '', job: z.strictObject({}) }

const gone = (how: string): Problem =>
  new Problem(
    'failed',
    'INTERRUPTED',
    `Cannot go on: ${how}`,
    'run the same command there again: it goes on where it was',
  )

/**
 * Answer requests until there are no more. When the host that asks is gone (its end is closed, or it was silent for too
 * long), what is being done for it is interrupted: it must not go on, and keep locks, behind the back of the next run.
 */
export async function serve(handle: Handler, settings: Settings, onEvent?: Tell): Promise<void> {
  const { stdin } = await import('node:process')
  const tell = teller(onEvent)
  audience.tell = tell
  say({ cowhand: manifest.version, protocol, host: hostname() })
  const { signal } = interrupt
  signal.addEventListener('abort', () => stdin.destroy(), { once: true })
  let isBusy = false
  let last = Promise.resolve()
  let missed = 0
  // Counted, not timed: whoever was busy itself for that long has first to hear what was said meanwhile.
  const silence = setInterval(() => {
    missed += 1
    if (missed > pulse.missed) interrupt.abort(gone('nothing was heard of who asked any more'))
  }, pulse.every * 1000)
  try {
    for await (const line of linesOf(stdin, longestLine)) {
      const request = parse(line)
      missed = 0
      if (!request || 'phase' in request) {
        isBusy = true
        last = last
          .then(async () => say(await answer(handle, request, settings, tell)))
          .finally(() => {
            isBusy = false
          })
      }
    }
    if (isBusy) interrupt.abort(gone('the connection to who asked was closed'))
  } catch (error) {
    if (!signal.aborted) interrupt.abort(error)
  }
  clearInterval(silence)
  await last
  signal.throwIfAborted()
}

function parse(line: string): Request | undefined {
  try {
    return Request.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}

async function answer(handle: Handler, request: Request | undefined, settings: Settings, tell: Tell): Promise<object> {
  try {
    if (!request || !('phase' in request)) misuse('Cannot read a request: it is none', 'use the same version on both')
    const { phase, document, dryRun = false } = request
    return { ...(await handle(phase, document, { settings, tell, signal: interrupt.signal, dryRun })) }
  } catch (error) {
    const { kind, code, message, remedy } = asAnswered(error)
    return { ...(error instanceof Failed ? { result: error.document } : {}), problem: { kind, code, message, remedy } }
  }
}

function asAnswered(error: unknown): Problem {
  if (error instanceof Failed) return error.problem
  if (!(error instanceof z.core.$ZodError)) return asProblem(error, false)
  const [issue] = error.issues
  const what = `its document is not what it has to be: ${issue?.path.join('.')}: ${issue?.message}`
  return new Problem('usage', 'BAD_SPEC', `Cannot read a request: ${what}`, 'use the same version on both')
}
