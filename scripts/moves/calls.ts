import { sentIn } from '../../lib/host/asking.ts'
import * as layout from '../../lib/job/layout.ts'
import type { Order } from '../../lib/job/move.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { sayWay, totals } from '../../lib/job/ways.ts'
import { askDestination } from '../steps/ask-destination.ts'
import { clearSent } from '../steps/clear-sent.ts'
import { collectState } from '../steps/collect-state.ts'
import { copyFiles } from '../steps/copy-files.ts'
import { prepareCopy } from '../steps/prepare-copy.ts'
import { probeDaemon } from '../steps/probe-daemon.ts'
import { pushBase } from '../steps/push-base.ts'
import { pushFiles } from '../steps/push-files.ts'
import { recordTask } from '../steps/record-task.ts'
import { setAsideInstance } from '../steps/set-aside-instance.ts'
import { shutdownDomain } from '../steps/shutdown-domain.ts'
import { undefineDomain } from '../steps/undefine-domain.ts'
import { arriveCalls, baseFile, prepareCalls, runOrder } from './arrive.ts'
import type { MoveJob } from './flags.ts'
import type { FoundMove, SoAlready } from './look.ts'

// A resize and a migration are one thing: the instance arrives somewhere, here or on another host, with sizes that may
// be larger, and its old self is kept until that is confirmed or reverted.

/** The steps, in an order in which every moment on the way is one from which it can go on, or back. */
export function moveCalls(job: MoveJob, found: FoundMove | SoAlready, settings: Settings): Call[] {
  if ('because' in found) return []
  const { host } = found.task
  if (host === undefined) return callsHere(job, found, settings)
  return callsTo(host, job, found, settings)
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
    call(recordTask, { directory: kept, 'in-hand': { ...task, phase: 'handed-over' } }),
    ...arriveCalls(order, settings, { isHere: true, hasArrived }),
  ]
}

function callsHere(job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { task, order, moved } = found
  const kept = layout.keptOf(settings.instances, job.name)
  return [
    call(recordTask, { directory: moved.directory, 'in-hand': task }),
    ...putTogether(job, found, settings),
    ...runOrder(order, settings),
    call(clearSent, { directory: kept, state: false }),
    call(recordTask, { directory: kept, 'in-hand': { ...task, phase: 'done' } }),
  ]
}

/** The instance's directory on the source, once its guest is off. */
const asideOf = ({ name }: MoveJob, { isSame, answer }: FoundMove, { instances }: Settings): string =>
  answer.shared && isSame ? layout.instanceOf(instances, name) : layout.keptOf(instances, name)

/** Both hosts see the same files: what changes is where the guest runs, and nothing is copied but for larger disks. */
function shareCalls(job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { task, isSame, order, uuid } = found
  const { libvirt_uri: uri } = settings
  const directory = asideOf(job, found, settings)
  return [
    ...(isSame ? switchOff(job, found, settings, directory) : putTogether(job, found, settings)),
    // Before it may run there, for the disks are the same: this host must not start it by itself when it comes up again.
    ...(uri === undefined || !order.domain ? [] : [call(undefineDomain, { uri, name: job.name, uuid })]),
    call(recordTask, { directory, 'in-hand': { ...task, phase: 'handed-over' } }),
  ]
}

/** How what is sent gets there. */
const wayTo = (host: string, { name, transport, bwlimit }: MoveJob, { answer }: FoundMove, settings: Settings) => ({
  host,
  to: layout.arrivingOf(layout.stageOf(answer.instances, name)),
  transport: transport ?? settings.transport,
  rsyncd: answer.rsyncd,
  bwlimit,
})

/** Where it is written down what was sent. */
const sentOf = ({ instances }: Settings, name: string): string => `${layout.keptOf(instances, name)}/sent.json`

/** Bases that the other host has not, and can have from nowhere else: while the guest still runs. */
export function sendBases(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { order, answer } = found
  if (answer.shared || answer.instance === 'arrived') return []
  return order.ways.flatMap(({ base }) => {
    if (base?.from !== 'source') return []
    const path = `${layout.basesOf(settings.instances)}/${base.sends ?? base.name}`
    return [call(pushBase, { ...wayTo(host, job, found, settings), base: path, file: baseFile(base.name) })]
  })
}

