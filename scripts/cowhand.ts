import { main } from './main.ts'

// The only file that knows the process it runs in.
process.exitCode = await main({
  argv: process.argv.slice(2),
  environment: process.env,
  isTerminal: { in: process.stdin.isTTY === true, out: process.stdout.isTTY === true, err: process.stderr.isTTY === true },
  columns: process.stdout.columns ?? 80,
})
