import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { demoImage } from '../../build/demo-image.ts'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'
import { type Host, startHost } from './host.ts'
import { canonical } from './xml.ts'

// The binary with a real libvirtd: every guest here is emulated (TCG), on a host of its own.

const uri = 'qemu:///system'
const lab = mkdtempSync(join(tmpdir(), 'cowhand-libvirt-'))
const instances = join(lab, 'instances')
const offline = { COWHAND_INSTANCES: instances, COWHAND_STORE: `dir:${join(lab, 'images')}`, COWHAND_VIRT_TYPE: 'qemu' }
const online = { ...offline, COWHAND_LIBVIRT_URI: uri }
let host: Host

const file = (name: string, text: string): string => {
  const path = join(lab, name)
  writeFileSync(path, text)
  return path
}
const inside = (name: string, ...path: string[]): string => join(instances, name, ...path)
const read = (name: string, path: string): string => readFileSync(inside(name, path), 'utf8')

/** Run the binary. @returns its exit code and its result document */
async function cowhand(
  words: string[],
  env: Record<string, string> = online,
): Promise<Partial<Result> & { code: number | null }> {
  const { code, stdout, stderr } = await host.run([join(root, 'build/out/cowhand'), ...words, '--json'], env)
  assert.notEqual(stdout, '', stderr)
  return { code, ...(JSON.parse(stdout) as Result) }
}

async function good(words: string[], env?: Record<string, string>): Promise<Partial<Result>> {
  const result = await cowhand(words, env)
  assert.equal(result.code, 0, result.error?.message)
  return result
}

async function virsh(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(['virsh', '-q', '-c', uri, ...words])
  assert.equal(code, 0, stderr)
  return stdout.trim()
}
const state = (name: string): Promise<string> => virsh('domstate', name)
const domains = async (): Promise<string[]> => (await virsh('list', '--all', '--name')).split('\n').sort()

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  const end = performance.now() + 120_000
  while (!(await holds())) {
    assert.ok(performance.now() < end, `after 120 s it was still not so: ${what}`)
    await sleep(100)
  }
}

/** Everything below a directory, but the locks, which come and go: each file's mode, size, inode and time of writing. */
function tree(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => !/^(instances\/)?locks/.test(name))
    .sort()
    .map((name) => {
      const { mode, size, ino, mtimeNs } = lstatSync(join(directory, name), { bigint: true })
      return `${name} ${mode.toString(8)} ${size} ${ino} ${mtimeNs}`
    })
}

/** The chain as a definition names it, so that the base stays its owner's. */
const chain = (base: string): string =>
  `<backingStore type='file'><format type='raw'/><source file='${base}'><seclabel model='dac' relabel='no'/></source><backingStore/></backingStore>`
const baseOf = async (image: string): Promise<string> =>
  ((await good(['image', 'show', image])) as unknown as { base: { path: string } }).base.path

/** An instance on a disk that nothing boots from: its guest runs for as long as it is let. */
const idle = (name: string, ...more: string[]): string[] => [
  'create',
  name,
  '--image',
  'blank',
  '--root',
  '64M',
  '--memory',
  '64M',
  '--network',
  'none',
  ...more,
]
/** An instance whose guest says what it sees, and powers itself off. */
const talking = (name: string, ...more: string[]): string[] => [
  'create',
  name,
  '--image',
  'demo',
  '--root',
  '2G',
  '--memory',
  '256M',
  '--network',
  'none',
  ...more,
]

before(async () => {
  host = await startHost('lab')
  const blank = join(lab, 'blank.qcow2')
  assert.equal((await host.run(['qemu-img', 'create', '-q', '-f', 'qcow2', blank, '16M'])).code, 0)
  await good(['image', 'add', blank, '--name', 'blank'])
  await good(['image', 'add', demoImage(), '--name', 'demo'])
})
// A guest that nothing boots still takes memory, and some time.
afterEach(async () => {
  for (const uuid of (await virsh('list', '--uuid')).split('\n').filter(Boolean)) await virsh('destroy', uuid)
})
after(async () => {
  await host?.stop()
  rmSync(lab, { recursive: true, force: true })
})

