import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, beforeEach, describe, test } from 'node:test'
import { domainsIn } from '../../lib/host/libvirt.ts'
import { usageOf } from '../../lib/host/usage.ts'

// Every way in which a base can be needed. The overlays are qemu-img's own; `other` is a base that nobody needs.

const here = mkdtempSync(join(tmpdir(), 'cowhand-usage-'))
const instances = join(here, 'instances')
const link = join(here, 'link')
const base = 'a'.repeat(40)
const other = 'b'.repeat(40)
const swap = 'swap_512'
const inBases = (name: string) => join(instances, '_base', name)

after(() => rmSync(here, { recursive: true, force: true }))
before(() => symlinkSync(instances, link))
beforeEach(() => {
  rmSync(instances, { recursive: true, force: true })
  rmSync(join(here, 'elsewhere'), { recursive: true, force: true })
  for (const name of [base, other, swap]) file(inBases(name), '', 2 ** 20)
  mkdirSync(join(here, 'elsewhere'))
})

/** A file of this size in the tree of the test. */
function file(path: string, content = '', size = content.length): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content, 'latin1')
  truncateSync(path, size)
}

/** As it is made by whoever knows nothing of us. `-u`: the backing file need not be there. */
function overlay(path: string, backing: string, format = 'raw'): void {
  const full = path.startsWith('/') ? path : join(instances, path)
  mkdirSync(dirname(full), { recursive: true })
  const words = ['create', '-q', '-u', '-f', 'qcow2', ...(backing ? ['-F', format, '-b', backing] : []), full, '1M']
  const { status, stderr } = spawnSync('qemu-img', words, { encoding: 'utf8' })
  assert.equal(status, 0, stderr)
}

const domain = (disks: string, uuid = '') => `<domain type='kvm'>
  <name>web1</name>${uuid}
  <memory>1024</memory><os><type>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>${disks}</devices>
</domain>`
const disk = (path: string, device = 'disk', format = 'qcow2') =>
  `<disk type='file' device='${device}'><driver name='qemu' type='${format}'/><source file='${path}'/><target dev='vda'/></disk>`

/** A qcow2 of which only the beginning has come. */
function cut(path: string, backing: string, size: number): void {
  overlay(path, backing)
  truncateSync(join(instances, path), size)
}

