import { Problem } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { ask } from './ask.ts'
import { caller } from './caller.ts'
import { environment } from './environment.ts'
import { textAt } from './files.ts'

// How another host is reached: OpenSSH's client, with the operator's own ssh_config, keys and known_hosts.

/** What of the settings says how. */
export type Reach = Pick<Settings, 'ssh_user' | 'ssh_port' | 'ssh_identity'>

/** A connection that others go through, too. `path`: of its socket. */
export interface Shared {
  path: string
  /** The one that opens it; all others use it, or, where it is gone, a connection of their own. */
  isMaster?: boolean
}

/** Seconds, and times. A dead link is noticed after 12 to 16 seconds. */
const wait = { connect: 10, alive: 4, missed: 3 }

/**
 * ssh and its options, without a host: for a command of ours (then `--`, host and command follow), and for rsync's -e,
 * which splits them at blanks. What the operator's ssh_config says counts where nothing is said here.
 */
export function sshWords({ ssh_user: user, ssh_port: port, ssh_identity: identity }: Reach, shared?: Shared): string[] {
  const options = {
    // Nobody is there to be asked: an unknown key of a host is refused, as is a key of ours that has a passphrase.
    BatchMode: 'yes',
    ConnectTimeout: wait.connect,
    ServerAliveInterval: wait.alive,
    ServerAliveCountMax: wait.missed,
    ControlMaster: shared?.isMaster ? 'yes' : 'no',
    // The connection is to end when we do.
    ControlPersist: 'no',
    ControlPath: shared?.path ?? 'none',
    // What an ssh_config may ask for a person at a terminal: no other host gets at ours that way.
    ClearAllForwardings: 'yes',
    ForwardAgent: 'no',
    ForwardX11: 'no',
    PermitLocalCommand: 'no',
    RemoteCommand: 'none',
    EscapeChar: 'none',
    // What ssh says is read: not less than that, and no debugging.
    LogLevel: 'INFO',
    ...(identity === undefined ? {} : { IdentitiesOnly: 'yes' }),
  }
  return [
    ...['ssh', '-T'],
    ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`]),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    ...(identity === undefined ? [] : ['-i', identity]),
  ]
}

/**
 * The ciphers that ssh would take, with AES-GCM before ChaCha20: it costs a processor that has AES a fifth, and what
 * travels waits for that. None is added, and any other order is one that somebody chose.
 * @param configured what `ssh -G` says @param processor /proc/cpuinfo
 */
export function quickCiphers(configured: string, processor: string): string | undefined {
  const all = (/^ciphers (\S+)$/m.exec(configured)?.[1] ?? '').split(',')
  const quick = all.filter((cipher) => /^aes\d+-gcm@openssh\.com$/.test(cipher))
  const isUsual = all[0] === 'chacha20-poly1305@openssh.com' // OpenSSH's own order
  if (!isUsual || quick.length === 0 || !/^(flags|Features)\s*:.*\baes\b/m.test(processor)) return undefined
  return [...new Set([...quick, ...all])].join(',')
}

/** What quickCiphers chooses for a host, as options of ssh. Never throws. */
export async function cipherWords(host: string, reach: Reach): Promise<string[]> {
  const { stdout } = await ask([...sshWords(reach), '-G', '--', host])
  const ciphers = quickCiphers(stdout, textAt('/proc/cpuinfo') ?? '')
  return ciphers === undefined ? [] : ['-o', `Ciphers=${ciphers}`]
}

/** ssh finds ~/.ssh by the account. The caller's agent is asked where there is one. */
export function sshEnvironment(): Record<string, string> {
  const agent = caller.environment['SSH_AUTH_SOCK']
  return { ...environment(), ...(agent ? { SSH_AUTH_SOCK: agent } : {}) }
}

/** What one types to get there. */
export function typedSsh(host: string, { ssh_user: user, ssh_port: port, ssh_identity: identity }: Reach): string {
  const options = [...(port === undefined ? [] : ['-p', port]), ...(identity === undefined ? [] : ['-i', identity])]
  return ['ssh', ...options, user === undefined ? host : `${user}@${host}`].join(' ')
}

interface Meaning {
  code: 'AUTH_FAILED' | 'HOST_UNREACHABLE'
  state: string
  remedy: string
}

/** What ssh said last, without its name. */
export const lastOf = (words: string): string =>
  (words.trim().split(/\r?\n/).at(-1) ?? '')
    .replace(/^ssh: /, '')
    .replace(/\.$/, '')
    .slice(0, 300)

/** What it means that ssh ended with 255, by its own words. @param words what it wrote to its standard error */
export function explainSsh(words: string, host: string, reach: Reach): Meaning {
  const typed = typedSsh(host, reach)
  const said = lastOf(words)
  const [, changed] = /^Host key for (\S+) has changed/m.exec(words) ?? []
  const auth = (state: string, remedy: string): Meaning => ({ code: 'AUTH_FAILED', state, remedy })
  const unreachable = (state: string, remedy: string): Meaning => ({ code: 'HOST_UNREACHABLE', state, remedy })
  if (changed !== undefined)
    return auth(
      'its host key is not the one in known_hosts',
      `make sure that it is the right host; then: ssh-keygen -R '${changed}'; ${typed} true`,
    )
  if (/^Host key verification failed/m.test(words))
    return auth('its host key is not known here', `look at its key and accept it once, as this user: ${typed} true`)
  const [, loose] = /^Permissions \d+ for '(.*)' are too open/m.exec(words) ?? []
  if (loose !== undefined) return auth(`others may read the private key "${loose}"`, `chmod 600 ${loose}`)
  if (/Permission denied|Too many authentication failures|authentication methods/.test(words)) {
    const copy = typed.replace(/^ssh/, 'ssh-copy-id')
    return auth(`it does not let us in: ${said}`, `give it a key that has no passphrase, or is in an agent: ${copy}`)
  }
  if (/Could not resolve hostname/.test(words))
    return unreachable(said, 'give its address, or name it in /etc/hosts or in ssh_config')
  if (/Connection refused/.test(words))
    return unreachable(said, `see that sshd runs there; another port is the setting ssh_port: ${typed} true`)
  return unreachable(said || 'ssh ended without a word', `see whether it can be reached: ${typed} true`)
}

/** How ssh ending with 255 is told. @param verb what cannot be done: VERB "THING" */
export function sshProblem(verb: string, words: string, host: string, reach: Reach): Problem {
  const { code, state, remedy } = explainSsh(words, host, reach)
  return new Problem(code === 'AUTH_FAILED' ? 'refused' : 'failed', code, `Cannot ${verb}: ${state}`, remedy)
}
