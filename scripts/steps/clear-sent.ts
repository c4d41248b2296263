import * as z from 'zod/mini'
import { namesIn, ownNamesIn } from '../../lib/host/files.ts'
import type { Action } from '../../lib/job/action.ts'
import { AbsolutePath, described } from '../../lib/job/spec.ts'
import { defineStep } from '../../lib/job/step.ts'

const collectedIn = (directory: string): string[] => [
  ...(namesIn(directory) ?? []).filter((name) => /^(definition\.xml|nvram\.fd)(\.part)?$/.test(name)),
  ...(ownNamesIn(`${directory}/tpm`) ?? []).map((name) => `tpm/${name}`),
]

export const clearSent = defineStep({
  name: 'clear-sent',
  summary: 'Remove what was only made to be sent',
  input: () =>
    z.strictObject({
      directory: described(AbsolutePath, 'of the instance, or NAME_resize'),
      state: described(z.boolean(), 'also what was collected of what libvirt keeps: it is back in its place'),
    }),
  inspect: async ({ directory, state }) => ({
    state: state ? collectedIn(directory) : [],
    tpm: state && ownNamesIn(`${directory}/tpm`) !== undefined,
    send: ownNamesIn(`${directory}/send`),
    sent: (namesIn(directory) ?? []).filter((name) => /^sent(\.[\w.-]+)?\.json(\.part)?$/.test(name)),
  }),
  plan: ({ directory }, { send, sent, state, tpm }): Action[] => [
    ...state.map((name): Action => ({ do: 'remove', path: `${directory}/${name}` })),
    ...(tpm ? [{ do: 'rmdir', path: `${directory}/tpm` } as const] : []),
    ...sent.map((name): Action => ({ do: 'remove', path: `${directory}/${name}` })),
    ...(send ?? []).map((name): Action => ({ do: 'remove', path: `${directory}/send/${name}` })),
    ...(send ? [{ do: 'rmdir', path: `${directory}/send` } as const] : []),
  ],
})
