import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { some } from '../crash/some.ts'
import { type Fault, type Faulty, filesOf, locksOn, oldOf, startFaulty, stateOf } from './faulty.ts'
import { done } from './moving.ts'

// A resize to another host, its confirm and its revert, where cowhand on either host is killed at every action: the same
// command again ends like an undisturbed run, or revert gives the old state back, byte for byte, and the guest runs on
// one host at most all the time.

const MiB = 2 ** 20
/** All of them would take a quarter of an hour: one in so many is cut at, others on the next day. */
const every = 8
const scratch = mkdtempSync(join(tmpdir(), 'cowhand-kills-'))
let lab: Faulty

/** What cowhand tells of: `there` on the other host. `at`: how many events had been told by that one when it was. */
interface Moment {
  at: number
  there: boolean
  what: string
}

/** The moments between which something changes: before each action, and when the last one of a phase was done. */
function momentsIn(stderr: string): Moment[] {
  let [mine, its] = [0, 0]
  const events = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type === 'action' || type === 'step')
  const isThere = (step = '') => step.startsWith('beta: ')
  return events.flatMap(({ step, action, status }, index) => {
    const there = isThere(step)
    mine += 1
    if (there) its += 1
    const moment = { at: there ? its : mine, there, what: `${step}: ${action ?? status}` }
    const isLast = status !== 'running' && isThere(events[index + 1]?.step) !== there
    return action !== undefined || isLast || index === events.length - 1 ? [moment] : []
  })
}

/** An instance, and what is done to it. */
interface Subject {
  name: string
  hasLibvirt: boolean
  resize: string[]
  revert: string[]
  confirm: string[]
  old: unknown
  /** After an undisturbed run, which told of this. */
  end: unknown
  resizing: Moment[]
  reverting: Moment[]
}

async function undisturbed(words: string[]): Promise<Moment[]> {
  const { code, stderr } = await lab.run([...words, '--progress', 'json'])
  assert.equal(code, 0, stderr)
  return momentsIn(stderr)
}

/** @param more words of the `create` */
async function subject(name: string, hasLibvirt: boolean): Promise<Subject> {
  const { a } = lab
  lab.configure(hasLibvirt ? {} : { libvirt_uri: undefined })
  const disks = ['--root', '8M', '--swap', '1M', '--user-data', join(scratch, 'user-data')]
  await done(a, 'create', name, '--image', 'image', ...disks, '--network', 'none', '--memory', '64M')
  const resize = ['resize', name, '--root', '16M', '--to', 'beta', '--shutdown-timeout', '0']
  const revert = ['revert', name, '--yes']
  const old = await oldOf(a, name, hasLibvirt)
  lab.noteBases()
  const resizing = await undisturbed(resize)
  const end = await stateOf(lab, name, hasLibvirt)
  const reverting = await undisturbed(revert)
  const its = { name, hasLibvirt, resize, revert, confirm: ['confirm', name], old, end, resizing, reverting }
  await assertOld(its, 'revert')
  return its
}

async function assertOld({ name, hasLibvirt, old }: Subject, where: string): Promise<void> {
  await lab.assertQuiet(where)
  assert.deepEqual(await oldOf(lab.a, name, hasLibvirt), old, where)
  assert.deepEqual(filesOf(lab.b, name), [], where)
  if (hasLibvirt) assert.equal(await lab.b.virsh('list', '--all', '--name'), '', where)
}

async function good(words: string[], where: string): Promise<void> {
  const { code, stderr } = await lab.run(words)
  assert.equal(code, 0, `${where}: ${words.join(' ')}: ${stderr}`)
}

/**
 * Back to where it began. Before anything was begun, or when it was undone already, there is nothing to go back to.
 * @param isDone over there everything may have been done already, so that nobody needs anything there any more
 */
async function goBack(its: Subject, where: string, isDone = false): Promise<void> {
  const { code, stderr } = await lab.run(its.revert)
  assert.ok(code === 0 || (code === 3 && /no resize or migration/.test(stderr)), `${where}: ${stderr}`)
  await assertOld(its, where)
  // A lock of one that was killed is taken over by who needs it next.
  if (code === 0) assert.deepEqual(locksOn(lab.a, its.name), [], where)
  if (code === 0 && !isDone) assert.deepEqual(locksOn(lab.b, its.name), [], where)
}

/** The same command again, or revert: in turn, for each takes its time. */
async function recovers(its: Subject, where: string, turn: number): Promise<void> {
  await lab.assertQuiet(where)
  if (turn % 2 === 0) {
    await good(its.resize, where)
    assert.deepEqual(await stateOf(lab, its.name, its.hasLibvirt), its.end, where)
    await lab.assertQuiet(where)
  }
  await goBack(its, where)
}

