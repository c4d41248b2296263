import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { caller } from '../../lib/host/caller.ts'
import { audience } from '../../lib/host/interrupt.ts'
import { findCloud } from '../../lib/image/cloud.ts'
import { Settings, storeOf } from '../../lib/job/settings.ts'
import { settingsWith } from './cloud-stub.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-cloud-'))
after(() => rmSync(dir, { recursive: true }))
const [ca, cert, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((name) => join(dir, name)) as [string, string, string]
const make = (at: string, keyAt: string) =>
  execFileSync(
    'openssl',
    ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=x', '-keyout', keyAt, '-out', at],
    { stdio: 'ignore' },
  )
make(ca, join(dir, 'ca.key'))
make(cert, key)

const login = { OS_AUTH_URL: 'http://k/v3', OS_USERNAME: 'u', OS_PASSWORD: 's3cret' }
const yaml = (text: string) => `clouds:\n  lab:\n    auth:\n      auth_url: http://k/v3\n      username: u\n${text}`
const full = yaml('      password: s3cret\n')
const home = '.config/openstack/clouds.yaml'

interface Case {
  when: string
  environment?: Record<string, string>
  /** Below HOME. */
  files?: Record<string, string>
  setting?: string
  /** Some of what is found; undefined: nothing is configured. */
  then?: Record<string, unknown> | undefined
  says?: RegExp
  remedy?: RegExp
}

const cases: Case[] = [
  { when: 'nothing is set', then: undefined },
  { when: 'variables', environment: login, then: { method: 'password', given: { password: 's3cret' } } },
  {
    when: 'a variable that is empty is none',
    environment: { ...login, OS_REGION_NAME: '' },
    then: { given: { username: 'u' } },
  },
  {
    when: 'variables of a token',
    environment: { OS_AUTH_URL: 'http://k', OS_TOKEN: 't' },
    then: { method: 'token' },
  },
  {
    when: 'variables of an application credential',
    environment: {
      OS_AUTH_URL: 'http://k',
      OS_AUTH_TYPE: 'v3applicationcredential',
      OS_APPLICATION_CREDENTIAL_ID: 'i',
      OS_APPLICATION_CREDENTIAL_SECRET: 's3cret',
    },
    then: { method: 'application_credential' },
  },
  {
    when: 'none, and an endpoint',
    environment: { OS_AUTH_TYPE: 'none', OS_ENDPOINT: 'http://g' },
    then: { method: 'none' },
  },
  {
    when: 'OS_CLOUD and the file at home',
    environment: { OS_CLOUD: 'lab' },
    files: { [home]: full },
    then: { given: { password: 's3cret' } },
  },
  { when: 'the setting and the file at home', setting: 'lab', files: { [home]: full }, then: { method: 'password' } },
  {
    when: 'the setting before OS_CLOUD',
    environment: { OS_CLOUD: 'other' },
    setting: 'lab',
    files: { [home]: full },
    then: { method: 'password' },
  },
  {
    when: 'the named file before the one at home',
    environment: { OS_CLOUD: 'lab', OS_CLIENT_CONFIG_FILE: 'HOME/my.yaml' },
    files: { [home]: full, 'my.yaml': full.replace('http://k', 'http://mine') },
    then: { given: { auth_url: 'http://mine/v3' } },
  },
  {
    when: 'a password of digits is text, and anchors and merging work',
    environment: { OS_CLOUD: 'lab' },
    files: {
      [home]:
        'd: &d\n  auth: &a\n    auth_url: http://k\n    username: u\n    password: 0123\nclouds:\n  lab:\n    <<: *d\n    region_name: null\n',
    },
    then: { given: { password: '0123' } },
  },
  {
    when: 'the secret is in secure.yaml beside it',
    environment: { OS_CLOUD: 'lab' },
    files: { [home]: yaml(''), '.config/openstack/secure.yaml': 'clouds:\n  lab:\n    auth:\n      password: other\n' },
    then: { given: { password: 'other', username: 'u' } },
  },
  {
    when: 'a named cloud takes no secret from the variables',
    environment: { ...login, OS_CLOUD: 'lab' },
    files: { [home]: yaml('') },
    says: /^Cannot use cloud "lab" of ".*clouds.yaml": it has no password$/,
    remedy: /secure\.yaml/,
  },
  {
    when: 'interface, as older files say it',
    environment: { ...login, OS_ENDPOINT_TYPE: 'internalURL' },
    then: { interface: 'internal' },
  },
  {
    when: 'authority and certificate of ours',
    environment: { ...login, OS_CACERT: ca, OS_CERT: cert, OS_KEY: key },
    then: {},
  },

  {
    when: 'the cloud is not in the file',
    setting: 'other',
    files: { [home]: full },
    says: /does not have it$/,
    remedy: /^name one of: lab$/,
  },
  {
    when: 'a cloud called as what every object has',
    setting: 'constructor',
    files: { [home]: full },
    says: /does not have it$/,
  },
  {
    when: 'there is no file',
    setting: 'lab',
    says: /there is no clouds.yaml$/,
    remedy: /\.config\/openstack\/clouds\.yaml/,
  },
  { when: 'the file is no YAML', setting: 'lab', files: { [home]: 'clouds:\n  lab: *s3cret' }, says: /it is not YAML/ },
  { when: 'the file is something else', setting: 'lab', files: { [home]: '- 1' }, says: /it has no "clouds"$/ },
  {
    when: 'no user',
    environment: { OS_AUTH_URL: 'http://k', OS_PASSWORD: 's3cret' },
    says: /^Cannot use the cloud of the variables OS_\*: it has no username or user_id$/,
  },
  {
    when: 'no address',
    setting: 'lab',
    files: { [home]: 'clouds:\n  lab:\n    auth: {username: u, password: s3cret}\n' },
    says: /no auth_url$/,
  },
  {
    when: 'none, without an endpoint',
    environment: { OS_AUTH_TYPE: 'none', OS_AUTH_URL: 'http://k' },
    says: /needs an endpoint$/,
  },
  {
    when: 'another kind',
    environment: { ...login, OS_AUTH_TYPE: 'v3oidcpassword' },
    says: /does not know auth_type "v3oidcpassword"$/,
    remedy: /v3applicationcredential/,
  },
  { when: 'another interface', environment: { ...login, OS_INTERFACE: 'private' }, says: /no interface "private"$/ },
  {
    when: 'verify: no',
    setting: 'lab',
    files: { [home]: `${full}    verify: no\n` },
    says: /vouches for nothing$/,
    remedy: /cacert/,
  },
  { when: 'OS_INSECURE', environment: { ...login, OS_INSECURE: 'True' }, says: /vouches for nothing$/ },
  {
    when: 'an authority that is not there',
    environment: { ...login, OS_CACERT: 'HOME/none.pem' },
    says: /no such file$/,
  },
  {
    when: 'an authority by a relative path',
    environment: { ...login, OS_CACERT: 'ca.pem' },
    says: /not an absolute path$/,
  },
  { when: 'an authority that is a key', environment: { ...login, OS_CACERT: key }, says: /has no certificate in PEM$/ },
  { when: 'a certificate without its key', environment: { ...login, OS_CERT: cert }, says: /has no plain key in PEM$/ },
]

let count = 0
for (const { when, environment = {}, files = {}, setting, then, says, remedy } of cases)
  test(when, async () => {
    const HOME = join(dir, String(++count))
    const at = (text: string) => text.replace('HOME', HOME)
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(HOME, name)), { recursive: true })
      writeFileSync(join(HOME, name), text, { mode: 0o600 })
    }
    caller.environment = {
      HOME,
      ...Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, at(value)])),
    }
    const finding = findCloud(settingsWith(setting === undefined ? {} : { os_cloud: setting }))
    if (says) {
      const told = await finding.then(
        () => assert.fail('it is taken'),
        (error) => error,
      )
      assert.equal(told.code, 'BAD_SPEC', told.stack)
      assert.match(told.message, says)
      if (remedy) assert.match(told.remedy, remedy)
      assert.doesNotMatch(`${told.message} ${told.remedy}`, /s3cret/)
    } else {
      const found = await finding
      if (then === undefined) assert.equal(found, undefined)
      else partly(found, then)
    }
  })

