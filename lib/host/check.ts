/** One thing that cowhand wants of a host, and how it is here. */
export interface Check {
  name: string
  /** `warn`: works, but worse than it could. `missing`: what `needs` names does not work. */
  status: 'ok' | 'warn' | 'missing'
  found?: string
  /** Commands that need it: `create`, or a part of one such as `create --swap`. */
  needs: string[]
  /** A command that mends it. */
  remedy?: string
}
