import { type Dirent, lstatSync, readdirSync, realpathSync, type Stats, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Doubt } from '../job/clean.ts'
import { baseOfFile, basesOf, type DiskName, isBaseFile, kindOfBase, markOf } from '../job/layout.ts'
import { errno, Problem } from '../job/problem.ts'
import { namesIn } from './files.ts'
import { locksTaken } from './locks.ts'
import { backingOf, type Definition, definitionOf, isLog, isText, pathsIn, readDefinition, wordsIn } from './needs.ts'
import { pinsOf } from './pins.ts'

// Who stands on which base. Taking a base for needed too often harms nobody; once too seldom, a guest loses its disk.
// So every file that could be an overlay counts, by every spelling of a base's name, and what cannot be told is said.

export interface Usage {
  /**
   * By the base's name, who needs it, sorted: `web1/disk`, `web1_resize/disk`, `web1/libvirt.xml`, `domain web1`, or
   * `_base/NAME` for another base.
   */
  users: Map<string, string[]>
  /** With any of these, a base without users may be needed all the same. */
  doubts: Doubt[]
}

/**
 * Who needs which base: all overlays in the directories of instances (also NAME_resize, NAME.incoming and parts), what
 * these stand on elsewhere, each libvirt.xml, and libvirt's own domains. No program is started but one virsh, where
 * libvirt is configured. Headers and definitions are remembered as long as their files stay as they are, so that to
 * look again costs little.
 * @param uri libvirt that runs the guests
 * @throws {Problem} TOOL_FAILED where libvirt is out of reach
 */
export async function usageOf(instances: string, uri: string | undefined): Promise<Usage> {
  const scan = new Scan(instances)
  scan.directories()
  if (uri !== undefined) {
    const { domainsIn } = await import('./libvirt.ts')
    for (const xml of await domainsIn(uri))
      scan.domain(`domain ${/<name>(.*?)<\/name>/.exec(xml)?.[1]}`, readDefinition(xml))
  }
  await scan.strangers()
  scan.bases()
  return scan.result()
}

let last: { instances: string; uri: string | undefined; locks: number; usage: Usage } | undefined

/**
 * As usageOf, for whoever has the locks of the bases that are in question, or only plans: what was seen is not looked
 * for again until this process takes a further lock. No disk can come to a base while we have its lock.
 */
export async function usageUnderLocks(instances: string, uri: string | undefined): Promise<Usage> {
  const locks = locksTaken()
  if (last?.instances === instances && last.uri === uri && last.locks === locks) return last.usage
  last = { instances, uri, locks, usage: await usageOf(instances, uri) }
  return last.usage
}

/** To look once more at what changed in the middle of a look; nobody is that busy. */
const mostTries = 100

const lastOf = (path: string): string => path.slice(path.lastIndexOf('/') + 1)
const lookAtIt = (path: string): string => `look at it, and move it away if nobody needs it: qemu-img info ${path}`

class Scan {
  readonly #instances: string
  readonly #bases: Set<string>
  /** Bases by device and inode, for whatever name leads to them. Made when it is needed. */
  #inodes: Map<string, string> | undefined
  readonly #users = new Map<string, Set<string>>()
  readonly #doubts: Doubt[] = []
  /** Backing files that are not simply a base: they are followed at the end. */
  readonly #strange: { user: string; path: string; doubt?: Doubt; isRaw?: boolean }[] = []
  /** Directories that links lead to: each is looked at once, so that a circle of links has an end. */
  readonly #linked = new Set<string>()
  /** What files elsewhere stand on, by path. */
  readonly #followed = new Map<string, string[]>()

  constructor(instances: string) {
    this.#instances = instances
    this.#bases = new Set((namesIn(basesOf(instances)) ?? []).filter(isBaseFile))
  }

