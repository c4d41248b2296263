import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type ProgressMode, progressLine, teller } from '../../lib/cli/progress.ts'
import { coloursFor } from '../../lib/cli/report.ts'
import { Event } from '../../lib/job/events.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30
const progress = (done: number, total?: number, what = 'fetch debian.qcow2') =>
  ({ type: 'progress', what, done, ...(total === undefined ? {} : { total }) }) as const

describe('a line of progress', () => {
  for (const [when, event, seconds, from, line] of [
    ['all is known', progress(GiB, 4 * GiB), 10, 0, 'fetch debian.qcow2  25%  1G of 4G  102.4M/s  30s left'],
    ['the size is not', progress(GiB), 10, 0, 'fetch debian.qcow2  1G  102.4M/s'],
    [
      'it was resumed: the rate is of now',
      progress(2 * GiB, 4 * GiB),
      10,
      GiB,
      'fetch debian.qcow2  50%  2G of 4G  102.4M/s  20s left',
    ],
    ['nothing has come yet', progress(0, GiB), 5, 0, 'fetch debian.qcow2  0%  0 of 1G'],
    ['it stands still after a resume', progress(MiB, GiB), 5, MiB, 'fetch debian.qcow2  0%  1M of 1G'],
    ['no time has passed', progress(MiB, GiB), 0, 0, 'fetch debian.qcow2  0%  1M of 1G'],
    ['it is whole', progress(GiB, GiB), 8, 0, 'fetch debian.qcow2  100%  1G of 1G  128M/s  0s left'],
    ['more came than was told', progress(2 * GiB, GiB), 16, 0, 'fetch debian.qcow2  100%  2G of 1G  128M/s  0s left'],
    [
      'nearly whole is not whole',
      progress(GiB - 1, GiB),
      1,
      GiB - 2,
      'fetch debian.qcow2  99%  1G of 1G  1/s  1s left',
    ],
    ['an empty file', progress(0, 0), 1, 0, 'fetch debian.qcow2  0'],
    ['minutes are left', progress(MiB, 601 * MiB), 1, 0, 'fetch debian.qcow2  0%  1M of 601M  1M/s  10m left'],
    ['hours are left', progress(MiB, 10801 * MiB), 1, 0, 'fetch debian.qcow2  0%  1M of 10.5G  1M/s  3h left'],
  ] as const)
    test(when, () => assert.equal(progressLine(event, seconds, from), line))
})

/** Tell events at their times, in milliseconds. @returns what was written, one write a line */
function told(mode: ProgressMode, events: [at: number, event: Event][], columns = 80): string[] {
  const written: string[] = []
  let now = 0
  const { tell, end } = teller(mode, { write: (text) => void written.push(text), columns, now: () => now })
  for (const [at, event] of events) {
    now = at
    tell(event)
  }
  end()
  return written
}
/** Progress from 0 to 100 in steps, over so many milliseconds. */
const steady = (milliseconds: number, steps: number, what?: string): [number, Event][] =>
  Array.from({ length: steps + 1 }, (_, index) => [
    Math.round((milliseconds / steps) * index),
    progress(Math.round((100 * MiB * index) / steps), 100 * MiB, what),
  ])
const end = '\x1b[K'
const wipe = `\r${end}`

