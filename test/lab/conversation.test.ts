import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { compile } from '../../build/bun.ts'
import type { Problem } from '../../lib/job/problem.ts'
import { type Pair, type PairHost, startPair } from './pair.ts'

// Two hosts talk by ssh, and all that can come between them does: talk-child.ts is both ends.

/** A line that the talker printed. */
interface Line {
  what?: string
  seconds: number
  problem?: Pick<Problem, 'code' | 'kind' | 'message' | 'remedy'>
  isLost?: boolean
  event?: Record<string, unknown>
  task?: string
  length?: number
  ssh?: string
}

const lab = mkdtempSync(join(tmpdir(), 'cowhand-talk-'))
const talker = join(lab, 'talker')
let pair: Pair
let alpha: PairHost
let beta: PairHost

const linesOf = (stdout: string): Line[] =>
  stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line)

async function talk(words: string[], env: Record<string, string> = {}): Promise<Line[]> {
  const { stdout, stderr } = await alpha.run([talker, ...words], env)
  assert.equal(stderr, '')
  return linesOf(stdout)
}
const lineOf = (lines: Line[], what: string): Line => {
  const found = lines.find((line) => line.what === what)
  assert.ok(found, `there is no line of ${what}: ${JSON.stringify(lines)}`)
  return found
}
/** Servers that run on beta. */
const serving = async () => Number((await beta.run(['pgrep', '--count', '--full', '__serve$'])).stdout)
const untilServing = async (count: number, seconds: number): Promise<number> => {
  const start = performance.now()
  while ((await serving()) !== count && performance.now() - start < seconds * 1000) await sleep(100)
  assert.equal(await serving(), count)
  return (performance.now() - start) / 1000
}
/** What runs and lies on alpha because of a conversation. */
const left = async () =>
  (await alpha.run(['sh', '-c', 'ls -d /run/cowhand-ssh-* /tmp/cowhand-ssh-* 2>/dev/null; pgrep -ax ssh'])).stdout

before(async () => {
  await compile('test/lab/talk-child.ts', talker)
  pair = await startPair({ a: { cowhand: talker }, b: { cowhand: talker } })
  alpha = pair.a
  beta = pair.b
})
after(async () => {
  await pair?.stop()
  rmSync(lab, { recursive: true, force: true })
})

