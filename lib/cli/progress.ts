import { writeSync } from 'node:fs'
import type { Event, Tell } from '../job/events.ts'
import { formatSize } from '../job/spec.ts'
import { asJson, oneLine } from './printable.ts'

export type ProgressMode = 'tty' | 'plain' | 'json' | 'none'

/** Where and how it is told; tests give a terminal of their own. */
export interface Terminal {
  write: (text: string) => void
  columns: number
  /** Milliseconds that only go forward. */
  now: () => number
}

const patience = 500 // work shorter than this is not worth a line
const redraw = 100

const duration = (seconds: number): string =>
  seconds < 100
    ? `${Math.ceil(seconds)}s`
    : seconds < 6000
      ? `${Math.ceil(seconds / 60)}m`
      : `${Math.ceil(seconds / 3600)}h`

type Progress = Extract<Event, { type: 'progress' }>

interface Work {
  what: string
  since: number
  from: number
  shownAt: number
  shownPercent: number
}

/** One line of progress: percent, bytes, rate and time left, as far as they are known. */
export function progressLine({ what, done, total }: Progress, seconds: number, from: number): string {
  const percent = total ? `${Math.min(100, Math.floor((done / total) * 100))}%` : ''
  const rate = seconds > 0 ? (done - from) / seconds : 0
  const left = total && rate > 0 ? `${duration(Math.max(0, total - done) / rate)} left` : ''
  const bytes = total ? `${formatSize(done)} of ${formatSize(total)}` : formatSize(done)
  return [what, percent, bytes, rate > 0 ? `${formatSize(rate)}/s` : '', left].filter(Boolean).join('  ')
}

/** What of a line goes into so many columns, at most: what is not ASCII may take two, and what moves the cursor none. */
function cut(line: string, columns: number): string {
  let room = columns
  let shown = ''
  for (const character of line.replaceAll(/\p{C}/gu, '?')) {
    room -= character > '~' ? 2 : 1
    if (room < 0) break
    shown += character
  }
  return shown
}

/** Tell events in one of the ways: a line that is redrawn, lines now and then, NDJSON, or not at all. */
export function teller(mode: ProgressMode, terminal: Terminal): { tell: Tell; end: () => void } {
  if (mode === 'none') return { tell: () => {}, end: () => {} }
  if (mode === 'json')
    return { tell: (event) => terminal.write(`${asJson({ version: 1, ...event })}\n`), end: () => {} }
  let work: Work | undefined
  let isDrawn = false
  const clear = () => {
    if (isDrawn) terminal.write('\r\x1b[K')
    isDrawn = false
  }
  const show = (event: Progress, at: Work, now: number) => {
    const line = progressLine(event, (now - at.since) / 1000, at.from)
    if (mode === 'plain') return terminal.write(`${oneLine(line)}\n`)
    // A terminal that does not tell its width (ssh -tt, script) gets no line that could wrap.
    terminal.write(`\r${cut(line, (terminal.columns || 80) - 1)}\x1b[K`)
    isDrawn = true
  }
  const tell: Tell = (event) => {
    const now = terminal.now()
    if (event.type === 'notice') {
      clear()
      return terminal.write(`cowhand: ${oneLine(event.message)}\n`)
    }
    if (event.type !== 'progress') return event.type === 'step' ? clear() : undefined
    if (work?.what !== event.what) {
      clear()
      work = { what: event.what, since: now, from: event.done, shownAt: now, shownPercent: 0 }
    }
    if (now - work.since < patience) return
    const percent = event.total ? Math.floor((event.done / event.total) * 10) * 10 : 0
    const isDue =
      mode === 'tty'
        ? now - work.shownAt >= redraw || !isDrawn
        : percent > work.shownPercent || now - work.shownAt >= 30_000
    if (!isDue) return
    work.shownAt = now
    work.shownPercent = percent
    show(event, work, now)
  }
  return { tell, end: clear }
}

/** Standard error as a terminal; a reader that went away is no fault. */
export const standardError = (): Terminal => ({
  write: (text) => {
    try {
      writeSync(2, text)
    } catch {
      // nobody listens
    }
  },
  columns: process.stderr.columns ?? 0,
  now: () => performance.now(),
})
