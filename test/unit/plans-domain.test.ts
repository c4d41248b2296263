import { awaitDomain } from '../../scripts/steps/await-domain.ts'
import { blockresizeDisk } from '../../scripts/steps/blockresize-disk.ts'
import { collectState } from '../../scripts/steps/collect-state.ts'
import { placeState } from '../../scripts/steps/place-state.ts'
import { replaceDomain } from '../../scripts/steps/replace-domain.ts'
import { shutdownDomain } from '../../scripts/steps/shutdown-domain.ts'
import { plans } from './plans.ts'

// The steps of a domain that is resized or goes to another host.

const uuid = '11111111-2222-4333-8444-555555555555'
const stranger = '99999999-2222-4333-8444-555555555555'
const uri = 'qemu:///system'
const domain = (state: string, id = uuid) => ({ name: 'vm1', uuid: id, state })
const [off, on] = [domain('shut off'), domain('running')]
const given = { uri, name: 'vm1', uuid }
type Found<S extends { inspect: (...words: never[]) => Promise<unknown> }> = Awaited<ReturnType<S['inspect']>>

const at = (state: string) => ({ domain: domain(state) })
plans(shutdownDomain, { ...given, 'shutdown-timeout': '60s' }, { domain: on } as Found<typeof shutdownDomain>, [
  { name: 'it runs', then: ['power-off vm1 (by its power button, after 60 s by its plug)'] },
  { name: 'at once', input: { 'shutdown-timeout': '0' }, then: ['power-off vm1 (by its plug)'] },
  { name: 'it is off', found: at('shut off'), then: [] },
  { name: 'libvirt does not know it', found: { domain: undefined }, then: [] },
  { name: 'it crashed', found: at('crashed'), then: ['power-off vm1 (by its power button, after 60 s by its plug)'] },
  {
    name: 'it goes off by itself',
    found: at('in shutdown'),
    then: ['power-off vm1 (by its power button, after 60 s by its plug)'],
  },
  { name: 'it is paused: for people', found: at('paused'), then: 'UNSUPPORTED' },
  { name: 'it sleeps: for people', found: at('pmsuspended'), then: 'UNSUPPORTED' },
  {
    name: 'paused, at once',
    input: { 'shutdown-timeout': '0' },
    found: at('paused'),
    then: ['power-off vm1 (by its plug)'],
  },
  { name: 'another one of this name', found: { domain: domain('running', stranger) }, then: 'DOMAIN_EXISTS' },
])

plans(awaitDomain, { ...given, 'start-timeout': '30s' }, { domain: on } as Found<typeof awaitDomain>, [
  { name: 'it runs', then: [] },
  { name: 'it is off', found: at('shut off'), then: ['await vm1 (running, 30 s)'] },
  { name: 'libvirt does not know it', found: { domain: undefined }, then: 'MISSING_PREREQUISITE' },
  { name: 'another one of this name', found: { domain: domain('running', stranger) }, then: 'DOMAIN_EXISTS' },
])

const defined = `virsh -q -c ${uri} define /i/vm1/libvirt.xml`
const starts = (words: string) => `virsh -q -c ${uri} autostart ${words}${uuid}`
plans(
  replaceDomain,
  { ...given, xml: '/i/vm1/libvirt.xml' },
  { domain: undefined, isWritten: true, isSame: false } as Found<typeof replaceDomain>,
  [
    { name: 'libvirt does not know it', then: [defined] },
    { name: 'it has it otherwise', found: { domain: off }, then: [defined] },
    { name: 'it has it so', found: { domain: off, isSame: true }, then: [] },
    { name: 'and it runs', found: { domain: on, isSame: true }, then: [] },
    { name: 'it has it otherwise, and it runs', found: { domain: on }, then: 'IN_USE' },
    { name: 'it is to start with the host', input: { autostart: true }, then: [defined, starts('')] },
    { name: 'it is not to', input: { autostart: false }, then: [defined] },
    {
      name: 'it starts with the host, and is not to',
      input: { autostart: false },
      found: { domain: { ...off, autostart: true }, isSame: true },
      then: [starts('--disable ')],
    },
    {
      name: 'it does, as it is to',
      input: { autostart: true },
      found: { domain: { ...off, autostart: true }, isSame: true },
      then: [],
    },
    { name: 'there is no definition', found: { isWritten: false }, then: 'MISSING_PREREQUISITE' },
    { name: 'another one of this name', found: { domain: domain('shut off', stranger) }, then: 'DOMAIN_EXISTS' },
  ],
)

