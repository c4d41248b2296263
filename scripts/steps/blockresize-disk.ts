import * as z from 'zod/mini'
import { answer, domainAt, virsh } from '../../lib/host/libvirt.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, exactSize, InstanceName, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

/** What the guest sees of a disk, in bytes, as its QEMU says: the file is that one's as long as it runs. */
async function capacityOf(uri: string, uuid: string, path: string): Promise<number | undefined> {
  const [, digits] = /^Capacity:\s*(\d+)$/m.exec(await answer(uri, ['domblkinfo', uuid, path], [1])) ?? []
  return digits === undefined ? undefined : Number(digits)
}

export const blockresizeDisk = defineStep({
  name: 'blockresize-disk',
  summary: 'Grow a disk of a running guest, which sees it at once',
  input: () =>
    z.strictObject({
      uri: described(z.string(), 'libvirt, such as qemu:///system'),
      name: described(InstanceName, 'name of the instance'),
      uuid: described(Uuid, 'of the domain'),
      disk: described(AbsolutePath, 'file of the disk'),
      size: described(Bytes, 'size it is to have'),
    }),
  about: ({ disk }) => disk,
  inspect: async ({ uri, name, uuid, disk }) => {
    const domain = await domainAt(uri, name)
    const isMeant = domain?.uuid === uuid && domain.state === 'running'
    return { domain, capacity: isMeant ? await capacityOf(uri, uuid, disk) : undefined }
  },
  plan({ uri, name, uuid, disk, size }, { domain, capacity }): Action[] {
    if (domain && domain.uuid !== uuid)
      refuse(
        'DOMAIN_EXISTS',
        `Cannot grow "${disk}": libvirt has another domain called ${name}, ${domain.uuid}`,
        `look at it: virsh -c ${uri} dumpxml ${name}`,
      )
    if (domain?.state !== 'running')
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot grow "${disk}" while its guest runs: the guest is ${domain?.state ?? 'not known to libvirt'}`,
        `grow it as it is: cowhand resize ${name} --mode cold`,
      )
    if (capacity === undefined)
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot grow "${disk}": "${name}" runs without it`,
        `see what it has: virsh -c ${uri} domblklist ${name}`,
      )
    // libvirt and QEMU would shrink it, under the guest's hands.
    if (capacity > size)
      refuse(
        'UNSUPPORTED',
        `Cannot shrink "${disk}" to ${exactSize(size)}: it has ${exactSize(capacity)}`,
        `ask for at least its present size: ${exactSize(capacity)}`,
      )
    return capacity === size ? [] : [run(virsh(uri, 'blockresize', uuid, disk, `${size}B`), `grow "${disk}"`)]
  },
})
