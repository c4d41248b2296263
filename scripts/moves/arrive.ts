import { moveDomain } from '../../lib/host/domain-move.ts'
import { fileAt, ownNamesIn } from '../../lib/host/files.ts'
import type { Image } from '../../lib/image/image.ts'
import * as layout from '../../lib/job/layout.ts'
import type { MoveReference, Order, OrderedDisk } from '../../lib/job/move.ts'
import { fail } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import type { EphemeralFormat } from '../../lib/job/spec.ts'
import { type Call, call } from '../../lib/job/step.ts'
import { agreementOf } from '../../lib/job/ways.ts'
import { awaitDomain } from '../steps/await-domain.ts'
import { cacheBase, fromImage } from '../steps/cache-base.ts'
import { collectState } from '../steps/collect-state.ts'
import { createOverlay } from '../steps/create-overlay.ts'
import { growDisk } from '../steps/grow-disk.ts'
import { growFileSystem } from '../steps/grow-file-system.ts'
import { makeEphemeralBase } from '../steps/make-ephemeral-base.ts'
import { makeSwapBase } from '../steps/make-swap-base.ts'
import { placeState } from '../steps/place-state.ts'
import { proveBase } from '../steps/prove-base.ts'
import { publishInstance } from '../steps/publish-instance.ts'
import { rebaseDisk } from '../steps/rebase-disk.ts'
import { receiveBase } from '../steps/receive-base.ts'
import { receiveDisk } from '../steps/receive-disk.ts'
import { receiveFile } from '../steps/receive-file.ts'
import { removeInstance } from '../steps/remove-instance.ts'
import { removeStage } from '../steps/remove-stage.ts'
import { replaceDomain } from '../steps/replace-domain.ts'
import { settleInstance } from '../steps/settle-instance.ts'
import { stageInstance } from '../steps/stage-instance.ts'
import { startDomain } from '../steps/start-domain.ts'
import { stopDomain } from '../steps/stop-domain.ts'
import { undefineDomain } from '../steps/undefine-domain.ts'

// How an instance arrives: on another host, or beside its old self on the same one. Each phase is a list of steps.

/** What a base that is sent arrives as. */
export const baseFile = (name: string): string => `base.${name}`

const inBases = ({ instances }: Settings, name: string): string => `${layout.basesOf(instances)}/${name}`

/** The base of a disk that is made here. */
const madeBase = ({ file, size }: OrderedDisk, { record }: Order): string =>
  file === 'disk.swap'
    ? layout.swapBaseName(size)
    : layout.ephemeralBaseName(size, record['os-type'], formatOf({ record }))

const formatOf = ({ record }: Pick<Order, 'record'>): EphemeralFormat =>
  (record['ephemeral-format'] as EphemeralFormat | undefined) ?? (record['os-type'] === 'windows' ? 'ntfs' : 'ext4')

/** What a disk is going to stand on here; undefined: nothing. */
function baseOf(disk: OrderedDisk, order: Order): string | undefined {
  return disk.way === 'new' ? madeBase(disk, order) : disk.base?.name
}

/**
 * Bases and a place for what is sent: while the guest still runs.
 * @param isHere the source is this host too
 * @param images of the bases that come from the store, by the base's name
 */
export function prepareCalls(
  order: Order,
  settings: Settings,
  isHere: boolean,
  images: ReadonlyMap<string, Image> = new Map(),
): Call[] {
  const { instances } = settings
  const { name, move, host } = order
  const stage = layout.stageOf(instances, name)
  const hasCome = (base: string) =>
    fileAt(`${layout.arrivingOf(stage)}/${baseFile(base)}`) ?? fileAt(inBases(settings, base))
  const calls: Call[] = [
    call(stageInstance, {
      ...{ stage, name, move, host },
      replaces: order.replaces,
      agreement: agreementOf(order),
      here: isHere,
    }),
  ]
  for (const disk of order.ways) {
    const base = baseOf(disk, order)
    // On the source itself the old disks keep their bases.
    if (base === undefined || (isHere && disk.way !== 'new')) continue
    const path = inBases(settings, base)
    if (disk.way === 'new') calls.push(maker(disk, order, path))
    else if (disk.base?.from === 'store') {
      const image = images.get(base)
      if (!image)
        fail(
          'IMAGE_NOT_FOUND',
          `Cannot make base "${base}": the store had its image, and has it no more`,
          'run the same command again: the base then comes from the source',
        )
      calls.push(call(cacheBase, { ...fromImage(image), base: path, 'allow-weak-checksum': false }))
    } else if (disk.base?.from === 'maker') calls.push(maker(disk, order, path, disk.base.size))
    else if (disk.base?.from === 'source') {
      // Before it was sent there is nothing to do about it: then this phase is asked for again.
      if (!hasCome(base)) continue
      calls.push(
        call(receiveBase, {
          file: `${layout.arrivingOf(stage)}/${baseFile(base)}`,
          base: path,
          size: disk.base.size,
          identity: disk.base.identity,
          host,
        }),
      )
    }
    if (disk.base) calls.push(call(proveBase, { base: path, identity: disk.base.identity }))
    calls.push(call(createOverlay, { disk: `${layout.reservedOf(stage)}/${disk.file}`, base: path, size: disk.size }))
  }
  return calls
}

const maker = (disk: OrderedDisk, order: Order, base: string, size = disk.size): Call =>
  disk.file === 'disk.swap'
    ? call(makeSwapBase, { base, size })
    : call(makeEphemeralBase, { base, size, format: formatOf(order) })

export interface Arrival {
  /** The source is this host too. */
  isHere: boolean
  /** It has its name already. */
  hasArrived: boolean
}