const needed: [what: string, make: () => void, users: Record<string, string[]>][] = [
  ['nobody needs anything', () => {}, {}],
  ['a root disk', () => overlay('web1/disk', inBases(base)), { [base]: ['web1/disk'] }],
  ['an ephemeral disk', () => overlay('web1/disk.local', inBases(base)), { [base]: ['web1/disk.local'] }],
  ['a swap disk', () => overlay('web1/disk.swap', inBases(swap)), { [swap]: ['web1/disk.swap'] }],
  [
    'several',
    () => {
      overlay('web2/disk', inBases(base))
      overlay('web1/disk', inBases(base))
    },
    { [base]: ['web1/disk', 'web2/disk'] },
  ],
  [
    'what a resize keeps for going back',
    () => overlay('web1_resize/disk', inBases(base)),
    { [base]: ['web1_resize/disk'] },
  ],
  [
    'what is coming from another host',
    () => overlay('web1.incoming/disk', inBases(base)),
    { [base]: ['web1.incoming/disk'] },
  ],
  ['a delta in the making', () => cut('web1/disk.part', inBases(base), 1000), { [base]: ['web1/disk.part'] }],
  [
    'a delta in the making, by the path that its base has on another host',
    () => cut('web1/disk.part', `/var/lib/nova/instances/_base/${base}`, 5000),
    { [base]: ['web1/disk.part'] },
  ],
  [
    'a delta in the making, by the plain name of its base',
    () => cut('web1/disk.part', base, 5000),
    { [base]: ['web1/disk.part'] },
  ],
  ['a disk of any name', () => overlay('web1/snapshot-of-may', inBases(base)), { [base]: ['web1/snapshot-of-may'] }],
  [
    'a disk in a directory of an instance',
    () => overlay('web1/old/disk', inBases(base)),
    { [base]: ['web1/old/disk'] },
  ],
  ['a disk beside the instances', () => overlay('template.qcow2', inBases(base)), { [base]: ['template.qcow2'] }],
  ['a relative name', () => overlay('web1/disk', `../_base/${base}`), { [base]: ['web1/disk'] }],
  ['a name with a protocol', () => overlay('web1/disk', `file:${inBases(base)}`), { [base]: ['web1/disk'] }],
  [
    'a name in JSON',
    () => overlay('web1/disk', `json:{"driver":"raw","file":{"driver":"file","filename":"${inBases(base)}"}}`),
    { [base]: ['web1/disk'] },
  ],
  [
    'the directory of the instances by a link',
    () => overlay('web1/disk', join(link, '_base', base)),
    { [base]: ['web1/disk'] },
  ],
  [
    'a base by a link of another name',
    () => {
      symlinkSync(inBases(base), join(here, 'elsewhere/link'))
      overlay('web1/disk', join(here, 'elsewhere/link'))
    },
    { [base]: ['web1/disk'] },
  ],
  [
    'a base by a hard link of another name',
    () => {
      linkSync(inBases(base), join(here, 'elsewhere/link'))
      overlay('web1/disk', join(here, 'elsewhere/link'))
    },
    { [base]: ['web1/disk'] },
  ],
  [
    'a disk that was moved away, with a link in its place',
    () => {
      overlay(join(here, 'elsewhere/disk'), inBases(base))
      mkdirSync(join(instances, 'web1'))
      symlinkSync(join(here, 'elsewhere/disk'), join(instances, 'web1/disk'))
    },
    { [base]: ['web1/disk'] },
  ],
  [
    'an instance that was moved away, with a link in its place',
    () => {
      overlay(join(here, 'elsewhere/disk'), inBases(base))
      symlinkSync(join(here, 'elsewhere'), join(instances, 'web1'))
    },
    { [base]: ['web1/disk'] },
  ],
  [
    'a chain through files elsewhere, one of them by a relative name',
    () => {
      overlay(join(here, 'elsewhere/low'), inBases(base))
      overlay(join(here, 'elsewhere/high'), 'low', 'qcow2')
      overlay('web1/disk', join(here, 'elsewhere/high'), 'qcow2')
    },
    { [base]: ['web1/disk'] },
  ],
  [
    'a chain that is a circle',
    () => {
      overlay(join(here, 'elsewhere/low'), join(here, 'elsewhere/high'), 'qcow2')
      overlay(join(here, 'elsewhere/high'), 'low', 'qcow2')
      overlay('web1/disk', join(here, 'elsewhere/high'), 'qcow2')
    },
    {},
  ],
  [
    'a definition alone',
    () => file(join(instances, 'web1/libvirt.xml'), domain(disk(inBases(base)))),
    { [base]: ['web1/libvirt.xml'] },
  ],
  [
    'a definition with a disk elsewhere',
    () => {
      overlay(join(here, "elsewhere/Bill & Ben's"), inBases(base))
      file(join(instances, 'web1/libvirt.xml'), domain(disk(join(here, 'elsewhere/Bill &amp; Ben&apos;s'))))
    },
    { [base]: ['web1/libvirt.xml'] },
  ],
  [
    'a definition with a medium that is gone',
    () => file(join(instances, 'web1/libvirt.xml'), domain(disk('/nowhere/debian.iso', 'cdrom'))),
    {},
  ],
  [
    "another tool's base that stands on a base",
    () => {
      rmSync(inBases(other))
      overlay(inBases(other), inBases(base))
      overlay('web1/disk', inBases(other), 'qcow2')
    },
    { [base]: [`_base/${other}`], [other]: ['web1/disk'] },
  ],
  ["somebody's overlay among the bases", () => overlay(inBases('mine.qcow2'), base), { [base]: ['_base/mine.qcow2'] }],
  [
    "somebody's overlay in a directory among the bases",
    () => overlay(inBases('old/disk'), inBases(base)),
    { [base]: ['_base/old/disk'] },
  ],
  [
    "somebody's half-made overlay among the bases",
    () => overlay(inBases('mine.part'), base),
    { [base]: ['_base/mine.part'] },
  ],
  [
    'a directory that was moved out of an instance, with a link in its place; it leads back as well',
    () => {
      overlay(join(here, 'elsewhere/disk'), inBases(base))
      mkdirSync(join(instances, 'web1'))
      symlinkSync(join(here, 'elsewhere'), join(instances, 'web1/old'))
      symlinkSync(join(instances, 'web1'), join(here, 'elsewhere/back'))
    },
    { [base]: ['web1/old/disk'] },
  ],
  [
    'a long chain',
    () => {
      for (let link = 0; link < 110; link += 1)
        overlay(
          join(here, `elsewhere/${link}`),
          link === 0 ? inBases(base) : `${link - 1}`,
          link === 0 ? 'raw' : 'qcow2',
        )
      overlay('web1/disk', join(here, 'elsewhere/109'), 'qcow2')
    },
    { [base]: ['web1/disk'] },
  ],
  ['a disk called like a log', () => overlay('web1/disk.log', inBases(base)), { [base]: ['web1/disk.log'] }],
  ['a disk called like a record', () => overlay('web1/disk.json', inBases(base)), { [base]: ['web1/disk.json'] }],
  [
    'a disk in a directory called like a record',
    () => overlay('web1/backup.json/disk', inBases(base)),
    { [base]: ['web1/backup.json/disk'] },
  ],
  [
    'a chain by a name in JSON with escapes',
    () => {
      overlay(join(here, 'elsewhere/low'), inBases(base))
      overlay(
        'web1/disk',
        `json:${JSON.stringify({ 'file.filename': join(here, 'elsewhere/low') }).replaceAll('/', '\\/')}`,
      )
    },
    { [base]: ['web1/disk'] },
  ],
  ['what a guest says on another serial port', () => file(join(instances, 'web1/serial.log'), 'QFI\xfb'), {}],
  [
    'what a guest wrote into its raw disk elsewhere',
    () => {
      overlay(join(here, 'elsewhere/disk'), '/etc/nothere')
      file(join(instances, 'web1/libvirt.xml'), domain(disk(join(here, 'elsewhere/disk'), 'disk', 'raw')))
    },
    {},
  ],
  [
    'a raw disk that is a base by another name',
    () => {
      linkSync(inBases(base), join(here, 'elsewhere/disk'))
      file(join(instances, 'web1/libvirt.xml'), domain(disk(join(here, 'elsewhere/disk'), 'disk', 'raw')))
    },
    { [base]: ['web1/libvirt.xml'] },
  ],
  ['a disk that stands alone', () => overlay('web1/disk', ''), {}],
  ['a base that is not there', () => overlay('web1/disk', inBases('c'.repeat(40))), {}],
  ['a base of a network', () => overlay('web1/disk', 'nbd://host/export'), {}],
  ['a raw disk', () => file(join(instances, 'web1/disk'), 'boot', 2 ** 20), {}],
  ['what a guest says on its console', () => file(join(instances, 'web1/console.log.0'), 'QFI\xfb'), {}],
  [
    'what a guest wrote into its raw disk: it counts where it does no harm, and nowhere else',
    () => {
      overlay('web1/disk', '/etc/nothere')
      overlay('web1/disk.local', inBases(base))
      file(join(instances, 'web1/disk.swap'), 'QFI\xfb')
      const pins = ['disk', 'disk.local', 'disk.swap'].map((name) => [join(instances, 'web1', name), 'raw'])
      file(join(instances, 'web1/disk.info'), JSON.stringify(Object.fromEntries(pins)))
    },
    { [base]: ['web1/disk.local'] },
  ],
]

