// P10: fifty creates of one image at once, whose base is absent, at 1 Gbit/s: one download, and hardly longer than one.
import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import type { Result } from '../../lib/job/result.ts'
import { makeImage, withDirectory } from './common/image.ts'
import { absolute, cowhand, median, print, type Row, time } from './common/measure.ts'
import { inClient, withServer, withWire } from './common/wire.ts'

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

/** A cold create, two warm ones, and then all of them at once. */
async function round(instances: string, url: string, sha256: string) {
  const image = ['--image', url, '--checksum', `sha256:${sha256}`, '--root', '2G', '--json']
  const create = (index: number) => [...inClient, cowhand, '--instances', instances, 'create', `vm${index}`, ...image]
  const empty = () => rmSync(instances, { recursive: true, force: true })
  empty()
  const cold = (await together([create(0)])).wall
  const warm = median([(await together([create(1)])).wall, (await together([create(2)])).wall])
  empty()
  const { wall, results } = await together(Array.from({ length: many }, (_, index) => create(index)))
  const downloads = results.filter((result) => (result.bytes?.fetched ?? 0) > 0).length
  return { wall, bound: cold + (many * warm) / availableParallelism(), downloads }
}

await withDirectory(async (directory) => {
  const sha256 = await makeImage(join(directory, 'bench.qcow2'), 730, 2048)
  await withWire(() =>
    withServer(directory, async (url) => {
      const all = []
      for (let number = 0; number < rounds; number++) all.push(await round(join(directory, 'instances'), url, sha256))
      const ratio = median(all.map(({ wall, bound }) => wall / bound))
      const row: Row = {
        target: 'P10',
        what: `${many} creates at once, base absent, 730 MiB by HTTP, 1 Gbit/s`,
        ours: time(median(all.map(({ wall }) => wall))),
        against: `cold + ${many} × warm / cores: ${time(median(all.map(({ bound }) => bound)))}`,
        ratio: `${ratio.toFixed(2)}×`,
        most: '1×',
        met: ratio <= 1,
      }
      print([row, absolute('P10', '  downloads', Math.max(...all.map(({ downloads }) => downloads)), 1, String)])
    }),
  )
})
