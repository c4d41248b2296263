import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { baseName, kindOfBase } from '../../lib/job/layout.ts'
import type { AnsweredBase, OfferedBase, OfferedDisk } from '../../lib/job/move.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { agreementOf, nameOfContent, totals, unmeasured, type WayOptions, waysOf } from '../../lib/job/ways.ts'

// What becomes of each disk, for what the two hosts have: a row is a case.

const [M, G] = [2 ** 20, 2 ** 30]
const sha1 = 'a'.repeat(40)
const short = 'aaaaaaaaaaaa…'
const digest = `sha256:${'1'.repeat(64)}`
const content = `content-sha256:${'2'.repeat(64)}`
const other = `content-sha256:${'3'.repeat(64)}`
const renamed = nameOfContent(sha1, content)
const renamedShort = `${renamed.slice(0, 12)}…`

const base: OfferedBase = { name: sha1, size: 2 * G, allocated: 700 * M, identity: { digest, format: 'qcow2' } }
const measured: OfferedBase = { ...base, identity: { content } }
const sized: OfferedBase = { ...base, name: `${sha1}_10`, size: 10 * G, allocated: 720 * M, identity: { content } }
const here = { name: sha1, size: 2 * G, allocated: 700 * M }
const like = (is: 'equal' | 'differs'): OfferedBase => {
  return { ...sized, unsized: { ...here, is, identity: { content: is === 'equal' ? content : other, id: 'img' } } }
}
const ephemeralBase: OfferedBase = {
  name: 'ephemeral_0_5_linux',
  size: 5 * G,
  allocated: 5 * M,
  identity: { content, deterministic: true },
}
const root: OfferedDisk = { file: 'disk', format: 'qcow2', virtualSize: 10 * G, allocated: 309 * M, base }
const on = (base: OfferedBase): OfferedDisk => ({ ...root, base })
const local: OfferedDisk = { ...root, file: 'disk.local', virtualSize: 5 * G, allocated: 9 * M, base: ephemeralBase }
const swap: OfferedDisk = { file: 'disk.swap', format: 'qcow2', virtualSize: G, allocated: 50 * M }
const is = (is: AnsweredBase['is'], name = sha1, more: Partial<AnsweredBase> = {}): AnsweredBase => ({
  name,
  is,
  ...(is === 'equal' ? { size: 2 * G } : {}),
  ...more,
})

interface Row {
  when: string
  disk: OfferedDisk
  answer?: AnsweredBase[]
  options?: Partial<WayOptions>
  kind?: 'migrate'
  /** Way, size in GiB, MiB to be sent; what it stands on, where that comes from, and as what it is sent. */
  then: [way: string, size: number, send: number, stands?: string] | Code
  why?: string
}

