import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { quote } from 'zx/core'
import { root, sh } from '../../../build/sh.ts'

/** What is measured: the compiled binary. */
export const cowhand = join(root, 'build/out/cowhand')

/** A line of the report. A target that is missed is marked, and fails nothing: on a busy machine it may be the noise. */
export interface Row {
  target: string
  what: string
  ours: string
  against: string
  ratio: string
  most: string
  met: boolean
}

export function print(rows: Row[]): void {
  const lines = [['', 'WHAT', 'OURS', 'AGAINST', 'RATIO', 'AT MOST', ''], ...rows.map(cells)]
  const widths = lines[0]?.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0))) ?? []
  const text = lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
  process.stdout.write(`${text.join('\n')}\n`)
}

const cells = ({ target, what, ours, against, ratio, most, met }: Row): string[] => [
  target,
  what,
  ours,
  against,
  ratio,
  most,
  met ? 'met' : 'MISSED',
]

export const time = (milliseconds: number): string =>
  milliseconds < 2000 ? `${milliseconds.toFixed(1)} ms` : `${(milliseconds / 1000).toFixed(2)} s`

export function median(numbers: number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return ((sorted[(sorted.length - 1) >> 1] ?? Number.NaN) + (sorted[sorted.length >> 1] ?? Number.NaN)) / 2
}

/** Times of `ours` and of what it is held against, in ms, taken in pairs. @param most the ratio that it may have */
export function against(
  target: string,
  what: string,
  ours: number[],
  other: { name: string; times: number[] },
  most: number,
): Row {
  // Each run is held against the one beside it: what else the machine does in that second slows both.
  const ratio = median(ours.map((one, index) => one / (other.times[index] ?? Number.NaN)))
  const shown = `${other.name}: ${time(median(other.times))}`
  return {
    target,
    what,
    ours: time(median(ours)),
    against: shown,
    ratio: `${ratio.toFixed(2)}×`,
    most: `${most}×`,
    met: ratio <= most,
  }
}

/** @param most ms, or bytes */
export function absolute(
  target: string,
  what: string,
  ours: number,
  most: number,
  show: (amount: number) => string = time,
): Row {
  return { target, what, ours: show(ours), against: '–', ratio: '–', most: show(most), met: ours <= most }
}

/** A command, and what makes it ready to run once more: that is not timed. */
export interface Run {
  argv: string[]
  before?: string[]
}

/**
 * Wall times in ms of each command, one after another, round by round: A B A B.
 * They are started by bash: its fork is cheap, while node's would be a good part of what is measured.
 */
export async function inTurn(rounds: number, runs: Run[], env: Record<string, string> = {}): Promise<number[][]> {
  const command = (argv: string[]) => argv.map(quote).join(' ')
  const parts = runs.flatMap(({ argv, before = ['true'] }, index) => [
    `${command(before)} </dev/null >&2`,
    // To a pipe, as a caller's would be.
    `start=$EPOCHREALTIME; out=$(${command(argv)} </dev/null); end=$EPOCHREALTIME`,
    `echo "${index} $start $end"`,
  ])
  const script = ['set -eu', `for ((round = 0; round < ${rounds}; round++)); do`, ...parts, 'done'].join('\n')
  const { stdout } = await sh({ env: { ...process.env, LC_ALL: 'C', ...env } })`bash -c ${script}`
  const times = runs.map((): number[] => [])
  for (const line of stdout.trim().split('\n')) {
    const [index = 0, start = 0, end = 0] = line.split(' ').map(Number)
    times[index]?.push((end - start) * 1000)
  }
  return times
}

/** The most memory that a program held at one time, in bytes, without its children; it must end well. */
export async function peakMemory(argv: string[], env: Record<string, string> = {}): Promise<number> {
  const [file = '', ...words] = argv
  const child = spawn(file, words, { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, ...env } })
  let peak = 0
  // The kernel keeps the peak, so that only what comes after the last look is missed.
  const look = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'latin1')
      if (!/^Name:\tcowhand$/m.test(status)) return
      peak = Math.max(peak, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024)
    } catch {
      // it has ended
    }
  }, 2)
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve))
  clearInterval(look)
  if (code !== 0) throw new Error(`${argv.join(' ')} ended with ${code}`)
  return peak
}

/** Programs that a command starts, itself not counted. */
export async function programsOf(directory: string, argv: string[], env: Record<string, string>): Promise<number> {
  const trace = join(directory, 'trace')
  await sh({ env: { ...process.env, ...env } })`strace -f -qq -e trace=execve -o ${trace} ${argv}`
  return (
    readFileSync(trace, 'utf8')
      .split('\n')
      .filter((line) => /execve\(.*= 0$/.test(line)).length - 1
  )
}

export const megabytes = (bytes: number): string => `${Math.round(bytes / 2 ** 20)} MiB`
