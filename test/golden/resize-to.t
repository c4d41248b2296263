A resize to another host: disks grow on the way. What a base is has to be the same there, to the byte, and is proven.

  $ . "$TESTDIR/two-hosts.sh"

The root disk is a bare file system, which grows with its disk:

  $ truncate -s 64M bare.raw && mke2fs -q -F -L root bare.raw
  $ for host in '' beta; do $host cowhand image add $PWD/bare.raw --name bare; done
  $ cowhand create web1 --image bare --root 1G --ephemeral 1G --swap 64M --network none --memory 64M

beta has the image in its own store, so nothing but the overlay is sent. Empty file systems are made with the same bytes
on every host; swap is worth nothing to a guest that was off:

  $ cowhand resize web1 --root 2G --swap 128M --to beta --dry-run | grep -v '^ ' | norm
  disk: only the overlay travels (<used>), base <sha1> comes from the image store there; 1G becomes 2G
  disk.local: only the overlay travels (<used>), base ephemeral_0_1_linux is made there, and its content compared
  disk.swap: made anew there, nothing travels; 64M becomes 128M
  beta: <used> to send at most; <used> to allocate of <used> free
  beta: by ssh, compressed: <reason>
  record-task begun: planned
  ask-destination beta (prepare): planned
  shutdown-domain: planned
  set-aside-instance: pending (follows from the steps before)
  collect-state: pending (follows from the steps before)
  push-files: planned
  record-task handed-over: pending (follows from the steps before)
  ask-destination beta (finish): planned
  undefine-domain: planned
  clear-sent: ok
  record-task done: pending (follows from the steps before)
  resize web1: 10 of 11 steps to do (<used> to send at most); nothing was changed
  $ cowhand resize web1 --root 2G --swap 128M --to beta --shutdown-timeout 0 --verbose | tail -1 | norm
  resize web1: done, <used> sent, guest away for <seconds> s
  $ beta cowhand show web1 | norm | grep disk
    disk (qcow2, 2G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/<sha1> (raw, 64M, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/ephemeral_0_1_linux (raw, 1G, <used> on disk)
    disk.swap (qcow2, 128M, <used> on disk)
    `- /var/lib/cowhand/instances/_base/swap_128 (raw, 128M, <used> on disk)
  $ beta virsh -q domblkinfo web1 vda | grep Capacity
  Capacity:       2147483648
  $ cowhand confirm web1
  $ beta cowhand list | norm
  NAME  IMAGE  ROOT  EPHEMERAL  SWAP  ON DISK
  web1  bare   2G    1G         128M  <used>

As a document, it is what a script reads:

  $ beta cowhand migrate web1 --to alpha --shutdown-timeout 0 --json >moved.json
  $ jq -c 'del(.steps, .disks, .reasons)' moved.json | norm
  {"version":1,"task":"migrate","ok":true,"changed":true,"instance":"web1","downtimeSeconds":<seconds>,"bytes":{"fetched":0,"sent":<bytes>}}
  $ jq -r '.reasons[]' moved.json | norm
  disk: only the overlay travels (<used>), base <sha1> is there already, proven by its image's digest
  disk.local: only the overlay travels (<used>), base ephemeral_0_1_linux is there already, proven by its content
  disk.swap: made anew there, nothing travels
  alpha: <used> to send at most; <used> to allocate of <used> free
  alpha: by ssh, compressed: <reason>
  $ beta cowhand confirm web1

A disk may also travel merged with its base. Here it is sent to the rsync daemon of the other host, which is set up with
what `cowhand rsyncd-conf` prints there:

  $ cowhand migrate web1 --to beta --flatten --transport rsyncd --shutdown-timeout 0 --verbose | grep -E '^[bd]|push|^migrate' | norm
  disk: merged with its base, and then the whole travels (at most <used>), as asked
  disk.local: merged with its base, and then the whole travels (at most <used>), as asked
  disk.swap: made anew there, nothing travels
  beta: <used> to send at most; <used> to allocate of <used> free
  beta: by rsyncd, compressed: <reason>
    push /var/lib/cowhand/instances/web1/instance.json beta:/var/lib/cowhand/instances/web1.incoming/part/ (<used>, rsyncd)
  push-files: changed
    push /var/lib/cowhand/instances/web1_resize/send/disk /var/lib/cowhand/instances/web1_resize/send/disk.local /var/lib/cowhand/instances/web1_resize/console.log beta:/var/lib/cowhand/instances/web1.incoming/part/ (<used>, rsyncd)
  migrate web1: done, <used> sent, guest away for <seconds> s
  $ beta cowhand show web1 | norm | grep -A1 ' disk '
    disk (qcow2, 2G, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
