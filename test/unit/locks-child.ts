// A process of its own for locks.test.ts. It says what it is at on standard output.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { holderMark } from '../../lib/host/holder.ts'
import { acquire } from '../../lib/host/locks.ts'

const [mode = '', directory = '', name = ''] = process.argv.slice(2)
const say = (word: string | number | undefined) => process.stdout.write(`${word}\n`)
const take = (lock: string) => acquire(directory, lock, { task: `${mode} in a test`, wait: 60 })
const startMarked = () =>
  spawn('sleep', ['60'], { detached: true, stdio: 'ignore', env: { ...process.env, COWHAND_HOLDER: holderMark() } })
const forEver = () => setInterval(() => {}, 1000)

const modes: Record<string, () => Promise<void>> = {
  async count() {
    for (let i = 0; i < 25; i++) {
      const lock = await take(name)
      const counted = Number(readFileSync(`${directory}/counter`, 'utf8'))
      await sleep(1)
      lock.assertHeld()
      writeFileSync(`${directory}/counter`, String(counted + 1))
      lock.release()
    }
  },
  async hold() {
    await take(name)
    say(process.pid)
    forEver()
  },
  async orphan() {
    await take(name)
    say(startMarked().pid)
    forEver()
  },
  async handler() {
    process.on('SIGTERM', () => {
      lock.assertHeld()
      lock.release()
      say('released')
      process.exit(7)
    })
    const lock = await take(name)
    say(process.pid)
    forEver()
  },
  async exit() {
    await take(name)
    process.exit(0)
  },
  async throw() {
    await take(name)
    setTimeout(() => {
      throw new Error('a fault of ours')
    })
  },
  async 'exit-with-child'() {
    await take(name)
    say(startMarked().pid)
    process.exit(0)
  },
  async 'exit-robbed'() {
    const { path } = await take(name)
    writeFileSync(path, readFileSync(path, 'utf8').replace(/"nonce":"[^"]*"/, '"nonce":"another"'))
    process.exit(0)
  },
  // Everybody wants the same dead locks; a directory for each can be made by one at a time.
  async rounds() {
    for (let round = 0; round < 30; round++) {
      const lock = await take(`dead${round}`)
      mkdirSync(`${directory}/inside${round}`)
      await sleep(1)
      rmdirSync(`${directory}/inside${round}`)
      lock.release()
    }
  },
}
await modes[mode]?.()
