import type { Settings } from '../job/settings.ts'
import { ask, versionIn, which } from './ask.ts'
import type { Check } from './check.ts'
import { usualPath } from './environment.ts'
import { glanceChecks } from './glance-check.ts'
import { kvmDevice, probe } from './kvm.ts'
import { placeChecks } from './place.ts'
import { confine, powers } from './sandbox.ts'
import { compareVersions, minimumOf, packageOf, rsyncIsMended, versionOption } from './tools.ts'

/** Commands in the order of the summary. */
const commands = ['create', 'image add', 'resize', 'migrate']

/** Programs that one need asks for, any one of a row. */
const tools: { any: string[]; needs: string[] }[] = [
  { any: ['qemu-img'], needs: [...commands] },
  { any: ['setpriv'], needs: [...commands] },
  { any: ['unshare'], needs: [...commands] },
  { any: ['nice'], needs: [...commands] },
  { any: ['flock'], needs: [...commands] },
  { any: ['mke2fs'], needs: ['create --ephemeral'] },
  { any: ['mkfs.xfs'], needs: ['create --ephemeral-format xfs'] },
  { any: ['mkfs.vfat'], needs: ['create --ephemeral-format vfat'] },
  { any: ['mkntfs'], needs: ['create --ephemeral-format ntfs'] },
  { any: ['mkswap'], needs: ['create --swap'] },
  { any: ['genisoimage', 'xorriso'], needs: ['create --user-data'] },
  { any: ['gzip'], needs: ['create --image X.gz', 'image add X.gz'] },
  { any: ['xz'], needs: ['create --image X.xz', 'image add X.xz'] },
  { any: ['zstd'], needs: ['create --image X.zst', 'image add X.zst'] },
  { any: ['bzip2'], needs: ['create --image X.bz2', 'image add X.bz2'] },
  { any: ['virsh'], needs: ['create --domain'] },
  { any: ['qemu-system-x86_64'], needs: ['create --domain start'] },
  ...['qemu-storage-daemon', 'e2fsck', 'resize2fs', 'xfs_repair', 'xfs_growfs'].map((tool) => ({
    any: [tool],
    needs: ['resize --grow-fs auto'],
  })),
  { any: ['rsync'], needs: ['resize --to', 'migrate'] },
  { any: ['ssh'], needs: ['resize --to', 'migrate'] },
]

/** For one question to a program, in milliseconds: two in turn are within the four seconds. */
const limit = 1800

async function toolCheck(tool: (typeof tools)[number], path: string): Promise<Check> {
  const name = tool.any.join(' or ')
  const first = tool.any[0] ?? ''
  const remedy = `apt install ${packageOf[first] ?? first}`
  for (const program of tool.any) {
    const file = await which(program, path)
    if (file === undefined) continue
    const answer = await ask([file, versionOption[program] ?? '--version'], { path, limit })
    if (answer.late)
      return {
        name,
        status: 'warn',
        found: `${file} does not answer`,
        needs: tool.needs,
        remedy: `${remedy} --reinstall`,
      }
    const version = versionIn(answer.stdout + answer.stderr)
    const found = version === undefined ? file : `${version} (${file})`
    const minimum = minimumOf[program]
    if (minimum !== undefined && (version === undefined || compareVersions(version, minimum) < 0))
      return { name, status: 'missing', found: `${found}, needs ${minimum} or newer`, needs: tool.needs, remedy }
    if (program === 'rsync') return { name, needs: tool.needs, ...(await rsyncState(version ?? '0', found, path)) }
    return { name, status: 'ok', found, needs: tool.needs }
  }
  return { name, status: 'missing', needs: tool.needs, remedy }
}

async function rsyncState(version: string, found: string, path: string): Promise<Omit<Check, 'name' | 'needs'>> {
  if (rsyncIsMended(version)) return { status: 'ok', found }
  const dpkg = await which('dpkg-query', path)
  const debian = dpkg && (await ask([dpkg, '-W', 'rsync'], { path, limit })).stdout.trim().split('\t')[1]
  if (rsyncIsMended(version, debian)) return { status: 'ok', found: `${debian} (${found})` }
  const state = `${found}: do not run its daemon, CVE-2024-12084`
  return { status: 'warn', found: state, remedy: 'apt install --only-upgrade rsync' }
}

/** What confines qemu-img, tried on a program that does nothing. */
async function sandboxCheck(path: string): Promise<Check[]> {
  const check = { name: 'sandbox', needs: [...commands] }
  const power = powers()
  const answer = await ask(confine(['true'], power), { path, limit: 2 * limit })
  if ((answer.code ?? 127) === 127 && !answer.late) return [] // that a program is missing is told already
  const found =
    power.user === undefined
      ? 'qemu-img has limits, and is our user'
      : `qemu-img has limits, and is a user of its own${power.namespaces ? ' without network' : ''}`
  const isLess = process.geteuid?.() === 0 && !power.namespaces
  if (answer.code === 0 && !isLess) return [{ ...check, status: 'ok', found }]
  const remedy = 'allow us namespaces and other users (CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID, CAP_CHOWN, CAP_SETPCAP)'
  if (answer.code === 0) return [{ ...check, status: 'warn', found, remedy }]
  const words = answer.stderr.trim().split('\n').at(-1)
  return [{ ...check, status: 'missing', found: words || 'a program does not end in it', remedy }]
}

