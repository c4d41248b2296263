import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { InstanceRecord } from '../../lib/job/instance.ts'
import type { DiskName } from '../../lib/job/layout.ts'
import type { Answered, PairHost } from './pair.ts'

// What the tests of whole moves have in common: instances as other tools have left them, what a guest would see on a
// disk, and what is there of an instance, byte for byte.

/** Run it on a host. @returns what it printed @throws {AssertionError} with what it said when it failed */
export async function good(host: PairHost, ...argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await host.run(argv)
  assert.equal(code, 0, `${argv.join(' ')} on ${host.name}: ${stderr}`)
  return stdout.trim()
}

/** Run the binary there, to a good end. */
export async function done(host: PairHost, ...words: string[]): Promise<Answered> {
  const answered = await host.cowhand(words, {}, 120)
  const { error } = answered
  assert.equal(
    answered.code,
    0,
    `cowhand ${words.join(' ')} on ${host.name}: ${error?.code}: ${error?.message}\n${error?.remedy}`,
  )
  return answered
}

/** Path of a file of an instance, as its host sees it. */
export const inside = (host: PairHost, name: string, file = ''): string => join(host.instances, name, file)
/** Path of a base, as its host sees it. */
export const baseOn = (host: PairHost, base: string): string => join(host.instances, '_base', base)

/** A disk as a guest would see it: its whole chain as one raw file. */
export interface Seen {
  /** On the machine. */
  path: string
  size: number
}

let count = 0

/** What a guest would see on a disk now. */
export async function seen(host: PairHost, disk: string, format = 'qcow2'): Promise<Seen> {
  count += 1
  const path = `/var/lib/cowhand/seen.${count}`
  await good(host, 'qemu-img', 'convert', '-f', format, '-O', 'raw', disk, path)
  return { path: host.file(path), size: lstatSync(host.file(path)).size }
}

/** The guest sees the same, and zeros behind it up to this size. */
export function sameDisk(before: Seen, after: Seen, size: number, what: string): void {
  assert.equal(after.size, size, `${what}: bytes`)
  // Where one is longer, qemu-img wants it to be zeros behind the other's end, and warns of its size.
  const argv = ['compare', '-f', 'raw', '-F', 'raw', before.path, after.path]
  const { status, stdout } = spawnSync('qemu-img', argv, { encoding: 'utf8' })
  assert.equal(status, 0, `${what}: ${stdout}`)
}

export const forget = (...disks: Seen[]): void => {
  for (const { path } of disks) rmSync(path, { force: true })
}

/** Everything below a directory: mode, owner, size and digest of each file. @param skip names that are left out */
export function tree(directory: string, skip = /^locks(\/|$)/): string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
  return names
    .filter((name) => !skip.test(name))
    .map((name) => {
      const path = join(directory, name)
      const facts = lstatSync(path)
      const { mode, uid, gid, size } = facts
      const content = facts.isFile()
        ? `${size} ${createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16)}`
        : facts.isSymbolicLink()
          ? readlinkSync(path)
          : ''
      return `${name} ${mode.toString(8)} ${uid}:${gid} ${content}`
    })
}

export interface Legacy {
  image: { id: string; name: string }
  /** Of the root disk, bytes. */
  root: number
  ephemeral?: number
  swap?: number
  /** Format of each disk, as it is pinned. */
  pins: Partial<Record<DiskName, 'qcow2' | 'raw'>>
  /** The format is known from the definition alone: hosts older than disk.info. */
  onlyXml?: boolean
}

/**
 * An instance of another tool that cowhand is to take over: its disks are there already, and what it was wished to be is
 * written down.
 */
export function adopt(host: PairHost, name: string, { image, pins, onlyXml = false, ...sizes }: Legacy): void {
  const directory = host.file(inside(host, name))
  mkdirSync(directory, { recursive: true })
  const record: InstanceRecord = { version: 1, name, uuid: randomUUID(), image, ...sizes, 'os-type': 'linux' }
  const write = (file: string, text: string) => writeFileSync(join(directory, file), text)
  write('instance.json', `${JSON.stringify(record)}\n`)
  const disks = Object.entries(pins)
  if (!onlyXml) {
    write('disk.info', JSON.stringify(Object.fromEntries(disks.map(([file, pin]) => [inside(host, name, file), pin]))))
    return
  }
  const devices = disks.map(
    ([file, pin], i) =>
      `<disk type='file' device='disk'><driver name='qemu' type='${pin}'/><source file='${inside(host, name, file)}'/><target dev='vd${'abc'[i]}' bus='virtio'/></disk>`,
  )
  write(
    'libvirt.xml',
    `<domain type='qemu'><name>${name}</name><uuid>${record.uuid}</uuid><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>${devices.join('')}</devices></domain>`,
  )
}
