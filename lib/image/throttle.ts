/** A moment's worth may come at once, in ms: it evens out how the bytes arrive. */
const burst = 100

/** Holds a stream of bytes back to a rate: a token bucket. */
export class Throttle {
  readonly #rate: number
  /** When all that came so far will have been due, in ms on our own clock. */
  #due = 0

  /** @param rate bytes a second */
  constructor(rate: number) {
    this.#rate = rate
  }

  /** Wait until these bytes may have come. @throws the signal's reason when aborted */
  async take(bytes: number, signal?: AbortSignal | undefined): Promise<void> {
    const now = performance.now()
    this.#due = Math.max(this.#due, now - burst) + (bytes / this.#rate) * 1000
    if (this.#due <= now) return
    const { setTimeout } = await import('node:timers/promises')
    await setTimeout(this.#due - now, undefined, signal ? { signal } : {}).catch((error) => {
      throw signal?.reason ?? error
    })
  }
}
