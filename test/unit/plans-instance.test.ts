import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { InstanceRecord } from '../../lib/job/instance.ts'
import { defineDomain } from '../../scripts/steps/define-domain.ts'
import { recordInstance } from '../../scripts/steps/record-instance.ts'
import { recordSizes } from '../../scripts/steps/record-sizes.ts'
import { removeInstance } from '../../scripts/steps/remove-instance.ts'
import { startDomain } from '../../scripts/steps/start-domain.ts'
import { stopDomain } from '../../scripts/steps/stop-domain.ts'
import { undefineDomain } from '../../scripts/steps/undefine-domain.ts'
import { writeDomain } from '../../scripts/steps/write-domain.ts'
import { plans } from './plans.ts'

// The steps of an instance and of its domain.

const GiB = 2 ** 30
const uuid = '11111111-2222-4333-8444-555555555555'
const stranger = '99999999-2222-4333-8444-555555555555'
const uri = 'qemu:///system'

const record: InstanceRecord = {
  version: 1,
  name: 'vm1',
  uuid,
  image: { id: 'sha256:a', name: 'debian' },
  root: 20 * GiB,
  'os-type': 'linux',
}
const wanted = {
  directory: '/i/vm1',
  name: 'vm1',
  uuid,
  'image-id': 'sha256:a',
  'image-name': 'debian',
  root: '20G',
  disks: ['disk' as const],
}
const bytes = (value: unknown) => Buffer.byteLength(`${JSON.stringify(value, null, 2)}\n`)
const pinned = `write /i/vm1/disk.info (${bytes({ '/i/vm1/disk': 'qcow2' })} bytes)`
const written = `write /i/vm1/instance.json (${bytes(record)} bytes)`
plans(recordInstance, wanted, { record: undefined, formats: undefined, names: undefined, base: undefined }, [
  { name: 'it is new: the formats first, the record last (S74)', then: ['mkdir /i/vm1', pinned, written] },
  { name: 'its directory is there, and empty', found: { names: [] }, then: [pinned, written] },
  {
    name: 'it was cut off',
    found: { names: ['disk.info', 'instance.json.part', 'disk.info.part'], formats: '{}' },
    then: [pinned, written],
  },
  { name: 'it is there', found: { record, formats: '{}', names: ['instance.json', 'disk'] }, then: [] },
  { name: 'it is there, the formats are not', found: { record, names: ['instance.json'] }, then: [pinned] },
  {
    name: 'with another uuid: that one is not wished for',
    found: { record: { ...record, uuid: stranger }, formats: '{}' },
    then: [],
  },
  {
    name: 'its image is called something else now',
    found: { record: { ...record, image: { id: 'sha256:a', name: 'old' } }, formats: '{}' },
    then: [],
  },
  {
    name: 'of another image',
    found: { record: { ...record, image: { id: 'sha256:b', name: 'debian' } } },
    then: 'INSTANCE_DIFFERS',
  },
  { name: 'with another root size', input: { root: '30G' }, found: { record }, then: 'INSTANCE_DIFFERS' },
  { name: 'with a disk that it has not', input: { swap: '1G' }, found: { record }, then: 'INSTANCE_DIFFERS' },
  { name: 'without a disk that it has', found: { record: { ...record, ephemeral: GiB } }, then: 'INSTANCE_DIFFERS' },
  {
    name: 'with other user data',
    input: { seed: 'sha256:1' },
    found: { record: { ...record, seed: 'sha256:2' } },
    then: 'INSTANCE_DIFFERS',
  },
  { name: 'with another os type', input: { 'os-type': 'windows' }, found: { record }, then: 'INSTANCE_DIFFERS' },
  {
    name: 'its image does not fit into its root disk: nothing is written down that cannot be made',
    found: { base: { size: 20 * GiB + 512, allocated: 0, stamp: '', record: undefined } },
    then: 'DISK_TOO_SMALL',
  },
  { name: "somebody's files are in its directory", found: { names: ['precious.img'] }, then: 'NOT_OURS' },
  { name: "a disk is in its directory that is nobody's", found: { names: ['disk.info', 'disk'] }, then: 'NOT_OURS' },
])

