import { openSync, readFileSync, statfsSync, statSync, unlinkSync, writeSync, closeSync } from 'node:fs'
import { networkInterfaces, tmpdir } from 'node:os'
import { dirname } from 'node:path'
import { type Code, joint, Problem } from '../job/problem.ts'
import type { Settings } from '../job/settings.ts'
import { formatSize } from '../job/spec.ts'
import { which } from './ask.ts'
import { type Need, type Needs, needsIn } from './domain-needs.ts'
import { interrupt } from './interrupt.ts'
import { kvmDevice } from './kvm.ts'
import { answer, virsh } from './libvirt.ts'

// Whether a guest could start on this host: asked while it still runs, here or elsewhere (BEHAVIOUR.md S37).