const rows: Row[] = [
  {
    when: "the destination has the base, by its image's digest",
    disk: root,
    answer: [is('equal')],
    then: ['delta', 20, 309, `${sha1} cache`],
    why: `only the overlay travels (309M), base ${short} is there already, proven by its image's digest`,
  },
  {
    when: 'the destination has the base, by its content',
    disk: on(measured),
    answer: [is('equal')],
    then: ['delta', 20, 309, `${sha1} cache`],
    why: `only the overlay travels (309M), base ${short} is there already, proven by its content`,
  },
  {
    when: 'it has none, and its store has the image',
    disk: root,
    answer: [is('absent', sha1, { from: 'store', fetch: 600 * M })],
    then: ['delta', 20, 309, `${sha1} store`],
    why: `only the overlay travels (309M), base ${short} comes from the image store there (600M)`,
  },
  {
    when: 'it has none, and the image is deleted',
    disk: root,
    answer: [is('absent', sha1, { why: 'the image is not in the store' })],
    then: ['delta', 20, 309, `${sha1} source ${sha1}`],
    why: `the overlay travels (309M), and base ${short} (700M): it is not there, and the image is not in the store`,
  },
  { when: 'it says nothing of the base', disk: root, then: ['delta', 20, 309, `${sha1} source ${sha1}`] },
  {
    when: 'it has another of that name',
    disk: on(measured),
    answer: [is('differs')],
    then: ['delta', 20, 309, `${renamed} source ${sha1}`],
    why: `the overlay travels (309M), and base ${short} (700M), as ${renamedShort}: another one has its name there`,
  },
  {
    when: 'it has another of that name, though it could get the right one',
    disk: on(measured),
    answer: [is('differs', sha1, { from: 'store' })],
    then: ['delta', 20, 309, `${renamed} source ${sha1}`],
  },
  {
    when: 'it has another of that name, and has got this one before',
    disk: on(measured),
    answer: [is('differs'), is('equal', renamed)],
    then: ['delta', 20, 309, `${renamed} cache`],
  },
  {
    when: 'it cannot tell what its base is, and the source did not read its one',
    disk: root,
    answer: [is('unproven')],
    then: ['flat', 20, 1009],
    why: `merged with its base ${short}, of which the destination has another, and then the whole travels (at most 1009M)`,
  },
  {
    when: 'it is to be merged',
    disk: root,
    answer: [is('equal')],
    options: { flatten: true },
    then: ['flat', 20, 1009],
    why: 'merged with its base, and then the whole travels (at most 1009M), as asked',
  },
  {
    when: 'a small disk is to be merged: it cannot have more than its guest sees',
    disk: { ...root, virtualSize: 400 * M },
    options: { flatten: true },
    then: ['flat', 20, 401],
  },
  {
    when: 'it is raw',
    disk: { file: 'disk', format: 'raw', virtualSize: 10 * G, allocated: 3 * G },
    options: { flatten: true },
    then: ['whole', 20, 3072],
    why: 'the whole file travels (3G): it is raw',
  },
  {
    when: 'it stands on nothing',
    disk: { file: 'disk', format: 'qcow2', virtualSize: 10 * G, allocated: 3 * G },
    then: ['whole', 20, 3072],
    why: 'the whole file travels (3G): it stands on no base',
  },

  // Overlays on larger copies of bases, as old drivers made them.
  {
    when: 'it stands on a copy of a base that the destination has',
    disk: on(like('equal')),
    answer: [is('equal'), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sha1} cache`],
    why: `only the overlay travels (309M), base ${short}, of which ${short}_10 is a copy with zeros behind it, is there already, proven by its content`,
  },
  {
    when: 'the destination has the copy only',
    disk: on(like('equal')),
    answer: [is('absent', sha1, { from: 'store' }), is('equal', sized.name)],
    then: ['delta', 20, 309, `${sized.name} cache`],
  },
  {
    when: 'it has neither, and its store has the image',
    disk: on(like('equal')),
    answer: [is('absent', sha1, { from: 'store' }), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sha1} store`],
  },
  {
    when: 'it has neither: the smaller one is sent',
    disk: on(like('equal')),
    answer: [is('absent'), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sha1} source ${sha1}`],
  },
  {
    when: 'it has neither, and the source has the copy only',
    disk: on({ ...sized, unsized: { name: sha1, is: 'equal' } }),
    answer: [is('absent'), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sized.name} source ${sized.name}`],
  },
  {
    when: 'the source has the copy only, and the destination the same without it',
    disk: on({ ...sized, unsized: { name: sha1, is: 'unknown' } }),
    answer: [is('equal'), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sha1} cache`],
  },
  {
    when: 'the source has the copy only, and the destination another one without it',
    disk: on({ ...sized, unsized: { name: sha1, is: 'unknown' } }),
    answer: [is('differs'), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sized.name} source ${sized.name}`],
  },
  {
    when: 'the source has the copy only, in which a file system may have been grown: no image is fetched in vain',
    disk: on({ ...sized, unsized: { name: sha1, is: 'unknown' } }),
    answer: [is('absent', sha1, { from: 'store' }), is('absent', sized.name)],
    then: ['delta', 20, 309, `${sized.name} source ${sized.name}`],
  },
  {
    when: 'a file system was grown in the copy, and the destination has the base',
    disk: on(like('differs')),
    answer: [is('equal'), is('absent', sized.name)],
    then: ['delta', 20, 1029, `${sha1} cache, rebased`],
    why: `only the overlay travels (at most 1G), what base ${short}_10 has besides is copied into it first; base ${short} is there already, proven by its content`,
  },
  {
    when: 'a file system was grown in the copy, and the destination has neither',
    disk: on(like('differs')),
    answer: [is('absent'), is('absent', sized.name)],
    then: ['delta', 20, 1029, `${sha1} source ${sha1}, rebased`],
  },
  {
    when: 'a file system was grown in the copy, and the destination has just that',
    disk: on(like('differs')),
    answer: [is('equal'), is('equal', sized.name)],
    then: ['delta', 20, 309, `${sized.name} cache`],
  },
  {
    when: 'a file system was grown in the copy, and the base has another under its name',
    disk: on(like('differs')),
    answer: [is('differs'), is('absent', sized.name)],
    then: ['delta', 20, 1029, `${nameOfContent(sha1, other)} source ${sha1}, rebased`],
  },

  // Ephemeral disks and swap.
  {
    when: 'the destination can make the empty file system',
    disk: local,
    answer: [is('absent', ephemeralBase.name, { from: 'maker' })],
    options: { ephemeral: 8 * G },
    then: ['delta', 8, 9, `${ephemeralBase.name} maker`],
    why: `only the overlay travels (9M), base ${ephemeralBase.name} is made there, and its content compared`,
  },
  {
    when: 'the destination would make another one',
    disk: { ...local, base: { ...ephemeralBase, identity: { content } } },
    answer: [is('absent', ephemeralBase.name, { from: 'maker' })],
    then: ['delta', 5, 9, `${ephemeralBase.name} source ${ephemeralBase.name}`],
  },
  {
    when: 'the destination would make one with another name',
    disk: { ...local, base: { ...ephemeralBase, name: 'ephemeral_0_5_linux_xfs' } },
    answer: [is('absent', 'ephemeral_0_5_linux_xfs', { from: 'maker' })],
    then: ['delta', 5, 9, 'ephemeral_0_5_linux_xfs source ephemeral_0_5_linux_xfs'],
  },
  {
    when: 'the destination has made another one',
    disk: local,
    answer: [is('differs', ephemeralBase.name)],
    then: ['delta', 5, 9, `ephemeral_0_5_linux_222222222222 source ${ephemeralBase.name}`],
  },
  {
    when: 'the ephemeral disk is to be empty, and may be smaller then',
    disk: local,
    options: { ephemeralPolicy: 'recreate', ephemeral: 2 * G },
    then: ['new', 2, 0],
    why: 'made anew there, empty, as asked: nothing travels',
  },
  {
    when: 'no ephemeral disk is to be moved',
    disk: local,
    options: { ephemeralPolicy: 'refuse' },
    then: 'UNSUPPORTED',
  },
  { when: 'swap', disk: swap, then: ['new', 1, 0], why: 'made anew there, nothing travels' },
  { when: 'swap becomes smaller', disk: swap, options: { swap: 512 * M }, then: ['new', 0.5, 0] },
  {
    when: 'swap is raw, and all is merged',
    disk: { ...swap, format: 'raw' },
    options: { flatten: true },
    then: ['new', 1, 0],
  },

  // Sizes.
  { when: 'a disk that is to shrink', disk: root, options: { root: 9 * G }, then: 'DISK_TOO_SMALL' },
  {
    when: 'a raw disk that is to shrink',
    disk: { ...root, format: 'raw' },
    options: { root: 9 * G },
    then: 'DISK_TOO_SMALL',
  },
  { when: 'an ephemeral disk that is to shrink', disk: local, options: { ephemeral: 4 * G }, then: 'DISK_TOO_SMALL' },
  {
    when: 'a disk that was grown since',
    disk: root,
    options: { root: 9 * G },
    answer: [is('equal')],
    kind: 'migrate',
    then: ['delta', 10, 309, `${sha1} cache`],
  },
  {
    when: 'an ephemeral disk of which nothing is asked',
    disk: local,
    answer: [is('equal', ephemeralBase.name)],
    then: ['delta', 5, 9, `${ephemeralBase.name} cache`],
  },
]

