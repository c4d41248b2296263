import { fstatSync } from 'node:fs'
import { main } from './main.ts'

/** Asked first, and only when somebody wants to know: to load the runtime's streams takes 4 ms. */
const isDevice = (fd: number): boolean => {
  try {
    return fstatSync(fd).isCharacterDevice()
  } catch {
    return false // it is closed
  }
}

// The only file that knows the process it runs in.
process.exitCode = await main({
  argv: process.argv.slice(2),
  environment: process.env,
  isTerminal: {
    get in() {
      return isDevice(0) && process.stdin.isTTY === true
    },
    get out() {
      return isDevice(1) && process.stdout.isTTY === true
    },
    get err() {
      return isDevice(2) && process.stderr.isTTY === true
    },
  },
  get columns() {
    return process.stdout.columns ?? 80
  },
})
