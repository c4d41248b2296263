import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { hashFile } from '../../lib/image/digest.ts'
import { digestFromSums } from '../../lib/image/sums.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-digest-'))
after(() => rmSync(dir, { recursive: true }))

const sha256sum = (path: string) => execFileSync('sha256sum', [path], { encoding: 'utf8' }).split(' ')[0]
const sha512sum = (path: string) => execFileSync('sha512sum', [path], { encoding: 'utf8' }).split(' ')[0]

for (const size of [0, 1, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 1, 5_000_000])
  test(`a file of ${size} bytes has the digests that coreutils give`, async () => {
    const path = join(dir, `f${size}`)
    writeFileSync(path, Buffer.alloc(size, 'cowhand'))
    assert.deepEqual(await hashFile(path, ['sha256']), [`sha256:${sha256sum(path)}`])
    assert.deepEqual(await hashFile(path, ['sha512']), [`sha512:${sha512sum(path)}`])
  })

test('several digests take one read', async () => {
  const path = join(dir, 'several')
  writeFileSync(path, Buffer.alloc(3_000_000, 'cowhand'))
  const told: number[] = []
  const digests = await hashFile(path, ['sha256', 'md5'], { onProgress: (done) => told.push(done) })
  const [md5] = execFileSync('md5sum', [path], { encoding: 'utf8' }).split(' ')
  assert.deepEqual(digests, [`sha256:${sha256sum(path)}`, `md5:${md5}`])
  assert.deepEqual([...new Set(told)], [...told], 'each byte is told once')
})

test('holes are hashed as zeros', async () => {
  const path = join(dir, 'sparse')
  writeFileSync(path, 'beginning')
  truncateSync(path, 10_000_000)
  assert.deepEqual(await hashFile(path, ['sha256']), [`sha256:${sha256sum(path)}`])
})

test('progress ends with the size', async () => {
  const path = join(dir, 'progress')
  writeFileSync(path, Buffer.alloc(3_000_000))
  const told: number[] = []
  await hashFile(path, ['sha256'], { onProgress: (done) => told.push(done) })
  assert.equal(told.at(-1), 3_000_000)
})

test('an abort ends it with the reason', async () => {
  const path = join(dir, 'aborted')
  writeFileSync(path, Buffer.alloc(3_000_000))
  const controller = new AbortController()
  const hashing = hashFile(path, ['sha256'], { signal: controller.signal })
  controller.abort(new Error('the reason'))
  await assert.rejects(hashing, /the reason/)
})

test('a FIFO is refused, not waited for', async () => {
  const path = join(dir, 'fifo')
  execFileSync('mkfifo', [path])
  await assert.rejects(hashFile(path, ['sha256']), { code: 'NOT_OURS' })
})

const a256 = 'a'.repeat(64)
const b256 = 'b'.repeat(64)
const a512 = 'a'.repeat(128)
const sums: { when: string; text: string; is: string | undefined; name?: string }[] = [
  { when: 'text mode', text: `${b256}  other\n${a256}  image\n`, is: `sha256:${a256}` },
  { when: 'binary mode', text: `${a256} *image\n`, is: `sha256:${a256}` },
  { when: 'sha512', text: `${a512}  image\n`, is: `sha512:${a512}` },
  { when: 'no newline at the end', text: `${a256}  image`, is: `sha256:${a256}` },
  { when: 'lines end as on Windows', text: `${a256}  image\r\n`, is: `sha256:${a256}` },
  { when: 'upper case', text: `${a256.toUpperCase()}  image\n`, is: `sha256:${a256}` },
  { when: 'the name has ./ before it', text: `${a256}  ./image\n`, is: `sha256:${a256}` },
  { when: 'the name has spaces', text: `${a256}  an image\n`, is: `sha256:${a256}`, name: 'an image' },
  { when: 'BSD style', text: `SHA256 (image) = ${a256}\n`, is: `sha256:${a256}` },
  { when: 'both are given', text: `SHA256 (image) = ${a256}\nSHA512 (image) = ${a512}\n`, is: `sha512:${a512}` },
  { when: 'beside a sha1', text: `SHA1 (image) = ${'a'.repeat(40)}\nSHA256 (image) = ${a256}\n`, is: `sha256:${a256}` },
  { when: 'a sha1 alone is not believed', text: `SHA1 (image) = ${'a'.repeat(40)}\n`, is: undefined },
  { when: 'BSD style, sha512', text: `SHA512 (image) = ${a512}\n`, is: `sha512:${a512}` },
  {
    when: 'inside a PGP signature',
    text: `-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# image: 5 bytes\nSHA256 (image) = ${a256}\n`,
    is: `sha256:${a256}`,
  },
  { when: 'named twice, the same', text: `${a256}  image\n${a256} *image\n`, is: `sha256:${a256}` },
  { when: 'by both algorithms, the first is taken', text: `${a512}  image\n${a256}  image\n`, is: `sha512:${a512}` },
  { when: 'contradictory', text: `${a256}  image\n${b256}  image\n`, is: undefined },
  { when: 'not named', text: `${a256}  image.sig\n${a256}  my-image\n${a256}  sub/image\n`, is: undefined },
  { when: 'a shorter digest (sha1)', text: `${'a'.repeat(40)}  image\n`, is: undefined },
  { when: 'a digest of odd length', text: `${'a'.repeat(96)}  image\n`, is: undefined },
  { when: 'a digest under the wrong tag', text: `SHA512 (image) = ${a256}\n`, is: undefined },
  { when: 'not hexadecimal', text: `${'g'.repeat(64)}  image\n`, is: undefined },
  { when: 'an error page', text: '<html>image</html>', is: undefined },
  { when: 'the name looks like a pattern', text: `${a256}  image\n`, is: undefined, name: 'ima.e' },
]
for (const { when, text, is, name = 'image' } of sums)
  test(`sums: ${when}`, () => assert.equal(digestFromSums(text, name), is))
