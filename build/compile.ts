// Makes build/out/cowhand: one file that needs nothing but glibc. When it was made of these very inputs, it is left.
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compile } from './bun.ts'
import { root } from './sh.ts'

const binary = join(root, 'build/out/cowhand')
const record = `${binary}.inputs`

/** Digest of everything that the binary is made of: sources, packages, compiler and flags. */
function inputs(): string {
  const sources = ['lib', 'scripts'].flatMap((tree) =>
    readdirSync(join(root, tree), { recursive: true, encoding: 'utf8' }).map((path) => join(tree, path)),
  )
  const files = [...sources.sort(), 'build/bun.ts', 'package.json', 'package-lock.json', 'tsconfig.json']
  const hash = createHash('sha256')
  for (const file of files.map((name) => join(root, name)).filter((path) => statSync(path).isFile())) {
    const bytes = readFileSync(file)
    hash.update(`${file} ${bytes.length}\n`).update(bytes)
  }
  return hash.digest('hex')
}

const now = inputs()
if (!existsSync(binary) || !existsSync(record) || readFileSync(record, 'utf8') !== now) {
  await compile('scripts/cowhand.ts', binary)
  writeFileSync(record, now)
}
process.stdout.write(`build/out/cowhand (${Math.round(statSync(binary).size / 2 ** 20)} MiB)\n`)
