import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { baseName } from '../../lib/job/layout.ts'
import { type Certificates, certificates, type Front, startFront } from './front.ts'
import {
  assertMade,
  convert,
  cowhand,
  file,
  filesIn,
  finish,
  fresh,
  good,
  home,
  MiB,
  makeDisk,
  outcome,
  secrets,
  tell,
} from './glance.ts'
import { type Openstack, startOpenstack } from './openstack.ts'

// The binary with a real Glance and a real Keystone: who may, which image, and a disk of it.

type Env = Record<string, string>
let cloud: Openstack
let source: string
/** Of the images that the tests share, the ids by name. */
const ids: Record<string, string> = {}
let credential: { id: string; secret: string }
let alice: Env
let certs: Certificates
const fronts: Front[] = []

/** Add an image, and remember its id. */
async function image(...[wanted, as]: Parameters<Openstack['image']>): Promise<string> {
  const { id } = await cloud.image(wanted, as)
  ids[wanted.name] = id
  return id
}
const qcow2 = (name: string) => ({ name, disk_format: 'qcow2', file: file('source.qcow2') })

before(async () => {
  cloud = await startOpenstack()
  alice = cloud.env('alice')
  credential = await cloud.applicationCredential('alice')
  for (const secret of [credential.secret, ...Object.values(cloud.passwords)]) secrets.add(secret)
  source = makeDisk('source', 4 * MiB, 32 * MiB)
  convert(source, 'qcow2', 'source.qcow2')
  await image({ ...qcow2('debian'), properties: { os_type: 'linux', hw_disk_bus: 'virtio' } })
  for (const name of ['twin', 'one', 'two', 'three', 'twin']) await image(qcow2(name))
  await image({ ...qcow2('private'), visibility: 'private' }, 'bob')
  await image({ ...qcow2('public'), visibility: 'public' }, 'admin')
  await image({ ...qcow2('wide'), min_disk: 2 })
  await image({ name: 'queued', disk_format: 'qcow2' })
  await image({ ...qcow2('appliance'), container_format: 'ova' })
  await image({ ...qcow2('kernel'), disk_format: 'aki', container_format: 'aki' })
  certs = certificates(file(''))
})
after(async () => {
  for (const front of fronts) await front.close()
  await cloud?.stop()
  finish()
})

/** Write clouds.yaml and what may lie beside it. @returns what makes cowhand read it */
function cloudsYaml(directory: string, clouds: object, secure?: object): void {
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, 'clouds.yaml'), JSON.stringify({ clouds }), { mode: 0o600 })
  if (secure) writeFileSync(join(directory, 'secure.yaml'), JSON.stringify({ clouds: secure }), { mode: 0o600 })
}
const without = (env: Env, ...keys: string[]): Env =>
  Object.fromEntries(Object.entries(env).filter(([key]) => !keys.includes(key)))
const address = ({ OS_AUTH_URL = '', OS_REGION_NAME = '' }: Env): Env => ({ OS_AUTH_URL, OS_REGION_NAME })
const byCredential = (): Env => ({
  ...address(alice),
  OS_AUTH_TYPE: 'v3applicationcredential',
  OS_APPLICATION_CREDENTIAL_ID: credential.id,
  OS_APPLICATION_CREDENTIAL_SECRET: credential.secret,
})
const byToken = (): Env => ({ ...without(alice, 'OS_USERNAME', 'OS_PASSWORD'), OS_AUTH_TYPE: 'token' })
/** The members of a cloud that is alice's, without her password. */
const auth = () => ({
  auth_url: cloud.authUrl,
  username: 'alice',
  project_name: 'alpha',
  user_domain_name: 'Default',
  project_domain_name: 'Default',
})
const password = 'alice-Pa55'

