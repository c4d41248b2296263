import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { closeSync, cpSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Furnished, furnish, passwords, region } from './furnish.ts'

/** A program of the lab, listening on a port of its own on 127.0.0.1. */
interface Service {
  port: number
  url: string
  start: () => Promise<void>
  /** End it at once, as a crash does. */
  kill: () => Promise<void>
}

/** A cloud of its own on this machine: a real Keystone, and a real Glance that asks it who is who. */
export interface Openstack extends Furnished {
  /** Keystone, version 3. */
  authUrl: string
  glance: Service
  /** Another Glance, with images of its own, that asks nobody. It is not started yet. */
  openGlance: Service
  /** Where Glance keeps the bytes of the images, each in a file that is called by its id. */
  store: string
  /** Replace the keys that tokens are made with: none that was issued before is accepted any more. */
  revokeTokens: () => Promise<void>
  /** Another Keystone of the same cloud, whose tokens live only so long. @returns its URL */
  keystone: (tokenSeconds: number) => Promise<string>
  /** End everything, and remove it. */
  stop: () => Promise<void>
}

/** Seconds that a program may take to come up, or to do its work and end. */
const patience = 120
const python = '/usr/bin/python3'

/** A port of 127.0.0.1 that nobody has at this moment. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

const ini = (sections: Record<string, Record<string, string | number>>): string =>
  Object.entries(sections)
    .map(
      ([name, keys]) =>
        `[${name}]\n${Object.entries(keys)
          .map((pair) => `${pair.join(' = ')}\n`)
          .join('')}`,
    )
    .join('\n')

/** Keystone leaves readers behind now and then: in this mode they do not keep it from writing. */
const wal = 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA journal_mode=WAL")'

/** As Debian's, without what needs more than this machine. */
const paste = `
[pipeline:glance-api]
pipeline = versionnegotiation unauthenticated-context rootapp
[pipeline:glance-api-keystone]
pipeline = versionnegotiation authtoken context rootapp
[composite:rootapp]
paste.composite_factory = glance.api:root_app_factory
/: apiversions
/v2: apiv2app
[app:apiversions]
paste.app_factory = glance.api.versions:create_resource
[app:apiv2app]
paste.app_factory = glance.api.v2.router:API.factory
[filter:versionnegotiation]
paste.filter_factory = glance.api.middleware.version_negotiation:VersionNegotiationFilter.factory
[filter:context]
paste.filter_factory = glance.api.middleware.context:ContextMiddleware.factory
[filter:unauthenticated-context]
paste.filter_factory = glance.api.middleware.context:UnauthenticatedContextMiddleware.factory
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
delay_auth_decision = true
`

/**
 * Start a cloud. It listens on 127.0.0.1 only, keeps everything in a temporary directory, reads nothing below /etc, and
 * ends with `stop`, and with this process, however that ends. Root is not needed.
 * @throws {Error} what the program said that did not come up
 */
