import type { Maker } from '../../lib/host/mkfs.ts'
import type { Qcow2Header } from '../../lib/image/qcow2.ts'
import { type BaseRecord, readerVersion } from '../../lib/job/base.ts'
import { cacheBase } from '../../scripts/steps/cache-base.ts'
import { createOverlay } from '../../scripts/steps/create-overlay.ts'
import { extendBase } from '../../scripts/steps/extend-base.ts'
import { importImage } from '../../scripts/steps/import-image.ts'
import { makeEphemeralBase } from '../../scripts/steps/make-ephemeral-base.ts'
import { makeSeed } from '../../scripts/steps/make-seed.ts'
import { makeSwapBase } from '../../scripts/steps/make-swap-base.ts'
import { removeImage } from '../../scripts/steps/remove-image.ts'
import { plans } from './plans.ts'

// The steps that make files of images and disks.

const GiB = 2 ** 30
const MiB = 2 ** 20
const digest = `sha256:${'a'.repeat(64)}`
const base = '/i/_base/b'
const facts = (size: number, allocated = size) => ({ size, allocated, stamp: 'now' })
/** A base as it was made; `record`: what else is known of it, `undefined` nothing at all. */
const sound = (size: number, record: Partial<BaseRecord> = {}) => ({
  ...facts(size),
  record: { version: 1 as const, size, stamp: 'now', reader: readerVersion, ...record },
})

