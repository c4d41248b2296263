// Serves the files of a directory, by ranges too: tsx server.ts DIRECTORY ADDRESS; it prints its port when it listens.
import { createReadStream, existsSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, join } from 'node:path'

const [directory = '.', address = '127.0.0.1'] = process.argv.slice(2)

const server = createServer((request, response) => {
  const file = join(directory, basename(request.url ?? ''))
  if (!existsSync(file)) return void response.writeHead(404).end()
  const { size } = statSync(file)
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const start = Number(range?.[1] ?? 0)
  const end = Math.min(Number(range?.[2] || size - 1), size - 1)
  const whole = { 'content-length': end - start + 1, 'accept-ranges': 'bytes' }
  response.writeHead(range ? 206 : 200, range ? { ...whole, 'content-range': `bytes ${start}-${end}/${size}` } : whole)
  const stream = createReadStream(file, { start, end, highWaterMark: 2 ** 20 })
  stream.pipe(response)
  response.on('close', () => stream.destroy())
})
server.listen(0, address, () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`))
