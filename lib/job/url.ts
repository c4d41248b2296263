/** A URL as it may be shown and logged: without user, password, and query, which may hold a signature. */
export function showUrl(text: string): string {
  if (text.startsWith('glance:')) return text
  if (!URL.canParse(text)) return 'the given URL'
  const { protocol, host, pathname, search } = new URL(text)
  return `${protocol}//${host}${pathname}${search ? '?…' : ''}`
}

/** A file by its path, and all else as `showUrl`. */
export const showSource = (from: string): string => (from.startsWith('/') ? from : showUrl(from))