const url = 'https://example.org/debian.qcow2'
const convert = (from: string) => `qemu-img convert -p -m 8 -f qcow2 -O raw ${from} ${base}.converted`
const published = [`record ${base}.json`, `publish ${base}.converted ${base}`]
plans(
  cacheBase,
  { from: '/s/debian.qcow2', digest, format: 'qcow2', base, stamp: 'now' },
  {
    base: undefined,
    proof: undefined,
    leftovers: [],
    file: facts(300 * MiB),
    free: 10 * GiB,
    ceiling: 8 * GiB,
    data: GiB,
    isDirect: false,
  },
  [
    { name: 'it is there', found: { base: sound(GiB) }, then: [] },
    { name: 'it is there, and its image is not any more', found: { base: sound(GiB), file: undefined }, then: [] },
    {
      name: 'it is there, another tool made it: it is examined, and taken over',
      found: { base: { ...facts(GiB), record: undefined } },
      then: [
        `examine ${base} (raw)`,
        `record ${base}.json (made by another tool: cowhand cache verify looks for a proof of it)`,
      ],
    },
    {
      name: 'it is there, an older version examined it: it is examined again',
      found: { base: sound(GiB, { reader: readerVersion - 1 }) },
      then: [`examine ${base} (raw)`, `record ${base}.json`],
    },
    {
      name: 'it is there, nobody knows who examined it',
      found: { base: { ...facts(GiB), record: { version: 1, size: GiB, stamp: 'now' } } },
      then: [`examine ${base} (raw)`, `record ${base}.json`],
    },
    { name: 'it is there, a newer version examined it', found: { base: sound(GiB, { reader: 99 }) }, then: [] },
    {
      name: 'it was replaced, and proven to be the same',
      found: { base: sound(GiB, { stamp: 'then' }), proof: { is: 'equal' } },
      then: [`record ${base}.json`],
    },
    {
      name: 'it was replaced by another one',
      found: { base: sound(GiB, { stamp: 'then' }), proof: { is: 'other', why: 'it is another' } },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'it was replaced, and nothing proves it',
      found: { base: sound(GiB, { stamp: 'then' }), proof: { is: 'unknown' } },
      then: 'BASE_DIFFERS',
    },
    { name: 'it has another size', found: { base: sound(GiB, { size: GiB + 512 }) }, then: 'BASE_DIFFERS' },
    {
      name: 'it is quarantined',
      found: { base: sound(GiB, { quarantined: { since: 'then', why: 'it differs' } }) },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'its image is another now',
      found: { base: sound(GiB, { digest: `sha256:${'b'.repeat(64)}` }) },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'its image has a digest of another kind now',
      found: { base: sound(GiB, { digest: `sha512:${'b'.repeat(128)}` }) },
      then: [],
    },
    {
      name: 'the digest of its content is wanted',
      input: { content: true },
      found: { base: sound(GiB) },
      then: [`measure ${base}`, `record ${base}.json`],
    },
    {
      name: 'the digest of its content is wanted, and known',
      input: { content: true },
      found: { base: sound(GiB, { content: { digest: 'x', stamp: 'now' } }) },
      then: [],
    },
    {
      name: 'from the store, with the digest of its content',
      input: { content: true },
      then: [
        'mkdir /i/_base',
        'examine /s/debian.qcow2 (qcow2)',
        'qemu-img check -q -f qcow2 /s/debian.qcow2',
        convert('/s/debian.qcow2'),
        `measure ${base}.converted`,
        ...published,
      ],
    },
    {
      name: 'it is there, and something was left over',
      found: { base: sound(GiB), leftovers: [`${base}.part`, `${base}.converted`] },
      then: [`remove ${base}.part`, `remove ${base}.converted`],
    },
    {
      name: 'from the store',
      then: [
        'mkdir /i/_base',
        'examine /s/debian.qcow2 (qcow2)',
        'qemu-img check -q -f qcow2 /s/debian.qcow2',
        convert('/s/debian.qcow2'),
        ...published,
      ],
    },
    {
      name: 'from the store, past the page cache',
      found: { isDirect: true },
      then: [
        'mkdir /i/_base',
        'examine /s/debian.qcow2 (qcow2)',
        'qemu-img check -q -f qcow2 /s/debian.qcow2',
        convert('/s/debian.qcow2').replace('-m 8', '-t none -W -m 16'),
        ...published,
      ],
    },
    {
      name: 'from a file that was written to since it was proven: it is proven again first',
      input: { stamp: 'then' },
      then: [
        'mkdir /i/_base',
        `verify /s/debian.qcow2 (${digest})`,
        'examine /s/debian.qcow2 (qcow2)',
        'qemu-img check -q -f qcow2 /s/debian.qcow2',
        convert('/s/debian.qcow2'),
        ...published,
      ],
    },
    {
      name: 'a raw image: copied, and proven as it is copied',
      input: { from: '/s/debian.raw', format: 'raw' },
      then: [
        'mkdir /i/_base',
        'examine /s/debian.raw (raw)',
        `copy /s/debian.raw ${base}.converted (1G)`,
        ...published,
      ],
    },
    {
      name: 'a format that cannot be checked',
      input: { from: '/s/debian.vhd', format: 'vhd' },
      then: [
        'mkdir /i/_base',
        'examine /s/debian.vhd (vpc)',
        convert('/s/debian.vhd').replace('-f qcow2', '-f vpc'),
        ...published,
      ],
    },
    {
      name: 'a packed image: unpacked beside the base, and cleared away',
      input: { from: '/s/debian.qcow2.xz', packing: 'xz' },
      then: [
        'mkdir /i/_base',
        `unpack /s/debian.qcow2.xz ${base}.unpacked (xz)`,
        `examine ${base}.unpacked (qcow2)`,
        `qemu-img check -q -f qcow2 ${base}.unpacked`,
        convert(`${base}.unpacked`),
        ...published,
        `remove ${base}.unpacked`,
      ],
    },
    {
      name: 'a packed raw image: unpacked into its place',
      input: { from: '/s/debian.raw.gz', format: 'raw', packing: 'gz' },
      then: [
        'mkdir /i/_base',
        `unpack /s/debian.raw.gz ${base}.converted (gz)`,
        `examine ${base}.converted (raw)`,
        ...published,
      ],
    },
    {
      name: 'from a web server: the download goes last',
      input: { from: url, size: 300 * MiB },
      found: { file: undefined },
      then: [
        'mkdir /i/_base',
        `fetch ${url} ${base}.part (300M)`,
        `examine ${base}.part (qcow2)`,
        `qemu-img check -q -f qcow2 ${base}.part`,
        convert(`${base}.part`),
        ...published,
        `remove ${base}.part`,
      ],
    },
    {
      name: 'from a web server, with a download begun: it goes on there, and goes once',
      input: { from: url },
      found: { file: undefined, leftovers: [`${base}.part`] },
      then: [
        'mkdir /i/_base',
        `fetch ${url} ${base}.part`,
        `examine ${base}.part (qcow2)`,
        `qemu-img check -q -f qcow2 ${base}.part`,
        convert(`${base}.part`),
        ...published,
        `remove ${base}.part`,
      ],
    },
    {
      name: 'a raw image from a web server: renamed, not copied',
      input: { from: url.replace('qcow2', 'raw'), format: 'raw' },
      found: { file: undefined },
      then: [
        'mkdir /i/_base',
        `fetch ${url.replace('qcow2', 'raw')} ${base}.part`,
        `examine ${base}.part (raw)`,
        `rename ${base}.part ${base}.converted`,
        ...published,
        `remove ${base}.part`,
      ],
    },
    {
      name: 'from the store, when a download of it was given up: that goes too',
      found: { leftovers: [`${base}.part`, `${base}.unpacked`, `${base}.converted`] },
      then: [
        'mkdir /i/_base',
        'examine /s/debian.qcow2 (qcow2)',
        'qemu-img check -q -f qcow2 /s/debian.qcow2',
        convert('/s/debian.qcow2'),
        ...published,
        `remove ${base}.part`,
        `remove ${base}.unpacked`,
      ],
    },
    { name: 'its image is not there', found: { file: undefined }, then: 'IMAGE_NOT_FOUND' },
    { name: 'there is no space', found: { free: GiB - 1 }, then: 'NO_SPACE' },
    {
      name: 'there is no space for a download and what becomes of it',
      input: { from: url, size: 6 * GiB },
      then: 'NO_SPACE',
    },
    { name: 'from something that is neither file nor URL', input: { from: 'ftp://x/y' }, then: 'BAD_SPEC' },
    { name: 'from a relative path', input: { from: 'debian.qcow2' }, then: 'BAD_SPEC' },
  ],
)

