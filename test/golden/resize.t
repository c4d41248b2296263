A resize on the same host: the disks are copied, where the file system can by sharing their blocks, and the copies
grow. The old ones stay as NAME_resize until it is confirmed or reverted.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 1G --swap 64M
  $ written() { qemu-io -f qcow2 -c "$1 -P 7 512M 64k" instances/$2/disk | head -1; }
  $ written write web1
  wrote 65536/65536 bytes at offset 536870912

What would be done, and why:

  $ cowhand resize web1 --root 2G --swap 128M --dry-run | norm
  disk: the overlay is copied (<used>), and stays on base <sha1>; 1G becomes 2G
  disk.local: the overlay is copied (<used>), and stays on base ephemeral_0_1_linux
  disk.swap: made anew; 64M becomes 128M
  record-task begun: planned
    write ./instances/web1/instance.json (<size> bytes)
  stage-instance: planned
    mkdir ./instances/web1.incoming
    write ./instances/web1.incoming/move.json (<size> bytes)
    mkdir ./instances/web1.incoming/part
    mkdir ./instances/web1.incoming/reserved
  make-swap-base: planned
    mkdir ./instances/_base
    allocate ./instances/_base/swap_128.part (128M, sparse)
    mkswap -q -p 4096 -L swap0 -U <uuid> ./instances/_base/swap_128.part
    record ./instances/_base/swap_128.json
    publish ./instances/_base/swap_128.part ./instances/_base/swap_128
  create-overlay: planned
    overlay ./instances/web1.incoming/reserved/disk.swap.part (128M) on ./instances/_base/swap_128  [256K of space]
    publish ./instances/web1.incoming/reserved/disk.swap.part ./instances/web1.incoming/reserved/disk.swap
  set-aside-instance: planned
    rename ./instances/web1 ./instances/web1_resize
  copy-files: planned
    copy ./instances/web1_resize/disk ./instances/web1.incoming/part/disk.part (<used>)
    publish ./instances/web1.incoming/part/disk.part ./instances/web1.incoming/part/disk
    copy ./instances/web1_resize/disk.local ./instances/web1.incoming/part/disk.local.part (<used>)
    publish ./instances/web1.incoming/part/disk.local.part ./instances/web1.incoming/part/disk.local
    copy ./instances/web1_resize/console.log ./instances/web1.incoming/part/console.log.part (<used>)
    publish ./instances/web1.incoming/part/console.log.part ./instances/web1.incoming/part/console.log
  record-task handed-over: pending (follows from the steps before)
  receive-disk disk: planned
    inspect ./instances/web1.incoming/part/disk (qcow2, 1G, on a base)
    publish ./instances/web1.incoming/part/disk ./instances/web1.incoming/disk
  rebase-disk disk: planned
    point ./instances/web1.incoming/disk to ./instances/_base/<sha1>
  grow-disk disk: planned
    grow ./instances/web1.incoming/disk to 2G
  grow-file-system disk: pending (follows from the steps before)
  receive-disk disk.local: planned
    inspect ./instances/web1.incoming/part/disk.local (qcow2, 1G, on a base)
    publish ./instances/web1.incoming/part/disk.local ./instances/web1.incoming/disk.local
  rebase-disk disk.local: planned
    point ./instances/web1.incoming/disk.local to ./instances/_base/ephemeral_0_1_linux
  create-overlay: planned
    overlay ./instances/web1.incoming/disk.swap.part (128M) on ./instances/_base/swap_128  [256K of space]
    publish ./instances/web1.incoming/disk.swap.part ./instances/web1.incoming/disk.swap
  receive-file console.log: planned
    publish ./instances/web1.incoming/part/console.log ./instances/web1.incoming/console.log
  settle-instance: planned
    write ./instances/web1.incoming/disk.info (<size> bytes)
    write ./instances/web1.incoming/libvirt.xml (<size> bytes)
    write ./instances/web1.incoming/instance.json (<size> bytes)
  publish-instance: planned
    rename ./instances/web1.incoming ./instances/web1
  clear-sent: ok
  record-task done: pending (follows from the steps before)
  resize web1: 18 of 19 steps to do (about <used> of space); nothing was changed
  $ ls instances
  _base
  locks
  web1

