import { constants } from 'node:fs'
import { access, mkdtemp, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { errno } from '../job/problem.ts'
import { type Settings, storeOf } from '../job/settings.ts'
import { formatSize } from '../job/spec.ts'
import { ask, which } from './ask.ts'
import type { Check } from './check.ts'
import { isDirectAt } from './files.ts'

const GiB = 2 ** 30

/** The path itself, or the nearest one above it that exists: where it would be made. */
async function nearest(path: string): Promise<string> {
  try {
    await stat(path)
    return path
  } catch {
    const above = dirname(path)
    return above === path ? path : nearest(above)
  }
}

async function writable(directory: string, name: string, needs: string[]): Promise<Check> {
  const near = await nearest(directory)
  try {
    if (!(await stat(near)).isDirectory())
      return {
        name,
        status: 'missing',
        found: `${near} is not a directory`,
        needs,
        remedy: `mv '${near}' '${near}.old'`,
      }
    await access(near, constants.W_OK | constants.X_OK)
    return { name, status: 'ok', found: near === directory ? directory : `${directory} can be made`, needs }
  } catch (error) {
    const readOnly = errno(error) === 'EROFS'
    const found = `cannot write to ${near}: ${readOnly ? 'its file system is read-only' : 'no permission'}`
    const remedy = readOnly ? `mount -o remount,rw "$(findmnt -n -o TARGET -T '${near}')"` : 'run cowhand with sudo'
    return { name, status: 'missing', found, needs, remedy }
  }
}

/** @param free @param total bytes, or a count of inodes */
const percent = (free: number, total: number): number => Math.floor((free / total) * 100)

/** Room in the file system of a directory. Exported for its table test. @param fs as statfs tells it */
export function spaceChecks(
  where: string,
  fs: { bsize: number; blocks: number; bavail: number; files: number; ffree: number },
): Check[] {
  const needs = ['create', 'image add']
  const free = fs.bavail * fs.bsize
  const share = percent(fs.bavail, fs.blocks)
  const inodes = percent(fs.ffree, fs.files)
  const low = free < 5 * GiB || share < 10
  const mend = { remedy: 'cowhand list' } // what is there, and could be deleted
  const checks: Check[] = [
    {
      name: 'space',
      status: low ? 'warn' : 'ok',
      found: `${formatSize(free)} free (${share} %) in ${where}`,
      needs,
      ...(low ? mend : {}),
    },
  ]
  // Some file systems make inodes as they go and tell 0.
  if (fs.files > 0) {
    const few = inodes < 5
    checks.push({
      name: 'inodes',
      status: few ? 'warn' : 'ok',
      found: `${inodes} % free in ${where}`,
      needs,
      ...(few ? mend : {}),
    })
  }
  return checks
}

/** Tried on files of our own in a temporary directory beside the instances, removed at the end. */
async function abilities(near: string, path: string): Promise<Check[]> {
  const needs = ['create']
  let directory: string
  try {
    directory = await mkdtemp(join(near, '.cowhand-doctor-'))
  } catch {
    return [] // that we cannot write there is told already
  }
  try {
    const file = join(directory, 'file')
    await writeFile(file, Buffer.alloc(4096))
    const cp = await which('cp', path)
    const clone = cp && (await ask([cp, '--reflink=always', file, join(directory, 'clone')], { path })).code === 0
    const slow = { remedy: 'mount ext4, xfs or btrfs there' }
    return [
      {
        name: 'reflink',
        status: 'ok',
        found: clone ? `copies share blocks in ${near}` : `no: copies in ${near} take time and space`,
        needs,
      },
      isDirectAt(near)
        ? { name: 'O_DIRECT', status: 'ok', found: `works in ${near}`, needs }
        : {
            name: 'O_DIRECT',
            status: 'warn',
            found: `not in ${near}: images pass through the page cache`,
            needs,
            ...slow,
          },
    ]
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** May we write where instances, bases and images are, is there room, and what can the file system do? */
export async function placeChecks(settings: Settings, path: string): Promise<Check[]> {
  const { instances } = settings
  const store = storeOf(settings)
  const near = await nearest(instances)
  const groups = await Promise.all([
    writable(instances, 'instances', ['create']),
    writable(`${instances}/_base`, 'bases', ['create']),
    ...(store.kind === 'dir' ? [writable(store.directory, 'store', ['image add'])] : []),
    statfs(near).then((fs) => spaceChecks(near, fs)),
    abilities(near, path),
  ])
  return groups.flat()
}
