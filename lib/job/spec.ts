import * as z from 'zod/mini'

// Each schema reads a few objects: that is done before a reader of its own would be compiled for it.
z.config({ jitless: true })

/** A member of a job, with what help, completion and the JSON schema say of it. */
export const described = <T extends z.ZodMiniType>(schema: T, what: string): T => schema.check(z.describe(what))

/** A member that may be left out. */
export const optional = <T extends z.ZodMiniType>(schema: T, what: string) => described(z.optional(schema), what)

/** A member that may be left out, and is then as if this had been given. */
export const withDefault = <T extends z.ZodMiniType>(schema: T, value: z.input<T>, what: string) =>
  described(z.prefault(schema, value), what)

const units: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 }

/**
 * Bytes that a size such as `20G`, `512M` or `1073741824` means; the units are binary, as qemu-img's.
 * @returns undefined where the text is no absolute, positive, exact size
 */
export function parseSize(text: string): number | undefined {
  const match = /^([1-9][0-9]{0,15})([KMGT]?)$/.exec(text)
  const unit = units[match?.[2] ?? 'none']
  if (!match?.[1] || unit === undefined) return undefined
  const bytes = Number(match[1]) * unit
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** A size in bytes as an operator reads it: `2G`, `1.5G`, `196K`; exact where it is a whole unit. */
export function formatSize(bytes: number): string {
  // A little less than the next unit is shown as one of that: 1G, not 1024M.
  const [unit, factor] = Object.entries(units).findLast(([, f]) => bytes >= f * (1 - 0.05 / 1024)) ?? ['', 1]
  const rounded = Math.round((bytes / factor) * 10) / 10
  return `${rounded}${unit}`
}

/** A size as it can be typed again: exact, in the largest unit that it is a whole number of; half a sector is a whole one. */
export function exactSize(bytes: number): string {
  const size = Math.ceil(bytes / 512) * 512
  const [unit, factor] = Object.entries(units).findLast(([, f]) => size % f === 0) ?? ['', 1]
  return `${size / factor}${unit}`
}

/** A size, in bytes, of a disk: disks consist of sectors of 512 bytes. Text with a binary unit, or a number. */
export const Bytes = z
  .pipe(
    z.union([z.string(), z.int()]),
    z.transform((size, { issues }) => {
      const bytes = parseSize(String(size))
      const refuse = (message: string) => issues.push({ code: 'custom', input: size, message })
      if (bytes === undefined) refuse('is not an absolute size such as 20G, 512M or 1073741824')
      else if (bytes % 512 !== 0) refuse('is not a multiple of 512 bytes')
      return bytes ?? 0
    }),
  )
  .check(z.meta({ format: 'size' }))

const spans: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 }

/** A time span, in seconds: `90s`, `30m`, `24h`, `7d`, `2w`; `0` is none. */
export const Duration = z
  .pipe(
    z.union([z.string(), z.int()]),
    z.transform((span, { issues }) => {
      const [, amount, unit = ''] = /^(?:0|([0-9]{1,9})([smhdw]))$/.exec(String(span)) ?? ['', '']
      if (amount === '')
        issues.push({ code: 'custom', input: span, message: 'is not a time span such as 30m, 24h or 7d' })
      return Number(amount ?? 0) * (spans[unit] ?? 0)
    }),
  )
  .check(z.meta({ format: 'duration' }))

/** Bytes per second: `50M`; the units are binary. */
export const Rate = z
  .pipe(
    z.union([z.string(), z.int()]),
    z.transform((rate, { issues }) => {
      const bytes = parseSize(String(rate))
      if (bytes === undefined)
        issues.push({ code: 'custom', input: rate, message: 'is not a rate such as 50M (bytes per second)' })
      return bytes ?? 0
    }),
  )
  .check(z.meta({ format: 'rate' }))

/** A time span as people read it: `45 s`, `3 h`, `12 d`. @param seconds */
export function formatDuration(seconds: number): string {
  const [unit, length] = Object.entries(spans).findLast(([name, span]) => name !== 'w' && seconds >= span) ?? ['s', 1]
  return `${Math.floor(seconds / length)} ${unit}`
}

const reserved = /^(_.*|locks|.*_resize|.*\.(part|converted|incoming))$/

/** The grammar of every name that becomes a file name: no path, option, pattern or markup can be made of it. */
const Name = z
  .string()
  .check(
    z.maxLength(63, 'is longer than 63 characters'),
    z.regex(
      /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
      'may have only letters, digits, ".", "_" and "-", and starts with a letter or digit',
    ),
  )

export const InstanceName = Name.check(z.refine((name) => !reserved.test(name), 'is a name that cowhand uses itself'))
/** One or several; a job document may give one as it is. */
export const InstanceNames = z
  .pipe(
    z.transform((names: unknown) => (typeof names === 'string' ? [names] : names)),
    z.array(InstanceName).check(z.minLength(1, 'names no instance')),
  )
  .check(z.meta({ type: 'array', items: { type: 'string' } }))
