// Boots the disks of one instance under QEMU's own emulation: slow, but it needs no KVM, no libvirt and no root.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { diskNames } from '../lib/job/layout.ts'
import { errno, fail, refuse } from '../lib/job/problem.ts'

export type BootOptions = {
  /** Seconds until a guest that has not powered itself off is killed. */
  timeout?: number
  /** Give it a network card whose network ends at QEMU: cloud-init waits for one. */
  network?: boolean
  /** Called with each line of the serial console as it comes. */
  onLine?: (line: string) => void
}

/** The command that boots the disks in `directory`, each attached as the domain XML attaches it. */
export function bootArgv(directory: string, network = false): string[] {
  const disk = (file: string, driver: 'qcow2' | 'raw') => {
    const readOnly = driver === 'raw'
    // JSON, because -drive gives a meaning to commas in a path. The format is said, never probed.
    const node = {
      'node-name': file,
      driver,
      'read-only': readOnly,
      file: { driver: 'file', filename: join(directory, file) },
    }
    return ['-blockdev', JSON.stringify(node)]
  }
  const there = diskNames.filter((file) => existsSync(join(directory, file)))
  const argv = ['qemu-system-x86_64', '-nodefaults', '-no-user-config', '-no-reboot']
  argv.push('-machine', 'pc', '-accel', 'tcg', '-cpu', 'max', '-m', '512', '-vga', 'std', '-display', 'none')
  // The guest may be anyone's image: QEMU gives up what it could be made to misuse.
  argv.push('-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny')
  for (const file of there) argv.push(...disk(file, 'qcow2'), '-device', `virtio-blk-pci,drive=${file}`)
  if (existsSync(join(directory, 'disk.config'))) {
    argv.push(...disk('disk.config', 'raw'), '-device', 'virtio-scsi-pci', '-device', 'scsi-cd,drive=disk.config')
  }
  if (network) {
    // Without romfile= QEMU wants boot ROMs that another package has.
    argv.push('-netdev', 'user,id=net,restrict=on', '-device', 'virtio-net-pci,netdev=net,romfile=')
  }
  return [...argv, '-serial', 'stdio']
}

/**
 * The guest has booted from the disks in `directory` (an instance's), written to them, and powered itself off.
 * @returns every line of its serial console, without control characters
 * @throws {Problem} INSTANCE_NOT_FOUND no root disk; TOOL_MISSING no QEMU; TOOL_FAILED QEMU stopped with an error, or the guest did not power off in time
 */
export async function bootInstance(directory: string, options: BootOptions = {}): Promise<string[]> {
  const { timeout = 120, network = false, onLine } = options
  if (!existsSync(join(directory, 'disk'))) {
    refuse('INSTANCE_NOT_FOUND', `Cannot boot "${directory}": there is no root disk`, 'cowhand create makes one')
  }
  // With --pdeathsig the guest dies with us, however we die.
  const [program = '', ...args] = ['setpriv', '--pdeathsig', 'KILL', ...bootArgv(directory, network)]
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let complaint = ''
  let late = false
  const timer = setTimeout(() => {
    late = true
    child.kill('SIGKILL')
  }, timeout * 1000)
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text
  })
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', (raw) => {
    // Colours and cursor moves of a boot loader or systemd must not reach our terminal.
    const line = raw.replace(/(?<=\p{Cc})\[[\d;?]*[A-Za-z]|\p{Cc}/gu, '')
    lines.push(line)
    onLine?.(line)
  })
  try {
    const status = await ended
    const last = lines.slice(-5).join('\n')
    if (late) {
      fail(
        'TOOL_FAILED',
        `Cannot boot "${directory}": no power-off within ${timeout} seconds`,
        `Its last lines: ${last}`,
      )
    }
    if (status === 127) fail('TOOL_MISSING', 'Cannot boot a guest: QEMU is missing', 'apt-get install qemu-system-x86')
    if (status !== 0) {
      fail(
        'TOOL_FAILED',
        `Cannot boot "${directory}": QEMU stopped (${status})`,
        complaint.trim() || `Its last lines: ${last}`,
      )
    }
    return lines
  } catch (error) {
    if (errno(error) === 'ENOENT') {
      fail('TOOL_MISSING', 'Cannot boot a guest: setpriv is missing', 'apt-get install util-linux')
    }
    throw error
  } finally {
    clearTimeout(timer)
  }
}
