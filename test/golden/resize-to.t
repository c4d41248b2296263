A resize to another host: disks grow on the way. What a base is has to be the same there, to the byte, and is proven.

  $ . "$TESTDIR/two-hosts.sh"

The root disk is a bare file system, which grows with its disk:

  $ truncate -s 64M bare.raw && mke2fs -q -F -L root bare.raw
  $ for host in '' beta; do $host cowhand image add $PWD/bare.raw --name bare; done
  $ cowhand create web1 --image bare --root 1G --ephemeral 1G --swap 64M --network none --memory 64M

beta has the image in its own store, so nothing but the overlay is sent. Empty file systems are made with the same bytes
on every host; swap is worth nothing to a guest that was off:

  $ cowhand resize web1 --root 2G --swap 128M --to beta --dry-run | grep -v '^ ' | norm
  $ cowhand resize web1 --root 2G --swap 128M --to beta --shutdown-timeout 0 --verbose | tail -1 | norm
  $ beta cowhand show web1 | norm | grep disk
  $ beta virsh -q domblkinfo web1 vda | grep Capacity
  $ cowhand confirm web1
  $ beta cowhand list | norm

As a document, it is what a script reads:

  $ beta cowhand migrate web1 --to alpha --shutdown-timeout 0 --json >moved.json
  $ jq -c 'del(.steps, .disks, .reasons)' moved.json | norm
  $ jq -r '.reasons[]' moved.json | norm
  $ beta cowhand confirm web1

A disk may also travel merged with its base. Here it is sent to the rsync daemon of the other host, which is set up with
what `cowhand rsyncd-conf` prints there:

  $ cowhand migrate web1 --to beta --flatten --transport rsyncd --shutdown-timeout 0 --verbose | grep -E '^[bd]|push|^migrate' | norm
  $ beta cowhand show web1 | norm | grep -A1 ' disk '
