/**
 * Of many moments to be cut at, some: another choice each day, so that in time each has its turn. KILL_ALL=1 takes all
 * of them, KILL_TURN=N the choice of another day. @param every one of so many
 */
export function some<T>(moments: T[], every: number): T[] {
  if (process.env['KILL_ALL']) return moments
  const turn = Number(process.env['KILL_TURN'] ?? Math.floor(Date.now() / 86_400_000))
  return moments.filter((_, index) => index % every === turn % every)
}
