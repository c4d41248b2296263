import * as z from 'zod/mini'
import { readOperatorsBytes, readOperatorsFile } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import { requireNoMove } from '../../lib/host/stage.ts'
import type { Image } from '../../lib/image/image.ts'
import { findImage } from '../../lib/image/store.ts'
import { baseOfDelta, imageTypeOf, wayOf } from '../../lib/image/way.ts'
import * as layout from '../../lib/job/layout.ts'
import { misuse, refuse } from '../../lib/job/problem.ts'
import {
  Bytes,
  Digest,
  described,
  EphemeralFormat,
  exactSize,
  FilePath,
  Format,
  InstanceName,
  NonEmpty,
  OsType,
  optional,
  withDefault,
} from '../../lib/job/spec.ts'
import { type Call, call, definePipeline } from '../../lib/job/step.ts'
import { AllowWeak } from '../../lib/job/trust.ts'
import { cacheBase, fromImage } from '../steps/cache-base.ts'
import { createOverlay } from '../steps/create-overlay.ts'
import { defineDomain } from '../steps/define-domain.ts'
import { extendBase } from '../steps/extend-base.ts'
import { fetchDisk } from '../steps/fetch-disk.ts'
import { makeEphemeralBase } from '../steps/make-ephemeral-base.ts'
import { makeSeed } from '../steps/make-seed.ts'
import { makeSwapBase } from '../steps/make-swap-base.ts'
import { recordInstance } from '../steps/record-instance.ts'
import { startDomain } from '../steps/start-domain.ts'
import { writeDomain } from '../steps/write-domain.ts'

const digestOf = async (texts: unknown[]): Promise<string> =>
  `sha256:${Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(JSON.stringify(texts)))).toString('hex')}`
const readAll = (paths: (string | undefined)[]) =>
  paths.map((path) => (path === undefined ? null : readOperatorsBytes(path).toString('latin1')))

