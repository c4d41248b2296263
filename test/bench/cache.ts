// P12: the care of a cache of a thousand bases, under ten thousand overlays. P13: memory of it.
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { sh } from '../../build/sh.ts'
import { overlayBytes } from '../../lib/image/qcow2-write.ts'
import { withDirectory } from './common/image.ts'
import { absolute, cowhand, inTurn, median, megabytes, peakMemory, print, programsOf } from './common/measure.ts'

const bases = 1000
const needed = 500
const instances = 5000

const nameOf = (base: number): string => base.toString(16).padStart(40, '0')

/** Write the beginning of a sparse file. */
function sparse(path: string, beginning: Buffer | string, size: number): void {
  const fd = openSync(path, 'w')
  writeSync(fd, Buffer.from(beginning))
  ftruncateSync(fd, size)
  closeSync(fd)
}

/** Bases that were last needed three days ago, as far as is noted. */
function makeBases(directory: string, from: number, to: number): void {
  mkdirSync(directory, { recursive: true })
  const then = Date.now() / 1000 - 3 * 86_400
  for (let base = from; base < to; base++) {
    const path = join(directory, nameOf(base))
    sparse(path, 'data', 2 ** 30)
    const record = {
      version: 1,
      id: `sha256:${base}`,
      name: `image${base}`,
      source: '/images/debian.qcow2',
      size: 2 ** 30,
    }
    writeFileSync(`${path}.json`, JSON.stringify(record, null, 2))
    utimesSync(`${path}.json`, then, then)
  }
}

/** An instance as create leaves it, with two disks. */
function makeInstance(root: string, index: number): void {
  const directory = join(root, `vm${index}`)
  mkdirSync(directory)
  for (const disk of ['disk', 'disk.local']) {
    const backing = join(root, '_base', nameOf(index % needed))
    const { bytes, fileSize } = overlayBytes({ virtualSize: 2 ** 31, backing, backingFormat: 'raw' })
    sparse(join(directory, disk), bytes.subarray(0, 4096), fileSize)
  }
  const disks = ['disk', 'disk.local'].map((disk) => join(directory, disk))
  const xml = disks.map((disk) => `<disk type='file' device='disk'><source file='${disk}'/></disk>`)
  writeFileSync(join(directory, 'disk.info'), JSON.stringify(Object.fromEntries(disks.map((disk) => [disk, 'qcow2']))))
  writeFileSync(join(directory, 'instance.json'), JSON.stringify({ version: 1, name: `vm${index}` }))
  writeFileSync(join(directory, 'libvirt.xml'), `<domain>${xml.join('')}${'<!-- more -->\n'.repeat(150)}</domain>`)
  writeFileSync(join(directory, 'console.log'), '')
}

await withDirectory(async (directory) => {
  const [root, spare] = [join(directory, 'instances'), join(directory, 'spare')]
  const env = { COWHAND_INSTANCES: root }
  makeBases(join(root, '_base'), 0, needed)
  makeBases(spare, needed, bases)
  for (let index = 0; index < instances; index++) makeInstance(root, index)
  // Each round begins with the same cache: half of it is needed, and all notes of use are old.
  const again = `cp -a ${spare}/. ${root}/_base && touch -d '3 days ago' ${root}/_base/*.json`
  const before = ['bash', '-c', again]
  const [clean = [], list = []] = await inTurn(
    10,
    [
      { argv: [cowhand, 'cache', 'clean'], before },
      { argv: [cowhand, 'cache', 'list'], before },
    ],
    env,
  )
  const prepare = () => sh`${before}`
  const count = (amount: number) => String(amount)
  await prepare()
  const programs = await programsOf(directory, [cowhand, 'cache', 'clean'], env)
  const left = readdirSync(join(root, '_base')).length
  if (left !== 2 * needed) throw new Error(`${left} files are left`)
  await prepare()
  const peak = await peakMemory([cowhand, 'cache', 'clean'], env)
  print([
    absolute('P12', 'cache clean, 500 of 1000 bases go, 10,000 overlays', median(clean), 2000),
    absolute('P12', '  programs that it starts', programs, 0, count),
    absolute('P12', 'cache list, 1000 bases, 10,000 overlays', median(list), 2000),
    absolute(
      'P12',
      '  programs that it starts',
      await programsOf(directory, [cowhand, 'cache', 'list'], env),
      0,
      count,
    ),
    absolute('P13', 'memory of cache clean', peak, 150 * 2 ** 20, megabytes),
  ])
})
