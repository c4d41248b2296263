import manifest from '../../package.json' with { type: 'json' }
import { Hello, protocol, pulse, Reply, type Request } from '../job/conversation.ts'
import type { Event } from '../job/events.ts'
import type { Answer, MoveReference, MoveState, Offer, Order, Phase } from '../job/move.ts'
import { fail, joint, Problem, refuse } from '../job/problem.ts'
import type { Result } from '../job/result.ts'
import type { Settings } from '../job/settings.ts'
import { closing } from './closing.ts'
import { audience, interrupt } from './interrupt.ts'
import { type Link, openLink } from './link.ts'
import { dropSocketDirectory, makeSocketDirectory } from './socket-directory.ts'
import { cipherWords, lastOf, sshEnvironment, sshProblem, sshWords, typedSsh } from './ssh.ts'
import { missingTool } from './tools.ts'

/** Milliseconds: until cowhand over there says hello; that it may take to stop what it does; and to end when idle. */
const patience = { hello: 30_000, stop: 15_000, end: 2_000 }

/** The connection broke while the other host was at work: how far it came is not known. */
export class ConnectionLost extends Problem {}

const destinations = new Map<string, Promise<Destination>>()

/**
 * Another host, connected: one connection for the whole run.
 * @param host as HostName has it
 * @throws {Problem} HOST_UNREACHABLE, AUTH_FAILED, TOOL_MISSING, TOOL_FAILED, VERSION_MISMATCH, UNSUPPORTED; the
 *   interrupt's reason
 */
export function destinationAt(host: string, settings: Settings): Promise<Destination> {
  const known = destinations.get(host)
  if (known) return known
  if (destinations.size === 0) closing.push(closeDestinations)
  const found = connected(new Destination(host, settings))
  destinations.set(host, found)
  found.catch(() => destinations.delete(host))
  return found
}

async function connected(destination: Destination): Promise<Destination> {
  try {
    await destination.reconnect()
    return destination
  } catch (error) {
    await destination.close()
    throw error
  }
}

/** Every connection is closed, and what it kept is removed. */
async function closeDestinations(): Promise<void> {
  const all = [...destinations.values()]
  destinations.clear()
  await Promise.allSettled(all.map(async (found) => (await found).close()))
}

export class Destination {
  readonly host: string
  /** ssh for rsync's -e: through this connection, or, when that is gone, by one of its own. Start it in sshEnvironment. */
  readonly ssh: string[]
  readonly #settings: Settings
  readonly #directory: string
  #link: Link | undefined
  #turn: Promise<unknown> = Promise.resolve()
  /** Which connection this is, of those that were opened one after the other. */
  connection = 0

