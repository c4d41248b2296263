// P9: a bare file system in an overlay grows to the end of its disk, against the old way: the whole disk becomes a raw
// file, which is grown, and a qcow2 again that stands on nothing.
import { join } from 'node:path'
import { sh } from '../../build/sh.ts'
import { withDirectory } from './common/image.ts'
import { absolute, against, cowhand, inTurn, megabytes, print } from './common/measure.ts'

const sizes = [512, 2048] // MiB of files in the base

await withDirectory(async (directory) => {
  const rows = []
  for (const data of sizes) {
    const [base, disk, raw, old] = ['base', 'disk', 'raw', 'old'].map((name) => join(directory, name)) as [
      string,
      string,
      string,
      string,
    ]
    const files = join(directory, 'files')
    // Data that does not compress, in files of 64 MiB, and a quarter more space.
    await sh`mkdir -p ${files}; for i in $(seq ${data / 64}); do head -c 64M /dev/urandom >${files}/$i; done`
    await sh`truncate -s ${Math.round(data * 1.25)}M ${base}; mkfs.ext4 -q -F -d ${files} ${base}; rm -r ${files}`
    const overlay = `rm -f ${disk} ${raw} ${old}; qemu-img create -q -f qcow2 -F raw -b ${base} ${disk} ${data * 2}M`
    const before = ['bash', '-c', overlay]
    const ours = [cowhand, 'step', 'grow-file-system', '--disk', disk, '--format', 'qcow2', '--base', base]
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
    rows.push(against('P9', `grow ext4, ${data} MiB of files`, grow, { name: 'round trip', times: convert }, 0.1))
    await sh`${before}`
    await sh`${ours}`
    const { stdout } = await sh`stat -c %b ${disk}`
    rows.push(absolute('P9', '  what the overlay has then', Number(stdout) * 512, 16 * 2 ** 20, megabytes))
    await sh`rm -f ${base} ${disk} ${raw} ${old}`
  }
  print(rows)
})
