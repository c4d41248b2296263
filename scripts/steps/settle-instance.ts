import * as z from 'zod/mini'
import { ownFileAt, textAt } from '../../lib/host/files.ts'
import { arrivesAt, hasArrived, requireStage, stageAt } from '../../lib/host/stage.ts'
import type { Action } from '../../lib/job/action.ts'
import { InstanceRecord } from '../../lib/job/instance.ts'
import { diskNames } from '../../lib/job/layout.ts'
import { refuse } from '../../lib/job/problem.ts'
import { AbsolutePath, described, optional, Uuid } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const Pin = z.templateLiteral(
  [z.enum(diskNames), '=', z.enum(['qcow2', 'raw'])],
  'is not FILE=FORMAT, such as disk=qcow2',
)

export const settleInstance = defineStep({
  name: 'settle-instance',
  summary: 'Write down what an instance that arrives is: instance.json, disk.info, libvirt.xml',
  input: () =>
    z.strictObject({
      stage: described(AbsolutePath, 'where it is put together, NAME.incoming'),
      directory: described(AbsolutePath, 'what that is to become, NAME'),
      record: described(InstanceRecord, 'the wish for it from now on'),
      move: described(Uuid, 'id of the resize or migration'),
      host: optional(z.string(), 'where it comes from; left out: from this very host'),
      disks: described(z.array(Pin), 'file and format of each disk, such as disk=qcow2'),
      xml: optional(z.string(), 'its definition for libvirt, with the paths that it is to have'),
    }),
  inspect: async ({ stage, directory, move }, { instances }, ahead) => {
    requireStage(stage, instances)
    return {
      isPlace: directory === arrivesAt(stage),
      hasArrived: hasArrived(stage, move),
      mark: stageAt(stage)?.mark?.move,
      isComing: ahead.has(stage),
      texts: {
        'instance.json': textAt(`${stage}/instance.json`),
        'disk.info': textAt(`${stage}/disk.info`),
        'libvirt.xml': textAt(`${stage}/libvirt.xml`),
      },
      hasConsole: ahead.has(`${stage}/console.log`) || ownFileAt(`${stage}/console.log`) !== undefined,
    }
  },
  plan({ stage, directory, record, move, host, disks, xml }, found): Action[] {
    if (found.hasArrived) return []
    if (!found.isPlace || (found.mark !== move && !found.isComing))
      refuse(
        'MISSING_PREREQUISITE',
        `Cannot settle "${record.name}": it does not arrive in "${stage}"`,
        'stage it first: cowhand step stage-instance',
      )
    const { task: _, ...wish } = record
    const arrived: InstanceRecord = { ...wish, arrived: { move, ...(host === undefined ? {} : { host }) } }
    const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`
    const pins = disks.map((pair) => [
      `${directory}/${pair.slice(0, pair.indexOf('='))}`,
      pair.slice(pair.indexOf('=') + 1),
    ])
    const wanted = [
      ['disk.info', json(Object.fromEntries(pins)), 0o644],
      ['libvirt.xml', xml, 0o600],
      // Last: from then on it is an instance.
      ['instance.json', json(arrived), 0o644],
    ] as const
    return [
      ...(found.hasConsole ? [] : [{ do: 'write', path: `${stage}/console.log`, text: '', mode: 0o660 } as const]),
      ...wanted.flatMap(([name, text, mode]): Action[] =>
        text === undefined || text === found.texts[name] ? [] : [{ do: 'write', path: `${stage}/${name}`, text, mode }],
      ),
    ]
  },
})
