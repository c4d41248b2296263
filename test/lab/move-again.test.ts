import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { done, good, inside } from './moving.ts'
import { awaitConsole, type Pair, type PairHost, startPair } from './pair.ts'
import { patternImage } from './pattern-guest.ts'

// What a move must not lose after it was done: what its guest has written since, and what libvirt keeps of it.

const small = ['--root', '64M', '--memory', '64M', '--network', 'none']
const words = (line: string): string[] => line.split(' ')
const homes = (host: PairHost, name: string): string[] =>
  readdirSync(host.file(host.instances)).filter((home) => home.startsWith(name))
const stateOn = (host: PairHost, name: string): Promise<string> =>
  host.virsh('domstate', name).catch((error) => (/failed to get domain/.test(`${error}`) ? 'unknown' : `${error}`))

async function refused(host: PairHost, line: string, code: string, message: RegExp): Promise<void> {
  const { error } = await host.cowhand(words(line))
  assert.equal(error?.code, code, error?.message)
  assert.match(`${error?.message}; ${error?.remedy}`, message)
}

/** As by a SIGKILL just before the last thing was written down. */
function unfinished(host: PairHost, home: string): void {
  const path = host.file(inside(host, home, 'instance.json'))
  writeFileSync(path, readFileSync(path, 'utf8').replace('"done"', '"handed-over"'))
}

async function addImage(...hosts: PairHost[]): Promise<void> {
  for (const host of hosts) {
    await good(host, 'qemu-img', 'create', '-q', '-f', 'raw', '/var/lib/cowhand/blank.raw', '16M')
    await done(host, ...words('image add /var/lib/cowhand/blank.raw --name blank'))
  }
}

/** A guest that is off, with a UEFI. @param nvram where its variables are [libvirt's own place] @param devices XML */
async function addUefi(host: PairHost, name: string, nvram = '', devices = ''): Promise<void> {
  const os = `<type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader><nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>${nvram}</nvram>`
  const xml = `<domain type='qemu'><name>any</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os>${os}</os><features><acpi/></features><devices>${devices}</devices></domain>`
  writeFileSync(host.file(`/var/lib/cowhand/${name}.xml`), xml)
  const more = ['--xml', `/var/lib/cowhand/${name}.xml`, '--domain', 'define']
  await done(host, 'create', name, '--image', 'blank', '--root', '64M', ...more)
}

const usual = (name: string): string => `/var/lib/libvirt/qemu/nvram/${name}_VARS.fd`
async function remember(host: PairHost, path: string, bytes: Buffer): Promise<void> {
  writeFileSync(host.file('/var/lib/cowhand/variables'), bytes)
  await good(host, 'mkdir', '-p', dirname(path))
  await good(host, 'cp', '/var/lib/cowhand/variables', path)
}
async function remembered(host: PairHost, path: string): Promise<Buffer | undefined> {
  const { code } = await host.run(['cp', path, '/var/lib/cowhand/variables'])
  return code === 0 ? readFileSync(host.file('/var/lib/cowhand/variables')) : undefined
}