plans(
  writeDomain,
  { directory: '/i/vm1', name: 'vm1', uuid, disks: ['disk=vda'] },
  {
    directory: true,
    isWritten: false,
    hasConsole: false,
    formatOf: () => 'unknown',
    editDomain: undefined,
    template: undefined,
    virtType: 'kvm',
  },
  [
    { name: 'it is there', found: { isWritten: true, hasConsole: true }, then: [] },
    { name: 'its console is gone', found: { isWritten: true }, then: ['write /i/vm1/console.log (0 bytes)'] },
    {
      name: 'into a definition of the operator, and its directory is not there',
      found: {
        directory: false,
        hasConsole: true,
        template: '<t/>',
        editDomain: (xml, { disks }) => `${xml}${disks[0]?.path}=${disks[0]?.target}`,
      },
      then: ['mkdir /i/vm1', `write /i/vm1/libvirt.xml (${'<t/>/i/vm1/disk=vda'.length} bytes)`],
    },
    {
      name: 'its disk stands on a base, and is pinned as raw: then it stands on none',
      input: { bases: ['disk=/i/_base/b'] },
      found: {
        hasConsole: true,
        template: '',
        editDomain: (_, { disks }) => disks.map(({ format, base }) => `${format} ${base}`).join(),
        formatOf: () => 'raw',
      },
      then: [`write /i/vm1/libvirt.xml (${'raw undefined'.length} bytes)`],
    },
    { name: 'it has no disks', input: { disks: [] }, then: 'BAD_SPEC' },
  ],
)
test('write-domain: nobody else may read the definition, and the console has the mode of S12', () => {
  const input = writeDomain.input().parse({ directory: '/i/vm1', name: 'vm1', uuid, disks: ['disk=vda'] })
  const found = {
    directory: true,
    isWritten: false,
    hasConsole: false,
    formatOf: () => 'unknown' as const,
    editDomain: undefined,
    template: undefined,
    virtType: 'kvm',
  } as const
  const modes = writeDomain.plan(input, found).map((action) => action.do === 'write' && [action.path, action.mode])
  assert.deepEqual(modes, [
    ['/i/vm1/libvirt.xml', 0o600],
    ['/i/vm1/console.log', 0o660],
  ])
})

const domain = (state: string, id = uuid) => ({ name: 'vm1', uuid: id, state })
plans(
  defineDomain,
  { uri, name: 'vm1', uuid, xml: '/i/vm1/libvirt.xml' },
  { domain: undefined, isWritten: true } as Facts,
  [
    { name: 'libvirt does not know it', then: [`virsh -q -c ${uri} define /i/vm1/libvirt.xml`] },
    { name: 'libvirt knows it', found: { domain: domain('running') }, then: [] },
    {
      name: 'libvirt knows it, the definition is gone',
      found: { domain: domain('shut off'), isWritten: false },
      then: [],
    },
    {
      name: 'libvirt has another one of this name',
      found: { domain: domain('running', stranger) },
      then: 'DOMAIN_EXISTS',
    },
    { name: 'there is no definition', found: { isWritten: false }, then: 'MISSING_PREREQUISITE' },
  ],
)
type Facts = Awaited<ReturnType<typeof defineDomain.inspect>>

