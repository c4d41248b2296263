import { closeSync, constants, openSync, readFileSync, readSync } from 'node:fs'
import type { Settings } from '../job/settings.ts'
import { formatSize } from '../job/spec.ts'
import { ask } from './ask.ts'

/** Level of rsync's --compress-level; 0: none. Both ends agree on zstd where they have it, else on zlib. */
export interface Compression {
  level: 0 | 1 | 3
  /** In words, for people. */
  reason: string
}

/** What leads to another host. */
export interface Link {
  /** It leads to this very host. */
  isHere?: boolean
  /** Mbit/s, as far as the device tells. */
  speed?: number
}

/** What is to be sent. */
export interface Data {
  /** Bytes of a sample that was compressed, to those it had: 0 to 1. */
  ratio: number
  /** Bytes that a reader sees, and those that are allocated. */
  size: number
  allocated: number
}

/** Mbit/s: from here on the processor is the narrow place; below, it has time to do better. */
const [fast, slow] = [25_000, 300]

/**
 * Which compression pays: seen with zstd at 500 MB/s and a core for each end, it halves a usual disk's way on all that
 * is slower. @param rate bytes per second, at most
 */
export function compressionFor(wish: Settings['compress'], link: Link, data: Data, rate?: number): Compression {
  if (wish === 'none') return { level: 0, reason: 'none was asked for' }
  const limit = rate === undefined ? undefined : (rate * 8) / 1e6
  const speeds = [link.speed, limit].filter((speed) => speed !== undefined)
  const speed = speeds.length > 0 ? Math.min(...speeds) : undefined
  const level = speed !== undefined && speed < slow ? 3 : 1
  const by = speed === undefined ? 'the link tells no speed' : `the link has ${Math.round(speed)} Mbit/s`
  if (wish === 'zstd') return { level, reason: `it was asked for, and ${by}` }
  // rsync sends holes as zeros.
  if (data.allocated < data.size * 0.9)
    return { level, reason: `of ${formatSize(data.size)} only ${formatSize(data.allocated)} are allocated` }
  if (link.isHere && limit === undefined) return { level: 0, reason: 'it goes to this very host' }
  if (speed !== undefined && speed >= fast) return { level: 0, reason: by }
  const percent = `a sample of the data shrinks to ${Math.round(data.ratio * 100)} %`
  if (data.ratio > 0.9) return { level: 0, reason: percent }
  return { level, reason: `${percent}, and ${by}` }
}

/** Of a sample: pieces, and bytes of each. */
const [pieces, piece] = [16, 2 ** 15]
const zeros = Buffer.alloc(piece)

/**
 * How well data compresses, by a sample spread over all files: deflated bytes to plain ones. Zeros do not count, for
 * they say nothing of the rest.
 * @param files size in bytes
 */
export async function sampleRatio(files: { path: string; size: number }[]): Promise<number> {
  const { deflateRawSync } = await import('node:zlib')
  const total = files.reduce((sum, { size }) => sum + size, 0)
  const buffer = Buffer.alloc(piece)
  let [plain, packed] = [0, 0]
  // Where a piece is a hole, others are tried, between those.
  for (let round = 0; round < 8; round++)
    for (let index = 0; index < pieces && plain < pieces * piece; index++) {
      const bytes = bytesAt(files, ((index + round / 8) / pieces) * total, buffer)
      if (bytes.equals(zeros.subarray(0, bytes.length))) continue
      plain += bytes.length
      packed += deflateRawSync(bytes, { level: 1 }).length
    }
  return plain === 0 ? 0 : Math.min(packed / plain, 1)
}

/** A piece of the files taken as one, without the end of a file where it would go beyond. */
function bytesAt(files: { path: string; size: number }[], position: number, buffer: Buffer): Buffer {
  let at = Math.floor(position / 4096) * 4096
  for (const { path, size } of files) {
    if (at >= size) {
      at -= size
      continue
    }
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
    try {
      return buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, Math.max(0, at)))
    } finally {
      closeSync(fd)
    }
  }
  return buffer.subarray(0, 0)
}

const links = new Map<string, Promise<Link>>()

/** What leads to a host, looked up once in a run: a plan asks for it, and what follows from the plan. Never throws. */
export function linkTo(host: string): Promise<Link> {
  const link = links.get(host) ?? lookUp(host)
  links.set(host, link)
  return link
}

/** By the address that the kernel would send from, and the device which has that. */
async function lookUp(host: string): Promise<Link> {
  try {
    // By a program, which can be ended where a name server is silent.
    const { stdout } = await ask(['getent', 'ahosts', '--', host], { limit: 2000 })
    const [address] = stdout.split(/\s/)
    if (!address) return {} // a Host of an ssh_config, say
    const local = await sendsFrom(address)
    if (local === undefined) return {}
    if (local === address) return { isHere: true }
    const { networkInterfaces } = await import('node:os')
    const [device] =
      Object.entries(networkInterfaces()).find(([, all]) => all?.some((one) => one.address === local)) ?? []
    if (device === undefined) return {}
    const speed = Number(readFileSync(`/sys/class/net/${device}/speed`, 'latin1'))
    return speed > 0 ? { speed } : {}
  } catch {
    return {} // a device without a speed fails to read
  }
}

/** Nothing is sent by it: a connected socket of UDP has only chosen its route. */
async function sendsFrom(address: string): Promise<string | undefined> {
  const { createSocket } = await import('node:dgram')
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  return await new Promise<string | undefined>((resolve) => {
    socket.once('error', () => resolve(undefined))
    socket.connect(9, address, () => resolve(socket.address().address))
  }).finally(() => socket.close())
}