describe('two hosts', () => {
  let pair: Pair
  let a: PairHost
  let b: PairHost
  before(async () => {
    pair = await startPair()
    a = pair.a
    b = pair.b
    await addImage(a, b)
  })
  after(() => pair?.stop())

  test('one that was resized where it went is neither dropped nor started where it came from', async () => {
    await done(a, 'create', 'on', '--image', 'blank', ...small)
    await done(a, ...words('migrate on --to beta --shutdown-timeout 0'))
    await done(b, ...words('resize on --root 96M --shutdown-timeout 0'))
    await refused(a, 'confirm on', 'INSTANCE_NOT_FOUND', /confirm on --without-host/)
    await refused(a, 'revert on --yes', 'INSTANCE_NOT_FOUND', /may have been moved on.*--without-host/)
    unfinished(a, 'on_resize')
    await refused(a, 'revert on --yes', 'DESTINATION_EXISTS', /Cannot undo .*on beta.*resized or moved again/)
    await done(b, ...words('confirm on'))
    await refused(a, 'revert on --yes', 'DESTINATION_EXISTS', /resized or moved again/)
    assert.deepEqual([await stateOn(a, 'on'), await stateOn(b, 'on')], ['unknown', 'running'])
    assert.deepEqual([homes(a, 'on'), homes(b, 'on')], [['on_resize'], ['on']])
  })

  for (const { name, line, on } of [
    { name: 'here', line: 'resize here --root 96M', on: () => a },
    { name: 'there', line: 'migrate there --to beta', on: () => b },
  ])
    test(`what a guest wrote since an earlier run is not lost when a later one fails: ${name}`, async () => {
      await done(a, 'create', name, '--image', 'blank', ...small)
      await done(a, ...words(`${line} --shutdown-timeout 0`))
      unfinished(a, `${name}_resize`)
      await on().virsh('suspend', name)
      await refused(a, `${line} --start-timeout 1s`, 'NOT_SETTLED', /had arrived before.*cowhand revert/s)
      assert.deepEqual([homes(on(), name).includes(name), await stateOn(on(), name)], [true, 'paused'])
      await on().virsh('resume', name)
      await done(a, ...words(line))
      await done(a, ...words(`revert ${name} --yes`))
      assert.deepEqual([homes(a, name), await stateOn(a, name)], [[name], 'running'])
    })

  test('a guest that was just switching itself off when it was interrupted runs afterwards', async () => {
    await done(a, 'image', 'add', await patternImage(), '--name', 'pattern')
    await done(a, ...words('create off --image pattern --root 96M --memory 128M --network none'))
    await awaitConsole(a, 'off', /PATTERN WRITTEN at boot 1/)
    // It stands still for a while, as soon as it has heard: so it takes its time to go off.
    const script = `cowhand resize off --root 128M 2>&1 &
      until grep -q 'power button' "$1"; do sleep 0.01; done; kill -STOP $2; kill $!; sleep 5; kill -CONT $2; wait $!`
    const qemu = (await good(a, 'cat', '/run/libvirt/qemu/off.pid')).trim()
    const { stdout } = await a.run(['bash', '-c', script, 'bash', inside(a, 'off', 'console.log'), qemu])
    assert.match(stdout, /interrupted by SIGTERM.*undone: off is as it was, and it runs/s)
    // What was told to go off would be off by now.
    await sleep(5000)
    assert.deepEqual([homes(a, 'off'), await stateOn(a, 'off')], [['off'], 'running'])
  })

  test('what a TPM remembers goes along, and comes back', async () => {
    await addUefi(a, 'tpm', '', "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>")
    const { uuid } = (await done(a, 'show', 'tpm')) as unknown as { uuid: string }
    const [state, secret] = [`/var/lib/libvirt/swtpm/${uuid}/tpm2/tpm2-00.permall`, randomBytes(6000)]
    await remember(a, state, secret)
    await done(a, ...words('migrate tpm --to beta'))
    assert.deepEqual([await remembered(a, state), await remembered(b, state)], [undefined, secret])
    await done(a, ...words('revert tpm --yes'))
    assert.deepEqual([await remembered(a, state), await remembered(b, state)], [secret, undefined])
  })

  test("a UEFI's variables stay where they are on the same host, be it another place than libvirt's own", async () => {
    const nvram = '/var/lib/libvirt/qemu/nvram/of-old.fd'
    const variables = randomBytes(2 ** 16)
    await addUefi(a, 'uefi', nvram)
    await remember(a, nvram, variables)
    await done(a, ...words('resize uefi --root 96M'))
    assert.ok((await a.virsh('dumpxml', 'uefi')).includes(`>${nvram}</nvram>`))
    assert.deepEqual(await remembered(a, nvram), variables)
    await done(a, ...words('revert uefi --yes'))
    assert.deepEqual(await remembered(a, nvram), variables)
  })
})

