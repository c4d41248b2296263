import { Problem } from '../job/problem.ts'
import { which } from './ask.ts'
import { confine, type Sandbox, ulimits } from './sandbox.ts'
import { packageOf } from './tools.ts'

// How a program gets into its sandbox, and how one sees that it did not.

/** A limit that may not be set is one that we have ourselves already, and lower. */
const limiting = 'while [ "$1" != -- ]; do ulimit $1 2>/dev/null || :; shift; done; shift; exec "$@"'

/** The whole command that starts a program in its sandbox, also its limits. */
export const confined = (argv: readonly string[], sandbox: Sandbox): string[] => {
  return ['/bin/bash', '-c', limiting, 'limiting', ...ulimits(sandbox), '--', ...confine(argv, sandbox)]
}

/** The first of the programs in a command that is not there. @param path directories, as in PATH */
export async function missingOf(words: readonly string[], path: string | undefined): Promise<string | undefined> {
  for (const word of words) if (packageOf[word] && (await which(word, path)) === undefined) return word
  return undefined
}

/** Whether what was said at a failure is of those who confine: then the program itself did not even start. */
export const isUnconfined = (stderr: string): boolean => /^(nice|setpriv|unshare): /m.test(stderr)

/** @param why what cannot be done: VERB "THING" */
export const unconfined = (tool: string, why: string, stderr: string): Problem =>
  new Problem(
    'refused',
    'NO_PERMISSION',
    `Cannot ${why}: ${tool} would have to run unconfined: ${stderr.trim()}`,
    'allow what it names (systemd: RestrictNamespaces=no; a container: --cap-add), or run it as another user than root',
  )
