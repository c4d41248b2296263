// P2, P3: a create whose image comes over the network, at 1 Gbit/s, with its digest proven; and its memory (P13).
// Two network namespaces with a shaped wire between them are made for it, which only root may; the host's own network
// is not touched.
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, sh } from '../../build/sh.ts'
import { makeImage, withDirectory } from './common/image.ts'
import { absolute, against, cowhand, inTurn, megabytes, peakMemory, print } from './common/measure.ts'

const rounds = 3
const [server, client] = [`cwb-server-${process.pid}`, `cwb-client-${process.pid}`]
const [serverAddress, clientAddress] = ['10.97.0.1', '10.97.0.2']
const inClient = ['ip', 'netns', 'exec', client]

/** True when `use` runs: the namespaces are there, and what the server sends passes a wire of 1 Gbit/s. */
async function withWire(use: () => Promise<void>): Promise<void> {
  try {
    await sh`ip netns add ${server}; ip netns add ${client}`
    await sh`ip link add wire netns ${server} type veth peer name wire netns ${client}`
    for (const [name, address] of [
      [server, serverAddress],
      [client, clientAddress],
    ] as const)
      await sh`ip -n ${name} address add ${address}/24 dev wire; ip -n ${name} link set wire up; ip -n ${name} link set lo up`
    await sh`ip netns exec ${server} tc qdisc add dev wire root tbf rate 1gbit burst 1mb latency 50ms`
    await use()
  } finally {
    for (const name of [server, client]) await sh({ nothrow: true })`ip netns del ${name}`
  }
}

async function withServer(directory: string, use: (url: string) => Promise<void>): Promise<void> {
  const program = [
    join(root, 'node_modules/.bin/tsx'),
    join(import.meta.dirname, 'common/server.ts'),
    directory,
    serverAddress,
  ]
  const child: ChildProcess = spawn('ip', ['netns', 'exec', server, ...program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const port = await new Promise((resolve) => child.stdout?.once('data', (text) => resolve(Number(text))))
    await use(`http://${serverAddress}:${port}/bench.qcow2`)
  } finally {
    child.kill()
  }
}

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

if (process.getuid?.() !== 0) {
  process.stderr.write('Cannot run this bench: network namespaces need root\n  remedy: sudo npm run bench\n')
  process.exit(1)
}

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
