An instance goes to another host. Only what its guest wrote travels; what it was is kept here until it is confirmed or
reverted. The same runs on the hosts of an operator: libvirt, sshd, and root's key and known_hosts for the way.

  $ . "$TESTDIR/two-hosts.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 1G --swap 64M --network none --memory 64M
  $ virsh -q domstate web1
  running

First what both would do. Each disk has the reason of its way, and the whole its price; beta has never seen this image:

  $ cowhand migrate web1 --to beta --bwlimit 20M --dry-run | norm
  disk: the overlay travels (<used>), and base <sha1> (1M): it is not there, and the image is not in the store
  disk.local: only the overlay travels (<used>), base ephemeral_0_1_linux is made there, and its content compared
  disk.swap: made anew there, nothing travels
  beta: <used> to send at most, about <seconds> s at 20M/s; <used> to allocate of <used> free
  beta: by ssh, compressed: <reason>
  record-task begun: planned
    write /var/lib/cowhand/instances/web1/instance.json (<size> bytes)
  ask-destination beta (prepare): planned
    ask beta to prepare web1
    beta: mkdir /var/lib/cowhand/instances/web1.incoming
    beta: write /var/lib/cowhand/instances/web1.incoming/move.json (<size> bytes)
    beta: mkdir /var/lib/cowhand/instances/web1.incoming/part
    beta: mkdir /var/lib/cowhand/instances/web1.incoming/reserved
    beta: mkdir /var/lib/cowhand/instances/_base
    beta: allocate /var/lib/cowhand/instances/_base/ephemeral_0_1_linux.part (1G, sparse)
    beta: mke2fs -q -F -T default -L ephemeral0 -U <uuid> -b 4096 -I 256 -i 16384 -m 5 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file,extent,64bit,flex_bg,huge_file,dir_nlink,extra_isize,metadata_csum -E hash_seed=<uuid>,root_owner=0:0,assume_storage_prezeroed=1 /var/lib/cowhand/instances/_base/ephemeral_0_1_linux.part
    beta: record /var/lib/cowhand/instances/_base/ephemeral_0_1_linux.json
    beta: publish /var/lib/cowhand/instances/_base/ephemeral_0_1_linux.part /var/lib/cowhand/instances/_base/ephemeral_0_1_linux
    beta: overlay /var/lib/cowhand/instances/web1.incoming/reserved/disk.local.part (1G) on /var/lib/cowhand/instances/_base/ephemeral_0_1_linux
    beta: publish /var/lib/cowhand/instances/web1.incoming/reserved/disk.local.part /var/lib/cowhand/instances/web1.incoming/reserved/disk.local
    beta: mkdir /var/lib/cowhand/instances/_base
    beta: allocate /var/lib/cowhand/instances/_base/swap_64.part (64M, sparse)
    beta: mkswap -q -p 4096 -L swap0 -U <uuid> /var/lib/cowhand/instances/_base/swap_64.part
    beta: record /var/lib/cowhand/instances/_base/swap_64.json
    beta: publish /var/lib/cowhand/instances/_base/swap_64.part /var/lib/cowhand/instances/_base/swap_64
    beta: overlay /var/lib/cowhand/instances/web1.incoming/reserved/disk.swap.part (64M) on /var/lib/cowhand/instances/_base/swap_64
    beta: publish /var/lib/cowhand/instances/web1.incoming/reserved/disk.swap.part /var/lib/cowhand/instances/web1.incoming/reserved/disk.swap
  push-base: planned
    push /var/lib/cowhand/instances/_base/<sha1> beta:/var/lib/cowhand/instances/web1.incoming/part/ (<used>, ssh)
  ask-destination beta (prepare): planned
    ask beta to prepare web1
    beta: receive-base (follows from the steps before)
  shutdown-domain: planned
    power-off web1 (by its power button, after <seconds> s by its plug)
  set-aside-instance: pending (follows from the steps before)
  collect-state: pending (follows from the steps before)
  push-files: planned
    push /var/lib/cowhand/instances/web1_resize/disk /var/lib/cowhand/instances/web1_resize/disk.local /var/lib/cowhand/instances/web1_resize/console.log beta:/var/lib/cowhand/instances/web1.incoming/part/ (<used>, ssh)
  record-task handed-over: pending (follows from the steps before)
  ask-destination beta (finish): planned
    ask beta to finish web1
    beta: receive-disk disk (follows from the steps before)
    beta: rebase-disk disk (follows from the steps before)
    beta: receive-disk disk.local (follows from the steps before)
    beta: rebase-disk disk.local (follows from the steps before)
    beta: create-overlay (follows from the steps before)
    beta: settle-instance (follows from the steps before)
    beta: publish-instance (follows from the steps before)
    beta: replace-domain (follows from the steps before)
    beta: start-domain (follows from the steps before)
    beta: await-domain (follows from the steps before)
  undefine-domain: planned
    virsh -q -c qemu:///system undefine --nvram --managed-save --snapshots-metadata <uuid>
  clear-sent: ok
  record-task done: pending (follows from the steps before)
  migrate web1: 12 of 13 steps to do (<used> to send at most); nothing was changed

