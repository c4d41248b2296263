import { basename, dirname } from 'node:path'
import type { Base } from '../host/bases.ts'
import { fileAt } from '../host/files.ts'
import { audience, interrupt } from '../host/interrupt.ts'
import { percentIn } from '../host/qemu-img.ts'
import type { BaseRecord } from '../job/base.ts'
import { kindOfBase } from '../job/layout.ts'
import { Problem } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { algorithmOf, type Format } from '../job/spec.ts'
import { showUrl } from '../job/url.ts'
import { contentOf } from './content.ts'
import { digestOf } from './digest.ts'

/** What comparing a base with what it was made of came to. */
export interface Proof {
  is: 'equal' | 'other' | 'unknown'
  /** Where it is equal: to its image itself, not only to what cowhand once found in it. */
  proven?: boolean
  /** Where it is another: words that go behind the base's name. */
  why?: string
}

/** An image file on this host whose own digest is proven. */
export interface Original {
  path: string
  format: Format
  ceiling: number
}

/** What a base can be compared with, as far as it is on this host or its digest is known. */
export interface Originals {
  image?: Original
  /** The base that it is a larger copy of. */
  original?: Base | undefined
  /** What its image is, where the store still has it. */
  identity?: Pick<BaseRecord, 'id' | 'name' | 'source' | 'owner' | 'shared' | 'digest' | 'format' | 'packing'>
}

/** Look for what a base of the cache was made of. An image that cannot be read now is as one that is gone. */
export async function originalsOf(path: string, settings: Settings): Promise<Originals> {
  const [directory, name] = [dirname(path), basename(path)]
  const kind = kindOfBase(name)
  if (kind !== 'image' && kind !== 'sized') return {}
  const sha1 = name.slice(0, 40)
  const [{ findBaseImage }, { baseAt }] = await Promise.all([import('./store.ts'), import('../host/bases.ts')])
  const original = kind === 'sized' ? await unlessProblem(async () => baseAt(`${directory}/${sha1}`)) : undefined
  const image = await unlessProblem(() => findBaseImage(sha1, settings))
  if (!image) return { original }
  const { id, name: title, source, owner, shared, digest, format, packing } = image
  const isHere = source.startsWith('/') && !packing
  return {
    ...(isHere ? { image: { path: source, format, ceiling: settings.image_ceiling } } : {}),
    original,
    identity: { id, name: title, source: isHere ? source : showUrl(source), owner, shared, digest, format, packing },
  }
}

const unlessProblem = <T>(look: () => Promise<T>): Promise<T | undefined> =>
  look().catch((error) => {
    if (error instanceof Problem && error.code !== 'INTERRUPTED') return undefined
    throw error
  })

/**
 * Read a base and compare it: with the digest of its content, where one is recorded; with the image's digest, where
 * the base is the image's own bytes; with the image; with the base that it is a larger copy of.
 * What was read once is not read again while the file is the same.
 * @param originals what there is to compare with
 * @throws {Problem} TOOL_FAILED and the like; the signal's reason when interrupted
 */
export async function proveBase(
  path: string,
  { record, size }: Base,
  { image, original, identity }: Originals,
): Promise<Proof> {
  if (record?.size !== undefined && record.size !== size)
    return { is: 'other', why: `it has ${size} bytes, and was made with ${record.size}` }
  const recorded = record?.content
  if (recorded) {
    if ((await contentOf(path)) !== recorded.digest)
      return { is: 'other', why: 'its content is not what it was when it was recorded' }
    if (recorded.proven) return { is: 'equal', proven: true }
  }
  const made = record?.digest ? record : identity
  if (made?.format === 'raw' && !made.packing && made.digest && !isSized(path)) {
    const digest = await digestOf(path, algorithmOf(made.digest))
    if (digest === made.digest) return { is: 'equal', proven: true }
    return { is: 'other', why: `its digest is ${digest}, and its image's ${made.digest}` }
  }
  const same = image && (await isImage(path, image))
  if (same === true) return { is: 'equal', proven: true }
  // Nova's sized bases are no plain copies: it grows the file system in them as well.
  const isPlain = !isSized(path) || (record !== undefined && !record.adopted)
  if (same === false && isPlain) return { is: 'other', why: `its content is not that of its image ${image?.path}` }
  const known = original?.record
  if (known?.content && known.content.stamp === original?.stamp && !known.quarantined) {
    if ((await contentOf(path)) === known.content.digest) return { is: 'equal', proven: known.content.proven ?? false }
    if (isPlain) return { is: 'other', why: 'its content is not that of the base that it is a copy of' }
  }
  return recorded ? { is: 'equal', proven: false } : { is: 'unknown' }
}

const isSized = (path: string): boolean => kindOfBase(basename(path)) === 'sized'

const compared = new Map<string, boolean>()

/** Whether a base has what is in an image; undefined where the image is not one to be opened. */
async function isImage(base: string, { path, format, ceiling }: Original): Promise<boolean | undefined> {
  const key = () => [fileAt(base)?.stamp, base, fileAt(path)?.stamp, path].join(' ')
  const before = key()
  const known = compared.get(before)
  if (known !== undefined) return known
  const { examine } = await import('./examine.ts')
  const size = await examine(path, { format, ceiling }).then(
    ({ virtualSize }) => virtualSize,
    (error) => {
      if (error instanceof Problem) return undefined
      throw error
    },
  )
  if (size === undefined) return undefined
  const { qemuImg } = await import('../host/qemu-img.ts')
  const what = `compare ${basename(base)}`
  const onOutput = (chunk: string) => {
    const percent = percentIn(chunk)
    if (percent !== undefined)
      audience.tell({ type: 'progress', what, done: Math.round((percent / 100) * size), total: size })
  }
  const argv = ['qemu-img', 'compare', '-p', '-U', '-f', format, '-F', 'raw', path, base]
  const images = [{ path, format }, { path: base, format: 'raw' } as const]
  const { code } = await qemuImg(
    argv,
    { images, size },
    {
      why: `compare "${base}" with its image`,
      accept: [1],
      signal: interrupt.signal,
      onOutput,
    },
  )
  if (key() === before) compared.set(before, code === 0)
  return code === 0
}
