import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as z from 'zod/mini'
import { type Action, sayAction } from '../../lib/job/action.ts'
import { type Code, fail, Problem, refuse } from '../../lib/job/problem.ts'
import { oneByOne, planAll, runAll, Stopped, type World } from '../../lib/job/runner.ts'
import { Settings } from '../../lib/job/settings.ts'
import { type Call, call, defineStep } from '../../lib/job/step.ts'

const settings = Settings.parse({})

/** A world of nothing but names of files, and a diary of what happened in it. */
function fakeWorld() {
  const files = new Set<string>()
  const diary: string[] = []
  let broken: string | undefined
  const world: World = {
    settings,
    tell: (event) => {
      if (event.type === 'step') diary.push(`${event.step} ${event.status}`)
    },
    perform: async (action) => {
      diary.push(sayAction(action))
      if (action.do === 'mkdir' && action.path === broken) fail('IO_FAILED', `Cannot make "${action.path}"`, 'none')
      if (action.do === 'mkdir') files.add(action.path)
      if (action.do === 'remove') files.delete(action.path)
    },
    flush: () => void diary.push('flush'),
    lock: async (name) => {
      if (name === 'busy') throw new Problem('busy', 'LOCKED', 'Cannot lock "busy": it is held', 'wait')
      diary.push(`lock ${name}`)
      return {
        assertHeld: () => {
          if (name === 'stolen') throw new Problem('busy', 'LOCKED', 'Cannot go on: it was taken', 'again')
        },
        release: () => void diary.push(`release ${name}`),
      }
    },
  }
  /** A step that makes files; `after` has to be there first, `foreign` must not be there. */
  const make = defineStep({
    name: 'make',
    summary: '',
    input: () =>
      z.strictObject({
        paths: z.array(z.string()),
        after: z.optional(z.string()),
        foreign: z.optional(z.string()),
        locks: z._default(z.array(z.string()), []),
      }),
    locks: ({ locks }) => locks,
    inspect: async ({ paths, after, foreign }, _, ahead) => {
      diary.push(`look at ${paths}`)
      return {
        missing: paths.filter((path) => !files.has(path)),
        ready: after === undefined || files.has(after) || ahead.has(after),
        blocked: foreign !== undefined && files.has(foreign),
      }
    },
    plan({ after, foreign }, { missing, ready, blocked }) {
      if (blocked) refuse('NOT_OURS', `Cannot make: ${foreign} is there`, 'move it')
      if (!ready) refuse('MISSING_PREREQUISITE', `Cannot make: no ${after}`, 'make it')
      return missing.map((path) => ({ do: 'mkdir', path, mode: 0o755 }) as const)
    },
  })
  const making = (paths: string[], more: { after?: string; foreign?: string; locks?: string[] } = {}): Call =>
    call(make, { paths, locks: [], ...more })
  /** A step that always finds something to do. */
  const never = call(
    defineStep({
      name: 'never',
      summary: '',
      input: () => z.strictObject({}),
      inspect: async () => undefined,
      plan: () => [{ do: 'remove', path: '/ghost' }],
    }),
    {},
  )
  const breakAt = (path: string): void => {
    broken = path
  }
  return { world, files, diary, making, never, breakAt }
}

const stoppedBy = async (work: Promise<unknown>): Promise<{ problem: Problem; steps: string[] }> => {
  const stopped = await work.then(
    () => assert.fail('it went through'),
    (error) => error,
  )
  assert.ok(stopped instanceof Stopped, String(stopped))
  assert.ok(stopped.cause instanceof Problem, String(stopped.cause))
  return { problem: stopped.cause, steps: stopped.steps.map(({ step, status }) => `${step} ${status}`) }
}
const said = (results: { step: string; status: string; changed: boolean }[]) =>
  results.map(({ status, changed }) => `${status}${changed ? '!' : ''}`).join(' ')

