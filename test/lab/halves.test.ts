import assert from 'node:assert/strict'
import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer, MoveState, Order } from '../../lib/job/move.ts'
import type { Code } from '../../lib/job/problem.ts'
import { done, good, inside } from './moving.ts'
import { awaitConsole, consoleOf, type Pair, type PairHost, startPair } from './pair.ts'
import { patternImage } from './pattern-guest.ts'

// A move that is driven from outside: each half is a command of its own, and what one prints is carried to the other.

const MiB = 2 ** 20
/** What a half may print. */
type Words = Partial<Order & Answer & MoveState>
const size = ['--root', '200M', '--swap', '16M', '--memory', '128M', '--network', 'none']

/** Put on a host what was carried to it. @returns its path there */
function put(host: PairHost, words: unknown): string {
  const path = '/var/lib/cowhand/carried.json'
  writeFileSync(host.file(path), typeof words === 'string' ? words : JSON.stringify(words))
  return path
}

/** Commands of both hosts, as whoever drives a move types them. */
class Mover {
  readonly a: PairHost
  readonly b: PairHost
  readonly name: string
  readonly flags: string[]
  constructor({ a, b }: Pair, name: string, ...flags: string[]) {
    this.a = a
    this.b = b
    this.name = name
    this.flags = flags
  }

  source(phase: string, answer?: unknown): [PairHost, string[]] {
    const given = answer === undefined ? [] : ['--answer', put(this.a, answer)]
    return [this.a, ['migrate-source', this.name, '--to', 'beta', '--phase', phase, ...this.flags, ...given]]
  }

  destination(phase: string, document: unknown): [PairHost, string[]] {
    const path = put(this.b, document)
    return [this.b, ['migrate-destination', '--phase', phase, ...(phase === 'undo' ? ['--yes'] : []), path]]
  }

  /** All that comes before the guest is switched off. @returns what the destination says in the end */
  async ready(): Promise<{ order: Words; ready: Words }> {
    const order = await said(
      this.source('order', await said(this.destination('look', await said(this.source('offer'))))),
    )
    const first = await said(this.destination('prepare', order))
    await said(this.source('bases', first))
    return { order, ready: await said(this.destination('prepare', order)) }
  }

  async toTheEnd(ready: Words): Promise<Words> {
    const there = await said(this.destination('finish', await said(this.source('send', ready))))
    await said(this.source('fence', there))
    return there
  }
}

/** Do a half. @returns what it printed, and nothing else was printed */
async function said([host, words]: [PairHost, string[]]): Promise<Words> {
  const { code, stdout, stderr } = await host.run(['cowhand', ...words], {}, 120)
  assert.equal(code, 0, `${words.join(' ')} on ${host.name}: ${stderr}`)
  return stdout === '' ? {} : JSON.parse(stdout)
}

/** It is refused, or fails, with this. */
async function not(code: Code, [host, words]: [PairHost, string[]]): Promise<string> {
  const { ok, error } = await host.cowhand(words)
  assert.deepEqual([ok, error?.code], [false, code], `${words.join(' ')} on ${host.name}: ${error?.message}`)
  return `${error?.message}\n${error?.remedy}`
}

const stateOn = (host: PairHost, name: string): Promise<string> =>
  host.virsh('domstate', name).catch((error) => (/failed to get domain/.test(`${error}`) ? 'unknown' : `${error}`))
const homes = (host: PairHost, name: string): string[] =>
  readdirSync(host.file(host.instances)).filter((home) => home.startsWith(name))
const boots = (host: PairHost, name: string): number => consoleOf(host, name).match(/guest: boot \d+/g)?.length ?? 0

async function runsOn(host: PairHost, other: PairHost, name: string, boot: number, root: number): Promise<void> {
  assert.deepEqual([await stateOn(host, name), await stateOn(other, name)], ['running', 'unknown'])
  const wanted = `vda ${root} bytes\n[\\s\\S]*boot ${boot}, after a power-off\n[\\s\\S]*PATTERN GOOD at boot ${boot}`
  await awaitConsole(host, name, new RegExp(wanted))
}

async function create(host: PairHost, name: string): Promise<void> {
  await done(host, 'create', name, '--image', 'pattern', ...size)
  await awaitConsole(host, name, /PATTERN WRITTEN at boot 1/)
}

