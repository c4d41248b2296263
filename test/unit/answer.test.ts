import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { answerTo, requireRoom } from '../../lib/host/answer.ts'
import { caller } from '../../lib/host/caller.ts'
import { fileAt, probeOf } from '../../lib/host/files.ts'
import { contentDigest } from '../../lib/image/content.ts'
import { digestOf } from '../../lib/image/digest.ts'
import { identityOf, sameContent } from '../../lib/job/base.ts'
import type { InstanceRecord } from '../../lib/job/instance.ts'
import { baseName, markOf, recordOf, stageOf } from '../../lib/job/layout.ts'
import type { AnsweredBase, BaseIdentity, Offer } from '../../lib/job/move.ts'
import { type Code, Problem, problemIn } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'
import { cloudStub, settingsWith } from './cloud-stub.ts'

// What the destination answers, and that it changes nothing. libvirt is its own test driver, which needs no daemon.

const here = mkdtempSync(join(tmpdir(), 'cowhand-answer-'))
const instances = join(here, 'instances')
const store = join(here, 'images')
const settings = (more: object = {}) => Settings.parse({ instances, store: `dir:${store}`, ...more })
const [directory, stage] = [join(instances, 'web1'), stageOf(instances, 'web1')]
const move = '11111111-2222-4333-8444-555555555555'
const uuid = '22222222-2222-4333-8444-555555555555'
const other = '99999999-2222-4333-8444-555555555555'
const M = 2 ** 20
const raw = join(here, 'debian.raw')
let [content, digest, name] = ['', '', '']

before(async () => {
  writeFileSync(raw, '')
  truncateSync(raw, 2 * M)
  execFileSync('qemu-io', ['-f', 'raw', '-c', `write -P 0x5a ${M} 64k`, raw], { stdio: 'pipe' })
  content = await contentDigest(raw)
  digest = await digestOf(raw, 'sha256')
  name = await baseName(digest)
})
beforeEach(() => {
  for (const path of [instances, store]) {
    rmSync(path, { recursive: true, force: true })
    mkdirSync(path)
  }
})
after(() => rmSync(here, { recursive: true, force: true }))

const record: InstanceRecord = {
  ...{ version: 1, name: 'web1', uuid, image: { id: 'sha256:a', name: 'debian' } },
  ...{ root: 8 * M, 'os-type': 'linux' },
}
const offer = (more: Partial<Offer> = {}): Offer => ({
  ...{ version: 1, move, kind: 'migrate', name: 'web1', host: 'hosta', instances: '/elsewhere', record },
  ...{ probe: { inode: '1', changed: '1', size: 1 }, disks: [], files: [], ...more },
})
const answer = (more: Partial<Offer> = {}, set: object = {}) =>
  answerTo(offer(more), settings(set), { signal: new AbortController().signal })

