import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { errno, fail, misuse, Problem } from '../job/problem.ts'
import { showUrl } from '../job/url.ts'

/** How long a server is borne with. */
export interface Patience {
  /** Tries in a row that get nothing new. */
  tries: number
  /** Pause before the second try, in ms; it doubles each time, and is varied so that many hosts do not come at once. */
  delay: number
  /** A connection on which no byte came for this long, in ms, is given up. */
  stall: number
}
const patience: Patience = { tries: 5, delay: 500, stall: 30_000 }
const longestRetryAfter = 60_000
const mostRedirects = 5

/** Whom a server is to be vouched for by, and who we are to it: PEM text. */
export interface Tls {
  ca?: string | undefined
  cert?: string | undefined
  key?: string | undefined
}

export interface HttpOptions {
  signal?: AbortSignal | undefined
  patience?: Partial<Patience> | undefined
  /**
   * Headers with the secret that lets us in. They go to the origin that was asked for and to no other. When the
   * server does not accept them (any more) it is asked for new ones once. @param renew the last ones were not accepted
   */
  authorize?: ((renew: boolean) => Promise<Record<string, string>>) | undefined
  tls?: Tls | undefined
  /** Redirects to another origin are not followed. */
  stay?: boolean | undefined
  /** What the operator can look at, in the place of the URL. */
  remedy?: string | undefined
  /** Called before each connection; what it throws is thrown. */
  before?: ((url: URL) => Promise<void>) | undefined
}

/** A request that is no GET. */
interface Sent {
  method: 'POST'
  body: string
}

export interface Answer {
  status: number
  headers: IncomingHttpHeaders
  /** Ends without an error only where the body is whole, as far as its framing tells. */
  body: AsyncGenerator<Buffer>
}

/** It may go better the next time. */
export class Hiccup extends Error {
  /** ms that the server asks to wait */
  readonly after: number | undefined
  constructor(message: string, after?: number) {
    super(message)
    this.after = after
  }
}

/** @throws {Problem} BAD_SPEC */
export function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url?.protocol === 'http:' || url?.protocol === 'https:') return url
  return misuse(
    `Cannot fetch "${showUrl(text)}": it is not an http or https URL`,
    'give a URL such as https://HOST/PATH',
  )
}

/**
 * Where a redirect leads. Credentials stay with the server that they were given for.
 * @throws {Problem} FETCH_FAILED when it leaves https or leads nowhere
 */
export function redirected(from: URL, location: string | undefined): URL {
  const to = location !== undefined && URL.canParse(location, from.href) ? new URL(location, from) : undefined
  const cannot = `Cannot fetch "${showUrl(from.href)}": the server redirects`
  const remedy = 'give the URL of the file itself'
  if (!to || !/^https?:$/.test(to.protocol)) return fail('FETCH_FAILED', `${cannot} to no http or https URL`, remedy)
  if (from.protocol === 'https:' && to.protocol === 'http:')
    return fail('FETCH_FAILED', `${cannot} from https to http, where anybody may change the bytes`, remedy)
  if (to.origin === from.origin && !to.username) [to.username, to.password] = [from.username, from.password]
  return to
}

/** What a status that is no success means. @throws {Problem} FETCH_FAILED @throws {Hiccup} where a retry may help */
export async function unexpected(
  { status, headers }: Pick<Answer, 'status' | 'headers'>,
  shown: string,
  { remedy }: HttpOptions = {},
): Promise<never> {
  const { STATUS_CODES } = await import('node:http')
  const words = `the server answered ${status} ${STATUS_CODES[status] ?? ''}`.trim()
  if (status >= 500 || status === 408 || status === 429)
    throw new Hiccup(words, retryAfter(headers['retry-after'], Date.now()))
  if (status === 404 || status === 410)
    fail('FETCH_FAILED', `Cannot fetch "${shown}": the server has no such file (${status})`, remedy ?? 'check the URL')
  if (status === 401 || status === 403)
    fail(
      'FETCH_FAILED',
      `Cannot fetch "${shown}": the server does not permit it (${status})`,
      remedy ?? 'check the URL and its credentials',
    )
  return fail('FETCH_FAILED', `Cannot fetch "${shown}": ${words}`, remedy ?? `see what it says: curl -v ${shown}`)
}

