import { longestLine } from '../job/conversation.ts'
import { linesOf } from './lines.ts'
import { withUs } from './sandbox.ts'

/** A program that is talked to, line by line. */
export interface Link {
  /** The next line that it writes; undefined once nothing more comes, also where a line is too long. */
  next: () => Promise<string | undefined>
  send: (line: string) => void
  isOpen: () => boolean
  /** How it ended, once it has. `words`: the last that it wrote to its standard error. */
  ended: Promise<{ code: number | undefined; words: string }>
  /** Its input ends, and that is what it ends of; after so many milliseconds it is ended. Resolves when it has. */
  close: (patience: number) => Promise<void>
  kill: () => void
}

/** Bytes of what it complains of that are kept. */
const complaint = 8192

/**
 * Start a program to talk to. It dies with us. (Not by lib/host/shell.ts, which runs a program to its end and answers
 * with its output: this one stays, and both its pipes are in use meanwhile.)
 */
export async function openLink(argv: readonly string[], env: Record<string, string>): Promise<Link> {
  const { spawn } = await import('node:child_process')
  const [file = '', ...words] = withUs(argv)
  // A process group of its own: an interrupt at the terminal is ours to handle, and what it starts ends with it.
  const child = spawn(file, words, { cwd: '/', env, stdio: ['pipe', 'pipe', 'pipe'], detached: true })
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk).slice(-complaint)
  })
  child.stdin.on('error', () => {}) // it has ended: that is told by its output
  let isOpen = true
  let hasEnded = false
  let lastWords: NodeJS.Timeout | undefined
  const ended = new Promise<{ code: number | undefined; words: string }>((resolve) => {
    const end = (code?: number | null) => {
      isOpen = false
      hasEnded = true
      clearTimeout(lastWords)
      resolve({ code: code ?? undefined, words: said })
    }
    child.once('error', () => end(127))
    child.once('close', end)
    child.once('exit', (code) => {
      isOpen = false
      hasEnded = true
      // What it started may stay, and have its standard error still.
      clearTimeout(lastWords)
      lastWords = setTimeout(end, 1000, code)
    })
  })
  const kill = () => {
    try {
      if (!hasEnded && child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      // it has ended by itself
    }
  }
  const lines = linesOf(child.stdout, longestLine)
  const read = async () => {
    try {
      const { value, done } = await lines.next()
      if (!done) return value
    } catch {
      said = 'it wrote a line without an end'
      kill()
    }
    isOpen = false
    return undefined
  }
  // One line ahead: so it is noticed that nothing more comes, also while nobody waits for it.
  let ahead = read()
  const next = async () => {
    const line = await ahead
    if (line !== undefined) ahead = read()
    // Who says nothing more is to end.
    else if (!hasEnded) lastWords ??= setTimeout(kill, 5000)
    return line
  }
  return {
    next,
    send: (line) => void child.stdin.write(`${line}\n`),
    isOpen: () => isOpen,
    ended,
    close: async (patience) => {
      child.stdin.end()
      const timer = setTimeout(kill, patience)
      await ended
      clearTimeout(timer)
    },
    kill,
  }
}
