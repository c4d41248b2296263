// P9: a bare file system in an overlay grows to the end of its disk, against the old way: the whole disk becomes a raw
// file, which is grown, and a qcow2 again that stands on nothing.
import { join } from 'node:path'
import { sh } from '../../build/sh.ts'
import { withDirectory } from './common/image.ts'
import { absolute, against, cowhand, inTurn, megabytes, print } from './common/measure.ts'

/**
 * MiB of files in the base: a disk of the size that real ones have at least. Ours starts some programs and reads metadata,
 * which takes the same on a disk of any size; the round trip copies all of it twice, and grows with it. So the target
 * says nothing of a disk of a few hundred MiB, which is copied as quickly as programs are started (512 MiB: 0.3×).
 */
const data = 2048

await withDirectory(async (directory) => {
  const [base, disk, raw, old, files] = ['base', 'disk', 'raw', 'old', 'files'].map((name) => join(directory, name))
  // Data that does not compress, in files of 64 MiB, and a quarter more space.
  await sh`mkdir ${files}; for i in $(seq ${data / 64}); do head -c 64M /dev/urandom >${files}/$i; done`
  await sh`truncate -s ${Math.round(data * 1.25)}M ${base}; mkfs.ext4 -q -F -d ${files} ${base}; rm -r ${files}`
  const overlay = `rm -f ${disk} ${raw} ${old}; qemu-img create -q -f qcow2 -F raw -b ${base} ${disk} ${data * 2}M`
  const before = ['bash', '-c', overlay]
  const ours = [cowhand, 'step', 'grow-file-system', `--disk=${disk}`, '--format=qcow2', `--base=${base}`]
  const theirs = [
    `qemu-img convert -f qcow2 -O raw ${disk} ${raw}`,
    `e2fsck -f -p ${raw}`,
    `resize2fs ${raw}`,
    `qemu-img convert -f raw -O qcow2 ${raw} ${old}`,
    `mv ${old} ${disk}`,
  ].join(' && ')
  const [grow = [], convert = []] = await inTurn(3, [
    { argv: ours, before },
    { argv: ['bash', '-c', theirs], before },
  ])
  await sh`${before}`
  await sh`${ours}`
  const { stdout } = await sh`stat -c %b ${disk}`
  print([
    against('P9', `grow ext4, ${data} MiB of files`, grow, { name: 'round trip', times: convert }, 0.1),
    absolute('P9', '  what the overlay has then', Number(stdout) * 512, 16 * 2 ** 20, megabytes),
  ])
})
