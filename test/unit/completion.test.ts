import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { candidates, completionScript, type Model, shells } from '../../lib/cli/completion.ts'

const json = { name: 'json', type: 'boolean' } as const
const config = { name: 'config', type: 'value', isPath: true } as const
const model: Model = {
  commands: [
    {
      name: 'create',
      options: [
        json,
        config,
        { name: 'image', type: 'value' },
        { name: 'os-type', type: 'value', choices: ['linux', 'windows'] },
        { name: 'user-data', type: 'value', isPath: true },
      ],
    },
    {
      name: 'image add',
      options: [json, config, { name: 'format', type: 'value', choices: ['qcow2', 'raw', 'vmdk'] }],
      positional: [{ isPath: true }],
    },
    { name: 'image list', options: [json, config] },
    {
      name: 'step create-overlay',
      options: [json, config, { name: 'disk', type: 'value', isPath: true }],
    },
    { name: 'step', options: [json, config] },
    {
      name: 'completion',
      options: [json, config],
      positional: [{ choices: ['bash', 'zsh', 'fish'] }],
    },
  ],
}

describe('candidates', () => {
  const rows: [string, string[], string[]][] = [
    ['commands, each first word once', [''], ['create', 'image', 'step', 'completion']],
    ['commands that begin so', ['c'], ['create', 'completion']],
    ['the second word of a command', ['image', ''], ['add', 'list']],
    ['the second word, begun', ['image', 'a'], ['add']],
    ['a command that is also the beginning of others', ['step', 'cr'], ['create-overlay']],
    ['options of a command', ['create', '--'], ['--json', '--config', '--image', '--os-type', '--user-data']],
    ['options of a command of two words', ['image', 'add', '--f'], ['--format']],
    ['options before any command: those of all', ['-'], ['--json', '--config']],
    ['values of an option', ['create', 'web1', '--os-type', ''], ['linux', 'windows']],
    ['values begun', ['create', '--os-type', 'w'], ['windows']],
    ['values behind =, in one word', ['create', '--os-type=l'], ['--os-type=linux']],
    ['values behind =, as bash gives it', ['create', '--os-type', '=', 'l'], ['linux']],
    ['values right behind =, as bash gives it', ['create', '--os-type', '='], ['linux', 'windows']],
    ['a path', ['create', '--user-data', 'x'], [':files']],
    ['a path behind =', ['create', '--user-data=x'], [':files']],
    ['a path by place', ['image', 'add', ''], [':files']],
    ['words by place', ['completion', 'z'], ['zsh']],
    ['a value that nobody knows', ['create', '--image', 'de'], []],
    ['a name that nobody knows', ['create', ''], []],
    ['the command behind an option and its value', ['--config', 'create', 'im'], ['image']],
    ['the command behind a flag', ['--json', 'im'], ['image']],
    ['an option that does not take what follows', ['create', '--json', '--os'], ['--os-type']],
    ['behind --', ['create', '--', ''], [':files']],
    ['an unknown command', ['nonsense', ''], []],
    ['no word at all', [], ['create', 'image', 'step', 'completion']],
  ]
  for (const [name, words, then] of rows) it(name, () => assert.deepEqual(candidates(words, model), then))
})

const directory = mkdtempSync(join(tmpdir(), 'cowhand-completion-'))
after(() => rmSync(directory, { recursive: true }))
// Writes down what it is asked, and answers what the test wants.
mkdirSync(join(directory, 'bin'))
const fake = join(directory, 'bin', 'cowhand')
writeFileSync(fake, `#!/bin/sh\nprintf '%s|' "$@" >'${directory}/asked'\ncat '${directory}/answer'\n`)
chmodSync(fake, 0o755)

const env = { PATH: `${directory}/bin:/usr/bin:/bin`, HOME: directory, LC_ALL: 'C.UTF-8' }
const script = (shell: (typeof shells)[number]): string => {
  const path = join(directory, `script.${shell}`)
  writeFileSync(path, completionScript(shell))
  return path
}

/** What the shell offers when cowhand gives this answer. */
function complete(shell: (typeof shells)[number], code: string, answer: string): { offered: string[]; asked: string } {
  writeFileSync(join(directory, 'answer'), answer)
  const plain = { bash: ['--norc', '--noprofile'], zsh: ['-f'], fish: ['--no-config'] }[shell]
  const out = execFileSync(shell, [...plain, '-c', code, script(shell)], { env, cwd: directory, encoding: 'utf8' })
  return { offered: out.split('\n').filter(Boolean), asked: readFileSync(join(directory, 'asked'), 'utf8') }
}

describe('the scripts', () => {
  for (const shell of shells)
    it(`${shell} accepts its syntax`, () => void execFileSync(shell, ['-n', script(shell)], { env, stdio: 'pipe' }))

  it('bash offers what cowhand answers', () => {
    const code = `source ${script('bash')}; COMP_WORDS=(cowhand image 'a b' ''); COMP_CWORD=3; _cowhand cowhand '' image
      printf '%s\\n' "\${COMPREPLY[@]}"; complete -p cowhand`
    const { offered, asked } = complete('bash', code, 'add\nlist it\n')
    assert.deepEqual(offered, ['add', 'list it', 'complete -F _cowhand cowhand'])
    assert.equal(asked, '__complete|--|image|a b||')
  })
  it('bash leaves out the words behind the cursor', () => {
    const code = `source ${script('bash')}; COMP_WORDS=(cowhand cr web1); COMP_CWORD=1; _cowhand; echo "\${COMPREPLY[*]}"`
    assert.equal(complete('bash', code, 'create\n').asked, '__complete|--|cr|')
  })
  it('bash offers no words where files are wanted', () => {
    const code = `source ${script('bash')}; COMP_WORDS=(cowhand run ''); COMP_CWORD=2; _cowhand; echo "\${#COMPREPLY[@]}"`
    assert.deepEqual(complete('bash', code, ':files\n').offered, ['0'])
  })

  const zsh = (
    words: string,
  ) => `compdef() { :; }; compadd() { print -l -- \${(P)2}; }; compset() { :; }; _files() { print FILES; }
    source ${script('zsh')}; words=(${words}); CURRENT=$#words; _cowhand`
  it('zsh offers what cowhand answers', () => {
    const { offered, asked } = complete('zsh', zsh(`cowhand image ''`), 'add\nlist\n')
    assert.deepEqual(offered, ['add', 'list'])
    assert.equal(asked, '__complete|--|image||')
  })
  it('zsh offers nothing, or files', () => {
    assert.deepEqual(complete('zsh', zsh('cowhand create x'), '').offered, [])
    assert.deepEqual(complete('zsh', zsh('cowhand run x'), ':files\n').offered, ['FILES'])
  })

  it('fish offers what cowhand answers', () => {
    const { offered, asked } = complete(
      'fish',
      `source ${script('fish')}; complete -C 'cowhand image '`,
      'add\nlist\n--json\n',
    )
    assert.deepEqual(offered.sort(), ['--json', 'add', 'list'].sort())
    assert.equal(asked, '__complete|--|image||')
  })
  it('fish offers files where they are wanted', () => {
    const { offered } = complete('fish', `source ${script('fish')}; complete -C 'cowhand run scr'`, ':files\n')
    assert.ok(
      offered.some((one) => one.startsWith('script.')),
      offered.join(),
    )
  })
})
