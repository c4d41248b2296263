import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { caller } from '../../lib/host/caller.ts'
import { Effects } from '../../lib/host/perform.ts'
import { fetchImage } from '../../lib/image/fetch.ts'
import { fileOf } from '../../lib/image/glance.ts'
import { findBaseImage, findImage, listImages, type Wanted } from '../../lib/image/store.ts'
import { sayAction } from '../../lib/job/action.ts'
import { baseName } from '../../lib/job/layout.ts'
import { imageAdd } from '../../scripts/pipelines/image-add.ts'
import { imageRemove } from '../../scripts/pipelines/image-remove.ts'
import { type Behaviour, badServer, cutAfter, endless, serve, serveWhole, stallAfter, status } from './bad-server.ts'
import { cloudStub, glanceImage, json, type Stub, settingsWith, sha512, uuid } from './cloud-stub.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-glance-'))
after(() => rmSync(dir, { recursive: true }))
afterEach(() => {
  caller.environment = {}
})
let count = 0
const part = () => join(dir, `${++count}.part`)

/** A cloud, and settings with which it is the store. */
async function open(stub: Stub = {}, more: Record<string, unknown> = {}) {
  const cloud = await cloudStub(stub)
  caller.environment = cloud.environment
  return { cloud, settings: settingsWith(more), [Symbol.asyncDispose]: () => cloud[Symbol.asyncDispose]() }
}

const zeros = `sha512:${sha512(Buffer.alloc(512))}`
const plain = {
  id: uuid(1),
  name: 'image1',
  source: `glance:${uuid(1)}`,
  digest: zeros,
  format: 'raw',
  size: 512,
  virtualSize: undefined,
  minDisk: undefined,
  owner: 'owner1',
  shared: false,
  properties: {},
}
const md5 = 'd41d8cd98f00b204e9800998ecf8427e'
const sha256 = `sha256:${'a'.repeat(64)}`

