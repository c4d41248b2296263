import * as z from 'zod/mini'
import { baseNames, readRecord, setAsideIn } from '../../lib/host/bases.ts'
import { findImage } from '../../lib/image/store.ts'
import { baseName, basesOf, kindOfBase, quarantineOf } from '../../lib/job/layout.ts'
import { Problem } from '../../lib/job/problem.ts'
import type { Settings } from '../../lib/job/settings.ts'
import { NonEmpty, optional } from '../../lib/job/spec.ts'
import { call, definePipeline, eachOf, failing } from '../../lib/job/step.ts'
import { verifyBase } from '../steps/verify-base.ts'

export const cacheVerify = definePipeline({
  name: 'cache verify',
  summary: 'Read bases again, compare them with what they were made of, and quarantine what differs',
  positional: ['base'],
  examples: [
    ['cowhand cache verify', 'the whole cache'],
    ['cowhand cache verify debian', 'the bases of one image'],
  ],
  independent: true,
  job: z.strictObject({
    base: optional(z.array(NonEmpty), 'names of bases, or names, ids or URLs of their images [all]'),
  }),
  look: async ({ base: words = [] }, settings) => {
    const directory = basesOf(settings.instances)
    const { whole: aside, half } = setAsideIn(directory)
    const names = [...baseNames(directory), ...half]
    // What else somebody keeps there is verified when he asks for it by name.
    const ours = names.filter((name) => kindOfBase(name) !== 'unknown' || readRecord(`${directory}/${name}`))
    if (words.length === 0) return { names: ours, problems: [], aside }
    const { found, problems } = await eachOf(words, (word) => basesCalled(word, names, settings))
    return { names: [...new Set(found)], problems, aside: [] }
  },
  // It was an alarm when it was found; who missed that hears of it here.
  warnings: (_, { aside }, { instances }) =>
    aside.map((name) => {
      const there = quarantineOf(`${basesOf(instances)}/${name}`)
      return `${there} was set aside because it differed: look at it, and remove it: rm ${there}`
    }),
  calls: (_, { names, problems }, { instances }) => [
    ...names.map((name) => call(verifyBase, { base: `${basesOf(instances)}/${name}` })),
    ...problems.map(([word, problem]) => failing(verifyBase.name, word, problem)),
  ],
})

/** The bases that the operator means: by name or path, or as their records or the store call their image. */
async function basesCalled(word: string, names: string[], settings: Settings): Promise<string[]> {
  const directory = basesOf(settings.instances)
  const named = names.filter((name) => word === name || word === `${directory}/${name}`)
  if (named.length > 0) return named
  const recorded = names.filter((name) => {
    const record = readRecord(`${directory}/${name}`)
    return typeof record === 'object' && [record.id, record.name].includes(word)
  })
  if (recorded.length > 0) return recorded
  const sha1 = await baseName((await findImage(word, {}, settings)).id)
  const made = names.filter((name) => name === sha1 || name.startsWith(`${sha1}_`))
  if (made.length > 0) return made
  throw new Problem(
    'refused',
    'MISSING_PREREQUISITE',
    `Cannot verify "${word}": there is no base of it in the cache`,
    `make it: cowhand cache prefetch ${word}`,
  )
}
