/** What was opened for the whole run, such as a connection to another host: it is closed at the end of it. */
export const closing: (() => Promise<void>)[] = []

/** Everything is closed. Never throws: the work is done by then. */
export async function closeAll(): Promise<void> {
  await Promise.allSettled(closing.splice(0).map((close) => close()))
}
