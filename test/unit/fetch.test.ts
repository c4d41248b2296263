import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, linkSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fetchImage, fetchText, headOf } from '../../lib/image/fetch.ts'
import { redirected, retryAfter } from '../../lib/image/http.ts'
import { showUrl } from '../../lib/job/url.ts'
import {
  type Behaviour,
  badServer,
  cutAfter,
  cutChunked,
  cutWhole,
  endless,
  serve,
  serveChunked,
  serveWhole,
  silence,
  stallAfter,
  status,
} from './bad-server.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-fetch-'))
after(() => rmSync(dir, { recursive: true }))
let count = 0
const part = () => join(dir, `${++count}.part`)

const sha256 = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`
const quick = { tries: 3, delay: 5, stall: 200 }
const body = randomBytes(3_000_000)
const old = randomBytes(3_000_000)
const zeroed = Buffer.concat([
  randomBytes(100_000),
  Buffer.alloc(4_000_000),
  randomBytes(100_000),
  Buffer.alloc(2_000_000),
])

interface Case {
  when: string
  server: Behaviour[]
  /** what an earlier run left in the part */
  left?: Buffer
  expected?: Buffer
  size?: number
  ceiling?: number
  /** it works, and this was asked; undefined: the whole */
  asked?: (string | undefined)[]
  /** it fails with this code, … */
  fails?: string
  says?: RegExp
  /** … and leaves so many bytes behind, or no file */
  leaves?: number
}

const cases: Case[] = [
  { when: 'all is well', server: [serve(body)], asked: [undefined] },
  { when: 'all is well, and the size is known', server: [serve(body)], size: body.length, asked: [undefined] },
  { when: 'the body is chunked', server: [serveChunked(body)], asked: [undefined] },
  { when: 'the file is empty', server: [serve(Buffer.alloc(0))], expected: Buffer.alloc(0), asked: [] },
  {
    when: 'it is cut in the middle',
    server: [cutAfter(body, 1_000_000), serve(body)],
    asked: [undefined, 'bytes=1000000-'],
  },
  {
    when: 'it is cut more often than there are tries',
    server: [...Array(9).fill(cutAfter(body, 300_000)), serve(body)],
  },
  { when: 'chunks are cut', server: [cutChunked(body, 1_000_000), serve(body)], asked: [undefined, 'bytes=1000000-'] },
  { when: 'it is cut, and the server has no ranges', server: [cutWhole(body, 1_000_000), serveWhole(body)] },
  {
    when: 'each whole answer gets further',
    server: [...[1, 2, 3, 4, 5, 6].map((n) => cutWhole(body, n * 400_000)), serveWhole(body)],
  },
  {
    when: 'it fails twice and then works',
    server: [status(500), status(503), serve(body)],
    asked: [undefined, undefined, undefined],
  },
  {
    when: 'it stalls in the middle',
    server: [stallAfter(body, 500_000), serve(body)],
    asked: [undefined, 'bytes=500000-'],
  },
  { when: 'it does not answer at first', server: [silence, serve(body)], asked: [undefined, undefined] },
  { when: 'the connection is dropped at first', server: [(request) => request.socket.destroy(), serve(body)] },
  {
    when: 'an earlier run left a part',
    server: [serve(body)],
    left: body.subarray(0, 1_234_567),
    asked: ['bytes=1234567-'],
  },
  { when: 'an earlier run left all of it', server: [], left: body, asked: [] },
  {
    when: 'the part is of an older version',
    server: [serve(body)],
    left: old.subarray(0, 1_000_000),
    asked: ['bytes=1000000-', undefined],
  },
  {
    when: 'the part is longer than the file',
    server: [serve(body)],
    left: Buffer.concat([body, old]),
    asked: ['bytes=6000000-', undefined],
  },
  {
    when: 'the part is longer than the known size',
    server: [serve(body)],
    left: Buffer.concat([body, old]),
    size: body.length,
    asked: [undefined],
  },
  {
    when: 'the part is as long as the file, and wrong',
    server: [serve(body)],
    left: old,
    asked: ['bytes=3000000-', undefined],
  },
  {
    when: 'the part is of a file whose size differed',
    server: [cutAfter(old.subarray(0, 2_000_000), 1_000_000), serve(body)],
    asked: [undefined, 'bytes=1000000-', undefined],
  },
  {
    when: 'the file changes in mid-download',
    server: [cutAfter(old, 1_000_000), serve(body)],
    asked: [undefined, 'bytes=1000000-', undefined],
  },
  {
    when: 'the file changes, and its tag with it',
    server: [cutAfter(old, 1_000_000, { etag: '"a"' }), serve(body, { etag: '"b"' })],
    asked: [undefined, 'bytes=1000000-'],
  },
  {
    when: 'the server sends another range',
    server: [(_, r) => r.writeHead(206, { 'content-range': 'bytes 0-2999999/3000000' }).end(body), serve(body)],
    left: body.subarray(0, 9),
    asked: ['bytes=9-', undefined],
  },
  {
    when: 'the server sends another range, and then the file changes',
    server: [
      (_, r) => r.writeHead(206, { 'content-range': 'bytes 0-2999999/3000000' }).end(body),
      cutAfter(old, 1_000_000),
      serve(body),
    ],
    left: body.subarray(0, 9),
    asked: ['bytes=9-', undefined, 'bytes=1000000-', undefined],
  },
  {
    when: 'the part is of an older version, and then it is cut often',
    server: [serve(body), ...Array(6).fill(cutAfter(body, 100_000)), serve(body)],
    left: old.subarray(0, 2_500_000),
  },
  {
    when: 'the range has no length',
    server: [(_, r) => r.writeHead(206, { 'content-range': 'bytes 9-2999999/*' }).end(body.subarray(9))],
    left: body.subarray(0, 9),
    asked: ['bytes=9-'],
  },

  {
    when: 'there is no such file',
    server: [status(404)],
    fails: 'FETCH_FAILED',
    says: /the server has no such file \(404\)$/,
    asked: [undefined],
  },
  {
    when: 'the file is gone, and a part is there',
    server: [status(410)],
    left: body.subarray(0, 9),
    fails: 'FETCH_FAILED',
    leaves: 9,
    asked: ['bytes=9-'],
  },
  {
    when: 'it is forbidden',
    server: [status(403)],
    fails: 'FETCH_FAILED',
    says: /does not permit it \(403\)$/,
    asked: [undefined],
  },
  { when: 'it wants a password', server: [status(401)], fails: 'FETCH_FAILED', asked: [undefined] },
  {
    when: 'the request is bad',
    server: [status(400)],
    fails: 'FETCH_FAILED',
    says: /answered 400 Bad Request$/,
    asked: [undefined],
  },
  {
    when: 'it fails each time',
    server: [status(502)],
    fails: 'FETCH_FAILED',
    says: /answered 502 Bad Gateway, at each of 3 tries$/,
    asked: [undefined, undefined, undefined],
  },
  { when: 'it stalls each time', server: [silence], fails: 'FETCH_FAILED', says: /nothing came for 0.2 seconds/ },
  {
    when: 'it is cut each time at the same place',
    server: [cutWhole(body, 1_000_000)],
    fails: 'FETCH_FAILED',
    says: /the connection was cut|connection failed/,
    leaves: 1_000_000,
  },
  {
    when: 'it promises more than it has',
    server: [
      (q, r) =>
        q.headers.range
          ? status(416)(q, r)
          : r.writeHead(200, { 'content-length': 3_000_009 }).end(body, () => r.destroy()),
    ],
    fails: 'FETCH_FAILED',
  },
  {
    when: 'it has another length than is known',
    server: [serve(body)],
    size: 2_999_999,
    fails: 'FETCH_FAILED',
    says: /has 3000000 bytes there, expected 2999999$/,
    asked: [undefined],
  },
  {
    when: 'a proxy answers with a page of its own, the part stays',
    server: [serveWhole(Buffer.from('<html>'))],
    left: body.subarray(0, 99),
    size: body.length,
    fails: 'FETCH_FAILED',
    leaves: 99,
  },
  {
    when: 'it is larger than the ceiling',
    server: [serve(body)],
    ceiling: 1_000_000,
    fails: 'FETCH_FAILED',
    says: /more than 1000000 are not accepted$/,
  },
  {
    when: 'the body does not end',
    server: [endless],
    ceiling: 9_000_000,
    fails: 'FETCH_FAILED',
    says: /does not end after 9000000 bytes$/,
  },
  {
    when: 'the body does not end, and the size is known',
    server: [endless],
    size: body.length,
    fails: 'FETCH_FAILED',
    says: /does not end after 3000000 bytes$/,
    asked: [undefined],
  },
  {
    when: 'the digest is wrong',
    server: [serve(old)],
    fails: 'CHECKSUM_MISMATCH',
    says: /^Cannot use "http:\/\/127.0.0.1:\d+\/image": its sha256 is [0-9a-f]{16}…, expected [0-9a-f]{16}…$/,
    asked: [undefined],
  },
  {
    when: 'the digest is wrong, and each answer is cut',
    server: [(q, r) => (q.headers.range ? serve(old) : cutAfter(old, 1_000_000))(q, r)],
    fails: 'CHECKSUM_MISMATCH',
    asked: [undefined, 'bytes=1000000-', undefined, 'bytes=1000000-'],
  },
  {
    when: 'the digest is wrong, resumed, and again',
    server: [serve(old)],
    left: old.subarray(0, 9),
    fails: 'CHECKSUM_MISMATCH',
    asked: ['bytes=9-', undefined],
  },
  {
    when: 'an error page comes with status 200',
    server: [serveWhole(Buffer.from('<html>sorry</html>'))],
    fails: 'CHECKSUM_MISMATCH',
  },
  {
    when: 'redirects go round in a circle',
    server: [status(302, { location: '/image' })],
    fails: 'FETCH_FAILED',
    says: /redirected without end$/,
    asked: Array(6).fill(undefined),
  },
  {
    when: 'it is redirected to a file of the host',
    server: [status(302, { location: 'file:///etc/passwd' })],
    fails: 'FETCH_FAILED',
    says: /redirects to no http or https URL$/,
  },
  { when: 'it is redirected to nowhere', server: [status(302)], fails: 'FETCH_FAILED' },
  { when: 'it answers with no file', server: [status(204)], fails: 'FETCH_FAILED' },
]

for (const { when, server: behaviours, left, expected = body, fails, says, leaves, asked, size, ceiling } of cases)
  test(when, async () => {
    await using server = await badServer(...behaviours)
    const to = part()
    if (left) writeFileSync(to, left)
    const fetching = fetchImage({ url: server.url, to, digest: sha256(expected), size, ceiling, patience: quick })
    if (fails) {
      await assert.rejects(fetching, { name: 'Problem', code: fails, ...(says && { message: says }) })
      assert.equal(existsSync(to) ? statSync(to).size : undefined, leaves)
    } else {
      const result = await fetching
      assert.deepEqual([result.size, result.digest], [expected.length, sha256(expected)])
      assert.ok(readFileSync(to).equals(expected), 'the bytes differ')
      assert.equal(statSync(to).mode & 0o777, 0o644)
    }
    if (asked)
      assert.deepEqual(
        server.asked.map(({ range }) => range),
        asked,
      )
  })

test('a resume asks for the same version where the server has tags', async () => {
  await using server = await badServer(cutAfter(body, 1_000_000, { etag: '"a"' }), serve(body, { etag: '"a"' }))
  await fetchImage({ url: server.url, to: part(), digest: sha256(body), patience: quick })
  assert.deepEqual(
    server.asked.map(({ ifRange }) => ifRange),
    [undefined, '"a"'],
  )
})

test('only what came over the network is counted as received', async () => {
  await using server = await badServer(serve(body))
  const to = part()
  writeFileSync(to, body.subarray(0, 2_000_000))
  const { received } = await fetchImage({ url: server.url, to, digest: sha256(body), patience: quick })
  assert.equal(received, 1_000_000)
})

test('sha512 is proven too', async () => {
  await using server = await badServer(serve(body))
  const digest = `sha512:${createHash('sha512').update(body).digest('hex')}`
  await fetchImage({ url: server.url, to: part(), digest, patience: quick })
})

test('zeros become holes, also after a cut in the middle of them', async () => {
  await using server = await badServer(cutAfter(zeroed, 2_345_678), serve(zeroed))
  const to = part()
  await fetchImage({ url: server.url, to, digest: sha256(zeroed), patience: quick })
  assert.ok(readFileSync(to).equals(zeroed))
  const { size, blocks } = statSync(to)
  assert.equal(size, zeroed.length)
  assert.ok(blocks * 512 < 500_000, `${blocks * 512} bytes are allocated`)
})

test('Retry-After is waited for', async () => {
  await using server = await badServer(status(429, { 'retry-after': '1' }), serve(body))
  const before = performance.now()
  await fetchImage({ url: server.url, to: part(), digest: sha256(body), patience: quick })
  assert.ok(performance.now() - before >= 990)
})

for (const [header, then] of [
  ['7', 7000],
  ['3600', 60_000],
  ['Thu, 01 Jan 1970 00:00:15 GMT', 5000],
  ['Thu, 01 Jan 1970 00:00:05 GMT', 0],
  ['soon', undefined],
  [undefined, undefined],
] as const)
  test(`Retry-After "${header}" is ${then} ms`, () => assert.equal(retryAfter(header, 10_000), then))

test('progress goes from what was there to the size', async () => {
  await using server = await badServer(serve(body))
  const to = part()
  writeFileSync(to, body.subarray(0, 1_000_000))
  const told: [number, number?][] = []
  const onProgress = (...args: [number, number?]) => told.push(args)
  await fetchImage({ url: server.url, to, digest: sha256(body), patience: quick, onProgress })
  assert.deepEqual(told.at(-1), [body.length, body.length])
  assert.ok(told.every(([done], i) => i === 0 || done >= (told[i - 1]?.[0] ?? 0)))
})

test('an abort ends it with the reason, and the part can be resumed', async () => {
  await using server = await badServer(stallAfter(body, 1_500_000), serve(body))
  const to = part()
  const controller = new AbortController()
  const fetching = fetchImage({ url: server.url, to, digest: sha256(body), signal: controller.signal })
  setTimeout(() => controller.abort(new Error('the reason')), 100)
  await assert.rejects(fetching, /the reason/)
  assert.ok(readFileSync(to).equals(body.subarray(0, 1_500_000)))
  await fetchImage({ url: server.url, to, digest: sha256(body), patience: quick })
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    [undefined, 'bytes=1500000-'],
  )
})

test('an abort while we are busy with the bytes ends it too', async () => {
  await using server = await badServer(endless)
  const controller = new AbortController()
  const onProgress = () => controller.abort(new Error('the reason'))
  const { signal } = controller
  await assert.rejects(
    fetchImage({ url: server.url, to: part(), digest: sha256(body), signal, onProgress }),
    /the reason/,
  )
})

test('an abort ends the pause between two tries', async () => {
  await using server = await badServer(status(503))
  const to = part()
  const signal = AbortSignal.timeout(100)
  await assert.rejects(fetchImage({ url: server.url, to, digest: sha256(body), signal, patience: { delay: 60_000 } }), {
    name: 'TimeoutError',
  })
  assert.equal(existsSync(to), false)
})

test('the part of a killed process is a true beginning, and is resumed', async () => {
  const image = Buffer.concat([randomBytes(5_000_000), Buffer.alloc(3_000_000), randomBytes(4_000_000)])
  await using server = await badServer(stallAfter(image, 11_000_000), serve(image))
  const to = part()
  const program = `
    const { fetchImage } = await import(${JSON.stringify(new URL('../../lib/image/fetch.ts', import.meta.url).href)})
    await fetchImage(${JSON.stringify({ url: server.url, to, digest: sha256(image) })})`
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', program], { stdio: 'inherit' })
  const ended = new Promise((resolve) => child.on('exit', (_, signal) => resolve(signal)))
  while (child.exitCode === null && !(existsSync(to) && statSync(to).size > 8_000_000))
    await new Promise((resolve) => setTimeout(resolve, 20))
  child.kill('SIGKILL')
  assert.equal(await ended, 'SIGKILL')
  const { size } = statSync(to)
  assert.ok(readFileSync(to).equals(image.subarray(0, size)))
  await fetchImage({ url: server.url, to, digest: sha256(image), patience: quick })
  assert.ok(readFileSync(to).equals(image))
  assert.deepEqual(
    server.asked.map(({ range }) => range),
    [undefined, `bytes=${size}-`],
  )
})

test('on a full disk the part goes, and the bytes that are missing are told', async () => {
  await using server = await badServer(serve(body))
  const program = `
    import { readdirSync } from 'node:fs'
    const { fetchImage } = await import(${JSON.stringify(new URL('../../lib/image/fetch.ts', import.meta.url).href)})
    const told = await fetchImage({ url: process.argv[1], to: process.argv[2] + '/x.part', digest: process.argv[3] }).catch((e) => e)
    process.stdout.write(JSON.stringify([told.code, told.message, readdirSync(process.argv[2])]))`
  const mount = mkdtempSync(join(dir, 'full-'))
  const script =
    'mount -t tmpfs -o size=1m none "$1" && exec "$2" --import tsx --input-type=module -e "$3" "$4" "$1" "$5"'
  const child = spawn('unshare', [
    '-rm',
    'sh',
    '-c',
    script,
    'sh',
    mount,
    process.execPath,
    program,
    server.url,
    sha256(body),
  ])
  let output = ''
  child.stdout.on('data', (chunk) => (output += chunk))
  child.stderr.on('data', (chunk) => (output += chunk))
  await new Promise((resolve) => child.on('close', resolve))
  const [code, message, names] = JSON.parse(output)
  assert.deepEqual([code, names], ['NO_SPACE', []])
  assert.match(message, /^Cannot fetch "http:.*": there is no space left in ".*", (1\.9|2)M are missing$/)
})

test('a symbolic link is not followed', async () => {
  await using server = await badServer(serve(body))
  const [to, victim] = [part(), part()]
  writeFileSync(victim, 'theirs')
  symlinkSync(victim, to)
  await assert.rejects(fetchImage({ url: server.url, to, digest: sha256(body) }), { code: 'ELOOP' })
  assert.equal(readFileSync(victim, 'utf8'), 'theirs')
})

test('a file with a second name is refused', async () => {
  await using server = await badServer(serve(body))
  const [to, victim] = [part(), part()]
  writeFileSync(victim, 'theirs')
  linkSync(victim, to)
  await assert.rejects(fetchImage({ url: server.url, to, digest: sha256(body) }), { code: 'NOT_OURS' })
  assert.equal(readFileSync(victim, 'utf8'), 'theirs')
})

test('a FIFO is refused, not waited for', async () => {
  await using server = await badServer(serve(body))
  const to = part()
  execFileSync('mkfifo', [to])
  await assert.rejects(fetchImage({ url: server.url, to, digest: sha256(body) }), { code: 'NOT_OURS' })
})

test('a certificate that nobody vouches for is not retried', async () => {
  const [key, cert] = [join(dir, 'key.pem'), join(dir, 'cert.pem')]
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=127.0.0.1', '-keyout', key, '-out', cert],
    { stdio: 'ignore' },
  )
  const { createServer } = await import('node:https')
  const server = createServer({ key: readFileSync(key), cert: readFileSync(cert) }, (_, response) => response.end(body))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `https://127.0.0.1:${(server.address() as { port: number }).port}/image`
  const said = { code: 'FETCH_FAILED', message: /its certificate is not trusted \(DEPTH_ZERO_SELF_SIGNED_CERT\)$/ }
  await assert.rejects(fetchImage({ url, to: part(), digest: sha256(body), patience: { delay: 60_000 } }), said)
  server.close()
})

