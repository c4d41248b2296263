import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { type Compression, compressionFor, type Data, type Link, linkTo, sampleRatio } from '../../lib/host/compress.ts'
import { addressOf, type Call, callsOf, progressIn, rsyncArgv, rsyncThere } from '../../lib/host/rsync.ts'
import { explainRsync, Killed } from '../../lib/host/rsync-end.ts'
import { passwordIn, sampleRsyncdConf } from '../../lib/host/rsyncd.ts'
import type { Code } from '../../lib/job/problem.ts'
import { Settings } from '../../lib/job/settings.ts'

const dir = mkdtempSync(join(tmpdir(), 'cowhand-rsync-'))
after(() => rmSync(dir, { recursive: true }))
const G = 2 ** 30

describe("rsync's words", () => {
  const call: Call = { from: ['/i/vm1_resize/./disk'], to: 'h:/i/x/', level: 0, sparse: false, timeout: 60 }
  const plain = '--ignore-times --inplace --no-whole-file'
  const modes = '--perms --chmod=D0700,F0600'
  const rest = '-s --timeout=60 --outbuf=N --no-human-readable --info=progress2,stats2'
  const end = '-- /i/vm1_resize/./disk h:/i/x/'
  const rows: [when: string, more: Partial<Call>, then: string][] = [
    ['at its plainest', {}, `${plain} ${modes} --relative ${rest} ${end}`],
    ['a sparse file', { sparse: true }, `${plain} --sparse ${modes} --relative ${rest} ${end}`],
    ['one file under another name', { from: ['/b/x'], to: 'h:/i/y' }, `${plain} ${modes} ${rest} -- /b/x h:/i/y`],
    ['compressed', { level: 3 }, `${plain} ${modes} --relative ${rest} --compress --compress-level=3 ${end}`],
    ['a rate', { rate: 10 * 2 ** 20 }, `${plain} ${modes} --relative ${rest} --bwlimit=10240 ${end}`],
    ['a rate that is no whole KiB', { rate: 2047 }, `${plain} ${modes} --relative ${rest} --bwlimit=1 ${end}`],
    ['a rate below the least', { rate: 5 }, `${plain} ${modes} --relative ${rest} --bwlimit=1 ${end}`],
  ]
  for (const [when, more, then] of rows)
    it(when, () => assert.equal(rsyncArgv({ ...call, ...more }).join(' '), `rsync ${then}`))

  it("gives ssh's words as one, as rsync splits them", () => {
    const argv = rsyncArgv({
      ...call,
      ssh: { words: ['ssh', '-o', 'A=b c', '-i', "/k'x", ''], rsync: 'sudo -n rsync' },
    })
    assert.equal(argv[argv.indexOf('-e') + 1], "ssh -o 'A=b c' -i '/k''x' ''")
    assert.ok(argv.includes('--rsync-path=sudo -n rsync'))
  })

  for (const [cowhand, rsync] of [
    ['cowhand', 'rsync'],
    ['sudo -n cowhand', 'sudo -n rsync'],
    ['/opt/bin/cowhand', 'rsync'],
  ] as const)
    it(`${cowhand} there needs ${rsync}`, () => assert.equal(rsyncThere({ remote_cowhand: cowhand }), rsync))
})

