/**
 * Lines of a stream, as they come. What is behind the last one was cut off, and is none.
 * @param ceiling bytes of a line, at most
 * @throws {RangeError} for a longer one, before it is kept
 */
export async function* linesOf(stream: AsyncIterable<Uint8Array>, ceiling: number): AsyncGenerator<string> {
  let parts: Uint8Array[] = []
  let length = 0
  for await (const chunk of stream) {
    let rest = chunk
    for (;;) {
      const end = rest.indexOf(0x0a)
      const part = end < 0 ? rest : rest.subarray(0, end)
      length += part.length
      if (length > ceiling) throw new RangeError(`a line of more than ${ceiling} bytes`)
      parts.push(part)
      if (end < 0) break
      yield Buffer.concat(parts).toString()
      parts = []
      length = 0
      rest = rest.subarray(end + 1)
    }
  }
}