const record = {
  version: 1 as const,
  name: 'web1',
  uuid: '11111111-2222-4333-8444-555555555555',
  image: { id: 'img', name: 'debian' },
  root: 10 * G,
  'os-type': 'linux' as const,
}

describe('a disk goes its way', () => {
  for (const { when, disk, answer = [], options, kind = 'resize', then, why } of rows)
    test(when, () => {
      const ways = () =>
        waysOf(
          { name: 'web1', kind, record, disks: [disk] },
          { bases: answer },
          { flatten: false, ephemeralPolicy: 'copy', root: 20 * G, ...options },
        )
      if (typeof then === 'string') {
        assert.throws(ways, (error) => error instanceof Problem && error.code === then && error.remedy.length > 0)
        return
      }
      const [way] = ways()
      assert.ok(way)
      const { base, rebaseFirst } = way
      const stands =
        base && [base.name, base.from, base.sends].filter(Boolean).join(' ') + (rebaseFirst ? ', rebased' : '')
      assert.deepEqual([way.way, way.size / G, Math.round(way.send / M), ...(stands ? [stands] : [])], then)
      if (rebaseFirst) assert.equal(rebaseFirst, sha1)
      if (why !== undefined) assert.equal(way.reason, why)
    })
})

test('a base that is sent beside another one has the name of its content', async () => {
  assert.equal(renamed, await baseName(content))
  assert.equal(nameOfContent(`${sha1}_10`, content), renamed)
  assert.equal(kindOfBase(renamed), 'image')
  const ephemeral = nameOfContent('ephemeral_0_5_linux', content)
  assert.equal(kindOfBase(ephemeral), 'ephemeral')
  assert.equal(nameOfContent(ephemeral, content), ephemeral)
})