  result(): Usage {
    const doubts = [...new Map(this.#doubts.map((doubt) => [doubt.path, doubt])).values()]
    const users = [...this.#users].map(([base, of]): [string, string[]] => [base, withoutEchoes([...of].sort())])
    return { users: new Map(users), doubts }
  }

  #doubt(path: string, error: unknown, user?: string): void {
    this.#doubts.push(doubtOf(path, error, user))
  }

  #use(base: string, user: string): void {
    const users = this.#users.get(base)
    if (users) users.add(user)
    else this.#users.set(base, new Set([user]))
  }

  /** Every directory beside `_base`, and what else is there. */
  directories(): void {
    const done = new Set(['_base', 'locks'])
    this.#untilSteady(this.#instances, () => {
      let isSteady = true
      for (const entry of entriesIn(this.#instances)) {
        const { name } = entry
        if (done.has(name)) continue
        if (this.#attempt(name, () => (entry.isDirectory() ? this.#directory(name) : this.#entry(name)))) done.add(name)
        else isSteady = false
      }
      return isSteady
    })
    // What somebody keeps among the bases.
    for (const entry of entriesIn(basesOf(this.#instances)))
      if (entry.isDirectory()) this.#attempt(`_base/${entry.name}`, () => this.#directory(`_base/${entry.name}`))
  }

  /**
   * Look until nothing vanished meanwhile. What is gone when its turn comes was removed, or it has another name now:
   * then the names are read again, so that it is met under that.
   */
  #untilSteady(path: string, look: () => boolean): void {
    for (let tries = 0; tries < mostTries; tries += 1) if (look()) return
    this.#doubts.push({ path, state: 'it changes all the time', remedy: 'run the same command again' })
  }

  /** @param name below the instances @returns false where it vanished meanwhile */
  #attempt(name: string, look: () => void): boolean {
    const path = `${this.#instances}/${name}`
    try {
      look()
    } catch (error) {
      if (errno(error) !== 'ENOENT' || lstatSync(path, { throwIfNoEntry: false })) this.#doubt(path, error)
      else if (!name.includes('\ufffd')) return false
      else this.#doubts.push({ path, state: 'its name is not UTF-8', remedy: `rename it: ls -b ${dirname(path)}` })
    }
    return true
  }

  #directory(name: string): void {
    const path = `${this.#instances}/${name}`
    this.#untilSteady(path, () => {
      let isSteady = true
      // A part that is gone has its final name by now.
      for (const inner of readdirSync(path))
        if (!this.#attempt(`${name}/${inner}`, () => this.#entry(`${name}/${inner}`))) isSteady = false
      return isSteady
    })
  }

