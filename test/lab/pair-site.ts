import { execFileSync } from 'node:child_process'
import { randomBytes, randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { sampleRsyncdConf } from '../../lib/host/rsyncd.ts'

// What the two hosts of a pair find when they start, as an operator would have set them up. pair.sh puts it in place.

/** One host, and where on the machine its files are. */
export interface Site {
  name: string
  address: string
  /** On the machine. */
  directory: string
  /** Of the instances, as the host sees it. */
  instances: string
  /** What `cowhand` is there: path of a program. */
  cowhand: string
  /** Directories that it has for itself: the machine's path, and its own. */
  places: [from: string, to: string][]
}

/** Keys of cowhand.yaml; undefined takes one out that is there otherwise. */
export type SiteSettings = Record<string, string | number | boolean | undefined>

/**
 * Who may send to the rsync daemon of each; its only module is the directory of the instances. `secrets`: file of the
 * daemon and of cowhand; `password`: file for an rsync that a test starts itself.
 */
export const rsync = {
  user: 'cowhand',
  module: 'cowhand',
  secrets: '/etc/cowhand/rsyncd.secrets',
  password: '/etc/cowhand/rsync.password',
}

export const libvirtUri = 'qemu:///system'

const sshdConf = `HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
`

/** The sample, and as it says: with the addresses of the others. */
const rsyncdConf = (from: string, instances: string) =>
  sampleRsyncdConf({
    instances,
    rsyncd_module: rsync.module,
    rsyncd_port: 873,
    rsyncd_user: rsync.user,
    rsyncd_secrets: rsync.secrets,
  }).replace(/hosts allow = .*/, `hosts allow = ${from}`)

function put(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, text, { mode })
}

/** A key pair without a passphrase. @returns the public key */
function makeKey(path: string): string {
  mkdirSync(dirname(path), { recursive: true })
  execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', '', '-f', path])
  return readFileSync(`${path}.pub`, 'utf8').trim()
}

/** Write a host's cowhand.yaml. */
export function writeSettings({ directory, instances }: Site, settings: SiteSettings = {}): void {
  const all = { instances, libvirt_uri: libvirtUri, virt_type: 'qemu', rsyncd_secrets: rsync.secrets, ...settings }
  const lines = Object.entries(all).map(([key, value]) => value !== undefined && `${key}: ${JSON.stringify(value)}\n`)
  put(join(directory, 'etc/cowhand/cowhand.yaml'), lines.filter(Boolean).join(''))
}

/** Write all that the hosts of a pair need to know of themselves and of each other. */
export function furnishSites(sites: Site[]): void {
  const keys = sites.map(({ directory }) => {
    mkdirSync(join(directory, 'root/.ssh'), { recursive: true, mode: 0o700 })
    return {
      host: makeKey(join(directory, 'own/etc/ssh/ssh_host_ed25519_key')),
      root: makeKey(join(directory, 'root/.ssh/id_ed25519')),
    }
  })
  const hosts = sites.map(({ name, address }) => `${address} ${name}\n`).join('')
  const known = sites.map(({ name, address }, i) => `${name},${address} ${keys[i]?.host}\n`).join('')
  const authorized = keys.map(({ root }) => `${root}\n`).join('')
  const password = randomBytes(12).toString('hex')
  for (const site of sites) {
    const { directory, name, instances, places } = site
    const others = sites.filter((other) => other !== site).map(({ address }) => address)
    const own = (path: string, text: string, mode?: number) => put(join(directory, 'own', path), text, mode)
    own('etc/hosts', `127.0.0.1 localhost\n${hosts}`)
    own('etc/hostname', `${name}\n`)
    own('etc/machine-id', `${randomUUID().replaceAll('-', '')}\n`)
    own('etc/ssh/sshd_config', sshdConf)
    own('etc/rsyncd.conf', rsyncdConf(others.join(' '), instances))
    // What a person's shell does when it starts is no part of the lab.
    for (const file of ['.bashrc', '.bash_profile']) own(`root/${file}`, '')
    mkdirSync(join(directory, 'own/usr/local/bin'), { recursive: true })
    symlinkSync(site.cowhand, join(directory, 'own/usr/local/bin/cowhand'))
    put(join(directory, rsync.secrets), `${rsync.user}:${password}\n`, 0o600)
    put(join(directory, rsync.password), `${password}\n`, 0o600)
    put(join(directory, 'root/.ssh/known_hosts'), known)
    put(join(directory, 'root/.ssh/authorized_keys'), authorized)
    for (const [from, to] of places)
      mkdirSync(join(from, `${instances}/`.startsWith(`${to}/`) ? instances.slice(to.length) : ''), { recursive: true })
    put(join(directory, 'places'), places.map((place) => `${place.join(' ')}\n`).join(''))
  }
}
