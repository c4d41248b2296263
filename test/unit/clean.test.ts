import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type CachedBase, type CleanWish, decideCleaning, inLockOrder, type Leftover } from '../../lib/job/clean.ts'
import { kindOfBase } from '../../lib/job/layout.ts'
import { cleanBases } from '../../scripts/steps/clean-bases.ts'
import { noteBases } from '../../scripts/steps/note-bases.ts'
import { plans } from './plans.ts'

const now = Date.parse('2025-01-31T12:00:00Z')
const GiB = 2 ** 30
const image = 'a'.repeat(40)
const second = 'b'.repeat(40)
const hours = (count: number): number => now - count * 3_600_000

/** A base of 1 GiB that was last needed so many hours ago; `undefined`: it has no record. */
const base = (name: string, age: number | undefined, more: Partial<CachedBase> = {}): CachedBase => ({
  path: `/i/_base/${name}`,
  name,
  kind: kindOfBase(name),
  size: 2 * GiB,
  allocated: GiB,
  modified: hours(1000),
  users: [],
  ...(age === undefined ? {} : { usedAt: hours(age) }),
  ...more,
})
const leftover = (name: string, age: number): Leftover => ({
  path: `/i/_base/${name}`,
  allocated: GiB,
  modified: hours(age),
})

interface Case {
  bases?: CachedBase[]
  leftovers?: Leftover[]
  free?: number
  wish?: Partial<CleanWish>
  then: { gone?: string[]; used?: string[]; adopted?: string[]; warns?: RegExp }
}
const used = { users: ['web1/disk'] }
const cases: Record<string, Case> = {
  'nothing is there': { then: {} },
  'a base that was not needed for long enough goes': { bases: [base(image, 24)], then: { gone: [image] } },
  'a base that was needed not long ago stays': { bases: [base(image, 23.9)], then: {} },
  'a base that is needed stays, however old the note of it, which is renewed': {
    bases: [base(image, 1000, used)],
    then: { used: [image] },
  },
  'a note of use that is a few minutes old is good enough': { bases: [base(image, 0.1, used)], then: {} },
  'a base that is copied or made again in a moment goes after an hour': {
    bases: [base(`${image}_20`, 1), base('ephemeral_0_10_linux', 1), base('swap_512', 1), base('swap_256', 0.9)],
    then: { gone: [`${image}_20`, 'ephemeral_0_10_linux', 'swap_512'] },
  },
  'a copy that is needed does not keep what it was copied from': {
    bases: [base(image, 24), base(`${image}_20`, 0.1, used)],
    then: { gone: [image] },
  },
  'the time can be shorter': { bases: [base(image, 0)], wish: { 'unused-for': 0 }, then: { gone: [image] } },
  'the time can be longer': { bases: [base(image, 100)], wish: { 'unused-for': 604_800 }, then: {} },
  'without a record, its time begins now': { bases: [base(image, undefined)], then: { adopted: [image] } },
  'without a record and needed, it gets one too': { bases: [base(image, undefined, used)], then: { adopted: [image] } },
  'without a record, and written to just now: another tool may still be making it': {
    bases: [base(image, undefined, { modified: hours(0.5) })],
    then: {},
  },
  'what is in quarantine stays': { bases: [base(image, 1000, { isQuarantined: true })], then: {} },
  "what has no name of a base is somebody's": { bases: [base('mine.img', 1000), base('mine', undefined)], then: {} },
  'a clock that was put back makes nothing old': { bases: [base(image, -1000)], then: {} },
  'leftovers go after a day, records without a base at once': {
    leftovers: [
      leftover(`${image}.part`, 24),
      leftover(`${image}.converted`, 25),
      leftover(`${image}.unpacked`, 23),
      leftover(`${second}.part`, 1),
      leftover(`${second}.json`, 0),
      leftover(`${second}.json.part`, 0),
    ],
    then: { gone: [`${image}.part`, `${image}.converted`, `${second}.json`, `${second}.json.part`] },
  },
  'too large: sized ones go first, then made ones, then those not needed for longest, and no more than that': {
    bases: [
      base('c'.repeat(40), 3),
      base(second, 5),
      base(image, 4),
      base('swap_512', 0.2),
      base(`${image}_20`, 0.1),
      base('d'.repeat(40), 20, used),
    ],
    wish: { 'max-size': 3 * GiB },
    then: { gone: [`${image}_20`, 'swap_512', second], used: ['d'.repeat(40)] },
  },
  'too large, but what is old is enough': {
    bases: [base(image, 24), base(second, 1)],
    wish: { 'max-size': GiB },
    then: { gone: [image] },
  },
  'too large, and all is needed or in quarantine': {
    bases: [base(image, 0, used), base(second, 30, { isQuarantined: true }), base('swap_512', 0)],
    wish: { 'max-size': GiB },
    then: { gone: ['swap_512'], warns: /^--max-size 1G is missed by 1G: / },
  },
  'too little is free': {
    bases: [base(image, 2), base(second, 3)],
    free: GiB,
    wish: { 'keep-free': 2 * GiB },
    then: { gone: [second] },
  },
  'too little is free, whatever goes': {
    bases: [base(image, 2)],
    free: GiB,
    wish: { 'keep-free': 5 * GiB, 'max-size': 100 * GiB },
    then: { gone: [image], warns: /^--max-size 100G and --keep-free 5G is missed by 3G: / },
  },
}