describe('shared storage', () => {
  let pair: Pair
  let a: PairHost
  let b: PairHost
  before(async () => {
    pair = await startPair({ shared: true })
    a = pair.a
    b = pair.b
    await addImage(a)
  })
  after(() => pair?.stop())

  test("a UEFI's variables go along, and come back as they are by then", async () => {
    const [first, second] = [randomBytes(2 ** 16), randomBytes(2 ** 16)]
    await addUefi(a, 'uefi')
    await remember(a, usual('uefi'), first)
    await done(a, ...words('migrate uefi --to beta'))
    assert.deepEqual([await remembered(a, usual('uefi')), await remembered(b, usual('uefi'))], [undefined, first])
    await remember(b, usual('uefi'), second)
    await done(a, ...words('revert uefi --yes'))
    assert.deepEqual([await remembered(a, usual('uefi')), await remembered(b, usual('uefi'))], [second, undefined])
  })

  test('also of a larger one, which comes back as it was', async () => {
    const [first, second] = [randomBytes(2 ** 16), randomBytes(2 ** 16)]
    await addUefi(a, 'larger')
    await remember(a, usual('larger'), first)
    await done(a, ...words('resize larger --root 96M --to beta'))
    assert.deepEqual([await remembered(a, usual('larger')), await remembered(b, usual('larger'))], [undefined, first])
    await remember(b, usual('larger'), second)
    await done(a, ...words('revert larger --yes'))
    assert.deepEqual([await remembered(a, usual('larger')), await remembered(b, usual('larger'))], [first, undefined])
    await done(a, ...words('resize larger --root 96M --to beta'))
    await done(a, ...words('confirm larger'))
    assert.deepEqual([homes(a, 'larger'), await remembered(b, usual('larger'))], [['larger'], first])
  })

  test('before its guest is started there, it is nothing that could start here by itself', async () => {
    await done(a, 'create', 'auto', '--image', 'blank', ...small)
    await a.virsh('autostart', 'auto')
    const { steps = [] } = await a.cowhand(words('migrate auto --to beta --shutdown-timeout 0'))
    const at = (step: string, about = '') =>
      steps.findIndex((its) => its.step === step && (its.about ?? '').includes(about) && its.changed)
    assert.ok(at('undefine-domain') >= 0 && at('undefine-domain') < at('ask-destination', 'finish'))
    assert.deepEqual([await stateOn(a, 'auto'), await stateOn(b, 'auto')], ['unknown', 'running'])
    // Both see what is in hand.
    for (const verb of ['confirm', 'revert'])
      await refused(b, `${verb} auto --yes`, 'UNSUPPORTED', /alpha has begun its move; run it there/)
    await done(a, ...words('revert auto --yes'))
    assert.deepEqual([await stateOn(a, 'auto'), await stateOn(b, 'auto')], ['running', 'unknown'])
    assert.match(await a.virsh('dominfo', 'auto'), /^Autostart: +enable$/m)
  })

  test('a move that was begun with the same files does not go on without', async () => {
    await done(a, 'create', 'gone', '--image', 'blank', ...small)
    await done(a, ...words('migrate gone --to beta --shutdown-timeout 0'))
    unfinished(a, 'gone')
    const path = a.file(inside(a, 'gone', 'instance.json'))
    const text = readFileSync(path, 'utf8')
    const record = JSON.parse(text)
    delete record.task.shared
    writeFileSync(path, JSON.stringify(record))
    await refused(a, 'migrate gone --to beta', 'UNSUPPORTED', /did not see the same files, and now it does/)
    writeFileSync(path, text)
    await done(a, ...words('migrate gone --to beta'))
    await done(a, ...words('confirm gone'))
    assert.deepEqual([await stateOn(a, 'gone'), await stateOn(b, 'gone')], ['unknown', 'running'])
  })
})
