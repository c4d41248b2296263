The cache looks after itself: `cache list` says what is there and who needs it, and cron calls `cache clean`, which
removes what nobody has needed for a while. (`cache-verify.t` has the rest of the family.)

  $ . "$TESTDIR/setup.sh"
  $ bases=$here/instances/_base
  $ cowhand cache list
  $ cowhand cache clean --verbose
  0 bases: 0 in use, 0 unused for long enough, 0 others
  note-bases: ok
  clean-bases: ok
  cache clean: nothing to do
  $ cowhand image add debian.qcow2 --name debian
  $ cowhand create web1 --image debian --root 2G --ephemeral 1G
  $ cowhand create web2 --image debian --root 2G --swap 256M

A base is named for its image's id, so the list says the image too. A size on disk depends on the file system:

  $ list() { cowhand cache list | sed -E 's#  +#  #g; s#  [0-9.]+[KMGT]?  ([0-9]+  (-|[0-9]+ [smhd])  )#  <used>  \1#; s# [0-9.]+[KMGT]? on disk; .*# ...#; s#\b[0-9a-f]{12}…#<sha1>...#' | norm; }
  $ list
  BASE  IMAGE  KIND  SIZE  ON DISK  USERS  UNUSED FOR  STATE  SOURCE
  <sha1>...  debian  image  8M  <used>  2  -  ok  ./images/debian.qcow2
  ephemeral_0_1_linux  -  ephemeral  1G  <used>  1  -  ok  -
  swap_256  -  swap  256M  <used>  1  -  ok  -
  3 files, ...
  $ cowhand cache list --json | jq -c '.ok, .problems, (.total | keys), (.bases[] | [.base, .kind, .state, .image, .size, .users])' | norm
  true
  []
  ["allocated","free"]
  ["<sha1>","image","ok","debian",8388608,["web1/disk","web2/disk"]]
  ["ephemeral_0_1_linux","ephemeral","ok",null,1073741824,["web1/disk.local"]]
  ["swap_256","swap","ok",null,268435456,["web2/disk.swap"]]

An instance is deleted: from then on nobody needs the swap base. It is not old enough to go, in the default of an hour
for what is made anew in a moment, and a day for the rest:

  $ cowhand delete web2 --yes
  $ cowhand cache clean --dry-run | norm
  3 bases: 2 in use, 0 unused for long enough, 1 others
  note-bases: ok
  clean-bases: ok
  cache clean: nothing to do
  $ list | grep swap
  swap_256  -  swap  256M  <used>  0  <seconds> s  ok  -

