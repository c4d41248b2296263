import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

// The network between hosts of the lab. Nothing of it is in the machine's own network.

/** What tests do to the wire. */
export interface Link {
  /** Nothing comes through from now on: the hosts hear only silence. */
  down: () => void
  up: () => void
  /** What each host can send, in tc's words, such as `1gbit`; undefined: as fast as the machine is. */
  shape: (rate: string | undefined) => void
  /** Bytes that a host has sent since the start, with headers (one for several packets, where the kernel joins them). */
  sentBy: (name: string) => number
}

/** A bridge in a network of its own, to which each host has a cable. */
export interface Wire extends Link {
  /** Give the network of this process an eth0 with this address. */
  connect: (name: string, address: string, pid: number) => void
  disconnect: (name: string) => void
  stop: () => Promise<void>
}

/** Run ip or tc in the network of a process. */
const inNetwork = (pid: number, ...argv: string[]): void =>
  void execFileSync('nsenter', [`--net=/proc/${pid}/ns/net`, ...argv], { stdio: ['ignore', 'pipe', 'pipe'] })

/** Lay a wire of 1 Gbit/s. It ends with `stop`, and with this process, however that ends. */
export async function startWire(): Promise<Wire> {
  const script = 'ip link add wire type bridge && ip link set wire up && echo ready; read -r _ || :'
  const argv = ['--pdeathsig', 'KILL', 'unshare', '--net', 'bash', '--norc', '-c', script]
  const child = spawn('setpriv', argv, { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  const [line] = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended])
  if (line !== 'ready') throw new Error('Cannot lay the wire of the lab: there is no bridge')
  const pid = child.pid ?? 0

  let rate: string | undefined = '1gbit'
  const connected = new Map<string, number>()
  /** Bytes that came over cables which are no more. */
  const earlier = new Map<string, number>()

  const shapeOne = (host: number): void => {
    // A burst has to hold the largest packet that the kernel hands over in one piece (64 KiB).
    const limit = rate === undefined ? ['pfifo'] : ['tbf', 'rate', rate, 'burst', '256kb', 'latency', '50ms']
    inNetwork(host, 'tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', ...limit)
  }
  const sentBy = (name: string): number => {
    const received = new RegExp(`^ *${name}: *([0-9]+)`, 'm').exec(readFileSync(`/proc/${pid}/net/dev`, 'utf8'))?.[1]
    return (earlier.get(name) ?? 0) + Number(received ?? 0)
  }
  return {
    connect: (name, address, host) => {
      // The same after a reboot, or the other hosts would send to the card that was there before.
      const mac = `02:00:${address
        .split('.')
        .map((byte) => Number(byte).toString(16).padStart(2, '0'))
        .join(':')}`
      const ends = ['eth0', 'address', mac, 'netns', `${host}`, 'type', 'veth', 'peer', 'name', name, 'netns', `${pid}`]
      execFileSync('ip', ['link', 'add', ...ends])
      inNetwork(pid, 'ip', 'link', 'set', name, 'master', 'wire', 'up')
      inNetwork(host, 'ip', 'address', 'add', `${address}/24`, 'dev', 'eth0')
      inNetwork(host, 'ip', 'link', 'set', 'eth0', 'up')
      shapeOne(host)
      connected.set(name, host)
    },
    disconnect: (name) => {
      earlier.set(name, sentBy(name))
      connected.delete(name)
      inNetwork(pid, 'ip', 'link', 'delete', name)
    },
    down: () => inNetwork(pid, 'ip', 'link', 'set', 'wire', 'down'),
    up: () => inNetwork(pid, 'ip', 'link', 'set', 'wire', 'up'),
    shape: (wanted) => {
      rate = wanted
      for (const host of connected.values()) shapeOne(host)
    },
    sentBy,
    stop: async () => {
      child.stdin.end()
      await ended
    },
  }
}
