import { hostname } from 'node:os'
import { fileAt, probeOf, sharesBlocks, textAt } from '../../lib/host/files.ts'
import { sayTask } from '../../lib/host/instances.ts'
import { hasEnded } from '../../lib/host/libvirt.ts'
import { type Moved, movedAt } from '../../lib/host/moves.ts'
import { travelling } from '../../lib/host/travelling.ts'
import type { Task } from '../../lib/job/instance.ts'
import * as layout from '../../lib/job/layout.ts'
import type { Answer, Offer, Order, OrderedDisk } from '../../lib/job/move.ts'
import { misuse, Problem, refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { formatSize } from '../../lib/job/spec.ts'
import { totals, unmeasured, waysOf } from '../../lib/job/ways.ts'
import { answerHere, askFor, requireOther } from './answers.ts'
import type { MoveJob } from './flags.ts'

// What a move follows from: the instance here, what another host answers, and how far an earlier run came.

/** It is so already: why nothing is to be done. */
export interface SoAlready {
  because: string
}

export interface FoundMove {
  moved: Moved
  task: Task
  order: Order
  answer: Answer
  /** What an earlier run has of the domain, where libvirt has it no more. */
  uuid: string
  /** No disk changes: on shared storage nothing is to be done to them. */
  isSame: boolean
  /** How what is sent travels, in words, and bytes per second that it may take, where that is known. */
  travel?: { words: string; rate?: number }
}

/** What this host has of a move, before the other one is asked. */
export interface Offered extends Pick<FoundMove, 'moved' | 'task' | 'uuid' | 'isSame'> {
  offer: Offer
}

/**
 * Moves that were found to have arrived before this run did anything. Their guests may have run there since, and what
 * they wrote is nowhere else.
 */
export const cameBefore = new Set<string>()

/** What the plan follows from, on both hosts. */
export async function lookForMove(
  kind: 'resize' | 'migrate',
  job: MoveJob,
  settings: Settings,
): Promise<FoundMove | SoAlready> {
  const offered = await offerOf(kind, job, settings)
  if ('because' in offered) return offered
  const { to } = job
  const { offer } = offered
  const ask = () => (to === undefined ? answerHere(offer, settings) : askFor(to, offer, settings).catch(orGoBack))
  const orGoBack = (error: unknown): never => {
    if (!(error instanceof Problem) || !offered.moved.task) throw error
    const remedy = `${error.remedy}; or go back: cowhand revert ${job.name}`
    throw new Problem(error.kind, error.code, error.message, remedy)
  }
  let answer = await ask()
  // The other host could not tell whether its bases are ours: then both read them.
  if (unmeasured(offer, answer).length > 0) {
    const { offeredDisks } = await import('../../lib/host/offered.ts')
    offer.disks = await offeredDisks(offered.moved.directory, settings, { measure: 'all' })
    answer = await ask()
  }
  return orderOf(offered, answer, job, settings)
}

/**
 * What this host offers. A move that is in hand is the one that is meant.
 * @param evenDone of one that is done as well
 */
export async function offerOf(
  kind: 'resize' | 'migrate',
  job: MoveJob,
  settings: Settings,
  { evenDone = false } = {},
): Promise<Offered | SoAlready> {
  const { instances, libvirt_uri: uri } = settings
  const { name, to } = job
  const moved = movedAt(instances, name)
  const old = moved.kept ?? moved.here
  const probe = probeOf(`${moved.directory}/instance.json`)
  if (!old || !probe)
    return refuse(
      'INSTANCE_NOT_FOUND',
      `Cannot ${kind} "${name}": "${instances}" has none of this name`,
      'see what there is: cowhand list',
    )
  const sizes = {
    root: job.root ?? old.root,
    ephemeral: job.ephemeral ?? old.ephemeral,
    swap: job.swap ?? old.swap,
  }
  if (job.ephemeral !== undefined && old.ephemeral === undefined)
    refuse(
      'UNSUPPORTED',
      `Cannot ${kind} "${name}" with --ephemeral: it has no ephemeral disk`,
      'leave --ephemeral out',
    )
  if (job.swap !== undefined && !layout.isWholeMiB(job.swap))
    misuse(
      `Cannot make a swap disk of ${job.swap} bytes: it is not a whole number of MiB`,
      'ask for a size such as --swap 512M',
    )
  if (job.swap !== undefined && old.swap === undefined)
    refuse('UNSUPPORTED', `Cannot ${kind} "${name}" with --swap: it has no swap disk`, 'leave --swap out')
  const isSame = sizes.root === old.root && sizes.ephemeral === old.ephemeral && sizes.swap === old.swap
  if (moved.task) requireSameTask(kind, name, moved.task, { kind, host: to, ...sizes })
  if (moved.task?.phase === 'done' && !evenDone) {
    const { state, remedy } = sayTask(name, moved.task)
    return { because: `${name}: ${state}: ${remedy}` }
  }
  if (!moved.task && to === undefined && isSame) return { because: `${name} has these sizes already` }

  const domain = uri === undefined ? undefined : await domainOf(uri, name, moved)
  if (domain && domain.facts.uuid !== old.uuid)
    refuse(
      'DOMAIN_EXISTS',
      `Cannot ${kind} "${name}": libvirt has another domain of this name, ${domain.facts.uuid}`,
      `look at it: virsh -c ${uri} dumpxml ${name}`,
    )
  const task: Task = moved.task ?? {
    move: crypto.randomUUID(),
    kind,
    phase: 'begun',
    ...(to === undefined ? {} : { host: to }),
    source: hostname(),
    since: new Date().toISOString(),
    run: !hasEnded(domain?.facts),
    autostart: domain?.autostart ?? false,
    ...defined(sizes),
  }
  // On shared storage, one that was handed over has its disk open on the other host.
  if (!domain && task.phase === 'begun') await requireQuiet(kind, name, moved.directory)
  const { offeredDisks } = await import('../../lib/host/offered.ts')
  const disks = await offeredDisks(moved.directory, settings)
  const { task: _, arrived: __, abandoned, ...record } = old
  // Of a guest that was handed over this host has the definition in a file.
  const definition = textAt(`${moved.directory}/definition.xml`)
  const xml = definition ?? domain?.xml ?? textAt(`${moved.directory}/libvirt.xml`)
  const offer: Offer = {
    version: 1,
    move: task.move,
    ...(abandoned && abandoned.host === to ? { replaces: abandoned.move } : {}),
    kind,
    name,
    host: hostname(),
    instances,
    record: { ...record, ...defined(sizes) },
    probe,
    ...(xml === undefined ? {} : { xml }),
    ...(uri === undefined || (!domain && definition === undefined)
      ? {}
      : { domain: { run: task.run, autostart: task.autostart } }),
    disks,
    files: travelling(moved.directory, [], to !== undefined).map((file) => ({ name: file.name, size: file.size })),
  }
  return { moved, task, offer, uuid: old.uuid, isSame: isSame && !job.flatten }
}

/** What is to become of each disk: the answer to an offer decides it. */
export async function orderOf(
  { moved, task, offer, uuid, isSame }: Offered,
  answer: Answer,
  job: MoveJob,
  settings: Settings,
): Promise<FoundMove> {
  const { instances } = settings
  const { to } = job
  if (to !== undefined) requireOther(to, offer, answer)
  if (answer.instance === 'arrived' || (to === undefined && moved.kept && moved.here)) cameBefore.add(task.move)
  // Where others carry the documents, it begins before anybody has looked there.
  const isUndecided = moved.task?.phase === 'begun' && moved.task.shared === undefined && !moved.kept
  if (moved.task && !isUndecided && (moved.task.shared === true) !== answer.shared)
    refuse(
      'UNSUPPORTED',
      `Cannot go on with "${offer.name}": when it began, ${to} ${answer.shared ? 'did not see' : 'saw'} the same files, and now it ${answer.shared ? 'does' : 'does not'}`,
      `have them mounted there as they were: findmnt -T ${answer.instances}; or go back: cowhand revert ${offer.name}`,
    )
  if (answer.shared) task.shared = true
  const { root, ephemeral, swap } = offer.record
  const ways = waysOf(offer, answer, {
    flatten: job.flatten,
    ephemeralPolicy: job['ephemeral-policy'],
    ...defined({ root, ephemeral, swap }),
  })
  for (const { base } of ways) {
    // Who gets a base proves it by its content.
    if (base?.from !== 'source' || base.identity.content !== undefined) continue
    const { contentOf } = await import('../../lib/image/content.ts')
    base.identity = {
      ...base.identity,
      content: await contentOf(`${layout.basesOf(instances)}/${base.sends ?? base.name}`),
    }
  }
  if (!answer.shared || !isSame) requireRoom(to, ways, answer)
  const order: Order = {
    ...offer,
    shared: answer.shared,
    ways,
    growFs: job['grow-fs'] === 'auto',
    startTimeout: job['start-timeout'],
  }
  const travel = to === undefined || answer.shared ? {} : { travel: await travelTo(to, job, moved, order, settings) }
  const found = { moved, task, order, answer, uuid, isSame, ...travel }
  const { requireWay } = await import('./ahead.ts')
  await requireWay(found, job.transport ?? settings.transport, settings)
  return found
}

/** How it travels, and how fast that may be. */
async function travelTo(
  host: string,
  { transport, bwlimit }: MoveJob,
  { directory }: Moved,
  { disks, ways }: Order,
  settings: Settings,
): Promise<NonNullable<FoundMove['travel']>> {
  const { compressionTo } = await import('../../lib/host/rsync.ts')
  const { linkTo } = await import('../../lib/host/compress.ts')
  const sent = disks.filter(({ file }) => ways.some((way) => way.file === file && way.way !== 'new'))
  const files = sent.flatMap(({ file }) => {
    const facts = fileAt(`${directory}/${file}`)
    return facts ? [{ path: `${directory}/${file}`, ...facts }] : []
  })
  const { level, reason } = await compressionTo(host, files, settings.compress, bwlimit)
  const { speed } = await linkTo(host)
  const rates = [bwlimit, speed === undefined ? undefined : (speed * 1e6) / 8].filter((rate) => rate !== undefined)
  return {
    words: `by ${transport ?? settings.transport}, ${level > 0 ? 'compressed' : 'as it is'}: ${reason}`,
    ...(rates.length > 0 ? { rate: Math.min(...rates) } : {}),
  }
}

const defined = <T extends object>(members: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined)) as never

