import { Problem } from '../job/problem.ts'
import type { End } from './shell.ts'
import { explainSsh, type Reach } from './ssh.ts'

/** What was to be done, and how. */
export interface Sending {
  /** VERB "THING" to HOST, as in an error. */
  verb: string
  host: string
  transport: 'ssh' | 'rsyncd'
  reach: Reach
}

/** rsync of this host was ended from outside (by a kernel that is short of memory, say): another try may do. */
export class Killed extends Problem {}

const again = 'run the same command again: what arrived is not sent again'

/**
 * Exit codes of rsync(1) that tell that the other side was not there, or went away: socket and protocol errors (10, 12),
 * a process over there that was ended (15, 16, 19, 20), time-outs (30, 35); 255 is ssh's own.
 */
const cuts = [10, 12, 15, 16, 19, 20, 30, 35, 255]
/** A shell over there tells that its rsync was killed by 128 and the signal, and ours ends with the same. */
const isCut = (code: number): boolean => cuts.includes(code) || code > 128

/** What does not change by another try. */
interface Meaning {
  when: RegExp
  kind: 'failed' | 'refused'
  code: Problem['code']
  state: (host: string, found: RegExpExecArray) => string
  remedy: (host: string) => string
}

/** What the words of rsync, of its daemon, or of the shell over there mean, whatever the exit code is. */
const meanings: Meaning[] = [
  {
    when: /No space left on device|Disk quota exceeded/,
    kind: 'failed',
    code: 'NO_SPACE',
    state: (host) => `no space is left on ${host}`,
    remedy: (host) => `free some space on ${host}, then ${again}`,
  },
  {
    when: /@ERROR: auth failed on module (\S+)/,
    kind: 'refused',
    code: 'AUTH_FAILED',
    state: (_, [, module]) => `its rsync daemon does not let us into module ${module}`,
    remedy: (host) => `let rsyncd_secrets name a file with the line USER:PASSWORD of ${host}`,
  },
  {
    when: /@ERROR: access denied to (\S+)/,
    kind: 'refused',
    code: 'NO_PERMISSION',
    state: (_, [, module]) => `its rsync daemon denies this host the module ${module}`,
    remedy: (host) => `on ${host}, add the address of this host to "hosts allow" in /etc/rsyncd.conf`,
  },
  {
    when: /@ERROR: Unknown module '(.*)'/,
    kind: 'refused',
    code: 'MISSING_PREREQUISITE',
    state: (_, [, module]) => `its rsync daemon has no module ${module}`,
    remedy: (host) => `on ${host}: cowhand rsyncd-conf > /etc/rsyncd.conf; systemctl restart rsync`,
  },
  {
    when: /configured to refuse (.*)|module is read only|daemon has excluded|daemon refused to receive/,
    kind: 'refused',
    code: 'NO_PERMISSION',
    state: (_, [words]) => `its rsync daemon says: ${words}`,
    remedy: (host) => `on ${host}, give the module the lines that this prints: cowhand rsyncd-conf`,
  },
  {
    when: /^sudo: .*(password|not allowed|terminal).*/m,
    kind: 'refused',
    code: 'NO_PERMISSION',
    state: (_, [words]) => `rsync cannot be started there: ${words}`,
    remedy: (host) => `on ${host}, allow it in sudoers: NOPASSWD: /usr/bin/rsync`,
  },
  {
    when: /rsync: (command )?not found|remote command not found/,
    kind: 'refused',
    code: 'TOOL_MISSING',
    state: (host) => `rsync is not installed on ${host}`,
    remedy: (host) => `install it on ${host}: apt install rsync`,
  },
  {
    when: /is your shell clean/,
    kind: 'refused',
    code: 'UNSUPPORTED',
    state: () => 'its shell writes something before rsync does',
    remedy: (host) => `let its ~/.bashrc print nothing without a terminal; this must print nothing: ssh ${host} true`,
  },
  {
    when: /Failed to exec (\S+): No such file/,
    kind: 'refused',
    code: 'TOOL_MISSING',
    state: (_, [, tool]) => `${tool} is not installed here`,
    remedy: () => 'install it: apt install openssh-client',
  },
  {
    when: /\[sender\].*Permission denied/,
    kind: 'refused',
    code: 'NO_PERMISSION',
    state: () => 'it may not be read: permission denied',
    remedy: () => 'run it as root',
  },
  {
    when: /Read-only file system|Permission denied|Operation not permitted/,
    kind: 'refused',
    code: 'NO_PERMISSION',
    state: (host, [words]) => `it may not be written on ${host}: ${words.toLowerCase()}`,
    remedy: (host) => `on ${host}, let rsync be root, and the file system of the instances be writable`,
  },
  {
    when: /(mkdir|change_dir)\S* "(.*)" (?:\(in .*\) )?failed: No such file or directory/,
    kind: 'failed',
    code: 'MISSING_PREREQUISITE',
    state: (host, [, , directory]) => `"${directory}" is not there on ${host}`,
    remedy: (host) => `${again}; where its rsync daemon receives, see on ${host} what this prints: cowhand rsyncd-conf`,
  },
  {
    when: /Input\/output error/,
    kind: 'failed',
    code: 'IO_FAILED',
    state: () => 'a device failed to read or write',
    remedy: (host) => `look at dmesg, here and on ${host}; when the devices are well, ${again}`,
  },
]