describe('create', () => {
  const userData = file('user-data', '#cloud-config\n# hello from the lab\n')
  const vm1 = talking('vm1', '--ephemeral', '1G', '--swap', '256M', '--user-data', userData)

  test('starts the guest where libvirt_uri is set, and the guest sees its disks', async () => {
    const { changed } = await good(vm1)
    assert.equal(changed, true)
    assert.equal(await state('vm1'), 'running')
    await until('the guest powered itself off', async () => (await state('vm1')) === 'shut off')
    const lines = read('vm1', 'console.log').replaceAll('\r', '').split('\n')
    const heard = (words: string): void =>
      assert.ok(
        lines.some((line) => line.startsWith(`guest: ${words}`)),
        `no "${words}" in:\n${lines.join('\n')}`,
      )
    heard('vda 2147483648 bytes')
    heard('vdb 1073741824 bytes')
    heard('vdc 268435456 bytes')
    heard('mounted LABEL=ephemeral0 (/dev/vdb, ext4')
    heard('swapon /dev/vdc')
    heard('user-data: # hello from the lab')
    assert.equal(lstatSync(inside('vm1', 'console.log')).mode & 0o777, 0o660)
  })

  test('gives libvirt the disks that the layout says, and nothing it does not know', async () => {
    // Where on the bus each is, is libvirt's own choice.
    const dumped = (await virsh('dumpxml', '--inactive', 'vm1')).replace(/<address [^>]*>/g, '')
    const disks = (dumped.match(/<disk .*?<\/disk>/gs) ?? []).map(canonical)
    const disk = (path: string, target: string, base: string) =>
      `<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='${inside('vm1', path)}'/>${chain(base)}<target dev='${target}' bus='virtio'/></disk>`
    const seed = `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${inside('vm1', 'disk.config')}'/><target dev='sda' bus='scsi'/><readonly/></disk>`
    assert.deepEqual(
      disks,
      [
        disk('disk', 'vda', await baseOf('demo')),
        disk('disk.local', 'vdb', inside('_base', 'ephemeral_0_1_linux')),
        disk('disk.swap', 'vdc', inside('_base', 'swap_256')),
        seed,
      ].map(canonical),
    )
    // --validate: against libvirt's own schema.
    await virsh('define', '--validate', inside('vm1', 'libvirt.xml'))
  })

  test('a second time changes nothing, and leaves the running guest alone', async () => {
    await good(idle('again', '--swap', '16M'))
    const [id, before] = [await virsh('domid', 'again'), tree(lab)]
    const { changed, steps } = await good(idle('again', '--swap', '16M'))
    assert.equal(changed, false)
    assert.deepEqual([...new Set(steps?.map(({ status }) => status))], ['ok'])
    assert.deepEqual(tree(lab), before)
    assert.equal(await virsh('domid', 'again'), id)
    assert.equal(await state('again'), 'running')
  })

  test('--domain none keeps libvirt out, define makes it known, start goes on from there', async () => {
    await good(idle('stages', '--domain', 'none'))
    assert.ok(!(await domains()).includes('stages'))
    await good(idle('stages', '--domain', 'define'))
    assert.equal(await state('stages'), 'shut off')
    assert.equal((await good(idle('stages', '--domain', 'define'))).changed, false)
    await good(idle('stages', '--domain', 'start'))
    assert.equal(await state('stages'), 'running')
  })

  const foreign = (name: string) =>
    file(
      `${name}.xml`,
      `<domain type='qemu'><name>${name}</name><memory>65536</memory><os><type>hvm</type></os></domain>`,
    )

  test('a foreign domain of the same name is left alone, and nothing is made', async () => {
    await virsh('define', foreign('taken'))
    const [xml, before] = [await virsh('dumpxml', 'taken'), tree(lab)]
    const { code, changed, error } = await cowhand(idle('taken'))
    assert.deepEqual([code, error?.code, changed], [3, 'DOMAIN_EXISTS', false])
    assert.deepEqual(tree(lab), before)
    assert.equal(await virsh('dumpxml', 'taken'), xml)
  })

  test('a name that is the id of a running guest means the name', async () => {
    await good(idle('other'))
    const id = await virsh('domid', 'other')
    await good(idle(id))
    assert.equal(await virsh('domname', await virsh('domid', id)), id)
    assert.equal((await good(idle(id))).changed, false)
    await good(['delete', id, '--yes'])
    assert.equal(await state('other'), 'running')
    assert.ok(!(await domains()).includes(id))
  })

  const refused: {
    when: string
    words: string[]
    env?: Record<string, string>
    answer: [exit: number, code: string]
  }[] = [
    { when: 'a name that is not ASCII', words: idle('häuschen'), answer: [2, 'BAD_SPEC'] },
    { when: 'a name that is markup', words: idle('a<b'), answer: [2, 'BAD_SPEC'] },
    { when: 'a network that is markup', words: idle('vm9', '--network', "x'/><y"), answer: [2, 'BAD_SPEC'] },
    { when: 'a network that is not ASCII', words: idle('vm9', '--network', 'bridge:bré'), answer: [2, 'BAD_SPEC'] },
    {
      when: 'libvirt out of reach',
      words: idle('vm9', '--swap', '32M'),
      env: { ...online, COWHAND_LIBVIRT_URI: 'qemu+unix:///system?socket=/nonexistent' },
      answer: [1, 'TOOL_FAILED'],
    },
  ]
  for (const { when, words, env, answer } of refused)
    test(`${when}: one sentence and a remedy, and nothing is made`, async () => {
      const before = tree(lab)
      const { code, error } = await cowhand(words, env)
      assert.deepEqual([code, error?.code], answer)
      assert.match(error?.message ?? '', /^Cannot [^\n]+$/)
      assert.match(error?.remedy ?? '', /^[^\n]+$/)
      assert.deepEqual(tree(lab), before)
    })
})

