import type { Format } from '../job/spec.ts'

/** The last percentage in what `qemu-img -p` prints: `    (12.34/100%)\r`. */
export function percentIn(output: string): number | undefined {
  const last = [...output.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)
  return last ? Number(last[1]) : undefined
}

/** Formats whose structure `qemu-img check` can prove: a truncated file of these converts without an error. */
export const checkable: readonly Format[] = ['qcow2', 'vmdk', 'vdi', 'vhdx']

/**
 * Convert to a sparse raw file. The format is always given: nothing is guessed from what an image's author wrote.
 * @param isDirect write past the page cache, which is four times as fast; out of order (`-W`) it pays only then
 */
export const convertToRaw = (from: string, format: Format, to: string, isDirect: boolean): string[] => [
  'qemu-img',
  'convert',
  '-p',
  ...(isDirect ? ['-t', 'none', '-W', '-m', '16'] : ['-m', '8']),
  '-f',
  format,
  '-O',
  'raw',
  from,
  to,
]

/** Bytes of data in an image, at most: what a sparse copy of it allocates. @throws {Problem} TOOL_FAILED */
export async function dataSize(path: string, format: Format): Promise<number> {
  const { program } = await import('./shell.ts')
  const { stdout } = await program(['qemu-img', 'measure', '--output=json', '-f', format, '-O', 'qcow2', path])
  return Number(JSON.parse(stdout).required)
}

/** Whether a running guest has this qcow2 open: then qemu's own lock keeps another reader out. */
export async function isInUse(disk: string): Promise<boolean> {
  const { program } = await import('./shell.ts')
  try {
    await program(['qemu-img', 'info', '-f', 'qcow2', disk])
    return false
  } catch (error) {
    if (error instanceof Error && /Failed to get .*lock/i.test(error.message)) return true
    throw error
  }
}
