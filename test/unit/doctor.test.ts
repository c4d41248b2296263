import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { which } from '../../lib/host/ask.ts'
import type { Check } from '../../lib/host/check.ts'
import { doctor, isReady, renderDoctor } from '../../lib/host/doctor.ts'
import { probe } from '../../lib/host/kvm.ts'
import { spaceChecks } from '../../lib/host/place.ts'
import { compareVersions } from '../../lib/host/tools.ts'
import { Settings } from '../../lib/job/settings.ts'

const directory = mkdtempSync(join(tmpdir(), 'cowhand-doctor-'))
after(() => rmSync(directory, { recursive: true }))

const settings = (more: Partial<Settings> = {}): Settings =>
  Settings.parse({ instances: join(directory, 'instances'), store: `dir:${directory}/images`, ...more })

/** A PATH of one directory with these real programs in it, and these scripts. */
async function pathWith(name: string, real: string[], scripts: Record<string, string> = {}): Promise<string> {
  const path = join(directory, name)
  mkdirSync(path)
  for (const program of real)
    symlinkSync((await which(program)) ?? assert.fail(`no ${program} here`), join(path, program))
  for (const [program, body] of Object.entries(scripts)) {
    writeFileSync(join(path, program), `#!/bin/sh\n${body}\n`)
    chmodSync(join(path, program), 0o755)
  }
  return path
}

const find = (checks: Check[], name: string): Check =>
  checks.find((check) => check.name === name) ??
  assert.fail(`no check ${name} in ${checks.map((c) => c.name).join(', ')}`)

describe('doctor', { concurrency: false }, () => {
  it('finds a host with everything ready, in less than four seconds, and leaves nothing behind', async () => {
    const start = performance.now()
    const checks = await doctor(settings())
    assert.ok(performance.now() - start < 4000, `took ${performance.now() - start} ms`)
    assert.ok(isReady(checks))
    assert.match(renderDoctor(checks), /^create: ready$/m)
    assert.equal(find(checks, 'emulation').status, 'ok')
    assert.match(find(checks, 'instances').found ?? '', /can be made$/)
    assert.equal(find(checks, 'sandbox').found, 'qemu-img has limits, and is a user of its own without network')
    for (const name of ['kvm', 'libvirt', 'space', 'reflink', 'O_DIRECT']) find(checks, name)
    assert.deepEqual(readdirSync(directory), [])
  })

  it('says what is missing, what needs it and how to mend it', async () => {
    const path = await pathWith('some', ['qemu-img', 'setpriv', 'unshare', 'nice', 'flock', 'mke2fs', 'xorriso', 'cp'])
    const checks = await doctor(settings(), { path })
    assert.deepEqual(find(checks, 'mkfs.xfs'), {
      name: 'mkfs.xfs',
      status: 'missing',
      needs: ['create --ephemeral-format xfs'],
      remedy: 'apt install xfsprogs',
    })
    assert.match(find(checks, 'genisoimage or xorriso').found ?? '', /xorriso\)$/)
    assert.match(find(checks, 'mke2fs').found ?? '', /^\d.* \(.*some\/mke2fs\)$/)
    assert.ok(isReady(checks, 'create'))
    const text = renderDoctor(checks)
    assert.match(text, /^missing {2}mkswap .*needed by create --swap; remedy: apt install util-linux$/m)
    assert.match(text, /^create: ready, but not with .*--swap/m)
  })

  it('is not ready without qemu-img, or with one that is too old', async () => {
    const without = await doctor(settings(), { path: await pathWith('without', ['setpriv', 'flock']) })
    assert.equal(find(without, 'qemu-img').remedy, 'apt install qemu-utils')
    assert.ok(!isReady(without))
    const path = await pathWith('old', ['setpriv', 'flock'], { 'qemu-img': 'echo qemu-img version 5.2.0' })
    const old = await doctor(settings(), { path })
    assert.equal(find(old, 'qemu-img').found, `5.2.0 (${path}/qemu-img), needs 6.0 or newer`)
    assert.ok(!isReady(old))
  })

  it('answers in four seconds when programs hang', async () => {
    const sleep = await which('sleep')
    const hang = `exec ${sleep} 60`
    const path = await pathWith('hang', [], { 'mkfs.xfs': hang, xz: hang, virsh: hang, 'qemu-system-x86_64': hang })
    const start = performance.now()
    const checks = await doctor(settings({ libvirt_uri: 'qemu:///system' }), { path })
    assert.ok(performance.now() - start < 4000, `took ${performance.now() - start} ms`)
    assert.equal(find(checks, 'xz').status, 'warn')
    assert.equal(find(checks, 'libvirt').found, 'qemu:///system: no answer within 3 s')
  })

  it('minds an unreachable libvirt only where one is configured', async () => {
    const uri = `qemu+unix:///system?socket=${directory}/none`
    const path = await pathWith('virsh', ['virsh'])
    const check = find(await doctor(settings({ libvirt_uri: uri }), { path }), 'libvirt')
    assert.equal(check.status, 'missing')
    assert.match(check.found ?? '', /No such file/)
    const free = find(await doctor(settings(), { path: await pathWith('virsh2', [], { virsh: 'exit 1' }) }), 'libvirt')
    assert.equal(free.status, 'warn')
  })

  it('minds a file where a directory should be', async () => {
    writeFileSync(join(directory, 'file'), '')
    const checks = await doctor(settings({ instances: join(directory, 'file') }), { path: await pathWith('none', []) })
    assert.equal(find(checks, 'instances').found, `${join(directory, 'file')} is not a directory`)
  })
})

