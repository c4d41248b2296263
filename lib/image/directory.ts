import { fileAt, jsonAt, namesIn } from '../host/files.ts'
import { baseName, recordOf } from '../job/layout.ts'
import { Problem, refuse } from '../job/problem.ts'
import { type Settings, storeOf } from '../job/settings.ts'
import { type Algorithm, ImageName } from '../job/spec.ts'
import { type Image, ImageRecord } from './image.ts'

/** The directory of the store `dir:/PATH`. @throws {Problem} UNSUPPORTED where the store is another one */
export function directoryOf(settings: Settings): string {
  const store = storeOf(settings)
  if (store.kind === 'dir') return store.directory
  return refuse(
    'UNSUPPORTED',
    'Cannot change the store: it is Glance, and cowhand only reads there',
    'use the client of the cloud: openstack image create, openstack image delete; or name a directory: --store dir:/PATH',
  )
}

/** The record of one name in the store, or undefined. @throws {Problem} NOT_OURS when its record cannot be read */
export function recordIn(directory: string, name: string): ImageRecord | undefined {
  const path = recordOf(`${directory}/${name}`)
  const json = jsonAt(path)
  if (json === undefined) return undefined
  const record = ImageRecord.safeParse(json)
  return record.success
    ? record.data
    : refuse(
        'NOT_OURS',
        `Cannot read "${path}": it is not a record of cowhand`,
        `look at it, and move it away: less ${path}`,
      )
}

const asImage = (directory: string, record: ImageRecord): Image => ({
  ...record,
  id: record.digest,
  source: `${directory}/${record.file}`,
})

/** Every image of the store, by name; one that cannot be read does not hide the others. */
export function listDirectory(settings: Settings): { images: Image[]; problems: string[] } {
  const directory = directoryOf(settings)
  const images: Image[] = []
  const problems: string[] = []
  for (const name of namesIn(directory) ?? []) {
    if (!name.endsWith('.json')) continue
    try {
      const record = recordIn(directory, name.slice(0, -'.json'.length))
      if (record && fileAt(`${directory}/${record.file}`)) images.push(asImage(directory, record))
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem
      problems.push(problem.message)
    }
  }
  return { images, problems }
}

/**
 * The image of this name or id, its bytes being those that were added: a file that was written to or replaced
 * since is hashed again and has to be the same.
 * @throws {Problem} IMAGE_NOT_FOUND, IMAGE_CHANGED
 */
export async function findInDirectory(reference: string, settings: Settings): Promise<Image> {
  const directory = directoryOf(settings)
  const plain = ImageName.safeParse(reference).success
  const record = plain ? recordIn(directory, reference) : undefined
  const image = record ? asImage(directory, record) : listDirectory(settings).images.find(({ id }) => id === reference)
  const facts = image && fileAt(image.source)
  if (!facts)
    refuse(
      'IMAGE_NOT_FOUND',
      `Cannot find image "${reference}": the store ${directory} has no such name or id`,
      `see what it has: cowhand image list; or add it: cowhand image add FILE --name ${plain ? reference : 'NAME'}`,
    )
  if (facts.stamp === image.stamp) return image
  const { digestOf } = await import('./digest.ts')
  const digest = await digestOf(image.source, image.digest.split(':')[0] as Algorithm)
  if (digest !== image.digest) {
    const message = `Cannot use image "${image.name}": its file ${image.source} was replaced since it was added`
    refuse(
      'IMAGE_CHANGED',
      message,
      `put the old file back, or take the new one in: cowhand image add ${image.source} --name ${image.name}`,
    )
  }
  return { ...image, stamp: facts.stamp }
}

/** The image whose base has this name: the sha1 of its id. @throws {Problem} IMAGE_CHANGED */
export async function findBaseInDirectory(sha1: string, settings: Settings): Promise<Image | undefined> {
  for (const { id, name } of listDirectory(settings).images)
    if ((await baseName(id)) === sha1) return findInDirectory(name, settings)
  return undefined
}