describe('where files go', () => {
  const to = '/var/lib/cowhand/instances/vm1.incoming/part'
  const rsyncd = { port: 873, module: 'cowhand' }
  const rows: [host: string, transport: 'ssh' | 'rsyncd', name: string, then: string][] = [
    ['h2', 'ssh', '', `h2:${to}/`],
    ['h2.example.org', 'ssh', 'base-1', `h2.example.org:${to}/base-1`],
    ['10.0.0.2', 'ssh', '', `10.0.0.2:${to}/`],
    ['fe80::1', 'ssh', '', `[fe80::1]:${to}/`],
    ['h2', 'rsyncd', '', 'rsync://cowhand@h2:873/cowhand/vm1.incoming/part/'],
    ['::1', 'rsyncd', 'base-1', 'rsync://cowhand@[::1]:873/cowhand/vm1.incoming/part/base-1'],
  ]
  for (const [host, transport, name, then] of rows)
    it(`${host} by ${transport}`, () => assert.equal(addressOf({ host, transport, to, rsyncd }, name), then))

  it('a user and a module of its own', () =>
    assert.equal(
      addressOf({ host: 'h', transport: 'rsyncd', to, rsyncd: { port: 8730, module: 'vms', user: 'mover' } }),
      'rsync://mover@h:8730/vms/vm1.incoming/part/',
    ))

  // What HostName never lets through would be another mode of rsync, an option, or another path.
  for (const host of ['h::m', 'rsync://h/m', '-oProxyCommand=x', 'a b', 'u@h', '%h', '[::1]', 'h:/x', '', 'x\ny'])
    it(`never ${JSON.stringify(host)}`, () =>
      assert.throws(() => addressOf({ host, transport: 'ssh', to }), /bad address/))
  it('never outside of where disks arrive by a daemon', () =>
    assert.throws(() => addressOf({ host: 'h', transport: 'rsyncd', to: '/i/vm1', rsyncd }), /not where disks arrive/))
  it('never a module that is a path', () =>
    assert.throws(() => addressOf({ host: 'h', transport: 'rsyncd', to, rsyncd: { port: 1, module: 'a/b' } })))

  it('one rsync for all that keep their names, from several directories; one more for each other', () => {
    const file = (path: string, name: string) => ({ path, name, size: 0 })
    const calls = callsOf([
      file('/i/_base/abc', 'base.abc'),
      file('/i/vm1_resize/tpm/state', 'tpm/state'),
      file('/i/vm1_resize/disk.local', 'disk.local'),
      file('/i/vm1_resize/send/disk', 'disk'),
    ])
    assert.deepEqual(
      calls.map(({ from, name }) => [from, name]),
      [
        [['/i/vm1_resize/send/./disk', '/i/vm1_resize/./disk.local', '/i/vm1_resize/./tpm/state'], ''],
        [['/i/_base/abc'], 'base.abc'],
      ],
    )
  })
})

describe('progress', () => {
  for (const [output, then] of [
    ['\r     2202173440  93%  193.30MB/s    0:00:00  ', 2202173440],
    ['\r  100   1%  1.00MB/s\r  200   2%  1.00MB/s  (xfr#2, to-chk=0/2)', 200],
    ['Total bytes sent: 12', undefined],
    ['', undefined],
  ] as const)
    it(JSON.stringify(output), () => assert.equal(progressIn(output), then))
})

