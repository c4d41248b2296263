import { statSync } from 'node:fs'
import { dirname } from 'node:path'
import { caller } from '../host/caller.ts'
import { operatorsTextAt, readOperatorsFile } from '../host/files.ts'
import { audience } from '../host/interrupt.ts'
import { parseSecrets } from '../host/yaml.ts'
import { misuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import type { Tls } from './http.ts'

/**
 * A cloud as it was configured: by a name in clouds.yaml, or by variables OS_*. Names of the members are those of
 * openstacksdk, whose files these are (https://docs.openstack.org/openstacksdk/latest/user/config/configuration.html).
 */
export interface Cloud {
  /** What errors call it. */
  called: string
  method: 'password' | 'application_credential' | 'token' | 'none'
  /** Everything that was given, in one level: auth_url, username, password, region_name … */
  given: Readonly<Record<string, string>>
  /** Which of the addresses in the catalog. */
  interface: 'public' | 'internal' | 'admin'
  tls: Tls
}

const methods: Record<string, Cloud['method']> = {
  password: 'password',
  v3password: 'password',
  v3applicationcredential: 'application_credential',
  token: 'token',
  v3token: 'token',
  none: 'none',
}

/** What only a named cloud or the variables can say; the rest is for other tools. */
const variables = [
  'auth_type',
  'auth_url',
  'username',
  'user_id',
  'password',
  'user_domain_name',
  'user_domain_id',
  'project_name',
  'project_id',
  'project_domain_name',
  'project_domain_id',
  'tenant_name',
  'tenant_id',
  'domain_name',
  'domain_id',
  'default_domain',
  'system_scope',
  'token',
  'application_credential_id',
  'application_credential_name',
  'application_credential_secret',
  'endpoint',
  'image_endpoint_override',
  'region_name',
  'interface',
  'endpoint_type',
  'cacert',
  'cert',
  'key',
  'insecure',
]

/**
 * The cloud that holds the images: the one that `os_cloud` (a setting and flag) or OS_CLOUD names, from clouds.yaml
 * alone; else what the variables OS_* describe. The two are never mixed, so that no secret reaches the wrong server.
 * @returns undefined where nothing is configured
 * @throws {Problem} BAD_SPEC
 */
export async function findCloud({ os_cloud }: Settings): Promise<Cloud | undefined> {
  const { environment } = caller
  const name = os_cloud ?? (environment['OS_CLOUD'] || undefined)
  if (name !== undefined) return namedCloud(name)
  const entries = variables.flatMap((key): [string, string][] => {
    const value = environment[`OS_${key.toUpperCase()}`]
    return value ? [[key, value]] : []
  })
  const given = Object.fromEntries(entries)
  const isOne = ['auth_url', 'endpoint', 'image_endpoint_override'].some((key) => key in given)
  return isOne ? cloudOf('the cloud of the variables OS_*', given) : undefined
}

/** Where clouds.yaml may be, as in openstacksdk. Not in the directory we are called in: a root tool takes nothing there. */
function places(): string[] {
  const { OS_CLIENT_CONFIG_FILE: file, XDG_CONFIG_HOME: xdg, HOME: home } = caller.environment
  const own = xdg ? [`${xdg}/openstack`] : home ? [`${home}/.config/openstack`] : []
  return [...(file ? [file] : []), ...[...own, '/etc/openstack'].map((directory) => `${directory}/clouds.yaml`)]
}

type Tree = Record<string, unknown>
const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null && !Array.isArray(value)

/** The member `clouds` of a file, or undefined where there is no file. */
async function cloudsIn(path: string): Promise<Tree | undefined> {
  const text = operatorsTextAt(path)
  if (text === undefined) return undefined
  const document = await parseSecrets(text, `"${path}"`)
  const clouds = isTree(document) ? document['clouds'] : undefined
  if (!isTree(clouds)) return misuse(`Cannot read "${path}": it has no "clouds"`, 'write clouds: and below it a name')
  if (statSync(path).mode & 0o004)
    audience.tell({ type: 'notice', message: `every user of this host may read "${path}": chmod o= ${path}` })
  return clouds
}

async function namedCloud(name: string): Promise<Cloud> {
  for (const path of places()) {
    const clouds = await cloudsIn(path)
    if (!clouds) continue
    const known = Object.keys(clouds)
    const cloud = Object.hasOwn(clouds, name) ? clouds[name] : undefined
    if (!isTree(cloud))
      return misuse(`Cannot use cloud "${name}": "${path}" does not have it`, `name one of: ${known.join(', ')}`)
    // What must not be read by all who may know the rest can be in a file of its own, beside the other.
    const secrets = (await cloudsIn(`${dirname(path)}/secure.yaml`))?.[name]
    const secret = isTree(secrets) ? secrets : {}
    const level = (tree: Tree, key: string): Tree => (isTree(tree[key]) ? tree[key] : {})
    const all = { ...cloud, ...secret, ...level(cloud, 'auth'), ...level(secret, 'auth') }
    const texts = Object.entries(all).filter(([, value]) => typeof value === 'string' && !/^(|~|null)$/i.test(value))
    return cloudOf(`cloud "${name}" of "${path}"`, Object.fromEntries(texts) as Record<string, string>)
  }
  return misuse(
    `Cannot use cloud "${name}": there is no clouds.yaml`,
    `write one of: ${places().join(', ')}; or name it in OS_CLIENT_CONFIG_FILE`,
  )
}

const isTrue = (text: string | undefined): boolean => /^(true|yes|on|1|y|t)$/i.test(text ?? '')
const isFalse = (text: string | undefined): boolean => /^(false|no|off|0|n|f)$/i.test(text ?? '')

/** @param called what errors call it @throws {Problem} BAD_SPEC */
function cloudOf(called: string, given: Record<string, string>): Cloud {
  const wrong = (state: string, remedy: string): never => misuse(`Cannot use ${called}: ${state}`, remedy)
  if (isFalse(given['verify']) || isTrue(given['insecure']))
    wrong(
      'it wants no certificate verified, and a digest that comes over such a connection vouches for nothing',
      'name the authority that signed the certificate instead: cacert: /PATH/ca.pem in clouds.yaml, or OS_CACERT',
    )
  const usual = given['token']
    ? 'token'
    : given['application_credential_id'] || given['application_credential_name']
      ? 'v3applicationcredential'
      : 'password'
  const type = given['auth_type'] ?? usual
  const method = Object.hasOwn(methods, type) ? methods[type] : undefined
  if (method === undefined)
    return wrong(`cowhand does not know auth_type "${type}"`, `use one of: ${Object.keys(methods).join(', ')}`)
  const isNone = method === 'none'
  if (!isNone && !given['auth_url']) wrong('it has no auth_url', 'write auth_url: https://HOST:5000/v3')
  if (isNone && !given['endpoint'] && !given['image_endpoint_override'])
    wrong('auth_type none needs an endpoint', 'write endpoint: https://HOST:9292 below auth')
  const missing = needs[method].find((keys) => keys.every((key) => !given[key]))
  if (missing) wrong(`it has no ${missing.join(' or ')}`, `write it into clouds.yaml, or into secure.yaml beside it`)
  const side = (given['interface'] ?? given['endpoint_type'] ?? 'public').replace(/URL$/, '')
  if (side !== 'public' && side !== 'internal' && side !== 'admin')
    return wrong(`it has no interface "${side}"`, 'use one of: public, internal, admin')
  return { called, method, given, interface: side, tls: tlsOf(called, given) }
}

/** Of each, one has to be given. */
const needs: Record<Cloud['method'], string[][]> = {
  password: [['username', 'user_id'], ['password']],
  application_credential: [
    ['application_credential_id', 'application_credential_name'],
    ['application_credential_secret'],
  ],
  token: [['token']],
  none: [],
}

function tlsOf(called: string, { cacert, cert, key }: Record<string, string>): Tls {
  const read = (what: string, given: string, holds: RegExp): string => {
    const path = given.replace(/^~(?=\/)/, caller.environment['HOME'] ?? '~')
    if (!path.startsWith('/'))
      misuse(`Cannot use ${called}: ${what} "${path}" is not an absolute path`, 'write the whole path')
    const text = readOperatorsFile(path)
    if (holds.test(text) && !/ENCRYPTED/.test(text)) return text
    return misuse(
      `Cannot use ${called}: ${what} "${path}" has no ${what === 'key' ? 'plain key' : 'certificate'} in PEM`,
      `see what it is: openssl ${what === 'key' ? 'pkey' : 'x509'} -in ${path} -noout`,
    )
  }
  const certificate = /-----BEGIN (TRUSTED )?CERTIFICATE-----/
  return {
    ...(cacert ? { ca: read('cacert', cacert, certificate) } : {}),
    ...(cert ? { cert: read('cert', cert, certificate) } : {}),
    // As in other tools, both may be in one file.
    ...(cert ? { key: read('key', key ?? cert, /-----BEGIN ([A-Z]+ )?PRIVATE KEY-----/) } : {}),
  }
}