/** One end of a resize is killed. */
async function cut(its: Subject, { at, there, what }: Moment, turn: number, fault: Partial<Fault> = {}): Promise<void> {
  const where = `${there ? 'there' : 'here'}, killed before ${what}`
  // So that each time it has to be sent, or made.
  if (!its.hasLibvirt) rmSync(lab.b.file(join(lab.b.instances, '_base')), { recursive: true, force: true })
  const { code, stderr } = await lab.run(its.resize, { [there ? 'there' : 'here']: { at, ...fault } })
  if (!there) assert.equal(code, null, `${where}: ${code} ${stderr}`)
  else {
    assert.ok(code === 1, `${where}: ${code} ${stderr}`)
    // It was undone at once, unless its guest was seen running there.
    if (!/beta/.test(stderr)) assert.fail(`${where}: ${stderr}`)
    if (/undone: /.test(stderr)) await assertOld(its, where)
  }
  await recovers(its, where, turn)
}

before(async () => {
  lab = await startFaulty()
  const image = join(scratch, 'image')
  writeFileSync(image, randomBytes(4 * MiB))
  writeFileSync(join(scratch, 'user-data'), '#cloud-config\n')
  await done(lab.a, 'image', 'add', image, '--name', 'image', '--format', 'raw')
})
after(async () => {
  await lab?.stop()
  rmSync(scratch, { recursive: true, force: true })
})

describe('disks', () => {
  let disks: Subject
  before(async () => {
    disks = await subject('disks', false)
  })

  test('a resize to another host, killed here at every action, ends the same, or goes back', async () => {
    const moments = disks.resizing.filter(({ there }) => !there)
    assert.ok(moments.length > 8, JSON.stringify(moments))
    for (const [turn, moment] of some(moments, every).entries()) await cut(disks, moment, turn)
  })
  test('a resize to another host, killed there at every action, ends the same, or goes back', async () => {
    const moments = disks.resizing.filter(({ there }) => there)
    assert.ok(moments.length > 35, JSON.stringify(moments))
    for (const [turn, moment] of some(moments, every).entries()) await cut(disks, moment, turn)
  })
  test('confirm, killed at every action, ends the same, and it is too late to go back', async () => {
    const { name, confirm, resize, revert } = disks
    await good(resize, 'before confirm')
    const [kept, saved] = [lab.a.file(join(lab.a.instances, `${name}_resize`)), join(scratch, 'kept')]
    const arrived = filesOf(lab.b, name)
    const record = join(kept, 'instance.json')
    const begun = readFileSync(record, 'utf8')
    cpSync(kept, saved, { recursive: true, preserveTimestamps: true })
    const bring = () => cpSync(saved, kept, { recursive: true, preserveTimestamps: true })
    const moments = await undisturbed(confirm)
    assert.ok(moments.length > 10, JSON.stringify(moments))
    for (const { at, what } of some(moments, every)) {
      const where = `confirm, killed before ${what}`
      bring()
      const { code } = await lab.run(confirm, { here: { at } })
      assert.equal(code, null, where)
      // As soon as something of it is gone, nothing leads back: the other host has the only whole one.
      const isWhole = existsSync(record) && readFileSync(record, 'utf8') === begun
      if (!isWhole) assert.equal((await lab.run(revert)).code, 3, where)
      // Of one that was sent away nothing is left here then that could tell.
      if (existsSync(kept)) await good(confirm, where)
      await lab.assertQuiet(where)
      assert.deepEqual([filesOf(lab.a, name), filesOf(lab.b, name)], [[], arrived], where)
    }
    bring()
    await goBack(disks, 'after confirm')
  })
  test('going back, killed at every action on either host, ends the same', async () => {
    for (const { at, there, what } of some(disks.reverting, every)) {
      const where = `revert, killed ${there ? 'there' : 'here'} before ${what}`
      await good(disks.resize, where)
      const { code } = await lab.run(disks.revert, { [there ? 'there' : 'here']: { at } })
      assert.equal(code, there ? 1 : null, where)
      await goBack(disks, where, there)
    }
  })
})

describe('a guest', () => {
  let guest: Subject
  before(async () => {
    guest = await subject('guest', true)
  })
  const isOfGuest = ({ what }: Moment) =>
    /power-off|rename|definition\.xml|^push-files|handed|virsh|finish|^(\w+: )?(start|undefine|replace)-domain|record-task/.test(
      what,
    )

  test('a guest that is resized to another host runs on one of them, whoever is killed', async () => {
    const moments = guest.resizing.filter(isOfGuest)
    for (const [turn, moment] of some(moments, every).entries()) await cut(guest, moment, turn)
  })
  test('a guest that goes back runs on one host, whoever is killed', async () => {
    const moments = guest.reverting.filter(isOfGuest)
    for (const { at, there, what } of some(moments, every)) {
      const where = `revert, killed ${there ? 'there' : 'here'} before ${what}`
      await good(guest.resize, where)
      const { code } = await lab.run(guest.revert, { [there ? 'there' : 'here']: { at } })
      assert.equal(code, there ? 1 : null, where)
      await goBack(guest, where, there)
    }
  })
})
