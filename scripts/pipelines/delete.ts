import * as z from 'zod/mini'
import { instanceAt } from '../../lib/host/instances.ts'
import { requireNoMove } from '../../lib/host/stage.ts'
import { instanceLock, instanceOf } from '../../lib/job/layout.ts'
import { described, InstanceName } from '../../lib/job/spec.ts'
import { call, definePipeline } from '../../lib/job/step.ts'
import { removeInstance } from '../steps/remove-instance.ts'
import { stopDomain } from '../steps/stop-domain.ts'
import { undefineDomain } from '../steps/undefine-domain.ts'

export const remove = definePipeline({
  name: 'delete',
  summary: 'Delete an instance: its domain and its disks, never a base',
  positional: ['name'],
  examples: [['cowhand delete web1 --yes', 'without a question']],
  job: z.strictObject({ name: described(InstanceName, 'name of the instance') }),
  destroys: ({ name }) => `instance "${name}" with all its disks`,
  locks: ({ name }) => [instanceLock(name)],
  look: async ({ name }, { instances }) => {
    requireNoMove('delete', instances, name)
    return instanceAt(instanceOf(instances, name))
  },
  calls({ name }, record, { instances, libvirt_uri: uri }) {
    const domain = uri !== undefined && record ? { uri, name, uuid: record.uuid } : undefined
    return [
      ...(domain ? [call(stopDomain, domain), call(undefineDomain, domain)] : []),
      call(removeInstance, { directory: instanceOf(instances, name) }),
    ]
  },
})