/** The words of rsync that tell something: not that it ended, nor what the other end of a pipe made of that. */
const linesOf = (said: string): string[] =>
  said
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !/^rsync error:|Broken pipe|connection unexpectedly closed/.test(line))

/**
 * What it means that rsync failed. HOST_UNREACHABLE, and Killed: another try may do.
 * @param end how it ended
 */
export function explainRsync(
  { code, signal: told, said }: Omit<End, 'words'>,
  { verb, host, transport, reach }: Sending,
): Problem {
  const signal = code > 128 ? undefined : told
  const lines = linesOf(said)
  const last = lines.at(-1) ?? ''
  const isBusy = /@ERROR: max connections/.test(said)
  const isDeaf = /did not see server greeting/.test(said) // exit code 5, as for all that a daemon refuses
  // What ssh says; rsync only adds that nobody answers.
  const ofSsh = lines.filter((line) => !line.startsWith('rsync')).join('\n')
  if (transport === 'ssh' && code === 255 && ofSsh !== '') {
    const meaning = explainSsh(ofSsh, host, reach)
    const isAuth = meaning.code === 'AUTH_FAILED'
    const remedy = isAuth ? meaning.remedy : `${meaning.remedy}; then ${again}`
    return new Problem(isAuth ? 'refused' : 'failed', meaning.code, `Cannot ${verb}: ${meaning.state}`, remedy)
  }
  if (signal === undefined && !isBusy) {
    for (const { when, kind, code: of, state, remedy } of meanings) {
      const found = when.exec(said)
      if (found) return new Problem(kind, of, `Cannot ${verb}: ${state(host, found)}`, remedy(host))
    }
    if (code === 127)
      return explainRsync(
        { code: 0, signal: undefined, said: 'remote command not found' },
        { verb, host, transport, reach },
      )
  }
  if (isBusy || isDeaf || (signal === undefined && isCut(code)))
    return new Problem(
      'failed',
      'HOST_UNREACHABLE',
      `Cannot ${verb}: ${isBusy ? 'its rsync daemon has too many connections' : brokenBy(code, last)}`,
      `when the network is well, ${again}`,
    )
  const how = signal ? `was ended by ${signal}` : `failed with exit code ${code}`
  const words = lines.slice(-3).join('; ').slice(0, 500)
  const isKilled = signal === 'SIGKILL' || signal === 'SIGTERM'
  return new (isKilled ? Killed : Problem)(
    'failed',
    'TOOL_FAILED',
    `Cannot ${verb}: rsync ${how}${words ? `: ${words}` : ''}`,
    `mend what it says, then ${again}`,
  )
}

const brokenBy = (code: number, words: string): string => {
  if (code === 30 || code === 35) return 'the other side is silent'
  return `the connection broke${words ? `: ${words.replace(/^rsync: (\[\w+\] )?/, '').slice(0, 300)}` : ''}`
}
