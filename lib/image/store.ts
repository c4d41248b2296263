import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { interrupt } from '../host/interrupt.ts'
import { baseName, basesOf } from '../job/layout.ts'
import { misuse, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import type { Format } from '../job/spec.ts'
import { showUrl } from '../job/url.ts'
import { declaredBy, formatOf, type Image } from './image.ts'

export interface Wanted {
  checksum?: string | undefined
  format?: Format | undefined
}

/**
 * Find the image that the operator means: a URL, or a name or id in the store.
 * @throws {Problem} IMAGE_NOT_FOUND, IMAGE_CHANGED, CHECKSUM_MISSING, CHECKSUM_MISMATCH, FETCH_FAILED, BAD_SPEC
 */
export async function findImage(reference: string, wanted: Wanted, settings: Settings): Promise<Image> {
  if (/^https?:\/\//.test(reference)) return findByUrl(reference, wanted, settings)
  const { findInDirectory } = await import('./directory.ts')
  const image = await findInDirectory(reference, settings)
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
    id: digest,
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

/** A file's name as its publisher has it, where the URL has %20 and the like for some of it. */
function decoded(file: string): string {
  try {
    return decodeURIComponent(file)
  } catch {
    return file
  }
}

/** The digest in a SHA256SUMS or SHA512SUMS beside the image. @throws {Problem} CHECKSUM_MISSING */
async function publishedDigest(url: URL, file: string): Promise<string> {
  const [{ fetchText }, { digestFromSums }] = [await import('./fetch.ts'), await import('./sums.ts')]
  for (const name of ['SHA256SUMS', 'SHA512SUMS']) {
    const text = await fetchText(new URL(name, url).href, { limit: 2 ** 20, signal: interrupt.signal })
    const digest = text === undefined ? undefined : (digestFromSums(text, file) ?? digestFromSums(text, decoded(file)))
    if (digest) return digest
  }
  const message = `Cannot use "${showUrl(url.href)}": nothing vouches for its bytes, there is no SHA256SUMS beside it that names ${file}`
  return refuse('CHECKSUM_MISSING', message, 'give its checksum: --checksum sha256:HEX')
}