const sized = '/i/_base/b_20'
plans(
  extendBase,
  { base, sized, size: '20G' },
  {
    base: { ...sound(2 * GiB), allocated: GiB },
    sized: undefined,
    proof: undefined,
    leftovers: [],
    free: 10 * GiB,
    ceiling: 8 * GiB,
    isComing: false,
    isRenewed: false,
  },
  [
    { name: 'it is there', found: { sized: sound(20 * GiB) }, then: [] },
    {
      name: 'it is there, another tool made it',
      found: { sized: { ...facts(20 * GiB), record: undefined } },
      then: [
        `examine ${sized} (raw)`,
        `record ${sized}.json (made by another tool: cowhand cache verify looks for a proof of it)`,
      ],
    },
    {
      name: 'something wrote to what it is to be a copy of',
      found: { base: sound(2 * GiB, { stamp: 'then' }) },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'what it is to be a copy of is proven by the step before',
      found: { base: { ...sound(2 * GiB, { stamp: 'then' }), allocated: GiB }, isRenewed: true },
      then: [
        `copy ${base} ${sized}.part (1G)`,
        `truncate -s 21474836480 ${sized}.part`,
        `record ${sized}.json`,
        `publish ${sized}.part ${sized}`,
      ],
    },
    { name: 'it is there without the base below', found: { sized: sound(20 * GiB), base: undefined }, then: [] },
    {
      name: 'a torn one is cleared away',
      found: { sized: sound(20 * GiB), leftovers: [`${sized}.part`] },
      then: [`remove ${sized}.part`],
    },
    {
      name: 'it is not',
      then: [
        `copy ${base} ${sized}.part (1G)`,
        `truncate -s 21474836480 ${sized}.part`,
        `record ${sized}.json`,
        `publish ${sized}.part ${sized}`,
      ],
    },
    {
      name: 'its base is still to come',
      found: { base: undefined, isComing: true },
      then: [
        `copy ${base} ${sized}.part (0)`,
        `truncate -s 21474836480 ${sized}.part`,
        `record ${sized}.json`,
        `publish ${sized}.part ${sized}`,
      ],
    },
    { name: 'there is no base', found: { base: undefined }, then: 'MISSING_PREREQUISITE' },
    { name: 'the base is larger', found: { base: sound(21 * GiB) }, then: 'DISK_TOO_SMALL' },
    {
      name: 'whole GiB, said in MiB',
      input: { size: '20480M' },
      then: [
        `copy ${base} ${sized}.part (1G)`,
        `truncate -s 21474836480 ${sized}.part`,
        `record ${sized}.json`,
        `publish ${sized}.part ${sized}`,
      ],
    },
    { name: 'the size is no whole GiB (S73)', input: { size: '1536M' }, then: 'BAD_SPEC' },
    { name: 'there is no space', found: { free: MiB }, then: 'NO_SPACE' },
  ],
)