const logins: { by: string; env: () => Env | Promise<Env>; words?: string[] }[] = [
  { by: 'password', env: () => alice },
  {
    by: 'password, where the URL has no /v3',
    env: () => ({ ...alice, OS_AUTH_URL: cloud.authUrl.replace('/v3', '') }),
  },
  { by: 'application credential', env: byCredential },
  {
    by: 'application credential, by its name and user',
    env: () => ({
      ...without(byCredential(), 'OS_APPLICATION_CREDENTIAL_ID'),
      OS_APPLICATION_CREDENTIAL_NAME: 'cowhand',
      OS_USERNAME: 'alice',
      OS_USER_DOMAIN_NAME: 'Default',
    }),
  },
  {
    by: 'token',
    env: async () => ({ ...byToken(), OS_TOKEN: await cloud.token('alice') }),
  },
  {
    by: 'clouds.yaml and --os-cloud',
    env: () => {
      cloudsYaml(join(home, '.config/openstack'), { lab: { auth: { ...auth(), password }, region_name: 'RegionOne' } })
      return {}
    },
    words: ['--os-cloud', 'lab'],
  },
  {
    by: 'clouds.yaml with the password in secure.yaml, and OS_CLOUD',
    env: () => {
      cloudsYaml(join(home, '.config/openstack'), { lab: { auth: auth() } }, { lab: { auth: { password } } })
      return { OS_CLOUD: 'lab' }
    },
  },
  {
    by: 'clouds.yaml in a place of its own, with an application credential',
    env: () => {
      const given = { application_credential_id: credential.id, application_credential_secret: credential.secret }
      const all = { auth_type: 'v3applicationcredential', auth: { auth_url: cloud.authUrl, ...given } }
      cloudsYaml(file('elsewhere'), { lab: { ...all, interface: 'internal' } })
      return { OS_CLIENT_CONFIG_FILE: file('elsewhere/clouds.yaml'), OS_CLOUD: 'lab' }
    },
  },
]
for (const { by, env, words = [] } of logins)
  test(`it logs in by ${by}`, async () => {
    const found = await good([...words, 'image', 'show', 'debian'], await env())
    assert.equal(found['id'], ids['debian'])
    rmSync(home, { recursive: true, force: true })
  })

const refusals: { when: string; env: () => Env | Promise<Env>; then: [number, string]; says: RegExp }[] = [
  {
    when: 'the password is wrong',
    env: () => ({ ...alice, OS_PASSWORD: 'wrong-Pa55' }),
    then: [3, 'AUTH_FAILED'],
    says: /401|not accept/,
  },
  {
    when: 'the project is another one',
    env: () => ({ ...alice, OS_PROJECT_NAME: 'beta' }),
    then: [3, 'AUTH_FAILED'],
    says: /401|not accept/,
  },
  {
    when: 'no project is named',
    env: () => without(alice, 'OS_PROJECT_NAME', 'OS_PROJECT_DOMAIN_NAME'),
    then: [2, 'BAD_SPEC'],
    says: /project/,
  },
  {
    when: 'the secret of the application credential is wrong',
    env: () => ({ ...byCredential(), OS_APPLICATION_CREDENTIAL_SECRET: 'wrong-Pa55' }),
    then: [3, 'AUTH_FAILED'],
    says: /401|not accept/,
  },
  {
    when: 'the token is none',
    env: () => ({ ...byToken(), OS_TOKEN: 'wrong-Pa55' }),
    then: [3, 'AUTH_FAILED'],
    says: /40[14]|not accept/,
  },
  {
    when: 'there is no such region',
    env: () => ({ ...alice, OS_REGION_NAME: 'Nowhere' }),
    then: [2, 'BAD_SPEC'],
    says: /Nowhere/,
  },
  { when: 'there is no cloud', env: () => ({}), then: [2, 'BAD_SPEC'], says: /--os-cloud/ },
  { when: 'clouds.yaml is not there', env: () => ({ OS_CLOUD: 'lab' }), then: [2, 'BAD_SPEC'], says: /clouds\.yaml/ },
  {
    when: 'Keystone is not there',
    env: () => ({ ...alice, OS_AUTH_URL: 'http://127.0.0.1:9/v3' }),
    then: [1, 'FETCH_FAILED'],
    says: /127\.0\.0\.1:9/,
  },
  {
    when: 'the URL is not that of a Keystone',
    env: () => ({ ...alice, OS_AUTH_URL: cloud.glance.url }),
    then: [1, 'FETCH_FAILED'],
    says: /./,
  },
]
for (const { when, env, then, says } of refusals)
  test(`it does not log in when ${when}`, async () => {
    secrets.add('wrong-Pa55')
    const ran = await cowhand(['image', 'show', 'debian'], await env())
    assert.deepEqual(outcome(ran), then, ran.error?.message)
    assert.match(`${ran.error?.message} ${ran.error?.remedy}`, says)
  })

