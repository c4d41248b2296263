import { algorithms } from '../job/spec.ts'

/** What such a text is believed for, the strongest first. */
const believed = ['sha512', 'sha256'] as const

/**
 * What a SHA256SUMS or SHA512SUMS text, of coreutils' or BSD's kind and also inside a PGP signature, says of a file.
 * @returns `sha512:HEX`, or where it has none `sha256:HEX`; undefined where the file is not named, or contradictorily
 */
export function digestFromSums(text: string, fileName: string): string | undefined {
  const found = new Set<string>()
  for (const line of text.split(/\r?\n/)) {
    const [, hex = '', name] = /^([0-9A-Fa-f]{64,128}) [ *](?:\.\/)?(.+)$/.exec(line) ?? []
    const [, tag = '', bsdName, bsdHex = ''] = /^(SHA\d+) \((?:\.\/)?(.+)\) = ([0-9A-Fa-f]+)$/.exec(line) ?? []
    for (const algorithm of believed) {
      const length = algorithms[algorithm]
      if (name === fileName && hex.length === length) found.add(`${algorithm}:${hex.toLowerCase()}`)
      if (bsdName === fileName && bsdHex.length === length && tag.toLowerCase() === algorithm)
        found.add(`${algorithm}:${bsdHex.toLowerCase()}`)
    }
  }
  const byStrength = believed.map((algorithm) => [...found].filter((digest) => digest.startsWith(`${algorithm}:`)))
  const strongest = byStrength.find((digests) => digests.length > 0) ?? []
  return strongest.length === 1 ? strongest[0] : undefined
}
