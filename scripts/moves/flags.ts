import * as z from 'zod/mini'
import { Transport } from '../../lib/job/move.ts'
import {
  Bytes,
  Duration,
  described,
  HostName,
  InstanceName,
  InstanceNames,
  optional,
  Rate,
  withDefault,
} from '../../lib/job/spec.ts'

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
/** Several instances that go to one host. */
export const several = {
  name: described(InstanceNames, 'name of the instance; several go one after the other, or at once with --parallel'),
  parallel: withDefault(z.int().check(z.positive('is not more than 0')), 1, 'how many of them are moved at once'),
}

/** A job for each of them; what they may send is shared out. */
export function eachOf<J extends { name: string[]; parallel: number; bwlimit?: number | undefined }>(job: J): J[] {
  const atOnce = Math.min(job.parallel, job.name.length)
  const share = job.bwlimit === undefined ? {} : { bwlimit: Math.floor(job.bwlimit / atOnce) }
  return job.name.map((name) => ({ ...job, ...share, name: [name] }))
}

/** The job of one instance, once they are told apart. */
export const one = <J extends { name: string[] }>({ name: [name = ''], ...job }: J) => ({ ...job, name })
export const hostOf = described(HostName, 'host that it is to go to')

const Job = z.strictObject({ name: nameOf, to: optional(hostOf, 'host'), ...sizeFlags, ...moveFlags })
export type MoveJob = z.output<typeof Job>
