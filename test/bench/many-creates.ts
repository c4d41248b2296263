// P10: fifty creates of one image at once, whose base is absent: one download, and hardly longer than one after another.
import { type ChildProcess, spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { root } from '../../build/sh.ts'
import type { Result } from '../../lib/job/result.ts'
import { makeImage, withDirectory } from './common/image.ts'
import { absolute, cowhand, median, print, type Row, time } from './common/measure.ts'

const many = 50
const rounds = 3

/** Run all at once; wall time in ms, and what each says. */
async function together(commands: string[][]): Promise<{ wall: number; results: Result[] }> {
  const start = performance.now()
  const outputs = await Promise.all(
    commands.map(async ([file = '', ...words]) => {
      const child = spawn(file, words, { stdio: ['ignore', 'pipe', 'inherit'] })
      return text(child.stdout)
    }),
  )
  const wall = performance.now() - start
  const results = outputs.map((output) => JSON.parse(output) as Result)
  for (const { ok, error } of results) if (!ok) throw new Error(error?.message)
  return { wall, results }
}

await withDirectory(async (directory) => {
  const sha256 = await makeImage(join(directory, 'bench.qcow2'), 256, 1024)
  const script = join(import.meta.dirname, 'common/server.ts')
  const server: ChildProcess = spawn(join(root, 'node_modules/.bin/tsx'), [script, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const port = await new Promise((resolve) => server.stdout?.once('data', (said) => resolve(Number(said))))
    const instances = join(directory, 'instances')
    const create = (index: number) => [
      ...[cowhand, '--instances', instances, 'create', `vm${index}`, '--json', '--root', '2G'],
      ...['--image', `http://127.0.0.1:${port}/bench.qcow2`, '--checksum', `sha256:${sha256}`],
    ]
    const empty = () => rmSync(instances, { recursive: true, force: true })
    const ratios: number[] = []
    const walls: number[] = []
    let fetched = 0
    let bound = 0
    for (let round = 0; round < rounds; round++) {
      empty()
      const cold = (await together([create(0)])).wall
      const warm = median(await Promise.all([(await together([create(1)])).wall, (await together([create(2)])).wall]))
      empty()
      const { wall, results } = await together(Array.from({ length: many }, (_, index) => create(index)))
      const downloads = results.filter((result) => (result.bytes?.fetched ?? 0) > 0)
      fetched = Math.max(fetched, downloads.length)
      bound = cold + (many * warm) / availableParallelism()
      ratios.push(wall / bound)
      walls.push(wall)
    }
    const ratio = median(ratios)
    const wall: Row = {
      target: 'P10',
      what: `${many} creates at once, base absent`,
      ours: time(median(walls)),
      against: `cold + ${many} × warm / cores: ${time(bound)}`,
      ratio: `${ratio.toFixed(2)}×`,
      most: '1×',
      met: ratio <= 1,
    }
    print([wall, absolute('P10', '  downloads', fetched, 1, String)])
  } finally {
    server.kill()
  }
})
