import * as z from 'zod/mini'
import { sampleRsyncdConf } from '../../lib/host/rsyncd.ts'
import { defineQuery } from '../../lib/job/query.ts'

export const rsyncdConf = defineQuery({
  name: 'rsyncd-conf',
  summary: 'Print an rsyncd.conf by which this host receives disks from others',
  job: z.strictObject({}),
  run: async (_, settings) => {
    const text = sampleRsyncdConf(settings)
    return { data: { text }, text }
  },
})
