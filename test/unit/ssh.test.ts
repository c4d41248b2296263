import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { quote } from 'zx/core'
import { named, problemOf } from '../../lib/host/destination.ts'
import { linesOf } from '../../lib/host/lines.ts'
import { explainSsh, quickCiphers, sshWords, typedSsh } from '../../lib/host/ssh.ts'
import { Hello, Reply, Request } from '../../lib/job/conversation.ts'
import { joint } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'
import { HostName, Port } from '../../lib/job/spec.ts'

describe('what is accepted as another host', () => {
  for (const [typed, host] of [
    ['beta', 'beta'],
    ['beta.example.org', 'beta.example.org'],
    ['Compute_07', 'Compute_07'],
    ['10.0.0.7', '10.0.0.7'],
    ['a'.repeat(253), 'a'.repeat(253)],
    ['::1', '::1'],
    ['[::1]', '::1'],
    ['2001:DB8:0:0::0007', '2001:db8::7'],
    ['[2001:db8::7]', '2001:db8::7'],
    ['::ffff:10.0.0.7', '::ffff:a00:7'],
  ] as const)
    test(`${typed.slice(0, 40)} is ${host.slice(0, 40)}`, () => assert.equal(HostName.parse(typed), host))

  const none = 'is no host name, no address and no Host of an ssh_config'
  for (const [typed, why] of [
    ['', none],
    ['-oProxyCommand=x', none],
    ['-', none],
    ['beta::module', none],
    ['rsync://beta/module', none],
    ['beta:/etc', none],
    ['%h', none],
    ['beta%eth0', none],
    ['fe80::1%eth0', none],
    ['$(id)', none],
    ['`id`', none],
    ['beta;id', none],
    ['beta id', none],
    [' beta', none],
    ['beta\n', none],
    ['beta\0', none],
    ['béta', none],
    ['.beta', none],
    ['[beta]', none],
    ['[10.0.0.7]', none],
    ['[::1', none],
    ['[[::1]]', none],
    [':::', none],
    ['1::2::3', none],
    ['user@', none],
    ['a'.repeat(254), 'is longer than 253 characters'],
    ['root@beta', 'has a user in it: give the host alone, and the user as ssh_user'],
    ['root@[::1]', 'has a user in it: give the host alone, and the user as ssh_user'],
    ['beta:22', 'has a port in it: give the host alone, and the port as ssh_port'],
  ] as const)
    test(`${JSON.stringify(typed).slice(0, 40)} is none`, () =>
      assert.equal(HostName.safeParse(typed).error?.issues[0]?.message, why))

  test('it is nothing else to a shell, ssh or rsync, whatever is typed', () => {
    const unit = fc.constantFrom(...'aZ0._-:[]@/%=$`;&|\'"\\ \t\n\0~*?{}#,')
    const typed = fc.oneof(fc.string({ unit, maxLength: 12 }), fc.string({ unit: 'grapheme', maxLength: 300 }))
    fc.assert(
      fc.property(typed, (text) => {
        const read = HostName.safeParse(text)
        if (!read.success) return
        assert.equal(quote(read.data), read.data)
        assert.match(read.data, /^([A-Za-z0-9][A-Za-z0-9._-]{0,252}|[0-9a-f:]+)$/)
        assert.equal(HostName.parse(read.data), read.data)
      }),
      { numRuns: 3000 },
    )
  })
})

test('ports', () => {
  for (const port of [1, 22, 65_535, '22']) assert.equal(Port.parse(port), Number(port))
  for (const port of [0, -1, 65_536, '022', '22 ', '', 'ssh', 2.5, '0x16'])
    assert.equal(Port.safeParse(port).success, false, String(port))
})

describe('settings that say how another host is reached', () => {
  for (const [key, good, bad] of [
    ['ssh_user', ['root', 'cloud-user', '_apt', 'a.b'], ['', '-l', 'a b', 'a@b', 'a;b', 'ü']],
    [
      'ssh_identity',
      ['/root/.ssh/id', '/k/%h'],
      ['id', '~/.ssh/id', '/a b', '/a"b', "/a'b", '/a\\b', '/a/../b', '/a\n'],
    ],
    [
      'remote_cowhand',
      ['cowhand', '/opt/cowhand/bin/cowhand', 'sudo -n cowhand', 'env A=1 cowhand --config /etc/x.yaml'],
      [
        '',
        '-x',
        ' cowhand',
        'cowhand ',
        'a  b',
        'cowhand; id',
        'a|b',
        '$(id)',
        '`id`',
        '~/cowhand',
        'a\nb',
        'a&',
        'a>b',
      ],
    ],
  ] as const) {
    for (const value of good) test(`${key}: ${value}`, () => assert.equal(Settings.parse({ [key]: value })[key], value))
    for (const value of bad)
      test(`${key} is not ${JSON.stringify(value)}`, () =>
        assert.equal(Settings.safeParse({ [key]: value }).success, false))
  }
})

