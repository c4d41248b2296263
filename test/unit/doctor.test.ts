import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import { root } from '../../build/sh.ts'
import { which } from '../../lib/host/ask.ts'
import { caller } from '../../lib/host/caller.ts'
import type { Check } from '../../lib/host/check.ts'
import { doctor, isReady, renderDoctor } from '../../lib/host/doctor.ts'
import { glanceChecks } from '../../lib/host/glance-check.ts'
import { probe } from '../../lib/host/kvm.ts'
import { spaceChecks } from '../../lib/host/place.ts'
import { compareVersions, rsyncIsMended } from '../../lib/host/tools.ts'
import { Settings } from '../../lib/job/settings.ts'
import { status } from './bad-server.ts'
import { cloudStub, glanceImage, json, type Stub } from './cloud-stub.ts'

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
    assert.ok(!isReady(checks, 'migrate')) // no rsync, no ssh
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

  it('warns of an rsync whose daemon has holes, but not of one that Debian mended', async () => {
    const rsync = 'echo rsync version 3.2.7 protocol version 31'
    const holes = await doctor(settings(), { path: await pathWith('holes', [], { rsync }) })
    assert.equal(find(holes, 'rsync').status, 'warn')
    const mended = await pathWith('mended', [], { rsync, 'dpkg-query': "printf 'rsync\\t3.2.7-1+deb12u2\\n'" })
    assert.equal(find(await doctor(settings(), { path: mended }), 'rsync').status, 'ok')
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

describe('a store that is Glance', () => {
  const glance = (store = 'glance') => settings({ store })
  const checked = async (environment: Record<string, string>, store?: string): Promise<Check | undefined> => {
    caller.environment = environment
    const start = performance.now()
    const [check] = await glanceChecks(glance(store))
    assert.ok(performance.now() - start < 3500, `took ${performance.now() - start} ms`)
    return check
  }
  afterEach(() => {
    caller.environment = {}
  })

  it('is not asked where it is a directory', async () => assert.deepEqual(await glanceChecks(settings()), []))
  it('answers and lets us in', async () => {
    await using cloud = await cloudStub({ images: [glanceImage(1), glanceImage(2)] })
    assert.deepEqual(await checked(cloud.environment), {
      name: 'glance',
      status: 'ok',
      found: `${cloud.url}/image`,
      needs: ['create'],
    })
    assert.deepEqual(
      cloud.asked.map(({ line }) => line),
      ['POST /v3/auth/tokens', 'GET /image/v2/images?limit=1'],
    )
  })

  const badly: [when: string, stub: Stub['instead'], found: RegExp, remedy: RegExp][] = [
    ['a wrong password', { '/v3': json({}, 401) }, /does not accept its user and password \(401\)$/, /^check its user/],
    ['an error of Keystone', { '/v3': status(503) }, /503 Service Unavailable$/, /^see what it says: curl -v http/],
    ['an error of Glance', { '/image': status(500) }, /500 Internal Server Error$/, /^see what it says: curl -v http/],
    ['no Glance there', { '/image': json([]) }, /what answers there is no Image API v2$/, /catalog show image/],
    ['a Keystone that is silent', { '/v3': () => true }, /auth\/tokens": no answer within 3 s$/, /^see what it says/],
    ['a Glance that is silent', { '/image': () => true }, /images.*": no answer within 3 s$/, /^see what it says/],
    ['a body without an end', { '/image': drip }, /images.*": no answer within 3 s$/, /^see what it says/],
  ]
  for (const [when, instead, found, remedy] of badly)
    it(`is missing: ${when}`, async () => {
      await using cloud = await cloudStub({ ...(instead ? { instead } : {}) })
      const check = await checked(cloud.environment)
      assert.equal(check?.status, 'missing')
      assert.match(check.found ?? '', found)
      assert.match(check.remedy ?? '', remedy)
    })
  it('is missing: nobody says which', async () => {
    assert.match((await checked({}))?.found ?? '', /^Cannot ask Glance: no cloud is named$/)
  })
  it('is missing: nobody listens', async () => {
    assert.match((await checked({}, 'glance:http://127.0.0.1:1'))?.found ?? '', /ECONNREFUSED\)$/)
  })
  it('is missing: nobody has that name', async () => {
    const check = await checked({}, 'glance:http://glance.invalid:9292')
    assert.match(check?.found ?? '', /^Cannot fetch "http:\/\/glance\.invalid:9292\//)
  })

  /** The program itself: its answer, its exit code and how many ms it was there. */
  function run(store: string, around: string[] = []) {
    const words = [process.execPath, '--import', 'tsx', join(root, 'scripts/cowhand.ts'), 'doctor', '--json']
    const [first = '', ...rest] = [...around, ...words, '--store', store, '--instances', join(directory, 'instances')]
    const start = performance.now()
    const child = spawn(first, rest, { stdio: ['ignore', 'pipe', 'inherit'], cwd: root })
    let text = ''
    child.stdout.on('data', (chunk) => (text += chunk))
    return new Promise<{ check: Check; code: number | null; took: number }>((resolve) =>
      child.on('close', (code) =>
        resolve({ check: find(JSON.parse(text).checks, 'glance'), code, took: performance.now() - start }),
      ),
    )
  }
  it('does not keep the program from its end where it accepts and is silent', async () => {
    const server = createServer(() => {})
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { check, code, took } = await run(`glance:http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    server.close()
    assert.deepEqual([check.status, code], ['missing', 1])
    assert.match(check.found ?? '', /no answer within 3 s$/)
    assert.ok(took < 9000, `took ${took} ms`)
  })
  it('does not keep the program from its end where its name server is silent', async () => {
    const server = createSocket('udp4')
    await new Promise<void>((resolve) => server.bind(53, '127.0.0.57', resolve))
    const file = join(directory, 'resolv.conf')
    writeFileSync(file, 'nameserver 127.0.0.57\noptions timeout:15 attempts:2\n')
    const apart = ['unshare', '-m', 'sh', '-c', `mount --bind '${file}' /etc/resolv.conf && exec "$@"`, 'sh']
    const { check, code, took } = await run('glance:http://glance.example:9292', apart)
    server.close()
    rmSync(file)
    assert.deepEqual([check.status, code], ['missing', 1])
    assert.match(check.found ?? '', /no answer within 3 s$/)
    assert.ok(took < 9000, `took ${took} ms`)
  })
})

/** A byte now and then. */
function drip(_: unknown, response: ServerResponse): true {
  response.writeHead(200, { 'content-type': 'application/json' })
  const more = setInterval(() => response.write(' '), 100)
  response.on('close', () => clearInterval(more))
  return true
}

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

  const mended: [upstream: string, debian: string | undefined, then: boolean][] = [
    ['3.4.0', undefined, true],
    ['3.5.0', '3.5.0+ds1-0+deb12u1', true],
    ['3.2.7', '3.2.7-1+deb12u6', true],
    ['3.2.7', '3.2.7-1+deb12u1', false],
    ['3.2.7', '3.2.7-1', false],
    ['3.2.3', '3.2.3-4+deb11u3', true],
    ['3.3.0', '3.3.0-1', false],
  ]
  for (const [upstream, debian, then] of mended)
    it(`rsync ${debian ?? upstream} is ${then ? 'mended' : 'not mended'}`, () =>
      assert.equal(rsyncIsMended(upstream, debian), then))
})
