// Hostile images and odd ones, end to end: the binary takes them into the store, or makes a base of them, or it refuses
// each for its own reason and leaves everything as it was. None of the rejected ones ever meets qemu-img.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'
import type { Format } from '../../lib/job/spec.ts'
import {
  andThen,
  converted,
  created,
  cut,
  dir,
  image,
  M,
  type Make,
  patched,
  reworded,
  sealed,
  source,
  u32be,
  u32le,
  u64be,
  u64le,
  written,
} from '../unit/images.ts'

/** Serves the image that was made last. */
const server = createServer((request, response) => {
  const bytes = readFileSync(image)
  const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
  const range = { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` }
  response.writeHead(request.headers.range ? 206 : 200, {
    'content-length': bytes.length - from,
    ...(request.headers.range ? range : {}),
  })
  response.end(request.method === 'HEAD' ? undefined : bytes.subarray(from))
})
let url: string
before(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/image`
})
after(() => {
  server.closeAllConnections()
  server.close()
})

const instances = join(dir, 'instances')
const store = join(dir, 'store')

async function cowhand(...words: string[]): Promise<Result & { code: number | null }> {
  const argv = ['--instances', instances, '--store', `dir:${store}`, ...words, '--json']
  const child = spawn(join(root, 'build/out/cowhand'), argv, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: '/usr/bin:/bin' },
    timeout: 60_000,
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const [stdout, stderr, code] = await Promise.all([text(child.stdout), text(child.stderr), ended])
  assert.notEqual(stdout, '', stderr)
  return { ...JSON.parse(stdout), code }
}

/** All that is there, with its inode and the time of its last change; locks come and go. */
function tree(): string[] {
  return [instances, store]
    .flatMap((top) =>
      existsSync(top)
        ? [top, ...readdirSync(top, { recursive: true, encoding: 'utf8' }).map((path) => join(top, path))]
        : [],
    )
    .filter((path) => !path.startsWith(join(instances, 'locks')))
    .map((path) => ({ path, stat: statSync(path) }))
    .map(({ path, stat }) => (stat.isDirectory() ? path : `${path} ${stat.ino} ${stat.size} ${stat.mtimeMs}`))
    .sort()
}

const qcow2 = converted('qcow2')
const vmdk = converted('vmdk')
const vpc = converted('vpc')
const vhdx = converted('vhdx')
const onBase = created('qcow2', '-F', 'raw', '-b', source, 'FILE')
const withSecret = created(
  ...['qcow2', '--object', 'secret,id=s,data=x', '-o', 'encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10'],
  ...['FILE', '1M'],
)

/** A qcow2 whose first cluster of data is its own header: what a guest reads or writes there are the tables. */
const overlapping: Make = () => {
  qcow2()
  const bytes = readFileSync(image)
  const l1 = Number(bytes.readBigUInt64BE(40))
  const l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n)
  bytes.writeBigUInt64BE(2n ** 63n, l2)
  bytes.writeBigUInt64BE(2n ** 63n + BigInt(l1), l2 + 8)
  writeFileSync(image, bytes)
}