describe('what it means that rsync failed', () => {
  const lost = 'rsync: connection unexpectedly closed (34 bytes received so far) [sender]'
  const closed = (code: number) => `${lost}\nrsync error: unexplained error (code ${code}) at io.c(285) [sender=3.5.0]`
  // Recorded from rsync 3.2.7 and 3.5.0.
  const rows: [when: string, transport: 'ssh' | 'rsyncd', code: number, said: string, then: Code, words: RegExp][] = [
    [
      'disk full',
      'ssh',
      11,
      'rsync: [receiver] write failed on "/i/p/disk": No space left on device (28)\nrsync error: error in file IO (code 11) at receiver.c(657) [receiver=3.5.0]\n\nrsync: [sender] write error: Broken pipe (32)',
      'NO_SPACE',
      /^Cannot send "disk" to h2: no space is left on h2$/,
    ],
    [
      'disk full, and the connection lost by it',
      'rsyncd',
      12,
      `rsync: [receiver] write failed on "disk" (in cowhand): No space left on device (28)\n${closed(12)}`,
      'NO_SPACE',
      /no space is left on h2/,
    ],
    [
      'wrong password',
      'rsyncd',
      5,
      '@ERROR: auth failed on module cowhand\nrsync error: error starting client-server protocol (code 5) at main.c(1954) [sender=3.5.0]',
      'AUTH_FAILED',
      /does not let us into module cowhand$/,
    ],
    [
      'unknown module',
      'rsyncd',
      5,
      "@ERROR: Unknown module 'x'\nrsync error: …",
      'MISSING_PREREQUISITE',
      /no module x$/,
    ],
    [
      'hosts allow',
      'rsyncd',
      5,
      '@ERROR: access denied to cowhand from h1 (10.0.0.1)\nrsync error: …',
      'NO_PERMISSION',
      /denies this host the module cowhand$/,
    ],
    [
      'too many connections',
      'rsyncd',
      5,
      '@ERROR: max connections (8) reached -- try again later\nrsync error: …',
      'HOST_UNREACHABLE',
      /too many connections$/,
    ],
    [
      'a daemon that refuses what we need',
      'rsyncd',
      4,
      'rsync: The server is configured to refuse --info\nrsync error: requested action not supported (code 4)\nrsync: [sender] read error: Connection reset by peer (104)',
      'NO_PERMISSION',
      /says: configured to refuse --info$/,
    ],
    [
      'a module that is read only',
      'rsyncd',
      1,
      'ERROR: module is read only\nrsync error: syntax or usage error (code 1) at main.c(1186) [Receiver=3.5.0]',
      'NO_PERMISSION',
      /module is read only$/,
    ],
    [
      'a daemon that is not there',
      'rsyncd',
      10,
      'rsync: [sender] failed to connect to 127.0.0.1 (127.0.0.1): Connection refused (111)\nrsync error: error in socket IO (code 10) at clientserver.c(165) [sender=3.5.0]',
      'HOST_UNREACHABLE',
      /the connection broke: failed to connect to 127.0.0.1 \(127.0.0.1\): Connection refused \(111\)$/,
    ],
    [
      'a daemon that went away before it spoke',
      'rsyncd',
      5,
      'rsync: did not see server greeting\nrsync error: error starting client-server protocol (code 5)',
      'HOST_UNREACHABLE',
      /the connection broke: did not see server greeting$/,
    ],
    [
      'where it was to arrive is gone for a daemon',
      'rsyncd',
      11,
      'rsync: [Receiver] mkdir "/vm1.incoming/part" (in cowhand) failed: No such file or directory (2)\nrsync error: …',
      'MISSING_PREREQUISITE',
      /"\/vm1.incoming\/part" is not there on h2$/,
    ],
    ['a receiver that was killed, by ssh', 'ssh', 255, closed(255), 'HOST_UNREACHABLE', /: the connection broke$/],
    ['a link that broke', 'ssh', 12, closed(12), 'HOST_UNREACHABLE', /: the connection broke$/],
    [
      'silence',
      'ssh',
      30,
      '[sender] io timeout after 4 seconds -- exiting\nrsync error: timeout in data send/receive (code 30)',
      'HOST_UNREACHABLE',
      /: the other side is silent$/,
    ],
    [
      'a receiver that was killed',
      'ssh',
      16,
      'rsync error: sibling process terminated abnormally (code 16) at main.c(1394) [sender=3.5.0]',
      'HOST_UNREACHABLE',
      /the connection broke$/,
    ],
    [
      'ssh that does not get there',
      'ssh',
      255,
      `ssh: connect to host h2 port 22: No route to host\r\n${closed(255)}`,
      'HOST_UNREACHABLE',
      /: connect to host h2 port 22: No route to host$/,
    ],
    [
      'ssh that is not let in',
      'ssh',
      255,
      `root@h2: Permission denied (publickey).\r\n${closed(255)}`,
      'AUTH_FAILED',
      /does not let us in/,
    ],
    [
      'a host key that nobody knows',
      'ssh',
      255,
      `Host key verification failed.\r\n${closed(255)}`,
      'AUTH_FAILED',
      /key/,
    ],
    [
      'no rsync there',
      'ssh',
      127,
      `sh: 1: rsync: not found\n${closed(127)}`,
      'TOOL_MISSING',
      /: rsync is not installed on h2$/,
    ],
    ['no rsync there, told by the exit code alone', 'ssh', 127, '', 'TOOL_MISSING', /rsync is not installed on h2$/],
    [
      'no rsync there for sudo',
      'ssh',
      12,
      `sudo: rsync: command not found\n${closed(12)}`,
      'TOOL_MISSING',
      /not installed on h2$/,
    ],
    [
      'sudo that asks',
      'ssh',
      12,
      `sudo: a password is required\n${closed(12)}`,
      'NO_PERMISSION',
      /sudo: a password is required$/,
    ],
    [
      'no ssh here',
      'ssh',
      14,
      'rsync: [sender] Failed to exec ssh: No such file or directory (2)\nrsync error: error in IPC code (code 14)',
      'TOOL_MISSING',
      /ssh is not installed here$/,
    ],
    [
      'not permitted there',
      'ssh',
      23,
      'rsync: [receiver] open "/i/p/disk" failed: Operation not permitted (1)\nrsync error: some files/attrs were not transferred (see previous errors) (code 23)',
      'NO_PERMISSION',
      /may not be written on h2: operation not permitted$/,
    ],
    [
      'not permitted here',
      'ssh',
      23,
      'rsync: [sender] send_files failed to open "/i/vm1/disk": Permission denied (13)\nrsync error: …',
      'NO_PERMISSION',
      /may not be read: permission denied$/,
    ],
    [
      'where it was to arrive is gone',
      'ssh',
      11,
      'rsync: [Receiver] mkdir "/i/vm1.incoming/part" failed: No such file or directory (2)\nrsync error: …',
      'MISSING_PREREQUISITE',
      /"\/i\/vm1.incoming\/part" is not there on h2$/,
    ],
    [
      'a shell that talks',
      'ssh',
      2,
      'protocol version mismatch -- is your shell clean?\nrsync error: protocol incompatibility (code 2)',
      'UNSUPPORTED',
      /writes something before rsync does$/,
    ],
    [
      'a device that fails',
      'ssh',
      23,
      'rsync: read errors mapping "/i/vm1/disk": Input/output error (5)',
      'IO_FAILED',
      /device failed/,
    ],
    ['anything else', 'ssh', 22, 'rsync: out of memory\nrsync error: …', 'TOOL_FAILED', /exit code 22: rsync: out of/],
  ]
  const about = { verb: 'send "disk" to h2', host: 'h2', reach: {} }
  for (const [when, transport, code, said, then, words] of rows)
    it(when, () => {
      const problem = explainRsync({ code, signal: undefined, said }, { ...about, transport })
      assert.equal(problem.code, then)
      assert.match(problem.message, words)
      assert.match(problem.message, /^Cannot send "disk" to h2: /)
      assert.ok(problem.remedy.length > 10)
    })
  it('killed there, as a shell tells', () => {
    const end = { code: 137, signal: 'SIGKILL', said: `Killed\n${closed(12)}` }
    assert.equal(explainRsync(end, { ...about, transport: 'ssh' }).code, 'HOST_UNREACHABLE')
  })
  it('killed here, from outside: another try may do', () => {
    const problem = explainRsync({ code: -1, signal: 'SIGKILL', said: closed(12) }, { ...about, transport: 'ssh' })
    assert.equal(
      `${problem.code}: ${problem.message}`,
      'TOOL_FAILED: Cannot send "disk" to h2: rsync was ended by SIGKILL',
    )
    assert.ok(problem instanceof Killed)
    const crashed = explainRsync({ code: -1, signal: 'SIGSEGV', said: '' }, { ...about, transport: 'ssh' })
    assert.ok(!(crashed instanceof Killed))
  })
})