describe('a conversation', () => {
  test('one connection, several questions, and nothing is left of it', async (t) => {
    const lines = await talk(['beta', 'look:echo', 'prepare:echo', 'finish:large:5000000', 'undo:echo'])
    assert.deepEqual(
      lines.map(({ what, task, problem }) => [what, task?.slice(0, 9).trim(), problem]),
      [
        ['connect', undefined, undefined],
        ['look:echo', 'look', undefined],
        ['prepare:echo', 'prepare', undefined],
        ['finish:large:5000000', 'xxxxxxxxx', undefined],
        ['undo:echo', 'undo', undefined],
        ['close', undefined, undefined],
      ],
    )
    assert.equal(lineOf(lines, 'finish:large:5000000').length, 5_000_000)
    const [connect, , again, , last, close] = lines.map(({ seconds }) => seconds)
    t.diagnostic(`connect and hello ${connect} s, one more question ${again} s and ${last} s, close ${close} s`)
    assert.equal(await left(), '')
    await untilServing(0, 2)
  })

  test('events arrive before the answer, with the name of the host, and not each of thousands', async () => {
    const events = (await talk(['beta', 'prepare:noisy:5000'])).flatMap(({ event }) => (event ? [event] : []))
    const progress = events.filter(({ type }) => type === 'progress')
    assert.ok(progress.length >= 2 && progress.length < 50, `${progress.length}`)
    assert.deepEqual(progress.at(-1), { type: 'progress', what: 'beta: fetch x', done: 5000, total: 5000 })
    assert.deepEqual(events.slice(-3), [
      { type: 'notice', message: 'beta: a\u001b[31mb' },
      { type: 'step', step: 'beta: grow-disk', status: 'ok' },
      { type: 'action', step: 'beta: grow-disk', action: 'grow' },
    ])
  })

  test('a problem there is one here, with its code, and the conversation goes on', async () => {
    const lines = await talk(['beta', 'prepare:refuse', 'prepare:fault', 'look:echo'])
    assert.deepEqual(lineOf(lines, 'prepare:refuse').problem, {
      code: 'NO_SPACE',
      kind: 'refused',
      message: 'Cannot prepare "/i/a: b": on beta: there is no space',
      remedy: 'on beta: free some: df /i',
    })
    assert.equal(lineOf(lines, 'prepare:fault').problem?.message, 'Cannot go on: on beta: not a function')
    assert.equal(lineOf(lines, 'look:echo').problem, undefined)
  })

  test('rsync goes through the same connection', async () => {
    const asked = alpha.start([talker, 'beta', '@ssh', '@wait:8000'])
    try {
      await untilServing(1, 10)
      const socket = (await alpha.run(['sh', '-c', 'echo /run/cowhand-ssh-*/ctl'])).stdout.trim()
      const words = (await talk(['beta', '@ssh'])).find(({ ssh }) => ssh)?.ssh
      assert.match(words ?? '', /^ssh -T -o .*-o ControlPath=\/run\/cowhand-ssh-\d+-\w+\/ctl /)
      const ssh = words?.replace(/\/run\/cowhand-ssh-\S+/, socket) ?? ''
      const before = pair.link.sentBy('alpha')
      await alpha.run(['sh', '-c', 'head -c 100000 /dev/urandom >/root/x'])
      // Without the connection it would not get in: nobody is let in there any more.
      const keys = beta.file('/root/.ssh/authorized_keys')
      const was = readFileSync(keys)
      writeFileSync(keys, '')
      const { code, stderr } = await alpha.run(['rsync', '-e', ssh, '/root/x', 'beta:/root/x'])
      writeFileSync(keys, was)
      assert.equal(`${code}${stderr}`, '0')
      const sent = pair.link.sentBy('alpha') - before
      assert.ok(sent > 100_000 && sent < 200_000, `${sent}`)
    } finally {
      ;(await asked).kill('SIGTERM')
      await (await asked).ended
    }
  })

  test('it is opened again where it was closed, and on demand', async () => {
    const lines = await talk(['beta', 'look:echo', '@reconnect', 'look:echo'])
    assert.deepEqual(
      lines.flatMap(({ problem }) => problem ?? []),
      [],
    )
    await untilServing(0, 5)
    assert.equal(await left(), '')
  })

  const ways: [string, string, Record<string, string>][] = [
    ['its address', '10.99.0.2', {}],
    ['a Host of ssh_config', 'there', {}],
    ['the name of a user', 'beta', { COWHAND_SSH_USER: 'root', COWHAND_SSH_PORT: '22' }],
    ['a key', 'beta', { COWHAND_SSH_IDENTITY: '/root/.ssh/id_ed25519' }],
    ['a command of several words', 'beta', { COWHAND_REMOTE_COWHAND: 'env A=1 /usr/local/bin/cowhand' }],
  ]
  for (const [what, host, env] of ways)
    test(`by ${what}`, async () => {
      writeFileSync(alpha.file('/root/.ssh/config'), config)
      const lines = await talk([host, 'look:echo'], env)
      rmSync(alpha.file('/root/.ssh/config'))
      assert.equal(lineOf(lines, 'look:echo').problem, undefined)
    })
})

/** What a person may have in it, and what must not matter here. */
const config = `Host there
  HostName beta
Host *
  ControlMaster auto
  ControlPersist 10m
  ControlPath /root/.ssh/%C
  RequestTTY force
  RemoteCommand ls
  LocalForward 9999 localhost:22
  PermitLocalCommand yes
  LocalCommand echo local
  LogLevel QUIET
`

