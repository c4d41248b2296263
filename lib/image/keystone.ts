import * as z from 'zod/mini'
import { fail, misuse, refuse } from '../job/problem.ts'
import { showUrl } from '../job/url.ts'
import { jsonOf, printable } from './api.ts'
import type { Cloud } from './cloud.ts'
import { type Answer, ask, type HttpOptions, patiently, unexpected } from './http.ts'

// Identity API v3 (https://docs.openstack.org/api-ref/identity/v3/): a secret for a token, and where the services are.

const text = z.optional(z.nullable(z.string()))
const Catalog = z.array(
  z.looseObject({
    type: z.string(),
    endpoints: z.array(z.looseObject({ interface: text, region: text, region_id: text, url: text })),
  }),
)
type Catalog = z.output<typeof Catalog>
const TokenAnswer = z.looseObject({
  token: z.looseObject({ issued_at: text, expires_at: text, catalog: z.optional(Catalog) }),
})

export interface Token {
  id: string
  /** ms that it was good for when it was issued: our clock and the server's need not agree. */
  lifetime: number
  catalog: Catalog
}

/** Name or id, the latter before the former: `{ name: 'demo', domain: { id: 'default' } }`. */
function named({ given }: Cloud, kind: 'user' | 'project', name: string, id: string): object {
  if (given[id]) return { id: given[id] }
  const [domainId, domainName] = [given[`${kind}_domain_id`], given[`${kind}_domain_name`]]
  const domain =
    domainId || !domainName ? { id: domainId ?? given['default_domain'] ?? 'default' } : { name: domainName }
  return { name: given[name], domain }
}

/** What the token is to be good for; an application credential says it itself. */
function scopeOf(cloud: Cloud): object {
  const { given, method } = cloud
  if (method === 'application_credential') return {}
  const of = (kind: string) => (given[`project_${kind}`] ? `project_${kind}` : `tenant_${kind}`)
  const [name, id] = [of('name'), of('id')]
  if (given[id] || given[name]) return { scope: { project: named(cloud, 'project', name, id) } }
  if (given['system_scope']) return { scope: { system: { all: true } } }
  if (given['domain_id']) return { scope: { domain: { id: given['domain_id'] } } }
  return given['domain_name'] ? { scope: { domain: { name: given['domain_name'] } } } : {}
}

/** The body of a request for a token. It holds the secret. */
export function tokenRequest(cloud: Cloud): object {
  const { given, method } = cloud
  const user = () => named(cloud, 'user', 'username', 'user_id')
  const id = given['application_credential_id']
  const proof = {
    password: () => ({ user: { ...user(), password: given['password'] } }),
    application_credential: () => ({
      ...(id ? { id } : { name: given['application_credential_name'], user: user() }),
      secret: given['application_credential_secret'],
    }),
    token: () => ({ id: given['token'] }),
    none: () => ({}),
  }[method]()
  return { auth: { identity: { methods: [method], [method]: proof }, ...scopeOf(cloud) } }
}

/** Where tokens are issued: auth_url may be given with or without its version. @throws {Problem} BAD_SPEC */
export function tokenUrl({ called, given }: Cloud): URL {
  const auth = given['auth_url'] ?? ''
  const url = URL.canParse(auth) ? new URL(auth) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password)
    return misuse(`Cannot use ${called}: its auth_url is no plain URL`, 'write auth_url: https://HOST:5000/v3')
  const path = url.pathname.replace(/\/+$/, '')
  if (/\/v2\.0$/.test(path))
    return misuse(
      `Cannot use ${called}: its auth_url is of the Identity API v2.0, which is no more`,
      `write auth_url: ${url.origin}${path.replace(/v2\.0$/, 'v3')}`,
    )
  return new URL(`${url.origin}${path.replace(/\/v3$/, '')}/v3/auth/tokens`)
}

/**
 * Get a token. The secret goes to this one address: no redirect is followed, and no message has it.
 * @throws {Problem} AUTH_FAILED, FETCH_FAILED, BAD_SPEC; the signal's reason when aborted
 */
export function issueToken(cloud: Cloud, options: HttpOptions): Promise<Token> {
  const url = tokenUrl(cloud)
  const body = JSON.stringify(tokenRequest(cloud))
  const headers = { 'content-type': 'application/json', accept: 'application/json' }
  return patiently(showUrl(url.href), options, () =>
    ask(url, headers, { ...options, tls: cloud.tls }, (answer) => tokenIn(answer, cloud, url), {
      method: 'POST',
      body,
    }),
  )
}

