import { dirname } from 'node:path'
import { $, quote } from 'zx/core'

// Where SHLVL is missing (cron, ssh), bash takes a socket on its standard input for rshd's and runs ~/.bashrc first.
process.env['SHLVL'] ??= '1'
delete process.env['BASH_ENV']
$.shell = '/bin/bash'
$.prefix = 'set -euo pipefail;'
$.quote = quote
$.quiet = true

/** The root of the clone: where every program of build/ and test/ runs. */
export const root = dirname(import.meta.dirname)

/** zx's `$`, at the root of the clone, for the programs of build/ and test/ (the tool itself has lib/host/shell.ts). */
export const sh = $({ cwd: root })

/** The same, with our own input and output; a program that fails is answered with its exit code, not thrown. */
export const show = $({ cwd: root, nothrow: true, stdio: 'inherit' })
