import { main } from '../../scripts/main.ts'

// cowhand itself, but it kills itself with SIGKILL when it has told so many events: `KILL_AT` counts them, and
// `KILL_AFTER` waits so many milliseconds more, which is in the middle of the action that was told last.
const at = Number(process.env['KILL_AT'] ?? Number.POSITIVE_INFINITY)
const after = Number(process.env['KILL_AFTER'] ?? 0)
const die = () => process.kill(process.pid, 'SIGKILL')
let told = 0

process.exitCode = await main({
  argv: process.argv.slice(2),
  environment: process.env,
  isTerminal: { in: false, out: false, err: false },
  columns: 80,
  onEvent: ({ type }) => {
    if (type === 'progress') return
    told += 1
    if (told === at) after > 0 ? setTimeout(die, after) : die()
  },
})
