import { domainToMove } from '../../lib/host/libvirt-move.ts'
import { Problem } from '../../lib/job/problem.ts'

// What a move would begin with: domain-looker URI NAME [DIRECTORY] prints it as JSON, or what forbids the move.

const [uri = '', name = '', directory] = process.argv.slice(2)
try {
  process.stdout.write(JSON.stringify((await domainToMove(uri, name, directory)) ?? null))
} catch (problem) {
  if (!(problem instanceof Problem)) throw problem
  const { code, message, remedy } = problem
  process.stdout.write(JSON.stringify({ code, message, remedy }))
}
