import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { requireStartable, type StartOptions } from '../../lib/host/startable.ts'
import type { Offer, OrderedDisk } from '../../lib/job/move.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'
import { requireWay } from '../../scripts/moves/ahead.ts'

// What keeps a guest from starting. libvirt is its own test driver, which needs no daemon: it has one network,
// `default`. What a real one says besides is in the lab.

const here = mkdtempSync(join(tmpdir(), 'cowhand-startable-'))
after(() => rmSync(here, { recursive: true, force: true }))
writeFileSync(join(here, 'a.iso'), '')

const options: StartOptions = {
  ...{ uri: 'test:///default', name: 'vm1', verb: 'run "vm1"', directory: here },
  ...{ isRenewed: false, runsHere: false, isNew: false, virtType: 'qemu' },
}
const domain = (devices: string, { type = 'qemu', more = '' } = {}) =>
  `<domain type='${type}'><name>vm1</name><memory>1024</memory>${more}<devices>${devices}</devices></domain>`
const cd = (path: string) => `<disk type='file' device='cdrom'><source file='${path}'/><target dev='sda'/></disk>`
const network = (name: string) => `<interface type='network'><source network='${name}'/></interface>`

const rows: [when: string, xml: string, more?: Partial<StartOptions>, code?: Code, says?: RegExp][] = [
  ['nothing is missing', domain(cd(join(here, 'a.iso')) + network('default'))],
  ['a network device that is there', domain("<interface type='bridge'><source bridge='lo'/></interface>")],
  ['no such network', domain(network('lan')), {}, 'MISSING_PREREQUISITE', /no network "lan"/],
  ['no such file', domain(cd('/nowhere/a.iso')), {}, 'MISSING_PREREQUISITE', /no file "\/nowhere\/a.iso"/],
  ['a directory in its place', domain(cd(here)), {}, 'MISSING_PREREQUISITE', /no file/],
  [
    'its directory is made anew',
    domain(cd(join(here, 'a.iso'))),
    { isRenewed: true },
    'MISSING_PREREQUISITE',
    /does not travel/,
  ],
  ['the host has no KVM for guests', domain('', { type: 'kvm' }), {}, 'UNSUPPORTED', /type kvm/],
  [
    'a CD and a network',
    domain(cd('/nowhere') + network('lan')),
    {},
    'MISSING_PREREQUISITE',
    /"lan".*\n {2}and: .*"\/nowhere"/,
  ],
  ['an address of this host', domain("<graphics type='vnc' listen='127.0.0.1'/>")],
  ['any address', domain("<graphics type='vnc' listen='0.0.0.0'/>")],
  [
    'an address of another',
    domain("<graphics type='vnc' listen='192.0.2.7'/>"),
    {},
    'MISSING_PREREQUISITE',
    /192.0.2.7/,
  ],
  ['pinned to a processor that is there', domain('', { more: "<vcpu cpuset='0,4000'>1</vcpu>" })],
  [
    'pinned to none',
    domain('', { more: "<vcpu cpuset='0-4,^0-4,4000'>1</vcpu>" }),
    {},
    'MISSING_PREREQUISITE',
    /pinned/,
  ],
]

describe('whether a guest could start', () => {
  for (const [when, xml, more, code, says] of rows)
    test(when, async () => {
      const left = readdirSync(tmpdir()).filter((name) => /^cowhand-[0-9a-f-]{36}\.xml$/.test(name))
      const asked = requireStartable(xml, { ...options, ...more })
      if (code === undefined || says === undefined) await asked
      else
        await assert.rejects(asked, (error) => {
          assert.ok(error instanceof Problem)
          assert.deepEqual([error.code, error.kind], [code, 'refused'])
          assert.match(error.message, says)
          assert.match(error.message, /^Cannot run "vm1": /)
          return true
        })
      assert.deepEqual(
        readdirSync(tmpdir()).filter((name) => /^cowhand-[0-9a-f-]{36}\.xml$/.test(name)),
        left,
      )
    })
})

describe('room for the copies that a move makes first', () => {
  const move = '11111111-2222-4333-8444-555555555555'
  const way = (more: Partial<OrderedDisk>): OrderedDisk => ({
    ...{ file: 'disk', way: 'whole', format: 'qcow2', size: 1, send: 2 ** 60, reason: '' },
    ...more,
  })
  const look = (ways: OrderedDisk[], phase?: 'handed-over') => {
    const task = {
      move,
      kind: 'migrate',
      phase: phase ?? 'begun',
      since: '',
      run: false,
      autostart: false,
      root: 1,
    } as const
    const moved = { here: undefined, kept: undefined, task: phase && task, directory: here }
    const order = { name: 'vm1', kind: 'migrate', shared: false, ways } as unknown as Offer
    const found = { moved, task, order, answer: { instances: here }, isSame: true } as unknown as Parameters<
      typeof requireWay
    >[0]
    return requireWay(found, 'ssh', Settings.parse({ instances: here }))
  }
  const isFull = { code: 'NO_SPACE', kind: 'refused' }
  test('once the guest is off they are made', () => look([way({ way: 'flat' })], 'handed-over'))
  test('what travels as it is takes none', () => look([way({})]))
  test('what is merged', () => assert.rejects(look([way({ way: 'flat' })]), isFull))
  test('what is put on another base', () => assert.rejects(look([way({ rebaseFirst: 'a' })]), isFull))
})
