import type { Query } from '../lib/job/query.ts'
import type { Pipeline, Step } from '../lib/job/step.ts'

type Loader<T> = () => Promise<T>
const erased =
  <T>(load: () => Promise<unknown>): Loader<T> =>
  () =>
    load() as Promise<T>

// Literal imports only: a bundler sees no others, and a command loads no more than it needs.

/** What changes something. */
export const pipelines: Record<string, Loader<Pipeline>> = {
  'cache clean': erased(async () => (await import('./pipelines/cache-clean.ts')).cacheClean),
  'cache prefetch': erased(async () => (await import('./pipelines/cache-prefetch.ts')).cachePrefetch),
  'cache verify': erased(async () => (await import('./pipelines/cache-verify.ts')).cacheVerify),
  confirm: erased(async () => (await import('./pipelines/confirm.ts')).confirm),
  create: erased(async () => (await import('./pipelines/create.ts')).create),
  delete: erased(async () => (await import('./pipelines/delete.ts')).remove),
  'image add': erased(async () => (await import('./pipelines/image-add.ts')).imageAdd),
  'image remove': erased(async () => (await import('./pipelines/image-remove.ts')).imageRemove),
  migrate: erased(async () => (await import('./pipelines/migrate.ts')).migrate),
  'migrate-destination': erased(async () => (await import('./pipelines/migrate-destination.ts')).migrateDestination),
  'migrate-source': erased(async () => (await import('./pipelines/migrate-source.ts')).migrateSource),
  resize: erased(async () => (await import('./pipelines/resize.ts')).resize),
  revert: erased(async () => (await import('./pipelines/revert.ts')).revert),
}

/** What only looks. */
export const queries: Record<string, Loader<Query>> = {
  list: erased(async () => (await import('./queries/list.ts')).list),
  show: erased(async () => (await import('./queries/show.ts')).show),
  'cache list': erased(async () => (await import('./queries/cache-list.ts')).cacheList),
  'image list': erased(async () => (await import('./queries/image-list.ts')).imageList),
  'image show': erased(async () => (await import('./queries/image-show.ts')).imageShow),
  doctor: erased(async () => (await import('./queries/doctor.ts')).doctorQuery),
  'rsyncd-conf': erased(async () => (await import('./queries/rsyncd-conf.ts')).rsyncdConf),
}

export const steps: Record<string, Loader<Step>> = {
  'ask-destination': erased(async () => (await import('./steps/ask-destination.ts')).askDestination),
  'await-domain': erased(async () => (await import('./steps/await-domain.ts')).awaitDomain),
  'blockresize-disk': erased(async () => (await import('./steps/blockresize-disk.ts')).blockresizeDisk),
  'cache-base': erased(async () => (await import('./steps/cache-base.ts')).cacheBase),
  'clean-bases': erased(async () => (await import('./steps/clean-bases.ts')).cleanBases),
  'clear-sent': erased(async () => (await import('./steps/clear-sent.ts')).clearSent),
  'collect-state': erased(async () => (await import('./steps/collect-state.ts')).collectState),
  'copy-files': erased(async () => (await import('./steps/copy-files.ts')).copyFiles),
  'create-overlay': erased(async () => (await import('./steps/create-overlay.ts')).createOverlay),
  'define-domain': erased(async () => (await import('./steps/define-domain.ts')).defineDomain),
  'extend-base': erased(async () => (await import('./steps/extend-base.ts')).extendBase),
  'fetch-disk': erased(async () => (await import('./steps/fetch-disk.ts')).fetchDisk),
  'grow-disk': erased(async () => (await import('./steps/grow-disk.ts')).growDisk),
  'grow-file-system': erased(async () => (await import('./steps/grow-file-system.ts')).growFileSystem),
  'import-image': erased(async () => (await import('./steps/import-image.ts')).importImage),
  'make-ephemeral-base': erased(async () => (await import('./steps/make-ephemeral-base.ts')).makeEphemeralBase),
  'make-seed': erased(async () => (await import('./steps/make-seed.ts')).makeSeed),
  'make-swap-base': erased(async () => (await import('./steps/make-swap-base.ts')).makeSwapBase),
  'note-bases': erased(async () => (await import('./steps/note-bases.ts')).noteBases),
  'place-state': erased(async () => (await import('./steps/place-state.ts')).placeState),
  'prepare-copy': erased(async () => (await import('./steps/prepare-copy.ts')).prepareCopy),
  'probe-daemon': erased(async () => (await import('./steps/probe-daemon.ts')).probeDaemon),
  'prove-base': erased(async () => (await import('./steps/prove-base.ts')).proveBase),
  'publish-instance': erased(async () => (await import('./steps/publish-instance.ts')).publishInstance),
  'push-base': erased(async () => (await import('./steps/push-base.ts')).pushBase),
  'push-files': erased(async () => (await import('./steps/push-files.ts')).pushFiles),
  'rebase-disk': erased(async () => (await import('./steps/rebase-disk.ts')).rebaseDisk),
  'receive-base': erased(async () => (await import('./steps/receive-base.ts')).receiveBase),
  'receive-disk': erased(async () => (await import('./steps/receive-disk.ts')).receiveDisk),
  'receive-file': erased(async () => (await import('./steps/receive-file.ts')).receiveFile),
  'record-instance': erased(async () => (await import('./steps/record-instance.ts')).recordInstance),
  'record-sizes': erased(async () => (await import('./steps/record-sizes.ts')).recordSizes),
  'record-task': erased(async () => (await import('./steps/record-task.ts')).recordTask),
  'remove-image': erased(async () => (await import('./steps/remove-image.ts')).removeImage),
  'remove-instance': erased(async () => (await import('./steps/remove-instance.ts')).removeInstance),
  'remove-stage': erased(async () => (await import('./steps/remove-stage.ts')).removeStage),
  'replace-domain': erased(async () => (await import('./steps/replace-domain.ts')).replaceDomain),
  'restore-instance': erased(async () => (await import('./steps/restore-instance.ts')).restoreInstance),
  'set-aside-instance': erased(async () => (await import('./steps/set-aside-instance.ts')).setAsideInstance),
  'settle-instance': erased(async () => (await import('./steps/settle-instance.ts')).settleInstance),
  'shutdown-domain': erased(async () => (await import('./steps/shutdown-domain.ts')).shutdownDomain),
  'stage-instance': erased(async () => (await import('./steps/stage-instance.ts')).stageInstance),
  'start-domain': erased(async () => (await import('./steps/start-domain.ts')).startDomain),
  'stop-domain': erased(async () => (await import('./steps/stop-domain.ts')).stopDomain),
  'undefine-domain': erased(async () => (await import('./steps/undefine-domain.ts')).undefineDomain),
  'verify-base': erased(async () => (await import('./steps/verify-base.ts')).verifyBase),
  'write-domain': erased(async () => (await import('./steps/write-domain.ts')).writeDomain),
}
