// Rebases an overlay, and says how far it is: to be killed meanwhile.
import { shiftOverlay } from '../../lib/host/chain.ts'

const [path = '', from = '', to = ''] = process.argv.slice(2)
await shiftOverlay({ path, from, to }, { onProgress: (done, total) => process.stdout.write(`${done / total}\n`) })