describe('the probe', () => {
  it('sees a guest boot under emulation', async () => {
    const qemu = (await which('qemu-system-x86_64')) ?? assert.fail('no qemu')
    const answer = await probe('tcg', { qemu, setpriv: await which('setpriv') })
    assert.equal(answer.works, true, answer.why)
  })
  it('answers within four seconds under KVM, whatever it is', async () => {
    const qemu = (await which('qemu-system-x86_64')) ?? assert.fail('no qemu')
    const answer = await probe('kvm', { qemu, setpriv: await which('setpriv') })
    assert.ok(answer.milliseconds < 4000)
    assert.equal(answer.why === undefined, answer.works)
  })
  it('does not take any other end of qemu for a boot', async () => {
    assert.equal((await probe('tcg', { qemu: '/bin/true' })).works, false)
    assert.equal((await probe('tcg', { qemu: '/nonexistent' })).works, false)
  })
})

const GiB = 2 ** 30
describe('space', () => {
  const blocks = (total: number, free: number) => ({
    bsize: 4096,
    blocks: (total * GiB) / 4096,
    bavail: (free * GiB) / 4096,
  })
  const rows: [string, Parameters<typeof spaceChecks>[1], Check['status'][]][] = [
    ['plenty', { ...blocks(100, 50), files: 1000, ffree: 900 }, ['ok', 'ok']],
    ['less than 5 GiB', { ...blocks(10, 4), files: 1000, ffree: 900 }, ['warn', 'ok']],
    ['less than a tenth', { ...blocks(1000, 50), files: 1000, ffree: 900 }, ['warn', 'ok']],
    ['few inodes', { ...blocks(100, 50), files: 1000, ffree: 20 }, ['ok', 'warn']],
    ['a file system without a count of inodes', { ...blocks(100, 50), files: 0, ffree: 0 }, ['ok']],
  ]
  for (const [name, fs, then] of rows)
    it(name, () => {
      const checks = spaceChecks('/i', fs)
      assert.deepEqual(
        checks.map((check) => check.status),
        then,
      )
      for (const check of checks) assert.equal(check.remedy !== undefined, check.status === 'warn')
    })
})

describe('versions', () => {
  const rows: [string, string, number][] = [
    ['6.0', '6.0.0', 0],
    ['1.47.0', '1.46.5', 1],
    ['9.2', '10.0', -1],
  ]
  for (const [a, b, then] of rows) it(`${a} against ${b}`, () => assert.equal(compareVersions(a, b), then))
})