/** The word of each image; where it is `url`, an instance is made of it too, straight from the web server. */
const hostile: [kind: string, format: Format, make: Make, says: RegExp, where?: 'url'][] = [
  ['a backing file', 'qcow2', onBase, /it has a backing file/, 'url'],
  [
    'a backing file in disguise',
    'qcow2',
    patched(
      onBase,
      [8, u64be(0x300n)],
      [16, u32be(5000)],
      [0x300, 'json:{"driver":"raw","file":{"filename":"/etc/shadow"}}'],
    ),
    /backing file name of 5000 bytes is too long/,
  ],
  [
    'a backing file whose name lies in the tables',
    'qcow2',
    patched(onBase, [8, u64be(65536n)]),
    /name is not in its first cluster/,
  ],
  [
    'a data file',
    'qcow2',
    created('qcow2', '-o', `data_file=${dir}/data,data_file_raw=on`, 'FILE', '1M'),
    /its data is in another file/,
    'url',
  ],
  ['an unknown feature', 'qcow2', patched(qcow2, [72, u32be(1)]), /features that are not known here/],
  ['the corrupt bit', 'qcow2', patched(qcow2, [79, Buffer.from([2])]), /marked as corrupt/],
  ['encryption', 'qcow2', withSecret, /it is encrypted/],
  ['version 4', 'qcow2', patched(qcow2, [4, u32be(4)]), /it is qcow version 4/],
  ['clusters of 2^63 bytes', 'qcow2', patched(qcow2, [20, u32be(63)]), /clusters of 2\^63 bytes/],
  ['a header of 4 GiB', 'qcow2', patched(qcow2, [100, u32be(2 ** 32 - 8)]), /header length of 4294967288/],
  ['an L1 table of 32 GiB', 'qcow2', patched(qcow2, [36, u32be(2 ** 32 - 1)]), /L1 table of 4294967295 entries/],
  ['an L1 table beyond the end', 'qcow2', patched(qcow2, [40, u64be(2n ** 40n)]), /L1 table is not inside the file/],
  [
    'a refcount table of 2^32 clusters',
    'qcow2',
    patched(qcow2, [56, u32be(2 ** 32 - 1)]),
    /refcount table is missing or/,
  ],
  ['2^32 snapshots', 'qcow2', patched(qcow2, [60, u32be(2 ** 32 - 1)]), /its 4294967295 snapshots/],
  ['an extension beyond its place', 'qcow2', patched(qcow2, [116, u32be(2 ** 31)]), /extension reaches beyond/],
  [
    'tables in one place',
    'qcow2',
    patched(qcow2, [40, u64be(65536n)]),
    /two of its tables lie in the same place/,
    'url',
  ],
  [
    '1 PiB of disk in 2 MiB of file',
    'qcow2',
    created('qcow2', '-o', 'cluster_size=2M', 'FILE', '1P'),
    /its virtual size of 1024T .* is above the limit/,
  ],
  ['a disk of nothing', 'qcow2', created('qcow2', 'FILE', '0'), /its virtual size is 0/],
  ['a file of nothing', 'raw', written(''), /it is empty/],
  ['nothing but its first bytes', 'qcow2', cut(qcow2, 80), /its qcow2 header is cut short/],
  [
    'a page of a web server',
    'qcow2',
    written('<html><h1>404</h1></html>'),
    /declared qcow2 but its content is raw/,
    'url',
  ],
  ['qcow2 that is called raw', 'raw', qcow2, /declared raw but its content is qcow2/, 'url'],
  ['qcow version 1', 'raw', created('qcow', 'FILE', '1M'), /its content is qcow \(version 1\)/],
  ['qed', 'raw', created('qed', 'FILE', '1M'), /its content is qed/],
  ['parallels', 'raw', created('parallels', 'FILE', '1M'), /its content is parallels/],
  ['the text of a vmdk that is called raw', 'raw', written('# hello\n\nversion=1\n'), /raw but its content is vmdk/],
  ['qcow2 and ISO', 'qcow2', patched(qcow2, [0x8001, 'CD001']), /several things at once: qcow2, iso/, 'url'],
  ['qcow2 and vpc', 'qcow2', patched(qcow2, [-512, 'conectix']), /several things at once: qcow2, vpc/],
  [
    'a vmdk of host files',
    'vmdk',
    written('# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "/etc/shadow" 0\n'),
    /vmdk monolithicFlat: only a descriptor/,
    'url',
  ],
  [
    'a vmdk with an extent on the host',
    'vmdk',
    reworded(vmdk, / SPARSE "image"/, ' FLAT "/etc/passwd" 0'),
    /its vmdk extent is odd, not SPARSE/,
  ],
  [
    'a vmdk with a parent in a comment',
    'vmdk',
    reworded(vmdk, '# Extent description', '# parentFileNameHint="/etc/passwd"'),
    /names a parent/,
  ],
  ['a vmdk whose text rules', 'vmdk', patched(vmdk, [12, u64le(0n)]), /header gives no size/],
  ['a vdi with a parent', 'vdi', patched(converted('vdi'), [0x1b8, 'someone']), /it is a vdi that needs a parent/],
  [
    'a vdi with 2^30 blocks',
    'vdi',
    patched(converted('vdi'), [0x180, u32le(2 ** 30)]),
    /its virtual size and its block map/,
  ],
  [
    'a differencing vpc',
    'vpc',
    sealed('vpc', patched(vpc, [60, u32be(4)], [-512 + 60, u32be(4)])),
    /it is a differencing vpc/,
  ],
  ['a vpc with two ends', 'vpc', patched(vpc, [48, u64be(512n)]), /its head and its footer differ/],
  ['a differencing vhdx', 'vhdx', sealed('vhdx', patched(vhdx, [0x310004, u32le(2)])), /differencing vhdx/],
  [
    'a vhdx with work left in its log',
    'vhdx',
    sealed('vhdx', patched(vhdx, [0x10030, 'a log of somebody'], [0x20030, 'a log of somebody'])),
    /its log is to be replayed/,
  ],
  ['a vhdx of 1 EiB', 'vhdx', sealed('vhdx', patched(vhdx, [0x310008, u64le(2n ** 60n)])), /more than the 64 TiB/],
]