describe('the words of ssh', () => {
  const all = { ssh_user: 'op', ssh_port: 2222, ssh_identity: '/k/id' }
  const path = '/run/cowhand-ssh-1-abcdef/ctl'
  for (const [what, reach, shared, has, hasNot] of [
    ['nothing set', {}, undefined, ['ControlPath=none', 'ControlMaster=no'], ['-p', '-l', '-i', 'IdentitiesOnly=yes']],
    ['all set', all, undefined, ['-p', '2222', '-l', 'op', '-i', '/k/id', 'IdentitiesOnly=yes'], []],
    ['the one that connects', all, { path, isMaster: true }, [`ControlPath=${path}`, 'ControlMaster=yes'], []],
    ['others', all, { path }, [`ControlPath=${path}`, 'ControlMaster=no', '2222'], ['ControlMaster=yes']],
  ] as const)
    test(what, () => {
      const words = sshWords(reach, shared)
      assert.equal(words[0], 'ssh')
      for (const word of [...has, 'BatchMode=yes', 'ControlPersist=no', 'ServerAliveInterval=4', 'ForwardAgent=no'])
        assert.ok(words.includes(word), word)
      for (const word of hasNot) assert.ok(!words.includes(word), word)
      assert.doesNotMatch(words.join(' '), /StrictHostKeyChecking|UserKnownHostsFile/)
      // rsync takes them as one text.
      for (const word of words) assert.match(word, /^[^\s'"\\]+$/)
    })

  test('and what a person types', () => {
    assert.equal(typedSsh('beta', {}), 'ssh beta')
    assert.equal(typedSsh('beta', all), 'ssh -p 2222 -i /k/id op@beta')
  })
})

describe('the order of ciphers', () => {
  const [chacha, ctr, gcm, more] = [
    'chacha20-poly1305@openssh.com',
    'aes256-ctr',
    'aes128-gcm@openssh.com',
    'aes256-gcm@openssh.com',
  ]
  const intel = 'model name\t: some\nflags\t\t: fpu pclmulqdq aes avx\n'
  for (const [what, its, processor, order] of [
    ["OpenSSH's own", [chacha, ctr, gcm, more], intel, [gcm, more, chacha, ctr]],
    ['on ARM', [chacha, gcm], 'Features\t: fp asimd aes pmull\n', [gcm, chacha]],
    ['a processor without AES', [chacha, gcm], 'flags\t\t: fpu aesthetic\nmodel name\t: aes\n', undefined],
    ['chosen by somebody', [ctr, chacha, gcm], intel, undefined],
    ['AES-GCM is not allowed', [chacha, ctr], intel, undefined],
    ['AES-GCM is first', [gcm, chacha], intel, undefined],
  ] as const)
    test(what, () =>
      assert.equal(quickCiphers(`user root\nciphers ${its.join(',')}\nmacs x\n`, processor), order?.join(',')),
    )
  test('ssh tells none', () => assert.equal(quickCiphers('', intel), undefined))
})

describe('what ssh says', () => {
  const changed = `@@@@@@@@\r\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\n@@@@@@@@\r
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\r
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.\r\nHost key verification failed.\r\n`
  for (const [words, code, state, remedy] of [
    [changed, 'AUTH_FAILED', /not the one in known_hosts/, /ssh-keygen -R '\[10.0.0.7\]:2222'; ssh beta true$/],
    [
      'No ED25519 host key is known for beta and you have requested strict checking.\r\nHost key verification failed.',
      'AUTH_FAILED',
      /not known here/,
      /accept it once, as this user: ssh beta true$/,
    ],
    [
      'banner of the site\nroot@beta: Permission denied (publickey,password).\r\n',
      'AUTH_FAILED',
      /^it does not let us in: root@beta: Permission denied \(publickey,password\)$/,
      /: ssh-copy-id beta$/,
    ],
    [
      'Received disconnect from 10.0.0.7 port 22:2: Too many authentication failures',
      'AUTH_FAILED',
      /Too many authentication failures/,
      /ssh-copy-id/,
    ],
    [
      "Permissions 0644 for '/k/id' are too open.\r\nIt is required …\r\nroot@beta: Permission denied (publickey).",
      'AUTH_FAILED',
      /others may read the private key "\/k\/id"/,
      /^chmod 600 \/k\/id$/,
    ],
    [
      'ssh: Could not resolve hostname beta: Name or service not known',
      'HOST_UNREACHABLE',
      /^Could not resolve hostname beta: Name or service not known$/,
      /\/etc\/hosts/,
    ],
    ['ssh: connect to host beta port 22: Connection refused', 'HOST_UNREACHABLE', /^connect to host/, /ssh_port/],
    ['ssh: connect to host beta port 22: Connection timed out', 'HOST_UNREACHABLE', /timed out$/, /ssh beta true$/],
    ['Timeout, server beta not responding.', 'HOST_UNREACHABLE', /not responding$/, /ssh beta true$/],
    ['/etc/ssh/ssh_config line 1: Bad configuration option: x', 'HOST_UNREACHABLE', /Bad configuration option/, /./],
    ['', 'HOST_UNREACHABLE', /^ssh ended without a word$/, /ssh beta true$/],
  ] as const)
    test(words.trim().split('\n').at(-1) || 'nothing', () => {
      const meaning = explainSsh(words, 'beta', {})
      assert.equal(meaning.code, code)
      assert.match(meaning.state, state)
      assert.match(meaning.remedy, remedy)
    })
})

describe('lines', () => {
  const read = async (chunks: string[], ceiling = 100): Promise<string[]> => {
    const got: string[] = []
    for await (const line of linesOf(Readable.from(chunks.map((chunk) => Buffer.from(chunk, 'latin1'))), ceiling))
      got.push(line)
    return got
  }
  for (const [what, chunks, lines] of [
    ['none', [], []],
    ['one in several pieces', ['a', 'b', '', 'c\n'], ['abc']],
    ['several in one piece', ['a\nb\n\nc\n'], ['a', 'b', '', 'c']],
    ['a character in two pieces', ['\xc3', '\xbc\n'], ['ü']],
    ['one that was cut off', ['a\nb'], ['a']],
    ['one as long as may be', ['x'.repeat(50), `${'x'.repeat(50)}\n`], ['x'.repeat(100)]],
  ] as const)
    test(what, async () => assert.deepEqual(await read([...chunks]), lines))
  for (const [what, chunks] of [
    ['with its end', [`${'x'.repeat(101)}\n`]],
    ['without an end', ['x'.repeat(60), 'x'.repeat(60)]],
  ] as const)
    test(`one that is too long, ${what}`, () => assert.rejects(read([...chunks]), RangeError))
})

describe('a problem of another host', () => {
  const its = (message: string) => problemOf('beta', { kind: 'busy', code: 'LOCKED', message, remedy: 'wait' })
  for (const [message, told] of [
    ['Cannot make "/i/a: b": it is there', 'Cannot make "/i/a: b": on beta: it is there'],
    ['Cannot go on: ENOSPC: no space', 'Cannot go on: on beta: ENOSPC: no space'],
    ['no sentence of ours', 'on beta: no sentence of ours'],
    [`Cannot a: b${joint}Cannot c "d": e`, `Cannot a: on beta: b${joint}Cannot c "d": on beta: e`],
  ] as const)
    test(message.split('\n')[0] ?? '', () => {
      const { kind, code, message: said, remedy } = its(message)
      assert.deepEqual([kind, code, said, remedy], ['busy', 'LOCKED', told, 'on beta: wait'])
    })
  test('is not longer than can be read', () => assert.ok(its('x'.repeat(1e6)).message.length < 3000))
  test('and so are its events', () => {
    const event = named('beta', { type: 'notice', message: 'x'.repeat(1e6) })
    assert.ok(event.type === 'notice' && event.message.startsWith('beta: x') && event.message.length < 3000)
  })
})

describe('what is said is what it has to be', () => {
  const problem = { kind: 'failed', code: 'NO_SPACE', message: 'a', remedy: 'b' }
  for (const [what, schema, good] of [
    [{ cowhand: '1', protocol: 1, host: 'b' }, Hello, true],
    [{ cowhand: '1', protocol: '1', host: 'b' }, Hello, false],
    ['Welcome', Hello, false],
    [{ alive: true }, Request, true],
    [{ phase: 'look', document: {} }, Request, true],
    [{ phase: 'finish', document: {}, dryRun: true }, Request, true],
    [{ phase: 'rm', document: {} }, Request, false],
    [{}, Request, false],
    [{}, Reply, true],
    [{ problem }, Reply, true],
    [{ problem: { ...problem, code: 'OTHER' } }, Reply, false],
    [{ event: { type: 'notice', message: 'x' } }, Reply, true],
    [{ event: { type: 'shell', message: 'x' } }, Reply, false],
    [{ answer: { version: 1, bases: [{ name: '../x', is: 'equal' }] } }, Reply, false],
    [{ result: 1 }, Reply, false],
    [{ what: 1 }, Reply, false],
    [[], Reply, false],
  ] as const)
    test(JSON.stringify(what), () => assert.equal(schema.safeParse(what).success, good))
})
