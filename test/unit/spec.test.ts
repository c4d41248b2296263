import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import * as spec from '../../lib/job/spec.ts'

const GiB = 2 ** 30

/** What is wrong with it, in the schema's words; undefined when it passes. */
const wrong = (
  schema: { safeParse: (value: unknown) => { error?: { issues: { message: string }[] } } },
  value: unknown,
) => schema.safeParse(value).error?.issues[0]?.message

describe('sizes', () => {
  for (const [text, bytes] of [
    ['512', 512],
    ['1K', 1024],
    ['512M', 512 * 2 ** 20],
    ['20G', 20 * GiB],
    ['7T', 7 * 2 ** 40],
    ['1073741824', GiB],
    [GiB, GiB],
  ] as const)
    test(`${text} is ${bytes} bytes`, () => assert.equal(spec.Bytes.parse(text), bytes))

  const bad: unknown[] = [
    ...[
      '',
      ' ',
      '0',
      '0G',
      '00',
      '01G',
      '-1G',
      '+5G',
      '1.5G',
      '1,5G',
      '1e9',
      '0x200',
      'G',
      '20g',
      '20GB',
      '20GiB',
      '20 G',
    ],
    ...[' 20G', '20G ', '20G\n', '20P', '20%', '1_000', '٢G', '９G', 'twenty', 'NaN', 'Infinity', '9999999999999999T'],
    ...['9007199254740993', '20G;reboot', '20G\0', '99999999999999999999'],
    ...[0, -512, 1.5, 1e30, Number.NaN, Number.POSITIVE_INFINITY, null, undefined, true, [], {}, 512n],
  ]
  for (const text of bad)
    test(`${typeof text} ${typeof text === 'string' ? JSON.stringify(text) : String(text)} is no size`, () =>
      assert.notEqual(wrong(spec.Bytes, text), undefined))

  for (const text of ['1', '511', '513', '1073741825', 1000])
    test(`${text} is no multiple of a sector`, () =>
      assert.equal(wrong(spec.Bytes, text), 'is not a multiple of 512 bytes'))

  test('what is exact is read back as the same number of bytes', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 43 }), (sectors) => {
        const text = spec.exactSize(sectors * 512)
        assert.equal(spec.parseSize(text), sectors * 512)
        assert.equal(spec.Bytes.parse(text), sectors * 512)
      }),
    ))
  test('an exact size has the largest unit that it is a whole number of', () => {
    for (const [bytes, text] of [
      [20 * GiB, '20G'],
      [1.5 * GiB, '1536M'],
      [2252 * 2 ** 20, '2252M'],
      [2 ** 40, '1T'],
      [GiB + 512, '1073742336'],
      [GiB + 1, '1073742336'], // no disk has half a sector
    ] as const)
      assert.equal(spec.exactSize(bytes), text)
  })
  test('a size for people keeps to a tenth, and a whole unit is read back', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1023 }), fc.constantFrom('K', 'M', 'G', 'T'), (count, unit) => {
        const text = `${count}${unit}`
        assert.equal(spec.formatSize(spec.parseSize(text) ?? 0), text)
      }),
    ))
  test('a size for people is less than the next unit, where there is one', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 45 }), (bytes) => {
        const text = spec.formatSize(bytes)
        assert.ok(text.endsWith('T') || Number.parseFloat(text) < 1024, `${bytes} is shown as ${text}`)
      }),
    ))
  for (const [bytes, text] of [
    [0, '0'],
    [511, '511'],
    [196608, '192K'],
    [1.5 * GiB, '1.5G'],
    [GiB - 1, '1G'],
    [2 ** 20 - 1, '1M'],
  ] as const)
    test(`${bytes} bytes are shown as ${text}`, () => assert.equal(spec.formatSize(bytes), text))
})

const words: [name: string, why: string][] = [
  ['', 'empty'],
  ['.', 'here'],
  ['..', 'above'],
  ['../vm1', 'traversal'],
  ['vm1/../../etc', 'traversal in the middle'],
  ['a/b', 'a path'],
  ['/etc', 'an absolute path'],
  ['a\\b', 'a backslash'],
  ['-rf', 'a dash first'],
  ['--help', 'an option'],
  ['.hidden', 'a dot first'],
  ['_base', 'an underscore first'],
  ['vm 1', 'a blank'],
  [' vm1', 'a blank first'],
  ['vm1 ', 'a blank last'],
  ['vm1\n', 'a newline last'],
  ['vm1\nvm2', 'a newline'],
  ['vm1\r', 'a carriage return'],
  ['vm1\t', 'a tab'],
  ['vm1\0', 'NUL'],
  ['vm1\u001b[2J', 'an escape sequence'],
  ['vm*', 'a pattern'],
  ['$(reboot)', 'a command'],
  ['vm1;reboot', 'a semicolon'],
  ["vm'1", 'a quote'],
  ['<vm1/>', 'markup'],
  ['vm&1', 'an ampersand'],
  ['vm%s', 'a percent sign'],
  ['vm:1', 'a colon'],
  ['vm=1', 'an equals sign'],
  ['vm,1', 'a comma'],
  ['vm@1', 'an at sign'],
  ['vmä', 'a letter that is not ASCII'],
  ['vm1\u202egnp', 'a direction override'],
  ['vm\u200b1', 'a blank of no width'],
  ['ｖｍ1', 'wide letters'],
  ['vm\u0430', 'a Cyrillic a'],
  ['\ud800vm', 'half a character'],
  ['a'.repeat(64), '64 characters'],
]

