import { requireInstance, sayTask } from '../../lib/host/instances.ts'
import { movedAt } from '../../lib/host/moves.ts'
import * as layout from '../../lib/job/layout.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { exactSize } from '../../lib/job/spec.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { blockresizeDisk } from '../steps/blockresize-disk.ts'
import { recordSizes } from '../steps/record-sizes.ts'
import type { MoveJob } from './flags.ts'

// Disks of a running guest are grown where they are: it stays on, nothing is copied, and so nothing is kept to go back to.

export interface FoundLive {
  uri: string
  uuid: string
  /** Disks to be grown, with the sizes that are written down and that they are to have, bytes. */
  disks: { file: 'disk' | 'disk.local'; was: number; size: number }[]
}

/**
 * @throws {Problem} BAD_SPEC for a flag that has no meaning here; UNSUPPORTED, DISK_TOO_SMALL, INSTANCE_NOT_FOUND;
 *   MOVE_UNFINISHED
 */
export function lookForLive(job: MoveJob, { instances, libvirt_uri: uri }: Settings): FoundLive {
  const { name, root, ephemeral } = job
  for (const flag of ['to', 'swap', 'flatten', 'transport', 'bwlimit'] as const)
    if (job[flag])
      misuse(
        `Cannot use --${flag} with --mode live: a running guest keeps its disks where they are`,
        `leave it out, or let the guest be switched off meanwhile: --mode cold`,
      )
  const { task } = movedAt(instances, name)
  if (task) {
    const { state, remedy } = sayTask(name, task)
    refuse('MOVE_UNFINISHED', `Cannot resize "${name}": ${state}`, remedy)
  }
  const record = requireInstance(instances, name)
  const cold = `grow it with its guest off: cowhand resize ${name} --mode cold`
  if (ephemeral !== undefined && record.ephemeral === undefined)
    refuse('UNSUPPORTED', `Cannot resize "${name}" with --ephemeral: it has no ephemeral disk`, 'leave --ephemeral out')
  const asked = [
    { file: 'disk', flag: '--root', was: record.root, size: root },
    { file: 'disk.local', flag: '--ephemeral', was: record.ephemeral ?? 0, size: ephemeral },
  ] as const
  const disks = asked.flatMap(({ file, flag, was, size = was }) => {
    if (size < was)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot resize "${name}" to ${flag} ${exactSize(size)}: it has ${exactSize(was)} already`,
        `ask for at least that: ${flag} ${exactSize(was)}`,
      )
    return size > was ? [{ file, was, size }] : []
  })
  if (uri === undefined && disks.length > 0)
    refuse('UNSUPPORTED', `Cannot resize "${name}" while it runs: no libvirt is configured that could do it`, cold)
  return { uri: uri ?? '', uuid: record.uuid, disks }
}

/** What is written down follows what is so: killed in between, the same command again writes it down. */
export function liveCalls({ name, root, ephemeral }: MoveJob, found: FoundLive, { instances }: Settings): Call[] {
  const { uri, uuid, disks } = found
  const directory = layout.instanceOf(instances, name)
  if (disks.length === 0) return []
  return [
    ...disks.map(({ file, size }) => call(blockresizeDisk, { uri, name, uuid, disk: `${directory}/${file}`, size })),
    call(recordSizes, { directory, root, ephemeral }),
  ]
}

export function liveReasons({ name }: MoveJob, { disks }: FoundLive): string[] {
  if (disks.length === 0) return [`${name} has these sizes already`]
  return disks.map(
    ({ file, was, size }) =>
      `${file}: ${exactSize(was)} becomes ${exactSize(size)} under the running guest, which has to grow what is on it; there is no way back`,
  )
}
