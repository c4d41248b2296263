import * as z from 'zod/mini'
import { jsonAt } from '../../lib/host/files.ts'
import { instanceAt } from '../../lib/host/instances.ts'
import type { Action } from '../../lib/job/action.ts'
import type { InstanceRecord } from '../../lib/job/instance.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, Bytes, described, optional } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

export const recordSizes = defineStep({
  name: 'record-sizes',
  summary: 'Write down in instance.json which sizes its disks have from now on',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, "the instance's directory"),
      root: optional(Bytes, 'size of the root disk [as it was]'),
      ephemeral: optional(Bytes, 'size of the ephemeral disk [as it was]'),
    }),
  inspect: async ({ directory }) => ({
    record: instanceAt(directory),
    written: jsonAt(`${directory}/instance.json`) as InstanceRecord,
  }),
  plan({ directory, ...sizes }, { record, written }): Action[] {
    const path = `${directory}/instance.json`
    if (!record)
      return refuse(
        'MISSING_PREREQUISITE',
        `Cannot write "${path}": there is no such instance`,
        'see what there is: cowhand list',
      )
    const { root = record.root, ephemeral = record.ephemeral } = sizes
    if (record.root === root && record.ephemeral === ephemeral) return []
    const text = `${JSON.stringify({ ...written, root, ephemeral }, null, 2)}\n`
    return [{ do: 'write', path, text, mode: 0o644 }]
  },
})
