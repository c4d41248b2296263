import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'

/** What a command inside came to. `code` is null when a signal ended it. */
export interface Ran {
  code: number | null
  stdout: string
  stderr: string
}

/** A host of its own on this machine, with a libvirtd at qemu:///system and its own network. */
export interface Host {
  /** Of a process in its namespaces, as the machine sees it: for `ip link set … netns PID`. */
  pid: number
  /** Run a command inside, without input, to its end. @param env instead of the caller's environment, PATH aside */
  run: (argv: string[], env?: Record<string, string>) => Promise<Ran>
  /** End everything that runs there, guests too, and remove what libvirt kept. */
  stop: () => Promise<void>
}

const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const clean = { PATH, LC_ALL: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent', SHLVL: '1' }

/** Seconds that libvirtd, or one command, may take. */
const patience = 60

/**
 * Start a host: mount, process, network and name spaces in which libvirt has /run, /etc/libvirt and its places below
 * /var for itself; all other files are the machine's own. It ends with `stop`, and with this process, however that ends.
 * @param qemu who guests run as; libvirt gives the files that it thinks theirs to that user (dynamic ownership)
 * @throws {Error} when this is not root, or libvirtd does not come up
 */
export async function startHost(name = 'host', qemu = { user: 'root', group: 'root' }): Promise<Host> {
  if (process.getuid?.() !== 0)
    throw new Error('Cannot start a host of the lab: only root may. Run it by sudo, or in a container as root')
  const directory = mkdtempSync(join(tmpdir(), `cowhand-lab-${name}-`))
  // Two ways to its end: its input closes when we are gone, and the kernel kills it (and with it the whole host).
  const unshare = ['unshare', '--mount', '--uts', '--ipc', '--net', '--pid', '--fork', '--kill-child', '--mount-proc']
  const init = ['bash', '--norc', join(import.meta.dirname, 'host.sh'), directory, name, qemu.user, qemu.group]
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
    rmSync(directory, { recursive: true, force: true })
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
  const run = async (argv: string[], env: Record<string, string> = {}): Promise<Ran> => {
    const words = ['timeout', '-k', '5', `${patience}`, ...argv]
    const command = spawn('nsenter', [...enter, ...words], {
      cwd: '/',
      env: { ...clean, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const left = once(command, 'close')
    const [stdout, stderr, [code]] = await Promise.all([text(command.stdout), text(command.stderr), left])
    return { code, stdout, stderr }
  }
  return { pid, run, stop }
}
