import { refuse } from './problem.ts'
import { exactSize } from './spec.ts'

/** What is known of a disk that is there: its header, or that it is none of ours. Sizes in bytes. */
export type FoundDisk = { backing?: string; virtualSize: number } | 'raw'

/**
 * A disk that is there is left alone once it is the one that is wished for.
 * @throws {Problem} NOT_OURS where it is another, INSTANCE_DIFFERS where it has another size
 */
export function requireSame(disk: string, base: string, size: number, found: FoundDisk): void {
  if (found === 'raw')
    refuse('NOT_OURS', `Cannot make "${disk}": a raw disk is there`, 'look at it, and move it away if nobody needs it')
  if (found.backing !== base)
    refuse(
      'NOT_OURS',
      `Cannot make "${disk}": a disk on "${found.backing ?? 'no base'}" is there`,
      `look at it, and move it away if nobody needs it: qemu-img info ${disk}`,
    )
  if (found.virtualSize !== size)
    refuse(
      'INSTANCE_DIFFERS',
      `Cannot make "${disk}" with ${exactSize(size)}: it is there with ${exactSize(found.virtualSize)}`,
      `ask for the size that it has: ${exactSize(found.virtualSize)}`,
    )
}
