import type { Action } from '../job/action.ts'
import type { Tell } from '../job/events.ts'
import type { Settings } from '../job/settings.ts'

/** What only a resize or a migration does: loaded when it is needed. */
const kinds = ['ask', 'push', 'power-off', 'await', 'point', 'shift', 'flatten', 'grow', 'grow-fs'] as const
export type MoveAction = Extract<Action, { do: (typeof kinds)[number] }>

export interface MoveContext {
  settings: Settings
  signal: AbortSignal
  tell: Tell
  progress: (verb: string, path: string) => (done: number, total?: number) => void
}

/**
 * Do one action of a move.
 * @returns bytes that went to another host
 * @throws {Problem} as the module that does it
 */
export async function performMove(action: MoveAction, context: MoveContext): Promise<{ sent?: number }> {
  const { signal, tell, progress } = context
  switch (action.do) {
    case 'ask':
      return (await import('./asking.ts')).ask(action, context)
    case 'push':
      return (await import('./asking.ts')).send(action, context)
    case 'power-off':
      await (await import('./power.ts')).powerOff(action, { signal, tell })
      return {}
    case 'await':
      await (await import('./power.ts')).awaitRunning(action, { signal, tell })
      return {}
    case 'point':
      ;(await import('./chain.ts')).pointOverlay(action.path, action.base)
      return {}
    case 'shift':
      await (await import('./chain.ts')).shiftOverlay(action, { signal, onProgress: progress('rebase', action.path) })
      return {}
    case 'flatten':
      await (await import('./chain.ts')).flattenOverlay(action, {
        signal,
        onProgress: progress('flatten', action.path),
      })
      return {}
    case 'grow':
      await (await import('./chain.ts')).growDisk(action, { signal })
      return {}
    case 'grow-fs':
      await (await import('./grow-fs.ts')).growFileSystem(action, { signal, tell })
      return {}
  }
}