interface Case {
  when: string
  /** What Glance says of the image otherwise. */
  image?: Record<string, unknown>
  wanted?: Wanted
  /** What is found otherwise … */
  then?: Record<string, unknown>
  /** … or the code and the words of the refusal. */
  fails?: string
  says?: RegExp
}
const cases: Case[] = [
  { when: 'all is well', then: {} },
  { when: 'it is shared', image: { visibility: 'community' }, then: { shared: true } },
  { when: 'it wants a disk of a size', image: { min_disk: 3 }, then: { minDisk: 3 * 2 ** 30 } },
  {
    when: 'its disk is larger',
    image: { disk_format: 'qcow2', virtual_size: 4096 },
    then: { format: 'qcow2', virtualSize: 4096 },
  },
  { when: 'vhd is vpc', image: { disk_format: 'vhd' }, then: { format: 'vpc' } },
  { when: 'iso is raw', image: { disk_format: 'iso' }, then: { format: 'raw' } },
  { when: 'it is hidden', image: { os_hidden: true }, then: {} },
  {
    when: 'it has properties, and an address with a secret in it',
    image: {
      image_type: 'snapshot',
      direct_url: 'swift+https://u:s3cret@h',
      locations: [],
      tags: ['t'],
      kernel_id: null,
      n: 5,
    },
    then: { properties: { image_type: 'snapshot' } },
  },
  {
    when: 'its name and a property steer the terminal',
    image: { name: 'a\u001b[2Jb\u202e', text: 'x\ny' },
    then: { name: 'a\ufffd[2Jb\ufffd', properties: { text: 'x\ufffdy' } },
  },
  { when: 'it has no name', image: { name: null }, then: { name: uuid(1) } },
  { when: 'sha256', image: { os_hash_algo: 'sha256', os_hash_value: 'A'.repeat(64) }, then: { digest: sha256 } },
  { when: 'the operator gives the same digest', wanted: { checksum: zeros }, then: {} },
  {
    when: 'only md5, and the operator gives a stronger one',
    image: { os_hash_algo: null, os_hash_value: null, checksum: md5 },
    wanted: { checksum: sha256 },
    then: { digest: sha256 },
  },
  {
    when: 'no digest, and the operator gives one',
    image: { os_hash_algo: null, os_hash_value: null, checksum: null },
    wanted: { checksum: sha256 },
    then: { digest: sha256 },
  },
  {
    when: 'no format, and the operator gives it',
    image: { disk_format: null },
    wanted: { format: 'qcow2' },
    then: { format: 'qcow2' },
  },

  {
    when: 'the operator gives another digest',
    wanted: { checksum: `sha512:${'a'.repeat(128)}` },
    fails: 'CHECKSUM_MISMATCH',
  },
  {
    when: 'the operator gives a digest of another kind',
    wanted: { checksum: sha256 },
    fails: 'BAD_SPEC',
    says: /Cannot compare/,
  },
  { when: 'the operator gives another format', wanted: { format: 'qcow2' }, fails: 'BAD_SPEC', says: /as qcow2/ },
  { when: 'no format', image: { disk_format: null }, fails: 'BAD_SPEC', says: /Glance does not know it/ },
  { when: 'no digest', image: { os_hash_value: null }, fails: 'CHECKSUM_MISSING', says: /nothing vouches/ },
  { when: 'a digest of another kind', image: { os_hash_algo: 'whirlpool' }, fails: 'CHECKSUM_MISSING' },
  {
    when: 'it is queued',
    image: { status: 'queued' },
    fails: 'IMAGE_NOT_ACTIVE',
    says: /it is queued there, not active/,
  },
  { when: 'it is deactivated', image: { status: 'deactivated' }, fails: 'IMAGE_NOT_ACTIVE' },
  ...['ami', 'aki', 'ari', 'ploop', 'constructor'].map((format) => ({
    when: `its format is ${format}`,
    image: { disk_format: format },
    fails: 'UNSUPPORTED',
    says: new RegExp(`its format is ${format}`),
  })),
  {
    when: 'its container is ovf',
    image: { container_format: 'ovf' },
    fails: 'UNSUPPORTED',
    says: /container is ovf, not bare/,
  },
  { when: 'it has no container', image: { container_format: null }, fails: 'UNSUPPORTED' },
  { when: 'its size is negative', image: { size: -1 }, fails: 'FETCH_FAILED', says: /no Image API v2/ },
  { when: 'its id is a path', image: { id: '../../../etc' }, fails: 'IMAGE_NOT_FOUND' },
]
for (const { when, image = {}, wanted = {}, then, fails, says } of cases)
  test(`found: ${when}`, async () => {
    await using store = await open({ images: [glanceImage(1, image)] })
    const finding = findImage(uuid(1), wanted, store.settings)
    if (fails) await assert.rejects(finding, { code: fails, ...(says && { message: says }) })
    else assert.deepEqual(await finding, { ...plain, ...then })
  })

test('an answer that is another image is none', async () => {
  await using store = await open({
    instead: {
      [`/image/v2/images/${uuid(1)}`]: (request, response) => {
        json(glanceImage(2))(request, response)
        return true
      },
    },
  })
  await assert.rejects(findImage(uuid(1), {}, store.settings), { code: 'FETCH_FAILED' })
})

const many = Array.from({ length: 7 }, (_, index) => glanceImage(index))
const names: { when: string; images: Record<string, unknown>[]; name: string; then: number | string; says?: RegExp }[] =
  [
    { when: 'one has it', images: many, name: 'image5', then: 5 },
    { when: 'nobody has it', images: many, name: 'image', then: 'IMAGE_NOT_FOUND', says: /no such name or id/ },
    {
      when: 'two have it',
      images: [...many, glanceImage(8, { name: 'image5' })],
      name: 'image5',
      then: 'IMAGE_AMBIGUOUS',
      says: new RegExp(`has 2 of this name: ${uuid(5)}, ${uuid(8)}`),
    },
    {
      when: 'two have it, one of them is queued',
      images: [glanceImage(8, { name: 'image5', status: 'queued' }), ...many],
      name: 'image5',
      then: 5,
    },
    {
      when: 'one has it, which is queued',
      images: [glanceImage(8, { status: 'queued' })],
      name: 'image8',
      then: 'IMAGE_NOT_ACTIVE',
    },
    { when: 'it is an id in capitals', images: [glanceImage(10)], name: uuid(10).toUpperCase(), then: 10 },
    {
      when: 'it has signs of queries in it',
      images: [glanceImage(1, { name: 'a&b=c?#%' })],
      name: 'a&b=c?#%',
      then: 1,
    },
  ]
