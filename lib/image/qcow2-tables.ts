import { type ImageFile, reject, roundUp, u64be } from './file.ts'

const MiB = 2 ** 20

/** What the header of a qcow2 file says, as far as its tables depend on it. Sizes are in bytes. */
interface Shape {
  version: 2 | 3
  clusterSize: number
  extendedL2: boolean
  virtualSize: number
  /** The bitmaps extension, when it is valid. */
  bitmaps: Buffer | undefined
}

type Must = (ok: boolean, state: string) => void
/** Bytes of the file: the first one, and the one behind the last. */
interface Place {
  from: number
  to: number
}
/** The table lies inside the file, and takes whole clusters of it for itself. */
type Lies = (from: number, length: number, what: string, end?: number) => Place

/**
 * Where the tables of a qcow2 file lie, with qemu's own limits on their sizes (CVE-2014-0143 to 0147, 0222, 0223), and
 * that no two share a cluster. What they hold is not read, snapshots excepted: that is what `qemu-img check` is for.
 * @throws {Problem} IMAGE_REJECTED where one is absurd, or not inside the file
 */
export function checkTables(file: ImageFile, shape: Shape): void {
  const { head, size } = file
  const { clusterSize, virtualSize } = shape
  const must: Must = (ok, state) => {
    if (!ok) reject(file.path, state)
  }
  const places = [{ from: 0, to: clusterSize }]
  // qemu ends a new file with the last L1 entry, not with the cluster.
  const lies: Lies = (from, length, what, end = size) => {
    if (length === 0) return { from, to: from }
    must(from >= clusterSize && from % clusterSize === 0 && from + length <= end, `${what} is not inside the file`)
    const place = { from, to: roundUp(from + length, clusterSize) }
    places.push(place)
    return place
  }
  const perL1Entry = clusterSize * (clusterSize / (shape.extendedL2 ? 16 : 8))

  const l1Entries = head.readUInt32BE(36)
  must(l1Entries * 8 <= 32 * MiB, `its L1 table of ${l1Entries} entries is absurd`)
  must(l1Entries >= Math.ceil(virtualSize / perL1Entry), 'its L1 table is too small for its virtual size')
  lies(u64be(head, 40), l1Entries * 8, 'its L1 table')

  const refcounts = head.readUInt32BE(56) * clusterSize
  must(refcounts > 0 && refcounts <= Math.max(8 * MiB, clusterSize), 'its refcount table is missing or absurd')
  lies(u64be(head, 48), refcounts, 'its refcount table', roundUp(size, clusterSize))

  if (head.readUInt32BE(60) > 0) checkSnapshots(file, shape.version, perL1Entry, must, lies)
  if (shape.bitmaps) checkBitmaps(shape.bitmaps, must, lies)

  places.sort((a, b) => a.from - b.from)
  const apart = places.every(({ from }, i) => from >= (places[i - 1]?.to ?? 0))
  must(apart, 'two of its tables lie in the same place')
}

/** Each snapshot has an entry of its own length, and an L1 table. Nobody ships thousands; qemu would take 65536. */
function checkSnapshots(file: ImageFile, version: 2 | 3, perL1Entry: number, must: Must, lies: Lies): void {
  const snapshots = file.head.readUInt32BE(60)
  must(snapshots <= 1024, `its ${snapshots} snapshots are absurd`)
  const place = lies(u64be(file.head, 64), snapshots * 40, 'its snapshot table')
  let at = place.from
  for (let i = 0; i < snapshots; i++) {
    const entry = file.read(at, 40)
    const l1Entries = entry.readUInt32BE(8)
    must(l1Entries * 8 <= 32 * MiB, `the L1 table of a snapshot, of ${l1Entries} entries, is absurd`)
    lies(u64be(entry, 0), l1Entries * 8, 'the L1 table of a snapshot')
    const extra = entry.readUInt32BE(36)
    must(extra <= 1024 && (version === 2 || extra >= 16), `${extra} bytes of extra data in a snapshot are absurd`)
    // Behind its disk a snapshot may hold the memory of the guest, through the same table.
    const state = extra < 8 ? entry.readUInt32BE(32) : u64be(file.read(at + 40, 8), 0)
    must(state <= l1Entries * perL1Entry, 'the memory in a snapshot is larger than its table')
    at += roundUp(40 + extra + entry.readUInt16BE(12) + entry.readUInt16BE(14), 8)
  }
  must(at <= roundUp(file.size, 8), 'its snapshot table is cut short')
  // Only now is known how long it is.
  place.to = Math.max(place.to, at)
}

/** The directory of the bitmaps; the limits are those of block/qcow2-bitmap.c. */
function checkBitmaps(extension: Buffer, must: Must, lies: Lies): void {
  const count = extension.readUInt32BE(0)
  const length = u64be(extension, 8)
  must(count >= 1 && count <= 65535 && extension.readUInt32BE(4) === 0, `its ${count} bitmaps are absurd`)
  must(length >= count * 24 && length <= count * 2048, 'its bitmap directory has an absurd size')
  lies(u64be(extension, 16), length, 'its bitmap directory')
}
