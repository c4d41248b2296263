import { z } from 'zod'
import { AbsolutePath, Bytes } from './spec.ts'

/**
 * What holds for every job on a host: the keys of /etc/cowhand/cowhand.yaml, each also a flag where it is marked so.
 */
export const Settings = z.strictObject({
  instances: AbsolutePath.default('/var/lib/cowhand/instances').describe('directory of the instances and of _base'),
  store: z
    .string()
    .refine((store) => /^dir:/.test(store) && AbsolutePath.safeParse(store.slice(4)).success, 'is not dir:/PATH')
    .overwrite((store) => `dir:${AbsolutePath.safeParse(store.slice(4)).data}`)
    .default('dir:/var/lib/cowhand/images')
    .describe('where images come from'),
  libvirt_uri: z.string().optional().describe('libvirt that runs the guests, such as qemu:///system'),
  virt_type: z.enum(['kvm', 'qemu']).default('kvm').describe('kind of domain: kvm, or qemu where there is no KVM'),
  base_layout: z
    .enum(['overlay', 'sized'])
    .default('overlay')
    .describe('overlay: disks stand on the base itself; sized: on a copy of it in the size of the disk'),
  image_ceiling: Bytes.prefault('8T').describe('largest virtual size of an image'),
  snapshot_optimization: z.boolean().default(true).describe('allow the optimised way for snapshots'),
})
export type Settings = z.output<typeof Settings>