describe('what is cleaned', () => {
  for (const [name, { bases = [], leftovers = [], free = 100 * GiB, wish = {}, then }] of Object.entries(cases))
    test(name, () => {
      const facts = { now, free, bases, leftovers, quarantined: [] }
      const found = decideCleaning(facts, { 'unused-for': 86_400, ...wish })
      const names = (paths: string[]) => paths.map((path) => path.slice('/i/_base/'.length))
      assert.deepEqual(names([...found.bases, ...found.leftovers]), then.gone ?? [])
      assert.deepEqual([names(found.used), names(found.adopted)], [then.used ?? [], then.adopted ?? []])
      if (then.warns) assert.match(found.warnings.join('\n'), then.warns)
      else assert.deepEqual(found.warnings, [])
    })
})

test('locks are taken as create takes them: images, copies of them, ephemeral disks, swap', () =>
  assert.deepEqual(
    inLockOrder(['/i/_base/swap_1', '/i/_base/ephemeral_0_1_linux', `/i/_base/f_20`, '/i/_base/f.part', '/i/_base/f']),
    ['f', 'f_20', 'ephemeral_0_1_linux', 'swap_1'],
  ))

const path = `/i/_base/${image}`
const file = { size: 2 * GiB, allocated: GiB, stamp: 'now' }
const doubt = { path: '/i/web1/disk', state: 'its header is absurd', remedy: 'look at it' }
plans(
  cleanBases,
  { bases: [path] },
  { bases: [{ base: path, file, hasRecord: true, unused: 90_000 }], users: new Map(), doubts: [], leftovers: [] },
  [
    { name: 'nobody needs it', then: [`remove ${path} (unused for 1 d)`, `remove ${path}.json`] },
    {
      name: 'nobody needs it, and it has no record',
      found: { bases: [{ base: path, file, hasRecord: false, unused: undefined }] },
      then: [`remove ${path} (nobody needs it)`],
    },
    { name: 'somebody needs it by now', found: { users: new Map([[image, ['web1/disk']]]) }, then: [] },
    { name: 'it is gone', found: { bases: [] }, then: [] },
    {
      name: 'it was cut off: goes on, whoever needs what',
      found: { bases: [{ base: path, file: undefined, hasRecord: true, unused: 90_000 }], doubts: [doubt] },
      then: [`remove ${path}.json`],
    },
    { name: 'nobody can tell who needs it', found: { doubts: [doubt] }, then: 'USERS_UNKNOWN' },
    {
      name: 'half-made files',
      found: { bases: [], leftovers: [{ path: `${path}.part`, frees: 5, age: 100_000 }] },
      then: [`remove ${path}.part (left over for 1 d)`],
    },
    { name: 'a name of no base', input: { bases: ['/i/_base/mine'] }, then: 'BAD_SPEC' },
    { name: 'a record as a base', input: { bases: [`${path}.json`] }, then: 'BAD_SPEC' },
    { name: 'a base as a leftover', input: { leftovers: [path] }, then: 'BAD_SPEC' },
    { name: 'a base in quarantine as a leftover', input: { leftovers: [`${path}.quarantined`] }, then: 'BAD_SPEC' },
    { name: "somebody's file as a leftover", input: { leftovers: ['/i/_base/mine.part'] }, then: 'BAD_SPEC' },
  ],
)

plans(noteBases, { used: [path], adopted: [path] }, { stale: [], unknown: [] }, [
  { name: 'all is noted', then: [] },
  { name: 'one is in use', found: { stale: [path] }, then: ['touch the record of 1 base in use'] },
  {
    name: 'several are in use',
    found: { stale: [path, '/i/_base/other'] },
    then: ['touch the records of 2 bases in use'],
  },
  {
    name: 'another tool made it',
    found: { unknown: [{ base: path, stamp: 'now' }] },
    then: [`record ${path}.json (made by another tool; its time without users begins now)`],
  },
])
