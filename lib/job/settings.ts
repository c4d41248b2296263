import * as z from 'zod/mini'
import { AbsolutePath, Bytes, optional, withDefault } from './spec.ts'

const Store = z.string().check(
  z.refine((store) => /^dir:/.test(store) && AbsolutePath.safeParse(store.slice(4)).success, 'is not dir:/PATH'),
  z.overwrite((store) => `dir:${AbsolutePath.safeParse(store.slice(4)).data}`),
)

/**
 * What holds for every job on a host: the keys of /etc/cowhand/cowhand.yaml, each also a flag where it is marked so.
 */
export const Settings = z.strictObject({
  instances: withDefault(AbsolutePath, '/var/lib/cowhand/instances', 'directory of the instances and of _base'),
  store: withDefault(Store, 'dir:/var/lib/cowhand/images', 'where images come from'),
  libvirt_uri: optional(z.string(), 'libvirt that runs the guests, such as qemu:///system'),
  virt_type: withDefault(z.enum(['kvm', 'qemu']), 'kvm', 'kind of domain: kvm, or qemu where there is no KVM'),
  base_layout: withDefault(
    z.enum(['overlay', 'sized']),
    'overlay',
    'overlay: disks stand on the base itself; sized: on a copy of it in the size of the disk',
  ),
  image_ceiling: withDefault(Bytes, '8T', 'largest virtual size of an image'),
  snapshot_optimization: withDefault(z.boolean(), true, 'allow the optimised way for snapshots'),
})
export type Settings = z.output<typeof Settings>
