import { fail } from '../job/problem.ts'
import { showUrl } from '../job/url.ts'
import { beginning } from './fetch.ts'
import { type Answer, type HttpOptions, patiently, unexpected, withAnswer } from './http.ts'

/** No list of images and no catalog is larger, bytes. */
const limit = 8 * 2 ** 20

/**
 * The JSON of an answer.
 * @param shown what errors call it
 * @throws {Problem} FETCH_FAILED where it is none, or absurdly long
 */
export async function jsonOf(answer: Answer, shown: string, remedy: string): Promise<unknown> {
  const { bytes, whole } = await beginning(answer, limit)
  if (!whole) fail('FETCH_FAILED', `Cannot fetch "${shown}": it has more than ${limit} bytes`, remedy)
  try {
    return JSON.parse(bytes.toString())
  } catch {
    return fail('FETCH_FAILED', `Cannot fetch "${shown}": the server answered with something that is no JSON`, remedy)
  }
}

/**
 * Ask an API of a cloud; undefined where it has no such thing. Redirects to other servers are not followed.
 * @throws {Problem} FETCH_FAILED, AUTH_FAILED; the signal's reason when aborted
 */
export function getJson(url: URL, options: HttpOptions & { remedy: string }): Promise<unknown> {
  const shown = showUrl(url.href)
  return patiently(shown, options, () =>
    withAnswer(url, { accept: 'application/json' }, { ...options, stay: true }, async (answer) => {
      if (answer.status === 404) return undefined
      if (answer.status === 401)
        return fail(
          'AUTH_FAILED',
          `Cannot fetch "${shown}": the server does not accept ${options.authorize ? 'our token' : 'requests without credentials'} (401)`,
          options.authorize ? 'see whether it is of the same cloud: openstack catalog show image' : options.remedy,
        )
      if (answer.status !== 200) return unexpected(answer, shown, options)
      return jsonOf(answer, shown, options.remedy)
    }),
  )
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is replaced
const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g

/** Text that somebody else wrote, as it may be shown: nothing in it steers a terminal or turns the direction of writing. */
export const printable = (text: string): string => text.replace(unprintable, '\ufffd')