  constructor(host: string, settings: Settings) {
    this.host = host
    this.#settings = settings
    this.#directory = makeSocketDirectory()
    this.ssh = sshWords(settings, { path: this.#socket() })
  }

  #socket(): string {
    return `${this.#directory}/ctl`
  }

  /**
   * Have it do one phase, and pass on what it tells of it. Its problem is thrown as one of here.
   * @throws {Problem} the other host's own; ConnectionLost when that broke meanwhile; as destinationAt where it had to
   *   be opened again; the interrupt's reason, once the other host has stopped
   */
  ask(
    phase: Phase,
    document: Offer | Order | MoveReference,
    { dryRun = false } = {},
  ): Promise<{ answer?: Answer | undefined; result?: Result | undefined; state?: MoveState | undefined }> {
    // One request at a time: what comes back bears no number.
    const turn = this.#turn.then(() => this.#ask({ phase, document, dryRun }, document.name))
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #ask(request: Extract<Request, { phase: Phase }>, name: string) {
    const { signal } = interrupt
    signal.throwIfAborted()
    if (!this.#link?.isOpen()) await this.#connect()
    const link = this.#link as Link
    const verb = `have ${this.host} ${request.phase} "${name}"`
    // Its input ends: it stops what it does, says how far it came, and ends.
    const hangUp = () => void link.close(patience.stop)
    signal.addEventListener('abort', hangUp, { once: true })
    try {
      link.send(JSON.stringify(request))
      for (;;) {
        const line = await link.next()
        if (line === undefined) {
          signal.throwIfAborted()
          throw await this.#lost(link, verb)
        }
        const reply = read(Reply, line)
        if (!reply) {
          link.kill()
          throw fail(
            'TOOL_FAILED',
            `Cannot ${verb}: it answered what is no answer: "${line.slice(0, 100)}"`,
            `see what cowhand there is: ${this.#typed('--version')}`,
          )
        }
        if ('event' in reply) audience.tell(named(this.host, reply.event))
        else {
          signal.throwIfAborted()
          if (reply.problem) throw problemOf(this.host, reply.problem)
          return { answer: reply.answer, result: reply.result, state: reply.state }
        }
      }
    } finally {
      signal.removeEventListener('abort', hangUp)
      if (signal.aborted) await link.close(patience.stop)
    }
  }

  /** What to type to run cowhand there. */
  #typed(words: string): string {
    return `${typedSsh(this.host, this.#settings)} ${this.#settings.remote_cowhand} ${words}`
  }

  async #lost(link: Link, verb: string): Promise<Problem> {
    const { code, words } = await link.ended
    // Also where a signal ended what ran there, and then without a word.
    const ofSsh = lastOf(words) || 'cowhand there was killed'
    const state = code === 255 ? ofSsh : `cowhand there ended (${code ?? 'killed'}): ${lastOf(words)}`
    return new ConnectionLost(
      'failed',
      'HOST_UNREACHABLE',
      `Cannot ${verb}: the connection broke: ${state.replace(/: $/, '')}`,
      `see whether it can be reached: ${typedSsh(this.host, this.#settings)} true; then run the same command again`,
    )
  }

  /**
   * A new connection takes the place of the old one, in whatever state that is.
   * @param lost the one that was found broken: of several jobs that found it so, the first opens a new one for all
   * @throws {Problem} as destinationAt
   */
  reconnect(lost = this.connection): Promise<void> {
    // Not while it is asked something for another job, that would be cut off.
    const turn = this.#turn.then(async () => (lost === this.connection ? this.#connect() : undefined))
    this.#turn = turn.catch(() => {})
    return turn
  }

