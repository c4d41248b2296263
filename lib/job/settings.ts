import * as z from 'zod/mini'
import { AbsolutePath, Bytes, NonEmpty, optional, withDefault } from './spec.ts'

/** Where images come from: a directory, or the Image API of a cloud; its endpoint, where the catalog is not asked. */
export type Store = { kind: 'dir'; directory: string } | { kind: 'glance'; endpoint?: string }

/** @returns undefined where it is none */
function parseStore(text: string): Store | undefined {
  const [, kind, where] = /^(dir|glance)(?::(.*))?$/s.exec(text) ?? []
  if (kind === 'dir') {
    const path = AbsolutePath.safeParse(where)
    return path.success ? { kind, directory: path.data } : undefined
  }
  if (kind !== 'glance') return undefined
  if (where === undefined) return { kind }
  const url = URL.canParse(where) ? new URL(where) : undefined
  // A password in it could be read by every process on the host, and would be in every message.
  const isPlain = url && /^https?:$/.test(url.protocol) && !url.username && !url.password && !url.search && !url.hash
  return isPlain ? { kind, endpoint: url.href } : undefined
}

const Store = z.string().check(
  z.refine((store) => parseStore(store) !== undefined, 'is not dir:/PATH, glance, or glance:URL without a password'),
  z.overwrite((store) => {
    const parsed = parseStore(store)
    return parsed?.kind === 'dir' ? `dir:${parsed.directory}` : store
  }),
)

/**
 * What holds for every job on a host: the keys of /etc/cowhand/cowhand.yaml, each also a flag where it is marked so.
 */
export const Settings = z.strictObject({
  instances: withDefault(AbsolutePath, '/var/lib/cowhand/instances', 'directory of the instances and of _base'),
  store: withDefault(Store, 'dir:/var/lib/cowhand/images', 'where images come from'),
  os_cloud: optional(NonEmpty, 'cloud of clouds.yaml whose Glance is the store'),
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

/** The store that the settings name, taken apart. */
export function storeOf({ store }: Pick<Settings, 'store'>): Store {
  const parsed = parseStore(store)
  if (!parsed) throw new TypeError(`not a checked store: ${store}`)
  return parsed
}
