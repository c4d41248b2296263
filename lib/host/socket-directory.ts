import { accessSync, constants, lstatSync, mkdtempSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { errno } from '../job/problem.ts'

// ssh's control socket lies in a directory that only we may enter: whoever gets at it is logged in on the other host.

const prefix = 'cowhand-ssh-'

/** Short, for a socket's path has 107 characters; without blanks, at which rsync splits ssh's words. */
const places = ['/run', '/tmp']

/** @returns a new directory for one socket, for the rest of this run */
export function makeSocketDirectory(): string {
  const place = places.find(isWritable) ?? '/tmp'
  sweep(place)
  return mkdtempSync(`${place}/${prefix}${process.pid}-`)
}

const isWritable = (place: string): boolean => {
  try {
    accessSync(place, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** What a run that was killed has left. Where that run lives in a namespace of its own, it only connects once more. */
function sweep(place: string): void {
  for (const name of readdirSync(place)) {
    const [, pid] = /^cowhand-ssh-(\d+)-\w+$/.exec(name) ?? []
    if (pid === undefined || isAlive(Number(pid))) continue
    const path = `${place}/${name}`
    const found = lstatSync(path, { throwIfNoEntry: false })
    // Ours, so that nobody else can change what is below it meanwhile.
    if (found?.isDirectory() && found.uid === process.geteuid?.()) dropSocketDirectory(path)
  }
}

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return errno(error) !== 'ESRCH'
  }
}

/** Its sockets are gone, and unless it is to be kept, the directory itself. Never throws. */
export function dropSocketDirectory(path: string, { keep = false } = {}): void {
  try {
    for (const name of readdirSync(path)) unlinkSync(`${path}/${name}`)
    if (!keep) rmdirSync(path)
  } catch {
    // somebody else removed it, or ssh did
  }
}