/** ms to wait, of a Retry-After in seconds or as a date; never more than a minute. */
export function retryAfter(header: string | undefined, now: number): number | undefined {
  if (header === undefined) return undefined
  const wait = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - now
  return Number.isNaN(wait) ? undefined : Math.min(Math.max(wait, 0), longestRetryAfter)
}

/** What the other side says of our certificate. */
const unwelcome = /^ERR_SSL_.*ALERT_(CERTIFICATE_REQUIRED|BAD_CERTIFICATE|UNKNOWN_CA)$/
const distrusted = /^(CERT_|DEPTH_ZERO|ERR_SSL|ERR_TLS|HOSTNAME_MISMATCH|SELF_SIGNED|UNABLE_TO)/

/** What an error of the connection means. */
function interpret(error: unknown, shown: string, tls: Tls | undefined): Error {
  if (error instanceof Problem || error instanceof Hiccup) return error
  const code = errno(error) ?? ''
  const cannot = `Cannot fetch "${shown}":`
  if (code === 'ENOTFOUND')
    return new Problem('failed', 'FETCH_FAILED', `${cannot} no such host is known`, 'check the URL')
  const distrust = (state: string, remedy: string) =>
    new Problem('failed', 'FETCH_FAILED', `${cannot} ${state}`, remedy)
  if (unwelcome.test(code))
    return distrust(`it wants a certificate of ours that it trusts (${code})`, 'name cert and key in clouds.yaml')
  if (distrusted.test(code)) {
    const where = tls ? 'as cacert in clouds.yaml, or in OS_CACERT' : 'in NODE_EXTRA_CA_CERTS'
    const remedy = `put the authority that signed it into a file, and name it ${where}`
    return distrust(`its certificate is not trusted (${code})`, remedy)
  }
  return new Hiccup(`the connection failed (${code || (error instanceof Error ? error.message : String(error))})`)
}

/**
 * Ask with GET, follow redirects, and give the answer to `use`. The connection is closed when `use` has ended.
 * @throws {Hiccup} when the connection fails or stalls, here or while `use` reads the body
 * @throws {Problem} FETCH_FAILED where a retry is of no use; the signal's reason when aborted
 */
export async function withAnswer<T>(
  url: URL,
  headers: Record<string, string>,
  options: HttpOptions,
  use: (answer: Answer) => Promise<T>,
): Promise<T> {
  const { authorize, tls, stay } = options
  for (let [target, hops, renewals, renew] = [url, 0, 0, false]; ; ) {
    // What lets us in is for the server that it was meant for, wherever that one sends us.
    const own = target.origin === url.origin
    const secret = own ? await authorize?.(renew) : undefined
    const safe = own || !tls ? options : { ...options, tls: { ca: tls.ca } }
    const next = await ask(target, { ...headers, ...secret }, safe, async (answer) => {
      if (answer.status === 401 && secret && renewals === 0) return undefined
      if (![301, 302, 303, 307, 308].includes(answer.status)) return { value: await use(answer) }
      return redirected(target, answer.headers.location)
    })
    renew = next === undefined
    if (!next) {
      renewals++
      continue
    }
    if (!(next instanceof URL)) return next.value
    if (stay && next.origin !== url.origin)
      fail(
        'FETCH_FAILED',
        `Cannot fetch "${showUrl(url.href)}": the server redirects to another one, ${next.origin}`,
        options.remedy ?? 'give the URL of the file itself',
      )
    if (hops++ >= mostRedirects)
      fail(
        'FETCH_FAILED',
        `Cannot fetch "${showUrl(url.href)}": it is redirected without end`,
        'give the URL of the file itself',
      )
    target = next
  }
}

/**
 * Ask once, and give the answer to `use`; redirects are answers like others.
 * @throws as withAnswer
 */