describe('a base is needed by', () => {
  for (const [what, make, users] of needed)
    test(what, async () => {
      make()
      assert.deepEqual(await usageOf(instances, undefined), { users: new Map(Object.entries(users)), doubts: [] })
    })
})

const uncertain: [what: string, make: () => void, path: string, state: RegExp][] = [
  [
    'a name that is not UTF-8',
    () => {
      mkdirSync(join(instances, 'web1'))
      writeFileSync(Buffer.concat([Buffer.from(join(instances, 'web1/disk')), Buffer.of(0xff)]), '')
    },
    'instances/web1/disk\ufffd',
    /its name is not UTF-8/,
  ],
  [
    'a header that is cut short',
    () => file(join(instances, 'web1/disk'), 'QFI\xfb', 12),
    'instances/web1/disk',
    /cut short/,
  ],
  [
    'a name that is cut short',
    () => cut('web1/disk', `/${'x'.repeat(1000)}`, 1000),
    'instances/web1/disk',
    /cut short/,
  ],
  [
    'an absurd name',
    () => {
      const header = Buffer.alloc(512)
      header.write('QFI\xfb\0\0\0\x03', 'latin1')
      header.fill(255, 8, 20)
      mkdirSync(join(instances, 'web1'))
      appendFileSync(join(instances, 'web1/disk'), header)
    },
    'instances/web1/disk',
    /too long/,
  ],
  [
    'a chain that breaks off: its file system may not be mounted',
    () => overlay('web1/disk', join(here, 'elsewhere/mounted/low'), 'qcow2'),
    'elsewhere/mounted/low',
    /it is missing, and web1\/disk needs it/,
  ],
  [
    'a link that leads nowhere',
    () => {
      mkdirSync(join(instances, 'web1'))
      symlinkSync('/nothere/disk', join(instances, 'web1/disk'))
    },
    'instances/web1/disk',
    /leads to is missing/,
  ],
  [
    'a definition with a disk that is gone',
    () => file(join(instances, 'web1/libvirt.xml'), domain(disk('/nowhere/disk'))),
    '/nowhere/disk',
    /it is missing, and web1\/libvirt.xml needs it/,
  ],
]

