import { type ChildProcess, spawn } from 'node:child_process'
import { join } from 'node:path'
import { root, sh } from '../../../build/sh.ts'

const [server, client] = [`cwb-server-${process.pid}`, `cwb-client-${process.pid}`]
const [serverAddress, clientAddress] = ['10.97.0.1', '10.97.0.2']
/** What makes a command run at the client's end of the wire. */
export const inClient = ['ip', 'netns', 'exec', client]

/** True when `use` runs: the namespaces are there, and what the server sends passes a wire of 1 Gbit/s. */
export async function withWire(use: () => Promise<void>): Promise<void> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('Cannot run this bench: network namespaces need root\n  remedy: sudo npm run bench\n')
    process.exit(1)
  }
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

/** A web server at the other end, of the files in a directory. */
export async function withServer(directory: string, use: (url: string) => Promise<void>): Promise<void> {
  const program = [
    join(root, 'node_modules/.bin/tsx'),
    join(import.meta.dirname, 'server.ts'),
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
