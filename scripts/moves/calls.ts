import * as layout from '../../lib/job/layout.ts'
import type { Order } from '../../lib/job/move.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { totals } from '../../lib/job/ways.ts'
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
import { arriveCalls, baseFile, prepareCalls, runOrder } from './arrive.ts'
import type { MoveJob } from './flags.ts'
import type { FoundMove } from './look.ts'

// A resize and a migration are one thing: the instance arrives somewhere, here or on another host, with sizes that may
// be larger, and its old self is kept until that is confirmed or reverted.

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
