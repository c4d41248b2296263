import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, describe, test } from 'node:test'
import { fileAt } from '../../lib/host/files.ts'
import { Effects } from '../../lib/host/perform.ts'
import { contentDigest } from '../../lib/image/content.ts'
import type { Qcow2Header } from '../../lib/image/qcow2.ts'
import { sayAction } from '../../lib/job/action.ts'
import { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { growDisk } from '../../scripts/steps/grow-disk.ts'
import { prepareCopy } from '../../scripts/steps/prepare-copy.ts'
import { rebaseDisk } from '../../scripts/steps/rebase-disk.ts'
import { plans } from './plans.ts'

// The steps that change what a disk is made of, and not what its guest sees of it.

const [M, G] = [2 ** 20, 2 ** 30]
const header: Qcow2Header = {
  version: 3,
  virtualSize: 10 * G,
  clusterSize: 65536,
  backing: '/old/_base/b',
  backingFormat: 'raw',
  dataFile: false,
  encrypted: false,
  dirty: false,
  extendedL2: false,
  compression: 'zlib',
  snapshots: 0,
}
const base = { size: 2 * G, allocated: G, stamp: 's', record: undefined }
const point = ['point /i/vm1/disk to /i/_base/b']

plans(
  rebaseDisk,
  { disk: '/i/vm1/disk', base: '/i/_base/b', identity: { content: 'content-sha256:1' } },
  { disk: header, base, isSame: true, isDiskComing: false, isBaseComing: false },
  [
    { name: 'it names a base of another host', then: point },
    { name: 'it names it already', found: { disk: { ...header, backing: '/i/_base/b' } }, then: [] },
    {
      name: 'it names it, and does not say that it is raw: qemu would guess',
      found: { disk: { ...header, backing: '/i/_base/b', backingFormat: undefined } as never },
      then: point,
    },
    { name: 'the base is another one (S75)', found: { isSame: false }, then: 'BASE_DIFFERS' },
    {
      name: 'the base is another one, and it names it already',
      found: { isSame: false, disk: { ...header, backing: '/i/_base/b' } },
      then: 'BASE_DIFFERS',
    },
    { name: 'nothing proves what the base is (S75)', found: { isSame: undefined }, then: 'BASE_UNPROVEN' },
    { name: 'there is no base', found: { base: undefined }, then: 'MISSING_PREREQUISITE' },
    { name: 'the base is made by a step before', found: { base: undefined, isBaseComing: true }, then: point },
    { name: 'there is no disk', found: { disk: undefined }, then: 'MISSING_PREREQUISITE' },
    { name: 'the disk comes with a step before', found: { disk: undefined, isDiskComing: true }, then: point },
    { name: 'the disk is raw', found: { disk: 'raw' }, then: 'NOT_OURS' },
  ],
)

plans(
  growDisk,
  { disk: '/i/vm1/disk', format: 'qcow2', size: '20G' },
  { size: 10 * G, backing: '/i/_base/b' as string | undefined, bases: '/i/_base', isForeign: false, isComing: false },
  [
    { name: 'it is smaller', then: ['grow /i/vm1/disk to 20G'] },
    { name: 'it stands on nothing', found: { backing: undefined }, then: ['grow /i/vm1/disk to 20G'] },
    { name: 'it has that size', found: { size: 20 * G }, then: [] },
    { name: 'it is larger', found: { size: 30 * G }, then: 'DISK_TOO_SMALL' },
    { name: 'it stands on what is not ours', found: { backing: '/etc/shadow' }, then: 'NOT_OURS' },
    { name: 'it stands on what only looks like ours', found: { backing: '/i/_base/../x' }, then: 'NOT_OURS' },
    { name: 'it is no qcow2', found: { size: undefined, isForeign: true }, then: 'NOT_OURS' },
    { name: 'there is none', found: { size: undefined }, then: 'MISSING_PREREQUISITE' },
    {
      name: 'it comes with a step before',
      found: { size: undefined, isComing: true },
      then: ['grow /i/vm1/disk to 20G'],
    },
  ],
)

const kept = '/i/vm1_resize'
const part = `${kept}/send/disk.part`
const copied = [
  `mkdir ${kept}/send`,
  `cp --reflink=auto --sparse=always --no-preserve=mode -- ${kept}/disk ${part}`,
  `shift ${part} from /i/_base/b_10 to /i/_base/b`,
  `publish ${part} ${kept}/send/disk`,
]
const merged = [
  `mkdir ${kept}/send`,
  `flatten ${kept}/disk ${part} (with /i/_base/b_10)`,
  `publish ${part} ${kept}/send/disk`,
]
const onto = { path: '/i/_base/b', file: base }
plans(
  prepareCopy,
  { directory: kept, file: 'disk', 'rebase-first': 'b' },
  {
    overlay: { virtualSize: 10 * G, base: '/i/_base/b_10' },
    allocated: G,
    onto,
    copy: undefined,
    part: undefined,
    free: 2 * G,
  },
  [
    { name: 'it is put on a shorter base', then: copied },
    { name: 'a copy was cut off', found: { part: base }, then: copied },
    { name: 'a copy is there', found: { copy: { ...header, backing: '/i/_base/b' } }, then: [] },
    {
      name: 'a copy is there, and the rest of an earlier one',
      found: { copy: { ...header, backing: '/i/_base/b' }, part: base },
      then: [`remove ${part}`],
    },
    { name: 'another copy is there, for another plan', found: { copy: header }, then: copied },
    { name: 'it is merged', input: { 'rebase-first': undefined }, found: { onto: undefined }, then: merged },
    {
      name: 'it is merged already',
      found: { onto: undefined, copy: { ...header, backing: undefined } as never },
      then: [],
    },
    { name: 'the shorter base is gone', found: { onto: { ...onto, file: undefined } }, then: 'MISSING_PREREQUISITE' },
    {
      name: 'the guest still runs, and it has another name',
      found: { overlay: undefined },
      then: 'MISSING_PREREQUISITE',
    },
    { name: 'there is no room', found: { free: 512 * M }, then: 'NO_SPACE' },
  ],
)

describe('done for real', () => {
  const dir = mkdtempSync(join(tmpdir(), 'cowhand-steps-'))
  after(() => rmSync(dir, { recursive: true }))
  const settings = Settings.parse({ instances: dir, store: `dir:${dir}` })
  const sha1 = 'c'.repeat(40)
  const [small, sized, kept] = [join(dir, '_base', sha1), join(dir, '_base', `${sha1}_1`), join(dir, 'vm1_resize')]
  const run = (...argv: string[]) => execFileSync(argv[0] ?? '', argv.slice(1), { stdio: 'pipe' })
  const seen = (overlay: string) => {
    run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', overlay, join(dir, 'seen'))
    return readFileSync(join(dir, 'seen'))
  }
  beforeEach(() => {
    for (const path of [join(dir, '_base'), kept]) {
      rmSync(path, { recursive: true, force: true })
      mkdirSync(path)
    }
    writeFileSync(small, Buffer.alloc(4 * M, 'some data. '))
    copyFileSync(small, sized)
    writeFileSync(sized, 'a file system that was grown', { flag: 'r+' })
    truncateSync(sized, 8 * M)
    run('qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', sized, join(kept, 'disk'), '8M')
    run('qemu-io', '-f', 'qcow2', '-c', 'write -P 1 6M 64k', join(kept, 'disk'))
    chmodSync(join(kept, 'disk'), 0o600)
    writeFileSync(join(kept, 'disk.info'), JSON.stringify({ '/i/vm1/disk': 'qcow2' }))
  })
  const effects = () => new Effects(() => {}, new AbortController().signal, settings)
  const actionsOf = async ({ step, input }: Call) =>
    step.plan(input as never, await step.inspect(input as never, settings, new Set()))
  const does = async (one: Call) => {
    const effect = effects()
    for (const action of await actionsOf(one)) await effect.perform(action)
    assert.deepEqual(await actionsOf(one), [])
  }

  for (const [what, rebase] of [
    ['merged', undefined],
    ['put on the shorter base', sha1],
  ] as const)
    test(`a copy is ${what}, and the disk is as it was`, async () => {
      const [disk, copy] = [join(kept, 'disk'), join(kept, 'send/disk')]
      const [expected, bytes, facts] = [seen(disk), readFileSync(disk), fileAt(disk)]
      await does(call(prepareCopy, { directory: kept, file: 'disk', 'rebase-first': rebase }))
      assert.deepEqual(seen(copy), expected)
      assert.deepEqual([readFileSync(disk), fileAt(disk)], [bytes, facts])
      assert.deepEqual([statSync(copy).mode & 0o777, statSync(join(kept, 'send')).mode & 0o777], [0o600, 0o700])
      assert.deepEqual([statSync(copy).uid, statSync(disk).uid, existsSync(`${copy}.part`)], [0, 0, false])

      // On the other host it is put on the base that it has there, and grown.
      mkdirSync(join(dir, 'vm1.incoming'), { recursive: true })
      const arrived = join(dir, 'vm1.incoming/disk')
      copyFileSync(copy, arrived)
      if (rebase) {
        run('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', '/elsewhere/_base/x', arrived)
        const identity = { content: await contentDigest(small) }
        await does(call(rebaseDisk, { disk: arrived, base: small, identity }))
        const other = { content: `content-sha256:${'0'.repeat(64)}` }
        const asked = actionsOf(call(rebaseDisk, { disk: arrived, base: small, identity: other }))
        await assert.rejects(asked, { code: 'BASE_DIFFERS' })
        const blind = actionsOf(call(rebaseDisk, { disk: arrived, base: small, identity: {} }))
        await assert.rejects(blind, { code: 'BASE_UNPROVEN' })
      }
      await does(call(growDisk, { disk: arrived, format: 'qcow2', size: 16 * M }))
      assert.deepEqual(seen(arrived), Buffer.concat([expected, Buffer.alloc(8 * M)]))
    })

  test('a copy that was cut off in any action is made anew', async () => {
    const one = call(prepareCopy, { directory: kept, file: 'disk', 'rebase-first': sha1 })
    const expected = seen(join(kept, 'disk'))
    const actions = await actionsOf(one)
    for (let done = 0; done < actions.length; done++) {
      rmSync(join(kept, 'send'), { recursive: true, force: true })
      const effect = effects()
      for (const action of actions.slice(0, done)) await effect.perform(action)
      await does(one)
      assert.deepEqual(seen(join(kept, 'send/disk')), expected, sayAction(actions[done] ?? assert.fail()))
    }
  })
})