  async #connect(): Promise<void> {
    const { signal } = interrupt
    signal.throwIfAborted()
    this.#link?.kill()
    await this.#link?.ended
    dropSocketDirectory(this.#directory, { keep: true })
    const master = sshWords(this.#settings, { path: this.#socket(), isMaster: true })
    const words = [...this.#settings.remote_cowhand.split(' '), '__serve']
    const ciphers = await cipherWords(this.host, this.#settings)
    const link = await openLink([...master, ...ciphers, '--', this.host, ...words], sshEnvironment())
    this.#link = link
    this.connection += 1
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      link.kill()
    }, patience.hello)
    signal.addEventListener('abort', link.kill, { once: true })
    try {
      const line = await link.next()
      signal.throwIfAborted()
      if (isLate)
        throw fail(
          'HOST_UNREACHABLE',
          `Cannot reach "${this.host}": cowhand there did not speak within ${patience.hello / 1000} s`,
          `see what keeps it: ${this.#typed('--version')}`,
        )
      if (line === undefined) throw await this.#silent(link)
      this.#greet(line)
      const beat = setInterval(() => link.send(JSON.stringify({ alive: true } satisfies Request)), pulse.every * 1000)
      beat.unref()
      link.ended.finally(() => clearInterval(beat))
    } catch (error) {
      link.kill()
      await link.ended
      throw error
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', link.kill)
    }
  }

  /** Why there is no hello. */
  async #silent(link: Link): Promise<Problem> {
    const { which } = await import('./ask.ts')
    const { code, words } = await link.ended
    const { host } = this
    const { remote_cowhand: cowhand } = this.#settings
    if (code === 255) return sshProblem(`reach "${host}"`, words, host, this.#settings)
    if (code === 127)
      for (const tool of ['setpriv', 'ssh']) if ((await which(tool)) === undefined) return missingTool(tool)
    if (code === 127 || /^sudo: .*command not found/m.test(words))
      return new Problem(
        'refused',
        'TOOL_MISSING',
        `Cannot run "${cowhand}" on ${host}: it is not installed there`,
        'install it there, of the same version; or say where it is: remote_cowhand: /PATH in /etc/cowhand/cowhand.yaml',
      )
    // What an older one says, which knows no such command.
    if (code === 2 && words.includes('__serve'))
      return new Problem(
        'refused',
        'VERSION_MISMATCH',
        `Cannot work with ${host}: its cowhand is too old, this one is ${manifest.version}`,
        `install the same version on both; what it has: ${this.#typed('--version')}`,
      )
    return new Problem(
      'failed',
      'TOOL_FAILED',
      `Cannot start cowhand on ${host}: it ended (${code ?? 'killed'}): ${words.trim().split('\n').slice(-2).join('; ').slice(0, 500)}`,
      `see what it says: ${this.#typed('list')}`,
    )
  }

  /** @throws {Problem} UNSUPPORTED, VERSION_MISMATCH */
  #greet(line: string): void {
    const { host } = this
    const hello = read(Hello, line)
    if (!hello)
      refuse(
        'UNSUPPORTED',
        `Cannot talk to cowhand on ${host}: something else speaks first: "${line.slice(0, 100)}"`,
        `let its shell (~/.bashrc, ~/.profile) print nothing without a terminal; this must print nothing: ${typedSsh(host, this.#settings)} true`,
      )
    const { cowhand, protocol: theirs } = hello
    if (cowhand !== manifest.version || theirs !== protocol)
      refuse(
        'VERSION_MISMATCH',
        `Cannot work with ${host}: it has cowhand ${cowhand} (protocol ${theirs}), and this host ${manifest.version} (protocol ${protocol})`,
        `install the same version on both; what it has: ${this.#typed('--version')}`,
      )
  }

  /** The connection is closed, and what was kept for it removed. */
  async close(): Promise<void> {
    await this.#link?.close(patience.end)
    dropSocketDirectory(this.#directory)
  }
}

/** A line of the other host, if it is what it has to be. */
function read<T>(schema: { safeParse: (value: unknown) => { success: boolean; data?: T } }, line: string) {
  try {
    return schema.safeParse(JSON.parse(line)).data
  } catch {
    return undefined
  }
}

/** Text of another host that goes into a sentence of ours. What prints it shows what a terminal would obey. */
const bounded = (text: string): string => text.slice(0, 2000)

/** An event of another host, as one of here. */
export function named(host: string, event: Event): Event {
  const its = (text: string) => `${host}: ${bounded(text)}`
  switch (event.type) {
    case 'notice':
      return { ...event, message: its(event.message) }
    case 'progress':
      return { ...event, what: its(event.what) }
    case 'action':
      return { ...event, step: its(event.step), action: bounded(event.action) }
    case 'step':
      return { ...event, step: its(event.step) }
  }
}

/** A problem of another host, as one of here: `Cannot VERB "THING": on HOST: STATE`. */
export function problemOf(host: string, its: Pick<Problem, 'kind' | 'code' | 'message' | 'remedy'>): Problem {
  const message = bounded(its.message)
    .split(joint)
    .map((sentence) => {
      const [, what, state] = /^(Cannot (?:"[^"]*"|[^":])+): (.*)$/s.exec(sentence) ?? []
      return what === undefined ? `on ${host}: ${sentence}` : `${what}: on ${host}: ${state}`
    })
    .join(joint)
  return new Problem(its.kind, its.code, message, `on ${host}: ${bounded(its.remedy)}`)
}
