import { readQcow2 } from '../image/qcow2.ts'
import { InstanceRecord } from '../job/instance.ts'
import { diskNames, instanceOf } from '../job/layout.ts'
import { refuse } from '../job/problem.ts'
import type { DiskResult } from '../job/result.ts'
import { InstanceName } from '../job/spec.ts'
import { fileAt, jsonAt, namesIn } from './files.ts'

/** The wish kept in an instance's directory, or undefined. @throws {Problem} NOT_OURS when it cannot be read */
export function instanceAt(directory: string): InstanceRecord | undefined {
  const path = `${directory}/instance.json`
  const json = jsonAt(path)
  if (json === undefined) return undefined
  const record = InstanceRecord.safeParse(json)
  return record.success
    ? record.data
    : refuse(
        'NOT_OURS',
        `Cannot read "${path}": it is not a record of this version of cowhand`,
        `look at it, and move it away: less ${path}`,
      )
}

/** The instance of this name. @throws {Problem} INSTANCE_NOT_FOUND */
export function requireInstance(instances: string, name: string): InstanceRecord {
  return (
    instanceAt(instanceOf(instances, name)) ??
    refuse(
      'INSTANCE_NOT_FOUND',
      `Cannot find instance "${name}": "${instances}" has none of this name`,
      'see what there is: cowhand list',
    )
  )
}

/** Names of the directories that hold an instance, sorted. */
export function instanceNames(instances: string): string[] {
  return (namesIn(instances) ?? [])
    .filter((name) => InstanceName.safeParse(name).success && fileAt(`${instances}/${name}/instance.json`))
    .sort()
}

/** An instance's disks as they are on the disk now, root first. No process is started. */
export function disksOf(instances: string, name: string): DiskResult[] {
  return diskNames.flatMap((disk): DiskResult[] => {
    const path = `${instanceOf(instances, name)}/${disk}`
    const file = fileAt(path)
    const header = file && readQcow2(path)
    if (!file) return []
    const { virtualSize, backing } = header ?? { virtualSize: file.size, backing: undefined }
    const format = header ? 'qcow2' : 'raw'
    return [{ name: disk, path, format, virtualSize, actualSize: file.allocated, ...(backing ? { backing } : {}) }]
  })
}