const lookups: { what: string; reference: () => string; then: [number, string | undefined]; says?: RegExp }[] = [
  { what: 'a name', reference: () => 'debian', then: [0, undefined] },
  { what: 'an id', reference: () => ids['debian'] ?? '', then: [0, undefined] },
  { what: "another project's public image", reference: () => 'public', then: [0, undefined] },
  { what: 'a name that nobody has', reference: () => 'nothing', then: [3, 'IMAGE_NOT_FOUND'] },
  {
    what: 'an id that nobody has',
    reference: () => '11111111-2222-4333-8444-555555555555',
    then: [3, 'IMAGE_NOT_FOUND'],
  },
  { what: 'a name that two have', reference: () => 'twin', then: [3, 'IMAGE_AMBIGUOUS'], says: /2 of this name/ },
  { what: "the name of another project's private image", reference: () => 'private', then: [3, 'IMAGE_NOT_FOUND'] },
  {
    what: "the id of another project's private image",
    reference: () => ids['private'] ?? '',
    then: [3, 'IMAGE_NOT_FOUND'],
  },
  { what: 'an image without data', reference: () => 'queued', then: [3, 'IMAGE_NOT_ACTIVE'], says: /queued/ },
  { what: 'a container format that is not bare', reference: () => 'appliance', then: [3, 'UNSUPPORTED'], says: /ova/ },
  { what: 'a disk format that is no disk', reference: () => 'kernel', then: [3, 'UNSUPPORTED'], says: /aki/ },
]
for (const { what, reference, then, says = /./ } of lookups)
  test(`it is asked for ${what}`, async () => {
    const instances = fresh()
    const ran = await cowhand(['create', 'vm1', '--image', reference(), '--root', '1G', '--dry-run'], alice, instances)
    assert.deepEqual(outcome(ran), then, ran.error?.message)
    assert.match(ran.error?.message ?? 'well', says)
    assert.deepEqual(filesIn(instances), [])
  })

test('what is found says what Glance knows', async () => {
  const found = await good(['image', 'show', 'debian'], alice)
  const size = readFileSync(file('source.qcow2')).length
  const { name, digest, format, size: given } = found as unknown as Record<string, unknown>
  assert.deepEqual({ name, format, size: given }, { name: 'debian', format: 'qcow2', size })
  assert.equal(digest, `sha512:${tell('sha512sum', file('source.qcow2')).split(' ')[0]}`)
  const { os_type, hw_disk_bus } = found['properties'] as Record<string, string>
  assert.deepEqual([os_type, hw_disk_bus], ['linux', 'virtio'])
})

test('the list has every image, though a page has three', async () => {
  const { images } = (await good(['image', 'list'], alice)) as unknown as { images: { name: string }[] }
  const names = images.map(({ name }) => name)
  for (const name of ['debian', 'one', 'two', 'three', 'public', 'wide']) assert.ok(names.includes(name), name)
  assert.equal(names.filter((name) => name === 'twin').length, 2)
  assert.ok(!names.includes('private'))
})

const disks: { format: string; made?: string; options?: string[] }[] = [
  { format: 'raw' },
  { format: 'qcow2' },
  { format: 'vmdk', options: ['-o', 'subformat=streamOptimized'] },
  { format: 'vdi' },
  { format: 'vhd', made: 'vpc', options: ['-o', 'subformat=dynamic,force_size=on'] },
  { format: 'vhdx' },
]
for (const { format, made = format, options = [] } of disks)
  test(`create makes a disk of an image in ${format}`, async () => {
    convert(source, made, `disk.${format}`, ...options)
    const id = await image({ name: `as ${format}`, disk_format: format, file: file(`disk.${format}`) })
    const instances = fresh()
    await good(['create', 'vm1', '--image', id, '--root', '1G'], alice, instances)
    await assertMade(instances, 'vm1', id, source)
  })

test('an ISO image is a disk as it is', async () => {
  mkdirSync(file('cd'))
  writeFileSync(file('cd/readme'), 'hello')
  tell('genisoimage', '-quiet', '-o', file('cd.iso'), file('cd'))
  const id = await image({ name: 'cd', disk_format: 'iso', file: file('cd.iso') })
  const instances = fresh()
  await good(['create', 'vm1', '--image', 'cd', '--root', '1G'], alice, instances)
  await assertMade(instances, 'vm1', id, file('cd.iso'))
})