describe('the whole plan', () => {
  test('changes nothing, and takes no lock', async () => {
    const { files, diary, making } = fakeWorld()
    const results = await planAll([making(['/a', '/b'], { locks: ['x'] }), making(['/c'])], settings)
    assert.equal(said(results), 'planned planned')
    assert.deepEqual(results[0]?.actions, [{ action: 'mkdir /a' }, { action: 'mkdir /b' }])
    assert.deepEqual([...files], [])
    assert.deepEqual(diary, ['look at /a,/b', 'look at /c'])
  })
  test('is empty where it is so already', async () => {
    const { files, making } = fakeWorld()
    files.add('/a')
    assert.equal(said(await planAll([making(['/a'])], settings)), 'ok')
  })
  test('knows what earlier steps of it are going to make', async () => {
    const { making } = fakeWorld()
    assert.equal(said(await planAll([making(['/a']), making(['/b'], { after: '/a' })], settings)), 'planned planned')
  })
  test('stops at the first refusal, and looks no further', async () => {
    const { files, diary, making } = fakeWorld()
    files.add('/f').add('/g')
    const calls = [making(['/a']), making(['/b'], { foreign: '/f' }), making(['/c'], { foreign: '/g' })]
    const { problem, steps } = await stoppedBy(planAll(calls, settings))
    assert.equal(problem.message, 'Cannot make: /f is there')
    assert.deepEqual(steps, ['make planned', 'make failed'])
    assert.deepEqual(diary, ['look at /a', 'look at /b'])
  })
  test('leaves open what waits for an earlier step of it', async () => {
    const { making } = fakeWorld()
    assert.equal(said(await planAll([making(['/a']), making(['/b'], { after: '/x' })], settings)), 'planned pending')
  })
  test('does not leave open what no step of it is going to make', async () => {
    const { files, making } = fakeWorld()
    files.add('/a')
    const { problem } = await stoppedBy(planAll([making(['/a']), making(['/b'], { after: '/x' })], settings))
    assert.equal(problem.code, 'MISSING_PREREQUISITE')
  })
})