for (const { when, images, name, then, says } of names)
  test(`by name: ${when}`, async () => {
    await using store = await open({ images, perPage: 3 })
    const finding = findImage(name, {}, store.settings)
    if (typeof then === 'number') assert.equal((await finding).id, uuid(then))
    else await assert.rejects(finding, { code: then, ...(says && { message: says }) })
  })

test('by name: what Glance would take for an operator is quoted, and a database without case does not decide', async () => {
  let asked = ''
  await using store = await open({
    instead: {
      '/image/v2/images': (request, response) => {
        asked = new URL(request.url ?? '', 'http://x').searchParams.get('name') ?? ''
        json({ images: [glanceImage(1, { name: 'IN:a"b' }), glanceImage(2, { name: 'in:a"b' })] })(request, response)
        return true
      },
    },
  })
  assert.equal((await findImage('in:a"b', {}, store.settings)).id, uuid(2))
  assert.equal(asked, 'in:"in:a\\"b"')
})

test('the list has every page, and only what can be used', async () => {
  const images = [
    ...many,
    glanceImage(8, { disk_format: 'ari', container_format: 'ari' }),
    glanceImage(9, { os_hash_value: null }),
  ]
  await using store = await open({ images, perPage: 2 })
  const { images: found, problems } = await listImages(store.settings)
  assert.deepEqual(
    found.map(({ name }) => name),
    many.map(({ name }) => name),
  )
  assert.deepEqual(problems, [])
  assert.equal(store.cloud.asked.length, 6)
})

for (const [when, property] of [
  ['by the property', {}],
  ['by its id where nobody has written the property', { image_id_sha1: undefined }],
  ['also when it is hidden', { image_id_sha1: undefined, os_hidden: true }],
] as const)
  test(`the image of a base is found ${when}`, async () => {
    const sha1 = await baseName(uuid(7))
    const images = [...many, glanceImage(7, { image_id_sha1: sha1, ...property })]
    await using store = await open({ images, perPage: 3 })
    assert.equal((await findBaseImage(sha1, store.settings))?.id, uuid(7))
  })

test('the image of a base is not the one that only says so', async () => {
  const sha1 = await baseName(uuid(7))
  await using store = await open({ images: [glanceImage(1, { image_id_sha1: sha1 })] })
  assert.equal(await findBaseImage(sha1, store.settings), undefined)
})

const api = (answer: Behaviour) => (request: IncomingMessage, response: ServerResponse) => {
  answer(request, response)
  return true
}
for (const [when, answer, says, remedy] of [
  ['a choice of versions', json({ versions: [] }, 300), /answered 300 Multiple Choices$/, /image_endpoint_override/],
  ['there is nothing', status(404), /what answers there is no Image API v2$/, /image_endpoint_override/],
  [
    'an error page with 200',
    serveWhole(Buffer.from('<html>sorry</html>')),
    /something that is no JSON$/,
    /openstack catalog show image/,
  ],
  ['JSON of something else', json({ servers: [] }), /no Image API v2$/, /image_endpoint_override/],
  ['it forbids', status(403), /does not permit it \(403\)$/, /image_endpoint_override/],
  ['an answer without end', endless, /more than 8388608 bytes$/, /image_endpoint_override/],
  ['a page that is its own next one', json({ images: [], next: '/v2/images?marker=x' }), /its pages do not end$/, /./],
  ['a next page without a query', json({ images: [], next: 'http://127.0.0.1:9/' }), /its pages do not end$/, /./],
] as const)
  test(`Glance: ${when}`, async () => {
    await using store = await open({ instead: { '/image': api(answer) } })
    const told = await listImages(store.settings).then(
      () => assert.fail('it lists'),
      (error) => error,
    )
    assert.equal(told.code, 'FETCH_FAILED', told.stack)
    assert.match(told.message, says)
    assert.match(told.remedy, remedy)
    assert.doesNotMatch(`${told.message} ${told.remedy}`, /s3cret|token-/)
  })

