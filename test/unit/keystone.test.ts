import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { caller } from '../../lib/host/caller.ts'
import type { Cloud } from '../../lib/image/cloud.ts'
import { imageEndpoint, issueToken, tokenRequest, tokenUrl } from '../../lib/image/keystone.ts'
import { sessionOf } from '../../lib/image/session.ts'
import { type Behaviour, endless, serveWhole, silence, status } from './bad-server.ts'
import { cloudStub, json, type Stub, settingsWith } from './cloud-stub.ts'

afterEach(() => {
  caller.environment = {}
})

const cloud = (given: Record<string, string>, method: Cloud['method'] = 'password'): Cloud => ({
  called: 'cloud "lab"',
  method,
  given,
  interface: 'public',
  tls: {},
})

const byPassword = { username: 'u', password: 'p' }
const byDefault = { name: 'u', domain: { id: 'default' } }
const requests: { when: string; cloud: Cloud; identity: object; scope?: object }[] = [
  {
    when: 'user and project by name',
    cloud: cloud({ ...byPassword, user_domain_name: 'D', project_name: 'p1', project_domain_name: 'E' }),
    identity: { methods: ['password'], password: { user: { name: 'u', domain: { name: 'D' }, password: 'p' } } },
    scope: { project: { name: 'p1', domain: { name: 'E' } } },
  },
  {
    when: 'both by id',
    cloud: cloud({ user_id: 'U', password: 'p', project_id: 'P' }),
    identity: { methods: ['password'], password: { user: { id: 'U', password: 'p' } } },
    scope: { project: { id: 'P' } },
  },
  {
    when: 'domains by id, and the old word for project',
    cloud: cloud({ ...byPassword, user_domain_id: 'd', tenant_name: 't', project_domain_id: 'e' }),
    identity: { methods: ['password'], password: { user: { name: 'u', domain: { id: 'd' }, password: 'p' } } },
    scope: { project: { name: 't', domain: { id: 'e' } } },
  },
  {
    when: 'no domain is said',
    cloud: cloud({ ...byPassword, project_name: 'p1' }),
    identity: { methods: ['password'], password: { user: { ...byDefault, password: 'p' } } },
    scope: { project: { name: 'p1', domain: { id: 'default' } } },
  },
  {
    when: 'for a domain',
    cloud: cloud({ ...byPassword, domain_name: 'D' }),
    identity: { methods: ['password'], password: { user: { ...byDefault, password: 'p' } } },
    scope: { domain: { name: 'D' } },
  },
  {
    when: 'for the system',
    cloud: cloud({ ...byPassword, system_scope: 'all' }),
    identity: { methods: ['password'], password: { user: { ...byDefault, password: 'p' } } },
    scope: { system: { all: true } },
  },
  {
    when: 'application credential by id: it has its scope',
    cloud: cloud(
      { application_credential_id: 'a', application_credential_secret: 's', project_name: 'p1' },
      'application_credential',
    ),
    identity: { methods: ['application_credential'], application_credential: { id: 'a', secret: 's' } },
  },
  {
    when: 'application credential by name',
    cloud: cloud(
      { application_credential_name: 'n', application_credential_secret: 's', username: 'u' },
      'application_credential',
    ),
    identity: {
      methods: ['application_credential'],
      application_credential: { name: 'n', user: byDefault, secret: 's' },
    },
  },
  { when: 'token', cloud: cloud({ token: 't' }, 'token'), identity: { methods: ['token'], token: { id: 't' } } },
]
for (const { when, cloud: of, identity, scope } of requests)
  test(`request: ${when}`, () =>
    assert.deepEqual(tokenRequest(of), { auth: { identity, ...(scope ? { scope } : {}) } }))

for (const [given, then] of [
  ['http://h:5000', 'http://h:5000/v3/auth/tokens'],
  ['http://h:5000/', 'http://h:5000/v3/auth/tokens'],
  ['http://h:5000/v3', 'http://h:5000/v3/auth/tokens'],
  ['https://h/identity/v3/', 'https://h/identity/v3/auth/tokens'],
  ['https://h/identity', 'https://h/identity/v3/auth/tokens'],
  ['http://h/v2.0', undefined],
  ['http://u:p@h', undefined],
  ['ftp://h', undefined],
  ['h:5000', undefined],
] as const)
  test(`auth_url ${given} is ${then ?? 'refused'}`, () => {
    if (then === undefined) assert.throws(() => tokenUrl(cloud({ auth_url: given })), { code: 'BAD_SPEC' })
    else assert.equal(tokenUrl(cloud({ auth_url: given })).href, then)
  })

