import { growFileSystem } from '../../lib/host/grow-fs.ts'

// A process that can be killed, or is another user's: grows the file system of a disk and says what came of it.
const [path = '', base, wait] = process.argv.slice(2)
process.stdout.write('begins\n')
if (wait) await new Promise((resolve) => process.stdin.once('data', resolve))
const tell = (event: { type: string; message?: string }) => void process.stdout.write(`${event.message ?? ''}\n`)
const done = await growFileSystem({ path, format: 'qcow2', base }, { signal: new AbortController().signal, tell })
process.stdout.write(`${done}\n`)
process.exit()
