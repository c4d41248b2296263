import { closeSync, openSync, statSync, unlinkSync, writeSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { type Code, joint, Problem } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { formatSize } from '../job/spec.ts'
import { which } from './ask.ts'
import { type Need, type Needs, needsIn } from './domain-needs.ts'
import { textAt } from './files.ts'
import { kvmDevice } from './kvm.ts'
import { answer } from './libvirt.ts'

// Whether a guest could start on this host: asked as long as it runs, here or elsewhere (BEHAVIOUR.md S37).

export interface StartOptions {
  uri: string
  name: string
  /** VERB "THING", as in an error: Cannot VERB "THING". */
  verb: string
  /** Absolute path of the instance on this host, which its definition has to name. */
  directory: string
  /** That directory is going to have only what travels with an instance, whatever is in it now. */
  isRenewed: boolean
  /** It runs on this very host: what it needs of memory is there, once it is off. */
  runsHere: boolean
  /** Its guest never ran. */
  isNew: boolean
  /** Kind of domain that this host has, where that counts. */
  virtType?: Settings['virt_type']
}

/** What keeps a guest from starting. */
export interface Lack {
  code: Code
  state: string
  remedy: string
}

/**
 * Nothing is known that would keep a guest of this definition from starting here. Nothing is changed.
 * @throws {Problem} MISSING_PREREQUISITE, UNSUPPORTED or TOOL_MISSING with all that would; TOOL_FAILED; BAD_SPEC
 */
export async function requireStartable(xml: string, options: StartOptions): Promise<void> {
  const { verb } = options
  const needs = needsIn(xml, options)
  const lacks = [
    ...(await Promise.all([
      kvmLack(needs, options),
      networkLacks(needs, options),
      labelLacks(needs, options),
      swtpmLack(needs),
      nativeLack(xml, options),
    ])),
    needs.things.map((need) => thingLack(need, options)),
    memoryLack(needs, options),
    cpuLack(needs, options),
  ].flat()
  const found = lacks.filter((lack) => lack !== undefined)
  const [one] = found
  if (!one) return
  const messages = new Set(found.map(({ state }) => `Cannot ${verb}: ${state}`))
  const remedies = new Set(found.map(({ remedy }) => remedy))
  throw new Problem('refused', one.code, [...messages].join(joint), [...remedies].join('; '))
}

const lack = (state: string, remedy: string, code: Code = 'MISSING_PREREQUISITE'): Lack => ({ code, state, remedy })
const edit = (name: string): string => `change that in its definition: virsh edit ${name}`

async function kvmLack({ type }: Needs, { name, virtType }: StartOptions): Promise<Lack | undefined> {
  if (type !== 'kvm') return undefined
  const asQemu = `have it run without: virsh edit ${name}: <domain type='qemu'>, no <cpu mode='host-…'>`
  if (virtType === 'qemu')
    return lack(
      'its domain is of type kvm, and here guests run without KVM (virt_type: qemu)',
      `set virt_type: kvm in /etc/cowhand/cowhand.yaml, if that host has it; or ${asQemu}`,
      'UNSUPPORTED',
    )
  const why = await kvmDevice()
  if (why === undefined) return undefined
  return lack(
    `its domain is of type kvm, and /dev/kvm cannot be opened: ${why}`,
    `load it: modprobe kvm_intel or kvm_amd; or ${asQemu}`,
    'UNSUPPORTED',
  )
}

async function networkLacks({ things }: Needs, { uri }: StartOptions): Promise<Lack[]> {
  const wanted = things.filter(({ kind }) => kind === 'network')
  if (wanted.length === 0) return []
  const names = async (...words: string[]) => lines(await answer(uri, ['net-list', '--name', ...words]))
  const [active, all] = await Promise.all([names(), names('--all')])
  return wanted.flatMap(({ name, of }) => {
    if (active.includes(name)) return []
    const start = `virsh -c ${uri} net-start ${name}`
    return all.includes(name)
      ? lack(`libvirt's network "${name}", which ${of} needs, is not active`, `start it: ${start}`)
      : lack(
          `libvirt has no network "${name}", which ${of} needs`,
          `define it as on the other host: virsh -c ${uri} net-define FILE; ${start}`,
        )
  })
}

const lines = (text: string): string[] => text.split('\n').flatMap((line) => line.trim() || [])

async function labelLacks({ things }: Needs, { uri, name }: StartOptions): Promise<Lack[]> {
  const wanted = things.filter(({ kind }) => kind === 'label')
  if (wanted.length === 0) return []
  const secure = (await answer(uri, ['capabilities'])).matchAll(/<secmodel>\s*<model>(.*?)<\/model>/g)
  const models = [...secure].map(([, model]) => model)
  return wanted.flatMap(({ name: model, of }) =>
    models.includes(model) ? [] : lack(`libvirt has no security driver "${model}", of which ${of} is`, edit(name)),
  )
}

async function swtpmLack({ things }: Needs): Promise<Lack | undefined> {
  if (!things.some(({ kind }) => kind === 'swtpm')) return undefined
  const found = await Promise.all(['swtpm', 'swtpm_setup'].map((program) => which(program)))
  if (!found.includes(undefined)) return undefined
  return lack(
    'swtpm is not installed, which its TPM needs',
    'install it: apt install swtpm swtpm-tools',
    'TOOL_MISSING',
  )
}

/** What libvirt says against it: it makes QEMU's words of it as for a start, and then does not start it. */
async function nativeLack(xml: string, { uri, name }: StartOptions): Promise<Lack | undefined> {
  const path = `${tmpdir()}/cowhand-${crypto.randomUUID()}.xml`
  const fd = openSync(path, 'wx+', 0o600)
  try {
    // It has secrets: it loses its name at once, and goes by its descriptor.
    unlinkSync(path)
    writeSync(fd, xml)
    await answer(uri, ['domxml-to-native', 'qemu-argv', '/proc/self/fd/3'], [], undefined, [fd])
    return undefined
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'TOOL_FAILED') throw error
    const said = error.message.replace(/^Cannot reach libvirt at ".*?": /, '')
    // Its test driver cannot do that, and nothing can be told by it.
    if (/not supported by the connection driver/.test(said)) return undefined
    if (unheard.test(said)) throw error
    const isTool = /emulator found|QEMU binary/.test(said)
    const remedy = isTool ? 'install QEMU for its architecture: apt install qemu-system' : edit(name)
    return lack(`libvirt would not start it: ${said}`, remedy, isTool ? 'TOOL_MISSING' : 'UNSUPPORTED')
  } finally {
    closeSync(fd)
  }
}

