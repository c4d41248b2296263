import { setTimeout as sleep } from 'node:timers/promises'
import type { Action } from '../job/action.ts'
import type { Tell } from '../job/events.ts'
import { fail, refuse } from '../job/problem.ts'
import { answer, type DomainFacts, domainAt, isOff } from './libvirt.ts'

type Of<K extends Action['do']> = Extract<Action, { do: K }>

/** Between two looks at a guest, ms. A look starts a program, which takes 20 ms. */
const pace = 250
/** A guest that does not listen yet (it is still booting) loses what it is told, so it is told again: seconds. */
const again = 10
/** How long a guest has to be seen running, ms: a QEMU that cannot do what its definition says ends sooner. */
const moment = 500

async function waitFor(ms: number, signal: AbortSignal): Promise<void> {
  // What ends the wait is told as its reason, and not as the timer's.
  await sleep(ms, undefined, { signal }).catch(() => {})
  signal.throwIfAborted()
}

/** Guests that were told to switch themselves off and that nobody has seen off since: until when they are waited for. */
const told = new Map<string, number>()

/**
 * True afterwards: a guest that this run has told to switch itself off, before it was interrupted, has done so, or its
 * time is over. It runs for some seconds more, and whoever took it for running then would leave it off.
 */
export async function letItGo(uri: string, name: string, signal: AbortSignal): Promise<void> {
  const end = told.get(name)
  if (end === undefined) return
  while (performance.now() < end && !isOff(await domainAt(uri, name))) await waitFor(pace, signal)
  told.delete(name)
}

/** The domain, if it is the one that is meant. @throws {Problem} DOMAIN_EXISTS */
async function own({ uri, name, uuid }: Of<'power-off' | 'await'>): Promise<DomainFacts | undefined> {
  const domain = await domainAt(uri, name)
  if (domain && domain.uuid !== uuid)
    refuse(
      'DOMAIN_EXISTS',
      `Cannot go on with domain "${name}": libvirt has another one of this name, ${domain.uuid}`,
      `look at it: virsh -c ${uri} dumpxml ${name}`,
    )
  return domain
}

/**
 * True afterwards: the guest is off. It is asked by its power button (ACPI), for every guest has one; libvirt's own
 * first choice would be the guest's agent, and it waits for that one as long as the guest likes. After `seconds` the
 * plug is pulled; with 0 at once. Interrupted, the guest goes on to switch itself off, which the next run finds.
 * @throws {Problem} DOMAIN_EXISTS, TOOL_FAILED
 */
export async function powerOff(
  action: Of<'power-off'>,
  { signal, tell }: { signal: AbortSignal; tell: Tell },
): Promise<void> {
  const { uri, name, uuid, seconds } = action
  const begin = performance.now()
  for (let asked = 0; ; ) {
    const domain = await own(action)
    if (isOff(domain)) {
      told.delete(name)
      return
    }
    const waited = (performance.now() - begin) / 1000
    // One that crashed hears nothing any more.
    if (waited >= seconds || domain?.state === 'crashed') break
    if (waited >= asked * again) {
      asked += 1
      told.set(name, begin + seconds * 1000)
      // It may have gone off just now; whether it did is looked at again.
      await answer(uri, ['shutdown', uuid, '--mode', 'acpi'], [1])
    }
    await waitFor(Math.min(pace, (seconds - waited) * 1000), signal)
  }
  if (seconds > 0) tell({ type: 'notice', message: `${name} is still on after ${seconds} s: its plug is pulled` })
  await answer(uri, ['destroy', uuid], [1])
  const left = await own(action)
  told.delete(name)
  if (isOff(left)) return
  fail(
    'TOOL_FAILED',
    `Cannot switch "${name}" off: it is ${left?.state} although its plug was pulled`,
    `see what libvirt says: virsh -c ${uri} destroy ${name}`,
  )
}

/**
 * True afterwards: the guest was seen running, and half a second later still. A guest that is off is not waited for:
 * nothing starts it.
 * @throws {Problem} NOT_SETTLED when it is off, or not running after `seconds`; DOMAIN_EXISTS
 */
export async function awaitRunning(
  action: Of<'await'>,
  { signal }: { signal: AbortSignal; tell: Tell },
): Promise<void> {
  const { uri, name, seconds } = action
  const begin = performance.now()
  for (let seen: number | undefined; ; ) {
    const domain = await own(action)
    if (isOff(domain))
      fail(
        'NOT_SETTLED',
        `Cannot see "${name}" running: its guest ended as soon as it was started`,
        `look at its console.log, and at libvirt's log of it: /var/log/libvirt/qemu/${name}.log`,
      )
    const now = performance.now()
    seen = domain?.state === 'running' ? (seen ?? now) : undefined
    if (seen !== undefined && now - seen >= moment) return
    if (seen === undefined && now - begin >= seconds * 1000)
      fail(
        'NOT_SETTLED',
        `Cannot see "${name}" running: after ${seconds} s it is ${domain?.state}`,
        `see why: virsh -c ${uri} domstate --reason ${name}; or give it longer: --start-timeout`,
      )
    await waitFor(pace, signal)
  }
}
