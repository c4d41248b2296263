import * as z from 'zod/mini'
import { InstanceRecord } from './instance.ts'
import { diskNames } from './layout.ts'
import { AbsolutePath, Digest, described, InstanceName, optional, Uuid } from './spec.ts'

/**
 * What the two halves of a resize or migration tell each other. An offer says what the source has, an answer what the
 * destination has of it, and the order, which follows from both, what each is to do: the old driver's `disk_info`.
 * Sizes in bytes. Each half checks what it gets: the other one may be of another version, or mistaken.
 */

/** The name of a file in `_base`: of the other host nothing is believed that could lead elsewhere. */
export const BaseName = z.string().check(z.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,200}$/, 'is no name of a base'))
const size = (what: string) => described(z.int().check(z.nonnegative('is negative')), `${what}, bytes`)

/** What a base is: enough to tell whether that of another host has the same content, and to get it from a store. */
export const BaseIdentity = z.object({
  /** Of the image; its sha1 is the base's name. */
  id: z.optional(z.string()),
  /** What the image was called, where it came from, whose it is. */
  name: z.optional(z.string()),
  source: z.optional(z.string()),
  owner: z.optional(z.string()),
  shared: z.optional(z.boolean()),
  /** Of the image, and how its bytes became the base's. Absent where nothing proves that the base is made of them. */
  digest: z.optional(Digest),
  format: z.optional(z.string()),
  packing: z.optional(z.string()),
  /** Digest of what a guest sees in it (`content-sha256:HEX`), of the file as it is now. */
  content: z.optional(z.string()),
  /** That content is its image's, or its maker's. */
  proven: z.optional(z.boolean()),
  /** Its maker writes the same on every host. */
  deterministic: z.optional(z.boolean()),
})
export type BaseIdentity = z.output<typeof BaseIdentity>

/** A base under a disk of the source. */
export const OfferedBase = z.object({
  name: BaseName,
  size: size('what a guest sees in it'),
  allocated: size('allocated for it on the source'),
  identity: BaseIdentity,
  /**
   * Of a sized base (`<sha1>_<GiB>`), its unsized one: whether it is that and zeros (`equal`), is more (`differs`: a
   * file system was grown in it), or whether that cannot be told on the source (`unknown`). The rest: what the unsized
   * one is on the source, where it has one that can be used.
   */
  unsized: z.optional(
    z.object({
      name: BaseName,
      is: z.enum(['equal', 'differs', 'unknown']),
      identity: z.optional(BaseIdentity),
      size: z.optional(z.int()),
      allocated: z.optional(z.int()),
    }),
  ),
})
export type OfferedBase = z.output<typeof OfferedBase>

/** A disk of the source. */
export const OfferedDisk = z.object({
  file: z.enum(diskNames),
  format: z.enum(['qcow2', 'raw']),
  virtualSize: size('what the guest sees'),
  /** What is to be sent, at most. */
  allocated: size('allocated for it on the source'),
  base: z.optional(OfferedBase),
})
export type OfferedDisk = z.output<typeof OfferedDisk>

/** Another file that travels with an instance: the seed, NVRAM, the state of its TPM. `name`: below the instance. */
export const OfferedFile = z.object({ name: z.string(), size: size('of it') })

/** Which cowhand wrote a document that goes through other hands: both halves have to be of one version. */
const writer = z.optional(z.string())

export const Offer = z.object({
  version: z.literal(1),
  cowhand: writer,
  /** Of this resize or migration, on both hosts: what one left of another is never taken for its own. */
  move: Uuid,
  /** An earlier one to the same host that was given up while that could not be reached: what arrived there is used. */
  replaces: z.optional(Uuid),
  kind: z.enum(['resize', 'migrate']),
  name: InstanceName,
  /** Of the source, for people and records. */
  host: z.string(),
  /** Of the source's instances. */
  instances: AbsolutePath,
  /** The wish for it from now on, with the sizes asked for. */
  record: InstanceRecord,
  /** `instance.json` on the source, by which the destination tells whether it sees the very same file. */
  probe: z.object({ inode: z.string(), changed: z.string(), size: z.int() }),
  /** Definition of its domain's next start: libvirt's own, or libvirt.xml where there is no libvirt. */
  xml: z.optional(z.string()),
  /** libvirt has a domain for it; whether its guest is to run, and to start with the host. */
  domain: z.optional(z.object({ run: z.boolean(), autostart: z.boolean() })),
  disks: z.array(OfferedDisk),
  files: z.array(OfferedFile),
})
export type Offer = z.output<typeof Offer>