async function tokenIn(answer: Answer, cloud: Cloud, url: URL): Promise<Token> {
  const { status, headers } = answer
  const shown = showUrl(url.href)
  const remedy = `check auth_url of ${cloud.called}: it is such as https://HOST:5000/v3`
  if (status !== 201 && status !== 200) return declined(answer, cloud, shown, remedy)
  const found = TokenAnswer.safeParse(await jsonOf(answer, shown, remedy))
  const id = headers['x-subject-token']
  if (!found.success || typeof id !== 'string' || !/^[\x21-\x7e]+$/.test(id))
    return fail('FETCH_FAILED', `Cannot fetch "${shown}": the server answered with something that is no token`, remedy)
  const { issued_at, expires_at, catalog = [] } = found.data.token
  const lifetime = Date.parse(expires_at ?? '') - (Date.parse(issued_at ?? '') || Date.now())
  return { id, lifetime: Number.isNaN(lifetime) ? Number.POSITIVE_INFINITY : lifetime, catalog }
}

async function declined(answer: Answer, cloud: Cloud, shown: string, remedy: string): Promise<never> {
  const { status } = answer
  const what = {
    password: 'user and password',
    application_credential: 'application credential',
    token: 'token',
    none: '',
  }[cloud.method]
  const refused = (state: string): never =>
    refuse(
      'AUTH_FAILED',
      `Cannot log in to ${cloud.called}: Keystone ${state}`,
      cloud.method === 'token'
        ? 'get a new token: openstack token issue -f value -c id; or use a password or an application credential'
        : `check its ${what}${cloud.method === 'password' ? ', its project and the domains of both' : ''}`,
    )
  // A token that it cannot even read is called "not found".
  const isNone = status === 404 && cloud.method === 'token' && /json/.test(answer.headers['content-type'] ?? '')
  if (status === 401 || isNone) return refused(`does not accept its ${what} (${status})`)
  if (status === 403) return refused(`does not permit it (403)`)
  if (status === 400) return refused(`does not understand the request (400)${await wordsIn(answer, cloud)}`)
  if (status >= 300 && status < 400)
    return fail(
      'FETCH_FAILED',
      `Cannot fetch "${shown}": it redirects (${status}), and a secret is not sent on`,
      remedy,
    )
  return unexpected(answer, shown, { remedy })
}

/** What Keystone says of it, without the secret, should it repeat that. */
async function wordsIn(answer: Answer, { given }: Cloud): Promise<string> {
  const Words = z.object({ error: z.object({ message: z.string() }) })
  const words = Words.safeParse(await jsonOf(answer, '', '').catch(() => undefined))
  if (!words.success) return ''
  const secrets = ['password', 'token', 'application_credential_secret'].flatMap((key) => given[key] ?? [])
  const safe = secrets.reduce((message, secret) => message.replaceAll(secret, '…'), words.data.error.message)
  return `: ${printable(safe).slice(0, 300)}`
}

/**
 * The address of the Image API, without its version.
 * @throws {Problem} BAD_SPEC where the catalog has none, or several
 */
export function imageEndpoint({ called, given, interface: side }: Cloud, catalog: Catalog): string {
  const all = catalog.filter(({ type }) => type === 'image').flatMap(({ endpoints }) => endpoints)
  const regionOf = (endpoint: (typeof all)[number]) => endpoint.region_id ?? endpoint.region ?? ''
  const ofSide = all.filter((endpoint) => endpoint.interface?.replace(/URL$/, '') === side && endpoint.url)
  const wanted = given['region_name']
  const fitting = ofSide.filter((endpoint) => wanted === undefined || regionOf(endpoint) === wanted)
  const regions = [...new Set(fitting.map(regionOf))]
  const cannot = `Cannot use ${called}:`
  const has = (endpoints: typeof all, of: (endpoint: (typeof all)[number]) => string) =>
    printable([...new Set(endpoints.map(of))].join(', '))
  if (catalog.length === 0)
    misuse(`${cannot} its token is for no project, so it has no catalog`, 'give a project: project_name below auth')
  if (all.length === 0)
    misuse(`${cannot} its catalog has no service of type image`, 'name its address: image_endpoint_override')
  if (ofSide.length === 0)
    misuse(
      `${cannot} its catalog has no ${side} address of Glance`,
      `write interface: ${has(all, (e) => e.interface ?? '')}`,
    )
  if (fitting.length === 0)
    misuse(
      `${cannot} its catalog has no Glance in region "${wanted}"`,
      `choose region_name of: ${has(ofSide, regionOf)}`,
    )
  if (regions.length > 1) misuse(`${cannot} it has several regions`, `choose region_name of: ${has(fitting, regionOf)}`)
  return fitting[0]?.url ?? ''
}
