import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'

/** What becomes of an answer. */
export interface Pace {
  /** Bytes per second. */
  rate?: number
  /** Cut the connection when so many bytes have passed. */
  cutAfter?: number
  /** With these bytes there, wait before it is cut. */
  hold?: Promise<unknown>
}

/** A server in this process that passes each connection on to another one on this machine. */
export interface Front {
  url: string
  /** Of the downloads to come (requests whose path ends in /file), one after the other; the others are left alone. */
  paces: Pace[]
  /** The first line of each request, in order. */
  asked: string[]
  /** Called with each of them, before it is passed on. */
  onRequest: (line: string) => void
  close: () => Promise<void>
}

/** Files of a certificate authority, of a server at 127.0.0.1 and of a client. */
export interface Certificates {
  ca: string
  serverCert: string
  serverKey: string
  clientCert: string
  clientKey: string
}

/** Make them in a directory. Another directory has another authority. */
export function certificates(directory: string): Certificates {
  const path = (name: string): string => join(directory, name)
  const openssl = (...words: string[]): void =>
    void execFileSync('openssl', words, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-noenc', '-days', '2']
  openssl('req', '-x509', ...key, '-subj', '/CN=authority of the lab', '-keyout', 'ca.key', '-out', 'ca.crt')
  writeFileSync(path('server.ext'), 'subjectAltName = IP:127.0.0.1\n')
  writeFileSync(path('client.ext'), 'extendedKeyUsage = clientAuth\n')
  for (const name of ['server', 'client']) {
    openssl('req', ...key, '-subj', `/CN=${name} of the lab`, '-keyout', `${name}.key`, '-out', `${name}.csr`)
    const authority = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2']
    openssl('x509', '-req', '-in', `${name}.csr`, ...authority, '-extfile', `${name}.ext`, '-out', `${name}.crt`)
  }
  return {
    ca: path('ca.crt'),
    serverCert: path('server.crt'),
    serverKey: path('server.key'),
    clientCert: path('client.crt'),
    clientKey: path('client.key'),
  }
}

/**
 * Stand before a server of this machine. With `tls`, whoever comes must speak TLS and show a certificate of that
 * authority, as a cloud's TLS terminator asks for it.
 * @param to port on 127.0.0.1 that it passes everything on to
 */
export async function startFront(to: number, tls?: Certificates): Promise<Front> {
  const open = new Set<Socket>()
  const pass = (client: Socket): void => {
    let pace: Pace = {}
    const server = connect(to, '127.0.0.1')
    const end = (): void => {
      client.destroy()
      server.destroy()
      open.delete(client)
      open.delete(server)
    }
    for (const socket of [client, server]) {
      open.add(socket)
      socket.on('error', end)
      socket.on('close', () => setTimeout(end, 20))
    }
    client.on('data', (chunk: Buffer) => {
      for (const [line] of chunk.toString('latin1').matchAll(/^[A-Z]+ \S+ HTTP\/1\.[01]$/gm)) {
        front.asked.push(line)
        if (line.includes('/file ')) pace = front.paces.shift() ?? {}
        front.onRequest(line)
      }
      server.write(chunk)
    })
    client.on('end', () => server.end())
    let passed = 0
    server.on('data', (chunk: Buffer) => {
      const { rate, cutAfter = Number.POSITIVE_INFINITY, hold } = pace
      const piece = chunk.subarray(0, cutAfter - passed)
      passed += piece.length
      server.pause()
      client.write(piece, () => {
        if (passed >= cutAfter) void Promise.resolve(hold).then(() => setTimeout(end, 20))
        else setTimeout(() => server.resume(), rate ? (piece.length / rate) * 1000 : 0)
      })
    })
    server.on('end', () => client.end())
  }
  const secrets = tls && {
    cert: readFileSync(tls.serverCert),
    key: readFileSync(tls.serverKey),
    ca: readFileSync(tls.ca),
    requestCert: true,
    rejectUnauthorized: true,
  }
  const listener = secrets ? createTlsServer(secrets, pass) : createServer(pass)
  // A client that turns away from our certificate is no error of ours.
  listener.on('tlsClientError', () => {})
  listener.listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const { port } = listener.address() as AddressInfo
  const front: Front = {
    url: `${tls ? 'https' : 'http'}://127.0.0.1:${port}`,
    paces: [],
    asked: [],
    onRequest: () => {},
    close: async () => {
      listener.close()
      for (const socket of open) socket.destroy()
      await once(listener, 'close')
    },
  }
  return front
}
