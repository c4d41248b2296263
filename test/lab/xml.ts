import { DOMParser, type Element, type Node } from '@xmldom/xmldom'

const quoted = (text: string): string => text.replace(/[&<>"]/g, (character) => `&#${character.codePointAt(0)};`)

/**
 * XML in one form for all ways to write the same (as canonical XML has it): sorted attributes in double quotes, no
 * empty-element tags, CDATA as text; and without the white space between elements, one line each.
 */
export function canonical(xml: string): string {
  const say = (node: Node, indent: string): string => {
    if (node.nodeType === 3 || node.nodeType === 4)
      return node.nodeValue?.trim() ? `${indent}${quoted(node.nodeValue)}\n` : ''
    if (node.nodeType === 8) return `${indent}<!--${node.nodeValue}-->\n`
    const inner = Array.from(node.childNodes, (child) => say(child, node.nodeType === 1 ? `${indent}  ` : indent)).join(
      '',
    )
    if (node.nodeType !== 1) return inner
    const attributes = Array.from(
      (node as Element).attributes,
      ({ name, value }) => ` ${name}="${quoted(value)}"`,
    ).sort()
    return `${indent}<${node.nodeName}${attributes.join('')}>\n${inner}${indent}</${node.nodeName}>\n`
  }
  return say(new DOMParser().parseFromString(xml, 'text/xml'), '')
}
