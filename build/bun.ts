import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { sh } from './sh.ts'

/** The binary runs as root, in any directory: it must take neither settings nor code from files that lie there. */
export const hardening = ['--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig']

/** An import that could be found at run time only would fail in the binary, or load code from outside it. */
const shape = ['--format=esm', '--minify', '--bytecode', '--splitting', '--sourcemap', '--reject-unresolved']

/**
 * Nearly every function runs a few times and never again: to compile it to machine code took a third of the time of a
 * whole `create`. It is done a hundred times later than usual; a loop that is really hot still comes to it.
 */
const patience = ['--compile-jit-policy=100']

export const flags = [...shape, ...patience, ...hardening]

/**
 * Compiles a program into one executable file, which appears under its name only when it is whole.
 * @param entry TypeScript file to start with
 * @param outfile the executable; it takes the place of what is there, even while that is running
 * @throws zx's ProcessOutput, with bun's message, when it does not compile
 */
export async function compile(entry: string, outfile: string, using: string[] = flags): Promise<void> {
  mkdirSync(dirname(outfile), { recursive: true })
  // The outfile's last name becomes a part of the bytes, so the part bears it as well, in a directory of its own.
  const parts = mkdtempSync(join(dirname(outfile), 'part-'))
  try {
    const part = join(parts, basename(outfile))
    await sh`node_modules/.bin/bun build --compile ${using} ${entry} --outfile ${part}`
    renameSync(part, outfile)
  } finally {
    rmSync(parts, { recursive: true })
  }
}
