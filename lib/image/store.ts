import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { interrupt } from '../host/interrupt.ts'
import { baseName, basesOf } from '../job/layout.ts'
import { misuse, refuse } from '../job/problem.ts'
import { type Settings, storeOf } from '../job/settings.ts'
import { type Format, isWeak } from '../job/spec.ts'
import { showUrl } from '../job/url.ts'
import { declaredBy, formatOf, type Image } from './image.ts'

export interface Wanted {
  checksum?: string | undefined
  format?: Format | undefined
}

/**
 * Find the image that the operator means: a URL, or a name or id in the store.
 * @throws {Problem} IMAGE_NOT_FOUND, IMAGE_CHANGED, CHECKSUM_MISSING, CHECKSUM_MISMATCH, FETCH_FAILED, BAD_SPEC; of
 * Glance also IMAGE_NOT_ACTIVE, IMAGE_AMBIGUOUS, UNSUPPORTED, AUTH_FAILED
 */
export async function findImage(reference: string, wanted: Wanted, settings: Settings): Promise<Image> {
  if (/^https?:\/\//.test(reference)) return findByUrl(reference, wanted, settings)
  const image =
    storeOf(settings).kind === 'glance'
      ? await (await import('./glance.ts')).findInGlance(reference, wanted, settings)
      : await (await import('./directory.ts')).findInDirectory(reference, settings)
  if (wanted.format && wanted.format !== image.format)
    misuse(
      `Cannot use image "${image.name}" as ${wanted.format}: the store has it as ${image.format}`,
      'leave --image-format out',
    )
  if (wanted.checksum && wanted.checksum !== image.digest) {
    if (wanted.checksum.split(':')[0] !== image.digest.split(':')[0])
      misuse(
        `Cannot compare the checksum of "${image.name}": the store has ${image.digest}`,
        'leave --checksum out: the store has proven it',
      )
    const message = `Cannot use image "${image.name}": its digest is ${image.digest}, expected ${wanted.checksum}`
    refuse('CHECKSUM_MISMATCH', message, `see what the store has: cowhand image show ${image.name}`)
  }
  return image
}

/** Every image of the store that can be used; what cannot be read does not hide the others. */
export async function listImages(settings: Settings): Promise<{ images: Image[]; problems: string[] }> {
  if (storeOf(settings).kind === 'glance') return (await import('./glance.ts')).listGlance(settings)
  return (await import('./directory.ts')).listDirectory(settings)
}

/**
 * The image that the base of this name was made of, by which a delta snapshot finds its base (BEHAVIOUR.md S47, S48).
 * Properties are its owner's word: whatever they say, the sha1 of its id is the name, or it is not that image.
 * @param sha1 name of the base, 40 digits
 * @throws {Problem} as findImage
 */
export async function findBaseImage(sha1: string, settings: Settings): Promise<Image | undefined> {
  if (storeOf(settings).kind === 'glance') return (await import('./glance.ts')).findBaseInGlance(sha1, settings)
  return (await import('./directory.ts')).findBaseInDirectory(sha1, settings)
}

async function findByUrl(reference: string, wanted: Wanted, settings: Settings): Promise<Image> {
  const url = URL.canParse(reference)
    ? new URL(reference)
    : misuse(`Cannot read "${reference}": it is not a URL`, 'give https://HOST/PATH/FILE')
  if (url.username || url.password)
    misuse(
      'Cannot use this URL: it has a password in it, which every process on the host could read',
      'serve the image without one; --checksum protects it',
    )
  const file = basename(url.pathname)
  const format = formatOf(file, wanted.format, '--image-format')
  const { packing } = declaredBy(file)
  const digest = wanted.checksum ?? (await publishedDigest(url, file))
  const image: Image = {
    // Two files with one weak digest must not meet in one base: of such an image the URL is a part of its name.
    id: isWeak(digest) ? `weak:${digest}@${await sha256(url.href)}` : digest,
    name: showUrl(url.href),
    source: url.href,
    digest,
    format,
    packing,
    properties: {},
  }
  // A cached base needs no server: only a download asks how much there is to come, and whether it will fit.
  if (existsSync(`${basesOf(settings.instances)}/${await baseName(image.id)}`)) return image
  const { headOf } = await import('./fetch.ts')
  const { bytes, total } = await headOf(url.href, 512, { signal: interrupt.signal })
  const isQcow2 = format === 'qcow2' && !packing && bytes.length >= 32 && bytes.readUInt32BE(0) === 0x514649fb
  const virtualSize = isQcow2 ? Number(bytes.readBigUInt64BE(24)) : format === 'raw' && !packing ? total : undefined
  return { ...image, size: total, virtualSize }
}

/** Not the URL itself: its query may hold a signature. */
const sha256 = async (text: string): Promise<string> =>
  Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(text))).toString('hex')

/** A file's name as its publisher has it, where the URL has %20 and the like for some of it. */
function decoded(file: string): string {
  try {
    return decodeURIComponent(file)
  } catch {
    return file
  }
}

/** The digest in a SHA512SUMS or SHA256SUMS beside the image, the stronger first. @throws {Problem} CHECKSUM_MISSING */
async function publishedDigest(url: URL, file: string): Promise<string> {
  const [{ fetchText }, { digestFromSums }] = [await import('./fetch.ts'), await import('./sums.ts')]
  for (const name of ['SHA512SUMS', 'SHA256SUMS']) {
    const text = await fetchText(new URL(name, url).href, { limit: 2 ** 20, signal: interrupt.signal })
    const digest = text === undefined ? undefined : (digestFromSums(text, file) ?? digestFromSums(text, decoded(file)))
    if (digest) return digest
  }
  const message = `Cannot use "${showUrl(url.href)}": nothing vouches for its bytes, there is no SHA512SUMS or SHA256SUMS beside it that names ${file}`
  return refuse('CHECKSUM_MISSING', message, 'give its checksum: --checksum sha256:HEX')
}