describe('the halves of a move', () => {
  let pair: Pair
  let a: PairHost
  let b: PairHost
  let doors: [PairHost, string][] = []
  before(async () => {
    // Another place there, so that every path has to be the destination's own.
    pair = await startPair({ b: { instances: '/srv/guests' } })
    a = pair.a
    b = pair.b
    await done(a, 'image', 'add', await patternImage(), '--name', 'pattern')
    doors = [a, b].map((host) => [host, host.file('/root/.ssh/authorized_keys')])
    await Promise.all(['web1', 'web2', 'web3'].map((name) => create(a, name)))
  })
  afterEach(() => {
    for (const [, keys] of doors) if (existsSync(`${keys}.closed`)) renameSync(`${keys}.closed`, keys)
  })
  after(() => pair?.stop())
  /** No host gets into the other by ssh. */
  const closeDoors = () => {
    for (const [, keys] of doors) renameSync(keys, `${keys}.closed`)
  }

  test('by the rsync daemon, no host has a way into the other: the guest is there, larger, and its old self is kept', async () => {
    closeDoors()
    const mover = new Mover(pair, 'web1', '--transport', 'rsyncd')
    mover.flags.push('--root', '400M')
    const { order, ready } = await mover.ready()
    assert.deepEqual([order.ways?.map(({ base }) => base?.from), ready.prepared?.lacks], [['source', undefined], []])
    assert.equal(await stateOn(a, 'web1'), 'running')
    // From here on nobody has to say the sizes again.
    mover.flags.splice(-2)
    const there = await mover.toTheEnd(ready)
    assert.deepEqual([there.instance, there.running], ['arrived', true])
    await runsOn(b, a, 'web1', 2, 400 * MiB)
    assert.deepEqual([homes(a, 'web1'), homes(b, 'web1')], [['web1_resize'], ['web1']])
  })

  test('all of it again, and each half twice: nothing is to do, and no guest is started anew', async () => {
    closeDoors()
    const mover = new Mover(pair, 'web1', '--transport', 'rsyncd')
    const { ready } = await mover.ready()
    const sent = await said(mover.source('send', ready))
    const halves = [mover.source('offer'), mover.source('order', ready), mover.source('send', ready)]
    for (const half of halves) assert.equal((await said(half)).move, sent.move)
    for (const phase of ['prepare', 'finish', 'finish']) {
      const [host, words] = mover.destination(phase, sent)
      const { code, changed, handOver } = await host.cowhand(words)
      const there = handOver as Words | undefined
      assert.deepEqual([code, changed, there?.instance, there?.running], [0, false, 'arrived', true])
    }
    const fence = await a.cowhand(mover.source('fence', ready)[1])
    assert.deepEqual([fence.code, fence.changed], [0, false])
    assert.deepEqual(await said(mover.destination('status', sent)), { arrived: true, running: true })
    assert.equal(boots(b, 'web1'), 2)
  })

  test('it is given up: undone there, then reverted here, and the guest runs as it was', async () => {
    closeDoors()
    const mover = new Mover(pair, 'web1', '--transport', 'rsyncd')
    const { order } = await mover.ready()
    const undo = mover.destination('undo', order)
    const { error } = await b.cowhand(undo[1].filter((word) => word !== '--yes'))
    assert.equal(error?.code, 'CONFIRMATION_NEEDED')
    for (const _ of [1, 2]) assert.deepEqual(await said(undo), { arrived: false, running: false })
    await done(a, 'revert', 'web1', '--without-host', '--yes')
    await runsOn(a, b, 'web1', 2, 200 * MiB)
    assert.deepEqual([homes(a, 'web1'), homes(b, 'web1')], [['web1'], []])
    assert.ok(readdirSync(b.file(join(b.instances, '_base'))).length > 0)
  })

  test('a document that is none, or of something else, is refused with the guest running; so is a half whose turn has not come', async () => {
    const mover = new Mover(pair, 'web2')
    await not('MISSING_PREREQUISITE', mover.source('order', {}))
    const offer = await said(mover.source('offer'))
    const answer = await said(mover.destination('look', offer))
    const other = { ...answer, move: '11111111-2222-4333-8444-555555555555' }
    const rows: [what: string, code: Code, half: () => [PairHost, string[]], says?: RegExp][] = [
      ['nothing', 'BAD_SPEC', () => mover.destination('look', ''), /it is empty/],
      ['no JSON', 'BAD_SPEC', () => mover.destination('look', 'cowhand: Cannot'), /it is no JSON/],
      [
        'another one',
        'BAD_SPEC',
        () => mover.destination('look', answer),
        /no offer of a source: .* is missing, or not/,
      ],
      ['an offer is no order', 'BAD_SPEC', () => mover.destination('prepare', offer), /--phase order/],
      ['no answer', 'BAD_SPEC', () => mover.source('order'), /--answer, with what this printed/],
      ['an offer is no answer', 'BAD_SPEC', () => mover.source('order', offer), /--phase look/],
      ['an answer to another', 'HALVES_DIFFER', () => mover.source('order', other), /is to another move/],
      [
        'of another version',
        'VERSION_MISMATCH',
        () => mover.destination('look', { ...offer, cowhand: '0.0.1' }),
        /cowhand 0\.0\.1 has written it/,
      ],
      ['other sizes', 'MOVE_UNFINISHED', () => new Mover(pair, 'web2', '--root', '1G').source('order', answer)],
      ['not prepared', 'MISSING_PREREQUISITE', () => mover.source('bases', answer), /--phase prepare/],
      ['not prepared either', 'MISSING_PREREQUISITE', () => mover.source('send', answer), /--phase prepare/],
      ['it is not there', 'MISSING_PREREQUISITE', () => mover.source('fence', answer), /does not say that it runs/],
    ]
    for (const [what, code, half, says = /./] of rows) assert.match(await not(code, half()), says, what)
    assert.deepEqual([await stateOn(a, 'web2'), homes(b, 'web2')], ['running', []])
  })

  test('two halves that do not mean the same are told apart: before the guest is off, or before it starts there', async () => {
    const mover = new Mover(pair, 'web2')
    const bases = b.file(join(b.instances, '_base'))
    for (const base of readdirSync(bases))
      if (/^[0-9a-f]{40}/.test(base)) renameSync(join(bases, base), b.file(join('/var/lib/cowhand', base)))
    const answer = await said(mover.destination('look', await said(mover.source('offer'))))
    assert.deepEqual(
      answer.bases?.map(({ is }) => is),
      ['absent'],
    )
    const forged = { ...answer, bases: answer.bases?.map((base) => ({ ...base, is: 'equal' as const })) }
    await not('BASE_DIFFERS', mover.destination('prepare', await said(mover.source('order', forged))))

    const order = await said(mover.source('order', answer))
    const edited = structuredClone(order)
    for (const way of edited.ways ?? []) if (way.file === 'disk.swap') way.size = 32 * MiB
    const wrong = await said(mover.destination('prepare', edited))
    await not('HALVES_DIFFER', mover.source('bases', wrong))
    await not('HALVES_DIFFER', mover.source('send', wrong))
    await not('HALVES_DIFFER', mover.source('send', { ...(await mover.ready()).ready, prepared: wrong.prepared }))
    assert.equal(await stateOn(a, 'web2'), 'running')

    const { order: last, ready } = await mover.ready()
    const sent = await said(mover.source('send', ready))
    assert.match(await not('MISSING_PREREQUISITE', mover.destination('finish', last)), /does not tell the digest/)
    const larger = structuredClone(sent)
    for (const way of larger.ways ?? []) if (way.file === 'disk') way.size = 1024 * MiB
    assert.match(await not('MISSING_PREREQUISITE', mover.destination('finish', larger)), /not what the document says/)
    const digest = `content-sha256:${'0'.repeat(64)}`
    const disk = { ...sent.sent?.['disk'], digest, size: sent.sent?.['disk']?.size ?? 0 }
    await not('CHECKSUM_MISMATCH', mover.destination('finish', { ...sent, sent: { ...sent.sent, disk } }))
    assert.deepEqual(
      [await stateOn(a, 'web2'), await stateOn(b, 'web2'), homes(b, 'web2')],
      ['shut off', 'unknown', ['web2.incoming']],
    )
    await said(mover.source('fence', await said(mover.destination('finish', sent))))
    await runsOn(b, a, 'web2', 2, 200 * MiB)
  })

  test('what is sent is cut off for good: the guest is back and runs, and the next try goes on', async () => {
    const mover = new Mover(pair, 'web3')
    const { ready } = await mover.ready()
    b.configure({ libvirt_uri: undefined })
    renameSync(b.file(join(b.instances, 'web3.incoming')), b.file('/var/lib/cowhand/elsewhere'))
    const told = await not('MISSING_PREREQUISITE', mover.source('send', ready))
    assert.match(told, /undone: web3 is as it was, and it runs; what has arrived on beta stays/)
    renameSync(b.file('/var/lib/cowhand/elsewhere'), b.file(join(b.instances, 'web3.incoming')))
    b.configure({})
    assert.deepEqual([await stateOn(a, 'web3'), homes(a, 'web3')], ['running', ['web3']])
    await awaitConsole(a, 'web3', /PATTERN GOOD at boot 2/)
  })

  test('each half is killed on its way, and done again: in the end it is as if nothing had been', async () => {
    const mover = new Mover(pair, 'web3', '--bwlimit', '8M')
    /** Kill it after so many milliseconds, and again, until it was quick enough to come to its end. */
    const killed = async (half: () => [PairHost, string[]], moments: number[]): Promise<Words> => {
      for (const moment of moments) {
        const [host, words] = half()
        const run = await host.start(['cowhand', ...words])
        await sleep(moment)
        run.kill()
        await run.ended
      }
      return said(half())
    }
    const offer = await killed(() => mover.source('offer'), [60, 120])
    const answer = await killed(() => mover.destination('look', offer), [60])
    const order = await killed(() => mover.source('order', answer), [60])
    const moments = [60, 90, 120, 180, 250, 400]
    const ready = await killed(() => mover.destination('prepare', order), moments)
    await killed(() => mover.source('bases', ready), moments)
    const last = await said(mover.destination('prepare', order))
    const sent = await killed(() => mover.source('send', last), [...moments, 1500, 2500, 3000])
    assert.deepEqual([await stateOn(a, 'web3'), await stateOn(b, 'web3')], ['shut off', 'unknown'])
    const there = await killed(() => mover.destination('finish', sent), [...moments, 600])
    assert.ok(there.running)
    await killed(() => mover.source('fence', there), [60, 90, 120])
    await runsOn(b, a, 'web3', 3, 200 * MiB)
    assert.deepEqual(homes(b, 'web3'), ['web3'])
    // The whole goes on with what the halves began.
    await done(a, 'confirm', 'web3')
    assert.deepEqual(homes(a, 'web3'), [])
  })

  test('a document may be in the job, on standard input, or in a result', async () => {
    await create(a, 'web4')
    const mover = new Mover(pair, 'web4')
    const piped = `cowhand migrate-source web4 --to beta --phase offer | ssh beta cowhand migrate-destination --phase look -`
    const answer = JSON.parse(await good(a, 'sh', '-c', piped)) as Words
    const job = { task: 'migrate-source', name: 'web4', to: 'beta', phase: 'order', answer }
    writeFileSync(a.file('/var/lib/cowhand/job.json'), JSON.stringify(job))
    const order = await good(a, 'sh', '-c', 'cowhand run - --json < /var/lib/cowhand/job.json')
    assert.equal(JSON.parse(order).handOver.move, answer.move)
    const ready = await said(mover.destination('prepare', order))
    const { handOver, steps } = await done(a, ...mover.source('send', ready)[1], '--dry-run')
    assert.deepEqual([handOver, steps?.some(({ status }) => status === 'planned')], [undefined, true])
    assert.equal(await stateOn(a, 'web4'), 'running')
    await done(a, 'revert', 'web4', '--yes')
    assert.deepEqual([homes(b, 'web4'), await stateOn(a, 'web4'), boots(a, 'web4')], [[], 'running', 1])
  })
})

test('the halves, where both hosts see the same files: only the guest moves', async () => {
  const pair = await startPair({ shared: true })
  const { a, b } = pair
  try {
    for (const host of [a, b]) await done(host, 'image', 'add', await patternImage(), '--name', 'pattern')
    await create(a, 'same')
    const mover = new Mover(pair, 'same')
    const { order, ready } = await mover.ready()
    assert.equal(order.shared, true)
    await mover.toTheEnd(ready)
    await runsOn(b, a, 'same', 2, 200 * MiB)
    assert.deepEqual(homes(a, 'same'), ['same'])
    assert.ok(existsSync(a.file(inside(a, 'same', 'disk'))))
    const again = await mover.ready()
    await mover.toTheEnd(again.ready)
    assert.equal(boots(b, 'same'), 2)
    await done(a, 'confirm', 'same')
    assert.deepEqual([await stateOn(b, 'same'), homes(a, 'same')], ['running', ['same']])
  } finally {
    await pair.stop()
  }
})