export async function startOpenstack(): Promise<Openstack> {
  const lab = mkdtempSync(join(tmpdir(), 'cowhand-openstack-'))
  const running = new Set<ChildProcess>()

  const launch = (name: string, argv: string[], env: Record<string, string> = {}): ChildProcess => {
    const log = openSync(join(lab, `${name}.out`), 'a')
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', python, ...argv], {
      cwd: lab,
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C.UTF-8', HOME: lab, ...env },
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    running.add(child)
    child.once('exit', () => running.delete(child))
    return child
  }
  const said = (name: string): string => readFileSync(join(lab, `${name}.out`), 'utf8').slice(-4000)
  const run = async (name: string, ...argv: string[]): Promise<void> => {
    const [code] = await once(launch(name, argv), 'exit')
    if (code !== 0) throw new Error(`Cannot start a cloud: ${name} ended with ${code}:\n${said(name)}`)
  }
  const service = (name: string, port: number, argv: string[], env?: Record<string, string>): Service => {
    let child: ChildProcess
    const url = `http://127.0.0.1:${port}`
    const start = async (): Promise<void> => {
      child = launch(name, argv, env)
      for (const end = performance.now() + patience * 1000; ; await sleep(50)) {
        if (
          await fetch(url).then(
            ({ status }) => status < 500,
            () => false,
          )
        )
          return
        if (child.exitCode !== null || performance.now() > end)
          throw new Error(`Cannot start a cloud: ${name} does not answer:\n${said(name)}`)
      }
    }
    const kill = async (): Promise<void> => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
    return { port, url, start, kill }
  }

  /** Own directories for all that oslo.config and oslo.policy would look for below /etc. */
  const directory = (...names: string[]): string => {
    const path = join(lab, ...names)
    mkdirSync(path, { recursive: true })
    return path
  }
  const none = directory('none')
  const policy = { policy_dirs: none, policy_file: join(none, 'policy.yaml') }
  const configured = (file: string): string[] => ['--config-file', file, '--config-dir', none]

  /** The keys of tokens, as keystone-manage fernet_setup makes them: one in use, and the next one. */
  const makeKeys = (): void => {
    for (const key of ['0', '1'])
      writeFileSync(join(directory('fernet'), key), `${randomBytes(32).toString('base64url')}=`, { mode: 0o600 })
  }
  const keystoneConfig = (name: string, expiration: number): string => {
    const path = join(lab, `${name}.conf`)
    const sections = {
      database: { connection: `sqlite:///${join(lab, 'keystone.sqlite')}`, sqlite_synchronous: 'false' },
      token: { provider: 'fernet', expiration, caching: 'false' },
      revoke: { caching: 'false' },
      fernet_tokens: { key_repository: directory('fernet') },
      fernet_receipts: { key_repository: directory('fernet') },
      identity: { password_hash_rounds: 4 },
      // Without it each request asks the database for the same roles some hundred times.
      cache: { enabled: 'true', backend: 'dogpile.cache.memory' },
      oslo_policy: policy,
    }
    writeFileSync(path, ini(sections), { mode: 0o600 })
    return path
  }
  const keystoneAt = (name: string, port: number, config: string): Service =>
    service(
      name,
      port,
      ['/usr/bin/keystone-wsgi-public', '--host', '127.0.0.1', '--port', `${port}`, '--', '--config-dir', none],
      { OS_KEYSTONE_CONFIG_FILES: config },
    )

  const glanceConfig = (name: string, port: number, keystone: string): string => {
    const path = join(lab, `${name}.conf`)
    const sections = {
      DEFAULT: {
        ...{ bind_host: '127.0.0.1', bind_port: port, workers: 0, enabled_backends: 'fs:file' },
        // Small pages, so that even few images take more than one.
        ...{ limit_param_default: 3, api_limit_max: 3 },
      },
      database: { connection: `sqlite:///${join(lab, `${name}.sqlite`)}`, sqlite_synchronous: 'false' },
      glance_store: { default_backend: 'fs' },
      fs: { filesystem_store_datadir: directory(`${name}-store`) },
      os_glance_staging_store: { filesystem_store_datadir: directory(`${name}-staging`) },
      os_glance_tasks_store: { filesystem_store_datadir: directory(`${name}-tasks`) },
      paste_deploy: { flavor: keystone && 'keystone', config_file: join(lab, 'paste.ini') },
      oslo_policy: { ...policy, enforce_scope: 'false' },
      ...(keystone && {
        keystone_authtoken: {
          ...{ auth_url: keystone, www_authenticate_uri: keystone, auth_type: 'password' },
          ...{ username: 'admin', password: passwords.admin, project_name: 'admin' },
          ...{ user_domain_id: 'default', project_domain_id: 'default' },
          // Each token is looked at each time: what is revoked is not accepted any more at once.
          token_cache_time: -1,
        },
      }),
    }
    writeFileSync(path, ini(sections), { mode: 0o600 })
    return path
  }
  const glanceAt = (name: string, port: number, config: string): Service =>
    service(name, port, ['-c', 'from glance.cmd.api import main; main()', ...configured(config)])

  const stop = async (): Promise<void> => {
    const ended = [...running].map((child) => once(child, 'exit'))
    for (const child of running) child.kill('SIGKILL')
    await Promise.all(ended)
    rmSync(lab, { recursive: true, force: true })
  }
  try {
    const [keystonePort, glancePort, openPort] = [await freePort(), await freePort(), await freePort()]
    const authUrl = `http://127.0.0.1:${keystonePort}/v3`
    writeFileSync(join(lab, 'paste.ini'), paste)
    makeKeys()
    const config = keystoneConfig('keystone', 3600)
    const keystone = keystoneAt('keystone', keystonePort, config)
    const glance = glanceAt('glance', glancePort, glanceConfig('glance', glancePort, authUrl))
    const openGlance = glanceAt('open-glance', openPort, glanceConfig('open-glance', openPort, ''))

    const manage = (...words: string[]): Promise<void> =>
      run(`keystone-${words[0]}`, '/usr/bin/keystone-manage', ...configured(config), ...words)
    const identity = async (): Promise<void> => {
      const urls = ['public', 'internal', 'admin'].flatMap((kind) => [`--bootstrap-${kind}-url`, authUrl])
      await manage('db_sync')
      await manage('bootstrap', '--bootstrap-password', passwords.admin, '--bootstrap-region-id', region, ...urls)
      await run('keystone-wal', '-c', wal, join(lab, 'keystone.sqlite'))
      await keystone.start()
    }
    const images = async (): Promise<void> => {
      const main = 'from glance.cmd.manage import main; main()'
      await run('glance-db_sync', '-c', main, ...configured(join(lab, 'glance.conf')), 'db_sync')
      cpSync(join(lab, 'glance.sqlite'), join(lab, 'open-glance.sqlite'))
      await glance.start()
    }
    await Promise.all([identity(), images()])
    const cloud = await furnish(authUrl, glance.url, openGlance.url)
    return {
      ...cloud,
      ...{ authUrl, glance, openGlance, stop, store: join(lab, 'glance-store') },
      revokeTokens: async () => {
        await keystone.kill() // it would go on with what it has read
        makeKeys()
        await keystone.start()
        cloud.forget()
      },
      keystone: async (tokenSeconds) => {
        const name = `keystone-${tokenSeconds}`
        const port = await freePort()
        await keystoneAt(name, port, keystoneConfig(name, tokenSeconds)).start()
        return `http://127.0.0.1:${port}/v3`
      },
    }
  } catch (error) {
    await stop()
    throw error
  }
}