/** @throws {Problem} NO_SPACE, by what will really be allocated, with the guest still running */
function requireRoom(host: string | undefined, ways: OrderedDisk[], answer: Answer): void {
  if (answer.instance === 'arrived') return
  const { space } = totals({ ways: ways.filter(({ file }) => !answer.proven.includes(file)) })
  if (space <= answer.free) return
  const lack = `only ${formatSize(answer.free)} are free ${host === undefined ? '' : 'there '}under "${answer.instances}"`
  if (host !== undefined && !answer.shared)
    refuse(
      'NO_SPACE',
      `Cannot send ${formatSize(space)} to "${host}": ${lack}`,
      `free at least ${formatSize(space - answer.free)} there: cowhand cache clean; or choose another host`,
    )
  // A copy that shares its blocks takes no space.
  if (!sharesBlocks(answer.instances))
    refuse('NO_SPACE', `Cannot copy ${formatSize(space)}: ${lack}`, 'free some space: cowhand cache clean')
}

/** A move that is in hand is gone on with; for any other the operator has to decide first. */
export function requireSameTask(
  kind: string,
  name: string,
  task: Task,
  wanted: {
    kind: string
    host: string | undefined
    root: number
    ephemeral: number | undefined
    swap: number | undefined
  },
): void {
  const isOver = task.phase === 'reverting' || task.phase === 'confirming'
  const keys = ['host', 'root', 'ephemeral', 'swap'] as const
  if (!isOver && task.kind === wanted.kind && keys.every((key) => task[key] === wanted[key])) return
  const { state, remedy } = sayTask(name, task)
  refuse('MOVE_UNFINISHED', `Cannot ${kind} "${name}": ${state}`, remedy)
}

/** The domain, as far as it is there: once the guest was handed over, this host has it no more. */
async function domainOf(uri: string, name: string, { task, directory }: Moved) {
  const { domainToMove } = await import('../../lib/host/libvirt-move.ts')
  return domainToMove(uri, name, task === undefined ? directory : undefined)
}

/** Where no libvirt is asked, a running guest is told by the lock that its QEMU has on the disk. */
async function requireQuiet(kind: string, name: string, directory: string): Promise<void> {
  const { isInUse } = await import('../../lib/host/qemu-img.ts')
  if (fileAt(`${directory}/disk`) && (await isInUse(`${directory}/disk`)))
    refuse(
      'IN_USE',
      `Cannot ${kind} "${name}": a running guest has its disk open, and no libvirt is configured that could stop it`,
      'set libvirt_uri, or stop the guest first',
    )
}