describe('create --xml', () => {
  const disk = (source: string, more = '', driver = '') =>
    `<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'${driver}/>${source}${more}</disk>`
  /** A definition as an operator has it; the arguments are what cowhand puts in. */
  const definition = (name: string, uuid: string, vda: string, added: string) => `<?xml version="1.0"?>
<!-- kept by the operators -->
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${name}</name>
  <uuid>${uuid}</uuid>
  <title>web &amp; mail</title>
  <description><![CDATA[a <quoted> text]]></description>
  <metadata>
    <ops:owner xmlns:ops='https://example.org/ops' ops:team='α'>Jürgen &lt;j@example.org&gt;</ops:owner>
  </metadata>
  <memory unit='KiB'>65536</memory>
  <vcpu placement='static'>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <nobody-knows-this since='2031'><inner/>text</nobody-knows-this>
  <devices>
    <!-- the root disk -->
    ${vda}
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd' name='volume'><host name='127.0.0.1' port='10809'/></source>
      <target dev='vdb' bus='virtio'/>
    </disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/dev/null'/><target dev='vdz' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/dev/null'/><target dev='sda' bus='sata'/></disk>
    <serial type='pty'/>
    ${added}
  </devices>
  <qemu:commandline>
    <qemu:arg value='-msg'/>
    <qemu:arg value='timestamp=on'/>
  </qemu:commandline>
</domain>
`
  const theirs = definition(
    'template',
    '11111111-2222-4333-8444-555555555555',
    disk(
      "<source file='/srv/template.qcow2'/><target dev='vda' bus='virtio'/>",
      "<boot order='1'/><iotune><read_iops_sec>500</read_iops_sec></iotune>",
      " discard='unmap'",
    ),
    '',
  )

  test('puts in the name, the uuid and our disks; all else stays, and libvirt takes it', async () => {
    const xml = file('theirs.xml', theirs)
    await good([
      'create',
      'own',
      '--image',
      'blank',
      '--root',
      '64M',
      '--ephemeral',
      '32M',
      '--swap',
      '32M',
      '--user-data',
      file('seed', ''),
      '--xml',
      xml,
      '--domain',
      'define',
    ])
    const { uuid } = JSON.parse(read('own', 'instance.json')) as { uuid: string }
    const vda = disk(
      `<source file='${inside('own', 'disk')}'/>${chain(await baseOf('blank'))}<target dev='vda' bus='virtio'/>`,
      "<boot order='1'/><iotune><read_iops_sec>500</read_iops_sec></iotune>",
      " discard='unmap'",
    )
    // A volume has the place of the ephemeral disk: then there is none, and swap comes after it.
    const vdc = disk(
      `<source file='${inside('own', 'disk.swap')}'/>${chain(inside('_base', 'swap_32'))}<target dev='vdc' bus='virtio'/>`,
    )
    const seed = `<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='${inside('own', 'disk.config')}'/><target dev='sdb' bus='scsi'/><readonly/></disk>
      <controller type='scsi' index='0' model='virtio-scsi'/>`
    assert.equal(canonical(read('own', 'libvirt.xml')), canonical(definition('own', uuid, vda, vdc + seed)))
    assert.ok(!existsSync(inside('own', 'disk.local')))
    assert.equal(await virsh('domuuid', 'own'), uuid)
    const known = canonical(await virsh('dumpxml', 'own'))
    assert.match(known, /<ops:owner ops:team="α" xmlns:ops="https:\/\/example.org\/ops">\s*Jürgen/)
    assert.match(known, /<qemu:arg value="timestamp=on">/)
  })

  test('takes the definition of a running instance, and leaves that one its disks and its console', async () => {
    const disks = ['--swap', '32M', '--user-data', file('seed', '')]
    await good(idle('first', ...disks))
    const xml = file('dumped.xml', await virsh('dumpxml', 'first'))
    await good(['create', 'second', '--image', 'blank', '--root', '64M', ...disks, '--xml', xml])
    assert.deepEqual([await state('first'), await state('second')], ['running', 'running'])
    const paths = (await virsh('domblklist', 'second')).split('\n').map((line) => line.trim().split(/\s+/)[1])
    const logs = (await virsh('dumpxml', 'second')).match(/<log file='[^']*/g)
    assert.deepEqual([...new Set(logs)], [`<log file='${inside('second', 'console.log')}`])
    assert.deepEqual(paths, [inside('second', 'disk'), inside('second', 'disk.swap'), inside('second', 'disk.config')])
  })

  test('a volume where one of our disks goes is refused, and nothing is made', async () => {
    const xml = file(
      'full.xml',
      theirs
        .replace("dev='vdz'", "dev='vdc'")
        .replace(
          "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file",
          "<disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev",
        ),
    )
    const before = tree(lab)
    const { code, error } = await cowhand([
      'create',
      'full',
      '--image',
      'blank',
      '--root',
      '64M',
      '--swap',
      '32M',
      '--xml',
      xml,
    ])
    assert.deepEqual([code, error?.code], [3, 'UNSUPPORTED'])
    assert.deepEqual(tree(lab), before)
  })
})

