// Names come from stores, servers and guests: on a terminal, a control character in one could move the cursor, colour
// or hide what follows, or answer in the operator's place; one that turns the direction of writing makes a name look
// like another (CVE-2021-42574).

/** Control (C0, DEL, C1), format (bidi, zero width), lone surrogates, line and paragraph separators. */
const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu

const escaped = (character: string): string => {
  const code = character.codePointAt(0) ?? 0
  return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
}

/** Text in one line, whoever wrote it: all of it is seen, and nothing of it is obeyed. */
export const oneLine = (text: string): string => text.replace(unseen, escaped)

/** The same for text of several lines: whose they are has to be known. */
export const printable = (text: string): string =>
  text.replace(unseen, (character) => (character === '\n' || character === '\t' ? character : escaped(character)))

/** A JSON document that is safe to look at: JSON's own escapes, so that it means the same. */
export const asJson = (document: unknown, indent?: number): string =>
  JSON.stringify(document, null, indent).replace(unseen, (character) =>
    character === '\n' ? character : [...Array(character.length).keys()].map((at) => unit(character, at)).join(''),
  )

const unit = (character: string, at: number): string => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`
