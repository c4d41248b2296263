// The main job from end to end, in a directory of its own: an image into the store, a guest's disks out of it, the
// guest booted from them, and the same command again. No service and no root; it fails if any proof is missing.
//   npm run demo [-- --image FILE] [--root SIZE]
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { lstatSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { fail, misuse, Problem } from '../lib/job/problem.ts'
import { Bytes } from '../lib/job/spec.ts'
import { bootArgv, bootInstance } from './boot.ts'
import { demoImage } from './demo-image.ts'

const usage = `npm run demo [-- --image FILE] [--root SIZE]
  --image FILE   boot this instead of an image made for the demo: an x86 cloud image whose cloud-init runs user-data
  --root SIZE    size of the root disk, at least the image's own (default 2G)
`
const project = resolve(import.meta.dirname, '..')
/** Where the user stands: the commands are shown, and run, as they would be typed there. */
const here = process.env['INIT_CWD'] ?? process.cwd()
const short = (path: string) => (relative(here, path).startsWith('..') ? path : relative(here, path))
const cowhand = short(join(project, 'build/out/cowhand'))

const say = (text: string) => process.stdout.write(`${text}\n`)

/** The command line for `argv` as a person would type it, broken before a flag where it gets long. */
function typed(argv: string[]): string {
  const lines = ['$']
  for (const argument of argv) {
    const word = /^[\w@%+=:,./-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`
    const last = lines.at(-1) ?? ''
    if (last.length > 80 && word.startsWith('-')) lines.push(`    ${word}`)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines.join(' \\\n')
}

/** Show a command, run it, and let it write to the terminal itself. @throws {Problem} TOOL_FAILED it did not exit with 0 */
function show(argv: string[], cwd = here): void {
  say(typed(argv))
  const { status, error } = spawnSync(argv[0] ?? '', argv.slice(1), { cwd, stdio: ['ignore', 'inherit', 'inherit'] })
  if (status !== 0)
    fail('TOOL_FAILED', `Cannot show the demo: ${argv[0]} ${error?.message ?? `exited with ${status}`}`, 'See above')
}

/** What the second run must leave alone: every file but the locks, each with its inode, size and time of writing. */
function filesIn(directory: string): string {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort()
  const lines = names.map((name) => {
    const stat = lstatSync(join(directory, name), { bigint: true })
    return stat.isDirectory() || name.startsWith('locks/') ? '' : `${name} ${stat.ino} ${stat.size} ${stat.mtimeNs}`
  })
  return lines.filter(Boolean).join('\n')
}

/** The whole demo. @throws {Problem} the first thing that went wrong, or the proofs that are missing */
async function demo(foreign: string | undefined, root: string): Promise<void> {
  const scratch = mkdtempSync(join(tmpdir(), 'cowhand-demo-'))
  const [instances, images, userData] = ['instances', 'images', 'user-data'].map((name) => join(scratch, name))
  if (!instances || !images || !userData) throw new Error('unreachable')
  const flags = ['--instances', instances, '--store', `dir:${images}`]
  const missing: string[] = []
  const prove = (what: string, holds: boolean) => {
    say(`  ${holds ? 'seen' : 'MISSING'}: ${what}`)
    if (!holds) missing.push(what)
  }

  say(`Everything happens in ${scratch}\n\nThe binary:`)
  show(['npm', 'run', 'build'], project)

  let image = foreign
  if (!image) {
    say('\nAn image that boots: a Debian kernel, busybox and syslinux on one small disk (made once).')
    say(typed(['npx', 'tsx', short(join(import.meta.dirname, 'demo-image.ts'))]))
    image = demoImage()
    say(image)
  }

  say('\nInto the store:')
  show([cowhand, 'image', 'add', image, '--name', 'demo-image', '--verbose', ...flags])

  say('\nA guest: root, ephemeral and swap disks, and a seed CD with its user data.')
  // New each time, so that the guest can only have it from this very CD.
  const greeting = `hello ${randomBytes(4).toString('hex')}`
  // The demo image reports by itself; any other is told to by its user data, and cloud-init runs it.
  const report = readFileSync(join(import.meta.dirname, 'demo-guest/report'), 'utf8')
  const script = `${report}\nsay 'user-data: ${greeting}'\npoweroff\n`
  writeFileSync(userData, foreign ? script : `#cloud-config\n# ${greeting}\n`)
  const sizes = { ephemeral: '1G', swap: '256M' }
  const create = [cowhand, 'create', 'demo', '--image', 'demo-image', '--root', root]
  create.push('--ephemeral', sizes.ephemeral, '--swap', sizes.swap, '--user-data', userData, '--verbose', ...flags)
  show(create)

  say('\nWhat there is now:')
  show([cowhand, 'show', 'demo', ...flags])

  say('\nBoot it, under emulation, and hear what the guest itself sees:')
  const guest = join(instances, 'demo')
  say(typed(bootArgv(guest, foreign !== undefined)))
  const timeout = foreign ? 600 : 120
  const lines = await bootInstance(guest, {
    timeout,
    network: foreign !== undefined,
    onLine: (line) => line.trim() && say(line),
  })
  const heard = (words: string) => lines.some((line) => line.includes(`guest: ${words}`))
  say('')
  prove(`a root disk of ${root}, vda`, heard(`vda ${Bytes.parse(root)} bytes`))
  prove(`an ephemeral disk of ${sizes.ephemeral}, vdb`, heard(`vdb ${Bytes.parse(sizes.ephemeral)} bytes`))
  prove('vdb mounted by its label ephemeral0', heard('mounted LABEL=ephemeral0 (/dev/vdb, ext4'))
  prove('a write to both', heard('boot 1 of this root disk') && heard('boot 1 of this ephemeral disk'))
  prove(`a swap disk of ${sizes.swap}, vdc`, heard(`vdc ${Bytes.parse(sizes.swap)} bytes`))
  prove('vdc swapped on', heard('swapon /dev/vdc'))
  prove(
    'the user data of the seed CD',
    lines.some((line) => line.includes('guest: user-data: ') && line.includes(greeting)),
  )

  say('\nThe same command again, though the guest has written to its disks: nothing to do.')
  const before = filesIn(scratch)
  show(create)
  const { stdout } = spawnSync(create[0] ?? '', [...create.slice(1), '--json'], { cwd: here, encoding: 'utf8' })
  prove('no file changed', filesIn(scratch) === before)
  prove('changed: false in its result', (JSON.parse(stdout || '{}') as { changed?: unknown }).changed === false)

  if (missing.length > 0) {
    fail('TOOL_FAILED', `Cannot prove "${missing.join('", "')}"`, `Look at ${scratch}, and at the guest's lines above`)
  }
  say(`
All seen. To try next:
  export COWHAND_INSTANCES=${instances} COWHAND_STORE=dir:${images}
  ${cowhand} list
  ${cowhand} show demo --json
  ${cowhand} create web --image demo-image --root 4G --dry-run
  ${cowhand} create web --image demo-image --root 4G
  ${cowhand} delete web --yes
  ${cowhand} doctor
  ${cowhand} --help
To be rid of it:
  rm -r ${scratch}`)
}

async function main(): Promise<void> {
  const options = { image: { type: 'string' }, root: { type: 'string' }, help: { type: 'boolean' } } as const
  try {
    let values: { image?: string; root?: string; help?: boolean }
    try {
      values = parseArgs({ options }).values
    } catch (error) {
      misuse(error instanceof Error ? error.message : String(error), 'npm run demo -- --help')
    }
    if (values.help) process.stdout.write(usage)
    else await demo(values.image === undefined ? undefined : resolve(here, values.image), values.root ?? '2G')
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    process.stderr.write(`demo: ${error.message}\n  remedy: ${error.remedy}\n`)
    process.exitCode = error.kind === 'usage' ? 2 : 1
  }
}

await main()