describe('a run', () => {
  test('looks, does, and looks again; what is so is left', async () => {
    const { world, files, diary, making } = fakeWorld()
    files.add('/b')
    assert.equal(said(await runAll(() => [making(['/a']), making(['/b'])], [], world)), 'changed! ok')
    assert.deepEqual(diary, [
      'look at /a',
      'make running',
      'mkdir /a',
      'flush',
      'look at /a',
      'make changed',
      'look at /b',
      'make ok',
      'make ok',
    ])
    assert.deepEqual([...files].sort(), ['/a', '/b'])
    assert.equal(said(await runAll(() => [making(['/a']), making(['/b'])], [], world)), 'ok ok')
  })
  test('each step looks only when those before it are through', async () => {
    const { world, making } = fakeWorld()
    const calls = [making(['/a']), making(['/b'], { after: '/a' })]
    assert.equal(said(await runAll(() => calls, [], world)), 'changed! changed!')
  })
  test("holds the job's locks from before the first step to the end, and each step's while it is needed", async () => {
    const { world, diary, making } = fakeWorld()
    const calls = [making(['/a'], { locks: ['base'] }), making(['/b'], { locks: ['base', 'sized'] }), making(['/c'])]
    await runAll(() => calls, ['instance'], world)
    const kept = diary.filter((line) => !/^(look|make)/.test(line))
    assert.deepEqual(kept, [
      ...['lock instance', 'lock base', 'mkdir /a', 'flush', 'lock sized', 'mkdir /b', 'flush'],
      ...['release base', 'release sized', 'mkdir /c', 'flush', 'release instance'],
    ])
  })
  test('keeps a lock over a step that needs none, when a later one needs it again', async () => {
    const { world, diary, making } = fakeWorld()
    const base = { locks: ['base'] }
    await runAll(() => [making(['/a'], base), making(['/b']), making(['/c'], base), making(['/d'])], [], world)
    const kept = diary.filter((line) => !/^(look|make|flush)/.test(line))
    assert.deepEqual(kept, ['lock base', 'mkdir /a', 'mkdir /b', 'mkdir /c', 'release base', 'mkdir /d'])
  })
  test('takes a lock once, whoever wants it', async () => {
    const { world, diary, making } = fakeWorld()
    await runAll(() => [making(['/a'], { locks: ['x', 'x'] })], ['x'], world)
    assert.deepEqual(
      diary.filter((line) => /lock|release/.test(line)),
      ['lock x', 'release x'],
    )
  })
  test("looks what its steps are under the job's locks, not before", async () => {
    const { world, diary, making } = fakeWorld()
    const callsOf = () => {
      diary.push('calls')
      return [making(['/a'])]
    }
    await runAll(callsOf, ['x'], world)
    assert.deepEqual(diary.slice(0, 3), ['lock x', 'calls', 'look at /a'])
  })
  test('looks under the lock, not before', async () => {
    const { world, diary, making } = fakeWorld()
    await runAll(() => [making(['/a'], { locks: ['x'] })], [], world)
    assert.deepEqual(diary.slice(0, 2), ['lock x', 'look at /a'])
  })
  test('an action that fails ends it: the rest is not done, the locks are given back', async () => {
    const { world, files, diary, making, breakAt } = fakeWorld()
    breakAt('/b')
    const calls = [making(['/a']), making(['/b', '/c'], { locks: ['base'] }), making(['/d'])]
    const { problem, steps } = await stoppedBy(runAll(() => calls, ['instance'], world))
    assert.equal(problem.message, 'Cannot make "/b"')
    assert.deepEqual(steps, ['make changed', 'make failed'])
    assert.deepEqual([...files], ['/a'])
    assert.deepEqual(diary.slice(-2).sort(), ['release base', 'release instance'])
  })
  const [part, converted] = ['/b.part', '/b.converted']
  const fetch: Action = { do: 'fetch', url: 'https://example.org/b', to: part, digest: 'sha256:0', ceiling: 2 ** 43 }
  const unpack: Action = { do: 'unpack', from: part, packing: 'xz', to: converted, limit: 1 }
  const publish: Action = { do: 'publish', from: converted, to: '/b' }
  for (const [when, actions, code, gone] of [
    ['a half-made file', [unpack], 'IO_FAILED', [converted]],
    ['not a download: it goes on there', [fetch, unpack], 'IO_FAILED', [converted]],
    ['not a download that a tool was missing for', [fetch, unpack], 'TOOL_MISSING', [converted]],
    ['a download too, when it is no image', [fetch, unpack], 'IMAGE_REJECTED', [part, converted]],
    ['not what has its name', [unpack, publish], 'IO_FAILED', []],
    ['not what was only read', [{ do: 'verify', path: part }], 'IO_FAILED', []],
    ['nothing when it was interrupted', [unpack], 'INTERRUPTED', []],
  ] as [string, Action[], Code, string[]][])
    test(`a step that fails takes away ${when}`, async () => {
      const { world, diary } = fakeWorld()
      const broken: Action = { do: 'examine', path: '/b', format: 'raw', ceiling: 1 }
      const perform = async (action: Action) => {
        // As the real one: once interrupted, it does nothing any more.
        if (action === broken || (code === 'INTERRUPTED' && diary.includes('over'))) {
          diary.push('over')
          throw new Problem('failed', code, 'Cannot', 'none')
        }
        await world.perform(action)
      }
      const acting = call(
        defineStep({
          name: 'acting',
          summary: '',
          input: () => z.strictObject({}),
          inspect: async () => undefined,
          plan: () => [...actions, broken],
        }),
        {},
      )
      const { problem } = await stoppedBy(runAll(() => [acting], [], { ...world, perform }))
      assert.equal(problem.code, code)
      assert.deepEqual(
        diary.filter((line) => line.startsWith('remove')),
        gone.map((path) => `remove ${path}`),
      )
    })
  test('a refusal in the middle gives the locks back too', async () => {
    const { world, diary, making } = fakeWorld()
    const { problem } = await stoppedBy(
      runAll(() => [making(['/b'], { after: '/x', locks: ['base'] })], ['instance'], world),
    )
    assert.equal(problem.code, 'MISSING_PREREQUISITE')
    assert.deepEqual(diary.slice(-2).sort(), ['release base', 'release instance'])
  })
  test('a job that is busy has run no step', async () => {
    const { world, diary, making } = fakeWorld()
    const { problem, steps } = await stoppedBy(runAll(() => [making(['/a'])], ['first', 'busy'], world))
    assert.deepEqual([problem.code, problem.kind, steps], ['LOCKED', 'busy', []])
    assert.deepEqual(diary, ['lock first', 'release first'])
  })
  test('a step that is busy is the one that failed', async () => {
    const { world, files, making } = fakeWorld()
    const { problem, steps } = await stoppedBy(
      runAll(() => [making(['/a']), making(['/b'], { locks: ['busy'] })], [], world),
    )
    assert.deepEqual([problem.code, steps], ['LOCKED', ['make changed', 'make failed']])
    assert.deepEqual([...files], ['/a'])
  })
  test('a lock that was taken from us costs work, never data: nothing is done any more', async () => {
    const { world, files, making } = fakeWorld()
    const { problem } = await stoppedBy(runAll(() => [making(['/a'], { locks: ['stolen'] })], [], world))
    assert.deepEqual([problem.code, [...files]], ['LOCKED', []])
  })
  test('a step after which something is left to do has failed, and is not tried again', async () => {
    const { world, diary, making, never } = fakeWorld()
    const { problem, steps } = await stoppedBy(runAll(() => [never, making(['/a'])], ['instance'], world))
    assert.deepEqual([problem.code, problem.kind], ['NOT_SETTLED', 'failed'])
    assert.match(problem.message, /^Cannot finish "never": .*: remove \/ghost$/)
    assert.deepEqual(steps, ['never failed'])
    assert.equal(diary.filter((line) => line === 'remove /ghost').length, 1, 'it was tried again')
    assert.equal(diary.at(-1), 'release instance')
  })
})