test('a base is read on the source where the destination cannot compare it, or has another', () => {
  const asks = (disk: OfferedDisk, ...bases: AnsweredBase[]) => unmeasured({ disks: [disk] }, { bases }).length > 0
  assert.equal(asks(root, is('unproven')), true)
  assert.equal(asks(root, is('differs')), true)
  assert.equal(asks(root, is('equal')), false)
  assert.equal(asks(root, is('absent')), false)
  assert.equal(asks(on(measured), is('differs')), false)
  assert.equal(asks(swap), false)
})

test('what it takes: two disks may stand on one base, and swap takes next to nothing', () => {
  const disks = [root, { ...local, base }, swap]
  const options = { flatten: false, ephemeralPolicy: 'copy', root: 20 * G } as const
  const sum = (answer: AnsweredBase[]) =>
    totals({ ways: waysOf({ name: 'web1', kind: 'resize', record, disks }, { bases: answer }, options) }, 100 * M)
  const [cached, sent, fetched] = [[is('equal')], [is('absent')], [is('absent', sha1, { from: 'store' })]].map(sum)
  assert.deepEqual([cached?.send, sent?.send, fetched?.send], [318 * M, 1018 * M, 318 * M])
  const swapSpace = 2 ** 18 + G / 2 ** 13
  assert.deepEqual(
    [cached?.space, sent?.space, fetched?.space],
    [318, 1018, 1018].map((size) => size * M + swapSpace),
  )
  assert.equal(sent?.words(5 * G), '1018M to send at most, about 11 s at 100M/s; 1018.4M to allocate of 5G free')
})

describe('what both halves agree on', () => {
  const options = { flatten: false, ephemeralPolicy: 'copy', root: 20 * G } as const
  const offer = { name: 'web1', kind: 'resize', record, disks: [on(measured)] } as const
  const ordered = (answer: AnsweredBase[], more: Partial<WayOptions> = {}) => ({
    move: '11111111-2222-4333-8444-555555555555',
    shared: false,
    growFs: true,
    ways: waysOf({ ...offer, disks: [on(measured)] }, { bases: answer }, { ...options, ...more }),
  })
  const usual = ordered([is('absent')])
  for (const [what, order, isSame] of [
    ['the same', ordered([is('absent')]), true],
    ['the base has come since: where it is from is of no matter', ordered([is('equal')]), true],
    ['another size', ordered([is('absent')], { root: 21 * G }), false],
    ['another way', ordered([is('absent')], { flatten: true }), false],
    ['another base', ordered([is('differs')]), false],
    ['another move', { ...usual, move: '99999999-2222-4333-8444-555555555555' }, false],
    ['its file system is not to be grown', { ...usual, growFs: false }, false],
    ['both see the same files', { ...usual, shared: true }, false],
  ] as const)
    test(what, () => assert.equal(agreementOf(order) === agreementOf(usual), isSame))
})
