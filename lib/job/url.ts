/** A URL as it may be shown and logged: without user, password, and query, which may hold a signature. */
export function showUrl(text: string): string {
  if (!URL.canParse(text)) return 'the given URL'
  const { protocol, host, pathname, search } = new URL(text)
  return `${protocol}//${host}${pathname}${search ? '?…' : ''}`
}