  #entry(name: string): void {
    const path = `${this.#instances}/${name}`
    const facts = lstatSync(path)
    if (facts.isFile()) this.#file(name, path, facts)
    else if (facts.isDirectory()) this.#directory(name)
    else if (facts.isSymbolicLink()) {
      // A disk or an instance may have been moved to another file system.
      const target = realpathSync(path)
      const there = statSync(target)
      if (there.isFile()) this.#file(name, target, there)
      else if (there.isDirectory()) this.#linkTo(target, name)
      else if (there.isBlockDevice()) this.#strange.push({ user: name, path: target })
    }
  }

  #linkTo(target: string, name: string): void {
    if (this.#linked.has(target)) return
    this.#linked.add(target)
    try {
      this.#directory(name)
    } catch (error) {
      this.#linked.delete(target) // the link vanished: it has another name by now
      throw error
    }
  }

  #file(user: string, path: string, facts: Stats): void {
    const name = lastOf(user)
    if (isText(name)) return
    try {
      if (name === 'libvirt.xml') this.domain(user, definitionOf(path, facts))
      else this.#stand(user, backingOf(path, facts), dirname(`${this.#instances}/${user}`))
    } catch (error) {
      if (errno(error) === 'ENOENT') throw error
      if (isLog(name)) return
      this.#strange.push({ user, path: '', doubt: doubtOf(`${this.#instances}/${user}`, error) })
    }
  }

  /** The user stands on what has this name in its header. @param directory that a relative name starts from */
  #stand(user: string, backing: string | undefined, directory: string): void {
    if (!backing) return
    for (const base of this.#basesNamedIn(backing)) this.#use(base, user)
    if (isLog(lastOf(user))) return
    for (const path of this.#elsewhere(backing, directory)) this.#strange.push({ user, path })
  }

  /** Bases by the last part of a name: the directory may be written in another way (a link, another mount or host). */
  #basesNamedIn(backing: string): string[] {
    return wordsIn(backing)
      .map(lastOf)
      .filter((name) => this.#bases.has(name))
  }

  /** Paths that a backing file's name leads to, other than into our `_base`. */
  #elsewhere(backing: string, directory: string): string[] {
    return pathsIn(backing)
      .map((path) => resolve(directory, path))
      .filter((path) => dirname(path) !== basesOf(this.#instances))
  }

  /** A domain's definition: each base that it names anywhere, and what its disks elsewhere stand on. */
  domain(user: string, { paths, disks, raw }: Definition): void {
    for (const base of paths.map(lastOf)) if (this.#bases.has(base)) this.#use(base, user)
    for (const path of disks)
      if (!path.startsWith(`${this.#instances}/`)) this.#strange.push({ user, path: resolve('/', path) })
    for (const path of raw) this.#strange.push({ user, path: resolve('/', path), isRaw: true })
  }

  /** Follow what is not simply on a base. A disk that is pinned as raw stands on nothing, whatever its guest wrote. */
  async strangers(): Promise<void> {
    const pins = new Map<string, (disk: DiskName) => string>()
    for (const { user, path, doubt, isRaw } of this.#strange) {
      if (this.#isArriving(user)) continue
      const [directory, name] = [dirname(`${this.#instances}/${user}`), lastOf(user)]
      if (!user.startsWith('domain ') && name !== 'libvirt.xml') {
        const pin = pins.get(directory) ?? (await pinsOf(directory).catch(() => () => 'unknown'))
        pins.set(directory, pin)
        if (pin(name.replace(/\.(part|unpacked)$/, '') as DiskName) === 'raw') continue
      }
      if (doubt) this.#doubts.push(doubt)
      else for (const base of isRaw ? this.#itself(path, user) : this.#follow(path, user)) this.#use(base, user)
    }
  }

  /**
   * It came from another host, is perhaps only half here, and what it names is on that host. Before anything was sent,
   * empty disks were put on every base that it is going to need (NAME.incoming/reserved), and these count.
   */
  #isArriving(user: string): boolean {
    const [, stage] = /^([^/]+\.incoming)\//.exec(user) ?? []
    return (
      stage !== undefined && lstatSync(markOf(`${this.#instances}/${stage}`), { throwIfNoEntry: false }) !== undefined
    )
  }

  /** Names of the bases that a file is, or stands on. @param user what needs it */
  #follow(path: string, user: string): string[] {
    const known = this.#followed.get(path)
    if (known) return known
    const found: string[] = []
    this.#followed.set(path, found) // a chain may be a circle
    try {
      const facts = statSync(path)
      if (!facts.isFile() && !facts.isBlockDevice()) return found // opening another device could do something
      const same = this.#baseWith(facts)
      if (same !== undefined) found.push(same)
      const backing = backingOf(realpathSync(path), facts)
      if (!backing) return found
      found.push(...this.#basesNamedIn(backing))
      for (const next of this.#elsewhere(backing, dirname(path))) found.push(...this.#follow(next, user))
    } catch (error) {
      // A base by a path of another host, or of before a move: it counted by its name, or is none of ours.
      const isBase = this.#bases.has(lastOf(path)) || dirname(path).endsWith('/_base')
      if (errno(error) !== 'ENOENT' || !isBase) this.#doubt(path, error, user)
    }
    return found
  }

  /** The base that a raw disk is. */
  #itself(path: string, user: string): string[] {
    try {
      return [this.#baseWith(statSync(path)) ?? []].flat()
    } catch (error) {
      if (errno(error) !== 'ENOENT') this.#doubt(path, error, user) // it stands on nothing, so that nothing is missed
      return []
    }
  }

  #baseWith(facts: Stats): string | undefined {
    this.#inodes ??= new Map(
      [...this.#bases].flatMap((name): [string, string][] => {
        const found = lstatSync(`${basesOf(this.#instances)}/${name}`, { throwIfNoEntry: false })
        return found ? [[`${found.dev}:${found.ino}`, name]] : []
      }),
    )
    return this.#inodes.get(`${facts.dev}:${facts.ino}`)
  }

  /** Bases are raw; another tool's may be a qcow2 and stand on one. A file of somebody's among them is an overlay of his. */
  bases(): void {
    const asks = (base: string) => {
      for (const below of this.#follow(`${basesOf(this.#instances)}/${base}`, `_base/${base}`))
        if (below !== base) this.#use(below, `_base/${base}`)
    }
    for (const name of namesIn(basesOf(this.#instances)) ?? [])
      if (kindOfBase(baseOfFile(name)) === 'unknown') asks(name)
    for (const base of this.#users.keys()) asks(base) // also those that come to it meanwhile
  }
}

/** A domain that names what the disks in its directory stand on tells nothing new. */
function withoutEchoes(users: string[]): string[] {
  const disks = new Set(users.filter((user) => !/\/libvirt\.xml$/.test(user)).map((user) => user.split('/')[0]))
  return users.filter((user) => {
    const [, instance] = /^(?:domain (.+)|(.+)\/libvirt\.xml)$/.exec(user)?.filter(Boolean) ?? []
    return instance === undefined || !disks.has(instance)
  })
}

function entriesIn(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
  } catch (error) {
    if (errno(error) === 'ENOENT') return []
    throw error
  }
}

function doubtOf(path: string, error: unknown, user?: string): Doubt {
  if (error instanceof Problem) {
    const state = error.message.replace(/^Cannot use image ".*?": /, '')
    return { path, state, remedy: lookAtIt(path) }
  }
  switch (errno(error)) {
    case 'ENOENT':
      return {
        path,
        state: user === undefined ? 'what it leads to is missing' : `it is missing, and ${user} needs it`,
        remedy: `mount what it is on; or remove what needs it, if nobody wants it any more`,
      }
    case 'EACCES':
    case 'EPERM':
      return { path, state: 'permission denied', remedy: 'run it as root' }
  }
  return { path, state: error instanceof Error ? error.message : String(error), remedy: lookAtIt(path) }
}
