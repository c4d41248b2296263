import { type MoveReference, Order, type Phase } from '../job/move.ts'
import type { StepResult } from '../job/result.ts'
import type { Settings } from '../job/settings.ts'
import { textAt } from './files.ts'
import type { MoveAction, MoveContext } from './perform-move.ts'

/** What another host has done for us in this run: it has looked itself that nothing is left. */
const answered = new Set<string>()
type Document = Order | MoveReference
const keyOf = (host: string, phase: Phase, { move }: Document, round: number) => [host, phase, move, round].join(' ')

/** What another host would do. @param round of several that ask for the same, which one @throws {Problem} its own */
export async function plannedBy(
  host: string,
  phase: Phase,
  document: Document,
  round: number,
  settings: Settings,
): Promise<StepResult['actions']> {
  if (answered.has(keyOf(host, phase, document, round))) return []
  // It would say the same again: what is new follows from what is sent between the two.
  if (round > 1 && !answered.has(keyOf(host, phase, document, round - 1)))
    return [{ action: 'receive-base (follows from the steps before)' }]
  const { destinationAt } = await import('./destination.ts')
  const { result } = await (await destinationAt(host, settings)).ask(phase, document, { dryRun: true })
  return (result?.steps ?? []).flatMap(({ step, about, status, actions }) =>
    status === 'pending'
      ? [{ action: `${[step, about].filter(Boolean).join(' ')} (follows from the steps before)` }]
      : actions,
  )
}

type Of<K extends MoveAction['do']> = Extract<MoveAction, { do: K }>

export async function ask(
  { host, phase, document, round }: Of<'ask'>,
  { settings }: MoveContext,
): Promise<Record<string, never>> {
  const { destinationAt } = await import('./destination.ts')
  await (await destinationAt(host, settings)).ask(phase, document)
  answered.add(keyOf(host, phase, document, round))
  return {}
}

/** What was sent in this run: what an earlier one sent may be gone since. */
const sentNow = new Set<string>()
const placeOf = ({ host, to }: { host: string; to: string }, name: string) => `${host}:${to}/${name}`
/** Whether files of these names were sent to this directory in this run. */
export const isSentNow = (where: { host: string; to: string }, names: string[]): boolean =>
  names.every((name) => sentNow.has(placeOf(where, name)))

export async function send(
  action: Of<'push'>,
  { settings, signal, progress, tell }: MoveContext,
): Promise<{ sent: number }> {
  const [{ push }, { destinationAt }] = await Promise.all([import('./rsync.ts'), import('./destination.ts')])
  // A daemon is reached without: where others drive both hosts, this one may have no way in there by ssh.
  const destination = action.transport === 'ssh' ? await destinationAt(action.host, settings) : undefined
  let connection = destination?.connection
  const reconnect = async () => {
    await destination?.reconnect(connection)
    connection = destination?.connection
    return destination?.ssh ?? []
  }
  const onProgress = progress('send', action.to)
  const done = await push(action, { settings, signal, tell, onProgress, ssh: destination?.ssh ?? [], reconnect })
  for (const { name } of action.files) sentNow.add(placeOf(action, name))
  return done
}

/** What was sent, by name: digest of the content and size in bytes; undefined where that was not written down. */
export function sentIn(record: string): Order['sent'] {
  const text = textAt(record)
  return text === undefined ? undefined : Order.shape.sent.parse(JSON.parse(text))
}