/** What is named in `then` is so; there may be more. */
function partly(found: unknown, then: Record<string, unknown>): void {
  for (const [key, value] of Object.entries(then)) {
    const there = (found as Record<string, unknown>)[key]
    if (typeof value === 'object' && value !== null) partly(there, value as Record<string, unknown>)
    else assert.equal(there, value, key)
  }
}

test('a file that every user may read is told of', async () => {
  const HOME = join(dir, 'open')
  mkdirSync(join(HOME, '.config/openstack'), { recursive: true })
  writeFileSync(join(HOME, home), full)
  chmodSync(join(HOME, home), 0o644)
  caller.environment = { HOME }
  const told: unknown[] = []
  audience.tell = (event) => told.push(event)
  await findCloud(settingsWith({ os_cloud: 'lab' }))
  audience.tell = () => {}
  const message = `every user of this host may read "${join(HOME, home)}": chmod o= ${join(HOME, home)}`
  assert.deepEqual(told, [{ type: 'notice', message }])
})

for (const [store, then] of [
  ['dir:/a//b/', { kind: 'dir', directory: '/a/b' }],
  ['glance', { kind: 'glance' }],
  ['glance:http://h:9292', { kind: 'glance', endpoint: 'http://h:9292/' }],
  ['glance:https://h/image/v2', { kind: 'glance', endpoint: 'https://h/image/v2' }],
  ['dir:a', undefined],
  ['dir:', undefined],
  ['glance:', undefined],
  ['glance:h:9292', undefined],
  ['glance:file:///etc', undefined],
  ['glance:http://u:p@h', undefined],
  ['glance:http://h?token=1', undefined],
  ['http://h', undefined],
] as const)
  test(`the store "${store}" is ${then ? `of kind ${then.kind}` : 'none'}`, () => {
    const read = Settings.safeParse({ store })
    assert.deepEqual(read.success ? storeOf(read.data) : undefined, then)
  })