describe('claims', () => {
  test('are taken as far as they are free, and the calls are told which', async () => {
    const { world, diary, making } = fakeWorld()
    let told: string[] = []
    const callsOf = (claimed: ReadonlySet<string>) => {
      told = [...claimed]
      return [making(['/a'], { locks: ['a'] })]
    }
    assert.equal(said(await runAll(callsOf, [], world, ['a', 'busy', 'b'])), 'changed!')
    assert.deepEqual(told, ['a', 'b'])
    assert.deepEqual(
      diary.filter((line) => /lock|release/.test(line)),
      ['lock a', 'lock b', 'release a', 'release b'],
    )
  })
  test('are never waited for', async () => {
    const { world } = fakeWorld()
    const waits: (number | undefined)[] = []
    const lock = (name: string, wait?: number) => {
      waits.push(wait)
      return world.lock(name)
    }
    await runAll(() => [], ['job'], { ...world, lock }, ['a'])
    assert.deepEqual(waits, [undefined, 0])
  })
})

describe('calls that have nothing to do with each other', () => {
  test('when one fails, the others are done all the same, and the problem names each', async () => {
    const { world, files, making } = fakeWorld()
    files.add('/f')
    const calls = [making(['/a'], { foreign: '/f' }), making(['/b']), making(['/c'], { after: '/x' })]
    const stopped = await oneByOne(calls, (one) => runAll(() => [one], [], world)).catch((error) => error)
    const { problem, steps } = await stoppedBy(Promise.reject(stopped))
    assert.deepEqual(steps, ['make failed', 'make changed', 'make failed'])
    assert.deepEqual([problem.code, problem.kind], ['NOT_OURS', 'refused'])
    assert.equal(problem.message, 'Cannot make: /f is there\n  and: Cannot make: no /x')
    assert.deepEqual(
      stopped.steps.map(({ error }: { error?: string }) => error),
      ['Cannot make: /f is there', undefined, 'Cannot make: no /x'],
    )
    assert.deepEqual([...files], ['/f', '/b'])
  })
  test('an interruption ends them all', async () => {
    const { world, files, making } = fakeWorld()
    const interrupted = async () => fail('INTERRUPTED', 'Cannot go on: interrupted', 'again')
    const work = (one: Call) => runAll(() => [one], [], { ...world, perform: interrupted })
    const { problem, steps } = await stoppedBy(oneByOne([making(['/a']), making(['/b'])], work))
    assert.deepEqual([problem.code, steps, [...files]], ['INTERRUPTED', ['make failed'], []])
  })
})

