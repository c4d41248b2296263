import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { root } from '../../build/sh.ts'
import { readQcow2 } from '../../lib/image/qcow2.ts'

// Cleaners at work among those who create and delete: no disk is ever without its base.

const binary = join(root, 'build/out/cowhand')
const here = mkdtempSync(join(tmpdir(), 'cowhand-clean-lab-'))
const instances = join(here, 'instances')
const seconds = 8

async function run(...words: string[]): Promise<{ code: number | null; stderr: string }> {
  const child = spawn(binary, ['--instances', instances, '--store', `dir:${here}/images`, ...words], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
    timeout: 60_000,
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stderr, code] = await Promise.all([text(child.stderr), ended])
  return { stderr, code }
}

before(async () => {
  for (const name of ['one', 'two']) {
    const image = join(here, `${name}.raw`)
    assert.equal(spawnSync('bash', ['-c', `head -c 1M /dev/urandom >${image}`]).status, 0)
    const { code, stderr } = await run('image', 'add', image)
    assert.equal(code, 0, stderr)
  }
})
after(() => rmSync(here, { recursive: true, force: true }))

test('three create and delete without end, two clean all that nobody needs: every disk has its base', async () => {
  const end = performance.now() + seconds * 1000
  let [made, cleaned] = [0, 0]
  const creator = async (name: string, image: string) => {
    while (performance.now() < end) {
      const created = await run('create', name, '--image', image, '--root', '1G', '--swap', '8M')
      assert.equal(created.code, 0, created.stderr)
      for (const disk of ['disk', 'disk.swap']) {
        const base = readQcow2(join(instances, name, disk))?.backing ?? ''
        assert.ok(existsSync(base), `${name}/${disk} has lost ${base}`)
      }
      const deleted = await run('delete', name, '--yes')
      assert.equal(deleted.code, 0, deleted.stderr)
      made += 1
    }
  }
  const cleaner = async () => {
    while (performance.now() < end) {
      const { code, stderr } = await run('cache', 'clean', '--unused-for', '0')
      assert.equal(code, 0, stderr)
      cleaned += 1
    }
  }
  await Promise.all([creator('vm1', 'one'), creator('vm2', 'one'), creator('vm3', 'two'), cleaner(), cleaner()])
  assert.ok(made > 3 && cleaned > 3, `${made} were made, ${cleaned} times it was cleaned`)
  const { code, stderr } = await run('cache', 'clean', '--unused-for', '0')
  assert.equal(code, 0, stderr)
  assert.deepEqual(readdirSync(join(instances, '_base')), [])
})

test('a disk on a block device needs its base, by a link or by a domain', async () => {
  const bases = join(instances, '_base')
  const base = join(bases, 'a'.repeat(40))
  const [overlay, web] = [join(here, 'overlay'), join(instances, 'web')]
  for (const directory of [bases, web]) mkdirSync(directory, { recursive: true })
  for (const path of [base, `${base}.json`]) writeFileSync(path, '{"version": 1}')
  const sh = (script: string): string => {
    const { status, stdout, stderr } = spawnSync('bash', ['-euc', script], { encoding: 'utf8' })
    assert.equal(status, 0, stderr)
    return stdout.trim()
  }
  sh(`qemu-img create -q -u -f qcow2 -F raw -b ${base} ${overlay} 1M; truncate -s 1M ${overlay}`)
  const device = sh(`losetup --find --show --read-only ${overlay}`)
  const isKept = async () => {
    const { code, stderr } = await run('cache', 'clean', '--unused-for', '0')
    assert.equal(code, 0, stderr)
    return existsSync(base)
  }
  try {
    symlinkSync(device, join(web, 'disk'))
    assert.ok(await isKept(), 'by a link')
    rmSync(join(web, 'disk'))
    const source = `<driver name="qemu" type="qcow2"/><source dev="${device}"/>`
    writeFileSync(join(web, 'libvirt.xml'), `<domain><devices><disk type="block">${source}</disk></devices></domain>`)
    assert.ok(await isKept(), 'by a domain')
    rmSync(web, { recursive: true })
    assert.ok(!(await isKept()))
  } finally {
    sh(`losetup --detach ${device}`)
  }
})
