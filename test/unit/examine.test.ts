import assert from 'node:assert/strict'
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, test } from 'node:test'
import { examine, identify } from '../../lib/image/examine.ts'
import { Problem } from '../../lib/job/problem.ts'
import type { Format } from '../../lib/job/spec.ts'
import {
  andThen,
  ceiling,
  converted,
  created,
  cut,
  dir,
  image,
  M,
  type Make,
  patched,
  qemuImg,
  reworded,
  sealed,
  source,
  T,
  u32be,
  u32le,
  u64be,
  u64le,
  written,
} from './images.ts'

const vhdx = converted('vhdx')
const sparse = converted('vmdk', 'subformat=monolithicSparse')
const stream = converted('vmdk', 'subformat=streamOptimized')
const vhd = converted('vpc')
const fixedVhd = converted('vpc', 'subformat=fixed')
/** A stream as VMware writes it: the directory's place is only in the footer. */
const streamWithFooter: Make = () => {
  stream()
  const bytes = readFileSync(image)
  const footer = Buffer.alloc(3 * 512)
  footer.writeUInt32LE(3, 12)
  bytes.copy(footer, 512, 0, 512)
  bytes.fill(0xff, 56, 64)
  writeFileSync(image, Buffer.concat([bytes, footer]))
}
/** An image of a disk with a GPT, whose first sectors come to lie where a disk of larger sectors has its own. */
const gptAt4096 = (format: Format, size: number): Make => {
  return () => {
    const disk = join(dir, 'gpt.raw')
    const header = Buffer.alloc(1024)
    signature.copy(header, 510)
    header.write('EFI PART', 512)
    header.writeBigUInt64LE(BigInt((size * M) / 512 - 1), 512 + 32)
    writeFileSync(disk, header)
    truncateSync(disk, size * M)
    qemuImg('convert', '-f', 'raw', '-O', format, disk, image)
    assert.equal(readFileSync(image).toString('latin1', 4096, 4104), 'EFI PART', 'this test would show nothing')
  }
}
const withSecret = (format: string): Make => {
  const prefix = format === 'luks' ? '' : 'encrypt.format=luks,encrypt.'
  const options = format === 'luks' ? 'key-secret=s,iter-time=10' : `${prefix}key-secret=s,encrypt.iter-time=10`
  return created(format, '--object', 'secret,id=s,data=x', '-o', options, 'FILE', '1M')
}
const addBitmap = (name: string) => ['qemu-img', 'bitmap', '-f', 'qcow2', '--add', 'FILE', name]
const snapshot = (name: string) => ['qemu-img', 'snapshot', '-q', '-c', name, 'FILE']
const signature = Buffer.from([0x55, 0xaa])