async function libvirtCheck(settings: Settings, path: string): Promise<Check[]> {
  const virsh = await which('virsh', path)
  if (virsh === undefined) return [] // that it is missing is told already
  const { libvirt_uri: configured } = settings
  const uri = configured ?? 'qemu:///system'
  const check = { name: 'libvirt', needs: ['create --domain'] }
  const answer = await ask([virsh, '-c', uri, 'version'], { path })
  if (answer.code === 0) {
    const version = /Running hypervisor: (.*)/.exec(answer.stdout)?.[1]
    return [{ ...check, status: 'ok', found: version ? `${uri} (${version})` : uri }]
  }
  const words = answer.stderr
    .trim()
    .split('\n')
    .at(-1)
    ?.replace(/^error: /, '')
  const found = `${uri}: ${answer.late ? 'no answer within 3 s' : words || 'no answer'}`
  const local = /^\w+:\/\/\//.test(uri)
  const remedy = local ? 'apt install libvirt-daemon-system && systemctl start libvirtd' : `virsh -c '${uri}' version`
  // Without a configured libvirt, no domain is defined unless one asks for it.
  return [{ ...check, status: configured === undefined ? 'warn' : 'missing', found, remedy }]
}

async function kvmChecks(settings: Settings, path: string): Promise<Check[]> {
  const needs = ['create --domain start']
  const qemu = await which('qemu-system-x86_64', path)
  const setpriv = await which('setpriv', path)
  const emulation = 'set virt_type: qemu in /etc/cowhand/cowhand.yaml'
  const mend = settings.virt_type === 'qemu' ? {} : { remedy: emulation }
  const denied = await kvmDevice()
  if (denied !== undefined) {
    const [found, remedy] =
      denied === 'EACCES' || denied === 'EPERM'
        ? ['/dev/kvm is there, but not for us', 'adduser "$USER" kvm']
        : [`no /dev/kvm (${denied})`, `modprobe -a kvm_intel kvm_amd, or ${emulation}`]
    const check: Check = { name: 'kvm', status: 'warn', found, needs, remedy }
    return qemu === undefined ? [check] : [check, await emulationCheck(qemu, setpriv, needs)]
  }
  if (qemu === undefined || process.arch !== 'x64')
    return [{ name: 'kvm', status: 'warn', found: '/dev/kvm opens; whether guests run was not tried', needs }]
  const [kvm, tcg] = await Promise.all([probe('kvm', { qemu, setpriv }), emulationCheck(qemu, setpriv, needs)])
  const check: Check = kvm.works
    ? { name: 'kvm', status: 'ok', found: `a guest boots in ${kvm.milliseconds} ms`, needs }
    : { name: 'kvm', status: 'warn', found: `/dev/kvm opens, but ${kvm.why}`, needs, ...mend }
  return [check, tcg]
}

async function emulationCheck(qemu: string, setpriv: string | undefined, needs: string[]): Promise<Check> {
  const tcg = await probe('tcg', { qemu, setpriv })
  if (tcg.works) return { name: 'emulation', status: 'ok', found: `a guest boots in ${tcg.milliseconds} ms`, needs }
  const remedy = 'apt install --reinstall qemu-system-x86 seabios'
  return { name: 'emulation', status: 'warn', found: tcg.why ?? 'does not work', needs, remedy }
}

/**
 * Look what this host lacks, and for which command. Changes nothing, but for temporary files that are gone at the
 * end; takes less than four seconds, whatever hangs. Never throws for what it finds.
 * @param options.path where programs are looked for, as in PATH
 */
export async function doctor(settings: Settings, options: { path?: string } = {}): Promise<Check[]> {
  const { path = usualPath } = options
  const groups = await Promise.all([
    Promise.all(tools.map((tool) => toolCheck(tool, path))),
    sandboxCheck(path),
    placeChecks(settings, path),
    glanceChecks(settings),
    libvirtCheck(settings, path),
    kvmChecks(settings, path),
  ])
  return groups.flat()
}

/** Is nothing missing that every call of the command needs (by default: of `create`)? Parts such as `--swap` may be. */
export const isReady = (checks: Check[], command = 'create'): boolean =>
  !checks.some((check) => check.status === 'missing' && check.needs.includes(command))

/** What a command cannot do here: the parts that something missing is needed for. */
const lacks = (checks: Check[], command: string): string[] =>
  checks
    .filter((check) => check.status === 'missing')
    .flatMap((check) => check.needs.filter((need) => need.startsWith(`${command} `)))
    .map((need) => need.slice(command.length + 1))

/** The checks as lines for people, each with the command that mends it, and what each command can do. */
export function renderDoctor(checks: Check[]): string {
  const width = Math.max(0, ...checks.map((check) => check.name.length))
  const lines = checks.map((check) => {
    const found = check.found ?? (check.status === 'missing' ? `needed by ${check.needs.join(', ')}` : '')
    const line = `${check.status.padEnd(7)}  ${check.name.padEnd(width)}  ${found}`.trimEnd()
    return check.remedy === undefined ? line : `${line}; remedy: ${check.remedy}`
  })
  const summary = commands.map((command) => {
    if (!isReady(checks, command)) return `${command}: not ready`
    const parts = [...new Set(lacks(checks, command))]
    return `${command}: ready${parts.length > 0 ? `, but not with ${parts.join(', ')}` : ''}`
  })
  return `${[...lines, '', ...summary].join('\n')}\n`
}
