import { setTimeout as sleep } from 'node:timers/promises'
import { settingsFrom } from '../../lib/cli/config.ts'
import { caller } from '../../lib/host/caller.ts'
import { closeAll } from '../../lib/host/closing.ts'
import { ConnectionLost, destinationAt } from '../../lib/host/destination.ts'
import { audience, interrupt } from '../../lib/host/interrupt.ts'
import type { Offer, Phase } from '../../lib/job/move.ts'
import { Problem } from '../../lib/job/problem.ts'
import { HostName } from '../../lib/job/spec.ts'
import { type Handler, serve } from '../../scripts/serve.ts'
import { asProblem } from '../../scripts/task.ts'

// Both ends of a conversation as cowhand has it, with phases that do what the test wants.
//   talker __serve                      what is asked for by NAME: `echo`, `sleep SECONDS`, `large BYTES` …
//   talker HOST PHASE:NAME[:NUMBER]…    asks, and prints a line of JSON for the connection and for each answer
//   (`@reconnect`, `@ssh`, `@renew` and `@wait:MILLISECONDS` are for this end.)

const handle: Handler = async (phase, document, { tell, signal }) => {
  const { name, number } = document as { name: string; number: number }
  const result = (task: string) => ({
    result: { version: 1 as const, task, ok: true, changed: false, steps: [] },
  })
  switch (name) {
    case 'echo':
      return result(`${phase} ${process.env['SSH_AUTH_SOCK'] ?? ''}`)
    case 'large':
      return result('x'.repeat(number))
    case 'noisy':
      for (let done = 1; done <= number; done++) tell({ type: 'progress', what: 'fetch x', done, total: number })
      tell({ type: 'notice', message: 'a\u001b[31mb' })
      tell({ type: 'step', step: 'grow-disk', status: 'ok' })
      tell({ type: 'action', step: 'grow-disk', action: 'grow' })
      return {}
    case 'sleep':
      await sleep(number * 1000, undefined, { signal }).catch(() => {
        throw signal.reason
      })
      return result('slept')
    case 'refuse':
      throw new Problem('refused', 'NO_SPACE', 'Cannot prepare "/i/a: b": there is no space', 'free some: df /i')
    case 'fault':
      throw new TypeError('not a function')
    default:
      process.stdout.write(`${'garbage '.repeat(number)}\n`)
      return {}
  }
}

const print = (line: object): void => void process.stdout.write(`${JSON.stringify(line)}\n`)

async function timed(what: string, work: () => Promise<object | undefined>): Promise<void> {
  const start = performance.now()
  const seconds = () => Math.round(performance.now() - start) / 1000
  try {
    const got = await work()
    print({ what, ...got, seconds: seconds() })
  } catch (error) {
    const { code, kind, message, remedy } = asProblem(error, true)
    const isLost = error instanceof ConnectionLost
    print({ what, problem: { code, kind, message, remedy }, isLost, seconds: seconds() })
  }
}

async function talk(host: string, words: string[]): Promise<void> {
  const settings = await settingsFrom({}, process.env)
  audience.tell = (event) => print({ event })
  await timed('connect', async () => void (await destinationAt(host, settings)))
  for (const word of words)
    await timed(word, async () => {
      const destination = await destinationAt(host, settings)
      const [phase = '', name = '', number = '0'] = word.split(':')
      if (phase === '@reconnect') return void (await destination.reconnect())
      if (phase === '@ssh') return { ssh: destination.ssh.join(' ') }
      if (phase === '@renew') return void interrupt.renew()
      if (phase === '@wait') return void (await sleep(Number(name)))
      const { result } = await destination.ask(phase as Phase, { name, number: Number(number) } as unknown as Offer)
      return { task: result?.task.slice(0, 100), length: result?.task.length }
    })
  await timed('close', async () => void (await closeAll()))
}

caller.environment = process.env
process.once('SIGTERM', () => interrupt.abort(new Problem('failed', 'INTERRUPTED', 'Cannot go on: SIGTERM', '-')))
const [first = '', ...words] = process.argv.slice(2)
if (first === '__serve') await serve(handle, await settingsFrom({}, process.env))
else await talk(HostName.parse(first), words)
