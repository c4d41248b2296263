import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import type { Ran } from './host.ts'
import { tree } from './moving.ts'
import { type Pair, type PairHost, startPair } from './pair.ts'
import { canonical } from './xml.ts'

// A pair whose cowhand can be told when it is to die, on both ends, and what has to hold after every fault: no guest
// runs twice, no process, lock or mount is left, and no base is worse.

/** When cowhand gets a signal, as test/crash/entry.ts has it: after so many events that it told. */
export interface Fault {
  at: number | string
  /** Milliseconds later. */
  after?: number
  /** [SIGKILL] */
  signal?: NodeJS.Signals
}
const environmentOf = ({ at, after = 0, signal = 'SIGKILL' }: Fault): Record<string, string> => ({
  KILL_AT: `${at}`,
  KILL_AFTER: `${after}`,
  KILL_WITH: signal,
})

interface Process {
  pid: number
  words: string
}

/** Every process of a host. */
export function processesOf(host: PairHost): Process[] {
  const network = networkOf(host.pid)
  return readdirSync('/proc').flatMap((name) => {
    const pid = Number(name)
    if (!Number.isInteger(pid) || networkOf(pid) !== network) return []
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
      return words === '' ? [] : [{ pid, words }]
    } catch {
      return [] // it has ended
    }
  })
}
function networkOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`)
  } catch {
    return undefined
  }
}

/** Names of the guests that have a QEMU there. */
const guestsIn = (processes: Process[]): string[] =>
  processes.flatMap(({ words }) =>
    words.startsWith('/usr/bin/qemu-system') ? (/guest=([^,]+),/.exec(words)?.[1] ?? []) : [],
  )

export interface Faulty {
  pair: Pair
  a: PairHost
  b: PairHost
  /** Run cowhand on alpha, and have it, or the one that it starts on beta, get a signal. */
  run: (words: string[], faults?: { here?: Fault; there?: Fault }, seconds?: number) => Promise<Ran>
  /** Settings of both, beside the lab's. */
  configure: (settings: Record<string, string | undefined>) => void
  /** Nothing that was started is still there, no guest ever ran on both hosts, and all bases are as they were. */
  assertQuiet: (where: string) => Promise<void>
  /** From now on these bases may not change. */
  noteBases: () => void
  stop: () => Promise<void>
}

const isDaemon = /^(sleep 0\.2|\/usr\/sbin\/libvirtd|libvirtd|virtlogd|bash --norc .*)$/

export async function startFaulty(): Promise<Faulty> {
  const directory = mkdtempSync(join(tmpdir(), 'cowhand-faulty-'))
  const cowhand = join(directory, 'cowhand')
  const remote = join(directory, 'remote')
  await compile('test/crash/entry.ts', cowhand)
  // Only the first one that is started after that is told to die.
  const once = `if mv ${directory}/once ${directory}/taken 2>/dev/null; then . ${directory}/taken; fi`
  writeFileSync(remote, `#!/bin/sh\n${once}\nexec cowhand "$@"\n`, { mode: 0o755 })
  const common = { remote_cowhand: remote, compress: 'none' }
  const pair = await startPair({ a: { cowhand, settings: common }, b: { cowhand, settings: common } })
  const { a, b } = pair
  const usual = new Map([a, b].map((host) => [host, processesOf(host).map(({ words }) => words)]))
  const mounts = (host: PairHost) => readFileSync(`/proc/${host.pid}/mounts`, 'utf8').split('\n').length
  const mounted = new Map([a, b].map((host) => [host, mounts(host)]))
  let bases = new Map<PairHost, string[]>()
  const basesOn = (host: PairHost) => {
    const path = host.file(join(host.instances, '_base'))
    // Of a record the time of its file tells when the base was used last: that is not in a tree.
    return readdirSync(host.file(host.instances)).includes('_base') ? tree(path) : []
  }

  const twice = new Set<string>()
  const watch = setInterval(() => {
    const there = guestsIn(processesOf(b))
    for (const name of guestsIn(processesOf(a))) if (there.includes(name)) twice.add(name)
  }, 100)

  const strangers = (host: PairHost): string[] => {
    const left = [...(usual.get(host) ?? [])]
    return processesOf(host).flatMap(({ words }) => {
      if (isDaemon.test(words) || words.startsWith('/usr/bin/qemu-system')) return []
      const known = left.indexOf(words)
      if (known >= 0) left.splice(known, 1)
      return known >= 0 ? [] : [words]
    })
  }
  return {
    pair,
    a,
    b,
    run: async (words, { here, there } = {}, seconds = 120) => {
      if (there) {
        const lines = Object.entries(environmentOf(there)).map(([key, value]) => `export ${key}=${value}\n`)
        writeFileSync(join(directory, 'next'), lines.join(''))
        renameSync(join(directory, 'next'), join(directory, 'once'))
      }
      const ran = await a.run(['cowhand', ...words], here ? environmentOf(here) : {}, seconds)
      rmSync(join(directory, 'once'), { force: true })
      return ran
    },
    configure: (settings) => {
      for (const host of [a, b]) host.configure({ ...common, ...settings })
    },
    assertQuiet: async (where) => {
      for (const host of [a, b]) {
        let left = strangers(host)
        for (const end = performance.now() + 30_000; left.length > 0 && performance.now() < end; left = strangers(host))
          await sleep(20)
        assert.deepEqual(left, [], `${where}: processes left on ${host.name}`)
        assert.equal(mounts(host), mounted.get(host), `${where}: mounts on ${host.name}`)
        const now = basesOn(host)
        for (const base of bases.get(host) ?? [])
          assert.ok(now.includes(base), `${where}: ${base} on ${host.name} was ${now}`)
      }
      assert.deepEqual([...twice], [], `${where}: ran on both hosts`)
    },
    noteBases: () => {
      bases = new Map([a, b].map((host) => [host, basesOn(host)]))
    },
    stop: async () => {
      clearInterval(watch)
      await pair.stop()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** What is there of an instance under any of its names: every file, with its digest. */
export const filesOf = (host: PairHost, name: string): string[] =>
  tree(host.file(host.instances), /^(locks|_base)(\/|$)/).filter((line) => line.startsWith(name))

/** Locks of an instance, and of bases, that are still there. */
export const locksOn = (host: PairHost, name: string): string[] =>
  readdirSync(host.file(join(host.instances, 'locks'))).filter(
    (lock) => !lock.endsWith('guard') && (lock.startsWith('base.') || lock.includes(name)),
  )

/** Everything of an instance on both hosts, and where its guest is. Ids of moves and times are left out. */
export async function stateOf({ a, b }: Pick<Faulty, 'a' | 'b'>, name: string, hasLibvirt: boolean): Promise<unknown> {
  const of = async (host: PairHost) => {
    const lines = filesOf(host, name)
    const disks = lines.flatMap((line) => /^(\S+\/disk(?:\.swap|\.local)?) 100/.exec(line)?.[1] ?? [])
    const records = lines.flatMap((line) => /^(\S+\/instance\.json) /.exec(line)?.[1] ?? [])
    return {
      files: lines
        .filter((line) => !/\/(instance\.json|console\.log) /.test(line))
        // What its guest sees is looked at, and not how that is laid out.
        .map((line) => (disks.some((disk) => line.startsWith(`${disk} `)) ? line.split(' ', 3).join(' ') : line)),
      disks: await Promise.all(disks.map(async (disk) => [disk, await seenBy(host, join(host.instances, disk))])),
      records: records.map((record) =>
        readFileSync(host.file(join(host.instances, record)), 'utf8')
          .replace(/"(move|since)": "[^"]*"/g, '*')
          .replace(/ *"abandoned": \{[^}]*\},\n/, ''),
      ),
      domain: hasLibvirt ? await domainOn(host, name) : undefined,
    }
  }
  return { alpha: await of(a), beta: await of(b) }
}

let count = 0

/** Digest of what a guest sees on a disk, also while it runs. */
async function seenBy(host: PairHost, disk: string): Promise<string> {
  count += 1
  const raw = `/var/lib/cowhand/seen.${count}`
  const made = await host.run(['qemu-img', 'convert', '-U', '-f', 'qcow2', '-O', 'raw', disk, raw])
  assert.equal(made.code, 0, made.stderr)
  const digest = createHash('sha256')
    .update(readFileSync(host.file(raw)))
    .digest('hex')
  rmSync(host.file(raw))
  return digest
}

/** The domain's state, and its definition; undefined where libvirt has none. */
export async function domainOn(host: PairHost, name: string): Promise<string | undefined> {
  const names = await host.virsh('list', '--all', '--name')
  if (!names.split('\n').includes(name)) return undefined
  return `${await host.virsh('domstate', name)}\n${canonical(await host.virsh('dumpxml', '--inactive', '--security-info', name))}`
}

/** What is there at the source, byte for byte, with its domain. */
export const oldOf = async (host: PairHost, name: string, hasLibvirt: boolean): Promise<unknown> => ({
  files: filesOf(host, name),
  domain: hasLibvirt ? await domainOn(host, name) : undefined,
})