test('the password goes to the server, and into no message', async () => {
  await using server = await badServer(status(403))
  const url = server.url.replace('127', 'user:p%40ss@127')
  const told = await fetchImage({ url: `${url}?signature=s3cret`, to: part(), digest: sha256(body) }).catch(
    (error) => error,
  )
  assert.equal(server.asked[0]?.authorization, `Basic ${Buffer.from('user:p@ss').toString('base64')}`)
  assert.equal(server.asked[0]?.path, '/image?signature=s3cret')
  assert.doesNotMatch(`${told.message} ${told.remedy}`, /user|p@ss|p%40ss|s3cret/)
})

for (const [url, then] of [
  ['https://u:p@h/a', 'https://h/a'],
  ['https://h/a?X-Sig=1#f', 'https://h/a?…'],
  ['https://u:p@ h', 'the given URL'],
] as const)
  test(`"${url}" is shown as "${then}"`, () => assert.equal(showUrl(url), then))

for (const [from, location, then] of [
  ['http://a/x', 'https://b/y', 'https://b/y'],
  ['http://a/x', '/y', 'http://a/y'],
  ['https://u:p@a/x', '/y', 'https://u:p@a/y'],
  ['https://u:p@a/x', 'https://b/y', 'https://b/y'],
  ['https://u:p@a/x', 'https://v:q@a/y', 'https://v:q@a/y'],
  ['https://a/x', 'http://a/x', undefined],
  ['http://a/x', 'ftp://a/x', undefined],
  ['http://a/x', 'http://', undefined],
] as const)
  test(`from ${from}, "${location}" leads ${then === undefined ? 'nowhere' : `to ${then}`}`, () => {
    if (then === undefined) assert.throws(() => redirected(new URL(from), location), { code: 'FETCH_FAILED' })
    else assert.equal(redirected(new URL(from), location).href, then)
  })

