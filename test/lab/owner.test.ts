import assert from 'node:assert/strict'
import { chmodSync, lstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { demoImage } from '../../build/demo-image.ts'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'
import { type Host, startHost } from './host.ts'

// As on a usual host: guests run as a user of their own, and libvirt gives that user the files of a domain. Bases are
// everybody's: they stay root's, so that a guest that broke out of its QEMU cannot write to them.

const uri = 'qemu:///system'
const lab = mkdtempSync(join(tmpdir(), 'cowhand-owner-'))
const instances = join(lab, 'instances')
const env = {
  COWHAND_INSTANCES: instances,
  COWHAND_STORE: `dir:${join(lab, 'images')}`,
  COWHAND_VIRT_TYPE: 'qemu',
  COWHAND_LIBVIRT_URI: uri,
}
let host: Host

async function good(...words: string[]): Promise<Result> {
  const { stdout, stderr } = await host.run([join(root, 'build/out/cowhand'), ...words, '--json'], env)
  const result = JSON.parse(stdout || '{}') as Result
  assert.equal(result.ok, true, result.error?.message ?? stderr)
  return result
}
async function virsh(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(['virsh', '-q', '-c', uri, ...words])
  assert.equal(code, 0, stderr)
  return stdout.trim()
}

const ownerOf = (path: string): string => {
  const { uid, gid, mode } = lstatSync(path)
  return `${uid}:${gid} ${(mode & 0o777).toString(8)}`
}
/** Every base and record in the cache, with its owner and mode. */
const bases = (): string[] =>
  readdirSync(join(instances, '_base')).map((name) => `${name} ${ownerOf(join(instances, '_base', name))}`)

before(async () => {
  chmodSync(lab, 0o755)
  host = await startHost('owner', { user: 'libvirt-qemu', group: 'kvm' })
  await good('image', 'add', demoImage(), '--name', 'demo')
})
after(async () => {
  await host?.stop()
  rmSync(lab, { recursive: true, force: true })
})

const template = `<domain type='qemu'><name>x</name><memory unit='MiB'>256</memory><os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/x'/><target dev='vda' bus='virtio'/></disk>
    <serial type='pty'><log file='/srv/console.log' append='on'/><target port='0'/></serial>
  </devices></domain>`

for (const [how, name] of [
  ['our own definition', 'plain'],
  ["the operator's", 'edited'],
] as const)
  test(`bases stay root's while a guest runs with ${how}, and it boots from them`, async () => {
    const xml = join(lab, 'template.xml')
    writeFileSync(xml, template)
    const more = name === 'edited' ? ['--xml', xml] : ['--network', 'none', '--memory', '256M']
    const words = ['create', name, '--image', 'demo', '--root', '2G', '--ephemeral', '1G', '--swap', '64M', ...more]
    await good(...words, '--domain', 'define')
    const before = bases()
    assert.ok(before.length === 6 && before.every((line) => line.endsWith(' 0:0 644')), before.join('\n'))

    await good(...words)
    const disk = join(instances, name, 'disk')
    const uid = Number((await host.run(['id', '-u', 'libvirt-qemu'])).stdout)
    assert.equal(lstatSync(disk).uid, uid, 'libvirt gives the overlay to the user that QEMU runs as')
    assert.deepEqual(bases(), before)

    const log = () => readFileSync(join(instances, name, 'console.log'), 'utf8').replaceAll('\r', '')
    const end = performance.now() + 120_000
    while ((await virsh('domstate', name)) !== 'shut off' && performance.now() < end) await sleep(200)
    for (const heard of ['vda 2147483648 bytes', 'mounted LABEL=ephemeral0', 'swapon /dev/vdc'])
      assert.match(log(), new RegExp(`^guest: ${heard}`, 'm'))
    assert.deepEqual([ownerOf(disk), bases()], ['0:0 600', before])

    await good('delete', name, '--yes')
    assert.deepEqual(bases(), before)
  })

test('without the chain libvirt gives the base away: this is what the definition prevents', async () => {
  await good('create', 'old', '--image', 'demo', '--root', '2G', '--network', 'none', '--domain', 'none')
  const path = join(instances, 'old/libvirt.xml')
  const chain = /\s*<backingStore type='file'>.*<\/backingStore>/s
  const xml = readFileSync(path, 'utf8')
  assert.match(xml, chain)
  writeFileSync(path, xml.replace(chain, ''))
  const before = bases()
  await good('create', 'old', '--image', 'demo', '--root', '2G', '--network', 'none')
  assert.notDeepEqual(bases(), before)
  await virsh('destroy', 'old')
})
