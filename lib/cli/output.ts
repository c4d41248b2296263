import { writeSync } from 'node:fs'
import { errno } from '../job/problem.ts'

const cell = new Int32Array(new SharedArrayBuffer(4))

/** Write it where that is still possible: an error's exit code counts also where its words do not get through. */
export function tryToWrite(fd: number, text: string): void {
  try {
    writeAll(fd, text)
  } catch {
    // there is nobody to tell
  }
}

/** Write all of it: a pipe takes what it can, and what `process.stdout` still holds at the exit is lost. */
export function writeAll(fd: number, text: string): void {
  let rest = Buffer.from(text)
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest))
    } catch (error) {
      if (errno(error) === 'EPIPE') return // the reader has seen enough
      if (errno(error) !== 'EAGAIN') throw error
      Atomics.wait(cell, 0, 0, 5)
    }
  }
}