/** All that is there, and when it was changed last. */
const seen = () =>
  readdirSync(here, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((path) => `${path} ${statSync(join(here, path)).ctimeMs}`)

async function refuses(code: Code, words: RegExp, more: Partial<Offer> = {}, set: object = {}): Promise<void> {
  const was = seen()
  await assert.rejects(answer(more, set), (error) => {
    const problem = problemIn(error) ?? assert.fail(String(error))
    assert.equal(problem.code, code, problem.message)
    assert.match(`${problem.message}; ${problem.remedy}`, words)
    return true
  })
  assert.deepEqual(seen(), was)
}

const instance = (home: string, more: object = {}) => {
  mkdirSync(join(instances, home))
  writeFileSync(join(instances, home, 'instance.json'), JSON.stringify({ ...record, ...more }))
}
const staged = (which: string) => {
  mkdirSync(join(stage, 'part'), { recursive: true })
  mkdirSync(join(stage, 'tpm'))
  const mark = { version: 1, move: which, host: 'hosta', since: '2031-01-01T00:00:00.000Z' }
  writeFileSync(markOf(stage), JSON.stringify(mark))
  for (const name of ['disk', 'disk.config', 'tpm/state', 'libvirt.xml', 'part/disk.local'])
    writeFileSync(join(stage, name), '')
}

describe('the place', () => {
  test('nothing is there', async () => {
    const was = seen()
    const { instance, running, proven, shared, free, rsyncd, libvirt } = await answer()
    assert.deepEqual(
      { instance, running, proven, shared, libvirt },
      {
        ...{ instance: 'absent', running: false, proven: [], shared: false, libvirt: false },
      },
    )
    assert.ok(free > M)
    assert.deepEqual(rsyncd, { port: 873, module: 'cowhand' })
    assert.deepEqual(seen(), was)
  })
  test('there is not even a directory of instances', async () => {
    rmSync(instances, { recursive: true })
    assert.equal((await answer()).instance, 'absent')
    assert.ok(!existsSync(instances))
  })
  test('how its rsync daemon is reached', async () =>
    assert.deepEqual((await answer({}, { rsyncd_port: 8730, rsyncd_module: 'vms', rsyncd_user: 'mover' })).rsyncd, {
      ...{ port: 8730, module: 'vms', user: 'mover' },
    }))
  test('its directory is there (S60)', async () => {
    mkdirSync(directory)
    await refuses('DESTINATION_EXISTS', /instances\/web1" is there/)
  })
  test('an instance of this name is there', async () => {
    instance('web1')
    await refuses('DESTINATION_EXISTS', /instances\/web1" is there.*cowhand show web1/)
  })
  test('one that another move brought is there', async () => {
    instance('web1', { arrived: { move: other } })
    await refuses('DESTINATION_EXISTS', /is there/)
  })
  test('one that left it is kept there (S76)', async () => {
    instance('web1_resize')
    await refuses('DESTINATION_EXISTS', /web1_resize" is there.*cowhand confirm web1/)
  })
  test('this very move has brought it', async () => {
    instance('web1', { arrived: { move, host: 'hosta' } })
    writeFileSync(join(directory, 'disk'), '')
    const { instance: is, proven } = await answer()
    assert.deepEqual([is, proven], ['arrived', ['disk']])
  })
  test('this very move was cut off: what is proven is not sent again', async () => {
    staged(move)
    const { instance: is, proven } = await answer()
    assert.deepEqual([is, proven], ['absent', ['disk', 'disk.config', 'tpm/state']])
  })
  test('another move is on its way', async () => {
    staged(other)
    await refuses('DESTINATION_EXISTS', /from hosta since 2031.*remove-stage --stage .*web1\.incoming --move 9999/)
  })
  test('somebody has put something in its place', async () => {
    writeFileSync(stage, '')
    await refuses('NOT_OURS', /not a directory|look at it/)
  })
})

describe('shared storage (S66)', () => {
  const probe = (home = 'web1') => probeOf(join(instances, home, 'instance.json')) ?? assert.fail()

  for (const home of ['web1', 'web1_resize'])
    test(`the source's own file is ${home}/instance.json here`, async () => {
      instance(home)
      const { shared, instance: is, proven, bases } = await answer({ probe: probe(home) })
      assert.deepEqual({ shared, is, proven, bases }, { shared: true, is: 'absent', proven: [], bases: [] })
    })
  test('a file of the same content is another', async () => {
    instance('web1')
    const its = probe()
    await refuses('DESTINATION_EXISTS', /is there/, { probe: { ...its, inode: `${its.inode}0` } })
  })
  test('the same inode at another time is another', async () => {
    instance('web1')
    const was = probe()
    linkSync(join(directory, 'instance.json'), join(here, 'link'))
    rmSync(join(here, 'link'))
    await refuses('DESTINATION_EXISTS', /is there/, { probe: was })
  })
})

describe('libvirt', () => {
  /** A libvirt that has one domain; the state of the test driver is 1 where it runs, 5 where it is off. */
  function libvirtWith(name: string, id: string, state = 5): { libvirt_uri: string } {
    const path = join(here, 'node.xml')
    const schema = "xmlns:test='http://libvirt.org/schemas/domain/test/1.0'"
    writeFileSync(
      path,
      `<node><domain type='test' ${schema}><name>${name}</name><uuid>${id}</uuid><memory>1024</memory>
      <os><type>hvm</type></os><test:runstate>${state}</test:runstate></domain></node>`,
    )
    return { libvirt_uri: `test://${path}` }
  }
  const wanted = { domain: { run: true, autostart: false } }

  test('none is configured, and the guest is to run', () => refuses('UNSUPPORTED', /set libvirt_uri/, wanted))
  test('none is configured on either host', async () => assert.equal((await answer()).libvirt, false))
  test('it has another domain', async () => {
    const { libvirt, running } = await answer(wanted, libvirtWith('web2', other))
    assert.deepEqual([libvirt, running], [true, false])
  })
  test('it has a domain of this name', () =>
    refuses('DESTINATION_EXISTS', /domain "web1"/, wanted, libvirtWith('web1', other)))
  test('it has a domain of this uuid', () =>
    refuses('DESTINATION_EXISTS', /domain "web2"/, wanted, libvirtWith('web2', uuid)))
  test('it has this very domain, and no instance is here', () =>
    refuses('DESTINATION_EXISTS', /domain "web1"/, wanted, libvirtWith('web1', uuid)))
  for (const [state, runs] of [
    [1, true],
    [3, true],
    [5, false],
  ] as const)
    test(`this very move has brought it, and it is in state ${state}`, async () => {
      instance('web1', { arrived: { move } })
      const { instance: is, running } = await answer(wanted, libvirtWith('web1', uuid, state))
      assert.deepEqual([is, running], ['arrived', runs])
    })
  test('it is out of reach', () =>
    refuses('TOOL_FAILED', /Cannot reach libvirt/, wanted, { libvirt_uri: 'qemu+unix:///system?socket=/nowhere' }))
})

describe('bases', () => {
  const base = () => join(instances, '_base', name)
  /** Ours: with what is recorded of it, or as another tool left it. */
  function have(more: object | 'nothing' = {}, measured?: string): void {
    const path = base()
    mkdirSync(join(instances, '_base'), { recursive: true })
    copyFileSync(raw, path)
    const { size, stamp } = fileAt(path) ?? assert.fail()
    const known = { version: 1, id: digest, digest, format: 'raw', size, stamp, ...(more as object) }
    const text = JSON.stringify(measured ? { ...known, content: { digest: measured, stamp } } : known)
    if (more !== 'nothing') writeFileSync(recordOf(path), text)
  }
  const byImage = (): BaseIdentity => ({ digest, format: 'raw' })
  const stranger = `content-sha256:${'0'.repeat(64)}`

  async function of(identity: BaseIdentity, set: object = {}, which = name): Promise<AnsweredBase> {
    const was = seen()
    const disk = { file: 'disk', format: 'qcow2', virtualSize: 8 * M, allocated: M } as const
    const its = { name: which, size: 2 * M, allocated: M, identity }
    const { bases } = await answer({ disks: [{ ...disk, base: its }] }, set)
    assert.deepEqual(seen(), was)
    return bases.find((base) => base.name === which) ?? assert.fail()
  }

  test('made of the same image', async () => {
    have()
    assert.deepEqual(await of(byImage()), { name, is: 'equal', size: 2 * M })
  })
  test('of the same content, by what is recorded', async () => {
    have({}, content)
    assert.equal((await of({ content })).is, 'equal')
  })
  test('of another content, though of the same image', async () => {
    have({}, stranger)
    assert.equal((await of({ ...byImage(), content })).is, 'differs')
  })
  test('nothing is recorded of ours: it is read', async () => {
    have('nothing')
    assert.equal((await of({ content })).is, 'equal')
    assert.equal((await of({ content: stranger })).is, 'differs')
  })
  test('the source cannot tell what is in its own', async () => {
    have('nothing')
    assert.equal((await of({})).is, 'unproven')
    assert.equal((await of(byImage())).is, 'unproven')
  })
  test('another tool made ours, and what its record says of an image proves nothing', async () => {
    have({ adopted: true })
    assert.equal((await of(byImage())).is, 'unproven')
  })
  test('ours was written to since', async () => {
    have()
    appendFileSync(base(), 'x')
    assert.equal((await of({ ...byImage(), content })).is, 'differs')
  })
  test('ours is in quarantine', async () => {
    have({ quarantined: { since: 'now', why: 'it is wrong' } })
    const { is, why } = await of({ content })
    assert.deepEqual([is, /it is wrong/.test(why ?? '')], ['differs', true])
  })
  test('its record cannot be read', async () => {
    have()
    writeFileSync(recordOf(base()), '{')
    assert.equal((await of({ content })).is, 'differs')
  })
  test('the name of a record', async () => {
    have()
    assert.equal((await of({ content }, {}, `${name}.json`)).is, 'differs')
  })
  test('none is here: one that is made can be made', async () => {
    assert.deepEqual(await of({}, {}, 'swap_512'), { name: 'swap_512', is: 'absent', from: 'maker' })
    assert.equal((await of({}, {}, 'ephemeral_0_10_linux')).from, 'maker')
  })
  test("none is here, and there is no image of its name: only the source's own will do", async () => {
    assert.equal((await of({ content }, {}, 'windows.img')).from, undefined)
    assert.equal((await of(byImage(), {}, `${name}_20`)).from, undefined)
  })

  describe('none is here, and the store', () => {
    const keep = (more: object = {}) => {
      copyFileSync(raw, join(store, 'debian.raw'))
      const { size, stamp } = fileAt(join(store, 'debian.raw')) ?? assert.fail()
      const image = {
        version: 1,
        name: 'debian',
        file: 'debian.raw',
        digest,
        format: 'raw',
        size,
        stamp,
        properties: {},
      }
      writeFileSync(join(store, 'debian.json'), JSON.stringify({ ...image, ...more }))
    }
    test('has its image', async () => {
      keep()
      assert.deepEqual(await of(byImage()), { name, is: 'absent', from: 'store' })
    })
    test('has it in another format', async () => {
      keep({ format: 'qcow2' })
      assert.equal((await of(byImage())).from, undefined)
    })
    test('has it no more: that is no obstacle', async () =>
      assert.deepEqual(await of(byImage()), { name, is: 'absent', why: 'the image is not in the store' }))
    test('has another file in its place', async () => {
      keep()
      appendFileSync(join(store, 'debian.raw'), 'x')
      const { is, from, why } = await of(byImage())
      assert.deepEqual([is, from, /was replaced/.test(why ?? '')], ['absent', undefined, true])
    })
    test('has an image of its name: only the content can tell, once the base is made', async () => {
      keep()
      assert.equal((await of({ content })).from, 'store')
      assert.equal((await of({})).from, undefined)
    })
    test('is out of reach: that is no obstacle', async () => {
      caller.environment = { OS_AUTH_URL: 'http://127.0.0.1:1/v3', OS_TOKEN: 'x', OS_AUTH_TYPE: 'token' }
      const { is, from, why } = await of(byImage(), { store: 'glance' })
      caller.environment = {}
      assert.deepEqual([is, from, typeof why], ['absent', undefined, 'string'])
    })
    test('is Glance, and has it: so much is to fetch', async () => {
      const id = '00000000-0000-4000-8000-000000000001'
      const { glanceImage, sha512 } = await import('./cloud-stub.ts')
      await using cloud = await cloudStub({ images: [glanceImage(1)] })
      caller.environment = cloud.environment
      const its = { digest: `sha512:${sha512(Buffer.alloc(512))}`, format: 'raw' }
      const { store } = settingsWith({})
      const told = await of(its, { store }, await baseName(id))
      caller.environment = {}
      assert.deepEqual([told.is, told.from, told.fetch], ['absent', 'store', 512])
    })
  })

  test('a sized base and its unsized one are asked for both, each once', async () => {
    have()
    const identity = { content }
    const sized = { name: `${name}_20`, size: 20 * M, allocated: M, identity }
    const disk = { format: 'qcow2', virtualSize: 20 * M, allocated: M } as const
    const { bases } = await answer({
      disks: [
        { file: 'disk', ...disk, base: { ...sized, unsized: { name, is: 'equal' } } },
        { file: 'disk.local', ...disk, base: { ...sized, unsized: { name, is: 'equal' } } },
      ],
    })
    assert.deepEqual(
      bases.flatMap(({ name: its, is }) => (its.startsWith(name) && !its.includes('.') ? [`${its} ${is}`] : [])),
      [`${name}_20 absent`, `${name} equal`],
    )
  })
})

describe('what is told of a base, and what follows from it', () => {
  const stamp = '1.2.3'
  const made = {
    version: 1,
    id: 'i',
    digest: `sha256:${'a'.repeat(64)}`,
    format: 'qcow2',
    packing: 'xz',
    stamp,
  } as const
  const its = { digest: 'content-sha256:b', stamp, proven: true }
  const rows: [what: string, record: Parameters<typeof identityOf>[0], told: string[]][] = [
    ['made here', made, ['id', 'digest', 'format', 'packing']],
    ['measured', { ...made, content: its }, ['id', 'digest', 'format', 'packing', 'content', 'proven']],
    ['of another tool', { ...made, adopted: true }, ['id']],
    [
      'of another tool, and proven',
      { ...made, adopted: true, content: its },
      [...['id', 'digest', 'format', 'packing', 'content', 'proven']],
    ],
    ['written to since', { ...made, stamp: '1', content: { ...its, stamp: '1' } }, ['id']],
    ['in quarantine', { ...made, quarantined: { since: '', why: '' } }, []],
    ['unknown', undefined, []],
  ]
  for (const [what, of, told] of rows)
    test(what, () => assert.deepEqual(Object.keys(identityOf(of, stamp)).sort(), [...told].sort()))

  const image = { digest: made.digest, format: 'qcow2' }
  const pairs: [what: string, one: BaseIdentity, other: BaseIdentity, same: boolean | undefined][] = [
    ['nothing is known', {}, {}, undefined],
    ['the same content', { content: 'a' }, { content: 'a' }, true],
    ['another content of the same image', { ...image, content: 'a' }, { ...image, content: 'b' }, false],
    ['the same image', image, { ...image, content: 'a' }, true],
    ['the same image, packed otherwise', image, { ...image, packing: 'xz' }, undefined],
    ['the same bytes, in another format', image, { ...image, format: 'raw' }, undefined],
    ['another image', image, { ...image, digest: `sha256:${'b'.repeat(64)}` }, undefined],
    ['a digest that can be forged', { digest: 'md5:a' }, { digest: 'md5:a' }, undefined],
  ]
  for (const [what, one, other, same] of pairs)
    test(what, () => {
      assert.equal(sameContent(one, other), same)
      assert.equal(sameContent(other, one), same)
    })
})

describe('room', () => {
  const disk = { file: 'disk', format: 'qcow2', size: 8 * M, reason: '' } as const
  const its = { name: 'b', size: 4 * M, allocated: 3 * M, identity: {} } as const
  const rows: [what: string, ways: Parameters<typeof requireRoom>[0]['ways'], need: number][] = [
    ['a delta on a base that is here', [{ ...disk, way: 'delta', send: M, base: { ...its, from: 'cache' } }], M],
    ['with its base', [{ ...disk, way: 'delta', send: M, base: { ...its, from: 'source' } }], 4 * M],
    [
      'two on one base',
      [
        { ...disk, way: 'delta', send: M, base: { ...its, from: 'store' } },
        { ...disk, way: 'delta', send: M, base: { ...its, from: 'store' } },
      ],
      5 * M,
    ],
    ['one that is made', [{ ...disk, way: 'new', send: 0 }], 0],
  ]
  for (const [what, ways, need] of rows)
    test(what, () => {
      requireRoom({ ways }, need, '/i')
      if (need === 0) return
      const short = (here = 0) => requireRoom({ ways }, need - 1, '/i', here)
      assert.throws(short, (error) => error instanceof Problem && error.code === 'NO_SPACE')
      short(1)
    })
})
