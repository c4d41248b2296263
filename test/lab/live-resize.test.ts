import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { InstanceRecord } from '../../lib/job/instance.ts'
import type { Code } from '../../lib/job/problem.ts'
import { done, inside } from './moving.ts'
import { awaitConsole, type Pair, type PairHost, startPair } from './pair.ts'
import { patternImage } from './pattern-guest.ts'

// Disks of a guest grow while it runs.

const MiB = 2 ** 20

describe('resize --mode live', () => {
  let pair: Pair
  let host: PairHost
  before(async () => {
    pair = await startPair()
    host = pair.a
    await done(host, 'image', 'add', await patternImage(), '--name', 'pattern')
    const disks = ['--root', '200M', '--ephemeral', '64M', '--swap', '16M', '--memory', '128M', '--network', 'none']
    await done(host, 'create', 'web1', '--image', 'pattern', ...disks)
    await awaitConsole(host, 'web1', /PATTERN WRITTEN at boot 1/)
  })
  after(() => pair?.stop())

  const record = (): InstanceRecord =>
    JSON.parse(readFileSync(host.file(inside(host, 'web1', 'instance.json')), 'utf8'))
  const capacity = async (file: string): Promise<number> =>
    Number(/^Capacity:\s*(\d+)/m.exec(await host.virsh('domblkinfo', 'web1', inside(host, 'web1', file)))?.[1])
  const live = (...words: string[]) => host.cowhand(['resize', 'web1', '--mode', 'live', ...words])
  async function refused(code: Code, words: string[], says: RegExp): Promise<void> {
    const { error, changed } = await live(...words)
    assert.deepEqual([error?.code, changed], [code, false])
    assert.match(`${error?.message}; ${error?.remedy}`, says)
  }

  test('both disks grow under the guest, which stays on, and nothing is kept; again, nothing is to do', async () => {
    const words = ['--root', '400M', '--ephemeral', '96M']
    const plan = await live(...words, '--dry-run')
    assert.deepEqual(
      plan.steps?.map(({ step, status }) => [step, status]),
      [
        ['blockresize-disk', 'planned'],
        ['blockresize-disk', 'planned'],
        ['record-sizes', 'planned'],
      ],
    )
    assert.match(plan.reasons?.[0] ?? '', /200M becomes 400M under the running guest.*no way back/)
    const { code, downtimeSeconds } = await live(...words)
    assert.deepEqual([code, downtimeSeconds], [0, undefined])
    assert.deepEqual([await capacity('disk'), await capacity('disk.local')], [400 * MiB, 96 * MiB])
    assert.deepEqual([record().root, record().ephemeral, record().swap], [400 * MiB, 96 * MiB, 16 * MiB])
    assert.ok(!existsSync(host.file(`${inside(host, 'web1')}_resize`)))
    assert.equal((await done(host, 'resize', 'web1', '--mode', 'live', ...words)).changed, false)
    const { error } = await host.cowhand(['revert', 'web1', '--yes'])
    assert.equal(error?.code, 'NOT_MOVED')
  })

  test('killed before the size was written down: the same command again writes it down', async () => {
    const before = record()
    assert.equal((await live('--root', '500M')).code, 0)
    writeFileSync(host.file(inside(host, 'web1', 'instance.json')), JSON.stringify(before))
    const { steps } = await done(host, 'resize', 'web1', '--mode', 'live', '--root', '500M')
    assert.deepEqual(
      steps?.map(({ status }) => status),
      ['ok', 'changed'],
    )
    assert.equal(record().root, 500 * MiB)
  })

  test('what a running guest cannot have is refused, and what it has already', async () => {
    await refused('DISK_TOO_SMALL', ['--root', '400M'], /at least that: --root 500M/)
    await refused('BAD_SPEC', ['--root', '1G', '--to', 'beta'], /--to with --mode live.*--mode cold/)
    await refused('BAD_SPEC', ['--swap', '32M'], /--swap with --mode live/)
    await host.virsh('blockresize', 'web1', inside(host, 'web1', 'disk'), '600M')
    await refused('UNSUPPORTED', ['--root', '550M'], /at least its present size: 600M/)
    assert.equal((await live('--root', '600M')).code, 0)
    host.configure({ libvirt_uri: undefined })
    await refused('UNSUPPORTED', ['--root', '1G'], /no libvirt is configured.*--mode cold/)
    host.configure({})
    await host.virsh('suspend', 'web1')
    await refused('MISSING_PREREQUISITE', ['--root', '1G'], /the guest is paused.*--mode cold/)
    await host.virsh('resume', 'web1')
  })

  test('after a power-off its disks are what they were, and larger; with the guest off it is refused', async () => {
    await host.virsh('shutdown', 'web1')
    while ((await host.virsh('domstate', 'web1')) !== 'shut off') await sleep(100)
    await refused('MISSING_PREREQUISITE', ['--root', '1G'], /the guest is shut off.*resize web1 --mode cold/)
    await host.virsh('start', 'web1')
    await awaitConsole(
      host,
      'web1',
      /vda 629145600 bytes[\s\S]*vdb 100663296 bytes[\s\S]*boot 2, after a power-off[\s\S]*PATTERN GOOD at boot 2/,
    )
    assert.deepEqual(
      readdirSync(host.file(host.instances)).filter((name) => name.startsWith('web1')),
      ['web1'],
    )
  })

  test('a move that is in hand comes first', async () => {
    await done(host, 'resize', 'web1', '--root', '700M', '--shutdown-timeout', '0')
    await refused('MOVE_UNFINISHED', ['--root', '1G'], /cowhand confirm web1/)
    await done(host, 'confirm', 'web1')
    assert.equal((await live('--root', '800M')).code, 0)
  })
})