test('Glance: it accepts no token', async () => {
  await using store = await open({ instead: { '/image': api(status(401)) } })
  const says = /the server does not accept our token \(401\)$/
  await assert.rejects(listImages(store.settings), { code: 'AUTH_FAILED', message: says })
  assert.equal(store.cloud.asked.length, 4, 'a token and a request, and both once more')
  caller.environment = {}
  const bare = settingsWith({ store: `glance:${store.cloud.url}/image` })
  await assert.rejects(listImages(bare), { code: 'AUTH_FAILED', message: /requests without credentials/ })
})

test('Glance: it fails once and then works', async () => {
  const instead: Stub['instead'] = {
    '/image': (request, response, time) => (time === 1 ? api(status(503))(request, response) : undefined),
  }
  await using store = await open({ instead, images: [glanceImage(1)] })
  assert.equal((await findImage('image1', {}, store.settings)).id, uuid(1))
})

test('the token goes to no other server: not with a redirect, not with a next page', async () => {
  await using other = await badServer(json({ images: [glanceImage(1)] }))
  const to = api(status(302, { location: other.url }))
  await using store = await open({ instead: { '/image': to } })
  const says = /redirects to another one, http:\/\/127.0.0.1:\d+$/
  await assert.rejects(findImage('image1', {}, store.settings), { code: 'FETCH_FAILED', message: says })
  assert.equal(other.asked.length, 0)
  const pages = json({ images: [glanceImage(1)], next: `${other.url}?marker=1` })
  await using second = await open({
    instead: { '/image': (request, response, time) => (time === 1 ? api(pages)(request, response) : undefined) },
    images: [glanceImage(2)],
  })
  assert.equal((await listImages(second.settings)).images.length, 1)
  assert.equal(other.asked.length, 0)
})

test('an image whose base is cached needs no server', async () => {
  const instances = mkdtempSync(join(dir, 'i-'))
  const base = join(instances, '_base', await baseName(uuid(1)))
  mkdirSync(join(instances, '_base'))
  writeFileSync(base, Buffer.alloc(1024))
  const record = {
    version: 1,
    id: uuid(1),
    name: 'image1',
    digest: zeros,
    format: 'qcow2',
    sourceSize: 512,
    size: 1024,
  }
  writeFileSync(`${base}.json`, JSON.stringify(record))
  const settings = settingsWith({ instances })
  const { id, name, digest, format, size, virtualSize } = await findImage(uuid(1), {}, settings)
  assert.deepEqual([id, name, digest, format, size, virtualSize], [uuid(1), 'image1', zeros, 'qcow2', 512, 1024])
  await assert.rejects(findImage(uuid(1), { checksum: `sha512:${'a'.repeat(128)}` }, settings), {
    code: 'CHECKSUM_MISMATCH',
  })
  // What another tool has cached says nothing of itself: it is asked for.
  writeFileSync(`${base}.json`, JSON.stringify({ version: 1, adopted: true, size: 1024 }))
  await assert.rejects(findImage(uuid(1), {}, settings), { code: 'BAD_SPEC', message: /no cloud is named/ })
})

const body = randomBytes(3_000_000)
const quick = { tries: 3, delay: 5, stall: 200 }
const wanted = `sha512:${sha512(body)}`

interface Download {
  when: string
  /** In the place of the file: request after request, then as it should be. */
  file: Behaviour[]
  size?: number
  /** Ranges that were asked for. */
  asked: (string | undefined)[]
  /** Requests for a token. */
  tokens?: number
  fails?: string
  says?: RegExp
  leaves?: number
}
/** What makes the token of the download that runs worth nothing. */
let expire = () => {}
const expireAfter =
  (bytes: number): Behaviour =>
  (request, response) => {
    expire()
    cutAfter(body, bytes)(request, response)
  }
