import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { Image } from '../../lib/image/image.ts'
import { type Code, Problem } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'
import type { Call } from '../../lib/job/step.ts'
import { cachePrefetch } from '../../scripts/pipelines/cache-prefetch.ts'
import { cacheVerify } from '../../scripts/pipelines/cache-verify.ts'
import { create } from '../../scripts/pipelines/create.ts'
import { remove } from '../../scripts/pipelines/delete.ts'
import { imageAdd } from '../../scripts/pipelines/image-add.ts'
import { imageRemove } from '../../scripts/pipelines/image-remove.ts'

// Which steps a job is, in which order and with which input. Nothing is touched, for `calls` is pure.

const GiB = 2 ** 30
const uuid = '11111111-2222-4333-8444-555555555555'
const digest = `sha256:${'a'.repeat(64)}`
const settings = (more: object = {}) => Settings.parse({ instances: '/i', store: 'dir:/s', ...more })

/** The calls as data, each checked against its step's schema; what is undefined is left out. */
const said = (calls: Call[]): [step: string, input: unknown][] =>
  calls.map(({ step, input }) => {
    step.input().parse(input)
    return [step.name, JSON.parse(JSON.stringify(input))]
  })

const image: Image = {
  id: digest,
  name: 'debian',
  source: '/s/debian.qcow2',
  digest,
  format: 'qcow2',
  size: 5,
  virtualSize: 2 * GiB,
  stamp: 'now',
  properties: {},
}
const found = {
  image,
  whole: image,
  base: '/i/_base/b',
  uuid,
  seed: undefined,
  xml: undefined,
  volumes: [],
} as Awaited<ReturnType<typeof create.look>>
const calls = (job: object, facts: Partial<typeof found> = {}, more: object = {}) =>
  create.calls(
    create.job.parse({ name: 'vm1', image: 'debian', root: '20G', ...job }),
    { ...found, ...facts },
    settings(more),
  )
const withImage = (more: object) => ({ image: { ...image, ...more }, whole: { ...image, ...more } })

/** Only the copy-on-write part was uploaded; its base is the image above. */
const delta: Image = {
  ...image,
  id: 'other',
  source: '/s/delta.qcow2',
  properties: { image_type: 'snapshot', base_image_id_sha1: 'b'.repeat(40) },
}
const onDelta = { image: delta, whole: image }

const cacheBase = [
  'cache-base',
  {
    from: '/s/debian.qcow2',
    digest,
    format: 'qcow2',
    id: digest,
    size: 5,
    stamp: 'now',
    name: 'debian',
    base: '/i/_base/b',
    'allow-weak-checksum': false,
  },
]
const own = { directory: '/i/vm1', name: 'vm1', uuid, 'os-type': 'linux' }
const recordInstance = [
  'record-instance',
  { ...own, 'image-id': digest, 'image-name': 'debian', root: 20 * GiB, base: '/i/_base/b', disks: ['disk'] },
]
const overlay = ['create-overlay', { disk: '/i/vm1/disk', base: '/i/_base/b', size: 20 * GiB }]
const writeDomain = ['write-domain', { ...own, seed: false, disks: ['disk=vda'], bases: ['disk=/i/_base/b'] }]
const names = (list: Call[]) => list.map(({ step }) => step.name).join(' ')