const [xml, variables, remembered] = ['<domain/>', 'uefi', 'tpm'].map((text) => Buffer.from(text)) as [
  Buffer,
  Buffer,
  Buffer,
]
const all = new Map([
  ['definition.xml', xml],
  ['nvram.fd', variables],
  ['tpm/tpm2-00.permall', remembered],
])
const written = {
  definition: 'write /i/vm1/definition.xml (9 bytes)',
  nvram: 'write /i/vm1/nvram.fd (4 bytes)',
  tpm: 'write /i/vm1/tpm/tpm2-00.permall (3 bytes)',
}
plans(
  collectState,
  { ...given, directory: '/i/vm1' },
  { domain: off, phase: 'begun', state: all, hasTpm: false, kept: new Map() } as Found<typeof collectState>,
  [
    {
      name: 'everything is kept',
      then: ['mkdir /i/vm1/tpm', written.definition, written.nvram, written.tpm],
    },
    { name: 'it is kept', found: { kept: all, hasTpm: true }, then: [] },
    {
      name: 'what is kept is of another time',
      found: { kept: new Map([...all, ['nvram.fd', Buffer.from('old')]]), hasTpm: true },
      then: [written.nvram],
    },
    {
      name: 'of a TPM that it has no more',
      found: { kept: all, hasTpm: true, state: new Map([...all].slice(0, 2)) },
      then: ['remove /i/vm1/tpm/tpm2-00.permall'],
    },
    { name: 'handed over, libvirt has something else', found: { phase: 'handed-over' }, then: [] },
    { name: 'done, libvirt has something else', found: { phase: 'done' }, then: [] },
    {
      name: 'libvirt has it no more, and it is kept',
      found: { domain: undefined, state: undefined, kept: all },
      then: [],
    },
    { name: 'libvirt has it no more', found: { domain: undefined, state: undefined }, then: 'MISSING_PREREQUISITE' },
    { name: 'it runs', found: { domain: on, state: undefined }, then: 'IN_USE' },
    {
      name: 'another one of this name',
      found: { domain: domain('shut off', stranger), state: undefined },
      then: 'DOMAIN_EXISTS',
    },
  ],
)

const [nvram, tpm] = ['/var/lib/libvirt/qemu/nvram/vm1_VARS.fd', `/var/lib/libvirt/swtpm/${uuid}`]
plans(
  placeState,
  { ...given, directory: '/i/vm1' },
  {
    placed: [
      { file: 'nvram.fd', to: nvram, bytes: variables },
      { file: 'tpm/tpm2-00.permall', to: `${tpm}/tpm2/tpm2-00.permall`, bytes: remembered },
    ],
    isEmptied: true,
    domain: undefined,
  } as Found<typeof placeState>,
  [
    {
      name: 'it is put into its place, and old ones are not kept',
      then: [
        `mkdir ${tpm}`,
        `mkdir ${tpm}/tpm2`,
        `write ${nvram} (4 bytes)`,
        `write ${tpm}/tpm2/tpm2-00.permall (3 bytes)`,
        'remove /i/vm1/nvram.fd',
        'remove /i/vm1/tpm/tpm2-00.permall',
        'rmdir /i/vm1/tpm',
      ],
    },
    { name: 'it has none, or it is there', found: { placed: [], isEmptied: false }, then: [] },
    {
      name: 'only a UEFI',
      found: { placed: [{ file: 'nvram.fd', to: nvram, bytes: variables }], isEmptied: false, domain: off },
      then: [`write ${nvram} (4 bytes)`, 'remove /i/vm1/nvram.fd'],
    },
    { name: 'its guest runs', found: { domain: on }, then: 'IN_USE' },
    { name: 'another one of this name', found: { domain: domain('shut off', stranger) }, then: 'DOMAIN_EXISTS' },
  ],
)

plans(
  blockresizeDisk,
  { ...given, disk: '/i/vm1/disk', size: '2G' },
  { domain: on, capacity: 2 ** 30 } as Found<typeof blockresizeDisk>,
  [
    { name: 'it grows', then: [`virsh -q -c ${uri} blockresize ${uuid} /i/vm1/disk ${2 ** 31}B`] },
    { name: 'it has grown', found: { capacity: 2 ** 31 }, then: [] },
    { name: 'it would shrink', found: { capacity: 2 ** 32 }, then: 'UNSUPPORTED' },
    { name: 'its guest is off', found: { domain: off, capacity: undefined }, then: 'MISSING_PREREQUISITE' },
    { name: 'its guest has no such disk', found: { capacity: undefined }, then: 'MISSING_PREREQUISITE' },
    {
      name: 'libvirt does not know it',
      found: { domain: undefined, capacity: undefined },
      then: 'MISSING_PREREQUISITE',
    },
    { name: 'another one of this name', found: { domain: domain('running', stranger) }, then: 'DOMAIN_EXISTS' },
  ],
)
