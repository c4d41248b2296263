import { dirname } from 'node:path'
import type { Proof } from '../image/proof.ts'
import { type Action, run } from '../job/action.ts'
import { partOf, recordOf } from '../job/layout.ts'
import { type Base, baseAt, leftoversOf, planKnown, proofOf } from './bases.ts'
import type { Maker } from './mkfs.ts'

/** A base that a program makes on this host, as it is found: `maker` only where it is still to be made. */
export interface FoundMade {
  base: Base | undefined
  proof: Proof | undefined
  leftovers: string[]
  maker: Maker | undefined
}

/** Look for the base; only where it is absent is it found out how to make it. @param makerOf for the part's path */
export async function lookForMade(
  base: string,
  makerOf: (mkfs: typeof import('./mkfs.ts'), part: string) => Maker,
): Promise<FoundMade> {
  const found = baseAt(base)
  const facts = { base: found, proof: await proofOf(base, found, {}), leftovers: leftoversOf(base) }
  if (found) return { ...facts, maker: undefined }
  const maker = makerOf(await import('./mkfs.ts'), partOf(base))
  const { requireProgram } = await import('./ask.ts')
  await requireProgram(maker.argv[0] ?? '')
  return { ...facts, maker }
}

/** What is missing until the base is there: a sparse file, the program, the record of it, and the name. @param size bytes */
export function planMade(base: string, size: number, { base: found, proof, leftovers, maker }: FoundMade): Action[] {
  const remove = leftovers.map((path): Action => ({ do: 'remove', path }))
  if (found) return [...remove, ...planKnown(base, found, { proof })]
  if (!maker) return remove
  const part = partOf(base)
  const { argv, env, deterministic } = maker
  return [
    { do: 'mkdir', path: dirname(base), mode: 0o755 },
    { do: 'allocate', path: part, size },
    run(argv, `make base "${base}"`, { writes: part, ...(env ? { env } : {}) }),
    {
      do: 'record',
      path: recordOf(base),
      of: part,
      fields: { arguments: argv, environment: env, deterministic },
      by: argv[0] ?? '',
    },
    { do: 'publish', from: part, to: base },
  ]
}