describe('on a terminal', () => {
  test('work of less than half a second is not told', () => assert.deepEqual(told('tty', steady(499, 50)), []))
  test('one line is drawn again and again, and wiped at the end', () => {
    const lines = told('tty', steady(1000, 4))
    assert.deepEqual(lines, [
      `\rfetch debian.qcow2  50%  50M of 100M  100M/s  1s left\x1b[K`,
      `\rfetch debian.qcow2  75%  75M of 100M  100M/s  1s left\x1b[K`,
      `\rfetch debian.qcow2  100%  100M of 100M  100M/s  0s left\x1b[K`,
      wipe,
    ])
  })
  test('not more than ten times a second', () => {
    const lines = told('tty', steady(2000, 2000)).filter((line) => line !== wipe)
    assert.ok(lines.length > 10 && lines.length <= 16, `${lines.length} lines`)
  })
  test('work that follows begins anew: its half second, its rate', () => {
    const second = steady(400, 4, 'convert debian').map(([at, event]): [number, Event] => [at + 2000, event])
    const lines = told('tty', [...steady(1000, 2), ...second])
    assert.equal(lines.filter((line) => line.includes('convert')).length, 0)
    assert.equal(lines.at(-1), wipe)
  })
  test('a step wipes the line, a notice stands on a line of its own', () => {
    const lines = told('tty', [
      ...steady(600, 1),
      [700, { type: 'notice', message: 'waiting for base.x' }],
      [800, progress(50 * MiB, 100 * MiB)],
      [900, { type: 'step', step: 'cache-base', status: 'changed' }],
    ])
    assert.deepEqual(
      lines.map((line) => (line === wipe ? 'wipe' : line.includes('fetch') ? 'draw' : line)),
      ['draw', 'wipe', 'cowhand: waiting for base.x\n', 'draw', 'wipe'],
    )
  })

  const long = 'fetch a-very-long-name-of-an-image-that-fills-the-line-and-more-than-that.qcow2'
  for (const [name, what, columns, widest] of [
    ['of 40 columns', long, 40, 39],
    ['of 10 columns', long, 10, 9],
    ['of 2 columns', long, 2, 1],
    ['that does not tell its width', long, 0, 79],
    ['with wide letters', 'fetch 日本語のイメージ日本語のイメージ日本語のイメージ', 40, 39],
    ['with letters beyond the basic plane', `fetch ${'𠮷'.repeat(40)}`, 40, 39],
    ['with what would move its cursor', 'fetch a\u001b[2J\nb\u009bHc\u202ed', 40, 39],
  ] as const)
    test(`no line wraps on one ${name}`, () => {
      const lines = told('tty', steady(5000, 50, what), columns).filter((line) => line !== wipe)
      assert.ok(lines.length > 5)
      for (const line of lines) {
        assert.ok(line.startsWith('\r') && line.endsWith(end), JSON.stringify(line))
        const shown = line.slice(1, -end.length)
        const width = [...shown].reduce((sum, letter) => sum + (letter > '~' ? 2 : 1), 0)
        assert.ok(width <= widest, `${width} columns: ${JSON.stringify(shown)}`)
        assert.doesNotMatch(shown, /\p{C}/u)
      }
    })
})

describe('plain', () => {
  const percents = (lines: string[]) => lines.map((line) => /(\d+)%/.exec(line)?.[1] ?? line)
  test('a line for every ten percent', () =>
    assert.deepEqual(percents(told('plain', steady(10_000, 100))), [
      '10',
      '20',
      '30',
      '40',
      '50',
      '60',
      '70',
      '80',
      '90',
      '100',
    ]))
  test('one line where it jumps', () => assert.deepEqual(percents(told('plain', steady(9000, 3))), ['33', '66', '100']))
  test('a line every half minute where it is slow', () =>
    assert.deepEqual(percents(told('plain', steady(1_000_000, 100).slice(0, 10))), ['3', '6', '9']))
  test('a line every half minute where the size is not known', () => {
    const lines = told(
      'plain',
      Array.from({ length: 100 }, (_, index) => [index * 1000, progress(index * MiB)]),
    )
    assert.deepEqual(
      lines,
      [30, 60, 90].map((count) => `fetch debian.qcow2  ${count}M  1M/s\n`),
    )
  })
  test('nothing for work of less than half a second', () => assert.deepEqual(told('plain', steady(499, 100)), []))
  test('no control characters, however narrow it is', () => {
    const lines = told('plain', steady(5000, 20), 10)
    assert.ok(lines.length > 0)
    for (const line of lines) assert.match(line, /^fetch debian\.qcow2 {2}\P{Cc}*\n$/u)
  })
})

describe('for programs', () => {
  const events: [number, Event][] = [
    [0, { type: 'step', step: 'cache-base', status: 'running' }],
    [1, { type: 'action', step: 'cache-base', action: 'fetch "x"\ny' }],
    [2, progress(1, 2)],
    [3, { type: 'notice', message: 'waiting' }],
  ]
  test('json is one document a line, each as the schema has it, at once', () => {
    const lines = told('json', events)
    assert.equal(lines.length, events.length)
    for (const [index, line] of lines.entries()) {
      assert.match(line, /^[^\n]+\n$/)
      const { version, ...event } = JSON.parse(line)
      assert.equal(version, 1)
      assert.deepEqual(Event.parse(event), events[index]?.[1])
    }
  })
  test('none says nothing', () => assert.deepEqual(told('none', [...events, ...steady(5000, 50)]), []))
})

describe('colours', () => {
  for (const [when, isTerminal, environment, coloured] of [
    ['on a terminal', true, { TERM: 'xterm' }, true],
    ['on a terminal that does not tell its kind', true, {}, true],
    ['not in a file or pipe', false, { TERM: 'xterm' }, false],
    ['not with NO_COLOR', true, { TERM: 'xterm', NO_COLOR: '1' }, false],
    ['not with NO_COLOR of any value', true, { TERM: 'xterm', NO_COLOR: 'false' }, false],
    ['with an empty NO_COLOR (no-color.org)', true, { TERM: 'xterm', NO_COLOR: '' }, true],
    ['not on a dumb terminal', true, { TERM: 'dumb' }, false],
    ['not in a file, whatever is forced', false, { FORCE_COLOR: '1' }, false],
  ] as const)
    test(when, () => assert.equal(coloursFor(isTerminal, environment).red('x') !== 'x', coloured))
})
