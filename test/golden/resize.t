A resize on the same host: the disks are copied, where the file system can by sharing their blocks, and the copies
grow. The old ones stay as NAME_resize until it is confirmed or reverted.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 1G --swap 64M
  $ written() { qemu-io -f qcow2 -c "$1 -P 7 512M 64k" instances/$2/disk | head -1; }
  $ written write web1

What would be done, and why:

  $ cowhand resize web1 --root 2G --swap 128M --dry-run | norm
  $ ls instances

It is done, and again: nothing is left to do.

  $ cowhand resize web1 --root 2G --swap 128M --verbose | grep -v '^ ' | norm
  $ cowhand resize web1 --root 2G --swap 128M --verbose | norm
  $ ls instances
  $ cowhand list | norm
  $ cowhand show web1 | norm
  $ written read web1

As long as nobody has decided, nothing else is done to it:

  $ cowhand resize web1 --root 3G |& norm
  $ cowhand delete web1 --yes |& norm
  $ cowhand create web1 --image debian --root 3G |& norm

Confirmed, there is no way back any more:

  $ cowhand confirm web1 --dry-run | norm
  $ cowhand confirm web1
  $ cowhand confirm web1 --verbose
  $ cowhand revert web1 --yes
  $ ls instances
  $ cowhand list | norm

Reverted, it is what it was, and what its guest has written meanwhile is gone; so somebody has to be sure:

  $ sha256sum instances/web1/disk >before
  $ cowhand resize web1 --root 3G
  $ cowhand revert web1
  $ cowhand revert web1 --dry-run | norm
  $ cowhand revert web1 --yes
  $ sha256sum -c before
  $ cowhand list | norm
  $ ls instances

A file system that fills its disk grows with it, unless that is left to the guest:

  $ truncate -s 64M bare.raw && mke2fs -q -F -L root bare.raw && cowhand image add bare.raw
  $ cowhand create web2 --image bare --root 64M
  $ cowhand resize web2 --root 128M --verbose | grep -A3 '^grow' | norm
  $ qemu-img convert -f qcow2 -O raw instances/web2/disk web2.raw
  $ dumpe2fs -h web2.raw 2>/dev/null | grep -E '^Block (count|size)'
  $ cowhand confirm web2
  $ cowhand resize web2 --root 256M --grow-fs never --verbose | grep -A3 '^grow' | norm

Refused
-------

Each of these changes nothing.

  $ tree() { (cd instances && find . -not -path './locks*' -type f -printf '%P %i %s %T@ %m\n' | sort); }
  $ tree >before
  $ cowhand resize web1 --root 1G
  $ cowhand resize web1 --ephemeral 512M
  $ cowhand resize web1 --root 3G --swap 1500K
  $ cowhand create plain --image debian --root 1G
  $ tree >before
  $ cowhand resize plain --ephemeral 1G
  $ cowhand resize plain --swap 64M
  $ cowhand resize nothere --root 2G |& norm
  $ cowhand resize web1 --root 3G --ephemeral-policy refuse
  $ cowhand migrate web1
  $ cowhand confirm plain
  $ cowhand confirm nothere
  $ cowhand revert plain --yes
  $ tree | diff before -

A guest that runs without a libvirt that could stop it:

  $ qemu-io -f qcow2 -c 'sleep 4000' instances/plain/disk & sleep 1
  $ cowhand resize plain --root 2G |& norm
  $ wait %1

A disk whose format nobody wrote down, or which stands on what is not ours:

  $ mv instances/plain/disk.info instances/plain/libvirt.xml .
  $ cowhand resize plain --root 2G |& norm
  $ mv disk.info libvirt.xml instances/plain/
  $ cp instances/plain/disk whole
  $ cp instances/_base/$(cowhand image show debian --json | jq -j .id | sha1sum | cut -c -40) mine
  $ qemu-img rebase -u -f qcow2 -F raw -b "$PWD/mine" instances/plain/disk
  $ cowhand resize plain --root 2G |& norm
  $ cp whole instances/plain/disk

Something else that has the name of what is kept:

  $ mkdir instances/plain_resize && touch instances/plain_resize/notes
  $ cowhand resize plain --root 2G |& norm
  $ ls instances/plain_resize
  $ rm -r instances/plain_resize
  $ cowhand resize plain --root 2G