describe('told with what to do:', () => {
  const script = (text: string) => `#!/bin/sh\n${text}\n`
  const rows: {
    when: string
    host?: string
    env?: Record<string, string>
    /** Run before, on alpha and on beta. */
    here?: string
    there?: string
    code: string
    kind: string
    message: RegExp
    remedy: RegExp
  }[] = [
    {
      when: 'a key that is not let in',
      here: "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/other",
      env: { COWHAND_SSH_IDENTITY: '/root/.ssh/other', COWHAND_SSH_USER: 'root' },
      code: 'AUTH_FAILED',
      kind: 'refused',
      message: /^Cannot reach "beta": it does not let us in: root@beta: Permission denied \(publickey\)$/,
      remedy: /: ssh-copy-id -i \/root\/.ssh\/other root@beta$/,
    },
    {
      when: 'a key that others may read',
      here: 'cp /root/.ssh/id_ed25519 /root/.ssh/open; chmod 644 /root/.ssh/open',
      env: { COWHAND_SSH_IDENTITY: '/root/.ssh/open' },
      code: 'AUTH_FAILED',
      kind: 'refused',
      message: /^Cannot reach "beta": others may read the private key "\/root\/.ssh\/open"$/,
      remedy: /^chmod 600 \/root\/.ssh\/open$/,
    },
    {
      when: 'a host whose key is not known',
      here: 'mv /root/.ssh/known_hosts /root/.ssh/known',
      code: 'AUTH_FAILED',
      kind: 'refused',
      message: /^Cannot reach "beta": its host key is not known here$/,
      remedy: /: ssh beta true$/,
    },
    {
      when: 'a host whose key is another one',
      here: 'mv /root/.ssh/known_hosts /root/.ssh/known; echo "beta $(cat /root/.ssh/id_ed25519.pub)" >/root/.ssh/known_hosts',
      code: 'AUTH_FAILED',
      kind: 'refused',
      message: /^Cannot reach "beta": its host key is not the one in known_hosts$/,
      remedy: /ssh-keygen -R 'beta'; ssh beta true$/,
    },
    {
      when: 'a host that is not known',
      host: 'nowhere.invalid',
      code: 'HOST_UNREACHABLE',
      kind: 'failed',
      message: /^Cannot reach "nowhere.invalid": Could not resolve hostname nowhere.invalid: /,
      remedy: /^give its address/,
    },
    {
      when: 'an address that nobody has',
      host: '10.99.0.77',
      code: 'HOST_UNREACHABLE',
      kind: 'failed',
      message:
        /^Cannot reach "10.99.0.77": connect to host 10.99.0.77 port 22: (No route to host|Connection timed out)$/,
      remedy: /: ssh 10.99.0.77 true$/,
    },
    {
      when: 'a port where nobody listens',
      env: { COWHAND_SSH_PORT: '2' },
      code: 'HOST_UNREACHABLE',
      kind: 'failed',
      message: /^Cannot reach "beta": connect to host beta port 2: Connection refused$/,
      remedy: /ssh_port: ssh -p 2 beta true$/,
    },
    {
      when: 'no cowhand',
      env: { COWHAND_REMOTE_COWHAND: '/nowhere/cowhand' },
      code: 'TOOL_MISSING',
      kind: 'refused',
      message: /^Cannot run "\/nowhere\/cowhand" on beta: it is not installed there$/,
      remedy: /remote_cowhand/,
    },
    {
      when: 'another version',
      there: script(`echo '{"cowhand":"0.0.9","protocol":1,"host":"beta"}'; cat`),
      code: 'VERSION_MISMATCH',
      kind: 'refused',
      message: /^Cannot work with beta: it has cowhand 0.0.9 \(protocol 1\), and this host \S+ \(protocol 1\)$/,
      remedy: /: ssh beta \/run\/fake --version$/,
    },
    {
      when: 'a version that cannot do it yet',
      there: script(`echo 'cowhand: Cannot find the command "__serve": there is none' >&2; exit 2`),
      code: 'VERSION_MISMATCH',
      kind: 'refused',
      message: /^Cannot work with beta: its cowhand is too old, this one is /,
      remedy: /--version$/,
    },
    {
      when: 'a configuration that is wrong',
      there: script(`echo 'cowhand: Cannot use instnaces in /etc/x: no such name' >&2; exit 2`),
      code: 'TOOL_FAILED',
      kind: 'failed',
      message:
        /^Cannot start cowhand on beta: it ended \(2\): cowhand: Cannot use instnaces in \/etc\/x: no such name$/,
      remedy: /: ssh beta \/run\/fake list$/,
    },
    {
      when: 'a shell that prints a greeting',
      there: script('echo Welcome to beta; exec cowhand __serve'),
      code: 'UNSUPPORTED',
      kind: 'refused',
      message: /^Cannot talk to cowhand on beta: something else speaks first: "Welcome to beta"$/,
      remedy: /bashrc.*: ssh beta true$/,
    },
    {
      when: 'a shell that waits for something',
      there: script('exec sleep 100'),
      code: 'HOST_UNREACHABLE',
      kind: 'failed',
      message: /^Cannot reach "beta": cowhand there did not speak within 30 s$/,
      remedy: /^see what keeps it: ssh beta \/run\/fake --version$/,
    },
    {
      when: 'a shell that prints without an end',
      there: script('cat /dev/zero'),
      code: 'TOOL_FAILED',
      kind: 'failed',
      message: /^Cannot start cowhand on beta: it ended \(.*\): it wrote a line without an end$/,
      remedy: /./,
    },
  ]
  for (const { when, host = 'beta', env, here, there, code, kind, message, remedy } of rows)
    test(when, async () => {
      await alpha.run(['sh', '-c', here ?? ':'])
      const fake = { COWHAND_REMOTE_COWHAND: '/run/fake' }
      await beta.run(['sh', '-c', 'printf %s "$1" >/run/fake; chmod 755 /run/fake', 'sh', there ?? ''])
      const lines = await talk([host], { ...(there ? fake : {}), ...env })
      await alpha.run(['sh', '-c', 'test ! -e /root/.ssh/known || mv /root/.ssh/known /root/.ssh/known_hosts'])
      const { problem } = lineOf(lines, 'connect')
      assert.deepEqual([problem?.code, problem?.kind], [code, kind], JSON.stringify(problem))
      assert.match(problem?.message ?? '', message)
      assert.match(problem?.remedy ?? '', remedy)
      assert.equal(await left(), '')
    })

  test('what is no answer', async () => {
    const { problem } = lineOf(await talk(['beta', 'look:garbage:3']), 'look:garbage:3')
    assert.equal(problem?.code, 'TOOL_FAILED')
    assert.equal(
      problem?.message,
      'Cannot have beta look "garbage": it answered what is no answer: "garbage garbage garbage "',
    )
  })
})

