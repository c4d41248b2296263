import * as z from 'zod/mini'
import { baseAt } from '../host/bases.ts'
import { baseName, basesOf } from '../job/layout.ts'
import { fail, misuse, Problem, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { Digest, Format, isWeak } from '../job/spec.ts'
import { getJson, printable } from './api.ts'
import type { FetchOptions } from './fetch.ts'
import type { Image } from './image.ts'
import { openSession, type Session, sessionOf } from './session.ts'
import type { Wanted } from './store.ts'

// Image API v2 (https://docs.openstack.org/api-ref/image/v2/). Whatever a server or an image's owner says is checked.

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const text = z.optional(z.nullable(z.string()))
const bytes = z.optional(z.nullable(z.int().check(z.nonnegative())))

const Found = z.looseObject({
  // It becomes a part of URLs and the name of a base: nothing but a UUID may come through here.
  id: z.string().check(z.regex(uuid)),
  name: text,
  status: z.string(),
  visibility: text,
  owner: text,
  disk_format: text,
  container_format: text,
  os_hash_algo: text,
  os_hash_value: text,
  checksum: text,
  size: bytes,
  virtual_size: bytes,
  min_disk: bytes,
})
type Found = z.output<typeof Found>
const Page = z.looseObject({ images: z.array(Found), next: z.optional(z.string()) })

/** What Glance itself says of an image; all other members are properties that somebody gave to it. */
const own = [
  ...Object.keys(Found.shape),
  'created_at',
  'updated_at',
  'direct_url',
  'locations',
  'file',
  'min_ram',
  'os_hidden',
  'protected',
  'schema',
  'self',
  'stores',
  'tags',
]

const formats: Record<string, Format> = {
  qcow2: 'qcow2',
  raw: 'raw',
  vmdk: 'vmdk',
  vdi: 'vdi',
  vhd: 'vpc',
  vhdx: 'vhdx',
  // A CD as it is, also with a partition table in it.
  iso: 'raw',
}

const GiB = 2 ** 30
const perPage = 200
const mostPages = 1000

const see = (id: string): string => `see how it is there: openstack image show ${id}`

/**
 * An image of this id or name. One whose base is cached needs no server: its id names immutable bytes.
 * @throws {Problem} IMAGE_NOT_FOUND, IMAGE_NOT_ACTIVE, IMAGE_AMBIGUOUS, UNSUPPORTED, CHECKSUM_MISSING, BAD_SPEC,
 * AUTH_FAILED, FETCH_FAILED
 */
export async function findInGlance(reference: string, wanted: Wanted, settings: Settings): Promise<Image> {
  const id = reference.toLowerCase()
  if (!uuid.test(id)) return asImage(await oneNamed(reference, await sessionOf(settings)), wanted)
  const cached = await cachedImage(id, settings)
  if (cached) return cached
  const session = await sessionOf(settings)
  const answer = await getJson(new URL(`${session.endpoint}/v2/images/${id}`), session.options)
  if (answer === undefined) notFound(reference, session)
  const found = Found.safeParse(answer)
  if (!found.success || found.data.id !== id) return noImages(session)
  return asImage(found.data, wanted)
}

const notFound = (reference: string, { endpoint }: Session): never =>
  refuse(
    'IMAGE_NOT_FOUND',
    `Cannot find image "${reference}": Glance at ${endpoint} has no such name or id, or does not show it to this project`,
    'see what it has: cowhand image list',
  )

const noImages = ({ endpoint, options }: Session): never =>
  fail('FETCH_FAILED', `Cannot read the images of ${endpoint}: what answers there is no Image API v2`, options.remedy)

/** What the record of its base knows of the image; undefined where it has to be asked for. */
async function cachedImage(id: string, { instances }: Settings): Promise<Image | undefined> {
  const path = `${basesOf(instances)}/${await baseName(id)}`
  const record = baseAt(path)?.record
  if (record?.id !== id) return undefined
  const { name = id, digest, format, sourceSize, size, owner, shared, minDisk } = record
  const known = Format.safeParse(format)
  if (digest === undefined || !known.success) return undefined
  const source = sourceOf(id)
  return {
    id,
    name,
    source,
    digest,
    format: known.data,
    size: sourceSize,
    virtualSize: size,
    owner,
    shared,
    minDisk,
    properties: {},
  }
}

async function oneNamed(name: string, session: Session): Promise<Found> {
  // `in:"…"` has no operators in it. A database may compare names without case: what counts is our comparison.
  const filter = `in:"${name.replaceAll(/["\\]/g, '\\$&')}"`
  const all: Found[] = []
  for await (const image of imagesOf(session, { name: /^\w+:/.test(name) ? filter : name }))
    if (image.name === name) all.push(image)
  const active = all.filter(({ status }) => status === 'active')
  const [first, ...others] = active.length > 0 ? active : all
  if (!first) return notFound(printable(name), session)
  if (others.length === 0) return first
  const ids = [first, ...others].map(({ id }) => id)
  return refuse(
    'IMAGE_AMBIGUOUS',
    `Cannot choose image "${printable(name)}": Glance has ${ids.length} of this name: ${ids.slice(0, 5).join(', ')}${ids.length > 5 ? ' …' : ''}`,
    'name it by its id: --image ID',
  )
}

/** Images page after page, as they are there. @throws {Problem} FETCH_FAILED where the pages have no end */
async function* imagesOf(session: Session, filter: Record<string, string>): AsyncGenerator<Found> {
  const { endpoint, options } = session
  const url = new URL(`${endpoint}/v2/images`)
  url.search = `${new URLSearchParams({ ...filter, limit: String(perPage) })}`
  const asked = new Set<string>()
  while (!asked.has(url.search) && asked.size < mostPages) {
    asked.add(url.search)
    const page = Page.safeParse(await getJson(url, options))
    if (!page.success) return noImages(session)
    yield* page.data.images
    const { next } = page.data
    if (next === undefined) return
    // Of where to go on only the query counts: the address is the one that was configured.
    url.search = URL.canParse(next, url.href) ? new URL(next, url).search : ''
  }
  fail('FETCH_FAILED', `Cannot read the images of ${endpoint}: its pages do not end`, options.remedy)
}

/**
 * Log in anew and ask for one image, whichever.
 * @returns where Glance is
 * @throws {Problem} AUTH_FAILED, FETCH_FAILED, BAD_SPEC; the signal's reason when aborted
 */
export async function tryGlance(settings: Settings, bounds: Parameters<typeof openSession>[1]): Promise<string> {
  const session = await openSession(settings, bounds)
  const answer = await getJson(new URL(`${session.endpoint}/v2/images?limit=1`), session.options)
  return Page.safeParse(answer).success ? session.endpoint : noImages(session)
}

/** Every image that cowhand can use, as Glance shows them: neither hidden ones nor those of other projects. */
export async function listGlance(settings: Settings): Promise<{ images: Image[]; problems: string[] }> {
  const images: Image[] = []
  for await (const found of imagesOf(await sessionOf(settings), { status: 'active', sort: 'name:asc' }))
    try {
      images.push(asImage(found, {}))
    } catch (error) {
      if (!(error instanceof Problem)) throw error // a kernel, a ramdisk: none of ours
    }
  return { images, problems: [] }
}

/**
 * The image whose id has this sha1, also one that is hidden, as outdated images are, or of another project.
 * @throws {Problem} as findInGlance
 */
export async function findBaseInGlance(sha1: string, settings: Settings): Promise<Image | undefined> {
  const session = await sessionOf(settings)
  // Where whoever uploaded it has written the name down, one request finds it. The id decides.
  const ways: Record<string, string>[] = [
    { image_id_sha1: sha1 },
    {},
    { os_hidden: 'true' },
    { visibility: 'community' },
  ]
  for (const filter of ways)
    for await (const found of imagesOf(session, filter))
      if ((await baseName(found.id)) === sha1) return asImage(found, {})
  return undefined
}

const sourceOf = (id: string): string => `glance:${id}`

/**
 * How to fetch the bytes of a `glance:UUID`.
 * @throws {Problem} BAD_SPEC, AUTH_FAILED, FETCH_FAILED
 */
export async function fileOf(
  source: string,
  settings: Settings,
): Promise<Pick<FetchOptions, 'url' | 'name' | 'authorize' | 'tls' | 'remedy'>> {
  const id = source.slice('glance:'.length)
  if (!uuid.test(id)) return misuse(`Cannot fetch "${source}": that is no id of an image in Glance`, 'give glance:UUID')
  const { endpoint, options } = await sessionOf(settings)
  const { authorize, tls } = options
  return { url: `${endpoint}/v2/images/${id}/file`, name: source, authorize, tls, remedy: see(id) }
}

/** @throws {Problem} where it cannot be used: IMAGE_NOT_ACTIVE, UNSUPPORTED, CHECKSUM_MISSING, BAD_SPEC */
function asImage(found: Found, wanted: Wanted): Image {
  const { id, owner, visibility, size, virtual_size, min_disk } = found
  const name = printable(found.name ?? id)
  const remedy = see(id)
  if (found.status !== 'active')
    refuse('IMAGE_NOT_ACTIVE', `Cannot use image "${name}": it is ${printable(found.status)} there, not active`, remedy)
  const { container_format: container } = found
  if (container !== 'bare')
    refuse(
      'UNSUPPORTED',
      `Cannot use image "${name}": its container is ${printable(container ?? 'not set')}, not bare`,
      remedy,
    )
  const others = Object.entries(found).filter(([key]) => !own.includes(key))
  const properties = others.flatMap(([key, value]): [string, string][] =>
    typeof value === 'string' ? [[printable(key), printable(value)]] : [],
  )
  return {
    id,
    name,
    source: sourceOf(id),
    digest: digestOf(found, name, wanted),
    format: formatOf(found, name, wanted),
    size: size ?? undefined,
    virtualSize: virtual_size ?? undefined,
    minDisk: min_disk ? min_disk * GiB : undefined,
    owner: owner ? printable(owner) : undefined,
    shared: visibility === 'public' || visibility === 'community',
    properties: Object.fromEntries(properties),
  }
}

function formatOf({ disk_format, id }: Found, name: string, wanted: Wanted): Format {
  if (!disk_format)
    return (
      wanted.format ??
      misuse(
        `Cannot tell the format of image "${name}": Glance does not know it`,
        'add --image-format qcow2, or raw, vmdk, vdi, vhd, vhdx: cowhand never guesses from the content',
      )
    )
  const format = Object.hasOwn(formats, disk_format) ? formats[disk_format] : undefined
  if (format) return format
  const message = `Cannot use image "${name}": its format is ${printable(disk_format)}`
  return refuse('UNSUPPORTED', message, `convert it and add it anew: openstack image save --file FILE ${id}`)
}

/** The strongest digest there is: of images that old versions took in, Glance has nothing but md5. */
function digestOf(found: Found, name: string, { checksum }: Wanted): string {
  const all = [`${found.os_hash_algo}:${found.os_hash_value}`, `md5:${found.checksum}`]
  const [digest] = all.flatMap((one) => Digest.safeParse(one).data ?? [])
  const better = digest === undefined || (isWeak(digest) && checksum !== undefined && !isWeak(checksum))
  return better ? (checksum ?? unvouched(name)) : digest
}

const unvouched = (name: string): never =>
  refuse(
    'CHECKSUM_MISSING',
    `Cannot use image "${name}": nothing vouches for its bytes, Glance has no checksum of it`,
    'give its checksum: --checksum sha256:HEX',
  )