/** What arrived becomes the instance. */
export function arriveCalls(order: Order, settings: Settings, { isHere, hasArrived }: Arrival): Call[] {
  if (hasArrived) return []
  const { instances } = settings
  const { name, move, sent } = order
  const [stage, directory] = [layout.stageOf(instances, name), layout.instanceOf(instances, name)]
  const part = layout.arrivingOf(stage)
  const disks = order.ways.flatMap((disk): Call[] => {
    const path = `${stage}/${disk.file}`
    const base = baseOf(disk, order)
    const on = base === undefined ? undefined : inBases(settings, base)
    if (disk.way === 'new') return [call(createOverlay, { disk: path, base: on ?? '', size: disk.size })]
    const was = order.disks.find(({ file }) => file === disk.file)?.virtualSize ?? disk.size
    const grown = [
      call(growDisk, { disk: path, format: disk.format, size: disk.size }),
      ...(order.growFs ? [call(growFileSystem, { disk: path, format: disk.format, base: on, 'grow-fs': 'auto' })] : []),
    ]
    return [
      call(receiveDisk, {
        part: `${part}/${disk.file}`,
        disk: path,
        format: disk.format,
        size: was,
        stands: disk.way === 'delta',
        sent: sent?.[disk.file],
      }),
      ...(on !== undefined && disk.base
        ? [call(rebaseDisk, { disk: path, base: on, identity: disk.base.identity })]
        : []),
      ...(disk.size > was ? grown : []),
    ]
  })
  const others = Object.keys(sent ?? {}).filter((file) => !order.ways.some((disk) => disk.file === file))
  const files = isHere ? order.files.map(({ name: file }) => file) : others
  const xml = order.xml === undefined ? undefined : movedXml(order, settings, isHere && !order.shared)
  return [
    ...disks,
    ...files.map((file) =>
      call(receiveFile, { part: `${part}/${file}`, file: `${stage}/${file}`, sent: sent?.[file] }),
    ),
    call(settleInstance, {
      stage,
      directory,
      record: order.record,
      move,
      host: isHere ? undefined : order.host,
      disks: order.ways.map(({ file, format }) => `${file}=${format}` as const),
      xml,
    }),
    call(publishInstance, { stage, directory, move }),
  ]
}

/** Where what its UEFI and TPM remember is, and whether it is left there as well; by which definition. */
interface State {
  directory: string
  stays: boolean
  xml: string
}

/** The guest runs here, if it is to run. @param xml its definition */
export function runCalls(
  { name, directory, uuid, domain }: { name: string; directory: string; uuid: string; domain: Order['domain'] },
  { libvirt_uri: uri }: Settings,
  { xml, patience, state }: { xml: string | undefined; patience: number; state?: State },
): Call[] {
  if (uri === undefined || !domain) return []
  const it = { uri, name, uuid }
  return [
    call(placeState, { ...it, ...(state ?? { directory, stays: false }) }),
    ...(xml === undefined ? [] : [call(replaceDomain, { ...it, xml, autostart: domain.autostart })]),
    ...(domain.run ? [call(startDomain, { uri, name }), call(awaitDomain, { ...it, 'start-timeout': patience })] : []),
  ]
}

/** The guest of an order runs here. */
export function runOrder(order: Order, settings: Settings): Call[] {
  const { name, record, domain, startTimeout: patience } = order
  const [directory, kept] = [layout.instanceOf(settings.instances, name), layout.keptOf(settings.instances, name)]
  // On shared storage the source has written down what libvirt had of it, and may go back to that.
  const collected = order.shared ? [directory, kept].find((home) => fileAt(`${home}/definition.xml`)) : undefined
  // Nothing may have arrived: then its definition is that one.
  const xml = collected === directory ? `${directory}/definition.xml` : `${directory}/libvirt.xml`
  const state = { directory: collected ?? directory, stays: order.shared, xml }
  return runCalls({ name, directory, uuid: record.uuid, domain }, settings, { xml, patience, state })
}

/** The definition with what has to be changed in it. @param stays on this host */
function movedXml(order: Order, settings: Settings, stays: boolean): string {
  return moveDomain(order.xml ?? '', {
    name: order.name,
    from: layout.instanceOf(order.instances, order.name),
    to: layout.instanceOf(settings.instances, order.name),
    stays,
    disks: order.ways.map((disk) => {
      const base = baseOf(disk, order)
      return { file: disk.file, format: disk.format, base: base === undefined ? undefined : inBases(settings, base) }
    }),
  })
}

/** Everything of this move is gone from here, and its guest is off; bases stay. */
export function leaveCalls(
  { name, uuid, move, shared }: MoveReference,
  { instances, libvirt_uri: uri }: Settings,
  { isHere, hasArrived }: Arrival,
): Call[] {
  const directory = layout.instanceOf(instances, name)
  const domain = uri !== undefined && (hasArrived || shared) ? { uri, name, uuid } : undefined
  // Where both hosts have the same disks, these keep what the guest has written; so does what libvirt keeps of it.
  const isSame = shared && !isHere && fileAt(`${directory}/definition.xml`) !== undefined
  const off = [
    ...(domain ? [call(stopDomain, domain)] : []),
    ...(domain && isSame ? [call(collectState, { ...domain, directory })] : []),
    ...(domain && !isHere ? [call(undefineDomain, domain)] : []),
  ]
  // The files are the source's too.
  if (shared && !isHere) return off
  return [
    ...off,
    // Nothing is left in it where the removal was cut off at its last action.
    ...(hasArrived || ownNamesIn(directory)?.length === 0 ? [call(removeInstance, { directory })] : []),
    call(removeStage, { stage: layout.stageOf(instances, name), move }),
  ]
}
