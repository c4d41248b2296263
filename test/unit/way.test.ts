import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { imageTypeOf, type WayFacts, wayOf } from '../../lib/image/way.ts'

const open = { allowed: true, overlays: true, kernel: false, rootIsVolume: false }
const delta = { imageType: 'snapshot', backing: false, delta: true } as const

/** Each row of BEHAVIOUR.md section 2, by its name; S25 is the reason that every answer carries. */
const rows: [name: string, facts: Partial<WayFacts>, way: 'optimised' | 'plain', reason: string][] = [
  ['S18 image', { imageType: 'image' }, 'plain', 'create from the whole image'],
  ['S19 image, backing', { imageType: 'image', backing: true }, 'optimised', 'resize: only the overlay travels'],
  ['S20 full snapshot', { imageType: 'snapshot' }, 'plain', 'create from the whole snapshot'],
  [
    'S21 full snapshot, backing',
    { imageType: 'snapshot', backing: true },
    'optimised',
    'resize: only the overlay travels',
  ],
  ['S22 delta snapshot', delta, 'optimised', 'the image is a delta snapshot: its base is found by name'],
  [
    'S23 delta snapshot, backing',
    { ...delta, backing: true },
    'optimised',
    'resize of a delta snapshot: only the overlay travels',
  ],
  ['S24 image, delta', { imageType: 'image', delta: true }, 'plain', 'the image names a base, but is no snapshot'],
  [
    'S24 image, backing, delta',
    { imageType: 'image', backing: true, delta: true },
    'plain',
    'the image names a base, but is no snapshot',
  ],
  ['S24 no metadata', { imageType: undefined }, 'plain', "the image's metadata could not be looked up"],
  [
    'S24 no metadata, backing',
    { imageType: undefined, backing: true },
    'plain',
    "the image's metadata could not be looked up",
  ],
  [
    'S24 no metadata, backing, delta',
    { imageType: undefined, backing: true, delta: true },
    'plain',
    "the image's metadata could not be looked up",
  ],
  // What would be optimised, but for one of the preconditions.
  ['S16 optimisation off', { ...delta, allowed: false }, 'plain', 'snapshot_optimization is off'],
  ['S16 disks are not overlays', { ...delta, overlays: false }, 'plain', 'disks are not qcow2 overlays'],
  ['S17 kernel or ramdisk', { ...delta, kernel: true }, 'plain', 'the image has a kernel or ramdisk of its own'],
  ['S17 root is a volume', { ...delta, rootIsVolume: true }, 'plain', 'the root disk is a volume'],
]

describe('which way a root disk is made', () => {
  for (const [name, facts, way, reason] of rows)
    test(name, () => {
      const answer = wayOf({ imageType: undefined, backing: false, delta: false, ...open, ...facts })
      assert.deepEqual(answer, { optimised: way === 'optimised', reason })
    })

  test('no precondition is outweighed by what speaks for the optimised way', () => {
    for (const [name, facts, way] of rows.slice(0, 11).filter(([, , optimised]) => optimised === 'optimised'))
      for (const closed of [{ allowed: false }, { overlays: false }, { kernel: true }, { rootIsVolume: true }])
        assert.equal(
          wayOf({ imageType: 'image', backing: false, delta: false, ...open, ...facts, ...closed }).optimised,
          false,
          `${name} (${way}) with ${JSON.stringify(closed)}`,
        )
  })
})

describe('the type of an image', () => {
  for (const [name, properties, type] of [
    ['snapshot where the property says so', { image_type: 'snapshot' }, 'snapshot'],
    ['image where there is no property', {}, 'image'],
    ['image where the property says something else', { image_type: 'Snapshot ' }, 'image'],
  ] as const)
    test(name, () => assert.equal(imageTypeOf(properties), type))
})
