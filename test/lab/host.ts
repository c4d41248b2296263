import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a command inside came to. `code` is null when a signal ended it. */
export interface Ran {
  code: number | null
  stdout: string
  stderr: string
}

/** A command that runs inside. */
export interface Started {
  /** As the machine sees it. */
  pid: number
  kill: (signal?: NodeJS.Signals) => void
  ended: Promise<Ran>
}

/** A host of its own on this machine, with a libvirtd at qemu:///system and its own network. */
export interface Host {
  /** Of a process in its namespaces, as the machine sees it: for `ip link set … netns PID`. */
  pid: number
  /**
   * Run a command inside, without input, to its end.
   * @param env instead of the caller's environment, PATH aside
   * @param seconds until it is killed [60]
   */
  run: (argv: string[], env?: Record<string, string>, seconds?: number) => Promise<Ran>
  /** The same, for a command that is to be killed on its way. */
  start: (argv: string[], env?: Record<string, string>) => Promise<Started>
  /** SIGKILL to all processes of this name (15 characters of it) on this host. @returns how many there were */
  killAll: (name: string) => Promise<number>
  /** End everything that runs there, guests too, and remove what libvirt kept. */
  stop: () => Promise<void>
}

/** Who guests run as; libvirt gives the files that it thinks theirs to that user (dynamic ownership). */
export interface QemuUser {
  user: string
  group: string
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const clean = { PATH, LC_ALL: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent', SHLVL: '1' }

const asRoot: QemuUser = { user: 'root', group: 'root' }

/** Seconds that libvirtd, or one command, may take. */
const patience = 60

/**
 * Start a host: mount, process, network and name spaces in which libvirt has /run, /etc/libvirt and its places below
 * /var for itself; all other files are the machine's own. It ends with `stop`, and with this process, however that ends.
 * @throws {Error} when this is not root, or libvirtd does not come up
 */
export async function startHost(name = 'host', qemu: QemuUser = asRoot): Promise<Host> {
  const directory = mkdtempSync(join(tmpdir(), `cowhand-lab-${name}-`))
  const remove = () => rmSync(directory, { recursive: true, force: true })
  try {
    const host = await bootHost(directory, name, qemu)
    const stop = async () => {
      await host.stop()
      remove()
    }
    return { ...host, stop }
  } catch (error) {
    remove()
    throw error
  }
}

/**
 * The same, in a directory that stays after `stop`: a host that is booted there again finds its files.
 * @param more a script that makes it more than that (host.sh reads it)
 */
export async function bootHost(directory: string, name: string, qemu: QemuUser = asRoot, more = ''): Promise<Host> {
  if (process.getuid?.() !== 0)
    throw new Error('Cannot start a host of the lab: only root may. Run it by sudo, or in a container as root')
  // Two ways to its end: its input closes when we are gone, and the kernel kills it (and with it the whole host).
  const unshare = ['unshare', '--mount', '--uts', '--ipc', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']
  const init = ['bash', '--norc', join(import.meta.dirname, 'host.sh'), directory, name, qemu.user, qemu.group, more]
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...unshare, '--propagation', 'private', ...init], {
    env: clean,
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  const ended = once(child, 'exit')
  const complaint = text(child.stderr)
  const pid = child.pid ?? 0

  const stop = async () => {
    child.stdin.end()
    // unshare waits for its child, and that one is gone only when every process of the host is.
    await ended
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), patience * 1000)
  const [line] = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended])
  clearTimeout(timer)
  if (line !== 'ready') {
    await stop()
    throw new Error(`Cannot start a host of the lab: libvirtd did not come up: ${await complaint}`)
  }

  const enter = [
    '--mount',
    '--uts',
    '--ipc',
    '--net',
    `--pid=/proc/${pid}/ns/pid_for_children`,
    '--target',
    `${pid}`,
    '--',
  ]
  const command = (argv: string[], env: Record<string, string>) => {
    const child = spawn('nsenter', [...enter, ...argv], {
      cwd: '/',
      env: { ...clean, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const left = once(child, 'close')
    const whole = Promise.all([text(child.stdout), text(child.stderr), left])
    return { child, ended: whole.then(([stdout, stderr, [code]]): Ran => ({ code, stdout, stderr })) }
  }
  const run = (argv: string[], env: Record<string, string> = {}, seconds = patience): Promise<Ran> =>
    command(['timeout', '-k', '5', `${seconds}`, ...argv], env).ended
  const start = async (argv: string[], env: Record<string, string> = {}): Promise<Started> => {
    const { child, ended } = command(argv, env)
    // nsenter waits for its only child, which is the command.
    let its = 0
    while (its === 0 && child.exitCode === null && child.signalCode === null) {
      its = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8'))
      if (its === 0) await sleep(2)
    }
    const kill = (signal: NodeJS.Signals = 'SIGKILL') => {
      // Only while nsenter has not told its end: until then no other process can have got this number.
      if (its !== 0 && child.exitCode === null && child.signalCode === null) process.kill(its, signal)
    }
    return { pid: its, kill, ended }
  }
  const killAll = async (victims: string): Promise<number> =>
    Number((await run(['pkill', '--count', '--signal', 'KILL', '--exact', victims])).stdout)
  return { pid, run, start, killAll, stop }
}
