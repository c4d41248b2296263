import { main } from '../../scripts/main.ts'

// cowhand itself, but it kills itself when it has told so many events: `KILL_AT` counts them (`12`, or `12,14` for two
// signals), and `KILL_AFTER` waits so many milliseconds more, which is in the middle of the action that was told last.
// `KILL_WITH` is another signal than SIGKILL.
const at = (process.env['KILL_AT'] ?? '').split(',').map(Number)
const after = Number(process.env['KILL_AFTER'] ?? 0)
const signal = process.env['KILL_WITH'] ?? 'SIGKILL'
const die = () => process.kill(process.pid, signal)
let told = 0

process.exitCode = await main({
  argv: process.argv.slice(2),
  environment: process.env,
  isTerminal: { in: false, out: false, err: false },
  columns: 80,
  onEvent: ({ type }) => {
    if (type === 'progress') return
    told += 1
    if (at.includes(told)) after > 0 ? setTimeout(die, after) : die()
  },
})
