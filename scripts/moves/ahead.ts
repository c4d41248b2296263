import { freeSpace } from '../../lib/host/files.ts'
import { interrupt } from '../../lib/host/interrupt.ts'
import * as layout from '../../lib/job/layout.ts'
import type { Order } from '../../lib/job/move.ts'
import { refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { formatSize } from '../../lib/job/spec.ts'
import type { FoundMove } from './look.ts'

// What the source itself can tell would stop a move half-way: refused while the guest still runs (BEHAVIOUR.md S37).

type Found = Pick<FoundMove, 'moved' | 'task' | 'order' | 'answer' | 'isSame'>

/**
 * @throws {Problem} NO_SPACE, UNSUPPORTED; as requireStartable, where the guest could not be started here again after a
 *   failure; as push, where nothing can be sent
 */
export async function requireWay(found: Found, transport: 'ssh' | 'rsyncd', settings: Settings): Promise<void> {
  const { moved, task, order, answer } = found
  // Later the guest is off, and what is to be copied is copied.
  if (moved.task && moved.task.phase !== 'begun') return
  requireRoomForCopies(order, settings.instances)
  if (!order.shared) await requireRoomForNames(order, moved.directory, answer.instances)
  if (task.run) await requireReturn(found, settings)
  await requireOpenWay(found, transport, settings)
}

/** Disks that are merged, or put on another base, before they travel: that is done to copies. */
function requireRoomForCopies({ name, kind, ways }: Order, instances: string): void {
  const copies = ways.filter(({ way, rebaseFirst }) => way === 'flat' || rebaseFirst !== undefined)
  const space = copies.reduce((sum, { send }) => sum + send, 0)
  const free = freeSpace(instances)
  if (space <= free) return
  refuse(
    'NO_SPACE',
    `Cannot ${kind} "${name}": copies of its disks have to be made here, of at most ${formatSize(space)}, and only ${formatSize(free)} are free under "${instances}"`,
    `free at least ${formatSize(space - free)} here: cowhand cache clean`,
  )
}

/** The name of its base on the other host has to fit into the header of a disk. */
async function requireRoomForNames({ ways }: Order, directory: string, there: string): Promise<void> {
  const { requireRoomForName } = await import('../../lib/host/chain.ts')
  for (const { way, file, base } of ways)
    if (way === 'delta' && base) requireRoomForName(`${directory}/${file}`, `${layout.basesOf(there)}/${base.name}`)
}

/** After a failure its guest runs here again: whatever it was started with may be gone since. */
async function requireReturn({ task, order, isSame }: Found, settings: Settings): Promise<void> {
  const { libvirt_uri: uri, instances } = settings
  const { name, kind, xml, domain, shared } = order
  if (uri === undefined || !domain || xml === undefined) return
  const { requireStartable } = await import('../../lib/host/startable.ts')
  await requireStartable(xml, {
    uri,
    name,
    verb: `${kind} "${name}", which could not be started here again`,
    directory: layout.instanceOf(instances, name),
    isRenewed: task.host === undefined || (shared && !isSame),
    runsHere: true,
    isNew: false,
  })
}

/** Hosts that took a push in this run. */
const open = new Set<string>()

/** What the disks travel by lets us in. */
async function requireOpenWay(
  { moved, task: { host }, order, answer }: Found,
  transport: 'ssh' | 'rsyncd',
  settings: Settings,
): Promise<void> {
  if (host === undefined || order.shared || answer.instance === 'arrived') return
  const key = `${transport} ${host}`
  if (open.has(key)) return
  const [{ tryPush }, { destinationAt }] = await Promise.all([
    import('../../lib/host/rsync.ts'),
    import('../../lib/host/destination.ts'),
  ])
  // A daemon is reached without: where others drive both hosts, this one may have no way in there by ssh.
  const ssh = transport === 'ssh' ? (await destinationAt(host, settings)).ssh : []
  const to = layout.arrivingOf(layout.stageOf(answer.instances, order.name))
  const { signal } = interrupt
  await tryPush({ host, transport, to, rsyncd: answer.rsyncd }, `${moved.directory}/instance.json`, {
    settings,
    signal,
    ssh,
  })
  open.add(key)
}
