import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { examine } from '../../lib/image/examine.ts'
import type { Format } from '../../lib/job/spec.ts'
import { ceiling, converted, cut, dir, image, M, type Make, patched, qemuImg, u64le, written } from './images.ts'

const signature = Buffer.from([0x55, 0xaa])
const mbr: [number, Buffer] = [510, signature]
const iso: [number, string] = [0x8001, 'CD001']
/** A GPT's header, whose other copy is at this sector. */
const gpt = (at: number, lastSector: number): [number, Buffer] => {
  const header = Buffer.alloc(64)
  header.write('EFI PART')
  u64le(BigInt(lastSector)).copy(header, 32)
  return [at, header]
}
const blank = written(Buffer.alloc(M))
const built = (program: string, ...args: string[]): Make => {
  return () => {
    const tree = join(dir, 'tree')
    mkdirSync(tree, { recursive: true })
    writeFileSync(join(tree, 'readme'), 'hello')
    writeFileSync(join(tree, 'efi.img'), Buffer.alloc(1.5 * M))
    execFileSync(program, [...args, '-quiet', '-o', image, tree], { stdio: 'pipe' })
  }
}

describe('a raw disk may be several things at once, and nothing else for a program that guesses', () => {
  const hybrid = built(
    'xorriso',
    ...['-as', 'mkisofs', '-r', '-V', 'HYBRID', '-partition_offset', '16', '-append_partition', '2', '0xef'],
    join(dir, 'tree/efi.img'),
    '-appended_part_as_gpt',
  )
  const rows: [what: string, make: Make, contains: RegExp][] = [
    ['an ISO', built('genisoimage', '-r', '-V', 'PLAIN'), /CD001/],
    ['an ISO that is UDF too', built('genisoimage', '-r', '-udf', '-V', 'UDF'), /CD001.*NSR0/s],
    ['an ISO with MBR and GPT', hybrid, /EFI PART.*CD001/s],
    ['MBR and GPT of 512-byte sectors', patched(blank, mbr, gpt(512, 2047)), /EFI PART/],
    ['MBR and GPT of 4096-byte sectors', patched(blank, mbr, gpt(4096, 255)), /EFI PART/],
    ['one sector', patched(written(Buffer.alloc(512)), mbr), /U/],
  ]
  for (const [what, make, contains] of rows)
    test(what, async () => {
      if (make === hybrid) built('genisoimage')()
      make()
      assert.match(readFileSync(image).toString('latin1'), contains)
      const { virtualSize } = await examine(image, { format: 'raw', ceiling })
      const { format, 'virtual-size': theirs } = JSON.parse(qemuImg('info', '--output=json', image))
      assert.deepEqual([format, theirs], ['raw', virtualSize])
    })

  test('an ISO in a fixed vpc', async () => {
    patched(converted('vpc', 'subformat=fixed'), mbr, iso, gpt(512, 2047))()
    assert.ok((await examine(image, { format: 'vpc', ceiling })).virtualSize > 0)
  })
})

describe('a format with a header of its own is nothing else', () => {
  const kinds: [Format, Make][] = [
    ['qcow2', converted('qcow2')],
    ['qcow2', converted('qcow2', 'compat=0.10')],
    ['qcow2', converted('qcow2', 'cluster_size=4096')],
    ['vmdk', converted('vmdk', 'subformat=monolithicSparse')],
    ['vmdk', converted('vmdk', 'subformat=streamOptimized')],
    ['vdi', converted('vdi')],
    ['vhdx', converted('vhdx')],
    ['vpc', converted('vpc')],
  ]
  const others: [name: string, patch: [number, Buffer | string]][] = [
    ['iso', iso],
    ['iso', [0x8001, 'BEA01']],
    ['iso', [0x8001, 'NSR02']],
    ['iso', [0x8001, 'NSR03']],
    ['mbr', mbr],
    ['gpt', gpt(512, 2047)],
    ['gpt', gpt(4096, 2)],
  ]
  for (const [format, make] of kinds)
    test(format, async () => {
      for (const [name, patch] of others) {
        patched(make, patch)()
        await assert.rejects(
          examine(image, { format, ceiling }),
          { message: `Cannot use image "${image}": it is several things at once: ${format}, ${name}` },
          `${name} at ${patch[0]}`,
        )
        await assert.rejects(examine(image, { format: 'raw', ceiling }), /several things at once/)
      }
    })

  const pairs: [what: string, format: Format, make: Make, says: RegExp][] = [
    [
      'qcow2 whose last sector is the footer of a vpc',
      'qcow2',
      patched(converted('qcow2'), [-512, 'conectix']),
      /once: qcow2, vpc/,
    ],
    [
      'qcow2 with the footer of a vpc where only a rounded size finds it',
      'qcow2',
      cut(patched(converted('qcow2'), [-512, 'conectix']), -12),
      /once: qcow2, vpc/,
    ],
    ['vmdk and vdi', 'vmdk', patched(converted('vmdk'), [0x40, Buffer.from('7f10dabe', 'hex')]), /once: vmdk, vdi/],
    [
      'qcow2 and vdi',
      'vdi',
      patched(converted('vdi'), [0, Buffer.from('514649fb00000002', 'hex')]),
      /once: qcow2, vdi/,
    ],
    ['qcow2 and dmg', 'qcow2', patched(converted('qcow2'), [-512, 'koly']), /once: qcow2, dmg/],
    ['vpc and qed', 'vpc', patched(converted('vpc', 'subformat=fixed'), [0, 'QED\0']), /once: vpc, qed/],
    ['luks and vdi', 'vdi', patched(converted('vdi'), [0, Buffer.from('LUKS\xba\xbe', 'latin1')]), /once: vdi, luks/],
    ['three at once', 'qcow2', patched(converted('qcow2'), mbr, iso, [-512, 'conectix']), /once: qcow2, vpc$/],
  ]
  for (const [what, format, make, says] of pairs)
    test(what, async () => {
      make()
      await assert.rejects(examine(image, { format, ceiling }), says)
    })
})