export const create = definePipeline({
  name: 'create',
  summary: 'Create an instance: base, disks, domain',
  positional: ['name'],
  examples: [
    ['cowhand create web1 --image debian --root 20G', 'a root disk on the image of the store'],
    [
      'cowhand create web1 --image debian --root 20G --ephemeral 10G --swap 1G --user-data web.yaml',
      'with all its disks',
    ],
    [
      'cowhand create web1 --image https://example.org/debian.qcow2 --checksum sha256:HEX --root 20G',
      'from a web server',
    ],
  ],
  job: z.strictObject({
    name: described(InstanceName, 'name of the instance'),
    image: described(NonEmpty, 'name or id of an image in the store, or its http(s) URL'),
    'image-format': optional(Format, 'format of an image whose name does not say it'),
    checksum: optional(Digest, 'what the image must have: sha256:HEX or sha512:HEX'),
    'allow-weak-checksum': AllowWeak,
    root: described(Bytes, 'size of the root disk'),
    ephemeral: optional(Bytes, 'size of an ephemeral disk'),
    'ephemeral-format': optional(EphemeralFormat, 'file system of it [ext4, or ntfs for windows]'),
    swap: optional(Bytes, 'size of a swap disk, whole MiB'),
    'os-type': withDefault(OsType, 'linux', 'operating system of the guest'),
    'user-data': optional(FilePath, 'cloud-init user data, for the seed CD'),
    'meta-data': optional(FilePath, 'cloud-init meta data'),
    'network-config': optional(FilePath, 'cloud-init network configuration'),
    memory: optional(Bytes, 'memory of the guest [1G]'),
    vcpus: optional(z.int().check(z.positive('is not more than 0')), 'processors of the guest [1]'),
    network: optional(
      z.string().check(z.regex(/^(bridge:)?[A-Za-z0-9][A-Za-z0-9._-]*$/, 'is not NAME, bridge:NAME or none')),
      'libvirt network, bridge:NAME, or none [default]',
    ),
    xml: optional(FilePath, 'domain definition to put the disks into'),
    domain: optional(
      z.enum(['none', 'define', 'start']),
      'what libvirt does with it [start where libvirt_uri is set, else none]',
    ),
  }),
  locks: ({ name }) => [layout.instanceLock(name)],
  look: async (job, settings) => {
    requireNoMove('create', settings.instances, job.name)
    const given = [job['user-data'], job['meta-data'], job['network-config']]
    const image = await findImage(job.image, { checksum: job.checksum, format: job['image-format'] }, settings)
    const sha1 = baseOfDelta(image) ?? (await layout.baseName(image.id))
    const base = `${layout.basesOf(settings.instances)}/${sha1}`
    return {
      image,
      base,
      // Of a delta snapshot the base is made of another image, or is in the cache already.
      whole:
        baseOfDelta(image) === undefined
          ? image
          : await (await import('../../lib/image/delta.ts')).findBaseOf(image, base, settings),
      uuid: instanceAt(layout.instanceOf(settings.instances, job.name))?.uuid ?? crypto.randomUUID(),
      seed: given.some((path) => path !== undefined) ? await digestOf(readAll(given)) : undefined,
      xml: job.xml === undefined ? undefined : await digestOf(readAll([job.xml])),
      volumes:
        job.xml === undefined
          ? []
          : (await import('../../lib/host/domain-xml.ts')).volumesIn(readOperatorsFile(job.xml)),
    }
  },
  reasons: (_, { image, volumes }, { snapshot_optimization }) => [
    `root disk: ${wayFor(image, volumes, snapshot_optimization).reason}`,
  ],
  calls(
    job,
    { image, base, whole, uuid, seed, xml, volumes },
    { instances, base_layout, libvirt_uri, snapshot_optimization },
  ) {
    const { name, root, swap, 'os-type': osType, 'allow-weak-checksum': weak } = job
    const way = wayFor(image, volumes, snapshot_optimization)
    if (baseOfDelta(image) !== undefined && !way.optimised)
      refuse(
        'UNSUPPORTED',
        `Cannot create "${name}" from "${image.name}": it is a delta snapshot, and ${way.reason}`,
        'use an image that holds the whole disk',
      )
    const devices = layout.devicesOf(job, volumes)
    const taken = devices.find(({ target }) => volumes.includes(target))
    if (taken)
      refuse(
        'UNSUPPORTED',
        `Cannot create "${name}": its definition has a volume on ${taken.target}, where ${taken.file} goes`,
        'give that volume another device',
      )
    if (swap !== undefined && !layout.isWholeMiB(swap))
      misuse(
        `Cannot make a swap disk of ${swap} bytes: it is not a whole number of MiB`,
        'ask for a size such as --swap 512M',
      )
    if (image.virtualSize !== undefined && image.virtualSize > root)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot create "${name}" with --root ${exactSize(root)}: image "${image.name}" has ${exactSize(image.virtualSize)}`,
        `ask for at least that: --root ${exactSize(image.virtualSize)}`,
      )
    if (image.minDisk !== undefined && image.minDisk > root)
      refuse(
        'DISK_TOO_SMALL',
        `Cannot create "${name}" with --root ${exactSize(root)}: image "${image.name}" wants a disk of ${exactSize(image.minDisk)}`,
        `ask for at least that: --root ${exactSize(image.minDisk)}`,
      )
    if (job.xml !== undefined && job.network !== undefined)
      misuse('Cannot use --network together with --xml: the definition names its networks', 'leave one of them out')
    const domain = job.domain ?? (libvirt_uri === undefined ? 'none' : 'start')
    // Every later command has to find the domain again, so where it lives is a setting and no flag.
    const uri =
      libvirt_uri ??
      (domain === 'none'
        ? ''
        : misuse(
            `Cannot ${domain} the domain of "${name}": no libvirt is configured`,
            'set libvirt_uri: qemu:///system in /etc/cowhand/cowhand.yaml, or COWHAND_LIBVIRT_URI',
          ))

    const directory = layout.instanceOf(instances, name)
    const inBases = (file: string) => `${layout.basesOf(instances)}/${file}`
    const disks = devices.map(({ file }) => file)
    const ephemeral = disks.includes('disk.local') ? job.ephemeral : undefined
    const ephemeralFormat = job['ephemeral-format'] ?? (osType === 'windows' ? 'ntfs' : 'ext4')
    // A delta stands on the base itself, for that is what it was proven to fit on.
    const sized = base_layout === 'sized' && !way.optimised ? layout.sizedBaseName(base, root) : undefined
    const cached = whole && fromImage(whole)
    const { memory, vcpus, network } = job
    const wish = { directory, name, uuid, memory, vcpus, network, 'os-type': osType }
    const made = [
      ...disksOn(
        'disk.local',
        ephemeral,
        inBases(layout.ephemeralBaseName(ephemeral ?? 0, osType, ephemeralFormat)),
        (on, bytes) => call(makeEphemeralBase, { base: on, size: bytes, format: ephemeralFormat }),
      ),
      ...disksOn('disk.swap', swap, inBases(layout.swapBaseName(swap ?? 0)), (on, bytes) =>
        call(makeSwapBase, { base: on, size: bytes }),
      ),
    ]
    return [
      ...(cached ? [call(cacheBase, { ...cached, base, 'allow-weak-checksum': weak })] : []),
      ...(sized ? [call(extendBase, { base, sized, size: root })] : []),
      // Every base first: what cannot be made is found out before there is an instance.
      ...made.map(({ make }) => make),
      call(recordInstance, {
        ...wish,
        'image-id': image.id,
        'image-name': image.name,
        root,
        base,
        ephemeral,
        'ephemeral-format': ephemeral === undefined ? undefined : ephemeralFormat,
        swap,
        seed,
        xml,
        disks,
      }),
      way.optimised
        ? call(fetchDisk, {
            disk: `${directory}/disk`,
            from: image.source,
            digest: image.digest,
            packing: image.packing,
            base,
            size: root,
            'allow-weak-checksum': weak,
            'file-size': image.size,
            stamp: image.stamp,
          })
        : call(createOverlay, { disk: `${directory}/disk`, base: sized ?? base, size: root }),
      ...made.map(({ file, size: bytes, base: on }) =>
        call(createOverlay, { disk: `${directory}/${file}`, base: on, size: bytes }),
      ),
      ...(seed === undefined
        ? []
        : [
            call(makeSeed, {
              seed: `${directory}/disk.config`,
              'user-data': job['user-data'],
              'meta-data': job['meta-data'],
              'network-config': job['network-config'],
              'instance-id': uuid,
              hostname: name,
            }),
          ]),
      call(writeDomain, {
        ...wish,
        xml: job.xml,
        seed: seed !== undefined,
        disks: devices.map(({ file, target }) => `${file}=${target}` as const),
        bases: [`disk=${sized ?? base}`, ...made.map((disk) => `${disk.file}=${disk.base}`)],
      }),
      ...(domain === 'none' ? [] : [call(defineDomain, { uri, name, uuid, xml: `${directory}/libvirt.xml` })]),
      ...(domain === 'start' ? [call(startDomain, { uri, name })] : []),
    ]
  },
})

/** Which way the root disk is made: a new instance has no disk yet, and its disks are overlays. */
const wayFor = (image: Image, volumes: string[], allowed: boolean) =>
  wayOf({
    imageType: imageTypeOf(image.properties),
    delta: image.properties['base_image_id_sha1'] !== undefined,
    backing: false,
    allowed,
    overlays: true,
    kernel: 'kernel_id' in image.properties || 'ramdisk_id' in image.properties,
    rootIsVolume: volumes.includes('vda'),
  })

/** A disk on a base that is made, not fetched; none where it was not asked for. */
const disksOn = (
  file: layout.DiskName,
  size: number | undefined,
  base: string,
  maker: (base: string, size: number) => Call,
) => (size === undefined ? [] : [{ file, size, base, make: maker(base, size) }])
