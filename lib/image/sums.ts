import { algorithms } from '../job/spec.ts'

/**
 * What a SHA256SUMS or SHA512SUMS text, of coreutils' or BSD's kind and also inside a PGP signature, says of a file.
 * @returns `sha256:HEX` or `sha512:HEX`; undefined where the file is not named, or contradictorily
 */
export function digestFromSums(text: string, fileName: string): string | undefined {
  const found = new Set<string>()
  for (const line of text.split(/\r?\n/)) {
    const [, hex = '', name] = /^([0-9A-Fa-f]{64,128}) [ *](?:\.\/)?(.+)$/.exec(line) ?? []
    const [, tag = '', bsdName, bsdHex = ''] = /^(SHA\d+) \((?:\.\/)?(.+)\) = ([0-9A-Fa-f]+)$/.exec(line) ?? []
    for (const [algorithm, length] of Object.entries(algorithms)) {
      if (name === fileName && hex.length === length) found.add(`${algorithm}:${hex.toLowerCase()}`)
      if (bsdName === fileName && bsdHex.length === length && tag.toLowerCase() === algorithm)
        found.add(`${algorithm}:${bsdHex.toLowerCase()}`)
    }
  }
  const [first] = found
  const sameKind = [...found].filter((digest) => digest.split(':')[0] === first?.split(':')[0])
  return sameKind.length === 1 ? first : undefined
}