/** What virsh says when libvirt itself could not be asked. */
const unheard = /^no answer for|[Ff]ailed to connect|[Dd]isconnected|End of file|Cannot (recv|write) data|client socket/

/** Whatever a need of this kind is: is it here? */
function isThere({ kind, name }: Need): boolean {
  if (kind === 'link') return links().includes(name)
  if (kind === 'address') return isOwnAddress(name)
  const found = statSync(name, { throwIfNoEntry: false })
  if (!found) return false
  if (kind === 'block') return found.isBlockDevice()
  return kind === 'device' || found.isDirectory() === (kind === 'directory')
}

/** Names of the network devices of this host. Each process has its own such file: sysfs may be another namespace's. */
const links = (): string[] =>
  [...(textAt('/proc/self/net/dev') ?? '').matchAll(/^\s*(\S+?):/gm)].map(([, name = '']) => name)

/** What is no IPv4 address is not looked up, and passes. */
function isOwnAddress(address: string): boolean {
  if (!/^[0-9.]+$/.test(address) || address === '0.0.0.0' || address.startsWith('127.')) return true
  return Object.values(networkInterfaces()).some((all) => all?.some((one) => one.address === address))
}

const words: Partial<Record<Need['kind'], string>> = {
  link: 'network device',
  block: 'block device',
  directory: 'directory',
}