describe('compression', () => {
  const typical: Data = { ratio: 0.4, size: 10 * G, allocated: 10 * G }
  const rows: [
    when: string,
    wish: Settings['compress'],
    link: Link,
    data: Partial<Data>,
    rate: number | undefined,
    level: Compression['level'],
    reason: RegExp,
  ][] = [
    ['none asked for', 'none', {}, {}, undefined, 0, /^none was asked for$/],
    ['none asked for, holes', 'none', {}, { allocated: G }, undefined, 0, /^none/],
    [
      'asked for',
      'zstd',
      { speed: 1e5 },
      { ratio: 1 },
      undefined,
      1,
      /^it was asked for, and the link has 100000 Mbit/,
    ],
    ['asked for, slow', 'zstd', { speed: 100 }, {}, undefined, 3, /^it was asked for/],
    ['a link of unknown speed', 'auto', {}, {}, undefined, 1, /shrinks to 40 %, and the link tells no speed$/],
    ['1 Gbit/s', 'auto', { speed: 1000 }, {}, undefined, 1, /40 %, and the link has 1000 Mbit\/s$/],
    ['10 Gbit/s', 'auto', { speed: 10_000 }, {}, undefined, 1, /10000/],
    ['25 Gbit/s', 'auto', { speed: 25_000 }, {}, undefined, 0, /^the link has 25000 Mbit\/s$/],
    ['25 Gbit/s, and a rate', 'auto', { speed: 25_000 }, {}, 125e6, 1, /1000 Mbit/],
    ['100 Mbit/s', 'auto', { speed: 100 }, {}, undefined, 3, /100 Mbit/],
    ['a low rate', 'auto', { speed: 1000 }, {}, 10e6, 3, /80 Mbit/],
    ['a low rate on a link of unknown speed', 'auto', {}, {}, 10e6, 3, /80 Mbit/],
    ['this host', 'auto', { isHere: true }, {}, undefined, 0, /this very host/],
    ['random data', 'auto', { speed: 1000 }, { ratio: 0.98 }, undefined, 0, /^a sample of the data shrinks to 98 %$/],
    [
      'random data with holes',
      'auto',
      { speed: 1000 },
      { ratio: 1, allocated: G },
      undefined,
      1,
      /^of 10G only 1G are allocated$/,
    ],
    ['holes on a fast link', 'auto', { speed: 1e5 }, { allocated: G }, undefined, 1, /are allocated$/],
  ]
  for (const [when, wish, link, data, rate, level, reason] of rows)
    it(when, () => {
      const found = compressionFor(wish, link, { ...typical, ...data }, rate)
      assert.equal(found.level, level)
      assert.match(found.reason, reason)
    })

  const make = (name: string, content: Buffer, size = content.length) => {
    const path = join(dir, name)
    writeFileSync(path, content)
    truncateSync(path, size)
    return { path, size }
  }
  it('a sample of random data does not shrink', async () =>
    assert.ok((await sampleRatio([make('random', randomBytes(2 ** 22))])) > 0.99))
  it('a sample of text does', async () =>
    assert.ok((await sampleRatio([make('text', Buffer.from('once upon a time '.repeat(2 ** 18)))])) < 0.1))
  it('holes do not count', async () =>
    assert.ok((await sampleRatio([make('holes', randomBytes(2 ** 24), 2 ** 27)])) > 0.99))
  it('half of both', async () => {
    const ratio = await sampleRatio([
      { path: join(dir, 'random'), size: 2 ** 22 },
      make('b', Buffer.alloc(2 ** 22, 'ab')),
    ])
    assert.ok(ratio > 0.4 && ratio < 0.6, String(ratio))
  })
  it('nothing, and what is smaller than a piece', async () => {
    assert.equal(await sampleRatio([make('empty', Buffer.alloc(0))]), 0)
    assert.ok((await sampleRatio([make('empty', Buffer.alloc(0)), make('small', randomBytes(100))])) > 0.9)
  })
  it('the way to this host leads here, and to nobody nowhere', async () => {
    assert.deepEqual(await linkTo('127.0.0.1'), { isHere: true })
    assert.deepEqual(await linkTo('nobody.invalid'), {})
  })
})

