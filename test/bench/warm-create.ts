// P1: a create whose bases are there, against the bare shell. P11: the small commands. P13: memory.
import { type ChildProcess, spawn } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, sh } from '../../build/sh.ts'
import { makeImage, withDirectory } from './common/image.ts'
import {
  absolute,
  against,
  cowhand,
  inTurn,
  median,
  megabytes,
  peakMemory,
  print,
  programsOf,
  type Row,
} from './common/measure.ts'

const sizes = ['--root', '2G', '--ephemeral', '1G', '--swap', '256M']

/** What a bare shell would do for the same disks, and no more: nothing is checked, locked, flushed or written down. */
const bareShell = `set -eu
mkdir "$1/bare"
qemu-img create -q -f qcow2 -F raw -b "$2" "$1/bare/disk" 2G
qemu-img create -q -f qcow2 -F raw -b "$1/_base/ephemeral_0_1_linux" "$1/bare/disk.local" 1G
qemu-img create -q -f qcow2 -F raw -b "$1/_base/swap_256" "$1/bare/disk.swap" 256M`

async function warmCreate(instances: string, env: Record<string, string>): Promise<Row> {
  const base = readdirSync(join(instances, '_base')).find((name) => /^[0-9a-f]{40}$/.test(name)) ?? ''
  const script = join(instances, '../bare.sh')
  writeFileSync(script, bareShell)
  const remove = (name: string) => ['rm', '-rf', join(instances, name)]
  const [ours = [], bare = []] = await inTurn(
    30,
    [
      { argv: [cowhand, 'create', 'ours', '--image', 'bench', ...sizes], before: remove('ours') },
      { argv: ['bash', script, instances, join(instances, '_base', base)], before: remove('bare') },
    ],
    env,
  )
  return against(
    'P1',
    'warm create, root + ephemeral + swap',
    ours,
    { name: 'bash, 3 × qemu-img create', times: bare },
    1,
  )
}

/** Make a thousand instances of one, as if each had been created. */
function multiply(instances: string, count: number): void {
  const one = join(instances, 'ours')
  const record = readFileSync(join(one, 'instance.json'), 'utf8')
  for (let index = 1; index < count; index++) {
    const copy = join(instances, `copy${index}`)
    cpSync(one, copy, { recursive: true })
    writeFileSync(join(copy, 'instance.json'), record.replace('"ours"', `"copy${index}"`))
  }
}

async function smallCommands(directory: string, env: Record<string, string>): Promise<Row[]> {
  const commands = ['--version', '--help', 'list'].map((word) => ({ argv: [cowhand, word] }))
  const [version = [], help = [], list = []] = await inTurn(20, commands, env)
  const count = (amount: number) => String(amount)
  return [
    absolute('P11', 'cowhand --version', median(version), 30),
    absolute('P11', 'cowhand --help', median(help), 60),
    absolute('P11', 'cowhand list, 1000 instances', median(list), 500),
    absolute('P11', '  programs that it starts', await programsOf(directory, [cowhand, 'list'], env), 0, count),
    absolute(
      'P13',
      'memory of list, 1000 instances',
      await peakMemory([cowhand, 'list'], env),
      150 * 2 ** 20,
      megabytes,
    ),
  ]
}

async function coldMemory(directory: string, sha256: string): Promise<Row> {
  const server: ChildProcess = spawn(
    join(root, 'node_modules/.bin/tsx'),
    [join(import.meta.dirname, 'common/server.ts'), directory],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  try {
    const port = await new Promise((resolve) => server.stdout?.once('data', (text) => resolve(Number(text))))
    const image = [`http://127.0.0.1:${port}/bench.qcow2`, '--checksum', `sha256:${sha256}`]
    const peak = await peakMemory([cowhand, 'create', 'cold', '--image', ...image, ...sizes], {
      COWHAND_INSTANCES: join(directory, 'cold'),
    })
    if (!existsSync(join(directory, 'cold/cold/disk'))) throw new Error('there is no disk')
    return absolute('P13', 'memory of a cold create, 256 MiB by HTTP', peak, 150 * 2 ** 20, megabytes)
  } finally {
    server.kill()
  }
}

await withDirectory(async (directory) => {
  const instances = join(directory, 'instances')
  const env = { COWHAND_INSTANCES: instances, COWHAND_STORE: `dir:${join(directory, 'images')}` }
  const image = join(directory, 'bench.qcow2')
  const sha256 = await makeImage(image, 256, 1024)
  const said = sh({ env: { ...process.env, ...env } })
  await said`${cowhand} image add ${image} --name bench`
  await said`${cowhand} create ours --image bench ${sizes}`
  const rows = [await warmCreate(instances, env)]
  multiply(instances, 1000)
  rows.push(...(await smallCommands(directory, env)), await coldMemory(directory, sha256))
  print(rows)
})