export async function ask<T>(
  url: URL,
  headers: Record<string, string>,
  { signal, patience: given, tls, before }: HttpOptions,
  use: (answer: Answer) => Promise<T>,
  sent?: Sent,
): Promise<T> {
  signal?.throwIfAborted()
  await before?.(url)
  const { request: start } = await (url.protocol === 'https:' ? import('node:https') : import('node:http'))
  const shown = showUrl(url.href)
  const stall = given?.stall ?? patience.stall
  let request: ClientRequest | undefined
  let waitingSince = Number.POSITIVE_INFINITY // for the server; we may be busy with the disk for as long as it takes
  let stop: (reason: unknown) => void = () => {}

  /** Wait for the server, at most until the stall or the abort: not every runtime ends a body when asked to. */
  const wait = async <R>(promise: Promise<R>): Promise<R> => {
    waitingSince = performance.now()
    try {
      return await new Promise<R>((resolve, reject) => {
        stop = reject
        if (signal?.aborted) reject(signal.reason) // while we were busy
        promise.then(resolve, reject)
      })
    } catch (error) {
      throw signal?.aborted ? signal.reason : interpret(error, shown, tls)
    } finally {
      waitingSince = Number.POSITIVE_INFINITY
    }
  }
  const look = () => {
    if (performance.now() - waitingSince > stall) stop(new Hiccup(`nothing came for ${stall / 1000} seconds`))
  }
  const watch = setInterval(look, Math.min(1000, stall / 4))
  const abort = () => stop(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })

  async function* bodyOf(response: IncomingMessage): AsyncGenerator<Buffer> {
    const chunks = response[Symbol.asyncIterator]()
    for (;;) {
      const chunk = await wait(chunks.next())
      if (chunk.done) break
      yield chunk.value
    }
    if (!response.complete) throw new Hiccup('the connection was cut')
  }

  try {
    const response = await wait(
      new Promise<IncomingMessage>((resolve, reject) => {
        // No compression on the way: what is counted and hashed are the file's own bytes.
        const all = { 'accept-encoding': 'identity', 'user-agent': 'cowhand', ...headers, ...credentials(url) }
        const { method = 'GET', body } = sent ?? {}
        const length = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
        const plain = new URL(url.pathname + url.search, url.origin)
        request = start(plain, { method, headers: { ...all, ...length }, agent: false, ...tls }, resolve)
        request.on('error', reject)
        request.end(body)
      }),
    )
    response.on('error', () => {}) // the body tells it
    return await use({ status: response.statusCode ?? 0, headers: response.headers, body: bodyOf(response) })
  } finally {
    clearInterval(watch)
    signal?.removeEventListener('abort', abort)
    request?.destroy()
  }
}

function credentials({ username, password }: URL): Record<string, string> {
  if (!username) return {}
  const plain = [username, password].map((word) => {
    try {
      return decodeURIComponent(word)
    } catch {
      return word
    }
  })
  return { authorization: `Basic ${Buffer.from(plain.join(':')).toString('base64')}` }
}

/**
 * Try until it works, with growing pauses; gives up after some tries in a row that got nothing new.
 * @param progressed whether the last try got something new
 * @throws {Problem} FETCH_FAILED with the last hiccup's words; whatever else the attempt throws, at once
 */
export async function patiently<T>(
  shown: string,
  { signal, patience: given }: HttpOptions,
  attempt: () => Promise<T>,
  progressed: () => boolean = () => false,
): Promise<T> {
  const { tries, delay } = { ...patience, ...given }
  for (let vain = 0; ; ) {
    try {
      signal?.throwIfAborted()
      return await attempt()
    } catch (error) {
      if (!(error instanceof Hiccup)) throw error
      vain = progressed() ? 0 : vain + 1
      if (vain >= tries)
        fail(
          'FETCH_FAILED',
          `Cannot fetch "${shown}": ${error.message}${tries > 1 ? `, at each of ${tries} tries` : ''}`,
          tries > 1
            ? 'run the same command again, it goes on from there'
            : `see what it says: curl -v ${shown.replace('?…', '')}`,
        )
      const pause = delay * 2 ** Math.max(vain - 1, 0) * (0.75 + Math.random() / 2)
      await sleep(Math.max(pause, error.after ?? 0), signal)
    }
  }
}

/** @param time ms */
async function sleep(time: number, signal: AbortSignal | undefined): Promise<void> {
  const { setTimeout } = await import('node:timers/promises')
  await setTimeout(time, undefined, signal ? { signal } : {}).catch((error) => {
    throw signal?.reason ?? error
  })
}