describe('delete', () => {
  test('ends a running guest, forgets its domain and removes its disks; the bases stay, and again there is nothing to do', async () => {
    await good(idle('gone', '--swap', '16M'))
    // The time of a record tells when its base was last needed.
    const bases = () => tree(join(instances, '_base')).filter((line) => !line.includes('.json '))
    const before = bases()
    await good(['delete', 'gone', '--yes'])
    assert.ok(!(await domains()).includes('gone'))
    assert.ok(!existsSync(inside('gone')))
    assert.deepEqual(bases(), before)
    const { changed } = await good(['delete', 'gone', '--yes'])
    assert.equal(changed, false)
  })

  test('a running guest keeps its disks where libvirt is not configured', async () => {
    await good(idle('busy'))
    const before = tree(inside('busy'))
    const { code, error } = await cowhand(['delete', 'busy', '--yes'], offline)
    assert.deepEqual([code, error?.code], [3, 'IN_USE'])
    assert.deepEqual(tree(inside('busy')), before)
    assert.equal(await state('busy'), 'running')
  })

  test('an instance stays whole where libvirt is out of reach', async () => {
    await good(idle('whole'))
    const before = tree(lab)
    const { code, error } = await cowhand(['delete', 'whole', '--yes'], {
      ...online,
      COWHAND_LIBVIRT_URI: 'qemu+unix:///system?socket=/nonexistent',
    })
    assert.deepEqual([code, error?.code], [1, 'TOOL_FAILED'])
    assert.deepEqual(tree(lab), before)
  })

  test('the older parts of a console that libvirt rotated go too', async () => {
    await good(talking('chatty', '--user-data', file('long', `#cloud-config\n${'# so much to say\n'.repeat(400)}`)))
    await until('the guest powered itself off', async () => (await state('chatty')) === 'shut off')
    assert.ok(existsSync(inside('chatty', 'console.log.0')))
    await good(['delete', 'chatty', '--yes'])
    assert.ok(!existsSync(inside('chatty')))
  })
})

test('a host of the lab ends with the process that started it, even when that is killed', async () => {
  const script = `import(${JSON.stringify(join(import.meta.dirname, 'host.ts'))}).then((m) => m.startHost('orphan')).then((h) => console.log(h.pid))`
  const env = { ...process.env, TMPDIR: lab }
  const child = spawn(process.execPath, ['--import', 'tsx', '--eval', script], {
    cwd: root,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [said] = (await once(child.stdout, 'data')) as [Buffer]
  const networkOf = (pid: string): string => {
    try {
      return readlinkSync(`/proc/${pid}/ns/net`)
    } catch {
      return 'it has ended'
    }
  }
  const its = networkOf(String(said).trim())
  const inside = () => readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && networkOf(pid) === its)
  assert.ok(inside().length >= 4, 'unshare, the first process, virtlogd and libvirtd')
  child.kill('SIGKILL')
  await until('every process of the host is gone', () => inside().length === 0)
})