describe('it is said that nobody can tell what is needed, where there is', () => {
  for (const [what, make, path, state] of uncertain)
    test(what, async () => {
      make()
      const { users, doubts } = await usageOf(instances, undefined)
      assert.deepEqual([...users], [])
      assert.equal(doubts.length, 1)
      assert.equal(doubts[0]?.path, path.startsWith('/') ? path : join(here, path))
      assert.match(doubts[0].state, state)
      assert.ok(doubts[0].remedy)
    })
})

describe('to look again sees', () => {
  const usersOf = async (name: string) => (await usageOf(instances, undefined)).users.get(name)
  test('a disk that was put on another base', async () => {
    overlay('web1/disk', inBases(base))
    assert.deepEqual(await usersOf(base), ['web1/disk'])
    overlay('web1/disk', inBases(other))
    assert.deepEqual([await usersOf(base), await usersOf(other)], [undefined, ['web1/disk']])
  })
  test('an instance that has another name now', async () => {
    overlay('web1/disk', inBases(base))
    await usersOf(base)
    renameSync(join(instances, 'web1'), join(instances, 'web1_resize'))
    assert.deepEqual(await usersOf(base), ['web1_resize/disk'])
  })
})

describe('with libvirt', () => {
  const uuid = '11111111-2222-4333-8444-555555555555'
  /** libvirt's own test driver, with this one domain. */
  const hypervisor = (xml: string): string => {
    const path = join(here, 'hypervisor.xml')
    writeFileSync(path, `<node>${xml.replace('<uuid/>', `<uuid>${uuid}</uuid>`)}</node>`)
    return `test://${path}`
  }
  test('a domain that only libvirt knows needs what its disks elsewhere stand on', async () => {
    overlay(join(here, 'elsewhere/disk'), inBases(base))
    const { users, doubts } = await usageOf(
      instances,
      hypervisor(domain(disk(join(here, 'elsewhere/disk')), '<uuid/>')),
    )
    assert.deepEqual([[...users], doubts], [[[base, ['domain web1']]], []])
  })
  test('a domain needs a base that is its disk', async () => {
    const { users } = await usageOf(instances, hypervisor(domain(disk(inBases(base)), '<uuid/>')))
    assert.deepEqual([...users], [[base, ['domain web1']]])
  })
  test('many domains are asked for at once', async () => {
    const many = Array.from({ length: 300 }, (_, index) =>
      domain(disk(inBases(base)), `<uuid>11111111-2222-4333-8444-${String(index).padStart(12, '0')}</uuid>`).replace(
        'web1',
        `web${index}`,
      ),
    )
    const { users } = await usageOf(instances, hypervisor(many.join('\n')))
    assert.equal(users.get(base)?.length, 300)
  })
  test('one that does not answer is not waited for without end', { timeout: 30_000 }, async () => {
    const path = join(here, 'socket')
    const silent = createServer().listen(path)
    await once(silent, 'listening')
    try {
      await assert.rejects(
        domainsIn(`qemu+unix:///system?socket=${path}`, 1),
        /Cannot reach libvirt .*no answer for 1 s/,
      )
    } finally {
      silent.close()
    }
  })
  test('out of reach, nothing is known', async () => {
    await assert.rejects(usageOf(instances, 'test:///nothere.xml'), /Cannot reach libvirt/)
  })
})

test('without any instances nobody needs anything', async () => {
  assert.deepEqual(await usageOf(join(here, 'nothere'), undefined), { users: new Map(), doubts: [] })
})