describe('names', () => {
  for (const [kind, schema] of [
    ['instance', spec.InstanceName],
    ['image', spec.ImageName],
  ] as const) {
    for (const [name, why] of words) test(`no ${kind}: ${why}`, () => assert.notEqual(wrong(schema, name), undefined))
    for (const value of [1, null, ['vm1'], { toString: () => 'vm1' }])
      test(`no ${kind}: ${typeof value} ${String(value)}`, () => assert.notEqual(wrong(schema, value), undefined))
    for (const name of ['a', '1', 'vm1', 'Web-1.example_org', 'a'.repeat(63), '007', 'locks2', 'a..b', 'a-'])
      test(`${kind}: ${name}`, () => assert.equal(schema.parse(name), name))
    test(`what passes as ${kind} is one file name, and no option`, () =>
      fc.assert(
        fc.property(
          fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.stringMatching(/^[A-Za-z0-9._-]{1,70}$/)),
          (name) => {
            if (wrong(schema, name) !== undefined) return
            assert.match(name, /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/)
            assert.ok(!name.includes('/') && !name.includes('\n') && name !== '.' && name !== '..')
          },
        ),
        { numRuns: 500 },
      ))
  }
  for (const name of ['locks', 'vm1_resize', '_resize', 'vm1.part', 'vm1.converted', 'vm1.incoming'])
    test(`no instance: ${name} is cowhand's own`, () => assert.notEqual(wrong(spec.InstanceName, name), undefined))
  for (const name of ['debian.json', 'debian.part'])
    test(`no image: ${name} is cowhand's own`, () => assert.notEqual(wrong(spec.ImageName, name), undefined))
})

describe('paths', () => {
  for (const [path, why] of [
    ['', 'empty'],
    ['a', 'relative'],
    ['./a', 'relative'],
    ['/a/../b', 'has ..'],
    ['/..', 'has ..'],
    ['/a\nb', 'has a newline'],
    ['/a\0b', 'has NUL'],
    ['/a\u007f', 'has DEL'],
    ['/a\u001b[0m', 'has an escape'],
  ] as const)
    test(`${JSON.stringify(path)} is no absolute path: ${why}`, () =>
      assert.notEqual(wrong(spec.AbsolutePath, path), undefined))
  for (const path of ['/', '/a', '/a..b', "/a b/c'd", '/ä/日本'])
    test(`${path} is an absolute path`, () => assert.equal(spec.AbsolutePath.parse(path), path))
})

describe('digests', () => {
  const [short, long] = ['a1'.repeat(32), 'b2'.repeat(64)]
  for (const digest of [`sha256:${short}`, `sha512:${long}`, `sha1:${'a'.repeat(40)}`, `md5:${'a'.repeat(32)}`])
    test(`${digest.slice(0, 12)}…`, () => assert.equal(spec.Digest.parse(digest.toUpperCase()), digest))
  for (const [digest, why] of [
    [short, 'no algorithm'],
    [`sha256:${long}`, 'of another length'],
    [`sha512:${short}`, 'of another length'],
    [`sha1:${'a'.repeat(64)}`, 'of another length'],
    [`sha256:${'g'.repeat(64)}`, 'no hexadecimal digits'],
    [`sha256:${short}\n`, 'a newline'],
    [`toString:${short}`, 'a member that every object has'],
    ['', 'empty'],
  ] as const)
    test(`no digest: ${why}`, () => assert.notEqual(wrong(spec.Digest, digest), undefined))
})

describe('which digests can be forged', () => {
  for (const [digest, is] of [
    [`sha512:${'a'.repeat(128)}`, false],
    [`sha256:${'a'.repeat(64)}`, false],
    [`sha1:${'a'.repeat(40)}`, true],
    [`md5:${'a'.repeat(32)}`, true],
  ] as const)
    test(spec.algorithmOf(digest), () => assert.equal(spec.isWeak(digest), is))
})

describe('time spans', () => {
  for (const [span, seconds, shown] of [
    ['0', 0, '0 s'],
    [0, 0, '0 s'],
    ['90s', 90, '1 m'],
    ['30m', 1800, '30 m'],
    ['24h', 86_400, '1 d'],
    ['2w', 1_209_600, '14 d'],
  ] as const)
    test(`${span}`, () => {
      assert.equal(spec.Duration.parse(span), seconds)
      assert.equal(spec.formatDuration(seconds), shown)
    })
  for (const span of ['', '24', '-1h', '1.5h', '24 h', '1h30m', 'h', 86_400, '9999999999s'])
    test(`no time span: ${span}`, () => assert.notEqual(wrong(spec.Duration, span), undefined))
})

describe('rates', () => {
  for (const [rate, bytes] of [
    ['50M', 50 * 2 ** 20],
    ['1000', 1000],
  ] as const)
    test(rate, () => assert.equal(spec.Rate.parse(rate), bytes))
  for (const rate of ['0', '50M/s', '-1', '1.5M', ''])
    test(`no rate: ${rate}`, () => assert.notEqual(wrong(spec.Rate, rate), undefined))
})