const header = (backing: string | undefined, virtualSize: number) =>
  ({ virtualSize, ...(backing ? { backing, backingFormat: 'raw' } : {}) }) as Qcow2Header
const made = ['overlay /i/vm1/disk.part (20G) on /i/_base/b', 'publish /i/vm1/disk.part /i/vm1/disk']
plans(
  createOverlay,
  { disk: '/i/vm1/disk', base, size: '20G' },
  {
    disk: undefined,
    base: sound(2 * GiB),
    isRaw: true,
    isComing: false,
    isRenewed: false,
    directory: true,
    leftover: false,
  },
  [
    { name: 'it is not there', then: made },
    { name: 'nor is its directory', found: { directory: false }, then: ['mkdir /i/vm1', ...made] },
    { name: 'half of it is', found: { leftover: true }, then: made },
    { name: 'its base is still to come', found: { base: undefined, isComing: true }, then: made },
    {
      name: 'something wrote to its base',
      found: { base: sound(2 * GiB, { stamp: 'then' }) },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'its base is quarantined',
      found: { base: sound(2 * GiB, { quarantined: { since: 'then', why: 'it differs' } }) },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'something wrote to its base, and the step before proves it',
      found: { base: sound(2 * GiB, { stamp: 'then' }), isRenewed: true },
      then: made,
    },
    {
      name: 'it is there, and its base is quarantined: nothing new stands on that',
      found: {
        disk: header(base, 20 * GiB),
        base: sound(2 * GiB, { quarantined: { since: 'then', why: 'it differs' } }),
      },
      then: [],
    },
    { name: 'its base has no record', found: { base: { ...facts(2 * GiB), record: undefined } }, then: made },
    { name: 'as large as its base', found: { base: sound(20 * GiB) }, then: made },
    { name: 'it is there (S27)', found: { disk: header(base, 20 * GiB) }, then: [] },
    {
      name: 'it is there, and something was left over',
      found: { disk: header(base, 20 * GiB), leftover: true },
      then: ['remove /i/vm1/disk.part'],
    },
    { name: 'there is no base', found: { base: undefined }, then: 'MISSING_PREREQUISITE' },
    {
      name: 'it is there, its base is not',
      found: { disk: header(base, 20 * GiB), base: undefined },
      then: 'MISSING_PREREQUISITE',
    },
    { name: 'it is there on another base', found: { disk: header('/i/_base/c', 20 * GiB) }, then: 'NOT_OURS' },
    { name: 'it is there on no base', found: { disk: header(undefined, 20 * GiB) }, then: 'NOT_OURS' },
    { name: 'a raw disk is there', found: { disk: 'raw' }, then: 'NOT_OURS' },
    { name: 'it is there, smaller', found: { disk: header(base, 10 * GiB) }, then: 'INSTANCE_DIFFERS' },
    { name: 'it is there, larger', found: { disk: header(base, 30 * GiB) }, then: 'INSTANCE_DIFFERS' },
    { name: 'the image does not fit into it', found: { base: sound(20 * GiB + 512) }, then: 'DISK_TOO_SMALL' },
    { name: 'its base is a qcow2', found: { isRaw: false }, then: 'UNSUPPORTED' },
    { name: 'it is larger than a qcow2 can be', input: { size: '65T' }, then: 'UNSUPPORTED' },
    {
      name: "its base's name is longer than a qcow2 can keep",
      input: { base: `/${'b'.repeat(1023)}` },
      then: 'UNSUPPORTED',
    },
  ],
)

const maker = (argv: string[]): Maker => ({ argv, deterministic: true })
const ephemeral = '/i/_base/ephemeral_0_1_linux'
plans(
  makeEphemeralBase,
  { base: ephemeral, size: '1G', format: 'ext4' },
  { base: undefined, proof: undefined, leftovers: [], maker: maker(['mke2fs', `${ephemeral}.part`]) },
  [
    {
      name: 'it is not there',
      then: [
        'mkdir /i/_base',
        `allocate ${ephemeral}.part (1G, sparse)`,
        `mke2fs ${ephemeral}.part`,
        `record ${ephemeral}.json`,
        `publish ${ephemeral}.part ${ephemeral}`,
      ],
    },
    { name: 'it is there', found: { base: sound(GiB), maker: undefined }, then: [] },
    {
      name: 'it is there, another tool made it',
      found: { base: { ...facts(GiB), record: undefined }, maker: undefined },
      then: [`record ${ephemeral}.json (made by another tool: cowhand cache verify looks for a proof of it)`],
    },
    {
      name: 'something wrote to it',
      found: { base: sound(GiB, { stamp: 'then' }), proof: { is: 'unknown' }, maker: undefined },
      then: 'BASE_DIFFERS',
    },
    {
      name: 'it is there, and something was left over',
      found: { base: sound(GiB), maker: undefined, leftovers: [`${ephemeral}.part`] },
      then: [`remove ${ephemeral}.part`],
    },
  ],
)