/** As `plans`, for steps whose facts are the domain, or undefined where libvirt has none. */
const rows = [
  { name: 'there is none', found: undefined, start: 'MISSING_PREREQUISITE', stop: '', undefine: '' },
  { name: 'it is shut off', found: domain('shut off'), start: 'start', stop: '', undefine: 'undefine' },
  { name: 'it crashed', found: domain('crashed'), start: 'start', stop: 'destroy', undefine: 'undefine' },
  { name: 'it runs', found: domain('running'), start: '', stop: 'destroy', undefine: 'undefine' },
  { name: 'it was paused by somebody', found: domain('paused'), start: '', stop: 'destroy', undefine: 'undefine' },
  { name: 'it is going down', found: domain('in shutdown'), start: '', stop: 'destroy', undefine: 'undefine' },
  { name: 'another one runs', found: domain('running', stranger), start: '', stop: 'DOMAIN_EXISTS', undefine: '' },
  { name: 'another one is shut off', found: domain('shut off', stranger), start: 'start', stop: '', undefine: '' },
] as const
for (const { name, found, start, stop, undefine } of rows)
  test(`start, stop, undefine: ${name}`, () => {
    const words = (plan: () => { do: string; argv?: string[] }[]): string => {
      try {
        // By its uuid: a name of digits is an id to virsh.
        return plan()
          .map(({ argv = [] }) => (argv.at(-1) === found?.uuid && argv[3] === uri ? argv[4] : argv.join(' ')))
          .join()
      } catch (problem) {
        return (problem as { code: string }).code
      }
    }
    assert.equal(
      words(() => startDomain.plan({ uri, name: 'vm1' }, found) as never),
      start,
    )
    assert.equal(
      words(() => stopDomain.plan({ uri, name: 'vm1', uuid }, found) as never),
      stop,
    )
    assert.equal(
      words(() => undefineDomain.plan({ uri, name: 'vm1', uuid }, found) as never),
      undefine,
    )
  })

const gone = (...names: string[]) => [...names.map((name) => `remove /i/vm1/${name}`), 'rmdir /i/vm1']
plans(removeInstance, { directory: '/i/vm1' }, { names: [], inside: [], inUse: false, bases: [] } as RemoveFacts, [
  { name: 'there is none', found: { names: undefined }, then: [] },
  { name: 'it is empty', then: ['rmdir /i/vm1'] },
  {
    name: 'all that cowhand makes: what tells that there is an instance goes last',
    found: {
      names: [
        'instance.json',
        'disk',
        'disk.local',
        'disk.swap',
        'disk.config',
        'disk.info',
        'console.log',
        'console.log.0',
        'libvirt.xml',
      ],
    },
    then: gone(
      'disk',
      'disk.local',
      'disk.swap',
      'disk.config',
      'disk.info',
      'console.log',
      'console.log.0',
      'libvirt.xml',
      'instance.json',
    ),
  },
  {
    name: 'half-made ones too',
    found: {
      names: ['instance.json.part', 'disk.part', 'disk.config.d'],
      inside: [{ name: 'disk.config.d', names: ['user-data', 'meta-data.part'] }],
    },
    then: [
      'remove /i/vm1/instance.json.part',
      'remove /i/vm1/disk.part',
      'remove /i/vm1/disk.config.d/user-data',
      'remove /i/vm1/disk.config.d/meta-data.part',
      'rmdir /i/vm1/disk.config.d',
      'rmdir /i/vm1',
    ],
  },
  {
    name: 'the time of its bases without users begins',
    found: { names: ['disk'], bases: ['/i/_base/b'] },
    then: ['touch the records of its bases', ...gone('disk')],
  },
  { name: 'it was cut off: goes on', found: { names: ['instance.json'] }, then: gone('instance.json') },
  { name: "somebody's file is in it", found: { names: ['disk', 'notes.txt'] }, then: 'NOT_OURS' },
  { name: 'a snapshot of somebody is in it', found: { names: ['disk', 'disk.old'] }, then: 'NOT_OURS' },
  { name: 'a guest has its disk open', found: { names: ['disk'], inUse: true }, then: 'IN_USE' },
])
type RemoveFacts = Awaited<ReturnType<typeof removeInstance.inspect>>

const resized = (more: object) => `write /i/vm1/instance.json (${bytes({ ...record, ...more })} bytes)`
plans(recordSizes, { directory: '/i/vm1', root: '40G' }, { record, written: record }, [
  { name: 'it has grown', then: [resized({ root: 40 * GiB })] },
  { name: 'it is written down already', input: { root: '20G' }, then: [] },
  { name: 'only the ephemeral disk', input: { root: undefined, ephemeral: '1G' }, then: [resized({ ephemeral: GiB })] },
  { name: 'there is no such instance', found: { record: undefined }, then: 'MISSING_PREREQUISITE' },
])
