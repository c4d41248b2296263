import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import * as layout from '../../lib/job/layout.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30

describe('names on the disk', () => {
  test('a base is the sha1 of its image id (sha1sum says the same)', async () => {
    assert.equal(await layout.baseName('abc'), 'a9993e364706816aba3e25717850c26c9cd0d89d')
    assert.equal(
      await layout.baseName('155d900f-4e14-4e4c-a73d-069cbf4541e6'),
      'f2d1a8250ed3d4b744a8250dab8f6840179d502a',
    )
  })
  for (const [what, is, name] of [
    ['sized base', layout.sizedBaseName('a9993e', 20 * GiB), 'a9993e_20'],
    ['ephemeral, linux', layout.ephemeralBaseName(10 * GiB, 'linux', 'ext4'), 'ephemeral_0_10_linux'],
    ['ephemeral, windows', layout.ephemeralBaseName(10 * GiB, 'windows', 'ntfs'), 'ephemeral_0_10_windows'],
    ['ephemeral, not the usual file system', layout.ephemeralBaseName(GiB, 'linux', 'xfs'), 'ephemeral_0_1_linux_xfs'],
    ['ephemeral, ext4 for windows', layout.ephemeralBaseName(GiB, 'windows', 'ext4'), 'ephemeral_0_1_windows_ext4'],
    ['ephemeral, no whole GiB', layout.ephemeralBaseName(GiB + 512, 'linux', 'ext4'), 'ephemeral_0_1073742336b_linux'],
    ['swap', layout.swapBaseName(512 * MiB), 'swap_512'],
    ['bases', layout.basesOf('/i'), '/i/_base'],
    ['locks', layout.locksOf('/i'), '/i/locks'],
    ['instance', layout.instanceOf('/i', 'vm1'), '/i/vm1'],
    ['part', layout.partOf('/i/_base/a'), '/i/_base/a.part'],
    ['converted', layout.convertedOf('/i/_base/a'), '/i/_base/a.converted'],
    ['lock of a base', layout.baseLock('/i/_base/a_20'), 'base.a_20'],
    ['lock of an instance', layout.instanceLock('vm1'), 'instance.vm1'],
  ])
    test(`${what}: ${name}`, () => assert.equal(is, name))

  test('no two sizes of an ephemeral disk meet in one file', () => {
    const sizes = [512, 1024, MiB, GiB - 512, GiB, GiB + 512, 2 * GiB, 1024 * GiB]
    assert.equal(new Set(sizes.map((size) => layout.ephemeralBaseName(size, 'linux', 'ext4'))).size, sizes.length)
  })

  for (const [name, is] of [
    ['console.log.0', true],
    ['console.log.12', true],
    ['console.log', false],
    ['console.log.old', false],
    ['console.log.0.part', false],
    ['xconsole.log.0', false],
  ] as const)
    test(`${name} is ${is ? 'an' : 'no'} older console`, () => assert.equal(layout.isOldConsole(name), is))
})

describe('devices (S10)', () => {
  const wanted = { ephemeral: GiB, swap: MiB }
  for (const [when, wish, volumes, devices] of [
    ['root alone', {}, [], 'disk=vda'],
    ['an ephemeral disk', { ephemeral: GiB }, [], 'disk=vda disk.local=vdb'],
    ['a swap disk takes the second device', { swap: MiB }, [], 'disk=vda disk.swap=vdb'],
    ['both', wanted, [], 'disk=vda disk.local=vdb disk.swap=vdc'],
    ['both, a volume on vdb: no ephemeral disk', wanted, ['vdb'], 'disk=vda disk.swap=vdc'],
    ['an ephemeral disk, a volume on vdb: none', { ephemeral: GiB }, ['vdb'], 'disk=vda'],
    ['a swap disk, a volume on vdb', { swap: MiB }, ['vdb'], 'disk=vda disk.swap=vdc'],
    ['both, a volume further on', wanted, ['vdd', 'sdb'], 'disk=vda disk.local=vdb disk.swap=vdc'],
  ] as const)
    test(when, () =>
      assert.equal(
        layout
          .devicesOf(wish, [...volumes])
          .map(({ file, target }) => `${file}=${target}`)
          .join(' '),
        devices,
      ),
    )
})