test('what Glance calls raw, and is qcow2 inside, is rejected', async () => {
  const id = await image({ ...qcow2('liar'), disk_format: 'raw' })
  const instances = fresh()
  const ran = await cowhand(['create', 'vm1', '--image', id, '--root', '1G'], alice, instances)
  assert.deepEqual(outcome(ran), [3, 'IMAGE_REJECTED'], ran.error?.message)
  assert.deepEqual(filesIn(instances), [])
})

test('a disk smaller than the image wants is refused', async () => {
  const create = (size: string) => cowhand(['create', 'vm1', '--image', 'wide', '--root', size, '--dry-run'], alice)
  const ran = await create('1G')
  assert.deepEqual(outcome(ran), [3, 'DISK_TOO_SMALL'], ran.error?.message)
  assert.equal((await create('2G')).code, 0)
})

test('what is cached needs no cloud', async () => {
  const instances = fresh()
  const id = ids['debian'] ?? ''
  const first = await good(['create', 'vm1', '--image', 'debian', '--root', '1G'], alice, instances)
  assert.equal(first.bytes?.fetched, readFileSync(file('source.qcow2')).length)
  const gone = { ...alice, OS_AUTH_URL: 'http://127.0.0.1:9/v3' }
  const second = await good(['create', 'vm2', '--image', id, '--root', '1G'], gone, instances)
  assert.equal(second.bytes?.fetched ?? 0, 0)
  await assertMade(instances, 'vm2', id, source)
  const again = await good(['create', 'vm1', '--image', 'debian', '--root', '1G'], alice, instances)
  assert.equal(again.changed, false)
  assert.equal(filesIn(join(instances, '_base')).join(), `${await baseName(id)},${await baseName(id)}.json`)
})

test('a Glance that asks nobody, named by its URL', async () => {
  await cloud.openGlance.start()
  const { id } = await cloud.image(qcow2('open'), 'nobody')
  const instances = fresh()
  const store = { COWHAND_STORE: `glance:${cloud.openGlance.url}` }
  await good(['create', 'vm1', '--image', 'open', '--root', '1G'], store, instances)
  await assertMade(instances, 'vm1', id, source)
})

test('the catalog names a region with /v2 in its URL', async () => {
  await cloud.region('Suffixed', `${cloud.glance.url}/v2/`)
  const found = await good(['image', 'show', 'debian'], { ...alice, OS_REGION_NAME: 'Suffixed' })
  assert.equal(found['id'], ids['debian'])
})

test('no argument and no environment of a child holds a secret', async () => {
  const trace = file('trace')
  const strace = ['strace', '-f', '-v', '-s', '8192', '-e', 'trace=execve', '-o', trace]
  const instances = fresh()
  await good(['create', 'vm1', '--image', 'debian', '--root', '1G', '--swap', '16M'], alice, instances, strace)
  const [own = '', ...children] = readFileSync(trace, 'utf8')
    .split('\n')
    .filter((line) => line.includes('execve('))
  assert.ok(own.includes(password), 'the trace shows environments')
  assert.ok(children.some((line) => line.includes('qemu-img')))
  for (const line of children) for (const secret of secrets) assert.ok(!line.includes(secret), line)
})

const trust: { when: string; env: (certs: Certificates) => Env; then: [number, string | undefined]; says?: RegExp }[] =
  [
    {
      when: 'authority and client certificate are named',
      env: ({ ca, clientCert, clientKey }) => ({ OS_CACERT: ca, OS_CERT: clientCert, OS_KEY: clientKey }),
      then: [0, undefined],
    },
    {
      when: 'no authority is named',
      env: ({ clientCert, clientKey }) => ({ OS_CERT: clientCert, OS_KEY: clientKey }),
      then: [1, 'FETCH_FAILED'],
      says: /not trusted/,
    },
    { when: 'no client certificate is named', env: ({ ca }) => ({ OS_CACERT: ca }), then: [1, 'FETCH_FAILED'] },
    {
      when: 'the authority is another one',
      env: ({ clientCert, clientKey }) => {
        mkdirSync(file('others'), { recursive: true })
        return { OS_CACERT: certificates(file('others')).ca, OS_CERT: clientCert, OS_KEY: clientKey }
      },
      then: [1, 'FETCH_FAILED'],
      says: /not trusted/,
    },
    {
      when: 'it is told to trust anyone',
      env: ({ clientCert, clientKey }) => ({ OS_INSECURE: 'true', OS_CERT: clientCert, OS_KEY: clientKey }),
      then: [2, 'BAD_SPEC'],
    },
  ]
