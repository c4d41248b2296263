import * as z from 'zod/mini'
import { doctor, isReady, renderDoctor } from '../../lib/host/doctor.ts'
import { defineQuery } from '../../lib/job/query.ts'

export const doctorQuery = defineQuery({
  name: 'doctor',
  summary: 'Say what this host lacks, for which command, and what mends it',
  job: z.strictObject({}),
  run: async (_, settings) => {
    const checks = await doctor(settings)
    return { data: { checks }, text: renderDoctor(checks), ok: isReady(checks) }
  },
})