describe('each hostile image is rejected for its own reason, and nothing is left of it', () => {
  const reasons = new Set<string>()
  before(async () => {
    // Something is there already, and stays as it is. It is no image that comes again below: its base would be known.
    converted('qcow2', 'compat=0.10')()
    mkdirSync(instances)
    assert.equal((await cowhand('image', 'add', image, '--name', 'good', '--format', 'qcow2')).code, 0)
    assert.equal((await cowhand('create', 'vm1', '--image', 'good', '--root', '64M')).code, 0)
  })

  for (const [kind, format, make, says, where] of hostile)
    test(kind, async () => {
      make()
      const before = tree()
      const added = await cowhand('image', 'add', image, '--name', 'bad', '--format', format)
      assert.deepEqual(
        [added.code, added.error?.code, added.changed],
        [3, 'IMAGE_REJECTED', false],
        added.error?.message,
      )
      assert.match(added.error?.message ?? '', says)
      const [, reason = ''] = (added.error?.message ?? '').split(`Cannot use image "${image}": `)
      assert.ok(reason !== '' && !reasons.has(reason), `not its own reason: ${reason}`)
      reasons.add(reason)
      assert.ok(added.error?.remedy)
      assert.deepEqual(tree(), before)
      if (where !== 'url') return

      const checksum = `sha256:${createHash('sha256').update(readFileSync(image)).digest('hex')}`
      const from = ['--image', url, '--image-format', format, '--checksum', checksum]
      const made = await cowhand('create', 'vm2', ...from, '--root', '64M')
      assert.deepEqual([made.code, made.error?.code, made.changed], [3, 'IMAGE_REJECTED', false], made.error?.message)
      assert.equal(made.error?.message, `Cannot use image "${url}": ${reason}`)
      assert.deepEqual(tree(), before)
    })

  test('there were many', () => assert.ok(reasons.size >= 25, `${reasons.size}`))

  test('data in the place of tables: our reader does not look there, qemu-img check does', async () => {
    overlapping()
    const before = tree()
    const { code, error } = await cowhand('image', 'add', image, '--name', 'bad', '--format', 'qcow2')
    assert.deepEqual([code, error?.code], [3, 'IMAGE_REJECTED'], error?.message)
    assert.deepEqual(tree(), before)
  })
})

const qemu = (...words: string[]) => ['qemu-img', ...words]
const hybrid: Make = () => {
  const files = mkdtempSync(join(dir, 'iso-'))
  writeFileSync(join(files, 'readme'), 'hello')
  writeFileSync(join(dir, 'efi.img'), Buffer.alloc(1.5 * M))
  const partitions = ['-partition_offset', '16', '-append_partition', '2', '0xef', join(dir, 'efi.img')]
  execFileSync('xorriso', [
    '-as',
    'mkisofs',
    '-quiet',
    '-r',
    ...partitions,
    '-appended_part_as_gpt',
    '-o',
    image,
    files,
  ])
  const bytes = readFileSync(image).toString('latin1')
  assert.deepEqual([bytes.slice(510, 520), bytes.slice(0x8001, 0x8006)], ['U\xaaEFI PART', 'CD001'])
}
const withGpt = patched(converted('raw'), [510, Buffer.from([0x55, 0xaa])], [512, 'EFI PART'], [-512, 'EFI PART'])
const odd: [kind: string, format: Format, make: Make][] = [
  ['raw with a GPT', 'raw', withGpt],
  ['an ISO with MBR and GPT', 'raw', hybrid],
  ['qcow2 version 2', 'qcow2', converted('qcow2', 'compat=0.10')],
  [
    'zstd',
    'qcow2',
    andThen(() => {}, qemu('convert', '-c', '-O', 'qcow2', '-o', 'compression_type=zstd', source, 'FILE')),
  ],
  ['zlib', 'qcow2', andThen(() => {}, qemu('convert', '-c', '-f', 'raw', '-O', 'qcow2', source, 'FILE'))],
  ['extended L2 entries', 'qcow2', converted('qcow2', 'extended_l2=on')],
  ['lazy refcounts', 'qcow2', converted('qcow2', 'lazy_refcounts=on')],
  ['clusters of 2 MiB', 'qcow2', converted('qcow2', 'cluster_size=2M')],
  ['clusters of 512 bytes', 'qcow2', converted('qcow2', 'cluster_size=512')],
  ['bitmaps', 'qcow2', andThen(qcow2, qemu('bitmap', '-f', 'qcow2', '--add', 'FILE', 'one'))],
  // The state that counts is the present one; what older snapshots show is not copied into the base.
  [
    'internal snapshots',
    'qcow2',
    andThen(qcow2, qemu('snapshot', '-q', '-c', 'old', 'FILE'), ['qemu-io', '-c', 'write -P 7 0 1M', 'FILE']),
  ],
  ['a vmdk for streaming', 'vmdk', converted('vmdk', 'subformat=streamOptimized')],
  ['a static vdi', 'vdi', converted('vdi', 'static=on')],
  [
    'a fixed vpc with an MBR in its data',
    'vpc',
    patched(converted('vpc', 'subformat=fixed,force_size=on'), [510, 'U\xaa']),
  ],
  ['a fixed vhdx', 'vhdx', converted('vhdx', 'subformat=fixed')],
]

describe('odd images that harm nobody make the same base as any other', () => {
  for (const [n, [kind, format, make]] of odd.entries())
    test(kind, async () => {
      make()
      const [name, instance] = [`odd${n}`, `vm-odd${n}`]
      const added = await cowhand('image', 'add', image, '--name', name, '--format', format)
      assert.equal(added.code, 0, added.error?.message)
      const made = await cowhand('create', instance, '--image', name, '--root', '64M')
      assert.equal(made.code, 0, made.error?.message)
      const base = made.disks?.find(({ name }) => name === 'disk')?.backing ?? ''
      assert.ok(base.startsWith(join(instances, '_base')), base)
      execFileSync('qemu-img', ['compare', '-q', '-f', 'raw', '-F', format, base, image])
    })
})
