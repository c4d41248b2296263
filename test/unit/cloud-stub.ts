import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Settings } from '../../lib/job/settings.ts'
import { type Behaviour, serve } from './bad-server.ts'

// A Keystone and a Glance of a few lines, for what real ones do not do on command.

export const uuid = (n: number): string => `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`
export const sha512 = (bytes: Buffer): string => createHash('sha512').update(bytes).digest('hex')

/** An image as Glance describes one. */
export const glanceImage = (n: number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  id: uuid(n),
  name: `image${n}`,
  status: 'active',
  visibility: 'private',
  owner: 'owner1',
  disk_format: 'raw',
  container_format: 'bare',
  size: 512,
  min_disk: 0,
  os_hash_algo: 'sha512',
  os_hash_value: sha512(Buffer.alloc(512)),
  ...more,
})

export const json =
  (value: unknown, status = 200, headers: Record<string, string> = {}): Behaviour =>
  (_, response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(value))

export interface Stub {
  images?: Record<string, unknown>[]
  /** Of /v2/images/ID/file. */
  body?: Buffer
  /** Seconds that a token says it lives. */
  lifetime?: number
  catalog?: unknown[]
  /** In the place of what is usual: by the beginning of the path; undefined lets it be as usual. */
  instead?: Record<string, (request: IncomingMessage, response: ServerResponse, count: number) => unknown>
  perPage?: number
}

/** @returns its URL, what it was asked for, and what makes its tokens worth nothing */
export async function cloudStub(stub: Stub = {}) {
  const asked: { line: string; token: string | undefined; body: string; range: string | undefined }[] = []
  let issued = 0
  let valid = 0
  let url = ''
  const counts: Record<string, number> = {}

  const keystone: Behaviour = (request, response) => {
    issued += 1
    valid = issued
    const now = Date.now()
    const catalog = stub.catalog ?? [
      { type: 'image', endpoints: [{ interface: 'public', region_id: 'one', url: `${url}/image/v2/` }] },
    ]
    const token = {
      issued_at: new Date(now).toISOString(),
      expires_at: new Date(now + (stub.lifetime ?? 3600) * 1000).toISOString(),
      catalog,
    }
    json({ token }, 201, { 'x-subject-token': `token-${issued}` })(request, response)
  }
  const glance = (path: string, query: URLSearchParams): Behaviour => {
    const all = stub.images ?? []
    const [, id, file] = /^\/image\/v2\/images\/([^/]+)(\/file)?$/.exec(path) ?? []
    if (file) return serve(stub.body ?? Buffer.alloc(512))
    if (id) {
      const image = all.find((one) => one['id'] === id)
      return image ? json(image) : json({}, 404)
    }
    const known = (image: Record<string, unknown>) =>
      [...query].every(
        ([key, value]) => ['limit', 'marker', 'sort', 'os_hidden', 'visibility'].includes(key) || image[key] === value,
      )
    const found = all.filter(
      (image) => known(image) && Boolean(image['os_hidden']) === (query.get('os_hidden') === 'true'),
    )
    const start = Number(query.get('marker') ?? 0)
    const end = start + (stub.perPage ?? 100)
    query.set('marker', String(end))
    // Like the real one, without what comes before /v2 in the catalog.
    return json({ images: found.slice(start, end), ...(end < found.length ? { next: `/v2/images?${query}` } : {}) })
  }

  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += chunk))
    request.on('end', () => {
      const { pathname, searchParams } = new URL(request.url ?? '', 'http://x')
      const token = request.headers['x-auth-token'] as string | undefined
      asked.push({ line: `${request.method} ${request.url}`, token, body, range: request.headers.range })
      const [key, behave] = Object.entries(stub.instead ?? {}).find(([start]) => pathname.startsWith(start)) ?? []
      counts[key ?? ''] = (counts[key ?? ''] ?? 0) + 1
      if (behave?.(request, response, counts[key ?? ''] ?? 0) !== undefined) return
      if (pathname === '/v3/auth/tokens') return keystone(request, response)
      if (token !== `token-${valid}`) return json({}, 401)(request, response)
      return glance(pathname, searchParams)(request, response)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    asked,
    /** Lines, without the limit of a page. */
    lines: () => asked.map(({ line }) => line.replace(/[?&]limit=\d+/, '')),
    expire: () => (valid = -1),
    environment: {
      OS_AUTH_URL: url,
      OS_USERNAME: 'alice',
      OS_PASSWORD: 's3cret',
      OS_PROJECT_NAME: 'demo',
    } as Record<string, string>,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** New ones each time: a session lives as long as its settings. */
export const settingsWith = (more: Record<string, unknown> = {}): Settings =>
  Settings.parse({ store: 'glance', instances: '/nonexistent', ...more })