const downloads: Download[] = [
  { when: 'all is well', file: [], asked: [undefined] },
  { when: 'it is cut', file: [cutAfter(body, 1_000_000)], asked: [undefined, 'bytes=1000000-'] },
  { when: 'it stalls', file: [stallAfter(body, 500_000)], asked: [undefined, 'bytes=500000-'] },
  { when: 'it fails twice', file: [status(500), status(503)], asked: [undefined, undefined, undefined] },
  {
    when: 'the token expires in mid-download',
    file: [expireAfter(1_000_000)],
    asked: [undefined, 'bytes=1000000-', 'bytes=1000000-'],
    tokens: 2,
  },
  {
    when: 'the token expires twice',
    file: [expireAfter(1_000_000), status(401), expireAfter(500_000)],
    asked: [undefined, 'bytes=1000000-', 'bytes=1000000-', 'bytes=1500000-', 'bytes=1500000-'],
    tokens: 3,
  },
  {
    when: 'no token is good for it',
    file: Array(9).fill(status(401)),
    asked: [undefined, undefined],
    tokens: 2,
    fails: 'FETCH_FAILED',
    says: /^Cannot fetch "glance:.*": the server does not permit it \(401\)$/,
  },
  {
    when: 'it is forbidden',
    file: [status(403)],
    asked: [undefined],
    fails: 'FETCH_FAILED',
    says: /permit it \(403\)$/,
  },
  {
    when: 'it is gone',
    file: [cutAfter(body, 9_000), status(404)],
    asked: [undefined, 'bytes=9000-'],
    fails: 'FETCH_FAILED',
    says: /no such file \(404\)$/,
    leaves: 9_000,
  },
  { when: 'it has no data', file: [status(204)], asked: [undefined], fails: 'FETCH_FAILED', says: /204 No Content$/ },
  {
    when: 'it has another length',
    file: [],
    size: 2_999_999,
    asked: [undefined],
    fails: 'FETCH_FAILED',
    says: /expected 2999999$/,
  },
  {
    when: 'it is another image',
    file: [serve(randomBytes(3_000_000))],
    asked: [undefined],
    fails: 'CHECKSUM_MISMATCH',
    says: /^Cannot use "glance:.*": its sha512 is/,
  },
  {
    when: 'an error page with 200',
    file: [serveWhole(Buffer.from('<html>'))],
    size: 3_000_000,
    asked: [undefined],
    fails: 'FETCH_FAILED',
    says: /has 6 bytes there/,
  },
]
for (const { when, file, size, asked, tokens = 1, fails, says, leaves } of downloads)
  test(`download: ${when}`, async () => {
    await using store = await open({
      body,
      instead: {
        [`/image/v2/images/${uuid(1)}/file`]: (request, response, time) => {
          const behave = file[time - 1]
          return behave && api(behave)(request, response)
        },
      },
    })
    expire = store.cloud.expire
    const to = part()
    const from = await fileOf(`glance:${uuid(1)}`, store.settings)
    const fetching = fetchImage({ ...from, to, digest: wanted, size, patience: quick })
    if (fails) {
      const told = await fetching.then(
        () => assert.fail('it arrives'),
        (error) => error,
      )
      assert.equal(told.code, fails, told.stack)
      assert.match(told.message, says ?? /./)
      assert.doesNotMatch(`${told.message} ${told.remedy}`, /s3cret|token-|127\.0\.0\.1/)
      assert.equal(existsSync(to) ? readFileSync(to).length : undefined, leaves)
    } else {
      await fetching
      assert.ok(readFileSync(to).equals(body))
    }
    const files = store.cloud.asked.filter(({ line }) => line.endsWith('/file'))
    assert.deepEqual(
      files.map(({ range }) => range),
      asked,
    )
    assert.equal(store.cloud.asked.filter(({ line }) => line.startsWith('POST')).length, tokens)
  })

test('download: a token that was given expires: it is said, and what arrived stays', async () => {
  await using cloud = await cloudStub({
    instead: {
      '/v3': (request, response, time) => (time > 1 ? api(json({}, 401))(request, response) : undefined),
      '/image': (request, response, time) => {
        cloud.expire()
        return time === 1 ? api(cutAfter(body, 1_000_000))(request, response) : undefined
      },
    },
  })
  caller.environment = { OS_AUTH_URL: cloud.url, OS_TOKEN: 's3cret' }
  const to = part()
  const from = await fileOf(`glance:${uuid(1)}`, settingsWith())
  const told = await fetchImage({ ...from, to, digest: wanted, patience: quick }).then(
    () => assert.fail(),
    (error) => error,
  )
  assert.equal(told.code, 'AUTH_FAILED', told.stack)
  assert.match(told.message, /Keystone does not accept its token/)
  assert.match(told.remedy, /^get a new token/)
  assert.equal(readFileSync(to).length, 1_000_000)
})

