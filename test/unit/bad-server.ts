import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What a request is answered with. */
export type Behaviour = (request: IncomingMessage, response: ServerResponse) => void

/** An HTTP server on this host that behaves as badly as is wanted: request after request, then the last for ever. */
export async function badServer(...behaviours: Behaviour[]) {
  const asked: {
    range: string | undefined
    ifRange: string | undefined
    path: string
    authorization: string | undefined
  }[] = []
  const server = createServer((request, response) => {
    const { range, 'if-range': ifRange, authorization } = request.headers
    const behave = behaviours[Math.min(asked.length, behaviours.length - 1)]
    asked.push({ range, ifRange: ifRange as string | undefined, path: request.url ?? '', authorization })
    behave?.(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}/image`,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Where a request asks to begin. */
export const startOf = (request: IncomingMessage): number =>
  Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)

/** As it should be: the whole, or from where it was asked; `If-Range` is honoured. */
export const serve =
  (body: Buffer, headers: Record<string, string> = {}): Behaviour =>
  (request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') ?? []
    const changed = request.headers['if-range'] !== undefined && request.headers['if-range'] !== headers['etag']
    if (first === undefined || changed) {
      response.writeHead(200, { ...headers, 'content-length': body.length }).end(body)
      return
    }
    const start = Number(first)
    if (start >= body.length) {
      response.writeHead(416, { 'content-range': `bytes */${body.length}` }).end()
      return
    }
    const end = Math.min(last ? Number(last) : body.length - 1, body.length - 1)
    const range = { 'content-range': `bytes ${start}-${end}/${body.length}`, 'content-length': end - start + 1 }
    response.writeHead(206, { ...headers, ...range }).end(body.subarray(start, end + 1))
  }

/** The whole, whatever part was asked for. */
export const serveWhole =
  (body: Buffer): Behaviour =>
  (_, response) =>
    response.writeHead(200, { 'content-length': body.length }).end(body)

/** Promise the rest, send some bytes of it, and cut the connection. */
export const cutAfter =
  (body: Buffer, bytes: number, headers: Record<string, string> = {}): Behaviour =>
  (request, response) => {
    const start = startOf(request)
    const range: Record<string, string> =
      start > 0 ? { 'content-range': `bytes ${start}-${body.length - 1}/${body.length}` } : {}
    response.writeHead(start > 0 ? 206 : 200, { ...headers, ...range, 'content-length': body.length - start })
    response.write(body.subarray(start, start + bytes), () => setTimeout(() => response.destroy(), 20))
  }

/** The whole from the start whatever was asked for, cut. */
export const cutWhole =
  (body: Buffer, bytes: number): Behaviour =>
  (_, response) => {
    response.writeHead(200, { 'content-length': body.length })
    response.write(body.subarray(0, bytes), () => setTimeout(() => response.destroy(), 20))
  }

/** Send some bytes, and then nothing more. */
export const stallAfter =
  (body: Buffer, bytes: number): Behaviour =>
  (_, response) => {
    response.writeHead(200, { 'content-length': body.length })
    response.write(body.subarray(0, bytes))
  }

/** Take the request, and never answer. */
export const silence: Behaviour = () => {}

export const status =
  (code: number, headers: Record<string, string> = {}): Behaviour =>
  (_, response) =>
    response.writeHead(code, headers).end('<html>an error page</html>')

/** A body that does not end. */
export const endless: Behaviour = (_, response) => {
  response.writeHead(200)
  const more = () => {
    while (!response.destroyed && response.write(Buffer.alloc(65536, 1)));
  }
  response.on('drain', more)
  more()
}

/** A body without any length, chunk by chunk. */
export const serveChunked =
  (body: Buffer): Behaviour =>
  (_, response) =>
    response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(body)

/** A chunked body whose end never comes. */
export const cutChunked =
  (body: Buffer, bytes: number): Behaviour =>
  (_, response) => {
    response.writeHead(200)
    response.write(body.subarray(0, bytes), () => setTimeout(() => response.destroy(), 20))
  }
