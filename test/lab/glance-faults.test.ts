import assert from 'node:assert/strict'
import { closeSync, openSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { baseName } from '../../lib/job/layout.ts'
import { type Front, startFront } from './front.ts'
import { assertMade, cowhand, filesIn, finish, fresh, good, MiB, makeDisk, outcome, secrets } from './glance.ts'
import { type Openstack, startOpenstack } from './openstack.ts'

// What befalls a download from a real Glance, and that it goes on, or that the same command again does.

const size = 24 * MiB
let cloud: Openstack
let source: string
let id: string
/** Before Glance, in a region of its own. */
let front: Front
/** Before a Keystone whose tokens expire soon. */
let keystone: Front
let env: Record<string, string>

before(async () => {
  cloud = await startOpenstack()
  for (const secret of Object.values(cloud.passwords)) secrets.add(secret)
  source = makeDisk('source', size)
  ;({ id } = await cloud.image({ name: 'large', disk_format: 'raw', file: source }))
  front = await startFront(cloud.glance.port)
  keystone = await startFront(Number(new URL(await cloud.keystone(life)).port))
  await cloud.region('Slow', front.url)
  env = { ...cloud.env('alice'), OS_REGION_NAME: 'Slow' }
})
afterEach(() => {
  front.paces = []
  for (const one of [front, keystone]) one.asked.length = 0
})
after(async () => {
  for (const one of [front, keystone]) await one?.close()
  await cloud?.stop()
  finish()
})

/** Seconds that a token lives, where it is to expire: enough to begin with, on a busy machine too. */
const life = 10
const create = ['create', 'vm1', '--image', 'large', '--root', '1G']
const downloads = (of = id) => front.asked.filter((line) => line.startsWith(`GET /v2/images/${of}/file`)).length

/** Wait until so many bytes of the image are there. */
async function arrived(instances: string, bytes: number, of = id): Promise<void> {
  const part = join(instances, '_base', `${await baseName(of)}.part`)
  for (const end = performance.now() + 60_000; performance.now() < end; await sleep(20))
    if ((statSync(part, { throwIfNoEntry: false })?.size ?? 0) >= bytes) return
  assert.fail(`after 60 s there were no ${bytes} bytes in ${part}: ${filesIn(instances)}`)
}

test('a connection that is cut: it goes on from there', async () => {
  const instances = fresh()
  front.paces = [{ cutAfter: 8 * MiB }, { cutAfter: 8 * MiB }]
  const ran = await good(create, env, instances)
  assert.equal(downloads(), 3)
  assert.equal(ran.bytes?.fetched, size)
  await assertMade(instances, 'vm1', id, source)
})

for (const [by, login] of [
  ['password', () => ({})],
  [
    'application credential',
    async () => {
      const credential = await cloud.applicationCredential('alice')
      secrets.add(credential.secret)
      return {
        ...{ OS_AUTH_TYPE: 'v3applicationcredential', OS_USERNAME: '', OS_PASSWORD: '', OS_PROJECT_NAME: '' },
        ...{ OS_APPLICATION_CREDENTIAL_ID: credential.id, OS_APPLICATION_CREDENTIAL_SECRET: credential.secret },
      }
    },
  ],
] as const)
  test(`a token that expires in mid-download: it goes on with another one, by ${by}`, async () => {
    const instances = fresh()
    // A running answer outlives its token; the next request would not.
    keystone.onRequest = (line) => {
      if (!line.startsWith('POST') || keystone.asked.length > 1) return
      front.paces = [{ cutAfter: 8 * MiB, hold: sleep((life + 1) * 1000) }]
    }
    await good(create, { ...env, ...(await login()), OS_AUTH_URL: `${keystone.url}/v3` }, instances)
    assert.ok(keystone.asked.filter((line) => line.startsWith('POST /v3/auth/tokens')).length > 1)
    assert.equal(downloads(), 2, 'until it was cut, and the rest')
    await assertMade(instances, 'vm1', id, source)
  })

test('a token that is not accepted any more in mid-download: it gets another one', async () => {
  const instances = fresh()
  const revoked = arrived(instances, 4 * MiB).then(cloud.revokeTokens)
  front.paces = [{ cutAfter: 8 * MiB, hold: revoked }]
  await good(create, env, instances)
  assert.equal(downloads(), 3, 'until it was cut, not accepted, and the rest')
  await assertMade(instances, 'vm1', id, source)
})

test('a given token that is not accepted any more: it says so, and with another one it goes on', async () => {
  const instances = fresh()
  const byToken = async () => {
    const OS_TOKEN = await cloud.token('alice')
    return { ...env, OS_AUTH_TYPE: 'token', OS_TOKEN, OS_USERNAME: '', OS_PASSWORD: '' }
  }
  const revoked = arrived(instances, 16 * MiB).then(cloud.revokeTokens)
  front.paces = [{ cutAfter: 20 * MiB, hold: revoked }]
  const ran = await cowhand(create, await byToken(), instances)
  assert.equal(ran.error?.code, 'AUTH_FAILED', ran.error?.message)
  assert.match(ran.error?.remedy ?? '', /get a new token/)
  const again = await good(create, await byToken(), instances)
  assert.ok((again.bytes?.fetched ?? 0) <= 8 * MiB, `${again.bytes?.fetched} bytes`)
  await assertMade(instances, 'vm1', id, source)
})

test('Glance is killed in mid-download: it fails, and when Glance is back the same command goes on', async () => {
  const instances = fresh()
  front.paces = [{ rate: 4 * MiB }]
  const running = cowhand(create, env, instances)
  await arrived(instances, 8 * MiB)
  await cloud.glance.kill()
  const ran = await running
  assert.deepEqual(outcome(ran), [1, 'FETCH_FAILED'], ran.error?.message)
  await cloud.glance.start()
  const again = await good(create, env, instances)
  assert.ok((again.bytes?.fetched ?? 0) <= size - 8 * MiB, `${again.bytes?.fetched} bytes`)
  await assertMade(instances, 'vm1', id, source)
})

test('Keystone is away when the image is there already: nothing is asked of it', async () => {
  const instances = fresh()
  await good(create, env, instances)
  const asked = front.asked.length
  const gone = { ...env, OS_AUTH_URL: 'http://127.0.0.1:9/v3' }
  await good(['create', 'vm2', '--image', id, '--root', '1G'], gone, instances)
  assert.equal(front.asked.length, asked)
})

test('bytes that changed in the store of Glance: the digest is not the one it gave, and nothing is left', async () => {
  const broken = await cloud.image({ name: 'broken', disk_format: 'raw', file: source })
  const fd = openSync(join(cloud.store, broken.id), 'r+')
  writeSync(fd, Buffer.from('changed'), 0, 7, 12 * MiB)
  closeSync(fd)
  const instances = fresh()
  const ran = await cowhand(['create', 'vm1', '--image', 'broken', '--root', '1G'], env, instances)
  assert.deepEqual(outcome(ran).slice(1), ['CHECKSUM_MISMATCH'], ran.error?.message)
  assert.notEqual(ran.code, 0)
  assert.deepEqual(filesIn(instances), [])
})

test('bytes that are missing in the store of Glance: it does not pass for whole', async () => {
  const torn = await cloud.image({ name: 'torn', disk_format: 'raw', file: source })
  const fd = openSync(join(cloud.store, torn.id), 'w')
  writeSync(fd, Buffer.alloc(MiB, 1))
  closeSync(fd)
  const instances = fresh()
  const ran = await cowhand(['create', 'vm1', '--image', 'torn', '--root', '1G'], env, instances)
  assert.notEqual(ran.code, 0)
  assert.deepEqual(
    filesIn(instances).filter((path) => !path.endsWith('.part')),
    [],
  )
})

test('the image is deleted in mid-download: it fails, and asks for it no more', async () => {
  const doomed = await cloud.image({ name: 'doomed', disk_format: 'raw', file: source })
  const instances = fresh()
  const removed = arrived(instances, 4 * MiB, doomed.id).then(() => cloud.remove(doomed.id))
  front.paces = [{ cutAfter: 8 * MiB, hold: removed }]
  const ran = await cowhand(['create', 'vm1', '--image', 'doomed', '--root', '1G'], env, instances)
  assert.deepEqual(outcome(ran), [1, 'FETCH_FAILED'], ran.error?.message)
  assert.match(ran.error?.message ?? '', /404/)
  assert.equal(downloads(doomed.id), 2)
})
