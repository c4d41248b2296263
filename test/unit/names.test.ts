import assert from 'node:assert/strict'
import { basename, join, normalize } from 'node:path'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { quote } from 'zx/core'
import { asJson, oneLine, printable } from '../../lib/cli/printable.ts'
import { reportProblem } from '../../lib/cli/report.ts'
import { table } from '../../lib/cli/table.ts'
import { domainXml } from '../../lib/host/domain.ts'
import { editDomain } from '../../lib/host/domain-xml.ts'
import { joint, Problem } from '../../lib/job/problem.ts'
import { AbsolutePath, ImageName, InstanceName } from '../../lib/job/spec.ts'
import { create } from '../../scripts/pipelines/create.ts'
import { imageAdd } from '../../scripts/pipelines/image-add.ts'
import { canonical } from '../lab/xml.ts'

// No name of anything can be more than a name: not a path, an option, markup, shell, or an order to a terminal.

/** What people and attackers come up with: near misses of the grammar, and characters that mean something somewhere. */
const nasty = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 70 }),
  fc.string({
    unit: fc.constantFrom(...'aZ0._-/\\ \t\n\0\x1b\u009b\u202e\u2066\u200b\ufeff$`\'"<>&;|*?~=:,{}%#!-'),
    maxLength: 12,
  }),
  fc.constantFrom(
    '..',
    '.',
    '-rf',
    '--help',
    '_base',
    'locks',
    'a/../b',
    'a_resize',
    'x.part',
    'x.json',
    'a\n',
    'a ',
    'é',
    'а',
  ),
)
const runs = { numRuns: 2000 }