const swap = '/i/_base/swap_512'
plans(
  makeSwapBase,
  { base: swap, size: '512M' },
  { base: undefined, proof: undefined, leftovers: [], maker: maker(['mkswap', `${swap}.part`]) },
  [
    {
      name: 'it is not there',
      then: [
        'mkdir /i/_base',
        `allocate ${swap}.part (512M, sparse)`,
        `mkswap ${swap}.part`,
        `record ${swap}.json`,
        `publish ${swap}.part ${swap}`,
      ],
    },
    { name: 'it is there', found: { base: sound(512 * MiB), maker: undefined }, then: [] },
    {
      name: 'it is there, and something was left over',
      found: { base: sound(512 * MiB), maker: undefined, leftovers: [`${swap}.part`] },
      then: [`remove ${swap}.part`],
    },
    { name: 'its size is no whole MiB', input: { size: 512 * MiB + 512 }, then: 'BAD_SPEC' },
  ],
)

const seed = '/i/vm1/disk.config'
const iso = `genisoimage -quiet -output ${seed}.part -volid cidata -joliet -rock ${seed}.d`
plans(
  makeSeed,
  { seed, 'user-data': 'u', 'instance-id': 'id', hostname: 'vm1' },
  {
    seed: undefined,
    staged: undefined,
    leftover: false,
    maker: ['genisoimage'],
    texts: ['#cloud-config\n', undefined, undefined],
  },
  [
    {
      name: 'it is not there: what is staged for it goes at once',
      then: [
        `mkdir ${seed}.d`,
        `write ${seed}.d/user-data (14 bytes)`,
        `write ${seed}.d/meta-data (36 bytes)`,
        iso,
        `publish ${seed}.part ${seed}`,
        `remove ${seed}.d/user-data`,
        `remove ${seed}.d/meta-data`,
        `rmdir ${seed}.d`,
      ],
    },
    {
      name: 'all three files',
      found: { texts: ['u', 'm', 'n'] },
      then: [
        `mkdir ${seed}.d`,
        ...['user-data', 'meta-data', 'network-config'].map((name) => `write ${seed}.d/${name} (1 bytes)`),
        iso,
        `publish ${seed}.part ${seed}`,
        ...['user-data', 'meta-data', 'network-config'].map((name) => `remove ${seed}.d/${name}`),
        `rmdir ${seed}.d`,
      ],
    },
    {
      name: 'staged files of another seed are no part of this one',
      found: { staged: ['user-data', 'network-config', 'meta-data.part'], texts: ['u', 'm', undefined] },
      then: [
        `mkdir ${seed}.d`,
        `remove ${seed}.d/network-config`,
        `remove ${seed}.d/meta-data.part`,
        `write ${seed}.d/user-data (1 bytes)`,
        `write ${seed}.d/meta-data (1 bytes)`,
        iso,
        `publish ${seed}.part ${seed}`,
        `remove ${seed}.d/user-data`,
        `remove ${seed}.d/meta-data`,
        `rmdir ${seed}.d`,
      ],
    },
    { name: 'it is there', found: { seed: facts(MiB) }, then: [] },
    {
      name: 'it is there, and the staged files are too',
      found: { seed: facts(MiB), staged: ['user-data', 'meta-data.part'], leftover: true },
      then: [`remove ${seed}.part`, `remove ${seed}.d/user-data`, `remove ${seed}.d/meta-data.part`, `rmdir ${seed}.d`],
    },
  ],
)

