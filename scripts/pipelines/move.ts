import { hostname } from 'node:os'
import * as z from 'zod/mini'
import { fileAt, freeSpace, probeOf, textAt } from '../../lib/host/files.ts'
import { type Moved, movedAt } from '../../lib/host/moves.ts'
import { travelling } from '../../lib/host/travelling.ts'
import type { Task } from '../../lib/job/instance.ts'
import * as layout from '../../lib/job/layout.ts'
import { type Answer, type Offer, type Order, type OrderedDisk, Transport } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import {
  Bytes,
  Duration,
  described,
  exactSize,
  formatSize,
  HostName,
  InstanceName,
  optional,
  Rate,
  withDefault,
} from '../../lib/job/spec.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { lacksContent, totals, waysOf } from '../../lib/job/ways.ts'
import { arriveCalls, baseFile, prepareCalls, runOrder } from '../arrival.ts'
import { askDestination } from '../steps/ask-destination.ts'
import { clearSent } from '../steps/clear-sent.ts'
import { collectState } from '../steps/collect-state.ts'
import { copyFiles } from '../steps/copy-files.ts'
import { prepareCopy } from '../steps/prepare-copy.ts'
import { pushBase } from '../steps/push-base.ts'
import { pushFiles } from '../steps/push-files.ts'
import { recordTask } from '../steps/record-task.ts'
import { setAsideInstance } from '../steps/set-aside-instance.ts'
import { shutdownDomain } from '../steps/shutdown-domain.ts'
import { undefineDomain } from '../steps/undefine-domain.ts'

// A resize and a migration are one thing: the instance arrives somewhere, here or on another host, with sizes that may
// be larger, and its old self is kept until that is confirmed or reverted.

/** What `resize` and `migrate` have in common. */
export const moveFlags = {
  transport: optional(Transport, 'how the bytes travel: ssh, or rsyncd [as configured, ssh]'),
  flatten: withDefault(z.boolean(), false, 'merge each disk with its base, and send the whole'),
  bwlimit: optional(Rate, 'bytes per second to send at most, such as 50M'),
  'ephemeral-policy': withDefault(
    z.enum(['copy', 'recreate', 'refuse']),
    'copy',
    'what becomes of the ephemeral disk: copy, recreate (empty), or refuse the move',
  ),
  'grow-fs': withDefault(
    z.enum(['auto', 'never']),
    'auto',
    'grow a file system that fills a disk without partitions: auto or never',
  ),
  'shutdown-timeout': withDefault(Duration, '60s', 'how long the guest may take to switch itself off; 0: at once'),
  'start-timeout': withDefault(Duration, '60s', 'how long until the guest has to be seen running'),
}
export const sizeFlags = {
  root: optional(Bytes, 'size that the root disk is to have'),
  ephemeral: optional(Bytes, 'size that the ephemeral disk is to have'),
  swap: optional(Bytes, 'size of the swap disk, whole MiB; it is made anew'),
}
export const nameOf = described(InstanceName, 'name of the instance')
export const hostOf = described(HostName, 'host that it is to go to')