for (const url of ['file:///etc/passwd', 'image.qcow2', 'ftp://h/x'])
  test(`"${url}" is no URL to fetch`, async () => {
    const to = part()
    await assert.rejects(fetchImage({ url, to, digest: sha256(body) }), { code: 'BAD_SPEC' })
    assert.equal(existsSync(to), false)
  })

const sums = Buffer.from(`${'a'.repeat(64)}  image\n`)
test('text: a small file', async () => {
  await using server = await badServer(status(500), cutWhole(sums, 9), serveWhole(sums))
  assert.equal(await fetchText(server.url, { patience: quick }), sums.toString())
})
test('text: there is none', async () => {
  await using server = await badServer(status(404))
  assert.equal(await fetchText(server.url, { patience: quick }), undefined)
})
test('text: it is too long', async () => {
  await using server = await badServer(endless)
  await assert.rejects(fetchText(server.url, { limit: 1000, patience: quick }), {
    message: /has more than 1000 bytes$/,
  })
})

for (const [when, behaviour, bytes, total] of [
  ['by a range', serve(body), 512, body.length],
  ['of a server without ranges', serveWhole(body), 512, body.length],
  ['of unknown length', serveChunked(body), 512, undefined],
  ['without end', endless, 512, undefined],
  ['shorter than asked for', serve(sums), sums.length, sums.length],
  ['of an empty file', serve(Buffer.alloc(0)), 0, 0],
] as const)
  test(`head: ${when}`, async () => {
    await using server = await badServer(behaviour)
    const head = await headOf(server.url, 512, { patience: quick })
    assert.deepEqual([head.bytes.length, head.total], [bytes, total])
    assert.deepEqual(
      server.asked.map(({ range }) => range),
      ['bytes=0-511'],
    )
  })

for (const rate of [1, 4])
  test(`it is held back to ${rate} MB/s`, async () => {
    const bytes = randomBytes(rate * 2_000_000)
    await using server = await badServer(serve(bytes))
    const to = part()
    const started = performance.now()
    await fetchImage({ url: server.url, to, digest: sha256(bytes), rate: rate * 1_000_000, patience: quick })
    const measured = bytes.length / (performance.now() - started) / 1000
    assert.ok(Math.abs(measured / rate - 1) < 0.1, `${measured} MB/s`)
  })

test('an abort ends a download that is held back at once', async () => {
  await using server = await badServer(serve(body))
  const [to, abort, started] = [part(), new AbortController(), performance.now()]
  setTimeout(() => abort.abort(new Error('enough')), 300)
  await assert.rejects(
    fetchImage({ url: server.url, to, digest: sha256(body), rate: 1000, signal: abort.signal, patience: quick }),
    /enough/,
  )
  assert.ok(performance.now() - started < 1500)
})
