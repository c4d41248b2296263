import { powers } from '../../lib/host/sandbox.ts'
import { program } from '../../lib/host/shell.ts'

// A process with other powers than the test's: says which they are, and runs a program in the sandbox.
const [words = '[]', less = '{}'] = process.argv.slice(2)
const { user, namespaces } = { ...powers(), ...JSON.parse(less) }
const power = { user: user ?? undefined, namespaces }
process.stdout.write(`${power.user === undefined ? 'our user' : 'a user of its own'}, `)
process.stdout.write(`${power.namespaces ? 'namespaces' : 'no namespaces'}\n`)
const sandbox = { ...power, limits: { cpu: 10, output: 0 } }
const { stdout } = await program(JSON.parse(words), { sandbox })
process.stdout.write(stdout)