describe('going back', () => {
  const run = (fake: ReturnType<typeof fakeWorld>, calls: Call[], back?: () => Promise<Call[] | undefined>) =>
    runAll(
      () => calls,
      ['instance'],
      fake.world,
      [],
      async () => {
        fake.diary.push('go back')
        fake.breakAt('')
        const undoing = await back?.()
        return undoing && { calls: undoing, said: 'it is as it was', world: fake.world }
      },
    )

  test('is not asked for where all went well', async () => {
    const fake = fakeWorld()
    await run(fake, [fake.making(['/a'])])
    assert.ok(!fake.diary.includes('go back'))
  })
  test('undoes under the same lock what was done, tells the first problem, and that it is undone', async () => {
    const fake = fakeWorld()
    fake.breakAt('/b')
    const calls = [fake.making(['/a']), fake.making(['/b'])]
    const { problem, steps } = await stoppedBy(run(fake, calls, async () => [fake.making(['/back'], { locks: ['x'] })]))
    assert.equal(problem.message, 'Cannot make "/b" (undone: it is as it was)')
    assert.deepEqual([problem.code, problem.kind, problem.remedy], ['IO_FAILED', 'failed', 'none'])
    assert.deepEqual(steps, ['make changed', 'make failed', 'make changed'])
    assert.deepEqual(
      fake.diary.filter((line) => /lock|release|back/.test(line)),
      [
        'lock instance',
        'go back',
        'lock x',
        'look at /back',
        'mkdir /back',
        'look at /back',
        'release x',
        'release instance',
      ],
    )
  })
  test('where there is nothing to undo, the problem is told as it is', async () => {
    const fake = fakeWorld()
    fake.breakAt('/a')
    const { problem } = await stoppedBy(run(fake, [fake.making(['/a'])], async () => undefined))
    assert.equal(problem.message, 'Cannot make "/a"')
  })
  test('that fails as well is told behind the first problem, with what can be done about it now', async () => {
    const fake = fakeWorld()
    fake.breakAt('/a')
    const back = async () => fail('HOST_UNREACHABLE', 'Cannot reach "b"', 'plug it in')
    const { problem, steps } = await stoppedBy(run(fake, [fake.making(['/a'])], back))
    assert.equal(problem.message, 'Cannot make "/a"\n  and: it could not be undone: Cannot reach "b"')
    assert.deepEqual([problem.code, problem.remedy], ['IO_FAILED', 'plug it in'])
    assert.deepEqual(steps, ['make failed'])
  })
  test('is not done for somebody whose instance another task holds', async () => {
    const fake = fakeWorld()
    const held = runAll(
      () => [],
      ['busy'],
      fake.world,
      [],
      async () => assert.fail('it was not ours'),
    )
    assert.equal((await stoppedBy(held)).problem.code, 'LOCKED')
  })
  test('is not done where it was refused before any step', async () => {
    const fake = fakeWorld()
    const looked = () => refuse('MOVE_UNFINISHED', 'Cannot: another one', 'finish it')
    const refused = runAll(looked, ['instance'], fake.world, [], async () => assert.fail('nothing was done'))
    assert.equal((await stoppedBy(refused)).problem.code, 'MOVE_UNFINISHED')
  })
})