A clock is not turned in a story; a record is made to look as if it had been touched last on an earlier day. That is
all that is known of a base's age:

  $ touch -d '3 days ago' $bases/*.json
  $ cowhand cache clean --dry-run | norm
  3 bases: 2 in use, 1 unused for long enough, 0 others
  note-bases: planned
    touch the records of 2 bases in use
  clean-bases: planned
    remove ./instances/_base/swap_256 (unused for 3 d)  [frees <used>]
    remove ./instances/_base/swap_256.json
  cache clean: 2 of 2 steps to do (frees <used>); nothing was changed
  $ ls $bases | norm
  <sha1>
  <sha1>.json
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json
  swap_256
  swap_256.json
  $ cowhand cache clean
  $ ls $bases | norm
  <sha1>
  <sha1>.json
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json

What is needed was noted to be so just now. The second time there is nothing to do:

  $ cowhand cache clean --verbose
  2 bases: 2 in use, 0 unused for long enough, 0 others
  note-bases: ok
  clean-bases: ok
  cache clean: nothing to do

A base that is gone comes back with whoever needs it:

  $ cowhand create web2 --image debian --root 2G --swap 256M --verbose | grep -v '^ '
  root disk: create from the whole image
  cache-base: ok
  make-swap-base: changed
  record-instance: changed
  create-overlay: changed
  create-overlay: changed
  write-domain: changed
  create web2: done

Who needs a base
----------------

Any overlay keeps it, whoever made it and whatever it is called: what a resize keeps for going back, say.

  $ cowhand delete web2 --yes
  $ touch -d '3 days ago' $bases/*.json
  $ mkdir instances/web2_resize
  $ qemu-img create -q -f qcow2 -F raw -b $bases/swap_256 instances/web2_resize/disk.swap
  $ cowhand cache clean --verbose
  3 bases: 3 in use, 0 unused for long enough, 0 others
  note-bases: changed
    touch the records of 3 bases in use
  clean-bases: ok
  cache clean: done
  $ cowhand cache list --json | jq -c '.bases[] | select(.kind == "swap") | .users'
  ["web2_resize/disk.swap"]
  $ rm -r instances/web2_resize

Where it cannot be told what something needs, nothing is removed at all:

  $ touch -d '3 days ago' $bases/*.json
  $ mkdir instances/broken
  $ printf 'QFI\xfb' >instances/broken/disk
  $ cowhand cache clean |& norm
  cowhand: Cannot clean the cache: "./instances/broken/disk" may need any base, for its qcow2 header is cut short
    remedy: look at it, and move it away if nobody needs it: qemu-img info ./instances/broken/disk
  [3]
  $ list | tail -1
  Cannot tell what "./instances/broken/disk" stands on: its qcow2 header is cut short
  [1]
  $ cowhand cache list --json | jq -c .ok
  false
  [1]
  $ rm -r instances/broken

So it is with a libvirt that does not answer, for a domain of it may need a base:

  $ COWHAND_LIBVIRT_URI=test:///nothere.xml cowhand cache clean |& norm
  cowhand: Cannot reach libvirt at "test:///nothere.xml": I/O warning : failed to load external entity "/nothere.xml"; error: failed to connect to the hypervisor; error: XML error: failed to parse xml document '/nothere.xml'
    remedy: see whether it runs: systemctl status libvirtd; or cowhand doctor
  [1]

What libvirt knows counts like what lies in the directories:

  $ cat >hypervisor.xml <<EOF
  > <node><domain type='test'><name>builder</name><uuid>12345678-1234-4123-8123-123456789abc</uuid><memory>1024</memory><os><type>hvm</type></os>
  > <devices><disk type='file' device='disk'><source file='$bases/swap_256'/><target dev='vda'/></disk></devices></domain></node>
  > EOF
  $ COWHAND_LIBVIRT_URI=test://$here/hypervisor.xml cowhand cache list --json | jq -c '.bases[] | select(.kind == "swap") | .users'
  ["domain builder"]
  $ COWHAND_LIBVIRT_URI=test://$here/hypervisor.xml cowhand cache clean
  $ ls $bases | norm
  <sha1>
  <sha1>.json
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json
  swap_256
  swap_256.json

That domain is gone now, and the base with it:

  $ touch -d '3 days ago' $bases/*.json
  $ cowhand cache clean
  $ ls $bases | norm
  <sha1>
  <sha1>.json
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json

Too little room
---------------

Without users for less than a day, and there is no room: what is soonest to be had again goes first.

  $ head -c 1M /dev/urandom >second.raw
  $ cowhand image add second.raw --name second
  $ cowhand cache prefetch second
  $ cowhand step make-swap-base --base $bases/swap_8 --size 8M
  $ in_use=$(cowhand cache list --json | jq '[.bases[] | select(.users != []) | .allocated] | add')
  $ cowhand cache clean --max-size $((in_use + 1048576)) --dry-run | norm | sed -E 's#^--max-size [0-9.]+M: [0-9.]+K?#--max-size ...: ...#'
  4 bases: 2 in use, 0 unused for long enough, 2 others
  --max-size ...: ... too little room, so 1 of the others go as well
  note-bases: ok
  clean-bases: planned
    remove ./instances/_base/swap_8 (unused for <seconds> s)  [frees <used>]
    remove ./instances/_base/swap_8.json
  cache clean: 1 of 2 steps to do (frees <used>); nothing was changed
  $ cowhand cache clean --max-size 512K 2>&1 | sed -E 's#by [0-9.]+[KM]#by ...#'
  warning: --max-size 512K is missed by ...: what is left in the cache is in use, in quarantine, or not known for long enough
  $ list
  BASE  IMAGE  KIND  SIZE  ON DISK  USERS  UNUSED FOR  STATE  SOURCE
  <sha1>...  debian  image  8M  <used>  1  -  ok  ./images/debian.qcow2
  ephemeral_0_1_linux  -  ephemeral  1G  <used>  1  -  ok  -
  2 files, ...

Other tools
-----------

A base of Nova's has no record. The first time that it is seen its time begins:

  $ nova=$(printf nova | sha1sum | cut -c -40)
  $ truncate -s 1M $bases/$nova
  $ touch -d '1 year ago' $bases/$nova
  $ list | grep 'no record'
  <sha1>...  -  image  1M  <used>  0  -  no record  -
  $ cowhand cache clean --verbose | norm
  3 bases: 2 in use, 0 unused for long enough, 1 others
  note-bases: changed
    record ./instances/_base/<sha1>.json (made by another tool; its time without users begins now)
  clean-bases: ok
  cache clean: done
  $ touch -d '1 day ago' $bases/$nova.json
  $ cowhand cache clean --verbose | norm
  3 bases: 2 in use, 1 unused for long enough, 0 others
  note-bases: ok
  clean-bases: changed
    remove ./instances/_base/<sha1> (unused for 1 d)  [frees <used>]
    remove ./instances/_base/<sha1>.json
  cache clean: done

What cowhand would never have called so is somebody's, and stays. What was left half-made goes after a day, what was
set aside because it differs stays until somebody has looked at it:

  $ touch -d '1 year ago' $bases/windows.img $bases/$nova.part $bases/$nova.quarantined
  $ touch $bases/swap_7.part
  $ list | grep -v '  ok  '
  BASE  IMAGE  KIND  SIZE  ON DISK  USERS  UNUSED FOR  STATE  SOURCE
  <sha1>....part  -  -  -  <used>  0  365 d  leftover  -
  <sha1>....quarantined  -  -  -  <used>  0  365 d  quarantined  -
  swap_7.part  -  -  -  <used>  0  <seconds> s  leftover  -
  6 files, ...
  $ cowhand cache clean --verbose | norm
  3 bases: 2 in use, 0 unused for long enough, 1 others
  note-bases: ok
  clean-bases: changed
    remove ./instances/_base/<sha1>.part (left over for 365 d)  [frees <used>]
  cache clean: done
  $ ls $bases | norm
  <sha1>
  <sha1>.json
  <sha1>.quarantined
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json
  swap_7.part
  windows.img

What it takes
-------------

  $ cowhand cache clean --unused-for soon
  cowhand: Cannot read --unused-for "soon": it is not a time span such as 30m, 24h or 7d
    remedy: see what it may be: cowhand cache clean --help
  [2]
  $ cowhand cache clean --help | sed '/^Everywhere/,$d'
  cowhand cache clean [flags]
  
  Remove bases that nobody has needed for a while, and what was left half-made
  
  Flags:
    --unused-for  time without users after which a base goes; made ones after 1h
                                                           [string] [default: 24h]
    --max-size    room for the cache: unused bases go sooner where it has more
                                                                          [string]
    --keep-free   room to keep free: unused bases go sooner where there is less
                                                                          [string]
  
  $ cowhand step clean-bases --bases /etc/passwd |& norm
  cowhand: Cannot clean "/etc/passwd": it is not in "./instances/_base"
    remedy: see what is there: cowhand cache list
  [2]
  $ cowhand step clean-bases --bases $bases/windows.img |& norm
  cowhand: Cannot remove "./instances/_base/windows.img": that is no name of a base
    remedy: see what there is: cowhand cache list
  [2]
