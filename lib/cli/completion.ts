/** What the command line knows, as far as completion needs it. Option names are without their dashes. */
export interface Model {
  commands: {
    /** One word or more: `create`, `image add`. */
    name: string
    options: { name: string; type: 'boolean' | 'value'; choices?: string[]; isPath?: boolean }[]
    /** Arguments given by place, where something is known of them. */
    positional?: { choices?: string[]; isPath?: boolean }[]
  }[]
}
type Value = { choices?: string[]; isPath?: boolean }

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

/** Printed in place of words: the shell is to complete file names. */
export const files = ':files'

const startingWith = (all: readonly string[], start: string): string[] => [
  ...new Set(all.filter((one) => one.startsWith(start))),
]

const values = (value: Value | undefined, start: string): string[] =>
  value?.isPath ? [files] : startingWith(value?.choices ?? [], start)

/**
 * Words that the last one may become. Pure.
 * @param words after the program's name, up to the cursor; the last is the one to complete, and may be empty.
 *   bash gives `--a=b` as three words, and wants only the last back.
 */
export function candidates(words: string[], model: Model): string[] {
  const before = words.slice(0, -1)
  const current = words.at(-1) ?? ''
  // bash, the cursor right behind "=": nothing of the value is there yet
  if (current === '=') return candidates([...words, ''], model)

  const options = model.commands.flatMap((command) => command.options)
  const places: string[] = []
  let awaiting: string | undefined // option whose value comes next
  for (const word of before) {
    if (word === '--') return [files]
    if (word === '=') continue
    if (awaiting !== undefined) awaiting = undefined
    else if (!word.startsWith('-')) places.push(word)
    else if (options.some((option) => `--${option.name}` === word && option.type === 'value')) awaiting = word.slice(2)
  }

  // The longest name that the places begin with: "image add" rather than "image".
  const command = model.commands
    .filter((one) => one.name.split(' ').every((part, i) => places[i] === part))
    .sort((a, b) => b.name.length - a.name.length)[0]
  const optionOf = (name: string) =>
    command?.options.find((option) => option.name === name) ?? options.find((option) => option.name === name)

  if (awaiting !== undefined) return values(optionOf(awaiting), current)
  const [, name, start] = /^--([^=]+)=(.*)$/s.exec(current) ?? []
  if (name !== undefined && start !== undefined)
    return values(optionOf(name), start).map((value) => (value === files ? files : `--${name}=${value}`))
  if (current.startsWith('-'))
    return startingWith(
      (command ? command.options : common(model)).map((option) => `--${option.name}`),
      current,
    )

  // The next word of every command that goes on from here: "add", "list" after "image".
  const next = model.commands
    .map((one) => one.name.split(' '))
    .filter((parts) => parts.length > places.length && places.every((place, i) => parts[i] === place))
    .map((parts) => parts[places.length] ?? '')
  if (command === undefined) return startingWith(next, current)
  const place = command.positional?.[places.length - command.name.split(' ').length]
  return [...startingWith(next, current), ...values(place, current)]
}

/** Options that every command has: what may stand before the command. */
const common = ({ commands }: Model): Model['commands'][number]['options'] =>
  (commands[0]?.options ?? []).filter((option) =>
    commands.every((command) => command.options.some((other) => other.name === option.name)),
  )

// Each asks `cowhand __complete -- WORDS`, which prints candidates, one a line: the scripts never grow old.
const scripts: Record<Shell, string> = {
  bash: `# bash completion for cowhand; try it: source <(cowhand completion bash)
_cowhand() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    if [[ $line == ${files} ]]; then
      compopt -o default 2>/dev/null
    else
      COMPREPLY+=("$line")
    fi
  done < <(cowhand __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
}
complete -F _cowhand cowhand
`,
  zsh: `#compdef cowhand
# zsh completion for cowhand; try it: source <(cowhand completion zsh)
_cowhand() {
  local -a lines
  lines=("\${(@f)$(cowhand __complete -- "\${(@Q)words[2,CURRENT]}" 2>/dev/null </dev/null)}")
  lines=("\${(@)lines:#}")
  if [[ $lines[1] == ${files} ]]; then
    compset -P '--*='
    _files
  else
    compadd -a lines
  fi
}
if [[ $funcstack[1] == _cowhand ]]; then
  _cowhand "$@"
else
  compdef _cowhand cowhand
fi
`,
  fish: `# fish completion for cowhand; try it: cowhand completion fish | source
function __cowhand_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    for line in (cowhand __complete -- $before[2..-1] "$current" 2>/dev/null </dev/null)
        if test "$line" = ${files}
            __fish_complete_path "$current"
        else
            printf '%s\\n' $line
        end
    end
end
complete -c cowhand -f -a '(__cowhand_complete)'
`,
}

/** The script that teaches a shell to complete cowhand's command line. */
export const completionScript = (shell: Shell): string => scripts[shell]