describe('the daemon', () => {
  const secrets = (text: string, mode = 0o600) => {
    const path = join(dir, 'secrets')
    writeFileSync(path, text)
    chmodSync(path, mode)
    return path
  }
  it('has the password of a user', () => {
    assert.equal(passwordIn(secrets('# of all\nother:x\ncowhand:with:colon \n'), 'cowhand'), 'with:colon ')
  })
  for (const [when, path, code] of [
    ['that is not there', () => join(dir, 'nothing'), 'MISSING_PREREQUISITE'],
    ['that others may read', () => secrets('cowhand:x\n', 0o640), 'NO_PERMISSION'],
    ['without a line for the user', () => secrets('cowhandy:x\n'), 'AUTH_FAILED'],
  ] as const)
    it(`refuses a file ${when}`, () => assert.throws(() => passwordIn(path(), 'cowhand'), { code }))

  it('is set up as the settings say', () => {
    const text = sampleRsyncdConf(
      Settings.parse({ instances: '/srv/vms', rsyncd_module: 'vms', rsyncd_port: 8730, rsyncd_user: 'mover' }),
    )
    for (const line of ['port = 8730', '[vms]', '  path = /srv/vms', '  auth users = mover', '  write only = yes'])
      assert.ok(text.split('\n').includes(line), line)
  })
})