/** Which directory a daemon writes to is known only once it has written: while the guest still runs. */
function probe(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { moved, answer } = found
  const { transport, to, rsyncd } = wayTo(host, job, found, settings)
  if (transport !== 'rsyncd' || answer.instance === 'arrived' || (moved.task && moved.task.phase !== 'begun')) return []
  return [call(probeDaemon, { host, to, rsyncd, file: `${moved.directory}/instance.json` })]
}

/** The guest is switched off, and what travels is sent. */
export function sendCalls(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { instances } = settings
  const { task, order, answer } = found
  if (answer.shared) return shareCalls(job, found, settings)
  const [directory, kept] = [layout.instanceOf(instances, job.name), layout.keptOf(instances, job.name)]
  const files = travels(order).filter(({ file }) => !answer.proven.includes(file))
  return [
    ...probe(host, job, found, settings),
    ...setAside(job, found, settings),
    ...(answer.instance === 'arrived'
      ? []
      : [
          call(pushFiles, {
            ...wayTo(host, job, found, settings),
            directory: kept,
            before: directory,
            disks: files.map(({ file }) => file),
            sends: files.map(({ send }) => send),
            record: sentOf(settings, job.name),
          }),
        ]),
    // From here on it may run there, whatever we hear: nothing starts it here before the other host says that it is off.
    call(recordTask, { directory: kept, 'in-hand': { ...task, phase: 'handed-over' } }),
  ]
}

type Fenced = Pick<FoundMove, 'task' | 'uuid'>

/** It was seen there: this host cannot start it any more. @param directory of the instance, which is off */
export function fenceCalls(name: string, { task, uuid }: Fenced, settings: Settings, directory: string): Call[] {
  const { instances, libvirt_uri: uri } = settings
  const isAside = directory !== layout.instanceOf(instances, name)
  return [
    ...(uri === undefined ? [] : [call(undefineDomain, { uri, name, uuid })]),
    // Where it has its own name still, both hosts have these files, and nothing was made to be sent.
    ...(isAside ? [call(clearSent, { directory, state: false })] : []),
    call(recordTask, { directory, 'in-hand': { ...task, phase: 'done' } }),
  ]
}

/** The document that the other host starts the guest by. */
export function handOverOf({ name }: MoveJob, { order }: FoundMove, settings: Settings): Order {
  const sent = sentIn(sentOf(settings, name))
  return { ...order, ...(sent ? { sent } : {}) }
}

function callsTo(host: string, job: MoveJob, found: FoundMove, settings: Settings): Call[] {
  const { task, order, answer } = found
  const bases = sendBases(host, job, found, settings)
  const prepare = (round: number) => call(askDestination, { host, phase: 'prepare', document: order, round })
  const record = answer.shared ? {} : { record: sentOf(settings, job.name) }
  return [
    // First: what the other host makes ready is found again by it, and undone.
    call(recordTask, { directory: found.moved.directory, 'in-hand': task }),
    ...(answer.shared || answer.instance === 'arrived' ? [] : [prepare(1)]),
    ...bases,
    ...(bases.length > 0 ? [prepare(2)] : []),
    ...sendCalls(host, job, found, settings),
    call(askDestination, { host, phase: 'finish', document: order, ...record, round: 1 }),
    ...fenceCalls(job.name, found, settings, asideOf(job, found, settings)),
  ]
}

/** Why each disk goes the way it goes, and what that costs. */
export function moveReasons(found: FoundMove | SoAlready): string[] {
  if ('because' in found) return [found.because]
  const { task, order, answer, isSame, travel } = found
  const { host } = task
  const isHere = host === undefined || answer.shared
  const isThere = ({ file }: { file: string }) => !isHere && answer.proven.includes(file)
  const ways = order.ways.map((disk) => {
    const words = isThere(disk) ? 'has arrived there, and is proven' : sayWay(disk, order, isHere)
    return `${disk.file}: ${words}`
  })
  if (host === undefined) return ways
  if (answer.shared) return [...(isSame ? [] : ways), `${host}: it sees the same files, so nothing travels`]
  if (answer.instance === 'arrived') return [`${host}: it has arrived there`]
  const sum = totals({ ways: order.ways.filter((disk) => !isThere(disk)) }, travel?.rate)
  return [...ways, `${host}: ${sum.words(answer.free)}`, ...(travel ? [`${host}: ${travel.words}`] : [])]
}
