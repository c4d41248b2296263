import { hostname } from 'node:os'
import { fileAt, freeSpace, probeOf, sharesBlocks, textAt } from '../../lib/host/files.ts'
import { type Moved, movedAt } from '../../lib/host/moves.ts'
import { travelling } from '../../lib/host/travelling.ts'
import type { Task } from '../../lib/job/instance.ts'
import * as layout from '../../lib/job/layout.ts'
import type { Answer, Offer, Order, OrderedDisk } from '../../lib/job/move.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { exactSize, formatSize } from '../../lib/job/spec.ts'
import { lacksContent, totals, waysOf } from '../../lib/job/ways.ts'
import type { MoveJob } from './flags.ts'

// What a move follows from: the instance here, what another host answers, and how far an earlier run came.

export interface FoundMove {
  moved: Moved
  task: Task
  order: Order
  answer: Answer
  /** What an earlier run has of the domain, where libvirt has it no more. */
  uuid: string
  /** No disk changes: on shared storage nothing is to be done to them. */
  isSame: boolean
}

/** What the plan follows from, on both hosts. Undefined: it is already so. */
export async function lookForMove(
  kind: 'resize' | 'migrate',
  job: MoveJob,
  settings: Settings,
): Promise<FoundMove | undefined> {
  const { instances, libvirt_uri: uri } = settings
  const { name, to } = job
  const moved = movedAt(instances, name)
  const old = moved.kept ?? moved.here
  const probe = probeOf(`${moved.directory}/instance.json`)
  if (!old || !probe)
    return refuse(
      'INSTANCE_NOT_FOUND',
      `Cannot ${kind} "${name}": "${instances}" has none of this name`,
      'cowhand list',
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
    misuse(`Cannot make a swap disk of ${job.swap} bytes: it is not a whole number of MiB`, 'ask for --swap 512M')
  if (job.swap !== undefined && old.swap === undefined)
    refuse('UNSUPPORTED', `Cannot ${kind} "${name}" with --swap: it has no swap disk`, 'leave --swap out')
  const isSame = sizes.root === old.root && sizes.ephemeral === old.ephemeral && sizes.swap === old.swap
  if (moved.task) requireSameTask(kind, name, moved.task, { kind, host: to, ...sizes })
  if (moved.task?.phase === 'done' || (!moved.task && to === undefined && isSame)) return undefined

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
    since: new Date().toISOString(),
    run: domain !== undefined && domain.facts.state !== 'shut off' && domain.facts.state !== 'crashed',
    autostart: domain?.autostart ?? false,
    ...defined(sizes),
  }
  if (!domain) await requireQuiet(kind, name, moved.directory)
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
  const ask = () => (to === undefined ? answerHere(offer, settings) : answerOf(to, offer, settings))
  let answer = await ask()
  // The other host could not tell whether its bases are ours: then both read them.
  if (lacksContent(offer, answer)) {
    offer.disks = await offeredDisks(moved.directory, settings, { measure: 'all' })
    answer = await ask()
  }
  if (answer.shared) task.shared = true
  const ways = waysOf(offer, answer, {
    flatten: job.flatten,
    ephemeralPolicy: job['ephemeral-policy'],
    ...defined(sizes),
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
  return { moved, task, order, answer, uuid: old.uuid, isSame: isSame && !job.flatten }
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
function requireSameTask(
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
  if (task.phase === 'reverting')
    refuse(
      'MOVE_UNFINISHED',
      `Cannot ${kind} "${name}": going back from its ${task.kind} of ${task.since} was begun and not finished`,
      `finish that: cowhand revert ${name}`,
    )
  const keys = ['host', 'root', 'ephemeral', 'swap'] as const
  if (task.kind === wanted.kind && keys.every((key) => task[key] === wanted[key])) return
  const target = [`root ${exactSize(task.root)}`, ...(task.host === undefined ? [] : [`on ${task.host}`])].join(' ')
  refuse(
    'MOVE_UNFINISHED',
    task.phase === 'done'
      ? `Cannot ${kind} "${name}": its ${task.kind} of ${task.since} (${target}) is neither confirmed nor reverted`
      : `Cannot ${kind} "${name}": another ${task.kind} of it, begun ${task.since} (${target}), is not finished`,
    task.phase === 'done'
      ? `cowhand confirm ${name}, or go back: cowhand revert ${name}`
      : `run that command again, or go back: cowhand revert ${name}`,
  )
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

const boot = (): string => (textAt('/proc/sys/kernel/random/boot_id') ?? '').trim()

/** This very host has what it has. */
function answerHere(offer: Offer, { instances, libvirt_uri: uri }: Settings): Answer {
  const bases = offer.disks.flatMap(({ base }) => {
    if (!base) return []
    const { unsized } = base
    const short = unsized?.identity ? [{ name: unsized.name, is: 'equal' as const }] : []
    return [{ name: base.name, is: 'equal' as const, size: base.size }, ...short]
  })
  return {
    version: 1,
    host: offer.host,
    boot: boot(),
    instances,
    shared: false,
    libvirt: uri !== undefined,
    instance: 'absent',
    running: false,
    proven: [],
    free: freeSpace(instances),
    bases,
  }
}

async function answerOf(host: string, offer: Offer, settings: Settings): Promise<Answer> {
  const { destinationAt } = await import('../../lib/host/destination.ts')
  const { answer } = await (await destinationAt(host, settings)).ask('look', offer)
  if (!answer) throw new TypeError(`${host} gave no answer`)
  if (answer.host === offer.host && answer.boot === boot())
    refuse('UNSUPPORTED', `Cannot move "${offer.name}" to "${host}": that is this very host`, 'leave --to out')
  if (answer.shared && answer.instances !== offer.instances)
    refuse(
      'UNSUPPORTED',
      `Cannot move "${offer.name}" to "${host}": both see the same files, there at "${answer.instances}"`,
      `mount them at "${offer.instances}" there as well`,
    )
  return answer
}