const Job = z.strictObject({ name: nameOf, to: optional(hostOf, 'host'), ...sizeFlags, ...moveFlags })
export type MoveJob = z.output<typeof Job>

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
  const { task: _, arrived: __, ...record } = old
  // Of a guest that was handed over this host has the definition in a file.
  const definition = textAt(`${moved.directory}/definition.xml`)
  const xml = definition ?? domain?.xml ?? textAt(`${moved.directory}/libvirt.xml`)
  const offer: Offer = {
    version: 1,
    move: task.move,
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
  requireRoom(to, ways, answer)
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
  const isThere = answer.shared || answer.instance === 'arrived' || host === undefined
  const { space } = totals({ ways: ways.filter(({ file }) => !answer.proven.includes(file)) })
  if (isThere || space <= answer.free) return
  refuse(
    'NO_SPACE',
    `Cannot send ${formatSize(space)} to "${host}": only ${formatSize(answer.free)} are free there under "${answer.instances}"`,
    `free at least ${formatSize(space - answer.free)} there: cowhand cache clean; or choose another host`,
  )
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

/** The steps, in an order in which every moment on the way is one from which it can go on, or back. */
export function moveCalls(job: MoveJob, found: FoundMove | undefined, settings: Settings): Call[] {
  if (!found) return []
  const { host } = found.task
  if (host === undefined) return callsHere(job, found, settings)
  return found.answer.shared ? callsOnShared(host, job, found, settings) : callsTo(host, job, found, settings)
}

/** The guest is off, and what libvirt keeps of it is beside its disks. @param aside the name that these get */
function switchOff(job: MoveJob, { uuid, order }: FoundMove, settings: Settings, aside: string): Call[] {
  const { instances, libvirt_uri: uri } = settings
  const { name } = job
  const directory = layout.instanceOf(instances, name)
  const domain = uri === undefined || !order.domain ? undefined : { uri, name, uuid }
  return [
    ...(domain ? [call(shutdownDomain, { ...domain, 'shutdown-timeout': job['shutdown-timeout'] })] : []),
    ...(aside === directory ? [] : [call(setAsideInstance, { directory, aside })]),
    ...(domain ? [call(collectState, { ...domain, directory: aside })] : []),
  ]
}

/** What the source does before anything is copied: the guest is off, and its files have another name. */
function setAside(job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { moved, order } = found
  const kept = layout.keptOf(settings.instances, job.name)
  if (moved.task && moved.task.phase !== 'begun') return []
  return [
    ...switchOff(job, found, settings, kept),
    ...order.ways
      .filter(({ way, rebaseFirst }) => way === 'flat' || rebaseFirst !== undefined)
      .map(({ file, rebaseFirst }) =>
        call(prepareCopy, {
          directory: kept,
          file,
          ...(rebaseFirst === undefined ? {} : { 'rebase-first': rebaseFirst }),
        }),
      ),
  ]
}

const travels = ({ ways }: Order) => ways.filter(({ way }) => way !== 'new')

/** The instance is put together on this host. */
function putTogether(job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { instances } = settings
  const { task, order } = found
  const [directory, kept] = [layout.instanceOf(instances, job.name), layout.keptOf(instances, job.name)]
  const stage = layout.stageOf(instances, job.name)
  const hasArrived = found.moved.kept !== undefined && found.moved.here !== undefined
  return [
    ...(hasArrived ? [] : prepareCalls(order, settings, true)),
    ...setAside(job, found, settings),
    ...(hasArrived
      ? []
      : [
          call(copyFiles, {
            directory: kept,
            before: directory,
            disks: travels(order).map(({ file }) => file),
            to: layout.arrivingOf(stage),
          }),
        ]),
    call(recordTask, { directory: kept, task: { ...task, phase: 'handed-over' } }),
    ...arriveCalls(order, settings, { isHere: true, hasArrived }),
  ]
}

function callsHere(job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { task, order, moved } = found
  const kept = layout.keptOf(settings.instances, job.name)
  return [
    call(recordTask, { directory: moved.directory, task }),
    ...putTogether(job, found, settings),
    ...runOrder(order, settings),
    call(clearSent, { directory: kept, state: false }),
    call(recordTask, { directory: kept, task: { ...task, phase: 'done' } }),
  ]
}

/** Both hosts see the same files: what changes is where the guest runs, and nothing is copied but for larger disks. */
function callsOnShared(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { instances, libvirt_uri: uri } = settings
  const { task, order, moved, uuid, isSame } = found
  const { name } = job
  const directory = isSame ? layout.instanceOf(instances, name) : layout.keptOf(instances, name)
  const domain = uri === undefined || !order.domain ? undefined : { uri, name, uuid }
  return [
    call(recordTask, { directory: moved.directory, task }),
    ...(isSame ? switchOff(job, found, settings, directory) : putTogether(job, found, settings)),
    call(recordTask, { directory, task: { ...task, phase: 'handed-over' } }),
    call(askDestination, { host, phase: 'finish', document: order, round: 1 }),
    ...(domain ? [call(undefineDomain, domain)] : []),
    ...(isSame ? [] : [call(clearSent, { directory, state: false })]),
    call(recordTask, { directory, task: { ...task, phase: 'done' } }),
  ]
}

function callsTo(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { instances, libvirt_uri: uri } = settings
  const { task, order, answer, uuid } = found
  const { name } = job
  const [directory, kept] = [layout.instanceOf(instances, name), layout.keptOf(instances, name)]
  const to = layout.arrivingOf(layout.stageOf(answer.instances, name))
  const record = `${kept}/sent.json`
  const way = {
    host,
    to,
    transport: job.transport ?? settings.transport,
    rsyncd: answer.rsyncd,
    bwlimit: job.bwlimit,
  }
  const bases = order.ways.flatMap(({ base }) => (base?.from === 'source' ? [base] : []))
  const isThere = answer.instance === 'arrived'
  const files = travels(order).filter(({ file }) => !answer.proven.includes(file))
  return [
    // First: what the other host makes ready is found again by it, and undone.
    call(recordTask, { directory: found.moved.directory, task }),
    ...(isThere
      ? []
      : [
          call(askDestination, { host, phase: 'prepare', document: order, round: 1 }),
          ...bases.map(({ name: base, sends }) =>
            call(pushBase, { ...way, base: `${layout.basesOf(instances)}/${sends ?? base}`, file: baseFile(base) }),
          ),
          ...(bases.length > 0 ? [call(askDestination, { host, phase: 'prepare', document: order, round: 2 })] : []),
        ]),
    ...setAside(job, found, settings),
    ...(isThere
      ? []
      : [
          call(pushFiles, {
            ...way,
            directory: kept,
            before: directory,
            disks: files.map(({ file }) => file),
            sends: files.map(({ send }) => send),
            record,
          }),
        ]),
    // From here on it may run there, whatever we hear: nothing starts it here before the other host says that it is off.
    call(recordTask, { directory: kept, task: { ...task, phase: 'handed-over' } }),
    call(askDestination, { host, phase: 'finish', document: order, record, round: 1 }),
    ...(uri === undefined || !order.domain ? [] : [call(undefineDomain, { uri, name, uuid })]),
    call(clearSent, { directory: kept, state: false }),
    call(recordTask, { directory: kept, task: { ...task, phase: 'done' } }),
  ]
}

/** Why each disk goes the way it goes, and what that costs. */
export function moveReasons(job: MoveJob, found: FoundMove | undefined): string[] {
  if (!found) return [`${job.name} is so already`]
  const { order, answer } = found
  const sum = totals(order)
  return [
    ...order.ways.map(({ file, reason }) => `${file}: ${reason}`),
    ...(found.task.host === undefined ? [] : [`${found.task.host}: ${sum.words(answer.free)}`]),
  ]
}