const target = '/s/debian.qcow2'
const record = { digest, format: 'qcow2', file: 'debian.qcow2', name: 'debian', properties: {} } as const
const known = { ...record, version: 1, size: GiB, stamp: 'now' } as const
plans(
  importImage,
  { file: '/tmp/d.qcow2', directory: '/s', name: 'debian', format: 'qcow2' },
  {
    target,
    record: undefined,
    known: undefined,
    source: facts(GiB),
    kept: undefined,
    digest: undefined,
    proof: undefined,
    free: 10 * GiB,
    ceiling: 8 * GiB,
    leftovers: [],
  },
  [
    {
      name: 'it is new: recorded before it gets its name',
      then: [
        'mkdir /s',
        `copy /tmp/d.qcow2 ${target}.part (1G)`,
        `examine ${target}.part (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}.part`,
        'record /s/debian.json',
        `publish ${target}.part ${target}`,
      ],
    },
    {
      name: 'a packed one: kept packed, examined unpacked',
      input: { packing: 'gz' },
      found: { target: `${target}.gz` },
      then: [
        'mkdir /s',
        `copy /tmp/d.qcow2 ${target}.gz.part (1G)`,
        `unpack ${target}.gz.part ${target}.gz.unpacked (gz)`,
        `examine ${target}.gz.unpacked (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}.gz.unpacked`,
        `remove ${target}.gz.unpacked`,
        'record /s/debian.json',
        `publish ${target}.gz.part ${target}.gz`,
      ],
    },
    {
      name: 'a file that lies in the store already',
      input: { file: target },
      found: { kept: facts(GiB) },
      then: [
        'mkdir /s',
        `verify ${target} (sha256)`,
        `examine ${target} (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}`,
        'record /s/debian.json',
      ],
    },
    { name: 'it is there', found: { record: known, known, kept: facts(GiB), digest }, then: [] },
    {
      name: 'it is there, and something was left over',
      found: { record: known, known, kept: facts(GiB), digest, leftovers: [`${target}.part`] },
      then: [`remove ${target}.part`],
    },
    {
      name: 'it was recorded, and cut off before it got its name',
      found: { record: known, leftovers: [`${target}.part`] },
      then: [
        'mkdir /s',
        `copy /tmp/d.qcow2 ${target}.part (1G)`,
        `examine ${target}.part (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}.part`,
        'record /s/debian.json',
        `publish ${target}.part ${target}`,
      ],
    },
    { name: 'there is no such file', found: { source: undefined }, then: 'IMAGE_NOT_FOUND' },
    {
      name: 'another image has the name',
      found: { record: known, known, kept: facts(GiB), digest: `${digest}0` },
      then: 'IMAGE_EXISTS',
    },
    {
      name: 'it is there in another format',
      input: { format: 'raw' },
      found: { record: known, known, kept: facts(GiB), digest },
      then: 'IMAGE_EXISTS',
    },
    {
      name: 'it is there, packed otherwise',
      input: { packing: 'gz' },
      found: { record: known, known, digest },
      then: 'IMAGE_EXISTS',
    },
    {
      name: 'it is there with other properties',
      input: { properties: { a: 'b' } },
      found: { record: known, known, digest },
      then: 'IMAGE_EXISTS',
    },
    {
      name: 'the file in the store was replaced, and is added as it is now',
      input: { file: target },
      found: { record: known, known, kept: facts(GiB), digest: `${digest}0` },
      then: [
        'mkdir /s',
        `verify ${target} (sha256)`,
        `examine ${target} (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}`,
        'record /s/debian.json',
      ],
    },
    {
      name: 'it has another digest than was said',
      input: { checksum: digest },
      found: { proof: `${digest}0` },
      then: 'CHECKSUM_MISMATCH',
    },
    {
      name: 'it is proven on its way where a digest was said',
      input: { checksum: digest },
      found: { proof: digest },
      then: [
        'mkdir /s',
        `copy /tmp/d.qcow2 ${target}.part (1G)`,
        `examine ${target}.part (qcow2)`,
        `qemu-img check -q -f qcow2 ${target}.part`,
        'record /s/debian.json',
        `publish ${target}.part ${target}`,
      ],
    },
    { name: 'a file has the name, and was never added', found: { kept: facts(GiB) }, then: 'NOT_OURS' },
    { name: 'there is no space', found: { free: MiB }, then: 'NO_SPACE' },
  ],
)

plans(removeImage, { directory: '/s', name: 'debian' }, { record: known, file: target }, [
  { name: 'it is there: the record goes last', then: [`remove ${target}`, 'remove /s/debian.json'] },
  { name: 'its file is gone', found: { file: undefined }, then: ['remove /s/debian.json'] },
  { name: 'it is gone', found: { record: undefined, file: undefined }, then: [] },
])
