import * as z from 'zod/mini'
import { AbsolutePath, Bytes, NonEmpty, optional, Port, withDefault } from './spec.ts'

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

/** No path, option or address can be made of it. */
const PlainName = z
  .string()
  .check(z.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$/, 'may have only letters, digits, ".", "_" and "-"'))

/** Words that mean themselves to every shell, with one blank between them: ssh joins them for the shell over there. */
const plainWords = /^[A-Za-z0-9_/][A-Za-z0-9_/.,:=+@-]*( [A-Za-z0-9_/.,:=+@-]+)*$/

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
  ssh_user: optional(
    z.string().check(z.regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,31}$/, 'is no name of a user')),
    'user on the other host, where it is not as ssh has it',
  ),
  ssh_port: optional(Port, 'port of sshd on the other host, where it is not as ssh has it'),
  ssh_identity: optional(
    // rsync takes ssh's command as one text, and splits it at blanks.
    AbsolutePath.check(z.regex(/^[^\s'"\\]*$/, 'has a blank, a quote or a backslash')),
    'private key for the other host; no other one is tried then',
  ),
  remote_cowhand: withDefault(
    z.string().check(z.regex(plainWords, 'is not a command of plain words, such as: sudo -n cowhand')),
    'cowhand',
    'how cowhand is started on the other host',
  ),
  transport: withDefault(z.enum(['ssh', 'rsyncd']), 'ssh', 'how disks travel: rsync over ssh, or to its daemon'),
  compress: withDefault(
    z.enum(['auto', 'zstd', 'none']),
    'auto',
    'what travels is compressed: always, never, or by what it is and how fast the link is',
  ),
  rsyncd_port: withDefault(Port, 873, 'port of the rsync daemon that receives on this host'),
  rsyncd_module: withDefault(PlainName, 'cowhand', 'module of that daemon: its path is that of the instances'),
  rsyncd_user: optional(PlainName, 'user of that module [cowhand]'),
  rsyncd_secrets: optional(AbsolutePath, 'file of lines USER:PASSWORD: what its daemon knows, and what a push tells'),
})
export type Settings = z.output<typeof Settings>

/** The store that the settings name, taken apart. */
export function storeOf({ store }: Pick<Settings, 'store'>): Store {
  const parsed = parseStore(store)
  if (!parsed) throw new TypeError(`not a checked store: ${store}`)
  return parsed
}