describe('create', () => {
  test('is a base, a record, an overlay, a definition', () =>
    assert.deepEqual(said(calls({})), [cacheBase, recordInstance, overlay, writeDomain]))

  const fetched = [
    'fetch-disk',
    {
      disk: '/i/vm1/disk',
      from: '/s/delta.qcow2',
      digest,
      base: '/i/_base/b',
      size: 20 * GiB,
      'allow-weak-checksum': false,
      'file-size': 5,
      stamp: 'now',
    },
  ]
  const recordDelta = [
    'record-instance',
    { ...own, 'image-id': 'other', 'image-name': 'debian', root: 20 * GiB, base: '/i/_base/b', disks: ['disk'] },
  ]
  for (const [from, whole, sized] of [
    ['a delta snapshot', image, 'overlay'],
    ['a delta snapshot, where other disks stand on copies', image, 'sized'],
    ['a delta snapshot whose base is in the cache only', undefined, 'overlay'],
  ] as const)
    test(`from ${from}: the base of another image, and the snapshot itself as the disk`, () =>
      assert.deepEqual(said(calls({}, { image: delta, whole }, { base_layout: sized })), [
        ...(whole ? [cacheBase] : []),
        recordDelta,
        fetched,
        writeDomain,
      ]))
  test('from an image that names a base and is no snapshot: as from any other (S24)', () =>
    assert.equal(
      names(calls({}, withImage({ properties: { base_image_id_sha1: 'b'.repeat(40) } }))),
      'cache-base record-instance create-overlay write-domain',
    ))

  test('with every disk and a seed: the bases before there is an instance, the definition when all is there', () =>
    assert.deepEqual(
      said(
        calls(
          {
            ephemeral: '10G',
            swap: '512M',
            'user-data': 'u',
            'network-config': 'n',
            memory: '4G',
            vcpus: 2,
            network: 'lab',
            domain: 'start',
          },
          { seed: 'sha256:s' },
          { libvirt_uri: 'qemu:///system' },
        ),
      ),
      [
        cacheBase,
        ['make-ephemeral-base', { base: '/i/_base/ephemeral_0_10_linux', size: 10 * GiB, format: 'ext4' }],
        ['make-swap-base', { base: '/i/_base/swap_512', size: GiB / 2 }],
        [
          'record-instance',
          {
            ...own,
            ...{ memory: 4 * GiB, vcpus: 2, network: 'lab', seed: 'sha256:s' },
            ...{ 'image-id': digest, 'image-name': 'debian', root: 20 * GiB, base: '/i/_base/b' },
            ...{ ephemeral: 10 * GiB, 'ephemeral-format': 'ext4', swap: GiB / 2 },
            disks: ['disk', 'disk.local', 'disk.swap'],
          },
        ],
        overlay,
        ['create-overlay', { disk: '/i/vm1/disk.local', base: '/i/_base/ephemeral_0_10_linux', size: 10 * GiB }],
        ['create-overlay', { disk: '/i/vm1/disk.swap', base: '/i/_base/swap_512', size: GiB / 2 }],
        [
          'make-seed',
          { seed: '/i/vm1/disk.config', 'user-data': 'u', 'network-config': 'n', 'instance-id': uuid, hostname: 'vm1' },
        ],
        [
          'write-domain',
          {
            ...own,
            memory: 4 * GiB,
            vcpus: 2,
            network: 'lab',
            seed: true,
            disks: ['disk=vda', 'disk.local=vdb', 'disk.swap=vdc'],
            bases: ['disk=/i/_base/b', 'disk.local=/i/_base/ephemeral_0_10_linux', 'disk.swap=/i/_base/swap_512'],
          },
        ],
        ['define-domain', { uri: 'qemu:///system', name: 'vm1', uuid, xml: '/i/vm1/libvirt.xml' }],
        ['start-domain', { uri: 'qemu:///system', name: 'vm1' }],
      ],
    ))

  test('with sized bases: a copy in between, and the overlay on that (S5)', () =>
    assert.deepEqual(said(calls({}, {}, { base_layout: 'sized' })), [
      cacheBase,
      ['extend-base', { base: '/i/_base/b', sized: '/i/_base/b_20', size: 20 * GiB }],
      recordInstance,
      ['create-overlay', { disk: '/i/vm1/disk', base: '/i/_base/b_20', size: 20 * GiB }],
      ['write-domain', { ...(writeDomain[1] as object), bases: ['disk=/i/_base/b_20'] }],
    ]))

  test('for windows: ntfs, in a base of its own', () =>
    assert.deepEqual(said(calls({ 'os-type': 'windows', ephemeral: '10G' }))[1], [
      'make-ephemeral-base',
      { base: '/i/_base/ephemeral_0_10_windows', size: 10 * GiB, format: 'ntfs' },
    ]))
  test('with another file system: a base of its own too', () =>
    assert.deepEqual(said(calls({ 'ephemeral-format': 'xfs', ephemeral: '10G' }))[1], [
      'make-ephemeral-base',
      { base: '/i/_base/ephemeral_0_10_linux_xfs', size: 10 * GiB, format: 'xfs' },
    ]))
  test('with a volume on the second device: no ephemeral disk, swap on the third (S10)', () => {
    const list = said(calls({ ephemeral: '10G', swap: '1G', xml: '/x' }, { volumes: ['vdb'], xml: 'sha256:x' }))
    assert.deepEqual(
      list.map(([step]) => step),
      ['cache-base', 'make-swap-base', 'record-instance', 'create-overlay', 'create-overlay', 'write-domain'],
    )
    assert.deepEqual(list.at(-1)?.[1], {
      ...own,
      xml: '/x',
      seed: false,
      disks: ['disk=vda', 'disk.swap=vdc'],
      bases: ['disk=/i/_base/b', 'disk.swap=/i/_base/swap_1024'],
    })
    assert.deepEqual((list[2]?.[1] as { disks?: string[] } | undefined)?.disks, ['disk', 'disk.swap'])
  })

  const uri = { libvirt_uri: 'qemu:///system' }
  for (const [when, job, more, ends] of [
    ['no libvirt is configured', {}, {}, 'write-domain'],
    ['libvirt is', {}, uri, 'write-domain define-domain start-domain'],
    ['it is only to be defined', { domain: 'define' }, uri, 'write-domain define-domain'],
    ['it is not even to be defined', { domain: 'none' }, uri, 'write-domain'],
  ] as const)
    test(`when ${when}, it ends with ${ends}`, () =>
      assert.equal(names(calls(job, {}, more)), `cache-base record-instance create-overlay ${ends}`))

  const refused: [when: string, work: () => Call[], code: Code][] = [
    ['the image is larger than the disk', () => calls({ root: '1G' }), 'DISK_TOO_SMALL'],
    [
      'the image is a delta snapshot, and the optimisation is off',
      () => calls({}, onDelta, { snapshot_optimization: false }),
      'UNSUPPORTED',
    ],
    [
      'the image is a delta snapshot with a kernel of its own',
      () => calls({}, { image: { ...delta, properties: { ...delta.properties, kernel_id: 'k' } } }),
      'UNSUPPORTED',
    ],
    [
      'the image calls its base by no name of a base',
      () => calls({}, { image: { ...delta, properties: { ...delta.properties, base_image_id_sha1: '../etc' } } }),
      'IMAGE_REJECTED',
    ],
    ['the root disk is a volume', () => calls({ xml: '/x' }, { volumes: ['vda'] }), 'UNSUPPORTED'],
    [
      'a volume is where swap goes',
      () => calls({ xml: '/x', ephemeral: '1G', swap: '1G' }, { volumes: ['vdc'] }),
      'UNSUPPORTED',
    ],
    ['swap is no whole MiB', () => calls({ swap: '1536K' }), 'BAD_SPEC'],
    ['it is to be started, and no libvirt is configured', () => calls({ domain: 'start' }), 'BAD_SPEC'],
    ['the networks are named twice', () => calls({ xml: '/x', network: 'lab' }), 'BAD_SPEC'],
  ]
  for (const [when, work, code] of refused)
    test(`is refused when ${when}`, () =>
      assert.throws(work, (error) => error instanceof Problem && error.code === code && error.remedy.length > 0))

  test('says the size that can be typed when the image is larger', () =>
    assert.throws(
      () => calls({ root: '1G' }, withImage({ virtualSize: 1.5 * GiB })),
      (error) => error instanceof Problem && error.remedy.endsWith('--root 1536M') && error.message.includes('1536M'),
    ))
  test('a weak checksum is allowed where the operator says so', () => {
    for (const from of [{}, onDelta])
      assert.match(JSON.stringify(said(calls({ 'allow-weak-checksum': true }, from))), /"allow-weak-checksum":true/)
  })
  test('a full snapshot is made like an image', () =>
    assert.deepEqual(said(calls({}, withImage({ properties: { image_type: 'snapshot' } })))[0], cacheBase))
  test('holds the lock of its instance', () =>
    assert.deepEqual(create.locks?.(create.job.parse({ name: 'vm1', image: 'x', root: 512 })), ['instance.vm1']))
})