export const ImageName = Name.check(
  z.refine((name) => !/\.(json|part)$/.test(name), 'ends like a file of cowhand itself'),
)

export const NonEmpty = z.string().check(z.minLength(1, 'is empty'))
/** Of any version: libvirt takes them all. */
export const Uuid = z.guid('is not a UUID')

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
const control = /[\u0000-\u001f\u007f]/

const isPrintable = z.refine<string>((path) => !control.test(path), 'has a control character')

export const AbsolutePath = z.string().check(
  z.regex(/^\//, 'is not an absolute path'),
  isPrintable,
  z.refine((path) => !path.split('/').includes('..'), 'has a ".." in it'),
  // One way to write each: what a disk stands on is compared by its path.
  z.overwrite((path) => path.replace(/\/+(\.?\/)*/g, '/').replace(/\/\.?$/, '') || '/'),
  z.meta({ format: 'path' }),
)

/** A file that the operator names; relative to where the command is called. */
export const FilePath = NonEmpty.check(isPrintable, z.meta({ format: 'path' }))

/** Digits that each has. md5 and sha1 can be forged: they count only where `--allow-weak-checksum` says so. */
export const algorithms = { sha256: 64, sha512: 128, sha1: 40, md5: 32 } as const
export type Algorithm = keyof typeof algorithms

export const algorithmOf = (digest: string): Algorithm => digest.slice(0, digest.indexOf(':')) as Algorithm
export const isWeak = (digest: string): boolean => ['sha1', 'md5'].includes(algorithmOf(digest))

/** `sha256:HEX` or another one, in lower case: how cowhand writes what bytes a file must have. */
export const Digest = z.string().check(
  z.toLowerCase(),
  z.refine((digest) => {
    const [algorithm = '', hex = ''] = digest.split(':')
    return hex.length === algorithms[algorithm as Algorithm] && /^[0-9a-f]+$/.test(hex)
  }, 'is not sha256:HEX or sha512:HEX'),
)

/** Formats of disk images that cowhand reads, as qemu-img names them. `vpc` is what others call VHD. */
export const formats = ['qcow2', 'raw', 'vmdk', 'vdi', 'vpc', 'vhdx'] as const
export type Format = (typeof formats)[number]

export const Format = z.pipe(
  z.enum([...formats, 'vhd']),
  z.transform((name): Format => (name === 'vhd' ? 'vpc' : name)),
)

/** What an image file may be packed with, and the program that unpacks it to its standard output. */
export const packers = {
  gz: ['gzip', '-dc'],
  xz: ['xz', '-dc', '--memlimit=1GiB'],
  zst: ['zstd', '-dcq'],
  bz2: ['bzip2', '-dc'],
} as const
export type Packing = keyof typeof packers
export const Packing = z.enum(Object.keys(packers) as [Packing, ...Packing[]])

/** An IPv6 address in its shortest form, however it was written; undefined where it is none. */
function shortIpv6(text: string): string | undefined {
  const address = text.replace(/^\[(.*)\]$/, '$1')
  if (!/^[0-9A-Fa-f:.]{2,45}$/.test(address) || !address.includes(':')) return undefined
  const url = `http://[${address}]/`
  return URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : undefined
}

const notHost = (text: string): string => {
  if (text.length > 253) return 'is longer than 253 characters'
  if (/^[\w.-]+@[\w.:[\]-]+$/.test(text)) return 'has a user in it: give the host alone, and the user as ssh_user'
  if (/^[\w.-]+:\d+$/.test(text)) return 'has a port in it: give the host alone, and the port as ssh_port'
  return 'is no host name, no address and no Host of an ssh_config'
}

/**
 * Another host: a name, an IPv4 or IPv6 address (without brackets from here on), or a Host of an ssh_config. None of
 * them can be an option, another mode of rsync (`host::module`, `rsync://`), or something that ssh or a shell replaces
 * (CVE-2017-1000117, CVE-2023-51385).
 */
export const HostName = z.pipe(
  z.string(),
  z.transform((text, { issues }) => {
    const isName = text.length <= 253 && /^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(text)
    const name = isName ? text : shortIpv6(text)
    if (name === undefined) issues.push({ code: 'custom', input: text, message: notHost(text) })
    return name ?? ''
  }),
)

/** Of TCP. */
export const Port = z.pipe(
  z.union([z.string(), z.int()]),
  z.transform((text, { issues }) => {
    const port = /^[1-9][0-9]{0,4}$/.test(String(text)) ? Number(text) : 65_536
    if (port > 65_535) issues.push({ code: 'custom', input: text, message: 'is no port: 1 to 65535' })
    return port
  }),
)

export const OsType = z.enum(['linux', 'windows'])
export type OsType = z.output<typeof OsType>

export const ephemeralFormats = ['ext4', 'ext3', 'xfs', 'vfat', 'ntfs'] as const
export const EphemeralFormat = z.enum(ephemeralFormats)
export type EphemeralFormat = z.output<typeof EphemeralFormat>
