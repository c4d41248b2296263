import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, stat } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { usualPath } from './environment.ts'
import { missingTool, versionOption } from './tools.ts'

/** What a program answered. `code` is undefined when it could not be started, was killed, or took too long. */
export interface Answer {
  code: number | undefined
  stdout: string
  stderr: string
  late: boolean
}

/**
 * Ask a program something that it answers quickly, with no input and a clean environment. Never throws, and answers
 * in time even when the program cannot be killed (one that hangs in the kernel, say): then it is left behind.
 * @param options.limit milliseconds
 */
export function ask(argv: string[], options: { limit?: number; path?: string } = {}): Promise<Answer> {
  const { limit = 3000, path = usualPath } = options
  const [file = '', ...rest] = argv
  const env = { PATH: path, LC_ALL: 'C.UTF-8', TZ: 'UTC', HOME: '/nonexistent' }
  return new Promise((resolve) => {
    const child = execFile(file, rest, { env, maxBuffer: 2 ** 20 }, (error, stdout, stderr) => {
      clearTimeout(timer)
      const code = error === null ? 0 : error.code
      resolve({ code: typeof code === 'number' ? code : undefined, stdout, stderr, late: false })
    })
    child.stdin?.on('error', () => {}) // it may end without reading
    child.stdin?.end()
    const timer = setTimeout(() => {
      child.kill('SIGKILL')
      child.stdout?.destroy()
      child.stderr?.destroy()
      child.unref()
      resolve({ code: undefined, stdout: '', stderr: '', late: true })
    }, limit)
  })
}

/** Where a program is, or undefined. @param path directories, as in PATH */
export async function which(program: string, path: string = usualPath): Promise<string | undefined> {
  for (const directory of path.split(delimiter)) {
    const file = join(directory, program)
    try {
      await access(file, constants.X_OK)
      if ((await stat(file)).isFile()) return file
    } catch {
      // not here
    }
  }
  return undefined
}

/** @throws {Problem} TOOL_MISSING: asked for while a plan is made, it is told before anything is changed */
export async function requireProgram(program: string): Promise<void> {
  if ((await which(program)) === undefined) throw missingTool(program)
}

/**
 * A program and its version, such as `mke2fs 1.47.0`: for the record of what it is going to make.
 * @throws {Problem} TOOL_MISSING
 */
export async function toolVersion(program: string): Promise<string> {
  await requireProgram(program)
  const { stdout, stderr } = await ask([program, versionOption[program] ?? '--version'])
  return `${program} ${versionIn(stdout + stderr) ?? 'of unknown version'}`
}

/** The first version number in what a program says of itself. */
export const versionIn = (words: string): string | undefined => /\d+(\.\d+)+/.exec(words)?.[0]