describe('cache prefetch', () => {
  const prefetch = (job: object) => cachePrefetch.job.parse({ image: ['debian'], ...job })
  const found = { found: [{ image, base: '/i/_base/b' }], problems: [] }
  const fetched = (more: object) => ['cache-base', { ...(cacheBase[1] as object), content: true, ...more }]
  test('is its base, with the digest of its content', () =>
    assert.deepEqual(said(cachePrefetch.calls(prefetch({}), found, settings())), [fetched({})]))
  test('may be held back', () =>
    assert.deepEqual(said(cachePrefetch.calls(prefetch({ bwlimit: '50M' }), found, settings())), [
      fetched({ bwlimit: 50 * 2 ** 20 }),
    ]))
  test('an image that is not found fails by itself', () => {
    const problem = new Problem('refused', 'IMAGE_NOT_FOUND', 'Cannot find image "x"', 'look')
    const [good, bad] = cachePrefetch.calls(prefetch({}), { ...found, problems: [['x', problem]] }, settings())
    assert.equal(good?.step.name, 'cache-base')
    assert.equal(bad?.step.about?.(bad.input), 'x')
    assert.throws(() => bad?.step.plan(bad.input, undefined), problem)
  })
  test('of nothing is no job', () => assert.throws(() => prefetch({ image: [] })))
  for (const flag of [{ checksum: digest }, { 'image-format': 'raw' }])
    test(`of several images is refused with --${Object.keys(flag)[0]}`, async () =>
      assert.rejects(
        async () => cachePrefetch.look(prefetch({ image: ['a', 'b'], ...flag }), settings()),
        (error) => error instanceof Problem && error.code === 'BAD_SPEC',
      ))
})

