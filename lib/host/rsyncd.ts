import { statSync } from 'node:fs'
import { fail, refuse } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { operatorsTextAt } from './files.ts'

// The rsync daemon that receives on the other host, and that of this host, which receives from others.

/** Of the module, where the settings name none. */
export const usualUser = 'cowhand'

/** Where a daemon's secrets are, unless the settings say. */
const usualSecrets = '/etc/cowhand/rsyncd.secrets'

/**
 * Password of a user in a file as rsync's daemon has it (rsyncd.conf(5), "secrets file"): so every host has the same one.
 * @throws {Problem} MISSING_PREREQUISITE where it is not there; NO_PERMISSION where others may read it; BAD_SPEC
 */
export function passwordIn(path: string, user: string): string {
  const text = operatorsTextAt(path)
  if (text === undefined)
    refuse(
      'MISSING_PREREQUISITE',
      `Cannot read "${path}": there is no such file`,
      `have the same on all hosts: install -m 600 /dev/null ${path}; echo '${user}:PASSWORD' > ${path}`,
    )
  if ((statSync(path).mode & 0o077) !== 0)
    refuse('NO_PERMISSION', `Cannot use "${path}": others may read the passwords in it`, `chmod 600 ${path}`)
  const line = text.split('\n').find((line) => line.startsWith(`${user}:`))
  if (line === undefined)
    return fail(
      'AUTH_FAILED',
      `Cannot use "${path}": it has no line for the user ${user}`,
      `add a line: ${user}:PASSWORD`,
    )
  return line.slice(user.length + 1).replace(/\r$/, '')
}

/** Options that a push sends to the daemon. All others are refused. See rsyncArgv. */
const accepted = [
  'ignore-times',
  'inplace',
  'partial',
  'no-W',
  'sparse',
  'perms',
  'relative',
  'timeout',
  'compress',
  'compress-level',
  'info',
  'bwlimit',
]

/**
 * An rsyncd.conf(5) for this host, as its settings are: what is sent by cowhand can be written into the staging
 * directories, below `_base` and instances nothing; nothing can be read, listed or deleted.
 */
export function sampleRsyncdConf(
  settings: Pick<Settings, 'instances' | 'rsyncd_module' | 'rsyncd_port' | 'rsyncd_user' | 'rsyncd_secrets'>,
): string {
  const { instances, rsyncd_module: module, rsyncd_port: port } = settings
  const { rsyncd_user: user = usualUser, rsyncd_secrets: secrets = usualSecrets } = settings
  return `# /etc/rsyncd.conf: this host receives disks by "cowhand resize --to" and "cowhand migrate --transport rsyncd".
# What travels is not encrypted: let it be a network of your own.
#
# The same on every host, and in /etc/cowhand/cowhand.yaml as rsyncd_secrets:
#   install -m 600 /dev/null ${secrets}
#   echo '${user}:PASSWORD' > ${secrets}
# Then: systemctl enable --now rsync

port = ${port}
use chroot = yes
list = no
max connections = 16
# Seconds without a byte. A push has a limit of its own, which is shorter.
timeout = 600

[${module}]
  path = ${instances}
  # They have to be able to write where only root may. What arrives is for nobody else.
  uid = root
  gid = root
  incoming chmod = D700,F600

  # Who may send: the addresses of the other hosts, and no others.
  hosts allow = 127.0.0.1 ::1
  hosts deny = *
  auth users = ${user}
  secrets file = ${secrets}
  strict modes = yes

  # Nothing is read or listed, and written only where disks arrive.
  read only = no
  write only = yes
  include = /*.incoming /*.incoming/part /*.incoming/part/**
  exclude = *
  munge symlinks = yes

  # What a push needs, and nothing else: no deletes, no links, no owners, no devices.
  refuse options = * ${accepted.map((option) => `!${option}`).join(' ')}
`
}
