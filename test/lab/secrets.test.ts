import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, test } from 'node:test'
import { root } from '../../build/sh.ts'

// What is given to cowhand as a secret is in no process's words, in nothing that is printed, and in no file that others
// may read.

const lab = mkdtempSync(join(tmpdir(), 'cowhand-secrets-'))
const file = (name: string) => join(lab, name)
const secret = 'SECRET-4711'

const server = createServer((request, response) => {
  const isImage = request.url?.startsWith('/blank.qcow2') === true && request.url.includes(secret)
  response.writeHead(isImage ? 200 : 404).end(isImage ? readFileSync(file('blank.qcow2')) : '')
})
let url = ''
before(async () => {
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', file('blank.qcow2'), '16M'])
  writeFileSync(file('user-data'), `#cloud-config\npassword: ${secret}\n`)
  writeFileSync(
    file('domain.xml'),
    `<domain type='kvm'><name>x</name><memory>65536</memory><os><type>hvm</type></os>
    <devices><graphics type='vnc' passwd='${secret}'/></devices></domain>`,
  )
  await once(server.listen(0, '127.0.0.1'), 'listening')
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/blank.qcow2?signature=${secret}`
})
after(() => {
  server.close()
  rmSync(lab, { recursive: true, force: true })
})

/** Run the binary under strace. @returns all that it said, and the words of every program that it started */
async function traced(...words: string[]): Promise<{ code: number; said: string; started: string[] }> {
  const strace = ['strace', '-f', '-qq', '-e', 'trace=execve', '-s', '100000', '-o', file('trace')]
  const env = {
    PATH: process.env['PATH'] ?? '',
    COWHAND_INSTANCES: file('instances'),
    COWHAND_STORE: `dir:${file('images')}`,
  }
  const [program = '', ...rest] = [...strace, join(root, 'build/out/cowhand'), ...words]
  const child = spawn(program, rest, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  const started = readFileSync(file('trace'), 'utf8')
    .split('\n')
    .filter((line) => line.includes('execve('))
  return { code, said: out + err, started: started.slice(1) } // the first is cowhand itself, with the operator's words
}

/** Files that anybody may read, with what they hold. */
const readable = (directory: string): [name: string, content: string][] =>
  readdirSync(directory, { recursive: true, encoding: 'utf8' }).flatMap((name): [string, string][] => {
    const facts = statSync(join(directory, name))
    const isOpen = facts.isFile() && (facts.mode & 0o004) !== 0
    return isOpen ? [[name, readFileSync(join(directory, name), 'latin1')]] : []
  })

for (const how of [['--json', '--progress', 'json'], ['--verbose'], ['--dry-run'], ['--dry-run', '--json']])
  test(`create ${how.join(' ')}`, async () => {
    rmSync(file('instances'), { recursive: true, force: true })
    const checksum = `sha256:${createHash('sha256')
      .update(readFileSync(file('blank.qcow2')))
      .digest('hex')}`
    const { code, said, started } = await traced(
      ...['create', 'web1', '--image', url, '--image-format', 'qcow2', '--checksum', checksum, '--root', '64M'],
      ...['--user-data', file('user-data'), '--xml', file('domain.xml'), ...how],
    )
    assert.equal(code, 0, said)
    assert.doesNotMatch(said, new RegExp(secret))
    if (how.includes('--dry-run')) return
    assert.ok(started.some((line) => line.includes('"qemu-img"')) && started.some((line) => /iso/.test(line)))
    for (const line of started) assert.doesNotMatch(line, new RegExp(secret))
    for (const [name, content] of readable(file('instances'))) assert.ok(!content.includes(secret), name)
    assert.match(readFileSync(file('instances/web1/disk.config'), 'latin1'), new RegExp(secret), 'the guest gets it')
    assert.match(readFileSync(file('instances/web1/libvirt.xml'), 'utf8'), new RegExp(secret))
  })

for (const [when, words] of [
  ['a URL that does not answer', () => ['--image', url.replace('/blank', '/none')]],
  ['a URL with a password', () => ['--image', url.replace('http://', `http://me:${secret}@`)]],
  ['a checksum that is wrong', () => ['--image', url, '--checksum', `sha256:${'0'.repeat(64)}`]],
  ['a URL that nothing vouches for', () => ['--image', url]],
] as const)
  test(`an error: ${when}`, async () => {
    const { code, said } = await traced(
      'create',
      'web2',
      ...words(),
      '--image-format',
      'qcow2',
      '--root',
      '64M',
      '--verbose',
      '--json',
    )
    assert.notEqual(code, 0)
    assert.match(said, /Cannot /)
    assert.doesNotMatch(said, new RegExp(secret))
  })
