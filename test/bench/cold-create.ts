// P2, P3: a create whose image comes over the network, at 1 Gbit/s, with its digest proven; and its memory (P13).
// Two network namespaces with a shaped wire between them are made for it, which only root may; the host's own network
// is not touched.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sh } from '../../build/sh.ts'
import { makeImage, withDirectory } from './common/image.ts'
import { absolute, against, cowhand, inTurn, megabytes, peakMemory, print } from './common/measure.ts'
import { inClient, withServer, withWire } from './common/wire.ts'

const rounds = 3
/** As Nova did it then, with a copy in the size of the disk; what it wrote is flushed at the end, as ours is. */
const stock = `set -eu
directory=$1 url=$2 sha256=$3
mkdir -p "$directory/_base" "$directory/vm"
cd "$directory/_base"
curl -sf -o base.part "$url"
echo "$sha256  base.part" | sha256sum --quiet -c
qemu-img convert -O raw -f qcow2 base.part base.converted
mv base.converted base
rm base.part
cp base base_10
qemu-img resize -q -f raw base_10 10G
qemu-img create -q -f qcow2 -F raw -b "$PWD/base_10" "$directory/vm/disk"
sync -f "$directory"`

await withDirectory(async (directory) => {
  const sha256 = await makeImage(join(directory, 'bench.qcow2'), 730, 2048)
  const script = join(directory, 'stock.sh')
  writeFileSync(script, stock)
  const [ours, theirs] = [join(directory, 'ours'), join(directory, 'stock')]
  // Every run starts with nothing cached, neither by us nor by the kernel (where we may tell it so).
  const drop = 'echo 3 2>/dev/null >/proc/sys/vm/drop_caches || :'
  const before = ['bash', '-c', `rm -rf ${ours} ${theirs}; sync -f ${directory}; ${drop}`]
  const env = { COWHAND_INSTANCES: ours }
  await withWire(() =>
    withServer(directory, async (url) => {
      const create = [cowhand, 'create', 'vm', '--image', url, '--checksum', `sha256:${sha256}`, '--root', '10G']
      const created = ['bash', '-c', '"$@" && sync -f "$COWHAND_INSTANCES"', '-', ...create]
      const runs = [['curl', '-sf', '-o', '/dev/null', url], created, ['bash', script, theirs, url, sha256]]
      const [wire = [], cold = [], old = []] = await inTurn(
        rounds,
        runs.map((argv) => ({ argv: [...inClient, ...argv], before })),
        env,
      )
      const what = 'cold create, 730 MiB by HTTP, 1 Gbit/s'
      await sh`rm -rf ${ours} ${theirs}`
      const peak = await peakMemory([...inClient, ...create], env)
      print([
        against('P2', what, cold, { name: 'curl -o /dev/null', times: wire }, 1.2),
        against('P3', what, cold, { name: "stock's way", times: old }, 0.75),
        absolute('P13', 'memory of it', peak, 150 * 2 ** 20, megabytes),
      ])
    }),
  )
})
