import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'
import { bootHost, type Host } from './host.ts'
import { furnishSites, libvirtUri, rsync, type Site, type SiteSettings, writeSettings } from './pair-site.ts'
import { type Link, startWire, type Wire } from './wire.ts'

// Two hosts on one wire: ssh between the roots, an rsync daemon that takes what the other one sends, libvirt, and
// cowhand with its settings.

export interface PairHostOptions {
  /** Absolute path below /var/lib or /srv [/var/lib/cowhand/instances]. */
  instances?: string
  /** Keys of its cowhand.yaml, besides or instead of the lab's. */
  settings?: SiteSettings
  /** Path of the program that is `cowhand` there [build/out/cowhand]. */
  cowhand?: string
}

export interface PairOptions {
  a?: PairHostOptions
  b?: PairHostOptions
  /** Both see one directory of instances. */
  shared?: boolean
}

/** What the binary came to: exit code, and the result document. */
export type Answered = Partial<Result> & { code: number | null; stderr: string }

export interface PairHost extends Host {
  /** Its host name, by which the other one reaches it. */
  name: string
  address: string
  /** Absolute path of the instances, as the host sees it. */
  instances: string
  /** The machine's path of what the host has for itself: instances, images, /etc/cowhand, /root/.ssh, libvirt's places. */
  file: (path: string) => string
  /** Run the binary with --json. */
  cowhand: (words: string[], env?: Record<string, string>, seconds?: number) => Promise<Answered>
  /** @returns what it printed @throws {Error} with what virsh said */
  virsh: (...words: string[]) => Promise<string>
  /** Write its cowhand.yaml anew. */
  configure: (settings: SiteSettings) => void
  /** As by a power cut: every process is killed, and then the daemons are started. Disks and settings are left. */
  reboot: () => Promise<void>
}

export interface Pair {
  a: PairHost
  b: PairHost
  link: Link
  rsync: typeof rsync
  /** End all of it, and remove every file. */
  stop: () => Promise<void>
}

const usual = '/var/lib/cowhand/instances'

/**
 * Start `alpha` and `beta`, on a wire of 1 Gbit/s. They end with `stop`, and with this process, however that ends.
 * @throws {Error} when this is not root, or a daemon does not come up
 */
export async function startPair(options: PairOptions = {}): Promise<Pair> {
  const lab = mkdtempSync(join(tmpdir(), 'cowhand-lab-pair-'))
  chmodSync(lab, 0o711) // whoever QEMU runs as has to come through
  const siteOf = (name: string, address: string, { instances = usual, cowhand }: PairHostOptions = {}): Site => {
    const directory = join(lab, name)
    const to = ['/etc/cowhand', '/root/.ssh', '/var/lib/cowhand', ...(instances === usual ? [] : [instances])]
    const places = to.map((place): [string, string] => [join(directory, place), place])
    if (options.shared) places.push([join(lab, 'shared'), instances])
    return { name, address, directory, instances, places, cowhand: cowhand ?? join(root, 'build/out/cowhand') }
  }
  const sites = [siteOf('alpha', '10.99.0.1', options.a), siteOf('beta', '10.99.0.2', options.b)] as const
  const ends: (() => Promise<void>)[] = []
  const stop = async () => {
    await Promise.all(ends.map((end) => end()))
    rmSync(lab, { recursive: true, force: true })
  }
  try {
    furnishSites([...sites])
    writeSettings(sites[0], options.a?.settings)
    writeSettings(sites[1], options.b?.settings)
    const wire = await startWire()
    ends.push(wire.stop)
    const start = async (site: Site): Promise<PairHost> => {
      const host = await startOne(site, wire)
      ends.push(host.stop)
      return host
    }
    const [a, b] = await both(start(sites[0]), start(sites[1]))
    return { a, b, link: wire, rsync, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Both are through, well or not, before the first failure is told: what has started can be ended. */
async function both<T>(one: Promise<T>, other: Promise<T>): Promise<[T, T]> {
  await Promise.allSettled([one, other])
  return [await one, await other]
}

async function startOne(site: Site, wire: Wire): Promise<PairHost> {
  const { name, address, directory, instances, places } = site
  const boot = async (): Promise<Host> => {
    // As on a real host, it is empty when a host starts.
    rmSync(join(directory, 'run'), { recursive: true, force: true })
    const host = await bootHost(directory, name, undefined, join(import.meta.dirname, 'pair.sh'))
    try {
      wire.connect(name, address, host.pid)
      return host
    } catch (error) {
      await host.stop()
      throw error
    }
  }
  mkdirSync(directory, { recursive: true })
  let host = await boot()
  const run: Host['run'] = (...command) => host.run(...command)
  return {
    name,
    address,
    instances,
    get pid() {
      return host.pid
    },
    run,
    start: (...command) => host.start(...command),
    killAll: (victims) => host.killAll(victims),
    stop: () => host.stop(),
    file: (path) => {
      // The last one mounted is the one that is seen.
      const place = places.findLast(([, to]) => path === to || path.startsWith(`${to}/`))
      return place ? join(place[0], path.slice(place[1].length)) : join(directory, path)
    },
    cowhand: async (words, env = {}, seconds) => {
      const { code, stdout, stderr } = await run(['cowhand', ...words, '--json'], env, seconds)
      if (stdout === '') throw new Error(`cowhand ${words.join(' ')} on ${name} printed no document: ${stderr}`)
      return { ...(JSON.parse(stdout) as Result), code, stderr }
    },
    virsh: async (...words) => {
      const { code, stdout, stderr } = await run(['virsh', '-q', '-c', libvirtUri, ...words])
      if (code !== 0) throw new Error(`virsh ${words.join(' ')} on ${name}: ${stderr.trim()}`)
      return stdout.trim()
    },
    configure: (settings) => writeSettings(site, settings),
    reboot: async () => {
      wire.disconnect(name)
      await host.stop()
      host = await boot()
    },
  }
}

/** All that is kept of what a guest said on its serial console, the older parts first. */
export function consoleOf(host: PairHost, name: string): string {
  const log = host.file(join(host.instances, name, 'console.log'))
  const parts = [`${log}.2`, `${log}.1`, `${log}.0`, log].filter((part) => existsSync(part))
  return parts.map((part) => readFileSync(part, 'latin1').replaceAll('\r', '')).join('')
}

/**
 * Wait until a guest's console has it.
 * @returns the match
 * @throws {Error} with its last lines when it has not after so many seconds
 */
export async function awaitConsole(
  host: PairHost,
  name: string,
  pattern: RegExp,
  seconds = 180,
): Promise<RegExpExecArray> {
  const end = performance.now() + seconds * 1000
  for (;;) {
    const said = consoleOf(host, name)
    const found = pattern.exec(said)
    if (found) return found
    if (performance.now() > end) {
      const last = said.split('\n').slice(-20).join('\n')
      throw new Error(`after ${seconds} s the console of ${name} on ${host.name} had no ${pattern}:\n${last}`)
    }
    await sleep(100)
  }
}
