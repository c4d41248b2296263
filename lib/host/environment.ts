import { holderMark } from './holder.ts'

/** Where programs are looked for. */
export const usualPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/**
 * The environment of every program we start: built, never passed on, for bash in a root tool's background reads
 * BASH_ENV, rsync RSYNC_*, libvirt LIBVIRT_DEFAULT_URI, qemu-img TMPDIR. The mark tells who started it.
 */
export const environment = (): Record<string, string> => ({
  PATH: usualPath,
  LC_ALL: 'C.UTF-8',
  TZ: 'UTC',
  HOME: '/nonexistent',
  SHLVL: '1', // else bash takes a socket on its standard input for rshd and sources ~/.bashrc
  COWHAND_HOLDER: holderMark(),
})