/** What the destination has in the place of a base. */
export const AnsweredBase = z.object({
  name: BaseName,
  /** `unproven`: it is there, and it cannot be told what is in it until the source tells its content's digest. */
  is: z.enum(['equal', 'differs', 'absent', 'unproven']),
  size: z.optional(z.int()),
  /** It can be had from the destination's store (bytes to fetch, where that is known) or be made there. */
  from: z.optional(z.enum(['store', 'maker'])),
  fetch: z.optional(z.int()),
  why: z.optional(z.string()),
})
export type AnsweredBase = z.output<typeof AnsweredBase>

export const Answer = z.object({
  version: z.literal(1),
  cowhand: writer,
  /** Of the offer, or the order, that it answers. */
  move: Uuid,
  /** Of the destination, for people; and which start of which machine that is, so that a host knows itself. */
  host: z.string(),
  boot: z.string(),
  instances: AbsolutePath,
  /** Both see the same directory of the instance: nothing is copied or removed. */
  shared: z.boolean(),
  /** libvirt is configured there. */
  libvirt: z.boolean(),
  /** The instance there: of this move, or none. (Any other is refused.) `running`: as libvirt says. */
  instance: z.enum(['absent', 'arrived']),
  running: z.boolean(),
  /** Files that are proven there already. */
  proven: z.array(z.string()),
  /** Bytes free for instances and bases. */
  free: z.int(),
  /** One for each name asked for. */
  bases: z.array(AnsweredBase),
  /** Once an order was prepared: what it came to (agreementOf), and which bases are still to come from the source. */
  prepared: z.optional(z.object({ agreement: z.string(), lacks: z.array(BaseName) })),
  /** Where a push by the rsync daemon goes: port and module of the destination's settings. */
  rsyncd: z.optional(z.object({ port: z.int(), module: z.string(), user: z.optional(z.string()) })),
})
export type Answer = z.output<typeof Answer>

/** What becomes of one disk. */
export const OrderedDisk = z.object({
  file: z.enum(diskNames),
  /**
   * `delta`: the overlay travels, and stands on `base` there; `whole`: the file travels as it is, it stands on nothing;
   * `flat`: the source merges it with its base first; `new`: it is made there, nothing travels.
   */
  way: z.enum(['delta', 'whole', 'flat', 'new']),
  format: z.enum(['qcow2', 'raw']),
  /** What the guest is to see. */
  size: size('it is to have'),
  /** To come over the network, at most. */
  send: size('to be sent, at most'),
  /** What it stands on there. */
  base: z.optional(
    z.object({
      name: BaseName,
      size: z.int(),
      /** Where the destination has it from. `source`: this host sends its own, called `sends`. */
      from: z.enum(['cache', 'store', 'maker', 'source']),
      sends: z.optional(BaseName),
      allocated: z.int(),
      identity: BaseIdentity,
    }),
  ),
  /** On the source, before it travels: what it does not share with the unsized base is copied into it (safe rebase). */
  rebaseFirst: z.optional(BaseName),
  /** Of a made disk: file system of an ephemeral one. */
  makes: z.optional(z.enum(['ephemeral', 'swap'])),
  /** Why it goes this way, for the plan. */
  reason: z.string(),
})
export type OrderedDisk = z.output<typeof OrderedDisk>

/** The hand-over document. */
export const Order = z.object({
  ...Offer.shape,
  shared: z.boolean(),
  ways: z.array(OrderedDisk),
  growFs: z.boolean(),
  startTimeout: z.int(),
  /** What arrives: digest of the content (`content-sha256:HEX`) and size of each file, once it was sent. */
  sent: optional(
    z.record(z.string(), z.object({ digest: z.string(), size: z.int() })),
    'what was sent, and how it is proven',
  ),
})
export type Order = z.output<typeof Order>

/** How bytes travel. */
export const Transport = z.enum(['ssh', 'rsyncd'])
export type Transport = z.output<typeof Transport>

/** Which move is meant, where nothing else of it matters. */
export const MoveReference = z.object({
  name: InstanceName,
  move: Uuid,
  uuid: described(Uuid, 'of the instance'),
  shared: z.boolean(),
})
export type MoveReference = z.output<typeof MoveReference>

/** What became of a move on its destination. `running`: as libvirt there says. */
export const MoveState = z.object({ arrived: z.boolean(), running: z.boolean() })
export type MoveState = z.output<typeof MoveState>

/** What the destination is asked to do. `look` and `status` change nothing: an answer to an offer, and a MoveState. */
export const phases = ['look', 'prepare', 'finish', 'undo', 'status'] as const
export type Phase = (typeof phases)[number]
