import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { readRecord } from '../../lib/host/bases.ts'
import { acquire } from '../../lib/host/locks.ts'
import { Effects } from '../../lib/host/perform.ts'
import { usageOf } from '../../lib/host/usage.ts'
import { contentDigest } from '../../lib/image/content.ts'
import { sayAction } from '../../lib/job/action.ts'
import type { InstanceRecord, Task } from '../../lib/job/instance.ts'
import { arrivingOf, keptOf, recordOf, reservedOf, stageOf } from '../../lib/job/layout.ts'
import type { BaseIdentity } from '../../lib/job/move.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { planAll, runAll, type World } from '../../lib/job/runner.ts'
import { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { cacheClean } from '../../scripts/pipelines/cache-clean.ts'
import { create } from '../../scripts/pipelines/create.ts'
import { remove } from '../../scripts/pipelines/delete.ts'
import { list } from '../../scripts/queries/list.ts'
import { show } from '../../scripts/queries/show.ts'
import { createOverlay } from '../../scripts/steps/create-overlay.ts'
import { publishInstance } from '../../scripts/steps/publish-instance.ts'
import { receiveBase } from '../../scripts/steps/receive-base.ts'
import { receiveDisk } from '../../scripts/steps/receive-disk.ts'
import { receiveFile } from '../../scripts/steps/receive-file.ts'
import { removeInstance } from '../../scripts/steps/remove-instance.ts'
import { removeStage } from '../../scripts/steps/remove-stage.ts'
import { settleInstance } from '../../scripts/steps/settle-instance.ts'
import { stageInstance } from '../../scripts/steps/stage-instance.ts'

// What the destination of a move does, with real files: each step, twice, and cut off between any two of its actions.

const here = mkdtempSync(join(tmpdir(), 'cowhand-arrive-'))
const instances = join(here, 'instances')
const settings = Settings.parse({ instances, store: `dir:${here}/images` })
const [stage, directory] = [stageOf(instances, 'web1'), join(instances, 'web1')]
const [part, inStage] = [(name: string) => join(arrivingOf(stage), name), (name: string) => join(stage, name)]
const move = '11111111-2222-4333-8444-555555555555'
const other = '99999999-2222-4333-8444-555555555555'
const [M, G] = [2 ** 20, 2 ** 30]

/** What the source has: a base, an overlay on it in which the guest has written, and a raw disk. */
const source = join(here, 'source')
const sources = {
  base: join(source, '_base', 'a'.repeat(40)),
  disk: join(source, 'disk'),
  raw: join(source, 'disk.local'),
}
const name = 'a'.repeat(40)
const base = join(instances, '_base', name)
const file = part(`base.${name}`)
const sent: Record<string, { digest: string; size: number }> = {}
let identity: BaseIdentity = {}

const qemu = (program: string, ...words: string[]) => execFileSync(program, words, { encoding: 'utf8', stdio: 'pipe' })

before(async () => {
  mkdirSync(join(source, '_base'), { recursive: true })
  for (const [path, size, at] of [
    [sources.base, 4 * M, M],
    [sources.raw, 3 * M, 2 * M],
  ] as const) {
    writeFileSync(path, '')
    truncateSync(path, size)
    qemu('qemu-io', '-f', 'raw', '-c', `write -P 0x5a ${at} 64k`, path)
  }
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', sources.base, sources.disk, '8M')
  qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 0xa5 3M 128k', sources.disk)
  writeFileSync(join(source, 'disk.config'), 'seed')
  mkdirSync(join(source, 'tpm'))
  writeFileSync(join(source, 'tpm/tpm2-00.permall'), 'state')
  for (const name of ['disk', 'disk.local', 'disk.config', 'tpm/tpm2-00.permall'])
    sent[name] = { digest: await contentDigest(join(source, name)), size: statSync(join(source, name)).size }
  identity = { id: 'glance-id', name: 'debian', content: await contentDigest(sources.base), proven: true }
})
beforeEach(() => {
  rmSync(instances, { recursive: true, force: true })
  mkdirSync(instances)
})
after(() => rmSync(here, { recursive: true, force: true }))

class Killed extends Error {}

/** A run of the program that is killed before its action number `lives`; locks are not of interest here. */
function world(lives = Number.POSITIVE_INFINITY): World {
  const effects = new Effects(() => {}, new AbortController().signal, settings)
  let left = lives
  return {
    settings,
    tell: () => {},
    flush: () => effects.flush(),
    lock: async () => ({ assertHeld: () => {}, release: () => {} }),
    perform: async (action) => {
      // What is cleared up after a problem is not of a process that was killed.
      if (left <= 0) throw new Killed()
      left -= 1
      await effects.perform(action)
    },
  }
}
const run = async (calls: Call[], lives?: number) =>
  runAll(() => calls, [], world(lives)).catch((error) => Promise.reject(error.cause))

/** What each does now. */
const plan = async ({ step, input }: Call) =>
  step
    .plan(input, await step.inspect(input, settings, new Set()))
    .map((action) => sayAction(action).replaceAll(instances, ''))

const refuses = async (calls: Call[] | Promise<unknown>, code: Code, words = /./) => {
  await assert.rejects(Array.isArray(calls) ? run(calls) : calls, (error) => {
    assert.ok(error instanceof Problem, String(error))
    assert.equal(error.code, code, error.message)
    assert.match(`${error.message}; ${error.remedy}`, words)
    assert.ok(error.remedy.length > 0)
    return true
  })
}

const stageIt = (more: object = {}) =>
  call(stageInstance, { stage, name: 'web1', move, host: 'hosta', here: false, ...more })
const takeBase = (more: object = {}) => call(receiveBase, { file, base, size: 4 * M, identity, host: 'hosta', ...more })
const reserve = () => call(createOverlay, { disk: join(reservedOf(stage), 'disk'), base, size: 8 * M })
const takeDisk = (more: object = {}) =>
  call(receiveDisk, {
    ...{ part: part('disk'), disk: inStage('disk'), format: 'qcow2', size: 8 * M, stands: true, sent: sent['disk'] },
    ...more,
  })
const takeRaw = (more: object = {}) =>
  takeDisk({
    ...{ part: part('disk.local'), disk: inStage('disk.local'), format: 'raw', size: 3 * M, stands: false },
    ...{ sent: sent['disk.local'], ...more },
  })
const takeFile = (name: string, more: object = {}) =>
  call(receiveFile, { part: part(name), file: inStage(name), sent: sent[name], ...more })

const record: InstanceRecord = {
  ...{ version: 1, name: 'web1', uuid: other, image: { id: 'sha256:a', name: 'debian' } },
  ...{ root: 8 * M, ephemeral: 3 * M, 'os-type': 'linux' },
}
const task: Task = {
  ...{ move, kind: 'migrate', phase: 'done', host: 'hostb', since: '2031-01-01T00:00:00.000Z', run: true },
  ...{ autostart: false, root: 8 * M },
}
const settle = () =>
  call(settleInstance, {
    ...{ stage, directory, record: { ...record, task }, move, host: 'hosta', xml: '<domain/>' },
    disks: ['disk=qcow2', 'disk.local=raw'],
  })
const publish = () => call(publishInstance, { stage, directory, move })
const clear = (which = move) => call(removeStage, { stage, move: which })

const prepare = () => [stageIt(), takeBase(), reserve()]
const finish = () => [
  ...[takeDisk(), takeRaw(), takeFile('disk.config'), takeFile('tpm/tpm2-00.permall')],
  ...[settle(), publish()],
]

/** As rsync leaves it: it makes no directory but the last. */
function push(name: string, from = join(source, name)): void {
  if (existsSync(part(name)) || existsSync(inStage(name)) || existsSync(join(directory, name))) return
  mkdirSync(join(part(name), '..'), { recursive: true })
  copyFileSync(from, part(name))
  chmodSync(part(name), 0o644)
}
const pushBase = () => existsSync(base) || push(`base.${name}`, sources.base)
const pushAll = () => {
  for (const name of Object.keys(sent)) push(name)
}

/** Everything that is there; times, and what follows from them, left out. */
const tree = (): string[] =>
  readdirSync(instances, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((path) => {
      const facts = statSync(join(instances, path))
      const content = facts.isFile() ? readFileSync(join(instances, path)).toString('latin1') : ''
      const stable = content.replace(/"(stamp|made|since)": ".*?"/g, '*')
      return `${path} ${(facts.mode & 0o777).toString(8)} ${facts.size > 5000 ? facts.size : stable}`
    })

describe('an instance arrives', () => {
  async function all(lives?: number): Promise<number> {
    const count = { done: 0 }
    const some = async (calls: Call[]) => {
      const left = lives === undefined ? undefined : lives - count.done
      const steps = await run(calls, left)
      count.done += steps.flatMap(({ actions }) => actions).length
    }
    await some([stageIt()])
    pushBase()
    await some(prepare())
    pushAll()
    await some(finish())
    return count.done
  }

  test('and is whole: what was sent is there, the wish is written down, and nothing else is left', async () => {
    await all()
    assert.deepEqual(readdirSync(instances).sort(), ['_base', 'web1'])
    assert.deepEqual(readdirSync(directory).sort(), [
      ...['console.log', 'disk', 'disk.config', 'disk.info', 'disk.local', 'instance.json', 'libvirt.xml', 'tpm'],
    ])
    for (const name of Object.keys(sent))
      assert.ok(readFileSync(join(directory, name)).equals(readFileSync(join(source, name))), name)
    assert.ok(readFileSync(base).equals(readFileSync(sources.base)))
    const { stamp: _, ...written } = readRecord(base) as Record<string, unknown>
    assert.deepEqual(
      { ...written, made: 0, content: (written['content'] as { proven: boolean }).proven },
      {
        version: 1,
        made: 0,
        content: true,
        id: 'glance-id',
        name: 'debian',
        receivedFrom: 'hosta',
        reader: 1,
        size: 4 * M,
        virtualSize: 4 * M,
      },
    )
    const arrived = JSON.parse(readFileSync(join(directory, 'instance.json'), 'utf8'))
    assert.deepEqual(arrived, { ...record, arrived: { move, host: 'hosta' } })
    const pins = JSON.parse(readFileSync(join(directory, 'disk.info'), 'utf8'))
    assert.deepEqual(pins, { [`${directory}/disk`]: 'qcow2', [`${directory}/disk.local`]: 'raw' })
    const modes = ['disk', 'disk.config', 'libvirt.xml', 'console.log', 'tpm', '.', `../_base/${name}`].map((path) =>
      (statSync(join(directory, path)).mode & 0o777).toString(8),
    )
    assert.deepEqual(modes, ['600', '600', '600', '660', '700', '755', '644'])
  })

  test('and again: nothing is left to do', async () => {
    await run([stageIt()])
    assert.deepEqual(await plan(stageIt()), [])
    pushBase()
    await run(prepare())
    for (const one of prepare()) assert.deepEqual(await plan(one), [], one.step.name)
    pushAll()
    for (const one of finish().slice(0, -1)) {
      await run([one])
      assert.deepEqual(await plan(one), [], one.step.name)
    }
    await run([publish()])
    for (const one of [stageIt(), ...finish()]) assert.deepEqual(await plan(one), [], one.step.name)
  })

  test('killed before any of its actions, and run again: the same end', async () => {
    const count = await all()
    const whole = tree()
    assert.ok(count > 25, `${count} actions`)
    for (let lives = 0; lives < count; lives += 1) {
      rmSync(instances, { recursive: true })
      mkdirSync(instances)
      await assert.rejects(all(lives), Killed, `${lives}`)
      await all()
      assert.deepEqual(tree(), whole, `killed before action ${lives}`)
    }
  })

  test('killed before any of its actions, and given up: nothing of it is left but the base', async () => {
    const count = await all()
    const leave = async () => {
      const isHere = existsSync(join(directory, 'instance.json'))
      await run([...(isHere ? [call(removeInstance, { directory })] : []), clear()])
    }
    for (let lives = 0; lives < count; lives += 3) {
      rmSync(instances, { recursive: true })
      mkdirSync(instances)
      await assert.rejects(all(lives), Killed, `${lives}`)
      await leave()
      assert.deepEqual(
        readdirSync(instances).filter((name) => name !== '_base'),
        [],
        `killed before action ${lives}`,
      )
      assert.deepEqual(await plan(clear()), [])
    }
  })

  test('and is given up, which is killed before any of its actions, and done again', async () => {
    const begin = async () => {
      await run([stageIt()])
      pushBase()
      await run(prepare())
      pushAll()
      await run([takeDisk(), takeFile('tpm/tpm2-00.permall')])
      writeFileSync(part('.disk.local.Ab12Cd'), 'what rsync had of it')
    }
    await begin()
    const count = (await plan(clear())).length
    assert.ok(count > 8)
    for (let lives = 0; lives < count; lives += 1) {
      if (lives > 0) await begin()
      await assert.rejects(run([clear()], lives), Killed)
      await run([clear()])
      assert.deepEqual(readdirSync(instances), ['_base'], `killed before action ${lives}`)
    }
  })
})

describe('stage-instance', () => {
  test('an instance of this name is there (S60)', async () => {
    mkdirSync(directory)
    await refuses([stageIt()], 'DESTINATION_EXISTS', /instances\/web1" is there/)
    await run([stageIt({ here: true })])
    assert.deepEqual(await plan(stageIt({ here: true })), [])
  })
  test('what another move kept is there (S76)', async () => {
    mkdirSync(keptOf(instances, 'web1'))
    await refuses([stageIt()], 'DESTINATION_EXISTS', /web1_resize" is there/)
  })
  test('another one is arriving: whose it is, and how it is cleared away', async () => {
    await run([stageIt()])
    await refuses(
      [stageIt({ move: other })],
      'DESTINATION_EXISTS',
      /from hosta since 20.*remove-stage --stage .*web1\.incoming/,
    )
    await run([clear(other)])
    assert.ok(existsSync(stage), 'what is of another move stays')
  })
  test('it was made ready for another plan: what was kept for that goes, and what has arrived stays', async () => {
    const larger = () => call(createOverlay, { disk: join(reservedOf(stage), 'disk'), base, size: 9 * M })
    const others = () => [stageIt({ agreement: 'other' }), larger()]
    const begin = async () => {
      rmSync(instances, { recursive: true })
      mkdirSync(instances)
      await run([stageIt({ agreement: 'one' })])
      assert.deepEqual(await plan(stageIt({ agreement: 'one' })), [])
      pushBase()
      await run([takeBase(), reserve()])
      writeFileSync(part('disk'), 'some of it')
    }
    await begin()
    await refuses([larger()], 'INSTANCE_DIFFERS')
    const { length: count } = (await planAll(others(), settings)).flatMap(({ actions }) => actions)
    for (let lives = 0; lives < count; lives += 1) {
      await begin()
      await assert.rejects(run(others(), lives), Killed)
      await run(others())
      assert.deepEqual(readdirSync(part('')), ['disk'])
      for (const one of others()) assert.deepEqual(await plan(one), [])
    }
  })
  test('files of somebody are there', async () => {
    mkdirSync(stage)
    writeFileSync(inStage('precious'), '')
    await refuses([stageIt()], 'NOT_OURS')
    await refuses([clear()], 'NOT_OURS')
  })
  test('a link is there', async () => {
    mkdirSync(join(here, 'elsewhere'), { recursive: true })
    symlinkSync(join(here, 'elsewhere'), stage)
    await refuses([stageIt()], 'NOT_OURS')
  })
  for (const path of [`${here}/web1.incoming`, `${instances}/_base`, `${instances}/locks.incoming`, instances])
    test(`not in ${path.replace(here, '')}`, async () => {
      await refuses([stageIt({ stage: path })], 'BAD_SPEC')
      await refuses([call(removeStage, { stage: path, move })], 'BAD_SPEC')
    })
})

test('an rsync still writes, of a run that is over: it is ended before anything is taken or removed', async () => {
  const [shell, big] = [join(here, 'shell'), join(here, 'big')]
  writeFileSync(shell, '#!/bin/sh\nshift\nexec "$@"\n', { mode: 0o755 })
  writeFileSync(big, randomBytes(M))
  for (const calls of [() => [stageIt()], () => [takeDisk()], () => [clear()]]) {
    await run([stageIt()])
    push('disk')
    const words = ['--inplace', '--bwlimit=10k', '-e', shell, big, `elsewhere:${arrivingOf(stage)}/`]
    const ended = once(spawn('rsync', words, { stdio: 'ignore' }), 'exit')
    while (!existsSync(part('big'))) await sleep(10)
    await run(calls())
    const [code] = await ended
    assert.ok([10, 12].includes(code), 'the other end is gone')
    await run([clear()])
  }
})

describe('receive-base', () => {
  beforeEach(() => run([stageIt()]))

  test('it has not come yet', () => refuses([takeBase()], 'MISSING_PREREQUISITE'))
  test('the source does not tell its content', async () => {
    pushBase()
    await refuses([takeBase({ identity: { id: 'x' } })], 'BASE_UNPROVEN')
  })
  test('it was cut off', async () => {
    pushBase()
    truncateSync(file, 3 * M)
    await refuses([takeBase()], 'CHECKSUM_MISMATCH', /sent again/)
    assert.ok(existsSync(file), 'the rest of it is not sent again')
  })
  test('it has another content: it never becomes a base (S75)', async () => {
    pushBase()
    qemu('qemu-io', '-f', 'raw', '-c', 'write -P 1 0 512', file)
    await refuses([takeBase()], 'CHECKSUM_MISMATCH', /sent again/)
    assert.ok(!existsSync(base) && !existsSync(recordOf(base)))
  })
  test('it is a qcow2: a base is what the guest sees', async () => {
    copyFileSync(sources.disk, file)
    const told = { size: statSync(file).size, identity: { content: sent['disk']?.digest } }
    await refuses([takeBase(told)], 'IMAGE_REJECTED')
  })
  test('the same base is there already: what was sent of it goes', async () => {
    pushBase()
    await run([takeBase()])
    copyFileSync(sources.base, file)
    assert.deepEqual(await plan(takeBase()), [`remove /web1.incoming/part/base.${name}`])
  })
  test('another one of its name is there', async () => {
    pushBase()
    mkdirSync(join(instances, '_base'))
    copyFileSync(sources.raw, base)
    const was = tree()
    await refuses([takeBase()], 'BASE_DIFFERS', /another content/)
    assert.deepEqual(tree(), was)
  })
  test('the same one is there, that another tool made: it is read, and then has a record', async () => {
    mkdirSync(join(instances, '_base'))
    copyFileSync(sources.base, base)
    await run([takeBase()])
    assert.deepEqual(await plan(takeBase()), [])
  })
  test('nobody has proven it on the source: here too it is as one of another tool', async () => {
    pushBase()
    await run([takeBase({ identity: { content: identity.content } })])
    const written = readRecord(base)
    assert.ok(typeof written === 'object' && written.adopted === true && written.content?.proven === undefined)
  })
  for (const wrong of [`${name}.json`, `${name}.part`, '.hidden'])
    test(`under the name ${wrong}`, async () => {
      pushBase()
      await refuses([takeBase({ base: join(instances, '_base', wrong) })], 'BAD_SPEC')
    })
  test('to another place than _base', () => refuses([takeBase({ base: join(instances, 'x') })], 'BAD_SPEC'))
})

describe('receive-disk', () => {
  beforeEach(() => run([stageIt()]))
  const stays = () => assert.ok(existsSync(part('disk')) && !existsSync(inStage('disk')))

  test('it has not come', () => refuses([takeDisk()], 'MISSING_PREREQUISITE'))
  test('it was cut off', async () => {
    push('disk')
    truncateSync(part('disk'), 1000)
    await refuses([takeDisk()], 'CHECKSUM_MISMATCH', /sent again/)
    stays()
  })
  test('a byte of it is another', async () => {
    push('disk')
    qemu('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 3M 512', part('disk'))
    await refuses([takeDisk()], 'CHECKSUM_MISMATCH', /sent again/)
    stays()
  })
  test('copied on this host: it was whole, or it had no name', async () => {
    push('disk')
    await run([takeDisk({ sent: undefined })])
    assert.deepEqual(await plan(takeDisk({ sent: undefined })), [])
  })
  test('it is there, and was sent once more', async () => {
    push('disk')
    await run([takeDisk()])
    copyFileSync(sources.disk, part('disk'))
    assert.deepEqual(await plan(takeDisk()), ['remove /web1.incoming/part/disk'])
  })
  const wrong: [what: string, make: (path: string) => void, more: object][] = [
    ['it is smaller than it was', () => {}, { size: 9 * M }],
    ['it stands on a file, and should on none', () => {}, { stands: false }],
    ['it is no qcow2', (path) => copyFileSync(sources.raw, path), {}],
    ['it stands on nothing', (path) => qemu('qemu-img', 'create', '-q', '-f', 'qcow2', path, '8M'), {}],
    [
      'its data is in another file',
      (path) => {
        qemu('qemu-img', 'create', '-q', '-f', 'qcow2', '-o', `data_file=${here}/data`, path, '8M')
      },
      { stands: false },
    ],
    [
      'its base is called a qcow2',
      (path) => qemu('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', '/etc/passwd', path, '8M'),
      {},
    ],
  ]
  for (const [what, make, more] of wrong)
    test(what, async () => {
      push('disk')
      make(part('disk'))
      const its = { digest: await contentDigest(part('disk')), size: statSync(part('disk')).size }
      await refuses([takeDisk({ sent: its, ...more })], 'IMAGE_REJECTED')
      stays()
    })
  test('raw: its guest has written the header of a qcow2 into it, and it is as raw as before', async () => {
    copyFileSync(sources.raw, part('disk.local'))
    execFileSync('dd', [
      `if=${sources.disk}`,
      `of=${part('disk.local')}`,
      'bs=64k',
      'count=1',
      'conv=notrunc',
      'status=none',
    ])
    await run([takeRaw({ sent: { digest: await contentDigest(part('disk.local')), size: 3 * M } })])
    assert.deepEqual(await plan(takeRaw()), [])
  })
  test('raw: it has another length', async () => {
    push('disk.local')
    await refuses([takeRaw({ size: 4 * M })], 'CHECKSUM_MISMATCH')
  })
  test('a link was planted', async () => {
    symlinkSync('/etc/passwd', part('disk'))
    await refuses([takeDisk()], 'NOT_OURS')
  })
  test('it is none of the disks', async () => {
    await refuses([takeDisk({ disk: inStage('libvirt.xml'), part: part('libvirt.xml') })], 'BAD_SPEC')
    await refuses([takeDisk({ disk: join(directory, 'disk') })], 'BAD_SPEC')
  })
})

describe('receive-file', () => {
  beforeEach(() => run([stageIt()]))

  test('it has another content', async () => {
    push('disk.config')
    writeFileSync(part('disk.config'), 'SEED')
    await refuses([takeFile('disk.config')], 'CHECKSUM_MISMATCH')
  })
  test('on this host: there may be none', async () =>
    assert.deepEqual(await plan(takeFile('nvram.fd', { sent: undefined })), []))
  for (const name of ['instance.json', 'libvirt.xml', 'tpm/../x', 'tpm/a/b', 'tpm/.x', 'x', 'reserved/disk', ''])
    test(`not "${name}"`, () => refuses([takeFile(name)], 'BAD_SPEC'))
  test('a link was planted in the place of its directory', async () => {
    mkdirSync(join(here, 'elsewhere'), { recursive: true })
    symlinkSync(join(here, 'elsewhere'), inStage('tpm'))
    push('tpm/tpm2-00.permall')
    await refuses([takeFile('tpm/tpm2-00.permall')], 'NOT_OURS')
  })
})

describe('publish-instance', () => {
  test('a disk has not come', async () => {
    await run([stageIt()])
    push('disk')
    await run([takeDisk(), settle()])
    await refuses([publish()], 'MISSING_PREREQUISITE', /disk\.local" is not there yet/)
  })
  test('it was not settled', async () => {
    await run([stageIt()])
    await refuses([publish()], 'MISSING_PREREQUISITE')
  })
  test('another one has taken its name', async () => {
    await run([stageIt()])
    pushAll()
    await run(finish().slice(0, -1))
    mkdirSync(directory)
    await refuses([publish()], 'DESTINATION_EXISTS')
  })
})

describe('who needs which base', () => {
  const old = () => {
    const then = Date.now() / 1000 - 30 * 86_400
    utimesSync(recordOf(base), then, then)
  }
  const clean = async () => {
    // What was seen is not looked for again until this process takes a further lock.
    const lock = await acquire(join(instances, 'locks'), 'any', { task: 'test', wait: 0 })
    lock.release()
    const found = await cacheClean.look(cacheClean.job.parse({}), settings)
    await run(cacheClean.calls(cacheClean.job.parse({}), found, settings))
  }
  beforeEach(async () => {
    await run([stageIt()])
    pushBase()
    await run([takeBase()])
  })

  test('nobody: the cleaner takes it', async () => {
    old()
    await clean()
    assert.ok(!existsSync(base))
  })
  test('an instance that is still to arrive: its base is not taken', async () => {
    await run([reserve()])
    old()
    await clean()
    assert.ok(existsSync(base))
    assert.deepEqual((await usageOf(instances, undefined)).users, new Map([[name, ['web1.incoming/reserved/disk']]]))
  })
  test('what is half here, or names files of the other host, raises no doubt', async () => {
    await run([reserve()])
    push('disk.local')
    qemu('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/nowhere/x', part('disk'), '8M')
    truncateSync(part('disk'), 150)
    qemu('qemu-img', 'create', '-q', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/nowhere/x', inStage('disk'), '8M')
    assert.deepEqual((await usageOf(instances, undefined)).doubts, [])
    rmSync(inStage('move.json'))
    assert.equal((await usageOf(instances, undefined)).doubts.length, 2, 'of no move of ours: anything may be in it')
  })
})

describe('what waits is not overrun', () => {
  const job = { name: 'web1', image: 'debian', root: G }
  const instance = (home: string, more: object) => {
    mkdirSync(join(instances, home))
    writeFileSync(join(instances, home, 'instance.json'), JSON.stringify({ ...record, ...more }))
  }
  const both = async (words: RegExp) => {
    await refuses(create.look(create.job.parse(job), settings), 'MOVE_UNFINISHED', words)
    await refuses(remove.look({ name: 'web1' }, settings), 'MOVE_UNFINISHED', words)
  }
  test('it is arriving', async () => {
    await run([stageIt()])
    await both(/arriving from hosta since 20.*remove-stage/)
  })
  test('it went to another host', async () => {
    instance('web1_resize', { task })
    await both(/migration to hostb of 2031.*neither confirmed nor reverted.*cowhand confirm web1.*cowhand revert web1/)
  })
  test('it is on its way', async () => {
    instance('web1', { task: { ...task, phase: 'begun' } })
    await both(/migration to hostb of 2031.*not finished.*cowhand revert web1/)
  })
  test('it was resized here', async () => {
    instance('web1', { arrived: { move } })
    instance('web1_resize', { task: { ...task, kind: 'resize', host: undefined } })
    await both(/its resize of 2031.*neither confirmed nor reverted/)
  })
  test('something else has the name that is kept', async () => {
    mkdirSync(keptOf(instances, 'web1'))
    writeFileSync(join(keptOf(instances, 'web1'), 'notes'), '')
    await both(/ls -l .*web1_resize/)
  })
  test('nothing waits', async () => {
    instance('web1', { arrived: { move } })
    assert.equal((await remove.look({ name: 'web1' }, settings))?.name, 'web1')
  })
  test('show and list tell of it, and of what is only kept', async () => {
    instance('web1_resize', { task })
    const shown = await show.run({ name: 'web1' }, settings)
    assert.match(shown.text ?? '', /in hand: +its migration to hostb of 2031.*cowhand confirm web1/)
    assert.match(shown.text ?? '', /directory: .*web1_resize/)
    const listed = await list.run({}, settings)
    assert.match(listed.text ?? '', /^web1: its migration to hostb/m)
    assert.equal(listed.ok, true)
  })
})
