import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errno } from '../job/problem.ts'
import { ask } from './ask.ts'

/** Whether a guest runs. `why` tells what happened when it does not. */
export interface Probe {
  works: boolean
  milliseconds: number
  why?: string
}

/** A boot sector that says so and stops: `mov dx,0x501; mov al,1; out dx,al; hlt; jmp -3`. */
function bootSector(): Buffer {
  const sector = Buffer.alloc(512)
  Buffer.from([0xba, 0x01, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd]).copy(sector)
  sector.writeUInt16LE(0xaa55, 510)
  return sector
}

const booted = (1 << 1) | 1 // isa-debug-exit ends qemu with this code when 1 is written to its port

/**
 * Does a guest run under this accelerator? The firmware boots a disk of one sector, for less proves little: with some
 * nested KVMs /dev/kvm opens and single instructions run, while firmware takes seconds or for ever.
 * @param options.qemu path of qemu-system-x86_64
 * @param options.setpriv path of setpriv: with it, a guest that hangs dies with us
 * @param options.limit milliseconds
 */
export async function probe(
  accelerator: 'kvm' | 'tcg',
  options: { qemu: string; setpriv?: string | undefined; limit?: number },
): Promise<Probe> {
  const { qemu, setpriv, limit = 3000 } = options
  const directory = await mkdtemp(join(tmpdir(), 'cowhand-probe-'))
  try {
    const disk = join(directory, 'disk')
    await writeFile(disk, bootSector())
    const guest = [
      ...[qemu, '-accel', accelerator, '-machine', 'pc,graphics=off', '-m', '16', '-no-user-config', '-nodefaults'],
      ...['-display', 'none', '-no-reboot', '-device', 'isa-debug-exit,iobase=0x501,iosize=4'],
      ...['-blockdev', `driver=file,node-name=disk,filename=${disk.replaceAll(',', ',,')}`],
      ...['-device', 'ide-hd,drive=disk,bootindex=0'],
    ]
    const start = performance.now()
    const answer = await ask([...(setpriv ? [setpriv, '--pdeathsig', 'KILL', '--'] : []), ...guest], { limit })
    const milliseconds = Math.round(performance.now() - start)
    if (answer.code === booted) return { works: true, milliseconds }
    const words = answer.stderr.trim().split('\n').at(-1)
    const why = answer.late ? `a guest does not boot within ${limit / 1000} s` : words || 'qemu ends at once'
    return { works: false, milliseconds, why }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** May we use /dev/kvm? The error code where not: ENOENT when there is none, EACCES when it is for others. */
export async function kvmDevice(): Promise<string | undefined> {
  try {
    const device = await open('/dev/kvm', 'r+')
    await device.close()
    return undefined
  } catch (error) {
    return errno(error) ?? 'EIO'
  }
}