const at = (url: string | null, region: string | null = 'one', side = 'public') => ({
  interface: side,
  region_id: region,
  url,
})
const catalogOf = (...endpoints: object[]) => [{ type: 'image', endpoints }] as Parameters<typeof imageEndpoint>[1]
for (const [when, catalog, given, then] of [
  ['one', catalogOf(at('http://g')), {}, 'http://g'],
  ['of its side', catalogOf(at('http://i', 'one', 'internal'), at('http://g')), {}, 'http://g'],
  ['of its region', catalogOf(at('http://a'), at('http://b', 'two')), { region_name: 'two' }, 'http://b'],
  ['the old word for its side', catalogOf(at('http://g', 'one', 'publicURL')), {}, 'http://g'],
  [
    'several regions',
    catalogOf(at('http://a'), at('http://b', 'two')),
    {},
    /several regions choose region_name of: one, two/,
  ],
  ['another region', catalogOf(at('http://a')), { region_name: 'two' }, /in region "two" choose region_name of: one$/],
  [
    'another side',
    catalogOf(at('http://a', 'one', 'admin')),
    {},
    /no public address of Glance write interface: admin$/,
  ],
  ['no address', catalogOf(at(null)), {}, /no public address/],
  ['no image service', [{ type: 'compute', endpoints: [] }], {}, /no service of type image name its address/],
  ['no catalog', [], {}, /for no project.*project_name/],
] as const)
  test(`catalog: ${when}`, () => {
    const find = () => imageEndpoint(cloud(given), catalog as Parameters<typeof imageEndpoint>[1])
    if (typeof then === 'string') return assert.equal(find(), then)
    assert.throws(find, (error: Error & { code: string; remedy: string }) => {
      assert.match(`${error.message} ${error.remedy}`, then)
      return error.code === 'BAD_SPEC'
    })
  })

const echo: Behaviour = (request, response) =>
  json({ error: { message: 'no s3cret\u001b[31m here' } }, 400)(request, response)
