import { readFileSync } from 'node:fs'

// What is in the cloud of the lab, made by the APIs alone: users, projects, a catalogue, images.

/** Who speaks. `alice` and `bob` are members of a project each, `admin` administers the cloud. */
export type User = 'admin' | 'alice' | 'bob'

/** An image to be. Without a file it stays queued, as one whose upload has not begun. */
export interface NewImage {
  name: string
  disk_format: string
  file?: string
  container_format?: string
  visibility?: 'private' | 'shared' | 'community' | 'public'
  /** GiB. */
  min_disk?: number
  properties?: Record<string, string>
}

export interface Furnished {
  /** `OS_*` of a user, with the password. */
  env: (user: User) => Record<string, string>
  passwords: Record<User, string>
  token: (user: User) => Promise<string>
  /** @returns its id and secret */
  applicationCredential: (user: User) => Promise<{ id: string; secret: string }>
  /** @returns the image as Glance describes it */
  image: (image: NewImage, as?: User | 'nobody') => Promise<Record<string, unknown> & { id: string }>
  /** Delete an image of alice's. */
  remove: (id: string) => Promise<void>
  /** Put a region into the catalogue whose Glance is at this place. */
  region: (name: string, imageUrl: string) => Promise<void>
  /** Tokens that were issued before are not to be used any more. */
  forget: () => void
}

export const region = 'RegionOne'
export const passwords: Record<User, string> = { admin: 'admin-Pa55', alice: 'alice-Pa55', bob: 'bob-Pa55' }
const projectOf: Record<User, string> = { admin: 'admin', alice: 'alpha', bob: 'beta' }

/** Make users, projects and the catalogue, by the API alone. */
export async function furnish(authUrl: string, imageUrl: string, openUrl: string): Promise<Furnished> {
  const tokens = new Map<User, string>()
  const good = async (response: Response): Promise<Response> => {
    if (!response.ok)
      throw new Error(`Cannot furnish the cloud: ${response.url}: ${response.status} ${await response.text()}`)
    return response
  }
  const token = async (user: User): Promise<string> => {
    const domain = { id: 'default' }
    const password = { user: { name: user, domain, password: passwords[user] } }
    const scope = { project: { name: projectOf[user], domain } }
    const body = JSON.stringify({ auth: { identity: { methods: ['password'], password }, scope } })
    const headers = { 'content-type': 'application/json' }
    const answer = await good(await fetch(`${authUrl}/auth/tokens`, { method: 'POST', headers, body }))
    return answer.headers.get('x-subject-token') ?? ''
  }
  // biome-ignore lint/suspicious/noExplicitAny: answers of many kinds
  const ask = async (user: User | 'nobody', method: string, url: string, body?: object): Promise<any> => {
    if (user !== 'nobody' && !tokens.has(user)) tokens.set(user, await token(user))
    const headers = {
      ...(user === 'nobody' ? {} : { 'x-auth-token': tokens.get(user) ?? '' }),
      'content-type': body instanceof Uint8Array ? 'application/octet-stream' : 'application/json',
    }
    const content = body instanceof Uint8Array ? body : JSON.stringify(body)
    const answer = await good(await fetch(url, { method, headers, ...(body ? { body: content } : {}) }))
    return (answer.headers.get('content-type') ?? '').startsWith('application/json') ? answer.json() : undefined
  }
  const identity = (method: string, path: string, body?: object) => ask('admin', method, `${authUrl}/${path}`, body)

  const { service } = await identity('POST', 'services', { service: { type: 'image', name: 'glance' } })
  const { roles } = await identity('GET', 'roles?name=member')
  const endpoints = async (region_id: string, url: string): Promise<void> => {
    for (const kind of ['public', 'internal', 'admin']) {
      const endpoint = { service_id: service.id, interface: kind, region_id, url }
      await identity('POST', 'endpoints', { endpoint })
    }
  }
  await endpoints(region, imageUrl)
  const ids: Record<string, string> = {}
  for (const name of ['alice', 'bob'] as const) {
    const { project } = await identity('POST', 'projects', { project: { name: projectOf[name] } })
    const { user } = await identity('POST', 'users', { user: { name, password: passwords[name] } })
    await identity('PUT', `projects/${project.id}/users/${user.id}/roles/${roles[0].id}`)
    ids[name] = user.id
  }

  return {
    token,
    passwords,
    forget: () => tokens.clear(),
    remove: (id: string): Promise<void> => ask('alice', 'DELETE', `${imageUrl}/v2/images/${id}`),
    env: (user: User) => ({
      ...{ OS_AUTH_URL: authUrl, OS_USERNAME: user, OS_PASSWORD: passwords[user], OS_PROJECT_NAME: projectOf[user] },
      ...{ OS_USER_DOMAIN_NAME: 'Default', OS_PROJECT_DOMAIN_NAME: 'Default', OS_REGION_NAME: region },
      OS_IDENTITY_API_VERSION: '3',
    }),
    applicationCredential: async (user: User) => {
      const url = `${authUrl}/users/${ids[user]}/application_credentials`
      const { application_credential } = await ask(user, 'POST', url, { application_credential: { name: 'cowhand' } })
      return { id: application_credential.id as string, secret: application_credential.secret as string }
    },
    region: async (name: string, url: string) => {
      await identity('POST', 'regions', { region: { id: name } })
      await endpoints(name, url)
    },
    image: async ({ file, properties, ...image }: NewImage, as: User | 'nobody' = 'alice') => {
      const url = `${as === 'nobody' ? openUrl : imageUrl}/v2/images`
      const { id } = await ask(as, 'POST', url, { container_format: 'bare', ...image, ...properties })
      if (file !== undefined) await ask(as, 'PUT', `${url}/${id}/file`, readFileSync(file))
      return ask(as, 'GET', `${url}/${id}`)
    },
  }
}
