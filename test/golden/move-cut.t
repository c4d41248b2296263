A move that is cut off loses nothing, wherever that happens: the same command again goes on, or it is given up.

  $ . "$TESTDIR/two-hosts.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --network none --memory 64M

Its guest has written 24 MiB, which take a while at 6M a second:

  $ head -c 24M /dev/urandom >noise
  $ virsh -q destroy web1
  $ qemu-io -f qcow2 -c "write -q -s $PWD/noise 100M 24M" $instances/web1/disk
  $ virsh -q start web1
  $ part=$instances/web1.incoming/part/disk
  $ until_some() { until [ "$($1 du -k $part 2>/dev/null | cut -f 1)" -gt 8000 ]; do sleep 0.1; done 2>/dev/null; }

Interrupted, it goes back, and says so:

  $ cowhand migrate web1 --to beta --shutdown-timeout 0 --bwlimit 6M 2>said &
  $ until_some beta; kill -TERM $!; wait $!
  [143]
  $ cat said
  cowhand: Cannot go on: interrupted by SIGTERM (undone: web1 is as it was, and it runs)
    remedy: run the same command again
  $ virsh -q domstate web1
  running
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  1G    -          -     <used>
  $ beta ls $instances
  _base
  locks

Killed, it can do nothing any more; nor can anybody else do anything but go on or back:

  $ cowhand migrate web1 --to beta --shutdown-timeout 0 --bwlimit 6M &
  $ until_some beta; kill -KILL $!; wait $! 2>/dev/null
  [137]
  $ virsh -q domstate web1
  shut off
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  1G    -          -     <used>
  web1: its migration to beta of <time> is not finished: run that command again, or go back: cowhand revert web1
  $ cowhand delete web1 --yes |& norm
  cowhand: Cannot delete "web1": its migration to beta of <time> is not finished
    remedy: run that command again, or go back: cowhand revert web1
  [3]
  $ cowhand confirm web1
  cowhand: Cannot confirm "web1": its migration is not finished
    remedy: run that command again, or go back: cowhand revert web1
  [3]
  $ cowhand resize web1 --root 2G --to beta |& norm
  cowhand: Cannot resize "web1": its migration to beta of <time> is not finished
    remedy: run that command again, or go back: cowhand revert web1
  [3]

The same command again goes on; what had arrived is not sent again.

  $ cowhand migrate web1 --to beta --shutdown-timeout 0 --json >result
  $ jq -c '.ok, .bytes.sent < 20000000' result
  true
  true
  $ virsh -q list --all
  $ beta virsh -q domstate web1
  running
  $ cowhand confirm web1

What arrived is what was sent:

  $ beta virsh -q destroy web1
  $ beta qemu-img convert -f qcow2 -O raw $instances/web1/disk $PWD/disk.raw
  $ cmp -i 104857600:0 -n 25165824 disk.raw noise
  $ beta virsh -q start web1

Killed there, on the way back, and given up:

  $ beta "cowhand migrate web1 --to alpha --shutdown-timeout 0 --bwlimit 6M" &
  $ until_some; beta pkill -KILL -x cowhand; wait
  $ beta virsh -q domstate web1
  shut off
  $ beta cowhand revert web1 --yes
  $ beta virsh -q domstate web1
  running
  $ ls $instances
  _base
  locks
