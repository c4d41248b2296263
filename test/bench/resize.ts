// P4 to P7: an instance goes to another host and gets a larger root disk, as a whole process of the binary. Against it,
// as plain commands and without all that is around them (looking, recording, the definition of the guest):
//   stock's way  Nova's as it was shipped then: the disk is merged with its base, and the whole is sent
//   the old way  the driver that cowhand takes the place of: the overlay alone is sent, and put from one sized base on
//                another by a safe rebase
// Each has a disk of its own with the same bytes, and finds the unsized base on the other host. Both hosts are on this
// machine, so that its processors are as tight as the wire: read the ratios.
import { join } from 'node:path'
import { readQcow2 } from '../../lib/image/qcow2.ts'
import { against, megabytes, print, type Row, time } from './common/measure.ts'
import { allocated, fillOverlay, own, shareImage, timed, withPair } from './common/moving.ts'

/** Of the overlay: MiB of data in it (309 MB), and of its disk before and after. */
const [data, before, after] = [295, 10 * 1024, '20G']
/** MiB of the base. */
const [usual, large] = [1024, 4096]
const rounds = 3

const ratioOf = (target: string, what: string, bytes: number, of: number, most: number): Row => ({
  target,
  what,
  ours: megabytes(bytes),
  against: `allocated: ${megabytes(of)}`,
  ratio: `${(bytes / of).toFixed(3)}×`,
  most: `${most}×`,
  met: bytes / of <= most,
})

await withPair(async (pair) => {
  const { a, b, link } = pair
  const diskOf = (name: string) => join(a.instances, name, 'disk')
  const create = async (name: string, image: string, kind: 'typical' | 'random', size = data) => {
    await timed(a, `cowhand create ${name} --image ${image} --root ${before}M --network none`)
    await fillOverlay(a, diskOf(name), kind, size, before)
  }
  await shareImage(pair, 'usual', 'typical', usual)
  // Nobody reads it.
  await shareImage(pair, 'large', 'random', large)
  await create('vm', 'usual', 'typical')
  await create('onlarge', 'large', 'typical')
  await create('random', 'usual', 'random', 128)

  // The other ways: the same base, and a disk with the same bytes. That of the old way stands on a sized base.
  const base = readQcow2(a.file(diskOf('vm')))?.backing ?? ''
  const [stock, old] = [join(own, 'stock'), join(own, 'old')]
  const arrival = 'old.incoming/part' // the daemon takes nothing elsewhere
  const copy = async (to: string, on: string) =>
    timed(a, `cp ${diskOf('vm')} ${to}/disk && qemu-img rebase -u -f qcow2 -F raw -b ${on} ${to}/disk`)
  for (const host of [a, b]) await timed(host, `mkdir -p ${stock} ${old} ${host.instances}/${arrival}`)
  await timed(a, `cp ${base} ${old}/base_10 && truncate -s ${before}M ${old}/base_10`)
  await copy(stock, base)
  await copy(old, `${old}/base_10`)

  const ssh = '-e "ssh -T -o BatchMode=yes"'
  const byStock = async () => {
    await timed(b, `rm -f ${stock}/disk`)
    return timed(
      a,
      `cd ${stock}
       qemu-img convert -f qcow2 -O qcow2 disk disk_rbase
       rsync --sparse --compress ${ssh} disk_rbase beta:${stock}/disk
       rm disk_rbase
       ssh -T -o BatchMode=yes beta qemu-img resize -q -f qcow2 ${stock}/disk ${after}`,
    )
  }
  const byOld = async () => {
    await timed(b, `rm -f ${old}/base_* ${b.instances}/${arrival}/disk`)
    const daemon = `rsync://${pair.rsync.user}@beta/${pair.rsync.module}/${arrival}/`
    const sent = await timed(a, `rsync -I --compress --password-file=${pair.rsync.password} ${old}/disk ${daemon}`)
    const finished = await timed(
      b,
      `cd ${old}
       for size in 10 20; do cp ${base} base_$size; qemu-img resize -q -f raw base_$size $size"G"; done
       qemu-img rebase -f qcow2 -F raw -b ${old}/base_20 ${b.instances}/${arrival}/disk
       qemu-img resize -q -f qcow2 ${b.instances}/${arrival}/disk ${after}`,
    )
    return sent + finished
  }
  /** @returns milliseconds, and bytes that the wire carried from the source */
  const byUs = async (name: string) => {
    const sent = link.sentBy('alpha')
    const took = await timed(a, `cowhand resize ${name} --root ${after} --to beta`)
    const bytes = link.sentBy('alpha') - sent
    await timed(a, `cowhand revert ${name} --yes`)
    return { took, bytes }
  }

  const ours: number[] = []
  const [stocks, olds, onLarge, wires]: [number[], number[], number[], number[]] = [[], [], [], []]
  for (let round = 0; round < rounds; round++) {
    const { took, bytes } = await byUs('vm')
    ours.push(took)
    wires.push(bytes)
    stocks.push(await byStock())
    onLarge.push((await byUs('onlarge')).took)
    olds.push(await byOld())
  }
  // Some more pairs: what differs here is small.
  const alike = { usual: [...ours], large: [...onLarge] }
  for (let round = 0; round < rounds; round++) {
    alike.large.push((await byUs('onlarge')).took)
    alike.usual.push((await byUs('vm')).took)
  }
  const random = await byUs('random')

  print([
    against('P4', 'resize to another host, 309 MB of 10 to 20 GB', ours, { name: "stock's way", times: stocks }, 0.2),
    against('P5', 'the same', ours, { name: 'the old way', times: olds }, 0.05),
    ratioOf('P6', 'bytes on the wire, of programs', Math.max(...wires), await allocated(a, diskOf('vm')), 0.5),
    ratioOf('P6', 'bytes on the wire, of noise', random.bytes, await allocated(a, diskOf('random')), 1.02),
    against('P7', 'base of 4 GiB', alike.large, { name: 'of 1 GiB', times: alike.usual }, 1.1),
  ])
  process.stdout.write(`   each time: ${[ours, stocks, olds].map((all) => all.map(time).join(', ')).join(' | ')}\n`)
})