const refusals: {
  when: string
  answer: Behaviour
  method?: Cloud['method']
  code: string
  says: RegExp
  asked?: number
}[] = [
  {
    when: 'a wrong password',
    answer: json({}, 401),
    code: 'AUTH_FAILED',
    says: /^Cannot log in to cloud "lab": Keystone does not accept its user and password \(401\) check its user and password/,
  },
  {
    when: 'a token that expired',
    answer: json({}, 401),
    method: 'token',
    code: 'AUTH_FAILED',
    says: /does not accept its token \(401\) get a new token: openstack token issue/,
  },
  {
    when: 'a token that it cannot read',
    answer: json({}, 404),
    method: 'token',
    code: 'AUTH_FAILED',
    says: /does not accept its token \(404\)/,
  },
  {
    when: 'a wrong application credential',
    answer: json({}, 401),
    method: 'application_credential',
    code: 'AUTH_FAILED',
    says: /its application credential \(401\)/,
  },
  { when: 'it is forbidden', answer: json({}, 403), code: 'AUTH_FAILED', says: /does not permit it \(403\)/ },
  {
    when: 'a bad request, and Keystone repeats the secret',
    answer: echo,
    code: 'AUTH_FAILED',
    says: /\(400\): no …\ufffd\[31m here/,
  },
  {
    when: 'the wrong address',
    answer: status(404),
    code: 'FETCH_FAILED',
    says: /no such file \(404\) check auth_url of cloud "lab"/,
  },
  { when: 'a choice of versions', answer: json({}, 300), code: 'FETCH_FAILED', says: /it redirects \(300\)/ },
  {
    when: 'a redirect',
    answer: status(307, { location: 'http://127.0.0.1:9/' }),
    code: 'FETCH_FAILED',
    says: /it redirects \(307\), and a secret is not sent on/,
  },
  {
    when: 'it fails each time',
    answer: status(503),
    code: 'FETCH_FAILED',
    says: /503 Service Unavailable, at each of 2 tries/,
    asked: 2,
  },
  { when: 'it does not answer', answer: silence, code: 'FETCH_FAILED', says: /nothing came for 0.2 seconds/, asked: 2 },
  {
    when: 'a page',
    answer: serveWhole(Buffer.from('<html>')),
    code: 'FETCH_FAILED',
    says: /something that is no JSON/,
  },
  { when: 'JSON of something else', answer: json({}, 201), code: 'FETCH_FAILED', says: /something that is no token/ },
  {
    when: 'no token in its headers',
    answer: json({ token: {} }, 201),
    code: 'FETCH_FAILED',
    says: /something that is no token/,
  },
  { when: 'an answer without end', answer: endless, code: 'FETCH_FAILED', says: /more than 8388608 bytes/ },
]
for (const { when, answer, method = 'password', code, says, asked = 1 } of refusals)
  test(`log in: ${when}`, async () => {
    await using stub = await cloudStub({
      instead: {
        '/v3': (request, response) => {
          answer(request, response)
          return true
        },
      },
    })
    const given = {
      auth_url: stub.url,
      username: 'u',
      password: 's3cret',
      token: 's3cret',
      application_credential_id: 'a',
      application_credential_secret: 's3cret',
    }
    const patience = { tries: 2, delay: 5, stall: 200 }
    const told = await issueToken(cloud(given, method), { patience }).then(
      () => assert.fail('it logs in'),
      (error) => error,
    )
    assert.equal(told.code, code, told.stack)
    assert.match(`${told.message} ${told.remedy}`, says)
    for (const never of ['s3cret', '\u001b']) assert.ok(!`${told.message} ${told.remedy}`.includes(never), told.message)
    assert.equal(stub.asked.length, asked)
  })

const openSession = (stub: { environment: Record<string, string> }, more: Record<string, string> = {}) => {
  caller.environment = { ...stub.environment, ...more }
  const settings = settingsWith()
  return { settings, session: () => sessionOf(settings) }
}

test('one token serves a session, and another one is got before it expires', async () => {
  await using stub = await cloudStub({ lifetime: 0.5 })
  const { session } = openSession(stub)
  const { authorize } = (await session()).options
  assert.deepEqual(await authorize?.(false), { 'x-auth-token': 'token-1' })
  assert.deepEqual(await (await session()).options.authorize?.(false), { 'x-auth-token': 'token-1' })
  await new Promise((resolve) => setTimeout(resolve, 460))
  const both = await Promise.all([authorize?.(false), authorize?.(false)])
  assert.deepEqual(both, [{ 'x-auth-token': 'token-2' }, { 'x-auth-token': 'token-2' }])
  assert.equal(stub.asked.length, 2)
})

test('a login that failed is not tried again: accounts are locked after a few', async () => {
  const no: Stub = {
    instead: {
      '/v3': (request, response) => {
        json({}, 401)(request, response)
        return true
      },
    },
  }
  await using stub = await cloudStub(no)
  const { session } = openSession(stub)
  for (let time = 0; time < 3; time++) await assert.rejects(session, { code: 'AUTH_FAILED' })
  assert.equal(stub.asked.length, 1)
})

for (const [when, more, store, then] of [
  ['of the catalog, without its version', {}, 'glance', /^http:\/\/127.0.0.1:\d+\/image$/],
  ['that overrides the catalog', { OS_IMAGE_ENDPOINT_OVERRIDE: 'http://g:9292/v2/' }, 'glance', /^http:\/\/g:9292$/],
  ['of the store', {}, 'glance:http://s:9292/', /^http:\/\/s:9292$/],
  ['without credentials', { OS_AUTH_TYPE: 'none', OS_ENDPOINT: 'http://n:9292' }, 'glance', /^http:\/\/n:9292$/],
] as const)
  test(`the address ${when}`, async () => {
    await using stub = await cloudStub()
    caller.environment = { ...stub.environment, ...more }
    const { endpoint, options } = await sessionOf(settingsWith({ store }))
    assert.match(endpoint, then)
    assert.equal(options.authorize === undefined, 'OS_AUTH_TYPE' in more)
  })

test('without any cloud the address of the store is asked without credentials', async () => {
  const { endpoint, options } = await sessionOf(settingsWith({ store: 'glance:http://s:9292' }))
  assert.deepEqual([endpoint, options.authorize], ['http://s:9292', undefined])
  await assert.rejects(sessionOf(settingsWith()), { code: 'BAD_SPEC', message: 'Cannot ask Glance: no cloud is named' })
})
