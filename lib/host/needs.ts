import { readFileSync, type Stats } from 'node:fs'
import { backingNameAt } from '../image/backing.ts'

// What one file says that it needs: an overlay by its header, a domain by its definition.

/** What a file held when it was read, and the file's facts then. */
interface Memory<T> {
  inode: number
  size: number
  changed: number
  content: T
}

/** Read files, but none again that is as it was. @param read the content that counts, for a path */
function remembering<T>(read: (path: string) => T): (path: string, facts: Stats) => T {
  const memory = new Map<string, Memory<T>>()
  return (path, { ino: inode, size, ctimeMs: changed }) => {
    const known = memory.get(path)
    if (known?.inode === inode && known.size === size && known.changed === changed) return known.content
    const content = read(path)
    // Clocks of file systems tick slowly: what changed just now could change again without a trace.
    if (Math.abs(Date.now() - changed) > 2000) memory.set(path, { inode, size, changed, content })
    return content
  }
}

const backingOfFile = remembering(backingNameAt)

/**
 * Backing file's name in the header of a file, as backingNameAt; once for each state of the file. A block device is
 * read each time: its node does not change with what is on it.
 */
export const backingOf = (path: string, facts: Stats): string | undefined =>
  facts.isBlockDevice() ? backingNameAt(path, true) : backingOfFile(path, facts)

/** Paths in the definition of a domain; read once for each state of the file. */
export const definitionOf = remembering((path) => readDefinition(readFileSync(path, 'utf8')))

/** Files of an instance that are no disks. A guest writes into its console logs: whatever it writes there means nothing. */
export const isText = (name: string): boolean => /^console\.log(\.\d+)?$|^disk\.info$|^instance\.json$/.test(name)

/** Perhaps the log of another serial port, or a disk that is called like one: it counts where it names a base. */
export const isLog = (name: string): boolean => /\.log(\.\d+)?$/.test(name)

/** Paths in a backing file's name: one, or all that a `json:` names; none of another protocol. */
export function pathsIn(backing: string): string[] {
  if (backing.startsWith('json:'))
    return wordsIn(backing)
      .map((word) => word.replace(/^file:/, ''))
      .filter((word) => word.startsWith('/'))
  const path = backing.replace(/^file:/, '')
  return /^[A-Za-z][A-Za-z0-9+.-]*:/.test(path) ? [] : [path]
}

/** What a backing file's name may call a file: whatever is a word in it. */
export const wordsIn = (backing: string): string[] =>
  backing.startsWith('json:')
    ? [...backing.matchAll(/"([^"]*)"/g)].map(([, word = '']) => word.replaceAll('\\/', '/'))
    : [backing]

/** What counts of a domain's definition when it is asked which files it needs. */
export interface Definition {
  /** Every absolute path in it, wherever it stands. */
  paths: string[]
  /** Those that are files or block devices of its disks, or below these. */
  disks: string[]
  /** Those of its raw disks: whatever their guests wrote into them, these stand on nothing. */
  raw: string[]
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
const plain = (text: string): string => text.replace(/&(\w+);/g, (whole, name) => entities[name] ?? whole)

/**
 * Paths in the definition of a domain, taken from its text: what looks like one may be none, and that does no harm.
 * The medium in a drive is not asked for: it is no overlay, and one that is gone is usual.
 */
export function readDefinition(xml: string): Definition {
  const paths = [...xml.matchAll(/["'>](\/[^"'<>]*)["'<]/g)].map(([, path = '']) => plain(path))
  const found: Definition = { paths, disks: [], raw: [] }
  for (const rest of xml.split(/<disk\b/).slice(1)) {
    const disk = rest.slice(0, rest.indexOf('</disk>'))
    if (/^[^>]*\bdevice=["'](cdrom|floppy)["']/.test(disk)) continue
    const [, type] = /<driver\b[^>]*?\btype=["'](.*?)["']/.exec(disk) ?? []
    // Of a disk that is being copied, the copy may be of another format.
    const isRaw = type === 'raw' && !disk.includes('<mirror')
    for (const [, kind, , path = ''] of disk.matchAll(/<source\b[^>]*?\b(file|dev)=(["'])(\/.*?)\2/g))
      if (kind === 'file' || (type !== undefined && !isRaw)) found[isRaw ? 'raw' : 'disks'].push(plain(path))
  }
  return found
}
