import { interrupt } from '../host/interrupt.ts'
import { misuse } from '../job/problem.ts'
import { type Settings, storeOf } from '../job/settings.ts'
import { showUrl } from '../job/url.ts'
import { type Cloud, findCloud } from './cloud.ts'
import type { HttpOptions } from './http.ts'
import { imageEndpoint, issueToken, type Token } from './keystone.ts'

/** A Glance that can be asked: where it is, and what lets us in. */
export interface Session {
  /** Without a version and without a slash at the end. */
  endpoint: string
  options: HttpOptions & { remedy: string }
}

const sessions = new WeakMap<Settings, Promise<Session>>()

/**
 * The session of this run: one token serves all of it. What failed once is not tried again: accounts are locked after
 * a few wrong passwords.
 * @throws {Problem} BAD_SPEC, AUTH_FAILED, FETCH_FAILED
 */
export function sessionOf(settings: Settings): Promise<Session> {
  const session = sessions.get(settings) ?? openSession(settings, { signal: interrupt.signal })
  sessions.set(settings, session)
  return session
}

/**
 * A session of its own, which logs in anew.
 * @param bounds how long is waited, for each request and for all
 * @throws {Problem} as sessionOf; the signal's reason when aborted
 */
export async function openSession(
  settings: Settings,
  bounds: Pick<HttpOptions, 'signal' | 'patience' | 'before'>,
): Promise<Session> {
  const store = storeOf(settings)
  const given = store.kind === 'glance' ? store.endpoint : undefined
  const cloud = await findCloud(settings)
  if (!cloud) {
    if (given === undefined)
      return misuse(
        'Cannot ask Glance: no cloud is named',
        'name one of clouds.yaml: --os-cloud NAME; or set OS_AUTH_URL and the like; or, where Glance asks nobody: --store glance:URL',
      )
    return {
      endpoint: plain(given),
      options: { ...bounds, remedy: 'check the URL; where Glance wants credentials: --os-cloud NAME' },
    }
  }
  const fixed = given ?? cloud.given['image_endpoint_override'] ?? cloud.given['endpoint']
  const remedy = `check where Glance is: openstack catalog show image; or set image_endpoint_override of ${cloud.called}`
  if (cloud.method === 'none') return { endpoint: plain(fixed ?? ''), options: { ...bounds, remedy, tls: cloud.tls } }
  const tokens = new Tokens(cloud, bounds)
  const endpoint = plain(fixed ?? imageEndpoint(cloud, (await tokens.current()).catalog))
  const authorize = async (renew: boolean) => ({ 'x-auth-token': (await tokens.current(renew)).id })
  return { endpoint, options: { ...bounds, remedy, tls: cloud.tls, authorize } }
}

/** One token at a time, got again before it expires and when it is not accepted any more. */
class Tokens {
  readonly #cloud: Cloud
  readonly #bounds: HttpOptions
  #token: Promise<Token> | undefined
  /** On our monotonic clock, ms: by then there must be another. */
  #until = Number.POSITIVE_INFINITY

  constructor(cloud: Cloud, bounds: HttpOptions) {
    this.#cloud = cloud
    this.#bounds = bounds
  }

  current(renew = false): Promise<Token> {
    if (!this.#token || renew || performance.now() > this.#until) this.#token = this.#issue()
    return this.#token
  }

  async #issue(): Promise<Token> {
    this.#until = Number.POSITIVE_INFINITY // who comes meanwhile waits for this one
    const token = await issueToken(this.#cloud, this.#bounds)
    // What is asked for with it may take a while to arrive.
    this.#until = performance.now() + token.lifetime - Math.min(30_000, token.lifetime / 10)
    return token
  }
}

/** Catalogs have it with a version or a slash at the end, or without. @throws {Problem} BAD_SPEC */
function plain(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password)
    return misuse(
      `Cannot ask Glance: its address "${showUrl(endpoint)}" is no plain URL`,
      'name it: image_endpoint_override: https://HOST:9292',
    )
  return url.origin + url.pathname.replace(/\/+$/, '').replace(/\/v\d+(\.\d+)?$/, '')
}
