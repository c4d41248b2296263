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

/** Backing file's name in the header of a file, as backingNameAt; once for each state of the file. */
export const backingOf = remembering(backingNameAt)

/** Paths in the definition of a domain; read once for each state of the file. */
export const definitionOf = remembering((path) => readDefinition(readFileSync(path, 'utf8')))

/** Files of an instance that are no disks. A guest writes into its console logs: whatever it writes there means nothing. */
export const isText = (name: string): boolean => /^console\.log|\.log(\.\d+)?$|^disk\.info$|\.json$/.test(name)

/** Paths in a backing file's name: one, or all that a `json:` names; none of another protocol. */
export function pathsIn(backing: string): string[] {
  if (backing.startsWith('json:')) return [...backing.matchAll(/"(?:file:)?(\/[^"]*)"/g)].map(([, path = '']) => path)
  const path = backing.replace(/^file:/, '')
  return /^[A-Za-z][A-Za-z0-9+.-]*:/.test(path) ? [] : [path]
}

/** What a backing file's name may call a file: whatever is a word in it. */
export const wordsIn = (backing: string): string[] =>
  backing.startsWith('json:') ? [...backing.matchAll(/"([^"]*)"/g)].map(([, word = '']) => word) : [backing]

/** What counts of a domain's definition when it is asked which files it needs. */
export interface Definition {
  /** Every absolute path in it, wherever it stands. */
  paths: string[]
  /** Those that are files of its disks, or below these. */
  disks: string[]
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }
const plain = (text: string): string => text.replace(/&(\w+);/g, (whole, name) => entities[name] ?? whole)

/**
 * Paths in the definition of a domain, taken from its text: what looks like one may be none, and that does no harm.
 * The medium in a drive is not asked for: it is no overlay, and one that is gone is usual.
 */
export function readDefinition(xml: string): Definition {
  const paths = [...xml.matchAll(/["'>](\/[^"'<>]*)["'<]/g)].map(([, path = '']) => plain(path))
  const disks = xml
    .split(/<disk\b/)
    .slice(1)
    .flatMap((rest) => {
      const disk = rest.slice(0, rest.indexOf('</disk>'))
      if (/^[^>]*\bdevice=["'](cdrom|floppy)["']/.test(disk)) return []
      return [...disk.matchAll(/<source\b[^>]*?\bfile=(["'])(\/.*?)\1/g)].map(([, , path = '']) => plain(path))
    })
  return { paths, disks }
}