Nothing was changed, there or here:

  $ virsh -q domstate web1
  running
  $ beta ls $instances

Now it goes. This guest has no operating system that would hear its power button:

  $ cowhand migrate web1 --to beta --shutdown-timeout 1s --verbose | grep -v '^ ' | norm
  cowhand: web1 is still on after 1 s: its plug is pulled
  disk: the overlay travels (<used>), and base <sha1> (1M): it is not there, and the image is not in the store
  disk.local: only the overlay travels (<used>), base ephemeral_0_1_linux is made there, and its content compared
  disk.swap: made anew there, nothing travels
  beta: <used> to send at most; <used> to allocate of <used> free
  beta: by ssh, compressed: <reason>
  record-task begun: changed
  ask-destination beta (prepare): changed
  push-base: changed
  ask-destination beta (prepare): changed
  shutdown-domain: changed
  set-aside-instance: changed
  collect-state: changed
  push-files: changed
  record-task handed-over: changed
  ask-destination beta (finish): changed
  undefine-domain: changed
  clear-sent: changed
  record-task done: changed
  migrate web1: done, <used> sent, guest away for <seconds> s
  $ virsh -q domstate web1
  error: failed to get domain 'web1'
  [1]
  $ beta virsh -q domstate web1
  running
  $ beta cowhand show web1 | norm
  web1
    image:     debian
    image id:  sha256:<sha256>
    uuid:      <uuid>
    directory: /var/lib/cowhand/instances/web1
    os type:   linux
    memory:    64M
    network:   none
    disk (qcow2, 1G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/<sha1> (raw, 8M, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/ephemeral_0_1_linux (raw, 1G, <used> on disk)
    disk.swap (qcow2, 64M, <used> on disk)
    `- /var/lib/cowhand/instances/_base/swap_64 (raw, 64M, <used> on disk)

Here is what is kept to go back to. Nobody can start it by mistake: libvirt does not know it, and it has another name.

  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  1G    1G         64M   <used>
  web1: its migration to beta of <time> is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
  $ cowhand show web1 | norm
  web1
    image:     debian
    image id:  sha256:<sha256>
    uuid:      <uuid>
    in hand:   its migration to beta of <time> is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
    directory: /var/lib/cowhand/instances/web1_resize
    os type:   linux
    memory:    64M
    network:   none
    disk (qcow2, 1G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/<sha1> (raw, 8M, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
    `- /var/lib/cowhand/instances/_base/ephemeral_0_1_linux (raw, 1G, <used> on disk)
    disk.swap (qcow2, 64M, <used> on disk)
    `- /var/lib/cowhand/instances/_base/swap_64 (raw, 64M, <used> on disk)
  $ ls $instances
  _base
  locks
  web1_resize

The same command again has nothing to do, and says for what it waits:

  $ cowhand migrate web1 --to beta --verbose | norm
  web1: its migration to beta of <time> is neither confirmed nor reverted: cowhand confirm web1, or go back: cowhand revert web1
  migrate web1: nothing to do
  $ cowhand migrate web1 --to beta

Another one is not begun before this is decided, nor is it decided without the other host:

  $ cowhand migrate web1 --to gamma |& norm
  cowhand: Cannot migrate "web1": its migration to beta of <time> is neither confirmed nor reverted
    remedy: cowhand confirm web1, or go back: cowhand revert web1
  [3]
  $ cowhand resize web1 --root 2G |& norm
  cowhand: Cannot resize "web1": its migration to beta of <time> is neither confirmed nor reverted
    remedy: cowhand confirm web1, or go back: cowhand revert web1
  [3]
  $ COWHAND_SSH_PORT=2222 cowhand confirm web1
  cowhand: Cannot reach "beta": connect to host beta port 2222: Connection refused
    remedy: see that sshd runs there; another port is the setting ssh_port: ssh -p 2222 beta true
  [1]
  $ COWHAND_SSH_PORT=2222 cowhand revert web1 --yes
  cowhand: Cannot reach "beta": connect to host beta port 2222: Connection refused
    remedy: see that sshd runs there; another port is the setting ssh_port: ssh -p 2222 beta true
  [1]

Back: what was there is removed, its base stays in the cache.

  $ cowhand revert web1
  cowhand: Cannot delete what "web1" has become since its resize or migration: there is nobody to ask
    remedy: say that you are sure: --yes
  [3]
  $ cowhand revert web1 --yes --verbose | norm
  record-task reverting: changed
    write /var/lib/cowhand/instances/web1_resize/instance.json (<size> bytes)
  ask-destination beta (undo): changed
    ask beta to undo web1
    beta: virsh -q -c qemu:///system destroy <uuid>
    beta: virsh -q -c qemu:///system undefine --nvram --managed-save --snapshots-metadata <uuid>
    beta: remove-instance (follows from the steps before)
  restore-instance: changed
    rename /var/lib/cowhand/instances/web1_resize /var/lib/cowhand/instances/web1
  place-state: ok
  replace-domain: changed
    virsh -q -c qemu:///system define /var/lib/cowhand/instances/web1/definition.xml
  start-domain: changed
    virsh -q -c qemu:///system start <uuid>
  await-domain: ok
  clear-sent: changed
    remove /var/lib/cowhand/instances/web1/definition.xml
  record-task over: changed
    write /var/lib/cowhand/instances/web1/instance.json (<size> bytes)
  revert web1: done
  $ virsh -q domstate web1
  running
  $ beta virsh -q list --all
  $ beta ls $instances
  _base
  locks

So the second time the base has not to be sent any more:

  $ cowhand migrate web1 --to beta --dry-run | grep '^[bd]' | norm
  disk: only the overlay travels (<used>), base <sha1> is there already, proven by its image's digest
  disk.local: only the overlay travels (<used>), base ephemeral_0_1_linux is there already, proven by its content
  disk.swap: made anew there, nothing travels
  beta: <used> to send at most; <used> to allocate of <used> free
  beta: by ssh, compressed: <reason>
  $ cowhand migrate web1 --to beta --shutdown-timeout 0
  $ cowhand confirm web1 --verbose | norm
  record-task confirming: changed
    write /var/lib/cowhand/instances/web1_resize/instance.json (<size> bytes)
  clear-sent: ok
  remove-instance: changed
    touch the records of its bases
    remove /var/lib/cowhand/instances/web1_resize/console.log
    remove /var/lib/cowhand/instances/web1_resize/definition.xml
    remove /var/lib/cowhand/instances/web1_resize/disk
    remove /var/lib/cowhand/instances/web1_resize/disk.info
    remove /var/lib/cowhand/instances/web1_resize/disk.local
    remove /var/lib/cowhand/instances/web1_resize/disk.swap
    remove /var/lib/cowhand/instances/web1_resize/libvirt.xml
    remove /var/lib/cowhand/instances/web1_resize/instance.json
    rmdir /var/lib/cowhand/instances/web1_resize
  confirm web1: done
  $ ls $instances
  _base
  locks
  $ cowhand list

A guest that is off stays off, on either host:

  $ beta virsh -q destroy web1
  $ beta cowhand migrate web1 --to alpha
  $ virsh -q domstate web1
  shut off
  $ beta cowhand confirm web1
  $ beta virsh -q list --all
