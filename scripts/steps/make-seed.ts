import * as z from 'zod/mini'
import { fileAt, ownFileAt, ownNamesIn, readOperatorsBytes } from '../../lib/host/files.ts'
import { type Action, run } from '../../lib/job/action.ts'
import { partOf } from '../../lib/job/layout.ts'
import { AbsolutePath, described, FilePath, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const files = ['user-data', 'meta-data', 'network-config'] as const

/** Either writes the same kind of image, and takes the same options. */
async function isoMaker(): Promise<string[]> {
  const { requireProgram, which } = await import('../../lib/host/ask.ts')
  if (await which('genisoimage')) return ['genisoimage']
  await requireProgram('xorriso')
  return ['xorriso', '-as', 'mkisofs']
}

export const makeSeed = defineStep({
  name: 'make-seed',
  summary: 'Make the seed CD that cloud-init reads (NoCloud)',
  input: () =>
    z.strictObject({
      seed: described(AbsolutePath, 'ISO image to make'),
      'user-data': optional(FilePath, 'cloud-init user data'),
      'meta-data': optional(FilePath, 'cloud-init meta data'),
      'network-config': optional(FilePath, 'cloud-init network configuration'),
      'instance-id': described(z.string(), 'tells cloud-init whether this is the first boot'),
      hostname: described(z.string(), 'name that the guest is to have'),
    }),
  inspect: async ({ seed, ...given }) => ({
    seed: ownFileAt(seed),
    staged: ownNamesIn(`${seed}.d`),
    leftover: fileAt(partOf(seed)) !== undefined,
    maker: fileAt(seed) ? [] : await isoMaker(),
    texts: files.map((name): string | Buffer | undefined =>
      given[name] === undefined ? undefined : readOperatorsBytes(given[name]),
    ),
  }),
  plan({ seed, 'instance-id': id, hostname }, { seed: found, staged, leftover, texts, maker }): Action[] {
    const stage = `${seed}.d`
    // The staged files may hold passwords: they go as soon as the seed is there.
    const clear = (names: readonly string[]): Action[] => [
      ...names.map((name): Action => ({ do: 'remove', path: `${stage}/${name}` })),
      { do: 'rmdir', path: stage },
    ]
    if (found)
      return [...(leftover ? [{ do: 'remove', path: partOf(seed) } as const] : []), ...(staged ? clear(staged) : [])]
    const [userData = '', metaData = `instance-id: ${id}\nlocal-hostname: ${hostname}\n`, network] = texts
    const content = {
      'user-data': userData,
      'meta-data': metaData,
      ...(network === undefined ? {} : { 'network-config': network }),
    }
    const write = ([name, text]: [string, string | Buffer]): Action => ({
      do: 'write',
      path: `${stage}/${name}`,
      text,
      mode: 0o600,
    })
    const iso = [...maker, '-quiet', '-output', partOf(seed), '-volid', 'cidata', '-joliet', '-rock', stage]
    const stale = (staged ?? []).filter((name) => !(name in content))
    return [
      { do: 'mkdir', path: stage, mode: 0o700 },
      // Whatever lies there becomes a part of the seed.
      ...stale.map((name): Action => ({ do: 'remove', path: `${stage}/${name}` })),
      ...Object.entries(content).map(write),
      run(iso, `make "${seed}"`, { writes: partOf(seed), mode: 0o600 }),
      { do: 'publish', from: partOf(seed), to: seed },
      ...clear(Object.keys(content)),
    ]
  },
})