test('download: it is redirected to another server, and the token is not', async () => {
  let told: string | string[] | undefined = 'nothing'
  await using other = await badServer((request, response) => {
    told = request.headers['x-auth-token']
    serve(body)(request, response)
  })
  const file = api(status(302, { location: other.url }))
  await using store = await open({ instead: { [`/image/v2/images/${uuid(1)}/file`]: file } })
  const to = part()
  await fetchImage({ ...(await fileOf(`glance:${uuid(1)}`, store.settings)), to, digest: wanted, patience: quick })
  assert.equal(told, undefined)
  assert.ok(readFileSync(to).equals(body))
})

test('an action has neither address nor token, and the address is looked up when it is done', async () => {
  await using store = await open({ body })
  const to = part()
  const url = `glance:${uuid(1)}`
  const action = { do: 'fetch', url, to, digest: wanted, ceiling: 2 ** 30, size: body.length } as const
  assert.equal(sayAction(action), `fetch ${url} ${to} (2.9M)`)
  const effects = new Effects(() => {}, new AbortController().signal, store.settings)
  await effects.perform(action)
  assert.equal(effects.fetched, body.length)
  assert.equal(createHash('sha512').update(readFileSync(to)).digest('hex'), sha512(body))
})

for (const source of ['glance:', 'glance:x', 'glance://h/x', `glance:${uuid(1)}/../x`])
  test(`"${source}" is no image of Glance`, () => assert.rejects(fileOf(source, settingsWith()), { code: 'BAD_SPEC' }))

const refusal = {
  code: 'UNSUPPORTED',
  message: /^Cannot change the store: it is Glance/,
  remedy: /openstack image create/,
}
test('image add does not write to Glance', () => {
  const job = { file: '/x.qcow2' } as Parameters<typeof imageAdd.calls>[0]
  assert.throws(() => imageAdd.calls(job, undefined, settingsWith()), refusal)
})
test('image remove does not write to Glance', () =>
  assert.rejects(imageRemove.look({ image: 'debian' }, settingsWith()), refusal))

test('over TLS: authority, and a certificate of ours', async () => {
  const at = (name: string) => join(dir, name)
  const openssl = (...words: string[]) => execFileSync('openssl', words, { stdio: 'ignore' })
  openssl(
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-subj',
    '/CN=ca',
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
  )
  writeFileSync(at('names'), 'subjectAltName=IP:127.0.0.1')
  for (const who of ['server', 'client']) {
    openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', `/CN=${who}`, '-keyout', at(`${who}.key`), '-out', at(who))
    const signed = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-extfile', at('names')]
    openssl('x509', '-req', '-in', at(who), ...signed, '-out', at(`${who}.pem`))
  }
  const read = (name: string) => readFileSync(at(name), 'utf8')
  const { createServer } = await import('node:https')
  const own = { key: read('server.key'), cert: read('server.pem'), ca: read('ca.pem'), requestCert: true }
  const server = createServer(own, json({ images: [glanceImage(1)] }))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const store = `glance:https://127.0.0.1:${(server.address() as { port: number }).port}`
  const none = { OS_AUTH_TYPE: 'none', OS_ENDPOINT: 'http://127.0.0.1:9' }
  const ask = (more: Record<string, string>) => {
    caller.environment = { ...none, ...more }
    return findImage('image1', {}, settingsWith({ store }))
  }
  await assert.rejects(ask({}), {
    code: 'FETCH_FAILED',
    message: /its certificate is not trusted/,
    remedy: /OS_CACERT/,
  })
  const known = { OS_CACERT: at('ca.pem') }
  await assert.rejects(ask(known), {
    code: 'FETCH_FAILED',
    message: /wants a certificate of ours/,
    remedy: /cert and key/,
  })
  assert.equal((await ask({ ...known, OS_CERT: at('client.pem'), OS_KEY: at('client.key') })).id, uuid(1))
  server.closeAllConnections()
  server.close()
})
