A delta snapshot is an image of which only the copy-on-write part was uploaded. A guest has written to its disk:

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2 --name debian
  $ cowhand create web1 --image debian --root 32M
  $ qemu-io -f qcow2 -c 'write -P 0x77 2M 300k' instances/web1/disk >/dev/null

The overlay alone is taken as an image. It names its base, and nothing but a name: the sha1 of the id of the image that
the base was made of. The property base_image_id_sha1 says the same:

  $ base=$(cowhand image show debian --json | jq -j .id | sha1sum | cut -c -40)
  $ cp instances/web1/disk snap.qcow2
  $ qemu-img rebase -u -f qcow2 -F raw -b $base snap.qcow2
  $ delta() { cowhand image add "$1" --name "$2" --property image_type=snapshot --property base_image_id_sha1="$3"; }
  $ delta snap.qcow2 snap $base

On another host, where the base is not cached yet, it is made first, of the image that it names:

  $ qemu-img convert -f qcow2 -O raw instances/web1/disk was.raw
  $ rm -r instances
  $ cowhand create web2 --image snap --root 64M --dry-run | norm
  root disk: the image is a delta snapshot: its base is found by name
  cache-base: planned
    mkdir ./instances/_base
    examine ./images/debian.qcow2 (qcow2)
    qemu-img check -q -f qcow2 ./images/debian.qcow2
    qemu-img convert -p -W -m 16 -f qcow2 -O raw ./images/debian.qcow2 ./instances/_base/<sha1>.converted  [1.3M of space]
    record ./instances/_base/<sha1>.json
    publish ./instances/_base/<sha1>.converted ./instances/_base/<sha1>
  record-instance: planned
    mkdir ./instances/web2
    write ./instances/web2/disk.info (<size> bytes)
    write ./instances/web2/instance.json (<size> bytes)
  fetch-disk: planned
    copy ./images/snap.qcow2 ./instances/web2/disk.part (324K)  [324K of space]
    examine ./instances/web2/disk.part (qcow2 on <sha1>)
    rebase ./instances/web2/disk.part on ./instances/_base/<sha1>
    qemu-img resize -q -f qcow2 ./instances/web2/disk.part 67108864
    qemu-img check -q -f qcow2 ./instances/web2/disk.part
    publish ./instances/web2/disk.part ./instances/web2/disk
  write-domain: planned
    write ./instances/web2/libvirt.xml (<size> bytes)
    write ./instances/web2/console.log (<size> bytes)
  create web2: 4 of 4 steps to do (about 1.6M of space); nothing was changed
  $ cowhand create web2 --image snap --root 64M --verbose | grep -v '^ '
  root disk: the image is a delta snapshot: its base is found by name
  cache-base: changed
  record-instance: changed
  fetch-disk: changed
  write-domain: changed
  create web2: done

The disk shows what the guest wrote, stands on this host's own base, and has grown (what is new is zero):

  $ qemu-img compare -f qcow2 -F raw instances/web2/disk was.raw
  Warning: Image size mismatch!
  Images are identical.
  $ cowhand show web2 | norm
  web2
    image:     snap
    image id:  sha256:<sha256>
    uuid:      <uuid>
    directory: ./instances/web2
    os type:   linux
    disk (qcow2, 64M, <used> on disk)
    `- ./instances/_base/<sha1> (raw, 8M, <used> on disk)
  $ cowhand create web2 --image snap --root 64M --verbose
  root disk: the image is a delta snapshot: its base is found by name
  cache-base: ok
  record-instance: ok
  fetch-disk: ok
  write-domain: ok
  create web2: nothing to do

A smaller disk than the guest's own would cut it off:

  $ cowhand create web3 --image snap --root 16M 2>&1 | norm
  cowhand: Cannot create "web3" with --root 16M: image "snap" has 32M
    remedy: ask for at least that: --root 32M
  [3]

What a delta says of its base is its maker's word. It is held against its property:

  $ delta snap.qcow2 other $(printf x | sha1sum | cut -c -40) 2>&1 | norm
  cowhand: Cannot use image "./snap.qcow2": its backing file is not the base <sha1>
    remedy: give the image that stands on the base <sha1>
  [3]
  $ cp snap.qcow2 thief.qcow2
  $ qemu-img rebase -u -f qcow2 -F raw -b /etc/shadow thief.qcow2
  $ delta thief.qcow2 thief $base 2>&1 | norm
  cowhand: Cannot use image "./thief.qcow2": its backing file is not the base <sha1>
    remedy: give the image that stands on the base <sha1>
  [3]
  $ qemu-img rebase -u -f qcow2 -F qcow2 -b $base thief.qcow2
  $ delta thief.qcow2 thief $base 2>&1 | norm
  cowhand: Cannot use image "./thief.qcow2": its backing file is declared other than raw
    remedy: give the image that stands on the base <sha1>
  [3]

and a whole image it is not:

  $ cowhand image add snap.qcow2 --name whole 2>&1 | norm
  cowhand: Cannot use image "./snap.qcow2": it has a backing file
    remedy: if you trust its maker, have it made whole: qemu-img convert -O qcow2 IMAGE NEW-IMAGE
  [3]
  $ COWHAND_SNAPSHOT_OPTIMIZATION=false cowhand create web3 --image snap --root 64M 2>&1 | norm
  cowhand: Cannot create "web3" from "snap": it is a delta snapshot, and snapshot_optimization is off
    remedy: use an image that holds the whole disk
  [3]

A base that is itself a delta is refused, however deep the chain is:

  $ above=$(cowhand image show snap --json | jq -j .id | sha1sum | cut -c -40)
  $ qemu-img rebase -u -f qcow2 -F raw -b $above thief.qcow2
  $ delta thief.qcow2 second $above
  $ cowhand create web3 --image second --root 64M 2>&1 | norm
  cowhand: Cannot use image "second": its base "snap" is a delta itself
    remedy: use an image that holds the whole disk
  [3]

The image of the base may be gone, as long as the base is in the cache and its record says of which image it is:

  $ cowhand image remove debian --yes
  $ cowhand create web3 --image snap --root 64M
  $ qemu-img compare -f qcow2 -F qcow2 instances/web2/disk instances/web3/disk
  Images are identical.
  $ rm -r instances
  $ cowhand create web3 --image snap --root 64M 2>&1 | norm
  cowhand: Cannot use image "snap": the image of its base <sha1> is not in the store, and the base not in the cache
    remedy: add that image again, or use an image that holds the whole disk
  [3]
  $ ls instances
  ls: cannot access 'instances': No such file or directory
  [2]