test('cache verify is each base by itself', () => {
  assert.equal(cacheVerify.independent, true)
  assert.deepEqual(said(cacheVerify.calls({}, { names: ['b', 'swap_16'], problems: [], aside: [] }, settings())), [
    ['verify-base', { base: '/i/_base/b' }],
    ['verify-base', { base: '/i/_base/swap_16' }],
  ])
})

describe('delete', () => {
  const record = {
    version: 1,
    name: 'vm1',
    uuid,
    image: { id: 'x', name: 'x' },
    root: GiB,
    'os-type': 'linux',
  } as const
  const domain = { uri: 'qemu:///system', name: 'vm1', uuid }
  const removeInstance = ['remove-instance', { directory: '/i/vm1' }]
  for (const [when, had, more, list] of [
    [
      'libvirt is configured',
      record,
      { libvirt_uri: domain.uri },
      [['stop-domain', domain], ['undefine-domain', domain], removeInstance],
    ],
    ['libvirt is not', record, {}, [removeInstance]],
    ['there is no record, whose domain it is nobody knows', undefined, { libvirt_uri: domain.uri }, [removeInstance]],
  ] as const)
    test(`when ${when}`, () => assert.deepEqual(said(remove.calls({ name: 'vm1' }, had, settings(more))), list))
  test('holds the lock of its instance, and asks first', () => {
    assert.deepEqual(remove.locks?.({ name: 'vm1' }), ['instance.vm1'])
    assert.equal(remove.destroys?.({ name: 'vm1' }), 'instance "vm1" with all its disks')
  })
})

describe('image add', () => {
  const add = (job: object) => said(imageAdd.calls(imageAdd.job.parse(job), undefined, settings()))[0]
  const input = {
    file: '/tmp/debian.qcow2',
    directory: '/s',
    name: 'debian',
    format: 'qcow2',
    'allow-weak-checksum': false,
    properties: {},
  }
  for (const [when, job, wanted] of [
    ['its file says its name and format', {}, {}],
    ['a packed file', { file: '/tmp/debian.qcow2.xz' }, { file: '/tmp/debian.qcow2.xz', packing: 'xz' }],
    ['VHD is what qemu calls vpc', { file: '/tmp/debian.vhd' }, { file: '/tmp/debian.vhd', format: 'vpc' }],
    [
      'the operator says them',
      { file: '/tmp/x', name: 'd2', format: 'raw' },
      { file: '/tmp/x', name: 'd2', format: 'raw' },
    ],
    ['a checksum', { checksum: digest.toUpperCase() }, { checksum: digest }],
    ['properties; a value may have = in it', { property: ['a=b=c', 'd='] }, { properties: { a: 'b=c', d: '' } }],
  ] as const)
    test(when, () =>
      assert.deepEqual(add({ file: '/tmp/debian.qcow2', ...job }), ['import-image', { ...input, ...wanted }]),
    )
  test('is refused where nobody says the format', () =>
    assert.throws(
      () => add({ file: '/tmp/debian.img' }),
      (error) => error instanceof Problem && error.code === 'BAD_SPEC',
    ))
})

test('image remove', () =>
  assert.deepEqual(said(imageRemove.calls({ image: digest }, 'debian', settings())), [
    ['remove-image', { directory: '/s', name: 'debian' }],
  ]))