function thingLack(need: Need, { name: guest, directory, isRenewed }: StartOptions): Lack | undefined {
  const { kind, name, of } = need
  switch (kind) {
    case 'network':
    case 'label':
    case 'swtpm':
      return undefined // libvirt was asked
    case 'hardware':
      return lack(
        `its guest has a ${name} that is a part of its host`,
        `take it out first: virsh edit ${guest}, or virsh detach-device`,
        'UNSUPPORTED',
      )
    case 'address':
      if (isThere(need)) return undefined
      return lack(
        `${of} listens on ${name}, which is no address here`,
        `let it listen on 0.0.0.0, or on a network: virsh edit ${guest}`,
      )
  }
  if (isRenewed && dirname(name) === directory)
    return lack(
      `${of} is "${name}", in its own directory, and does not travel with it`,
      `move it to another place that both hosts have: virsh edit ${guest}`,
    )
  if (isThere(need)) return undefined
  const [, target] = /^its (?:CD|floppy) (\S+)$/.exec(of) ?? []
  const out = target === undefined ? edit(guest) : `take it out: virsh change-media ${guest} ${target} --eject`
  const what = words[kind] ?? 'file'
  return lack(`there is no ${what} "${name}", which ${of} needs`, `put it there; or ${out}`)
}

/** Memory is given when it is used, but the kernel promises no guest more than all that there is (overcommit, proc(5)). */
function memoryLack({ memory, hugepages }: Needs, { name, runsHere }: StartOptions): Lack | undefined {
  if (runsHere) return undefined
  const file = textAt('/proc/meminfo') ?? ''
  const kib = (field: string) => Number(new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(file)?.[1] ?? 0)
  if (hugepages !== undefined) {
    const size = hugepages / 1024 || kib('Hugepagesize')
    const path = `/sys/kernel/mm/hugepages/hugepages-${size}kB/free_hugepages`
    const free = Number(textAt(path) ?? 0) * size * 1024
    if (memory <= free) return undefined
    return lack(
      `it has ${formatSize(memory)} of memory in huge pages of ${size} KiB, of which ${formatSize(free)} are free`,
      `make more: virsh allocpages ${size}KiB ${Math.ceil(memory / size / 1024)} --add`,
    )
  }
  const all = (kib('MemTotal') + kib('SwapTotal')) * 1024
  if (memory <= all || textAt('/proc/sys/vm/overcommit_memory')?.trim() === '1') return undefined
  return lack(
    `it has ${formatSize(memory)} of memory, and this host ${formatSize(all)}`,
    `choose another host, or give it less: virsh setmaxmem ${name} SIZE --config`,
    'UNSUPPORTED',
  )
}

/** A pin to processors of which none is there is refused by the kernel (sched_setaffinity(2)). */
function cpuLack({ pinned }: Needs, { name }: StartOptions): Lack | undefined {
  const online = cpusIn(textAt('/sys/devices/system/cpu/online') ?? '')
  const lost = pinned.find((set) => !cpusIn(set).some((cpu) => online.includes(cpu)))
  if (lost === undefined) return undefined
  return lack(`it is pinned to processors ${lost}, of which there is none`, edit(name))
}

/** Processors in a set such as `0-3,^2,8`. */
function cpusIn(set: string): number[] {
  const cpus = new Set<number>()
  for (const part of set.split(',')) {
    const [, not, from, to = from] = /^(\^?)(\d{1,5})(?:-(\d{1,5}))?$/.exec(part.trim()) ?? []
    for (let cpu = Number(from); cpu <= Number(to); cpu += 1) cpus[not ? 'delete' : 'add'](cpu)
  }
  return [...cpus]
}