describe('when it breaks while the other host is at work:', () => {
  const rows: [what: string, fault: () => Promise<unknown>, message: RegExp][] = [
    ['sshd is killed', () => beta.killAll('sshd'), /^Cannot have beta finish "sleep": the connection broke: /],
    ['cowhand there is killed', () => beta.killAll('cowhand'), /: the connection broke: cowhand there was killed$/],
    ['ssh here is killed', () => alpha.killAll('ssh'), /: the connection broke: cowhand there ended \(killed\)$/],
  ]
  for (const [what, fault, message] of rows)
    test(what, async () => {
      const { ended } = await alpha.start([talker, 'beta', 'finish:sleep:40', '@wait:2000', 'look:echo'])
      await untilServing(1, 10)
      await sleep(500)
      await fault()
      const lines = linesOf((await ended).stdout)
      const { problem, isLost, seconds } = lineOf(lines, 'finish:sleep:40')
      assert.deepEqual([isLost, problem?.code, problem?.kind], [true, 'HOST_UNREACHABLE', 'failed'])
      assert.match(problem?.message ?? '', message)
      assert.ok(seconds < 5, `${seconds}`)
      assert.equal(lineOf(lines, 'look:echo').problem, undefined, 'the next question opens it again')
      await untilServing(0, 5)
      assert.equal(await left(), '')
    })

  test('cowhand here is killed: what the other host does for it ends, too', async (t) => {
    const asker = await alpha.start([talker, 'beta', 'finish:sleep:40'])
    await untilServing(1, 10)
    await sleep(500)
    asker.kill('SIGKILL')
    t.diagnostic(`it ended after ${await untilServing(0, 5)} s`)
    assert.doesNotMatch(await left(), /ssh -T/)
    await talk(['beta', 'look:echo'])
    assert.equal(await left(), '', 'the next run removes its directory')
  })

  test('cowhand here is interrupted: the other host stops first, then it ends, and may ask anew', async () => {
    const asker = await alpha.start([talker, 'beta', 'finish:sleep:40', 'look:echo', '@renew', 'undo:echo'])
    await untilServing(1, 10)
    await sleep(500)
    asker.kill('SIGTERM')
    const lines = linesOf((await asker.ended).stdout)
    const { problem, isLost, seconds } = lineOf(lines, 'finish:sleep:40')
    assert.deepEqual([problem?.code, isLost], ['INTERRUPTED', false])
    assert.ok(seconds < 5, `${seconds}`)
    assert.equal(lineOf(lines, 'look:echo').problem?.code, 'INTERRUPTED')
    assert.equal(lineOf(lines, 'undo:echo').problem, undefined)
    assert.equal(await serving(), 0)
  })

  test('cowhand here is interrupted while it connects', async () => {
    await beta.run(['sh', '-c', 'printf "#!/bin/sh\\nexec sleep 100" >/run/fake; chmod 755 /run/fake'])
    const asker = await alpha.start([talker, 'beta'], { COWHAND_REMOTE_COWHAND: '/run/fake' })
    await sleep(1500)
    const start = performance.now()
    asker.kill('SIGTERM')
    const { problem } = lineOf(linesOf((await asker.ended).stdout), 'connect')
    assert.equal(problem?.code, 'INTERRUPTED')
    assert.ok(performance.now() - start < 3000)
    assert.equal(await left(), '')
  })

  test('the link goes down: both ends notice, each by itself', async (t) => {
    const { ended } = await alpha.start([talker, 'beta', 'finish:sleep:120'])
    await untilServing(1, 10)
    await sleep(500)
    pair.link.down()
    const start = performance.now()
    try {
      const [there] = await Promise.all([untilServing(0, 45), ended])
      const { problem, isLost, seconds } = lineOf(linesOf((await ended).stdout), 'finish:sleep:120')
      assert.equal(isLost, true)
      assert.match(problem?.message ?? '', /: the connection broke: Timeout, server beta not responding$/)
      t.diagnostic(`here after ${seconds} s, there after ${there} s`)
      assert.ok(seconds < 18, `${seconds}`)
      assert.ok(performance.now() - start < 45_000)
    } finally {
      pair.link.up()
    }
  })
})
