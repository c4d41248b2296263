An instance goes to another host. Only what its guest wrote travels; what it was is kept here until it is confirmed or
reverted. The same runs on the hosts of an operator: libvirt, sshd, and root's key and known_hosts for the way.

  $ . "$TESTDIR/two-hosts.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 1G --swap 64M --network none --memory 64M
  $ virsh -q domstate web1

First what both would do. Each disk has the reason of its way, and the whole its price; beta has never seen this image:

  $ cowhand migrate web1 --to beta --bwlimit 20M --dry-run | norm

Nothing was changed, there or here:

  $ virsh -q domstate web1
  $ beta ls $instances

Now it goes. This guest has no operating system that would hear its power button:

  $ cowhand migrate web1 --to beta --shutdown-timeout 1s --verbose | grep -v '^ ' | norm
  $ virsh -q domstate web1
  $ beta virsh -q domstate web1
  $ beta cowhand show web1 | norm

Here is what is kept to go back to. Nobody can start it by mistake: libvirt does not know it, and it has another name.

  $ cowhand list | norm
  $ cowhand show web1 | norm
  $ ls $instances

The same command again has nothing to do, and says for what it waits:

  $ cowhand migrate web1 --to beta --verbose | norm
  $ cowhand migrate web1 --to beta

Another one is not begun before this is decided, nor is it decided without the other host:

  $ cowhand migrate web1 --to gamma |& norm
  $ cowhand resize web1 --root 2G |& norm
  $ COWHAND_SSH_PORT=2222 cowhand confirm web1
  $ COWHAND_SSH_PORT=2222 cowhand revert web1 --yes

Back: what was there is removed, its base stays in the cache.

  $ cowhand revert web1
  $ cowhand revert web1 --yes --verbose | norm
  $ virsh -q domstate web1
  $ beta virsh -q list --all
  $ beta ls $instances

So the second time the base has not to be sent any more:

  $ cowhand migrate web1 --to beta --dry-run | grep '^[bd]' | norm
  $ cowhand migrate web1 --to beta --shutdown-timeout 0
  $ cowhand confirm web1 --verbose | norm
  $ ls $instances
  $ cowhand list

A guest that is off stays off, on either host:

  $ beta virsh -q destroy web1
  $ beta cowhand migrate web1 --to alpha
  $ virsh -q domstate web1
  $ beta cowhand confirm web1
  $ beta virsh -q list --all