describe('an image that is whole and stands alone is taken, with the size that qemu-img sees', () => {
  const rows: [what: string, format: Format, make: Make][] = [
    ['qcow2 version 2', 'qcow2', converted('qcow2', 'compat=0.10')],
    ['qcow2 version 3', 'qcow2', converted('qcow2')],
    ['qcow2 compressed (zlib)', 'qcow2', () => qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', source, image)],
    [
      'qcow2 compressed (zstd)',
      'qcow2',
      () => qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', 'compression_type=zstd', source, image),
    ],
    ['qcow2 with extended L2 entries', 'qcow2', converted('qcow2', 'extended_l2=on')],
    ['qcow2 with lazy refcounts', 'qcow2', converted('qcow2', 'lazy_refcounts=on')],
    ['qcow2 with small clusters', 'qcow2', converted('qcow2', 'cluster_size=512')],
    ['qcow2 with clusters of 2 MiB', 'qcow2', converted('qcow2', 'cluster_size=2M')],
    ['qcow2 with refcounts of 1 bit', 'qcow2', converted('qcow2', 'refcount_bits=1')],
    ['qcow2 with refcounts of 64 bits', 'qcow2', converted('qcow2', 'refcount_bits=64')],
    ['qcow2 with everything allocated', 'qcow2', converted('qcow2', 'preallocation=full')],
    ['qcow2 with bitmaps', 'qcow2', andThen(converted('qcow2'), addBitmap('one'), addBitmap('two'))],
    ['qcow2 with snapshots', 'qcow2', andThen(converted('qcow2'), snapshot('one'), snapshot('two'))],
    ['qcow2 version 2 with a snapshot', 'qcow2', andThen(converted('qcow2', 'compat=0.10'), snapshot('one'))],
    ['qcow2 with an extension that nobody knows', 'qcow2', patched(converted('qcow2'), [112, u32be(0x12345678)])],
    [
      'qcow2 that was grown',
      'qcow2',
      andThen(converted('qcow2'), ['qemu-img', 'resize', '-q', '-f', 'qcow2', 'FILE', '9G']),
    ],
    ['qcow2 that was not closed', 'qcow2', patched(converted('qcow2', 'lazy_refcounts=on'), [76, u32be(1)])],
    ['raw without anything', 'raw', written(Buffer.alloc(M))],
    ['raw with an MBR', 'raw', patched(written(Buffer.alloc(M)), [510, signature])],
    [
      'raw with a GPT',
      'raw',
      patched(written(Buffer.alloc(M)), [510, signature], [512, 'EFI PART'], [-512, 'EFI PART']),
    ],
    ['raw with an ISO 9660 file system', 'raw', patched(written(Buffer.alloc(M)), [0x8000, '\x01CD001\x01'])],
    [
      'raw with an ISO that boots from disk',
      'raw',
      patched(written(Buffer.alloc(M)), [510, signature], [0x8000, '\x01CD001']),
    ],
    ['raw with text in it', 'raw', written(`#!/bin/sh\necho "version=1"\n${'\n'.repeat(1000)}`)],
    ['raw of no whole sectors', 'raw', written(Buffer.alloc(1000, 1))],
    ['vmdk monolithicSparse', 'vmdk', sparse],
    ['vmdk monolithicSparse, empty', 'vmdk', created('vmdk', 'FILE', '40G')],
    ['vmdk streamOptimized', 'vmdk', stream],
    ['vmdk streamOptimized with a footer', 'vmdk', streamWithFooter],
    ['vmdk with line ends of Windows', 'vmdk', reworded(sparse, /\n/g, '\r\n')],
    ['vdi dynamic', 'vdi', converted('vdi')],
    ['vdi dynamic, empty', 'vdi', created('vdi', 'FILE', '40G')],
    ['vdi static', 'vdi', converted('vdi', 'static=on')],
    ['vpc dynamic', 'vpc', vhd],
    ['vpc dynamic, empty', 'vpc', created('vpc', 'FILE', '40G')],
    ['vpc dynamic, of the very size', 'vpc', converted('vpc', 'force_size=on')],
    ['vpc fixed', 'vpc', fixedVhd],
    ['vpc fixed, with an MBR in its data', 'vpc', patched(fixedVhd, [510, signature])],
    ['vpc fixed, with an ISO in its data', 'vpc', patched(fixedVhd, [0x8001, 'CD001'])],
    ['vdi with a GPT in its data', 'vdi', gptAt4096('vdi', 700)],
    ['vpc dynamic, with a GPT in its data', 'vpc', gptAt4096('vpc', 765)],
    ['vpc fixed, of the very size', 'vpc', converted('vpc', 'subformat=fixed,force_size=on')],
    ['vhdx', 'vhdx', vhdx],
    ['vhdx, empty', 'vhdx', created('vhdx', 'FILE', '40G')],
    ['vhdx fixed', 'vhdx', converted('vhdx', 'subformat=fixed')],
  ]
  for (const [what, format, make] of rows)
    test(what, async () => {
      make()
      const virtualSize = JSON.parse(qemuImg('info', '--output=json', '-f', format, image))['virtual-size']
      // Nothing that we call raw may be something else to a program that guesses. A fixed vpc is raw to one.
      const { format: guess } = JSON.parse(qemuImg('info', '--output=json', image))
      assert.equal(guess, what.startsWith('vpc fixed') ? 'raw' : format)
      assert.deepEqual(await examine(image, { format, ceiling }), { virtualSize })
      assert.deepEqual(await identify(image), { format, virtualSize })
    })
})

describe('an image that reaches out, lies, or is cut short is rejected', () => {
  const onBase = (...more: string[]) => created('qcow2', ...more, '-F', 'raw', '-b', source, 'FILE')
  const rows: [what: string, format: Format, make: Make, says: RegExp][] = [
    ['qcow2 with a backing file', 'qcow2', onBase(), /it has a backing file/],
    ['qcow2 version 2 with a backing file', 'qcow2', onBase('-o', 'compat=0.10'), /it has a backing file/],
    [
      'qcow2 with a data file',
      'qcow2',
      created('qcow2', '-o', `data_file=${dir}/data`, 'FILE', '1M'),
      /data is in another file/,
    ],
    [
      'qcow2 with a data file that its features hide',
      'qcow2',
      patched(created('qcow2', '-o', `data_file=${dir}/data,data_file_raw=on`, 'FILE', '1M'), [76, u32be(0)]),
      /data is in another file/,
    ],
    ['qcow2 encrypted', 'qcow2', withSecret('qcow2'), /it is encrypted/],
    ['qcow2 marked as corrupt', 'qcow2', patched(converted('qcow2'), [76, u32be(2)]), /marked as corrupt/],
    ['qcow2 with an unknown feature', 'qcow2', patched(converted('qcow2'), [76, u32be(0x40)]), /not known here/],
    [
      'qcow2 of 9 TiB',
      'qcow2',
      created('qcow2', 'FILE', '9T'),
      /virtual size of 9T \(9895604649984 bytes\) is above the limit of 8T/,
    ],
    [
      'qcow2 of 1 PiB',
      'qcow2',
      created('qcow2', '-o', 'cluster_size=2M', 'FILE', '1P'),
      /virtual size of 1024T \(\d+ bytes\) is above/,
    ],
    ['qcow2 of nothing', 'qcow2', created('qcow2', 'FILE', '0'), /virtual size is 0/],
    ['an empty file', 'raw', written(''), /it is empty/],
    ['an empty file called qcow2', 'qcow2', written(''), /it is empty/],
    [
      'raw larger than allowed',
      'raw',
      () => {
        written('x')()
        truncateSync(image, 9 * T)
      },
      /above the limit/,
    ],

    ['qcow2 called raw', 'raw', converted('qcow2'), /declared raw but its content is qcow2/],
    ['raw called qcow2', 'qcow2', written(Buffer.alloc(M)), /declared qcow2 but its content is raw/],
    [
      'a page of a web server called qcow2',
      'qcow2',
      written('<html>404</html>'),
      /declared qcow2 but its content is raw/,
    ],
    ['vmdk called raw', 'raw', sparse, /declared raw but its content is vmdk/],
    [
      'a vmdk descriptor called raw',
      'raw',
      created('vmdk', '-o', 'subformat=monolithicFlat', 'FILE', '1M'),
      /raw but its content is vmdk/,
    ],
    [
      'a vmdk descriptor behind comments called raw',
      'raw',
      written('# harmless\n\n  \n#\nversion=1\n'),
      /raw but its content is vmdk/,
    ],
    [
      'a vmdk descriptor with line ends of Windows called raw',
      'raw',
      written('# a\r\nversion=3\r\n'),
      /raw but its content is vmdk/,
    ],
    ['vdi called raw', 'raw', converted('vdi'), /declared raw but its content is vdi/],
    ['dynamic vpc called raw', 'raw', vhd, /declared raw but its content is vpc/],
    ['fixed vpc called raw', 'raw', fixedVhd, /declared raw but its content is vpc/],
    ['vhdx called raw', 'raw', vhdx, /declared raw but its content is vhdx/],
    ['vhdx called vpc', 'vpc', vhdx, /declared vpc but its content is vhdx/],
    [
      'qcow version 1 called raw',
      'raw',
      created('qcow', 'FILE', '1M'),
      /content is qcow \(version 1\), which is not supported/,
    ],
    ['qcow version 1 called qcow2', 'qcow2', created('qcow', 'FILE', '1M'), /content is qcow \(version 1\)/],
    ['qed called raw', 'raw', created('qed', 'FILE', '1M'), /content is qed/],
    ['luks called raw', 'raw', withSecret('luks'), /content is luks/],
    ['parallels called raw', 'raw', created('parallels', 'FILE', '1M'), /content is parallels/],
    ['older parallels called raw', 'raw', written('WithoutFreeSpace'.padEnd(4096)), /content is parallels/],
    ['bochs called raw', 'raw', written('Bochs Virtual HD Image'.padEnd(4096, '\0')), /content is bochs/],
    [
      'cloop called raw',
      'raw',
      written('#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount'),
      /content is cloop/,
    ],
    ['dmg called raw', 'raw', patched(written(Buffer.alloc(M)), [-512, 'koly']), /content is dmg/],
    [
      'qcow2 and vpc at once',
      'qcow2',
      patched(converted('qcow2'), [-512, 'conectix']),
      /several things at once: qcow2, vpc/,
    ],

    [
      'vmdk monolithicFlat',
      'vmdk',
      created('vmdk', '-o', 'subformat=monolithicFlat', 'FILE', '1M'),
      /vmdk monolithicFlat: only a descriptor/,
    ],
    [
      'vmdk twoGbMaxExtentSparse',
      'vmdk',
      created('vmdk', '-o', 'subformat=twoGbMaxExtentSparse', 'FILE', '1M'),
      /vmdk twoGbMaxExtentSparse: only a descriptor/,
    ],
    ['vmdk of ESX', 'vmdk', patched(written(Buffer.alloc(M)), [0, 'COWD']), /ESX kind/],
    [
      'vmdk with a parent',
      'vmdk',
      created('vmdk', '-F', 'vmdk', '-b', join(dir, 'parent.vmdk'), 'FILE'),
      /names a parent/,
    ],
    [
      'vmdk with a parent in a comment',
      'vmdk',
      reworded(sparse, '# Extent description', '# parentFileNameHint="/etc/passwd"'),
      /names a parent/,
    ],
    [
      'vmdk with a parent in other letters',
      'vmdk',
      reworded(sparse, '# Extent description', 'PARENTFILENAMEHINT="/x"'),
      /names a parent/,
    ],
    [
      'vmdk with a parent behind its text',
      'vmdk',
      patched(sparse, [15 * 512, 'parentFileNameHint="/etc/passwd"']),
      /names a parent/,
    ],
    [
      'vmdk that needs a parent',
      'vmdk',
      reworded(sparse, 'parentCID=ffffffff', 'parentCID=12345678'),
      /needs a parent/,
    ],
    ['vmdk without parentCID', 'vmdk', reworded(sparse, 'parentCID=ffffffff', ''), /needs a parent/],
    [
      'vmdk with two parentCIDs',
      'vmdk',
      reworded(sparse, '# Extent description', 'parentCID=12345678'),
      /says something twice/,
    ],
    [
      'vmdk of two kinds',
      'vmdk',
      reworded(sparse, '# Extent description', 'createType="monolithicFlat"'),
      /says something twice/,
    ],
    [
      'vmdk of another kind',
      'vmdk',
      reworded(sparse, 'monolithicSparse', 'monolithicFlat'),
      /vmdk monolithicFlat, not/,
    ],
    ['vmdk of no kind', 'vmdk', reworded(sparse, /createType=.*\n/, ''), /vmdk nothing, not/],
    [
      'vmdk with its kind in a comment too',
      'vmdk',
      reworded(sparse, '# Extent', '# createType="monolithicFlat" Extent'),
      /descriptor is odd/,
    ],
    [
      'vmdk with a flat extent',
      'vmdk',
      reworded(sparse, / SPARSE "image"/, ' FLAT "/etc/passwd" 0'),
      /extent is odd|extent is FLAT/,
    ],
    [
      'vmdk with a second extent',
      'vmdk',
      reworded(sparse, '# The Disk Data Base', 'RW 1 FLAT "/etc/passwd" 0'),
      /2 extents/,
    ],
    [
      'vmdk with an indented second extent',
      'vmdk',
      reworded(sparse, '# The Disk Data Base', ' \trw 1 FLAT "/x" 0'),
      /2 extents/,
    ],
    ['vmdk without an extent', 'vmdk', reworded(sparse, /RW \d+ SPARSE.*\n/, ''), /0 extents/],
    ['vmdk with an extent of another size', 'vmdk', reworded(sparse, /RW \d+ /, 'RW 9999 '), /differ on its size/],
    [
      'vmdk whose header has no size, so that the descriptor rules',
      'vmdk',
      patched(sparse, [12, u64le(0n)]),
      /header gives no size/,
    ],
    ['vmdk with its descriptor elsewhere', 'vmdk', patched(sparse, [28, u64le(40n)]), /descriptor is not inside/],
    ['vmdk version 4', 'vmdk', patched(sparse, [4, u32le(4)]), /vmdk version 4/],
    ['vmdk that went through a text transfer', 'vmdk', patched(sparse, [73, '\n \n\n']), /damaged on the way/],
    ['vmdk with grains of no sectors', 'vmdk', patched(sparse, [20, u64le(0n)]), /grains of 0/],
    [
      'vmdk with its directory beyond the end',
      'vmdk',
      patched(sparse, [56, u64le(2n ** 40n)]),
      /grain directory is missing/,
    ],
    ['vmdk cut short', 'vmdk', cut(sparse, 5000), /cut short/],
    ['vmdk stream cut short', 'vmdk', cut(streamWithFooter, -512), /footer is missing/],
    ['vmdk stream cut between sectors', 'vmdk', cut(streamWithFooter, -100), /footer is missing/],
    [
      'vmdk stream with another size in its footer',
      'vmdk',
      patched(streamWithFooter, [-1024 + 12, u64le(1n)]),
      /header and its footer differ/,
    ],
    ['vmdk of 1 PiB', 'vmdk', patched(sparse, [12, u64le(2n ** 41n)]), /grain directory|differ on its size|above/],

    ['vdi differencing', 'vdi', patched(converted('vdi'), [0x4c, u32le(4)]), /vdi that needs a parent/],
    ['vdi undo', 'vdi', patched(converted('vdi'), [0x4c, u32le(3)]), /vdi that needs a parent/],
    ['vdi with a parent', 'vdi', patched(converted('vdi'), [0x1b8, 'someone']), /vdi that needs a parent/],
    ['vdi version 2', 'vdi', patched(converted('vdi'), [0x44, u32le(0x20000)]), /vdi version/],
    ['vdi with blocks of 2 MiB', 'vdi', patched(converted('vdi'), [0x178, u32le(2 * M)]), /vdi blocks/],
    ['vdi with a size beyond its map', 'vdi', patched(converted('vdi'), [0x170, u64le(2n ** 50n)]), /block map differ/],
    ['vdi with a map beyond the end', 'vdi', patched(converted('vdi'), [0x154, u32le(2 ** 31)]), /block map/],
    ['vdi with 2^30 blocks', 'vdi', patched(converted('vdi'), [0x180, u32le(2 ** 30)]), /block map/],
    ['vdi cut short', 'vdi', cut(converted('vdi'), -M), /blocks are missing at its end/],
    ['vdi cut within its header', 'vdi', cut(converted('vdi'), 300), /cut short/],

    [
      'vdi with extra data in its blocks',
      'vdi',
      patched(converted('vdi'), [0x17c, u32le(512)]),
      /blocks have extra data/,
    ],
    [
      'vmdk with 2^32 grains',
      'vmdk',
      reworded(patched(sparse, [12, u64le(2n ** 32n)], [20, u64le(1n)]), /RW \d+ /, 'RW 4294967296 '),
      /grain directory is missing/,
    ],
    [
      'vmdk with a grain directory of 1 GiB',
      'vmdk',
      patched(sparse, [12, u64le(2n ** 32n)], [20, u64le(1n)], [44, u32le(16)]),
      /grain directory of 1073741824 bytes is absurd/,
    ],
    [
      'vmdk with its second directory beyond the end',
      'vmdk',
      patched(sparse, [48, u64le(2n ** 40n)]),
      /second grain directory is missing/,
    ],
    ['vmdk with a descriptor of 1 MiB', 'vmdk', patched(sparse, [36, u64le(2048n)]), /descriptor is not inside/],
    ['vpc differencing', 'vpc', patched(vhd, [60, u32be(4)], [-512 + 60, u32be(4)]), /differencing vpc/],
    ['vpc of an old kind', 'vpc', patched(vhd, [60, u32be(5)], [-512 + 60, u32be(5)]), /type 5/],
    ['vpc whose ends differ on its kind', 'vpc', patched(vhd, [-512 + 60, u32be(2)]), /differ on what kind/],
    ['vpc whose ends differ on its size', 'vpc', patched(vhd, [48, u64be(512n)]), /head and its footer differ/],
    ['vpc with a parent', 'vpc', patched(vhd, [512 + 40, 'someone']), /names a parent/],
    ['vpc dynamic, cut short', 'vpc', cut(vhd, -512), /footer of its vpc \(VHD\) is not at its end/],
    ['vpc fixed, cut short', 'vpc', cut(fixedVhd, -512), /declared vpc but its content is raw/],
    [
      'vpc fixed, with less data than it says',
      'vpc',
      patched(fixedVhd, [-512 + 48, u64be(2n ** 32n)]),
      /less data than its footer says/,
    ],
    ['vpc with blocks of 3 bytes', 'vpc', patched(vhd, [512 + 32, u32be(3)]), /blocks of 3 bytes/],
    ['vpc with a table of one block', 'vpc', patched(vhd, [512 + 28, u32be(1)]), /block table is too small/],
    ['vpc with a table beyond the end', 'vpc', patched(vhd, [512 + 16, u64be(2n ** 40n)]), /block table is not inside/],
    [
      'vpc with its header beyond the end',
      'vpc',
      patched(vhd, [16, u64be(2n ** 40n)], [-512 + 16, u64be(2n ** 40n)]),
      /cut short/,
    ],

    [
      'vpc with two footers',
      'vpc',
      sealed('vpc', patched(cut(fixedVhd, -12), [-500 + 48, u64be(2n ** 30n)])),
      /whole sectors/,
    ],
    [
      'vpc with a wrong checksum',
      'vpc',
      patched(vhd, [64, u32be(1)], [-512 + 64, u32be(1)]),
      /checksum of its first sector/,
    ],
    ['vpc fixed, with a wrong checksum', 'vpc', patched(fixedVhd, [-512 + 64, u32be(1)]), /checksum of its footer/],
    ['vpc with a wrong checksum in its header', 'vpc', patched(vhd, [512 + 36, u32be(1)]), /checksum of its header/],
    [
      'vpc larger than a VHD can be',
      'vpc',
      sealed('vpc', patched(vhd, [48, u64be(2n ** 42n)], [-512 + 48, u64be(2n ** 42n)])),
      /more than the 2040 GiB/,
    ],
    ['vhdx without a header', 'vhdx', patched(vhdx, [0x10000, 'none'], [0x20000, 'none']), /no valid vhdx header/],
    [
      'vhdx with two wrong checksums',
      'vhdx',
      patched(vhdx, [0x10004, 'bad!'], [0x20004, 'bad!']),
      /no valid vhdx header/,
    ],
    [
      'vhdx with headers of one age',
      'vhdx',
      sealed('vhdx', patched(vhdx, [0x10008, u64le(1n)], [0x20008, u64le(1n)])),
      /differ and are of the same age/,
    ],
    [
      'vhdx that was not closed',
      'vhdx',
      sealed('vhdx', patched(vhdx, [0x10030, 'a log of somebody'], [0x20030, 'a log of somebody'])),
      /its log is to be replayed/,
    ],
    ['vhdx with a wrong checksum', 'vhdx', patched(vhdx, [0x30004, 'bad!']), /checksum of its region table/],
    ['vhdx with sectors of 4 KiB', 'vhdx', patched(vhdx, [0x310020, u32le(4096)]), /sectors are of 4096 bytes/],
    [
      'vhdx with its two regions in one place',
      'vhdx',
      sealed('vhdx', patched(vhdx, [0x30020, u64le(0x300000n)], [0x30040, u64le(0x300000n)])),
      /lie in the same place/,
    ],
    ['vhdx with a parent', 'vhdx', patched(vhdx, [0x310004, u32le(2)]), /differencing vhdx/],
    [
      'vhdx that names a parent',
      'vhdx',
      patched(vhdx, [0x3000c0, Buffer.from('2d5fd3a80bb34d45abf7d3d84834ab0c', 'hex')]),
      /names a parent/,
    ],
    [
      'vhdx with an entry twice',
      'vhdx',
      patched(vhdx, [0x3000a0, Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex')]),
      /entry twice/,
    ],
    ['vhdx with sectors of 3 bytes', 'vhdx', patched(vhdx, [0x310020, u32le(3)]), /sectors are of 3 bytes/],
    ['vhdx of 1 EiB', 'vhdx', patched(vhdx, [0x310008, u64le(2n ** 60n)]), /more than the 64 TiB/],
    [
      'vhdx with a size beyond its table',
      'vhdx',
      patched(vhdx, [0x310008, u64le(2n ** 46n)]),
      /block table is too small/,
    ],
    ['vhdx without regions', 'vhdx', patched(vhdx, [0x30000, 'none']), /region table is missing/],
    ['vhdx with 2^32 - 1 regions', 'vhdx', patched(vhdx, [0x30008, u32le(2 ** 32 - 1)]), /region table of 4294967295/],
    ['vhdx with metadata beyond the end', 'vhdx', patched(vhdx, [0x30040, u64le(2n ** 50n)]), /cut short/],
    ['vhdx cut short', 'vhdx', cut(vhdx, M), /cut short/],
    ['vhdx cut within its metadata', 'vhdx', cut(vhdx, 0x310000), /cut short/],
  ]
  before(() => qemuImg('create', '-q', '-f', 'vmdk', join(dir, 'parent.vmdk'), '1M'))

  for (const [what, format, make, says] of rows)
    test(what, async () => {
      make()
      await assert.rejects(examine(image, { format, ceiling }), (error) => {
        assert.ok(error instanceof Problem, String(error))
        assert.deepEqual([error.code, error.kind], ['IMAGE_REJECTED', 'refused'])
        assert.match(error.message, says)
        assert.ok(error.message.startsWith(`Cannot use image "${image}": `))
        assert.ok(error.remedy.length > 0)
        return true
      })
      // Whatever it is, saying what it is never fails.
      assert.ok((await identify(image)).format)
    })
})

test('a disk of nothing but line ends is raw, and takes no time', async () => {
  writeFileSync(image, Buffer.alloc(M, '\n'))
  assert.deepEqual(await identify(image), { format: 'raw', virtualSize: M })
})

describe('a delta may stand on the one base that it is asked for', () => {
  const base = '5e1ec7ed0c0ffee5e1ec7ed0c0ffee5e1ec7ed00'
  /** A delta as its maker's host wrote it, where that name meant a file. */
  const delta = (backing: string, backingFormat?: string): Make => {
    const name = Buffer.from(backing)
    const padded = Buffer.alloc(8)
    padded.write(backingFormat ?? '')
    const extension = [u32be(0xe2792aca), u32be(backingFormat?.length ?? 0), padded]
    const bytes = Buffer.concat([...(backingFormat === undefined ? [] : extension), Buffer.alloc(8), name])
    const nameAt = BigInt(112 + bytes.length - name.length)
    return patched(created('qcow2', 'FILE', '4M'), [8, u64be(nameAt)], [16, u32be(name.length)], [112, bytes])
  }
  const theirs = `/var/lib/nova/instances/_base/${base}`
  const taken: [what: string, backing: string, backingFormat?: string][] = [
    ['by its plain name', base],
    ['by its plain name, called raw', base, 'raw'],
    ['by the path of a host', theirs],
    ['by the path of a host, called raw', theirs, 'raw'],
    ['by a path that exists nowhere', `/../no\nwhere:/_base/${base}`],
  ]
  for (const [what, backing, backingFormat] of taken)
    test(what, async () => {
      delta(backing, backingFormat)()
      assert.deepEqual(await examine(image, { format: 'qcow2', ceiling, backing: base }), {
        virtualSize: 4 * M,
        backing,
      })
      await assert.rejects(examine(image, { format: 'qcow2', ceiling }), /it has a backing file/)
    })

  const rejected: [what: string, make: Make, says: RegExp, declared?: { format?: Format; backing?: string }][] = [
    ['no base at all', converted('qcow2'), /no backing file, and should stand on the base/],
    ['another base', delta('another'), /not the base/],
    ['another base by a path', delta('/i/_base/another', 'raw'), /not the base/],
    ['a name that ends like it', delta(`x${base}`), /not the base/],
    ['a path beside the bases', delta(`/etc/${base}`), /not the base/],
    ['a path that goes on behind the base', delta(`/i/_base/${base}/../../etc/passwd`), /not the base/],
    ['a relative path', delta(`i/_base/${base}`), /not the base/],
    ['a relative path to the bases', delta(`_base/${base}`), /not the base/],
    ['a name with a protocol', delta(`nbd:/_base/${base}`), /not the base/],
    ['a name with options', delta(`json:{"file":"/_base/${base}"}`), /not the base/],
    ['a name that ends in a line end', delta(`${base}\n`), /not the base/],
    ['a base that is called qcow2', delta(base, 'qcow2'), /declared other than raw/],
    ['a base that is called raw and more', patched(delta(base, 'raw'), [116, u32be(4)]), /other than raw/],
    ['a data file besides', patched(delta(base), [76, u32be(4)]), /data is in another file/],
    ['the mark of corruption', patched(delta(base), [76, u32be(2)]), /marked as corrupt/],
    ['a size above the limit', patched(delta(base), [24, u64be(2n ** 50n)]), /L1 table is too small/],
    ['another format', sparse, /cannot stand on the base/, { format: 'vmdk' }],
    ['a base that is a path', delta('/i/_base/a/b'), /not the base/, { backing: 'a/b' }],
    ['a base that is a protocol', delta('fat:x'), /not the base/, { backing: 'fat:x' }],
  ]
  for (const [what, make, says, declared] of rejected)
    test(`${what}: rejected`, async () => {
      make()
      await assert.rejects(
        examine(image, { format: 'qcow2', ceiling, backing: base, ...declared }),
        (error) => error instanceof Problem && error.code === 'IMAGE_REJECTED' && says.test(error.message),
      )
    })
})

describe('the way out is said', () => {
  test('a wrong declaration: the right one', async () => {
    converted('qcow2')()
    await assert.rejects(examine(image, { format: 'raw', ceiling }), {
      message: `Cannot use image "${image}": it is declared raw but its content is qcow2`,
      remedy: 'add it with --format qcow2',
    })
  })
})