It is done, and again: nothing is left to do.

  $ cowhand resize web1 --root 2G --swap 128M --verbose | grep -v '^ ' | norm
  disk: the overlay is copied (<used>), and stays on base <sha1>; 1G becomes 2G
  disk.local: the overlay is copied (<used>), and stays on base ephemeral_0_1_linux
  disk.swap: made anew; 64M becomes 128M
  record-task begun: changed
  stage-instance: changed
  make-swap-base: changed
  create-overlay: changed
  set-aside-instance: changed
  copy-files: changed
  record-task handed-over: changed
  receive-disk disk: changed
  rebase-disk disk: ok
  grow-disk disk: changed
  grow-file-system disk: ok
  receive-disk disk.local: changed
  rebase-disk disk.local: ok
  create-overlay: changed
  receive-file console.log: changed
  settle-instance: changed
  publish-instance: changed
  clear-sent: ok
  record-task done: changed
  resize web1: done
  $ cowhand resize web1 --root 2G --swap 128M --verbose | norm
  web1: its resize of <time> (root 2G) is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
  resize web1: nothing to do
  $ ls instances
  _base
  locks
  web1
  web1_resize
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    1G         128M  <used>
  web1: its resize of <time> (root 2G) is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
  $ cowhand show web1 | norm
  web1
    image:     debian
    image id:  sha256:<sha256>
    uuid:      <uuid>
    in hand:   its resize of <time> (root 2G) is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
    directory: ./instances/web1
    os type:   linux
    disk (qcow2, 2G, <used> on disk)
    `- ./instances/_base/<sha1> (raw, 8M, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
    `- ./instances/_base/ephemeral_0_1_linux (raw, 1G, <used> on disk)
    disk.swap (qcow2, 128M, <used> on disk)
    `- ./instances/_base/swap_128 (raw, 128M, <used> on disk)
  $ written read web1
  read 65536/65536 bytes at offset 536870912

As long as nobody has decided, nothing else is done to it:

  $ cowhand resize web1 --root 3G |& norm
  cowhand: Cannot resize "web1": its resize of <time> (root 2G) is neither confirmed nor reverted
    remedy: cowhand confirm web1, or go back: cowhand revert web1
  [3]
  $ cowhand delete web1 --yes |& norm
  cowhand: Cannot delete "web1": its resize of <time> (root 2G) is neither confirmed nor reverted
    remedy: cowhand confirm web1, or go back: cowhand revert web1
  [3]
  $ cowhand create web1 --image debian --root 3G |& norm
  cowhand: Cannot create "web1": its resize of <time> (root 2G) is neither confirmed nor reverted
    remedy: cowhand confirm web1, or go back: cowhand revert web1
  [3]

Confirmed, there is no way back any more:

  $ cowhand confirm web1 --dry-run | norm
  record-task confirming: planned
    write ./instances/web1_resize/instance.json (<size> bytes)
  clear-sent: ok
  remove-instance: planned
    touch the records of its bases
    remove ./instances/web1_resize/console.log
    remove ./instances/web1_resize/disk
    remove ./instances/web1_resize/disk.info
    remove ./instances/web1_resize/disk.local
    remove ./instances/web1_resize/disk.swap
    remove ./instances/web1_resize/libvirt.xml
    remove ./instances/web1_resize/instance.json
    rmdir ./instances/web1_resize
  confirm web1: 2 of 3 steps to do; nothing was changed
  $ cowhand confirm web1
  $ cowhand confirm web1 --verbose
  remove-instance: ok
  confirm web1: nothing to do
  $ cowhand revert web1 --yes
  cowhand: Cannot revert "web1": no resize or migration of it is in hand here
    remedy: see what there is: cowhand list
  [3]
  $ ls instances
  _base
  locks
  web1
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    1G         128M  <used>

Reverted, it is what it was, and what its guest has written meanwhile is gone; so somebody has to be sure:

  $ sha256sum instances/web1/disk >before
  $ cowhand resize web1 --root 3G
  $ cowhand revert web1
  cowhand: Cannot delete what "web1" has become since its resize or migration: there is nobody to ask
    remedy: say that you are sure: --yes
  [3]
  $ cowhand revert web1 --dry-run | norm
  record-task reverting: planned
    write ./instances/web1_resize/instance.json (<size> bytes)
  remove-instance: planned
    touch the records of its bases
    remove ./instances/web1/console.log
    remove ./instances/web1/disk
    remove ./instances/web1/disk.info
    remove ./instances/web1/disk.local
    remove ./instances/web1/disk.swap
    remove ./instances/web1/libvirt.xml
    remove ./instances/web1/instance.json
    rmdir ./instances/web1
  remove-stage: ok
  restore-instance: pending (follows from the steps before)
  clear-sent: ok
  record-task over: ok
  revert web1: 3 of 6 steps to do; nothing was changed
  $ cowhand revert web1 --yes
  $ sha256sum -c before
  instances/web1/disk: OK
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    1G         128M  <used>
  $ ls instances
  _base
  locks
  web1

A file system that fills its disk grows with it, unless that is left to the guest:

  $ truncate -s 64M bare.raw && mke2fs -q -F -L root bare.raw && cowhand image add bare.raw
  $ cowhand create web2 --image bare --root 64M
  $ cowhand resize web2 --root 128M --verbose | grep -A3 '^grow' | norm
  grow-disk disk: changed
    grow ./instances/web2.incoming/disk to 128M
  grow-file-system disk: changed
    grow-fs ./instances/web2.incoming/disk
  receive-file console.log: changed
    publish ./instances/web2.incoming/part/console.log ./instances/web2.incoming/console.log
  $ qemu-img convert -f qcow2 -O raw instances/web2/disk web2.raw
  $ dumpe2fs -h web2.raw 2>/dev/null | grep -E '^Block (count|size)'
  Block count:              131072
  Block size:               1024
  $ cowhand confirm web2
  $ cowhand resize web2 --root 256M --grow-fs never --verbose | grep -A3 '^grow' | norm
  grow-disk disk: changed
    grow ./instances/web2.incoming/disk to 256M
  receive-file console.log: changed
    publish ./instances/web2.incoming/part/console.log ./instances/web2.incoming/console.log

Refused
-------

Each of these changes nothing.

  $ tree() { (cd instances && find . -not -path './locks*' -type f -printf '%P %i %s %T@ %m\n' | sort); }
  $ tree >before
  $ cowhand resize web1 --root 1G
  cowhand: Cannot resize "web1" to --root 1G: its root disk has 2G already
    remedy: ask for at least that: --root 2G
  [3]
  $ cowhand resize web1 --ephemeral 512M
  cowhand: Cannot resize "web1" to --ephemeral 512M: its ephemeral disk has 1G already
    remedy: ask for at least that: --ephemeral 1G
  [3]
  $ cowhand resize web1 --root 3G --swap 1500K
  cowhand: Cannot make a swap disk of 1536000 bytes: it is not a whole number of MiB
    remedy: ask for a size such as --swap 512M
  [2]
  $ cowhand create plain --image debian --root 1G
  $ tree >before
  $ cowhand resize plain --ephemeral 1G
  cowhand: Cannot resize "plain" with --ephemeral: it has no ephemeral disk
    remedy: leave --ephemeral out
  [3]
  $ cowhand resize plain --swap 64M
  cowhand: Cannot resize "plain" with --swap: it has no swap disk
    remedy: leave --swap out
  [3]
  $ cowhand resize nothere --root 2G |& norm
  cowhand: Cannot resize "nothere": "./instances" has none of this name
    remedy: see what there is: cowhand list
  [3]
  $ cowhand resize web1 --root 3G --ephemeral-policy refuse
  cowhand: Cannot resize "web1": it has an ephemeral disk, and --ephemeral-policy is refuse
    remedy: let it travel: --ephemeral-policy copy; or have an empty one made: --ephemeral-policy recreate
  [3]
  $ cowhand migrate web1
  cowhand: Cannot read the command "migrate": --to is missing
    remedy: add it; what it means: cowhand migrate --help
  [2]
  $ cowhand confirm plain
  $ cowhand confirm nothere
  cowhand: Cannot confirm "nothere": no resize or migration of it is in hand here
    remedy: see what there is: cowhand list
  [3]
  $ cowhand revert plain --yes
  cowhand: Cannot revert "plain": no resize or migration of it is in hand here
    remedy: see what there is: cowhand list
  [3]
  $ tree | diff before -

A guest that runs without a libvirt that could stop it:

  $ qemu-io -f qcow2 -c 'sleep 4000' instances/plain/disk & sleep 1
  $ cowhand resize plain --root 2G |& norm
  cowhand: Cannot resize "plain": a running guest has its disk open, and no libvirt is configured that could stop it
    remedy: set libvirt_uri, or stop the guest first
  [3]
  $ wait %1

A disk whose format nobody wrote down, or which stands on what is not ours:

  $ mv instances/plain/disk.info instances/plain/libvirt.xml .
  $ cowhand resize plain --root 2G |& norm
  cowhand: Cannot move "./instances/plain/disk": its format is not known: neither disk.info nor libvirt.xml says it
    remedy: if you are sure of it, write it down: echo '{"./instances/plain/disk": "qcow2"}' > ./instances/plain/disk.info
  [3]
  $ mv disk.info libvirt.xml instances/plain/
  $ cp instances/plain/disk whole
  $ cp instances/_base/$(cowhand image show debian --json | jq -j .id | sha1sum | cut -c -40) mine
  $ qemu-img rebase -u -f qcow2 -F raw -b "$PWD/mine" instances/plain/disk
  $ cowhand resize plain --root 2G |& norm
  cowhand: Cannot move "./instances/plain/disk": it stands on "./mine", which is no base in "./instances/_base"
    remedy: merge it with its base, with its guest off: qemu-img rebase -f qcow2 -b '' ./instances/plain/disk
  [3]
  $ cp whole instances/plain/disk

Something else that has the name of what is kept:

  $ mkdir instances/plain_resize && touch instances/plain_resize/notes
  $ cowhand resize plain --root 2G |& norm
  cowhand: Cannot move "plain": "./instances/plain_resize" is there, and it is of no resize or migration of cowhand
    remedy: look at it, and move it away: ls -l ./instances/plain_resize
  [3]
  $ ls instances/plain_resize
  notes
  $ rm -r instances/plain_resize
  $ cowhand resize plain --root 2G