for (const { when, env, then, says = /./ } of trust)
  test(`a cloud behind TLS, where ${when}`, async () => {
    if (fronts.length === 0) {
      fronts.push(
        await startFront(Number(new URL(cloud.authUrl).port), certs),
        await startFront(cloud.glance.port, certs),
      )
      await cloud.region('Tls', fronts[1]?.url ?? '')
    }
    const secure = { ...alice, OS_AUTH_URL: `${fronts[0]?.url}/v3`, OS_REGION_NAME: 'Tls' }
    const instances = fresh()
    const words = ['create', 'vm1', '--image', 'debian', '--root', '1G']
    const ran = await cowhand(words, { ...secure, ...env(certs) }, instances)
    assert.deepEqual(outcome(ran), then, ran.error?.message)
    assert.match(ran.error?.message ?? 'well', says)
    if (ran.code === 0) await assertMade(instances, 'vm1', ids['debian'] ?? '', source)
    else assert.deepEqual(filesIn(instances), [])
  })

/** What a guest of `debian` wrote, alone; its backing file is a plain base name. */
async function makeDelta(on: string): Promise<{ delta: string; truth: string; base: string }> {
  const instances = fresh()
  await good(['create', 'guest', '--image', on, '--root', '64M'], alice, instances)
  const base = await baseName(on)
  const disk = join(instances, 'guest/disk')
  tell('qemu-io', '-f', 'qcow2', '-c', 'write -P 0x77 8M 300k', disk)
  const [delta, truth] = [file('delta.qcow2'), file('truth')]
  tell('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', disk, truth)
  tell('cp', disk, delta)
  tell('qemu-img', 'rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', base, delta)
  return { delta, truth, base }
}

for (const [whose, base, as, works] of [
  ['its own project', 'debian', 'alice', true],
  ['another project, which made it public', 'public', 'alice', true],
  ['another project', 'debian', 'bob', false],
] as const)
  test(`a delta snapshot on an image of ${whose} is ${works ? 'made a disk' : 'refused'}`, async () => {
    const on = ids[base] ?? ''
    const made = await makeDelta(on)
    const properties = { image_type: 'snapshot', base_image_id_sha1: made.base }
    const wanted = { name: `snap-${base}-${as}`, disk_format: 'qcow2', file: made.delta, properties }
    // An admin sees the images of all projects: what its owner may use is for cowhand to ask.
    const id = await image({ ...wanted, visibility: 'private' }, as)
    const instances = fresh()
    const ran = await cowhand(['create', 'vm', '--image', id, '--root', '128M'], cloud.env('admin'), instances)
    if (!works) {
      assert.deepEqual(outcome(ran), [3, 'IMAGE_REJECTED'])
      assert.match(ran.error?.message ?? '', /its base belongs to another project/)
      assert.deepEqual(filesIn(instances), [])
      return
    }
    assert.equal(ran.code, 0, ran.error?.message)
    const disk = join(instances, 'vm/disk')
    tell('qemu-img', 'check', '-f', 'qcow2', disk)
    tell('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', disk, made.truth)
    const info = JSON.parse(tell('qemu-img', 'info', '--output=json', '-f', 'qcow2', disk))
    assert.deepEqual(
      [info['full-backing-filename'], info['virtual-size']],
      [join(instances, '_base', made.base), 128 * MiB],
    )
    assert.equal(
      (await good(['create', 'vm', '--image', id, '--root', '128M'], cloud.env('admin'), instances)).changed,
      false,
    )
  })

test('a delta snapshot whose base is gone from Glance is made where the base is in the cache, and nowhere else', async () => {
  const on = await image(qcow2('short-lived'))
  const made = await makeDelta(on)
  const properties = { image_type: 'snapshot', base_image_id_sha1: made.base }
  const id = await image({ name: 'orphan', disk_format: 'qcow2', file: made.delta, properties })
  const instances = fresh()
  await good(['cache', 'prefetch', id], alice, instances)
  assert.deepEqual(filesIn(instances), [`_base/${made.base}`, `_base/${made.base}.json`])
  await cloud.remove(on)
  const create = ['create', 'vm', '--image', id, '--root', '64M']
  assert.deepEqual(outcome(await cowhand(create, alice)), [3, 'IMAGE_NOT_FOUND'])
  await good(create, alice, instances)
  tell('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', join(instances, 'vm/disk'), made.truth)
})
