import { hostname } from 'node:os'
import { isTravelling } from '../job/arrival.ts'
import {
  basesOf,
  diskNames,
  instanceLock,
  instanceOf,
  isBaseFile,
  keptOf,
  kindOfBase,
  locksOf,
  stageOf,
} from '../job/layout.ts'
import type { Answer, AnsweredBase, BaseIdentity, Offer, Order } from '../job/move.ts'
import { Problem, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { isWeak } from '../job/spec.ts'
import { nameOfContent } from '../job/ways.ts'
import { requireProgram } from './ask.ts'
import { type Base, baseAt, proofOf, requireSound } from './bases.ts'
import { isSameBase } from './compare.ts'
import { freeSpace, namesIn, ownNamesIn, probeOf, requireSpace, requireWritable } from './files.ts'
import { bootId } from './holder.ts'
import { instanceAt } from './instances.ts'
import { type DomainFacts, domainAt, domainNames, hasEnded } from './libvirt.ts'
import { clearStage, sayMark, stageAt } from './stage.ts'

// What the destination of a resize or migration has, and whether it will have the instance. Nothing is changed: the
// guest runs on the source meanwhile, and whatever can be refused is refused now (BEHAVIOUR.md S60, S66, S75, S76).

/**
 * Answer an offer.
 * @param shared both hosts see the same files [as the offer's probe tells]
 * @throws {Problem} DESTINATION_EXISTS where something else has its name here; TOOL_MISSING, TOOL_FAILED; UNSUPPORTED or
 *   MISSING_PREREQUISITE where its guest cannot be run here; NOT_OURS
 */
export async function answerTo(
  offer: Offer,
  settings: Settings,
  { signal, shared = isShared(offer, settings.instances) }: { signal: AbortSignal; shared?: boolean },
): Promise<Answer> {
  const { instances, libvirt_uri: uri } = settings
  const { name, move } = offer
  if (!shared) await requireHands(name, instances, signal)
  const arrived = !shared && requirePlace(offer, instances)
  for (const program of shared ? [] : ['qemu-img', 'rsync']) await requireProgram(program)
  const domain = await requireDomain(offer, settings, shared || arrived)
  const running = !hasEnded(domain)
  if (!arrived && !running) await requireGuest(offer, settings, shared)
  const bases: AnsweredBase[] = []
  for (const [base, identity] of shared ? [] : basesIn(offer)) {
    signal.throwIfAborted()
    bases.push(await answerBase(base, identity, settings))
  }
  const { rsyncd_port: port, rsyncd_module: module, rsyncd_user: user } = settings
  return {
    version: 1,
    move,
    host: hostname(),
    boot: bootId(),
    instances,
    shared,
    libvirt: uri !== undefined,
    instance: arrived ? 'arrived' : 'absent',
    running,
    proven: shared ? [] : provenOf(arrived ? instanceOf(instances, name) : stageOf(instances, name)),
    free: freeSpace(instances),
    bases,
    rsyncd: { port, module, ...(user === undefined ? {} : { user }) },
  }
}

/** Two hosts cannot have the same inode with the same time of change, in ns, but of one file. */
function isShared({ name, probe }: Offer, instances: string): boolean {
  const seen = [instanceOf(instances, name), keptOf(instances, name)].map((path) => probeOf(`${path}/instance.json`))
  return seen.some((own) => own?.inode === probe.inode && own.changed === probe.changed && own.size === probe.size)
}

/**
 * Nobody works on an instance of this name here, and instances can be made at all.
 * @throws {Problem} LOCKED, NO_PERMISSION
 */
async function requireHands(name: string, instances: string, signal: AbortSignal): Promise<void> {
  requireWritable(instances)
  const { requireFree } = await import('./locks.ts')
  // What an earlier connection began may still be ending.
  await requireFree(locksOf(instances), instanceLock(name), { wait: 30, signal })
}

/** @returns whether this very move brought it already @throws {Problem} DESTINATION_EXISTS */
function requirePlace({ name, move, replaces }: Offer, instances: string): boolean {
  const [directory, kept, stage] = [instanceOf(instances, name), keptOf(instances, name), stageOf(instances, name)]
  const exists = (state: string, remedy: string) =>
    refuse('DESTINATION_EXISTS', `Cannot receive "${name}": ${state}`, remedy)
  if (instanceAt(directory)?.arrived?.move === move) return true
  if (ownNamesIn(directory))
    exists(`"${directory}" is there`, `look at it: cowhand show ${name}; or choose another host`)
  if (ownNamesIn(kept))
    exists(
      `"${kept}" is there: an instance of this name left it not long ago`,
      `drop what was kept to go back to: cowhand confirm ${name}`,
    )
  const mark = stageAt(stage)?.mark
  if (mark && mark.move !== move && mark.move !== replaces)
    exists(`another one is arriving, ${sayMark(mark)}`, clearStage(stage, mark.move))
  return false
}

/**
 * The domain that libvirt has here already. @param isOurs the instance is here, and may have one
 * @throws {Problem} UNSUPPORTED, DESTINATION_EXISTS, TOOL_FAILED, TOOL_MISSING
 */
async function requireDomain(
  { name, record, domain }: Offer,
  { libvirt_uri: uri }: Settings,
  isOurs: boolean,
): Promise<DomainFacts | undefined> {
  if (uri === undefined) {
    if (!domain) return undefined
    return refuse(
      'UNSUPPORTED',
      `Cannot receive "${name}": no libvirt is configured, and its guest is to run`,
      'set libvirt_uri: qemu:///system in /etc/cowhand/cowhand.yaml',
    )
  }
  // libvirt takes neither a second one of this name, nor of this uuid.
  const { uuid } = record
  const found = (await domainNames(uri)).find((other) => other.name === name || other.uuid === uuid)
  if (!found) return undefined
  if (!isOurs || found.name !== name || found.uuid !== uuid)
    refuse(
      'DESTINATION_EXISTS',
      `Cannot receive "${name}": libvirt has a domain "${found.name}", ${found.uuid}`,
      `look at it: virsh -c ${uri} dumpxml ${found.uuid}; or choose another host`,
    )
  return domainAt(uri, name)
}

/** Its guest will be able to start here. @throws {Problem} as requireStartable */
async function requireGuest(
  { name, xml, domain, instances: from }: Offer,
  { instances, libvirt_uri: uri, virt_type: virtType }: Settings,
  shared: boolean,
): Promise<void> {
  if (uri === undefined || !domain || xml === undefined) return
  const [{ moveDomain }, { requireStartable }] = await Promise.all([
    import('./domain-move.ts'),
    import('./startable.ts'),
  ])
  const directory = instanceOf(instances, name)
  await requireStartable(moveDomain(xml, { name, from: instanceOf(from, name), to: directory, disks: [] }), {
    uri,
    name,
    verb: `run "${name}"`,
    directory,
    isRenewed: !shared,
    runsHere: false,
    isNew: !domain.run,
    virtType,
  })
}

/** Files of an instance that are proven: what is still to be has no name here yet. */
function provenOf(directory: string): string[] {
  const names = namesIn(directory) ?? []
  const state = (namesIn(`${directory}/tpm`) ?? []).map((name) => `tpm/${name}`)
  return [...names, ...state].filter((name) => (diskNames as readonly string[]).includes(name) || isTravelling(name))
}

/** Each base that is asked for, once, with what the source tells of it. */
function basesIn({ disks }: Offer): Map<string, BaseIdentity> {
  const found = new Map<string, BaseIdentity>()
  for (const { base } of disks) {
    if (!base) continue
    found.set(base.name, { ...found.get(base.name), ...base.identity })
    // Under this name the base is sent where there is another of its own name.
    const { content } = base.identity
    if (content !== undefined) {
      const other = nameOfContent(base.name, content)
      found.set(other, { content, ...found.get(other) })
    }
    // What the sized base is, zeros apart, the unsized one has to be; where that differs, only the source's own can tell.
    const { unsized } = base
    if (!unsized) continue
    const told = { ...(unsized.is === 'differs' ? {} : base.identity), ...unsized.identity }
    found.set(unsized.name, { ...found.get(unsized.name), ...told })
  }
  return found
}

/** What is here of a base that the source has. Whatever is wrong with ours: it is not the source's. */
export async function answerBase(name: string, theirs: BaseIdentity, settings: Settings): Promise<AnsweredBase> {
  const path = `${basesOf(settings.instances)}/${name}`
  if (!isBaseFile(name)) return { name, is: 'differs', why: 'that is no name of a base' }
  let size: number | undefined
  try {
    const base = baseAt(path)
    if (!base) return { name, is: 'absent', ...(await sourceOf(name, theirs, settings)) }
    size = base.size
    requireSound(path, base, await proofOf(path, base, {}))
    return { name, size, ...(await compared(path, base, theirs)) }
  } catch (error) {
    if (!(error instanceof Problem) || error.code === 'INTERRUPTED') throw error
    return { name, is: 'differs', why: error.message, ...(size === undefined ? {} : { size }) }
  }
}

async function compared(path: string, base: Base, theirs: BaseIdentity): Promise<Pick<AnsweredBase, 'is' | 'why'>> {
  const isSame = await isSameBase(path, base, theirs)
  if (isSame === undefined) return { is: 'unproven', why: 'the source tells nothing that it could be compared with' }
  return isSame ? { is: 'equal' } : { is: 'differs', why: 'its content is another than on the source' }
}

/** Where a base that is not here can be had, other than from the source. */
async function sourceOf(
  name: string,
  theirs: BaseIdentity,
  settings: Settings,
): Promise<Pick<AnsweredBase, 'from' | 'fetch' | 'why'>> {
  const kind = kindOfBase(name)
  if (kind === 'ephemeral' || kind === 'swap') return { from: 'maker' }
  if (kind !== 'image') return {}
  // That it is the source's is proven before the guest is switched off: by the image, or by its content once it is made.
  const { digest, content } = theirs
  if (digest === undefined && content === undefined) return { why: 'the source cannot tell which image it was made of' }
  try {
    const { findBaseImage } = await import('../image/store.ts')
    const image = await findBaseImage(name, settings)
    if (!image) return { why: 'the image is not in the store' }
    const isSame = image.digest === digest && image.format === theirs.format && image.packing === theirs.packing
    if (digest !== undefined && !isSame) return { why: 'the store has another image under its id' }
    if (isWeak(image.digest)) return { why: 'only a digest that can be forged vouches for the image in the store' }
    const isLocal = image.source.startsWith('/')
    return { from: 'store', ...(isLocal || image.size === undefined ? {} : { fetch: image.size }) }
  } catch (error) {
    // An image that was deleted, or a store that is out of reach, is no obstacle: the source has the base.
    if (!(error instanceof Problem) || error.code === 'INTERRUPTED') throw error
    return { why: error.message }
  }
}

/**
 * Refuse an order before anything of it is made where there is no room for it.
 * @param free bytes in `directory`
 * @param here bytes that have arrived of it already
 * @throws {Problem} NO_SPACE
 */
export function requireRoom({ ways }: Pick<Order, 'ways'>, free: number, directory: string, here = 0): void {
  const bases = new Map(
    ways.flatMap(({ base }) => (base && base.from !== 'cache' ? [[base.name, base.allocated] as const] : [])),
  )
  const sent = ways.reduce((sum, { send }) => sum + send, 0)
  const made = [...bases.values()].reduce((sum, bytes) => sum + bytes, 0)
  requireSpace(Math.max(0, sent - here) + made, free, directory)
}