describe('what is accepted as the name of an instance or an image', () => {
  for (const [what, schema] of [
    ['InstanceName', InstanceName],
    ['ImageName', ImageName],
  ] as const) {
    const holds = (name: string) => {
      const read = schema.safeParse(name)
      if (!read.success) return
      assert.equal(read.data, name)
      assert.equal(normalize(join('/dir', name)), `/dir/${name}`, 'is one name in a directory')
      assert.equal(basename(name), name)
      assert.equal(quote(name), name, 'means nothing to a shell')
      assert.equal(oneLine(name), name, 'is all that is seen')
      assert.equal(encodeURIComponent(name), name)
      assert.doesNotMatch(name, /^[-_.]|[<>&'"]/, 'is no option, nothing hidden, no markup')
      assert.equal(Buffer.byteLength(name) <= 63, true)
    }
    test(what, () => fc.assert(fc.property(nasty, holds), runs))
    test(`${what}, from near its grammar`, () =>
      fc.assert(fc.property(fc.stringMatching(/^[A-Za-z0-9._\n-]{1,65}$/), holds), runs))
  }
  test('none is that of a file of cowhand itself', () => {
    for (const name of ['_base', 'locks', 'web1_resize', 'web1.part', 'web1.converted', 'web1.incoming'])
      assert.equal(InstanceName.safeParse(name).success, false, name)
    for (const name of ['x.json', 'x.part']) assert.equal(ImageName.safeParse(name).success, false, name)
  })
})

test('a path stays the path that was given, with nothing in it that a terminal obeys', () =>
  fc.assert(
    fc.property(nasty, (text) => {
      const read = AbsolutePath.safeParse(`/${text}`)
      if (!read.success) return
      assert.equal(read.data, normalize(`/${text}`).replace(/(.)\/$/, '$1'))
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
      assert.doesNotMatch(read.data, /[\0-\x1f\x7f]/)
    }),
    runs,
  ))

test('a network is a word, also behind bridge:', () =>
  fc.assert(
    fc.property(nasty, fc.boolean(), (text, isBridge) => {
      const job = { name: 'a', image: 'b', root: '1G', network: `${isBridge ? 'bridge:' : ''}${text}` }
      if (create.job.safeParse(job).success) assert.match(text, /^(bridge:)?[A-Za-z0-9][\w.-]*$/)
    }),
    runs,
  ))

test('whatever a property is, it is kept as it is, in one line', () =>
  fc.assert(
    fc.property(nasty, nasty, (key, value) => {
      const read = imageAdd.job.safeParse({ file: '/x.raw', property: [`${key}=${value}`] })
      if (!read.success) return
      const settings = { instances: '/i', store: 'dir:/s' } as never
      const [{ input } = { input: {} }] = imageAdd.calls(read.data, undefined, settings)
      const entries = Object.entries((input as { properties: Record<string, string> }).properties)
      assert.equal(entries.length, 1)
      assert.equal(entries[0]?.join('='), `${key}=${value}`)
      assert.doesNotMatch(`${entries[0]?.[1]}`, /\p{Cc}/u)
      assert.notEqual(entries[0]?.[0], '__proto__')
    }),
    runs,
  ))

test('a path in a definition is a path there too, and no markup', () => {
  const paths = fc
    .string({ unit: 'grapheme', maxLength: 30 })
    .filter((text) => AbsolutePath.safeParse(`/${text}`).success)
  fc.assert(
    fc.property(paths, (text) => {
      const path = `/i/${text}`
      const disks = [{ path, target: 'vda', base: path }]
      const domain = {
        name: 'web1',
        uuid: '1',
        virtType: 'kvm',
        directory: path,
        disks,
        seed: path,
        'os-type': 'linux',
      } as const
      const count = (xml: string) => canonical(xml).match(/<[a-z]+/gi)?.length
      const plain = { ...domain, directory: '/i', disks: [{ path: '/i', target: 'vda', base: '/i' }], seed: '/i' }
      assert.equal(count(domainXml(domain)), count(domainXml(plain)))
      const theirs = '<domain><devices/></domain>'
      assert.equal(count(editDomain(theirs, domain)), count(editDomain(theirs, plain)))
    }),
    { numRuns: 300 },
  )
})

describe('what is printed', () => {
  const obeyed = /[\p{Cc}\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/u

  test('shows what a terminal would obey', () => {
    assert.equal(oneLine('a\x1b[31mb\x9b2J\u202egnp\n'), 'a\\x1b[31mb\\x9b2J\\u{202e}gnp\\x0a')
    assert.equal(oneLine('Jürgen 日本 🐮'), 'Jürgen 日本 🐮')
    assert.equal(printable('a\tb\nc\r'), 'a\tb\nc\\x0d')
  })
  test('is harmless in a table, whatever the cells', () =>
    fc.assert(
      fc.property(nasty, nasty, (name, id) => {
        const lines = table(['NAME', 'ID'], [[name, id]]).split('\n')
        assert.equal(lines.length, 2)
        for (const line of lines) assert.doesNotMatch(line, obeyed)
      }),
      runs,
    ))
  test('is harmless in an error, and a name in it forges no line', () =>
    fc.assert(
      fc.property(nasty, (name) => {
        const problem = new Problem('refused', 'IMAGE_NOT_FOUND', `Cannot find "${name}": none`, `look for ${name}`)
        const colours = { red: (text: string) => text } as never
        const lines = reportProblem(problem, colours).split('\n')
        assert.equal(lines.length, 3)
        for (const line of lines) assert.doesNotMatch(line, obeyed)
      }),
      runs,
    ))
  test('several problems in one are told each on its line', () => {
    const problem = new Problem('refused', 'NOT_OURS', ['one', 'other'].join(joint), 'look')
    assert.equal(
      reportProblem(problem, { red: (text: string) => text } as never),
      'cowhand: one\n  and: other\n  remedy: look\n',
    )
  })
  test('means the same as JSON, and is harmless there too', () =>
    fc.assert(
      fc.property(nasty, (name) => {
        const said = asJson({ name }, 2)
        assert.deepEqual(JSON.parse(said), { name })
        for (const line of said.split('\n')) assert.doesNotMatch(line, obeyed)
      }),
      runs,
    ))
})
