A command is a row of steps. Each of them can be run alone, ad hoc, with the same checks: to repair something, or to
put a row together that cowhand does not know.

  $ . "$TESTDIR/setup.sh"
  $ cowhand steps
  NAME                 WHAT IT DOES
  ask-destination      Have the other host do its part of a move
  await-domain         Wait until the guest is seen running, and stays so
  blockresize-disk     Grow a disk of a running guest, which sees it at once
  cache-base           Make a raw base in the cache from an image: fetch, verify, examine, convert, publish
  clean-bases          Remove bases that nobody needs, and what was left half-made
  clear-sent           Remove what was only made to be sent
  collect-state        Keep what libvirt alone has of an instance that is off: definition, UEFI's variables, state of its TPM
  copy-files           Copy what travels with an instance to where it arrives on the same host, sharing blocks where that is possible
  create-overlay       Put a copy-on-write disk on a base
  define-domain        Make the domain known to libvirt
  extend-base          Make a copy of a base in the size of a disk (only for base_layout: sized)
  fetch-disk           Make a disk from a delta snapshot: fetch its copy-on-write part, examine it, put it on our own base
  grow-disk            Make a disk larger, with zeros behind what its guest knows of it
  grow-file-system     Grow the file system of a disk without partitions to the end of the disk: ext2, ext3, ext4 or xfs
  import-image         Take an image file into the directory store: copy, hash, examine, record
  make-ephemeral-base  Make the base of ephemeral disks of one size: an empty file system labelled ephemeral0
  make-seed            Make the seed CD that cloud-init reads (NoCloud)
  make-swap-base       Make the base of swap disks of one size
  note-bases           Note which bases are in use, and begin to count the time of those that another tool made
  place-state          Give libvirt what the guest's UEFI and TPM remember, out of the instance's directory
  prepare-copy         Make what travels in place of a disk: merged with its base, or put on the unsized base; the disk stays as it is
  probe-daemon         Send a small file by the rsync daemon of another host: what it writes is to be where disks arrive
  prove-base           See that a base is what a disk that is still to come needs; changes nothing
  publish-instance     Give an instance that has arrived its name: from then on it is here
  push-base            Send a base to another host that cannot get it elsewhere
  push-files           Send what travels with an instance to another host: disks, seed, NVRAM, state of its TPM
  rebase-disk          Have the header of an overlay name another base, which is proven to have the same content
  receive-base         Take a base that another host has sent into the cache, once it is proven
  receive-disk         Take a disk that was sent to where its instance is put together, once it is proven
  receive-file         Take the seed, the NVRAM, the console or a file of the TPM that was sent to where its instance is put together
  record-instance      Write down what an instance is to be (instance.json), and its disks' formats (disk.info)
  record-sizes         Write down in instance.json which sizes its disks have from now on
  record-task          Write down in instance.json which resize or migration is in hand, and how far it came
  remove-image         Remove an image from the directory store; bases made of it stay
  remove-instance      Remove an instance's directory: the files that cowhand made, never a base
  remove-stage         Remove what has arrived of an instance by a move that was given up, never a base
  replace-domain       Have libvirt know the domain as its definition says, also what its disks stand on
  restore-instance     Give an instance that was set aside its own name again
  set-aside-instance   Give the directory of an instance that is off another name, to go back to; its guest cannot be started meanwhile
  settle-instance      Write down what an instance that arrives is: instance.json, disk.info, libvirt.xml
  shutdown-domain      Switch the guest off: by its power button, and when that takes too long by pulling the plug
  stage-instance       Make the place where an instance arrives (NAME.incoming)
  start-domain         Start the guest
  stop-domain          Switch the guest off at once, as by pulling the plug
  undefine-domain      Make libvirt forget the domain; its disks stay
  verify-base          Read a base again, compare it with its record and its image, and quarantine it where it differs
  write-domain         Write the domain's definition (libvirt.xml) and an empty console.log
  $ cowhand pipelines
  NAME                 WHAT IT DOES
  cache clean          Remove bases that nobody has needed for a while, and what was left half-made
  cache prefetch       Make the bases of images before they are needed
  cache verify         Read bases again, compare them with what they were made of, and quarantine what differs
  confirm              Drop what a resize or migration kept for going back
  create               Create an instance: base, disks, domain
  delete               Delete an instance: its domain and its disks, never a base
  image add            Add an image file to the store
  image remove         Remove an image from the store; bases made of it stay
  migrate              Move an instance to another host; what it was is kept here until you confirm or revert
  migrate-destination  The destination's half of a resize or migration, for an orchestrator that drives both hosts
  migrate-source       The source's half of a resize or migration, for an orchestrator that drives both hosts
  resize               Give an instance larger disks, here or on another host; what it was is kept until you confirm or revert
  revert               Go back to what an instance was before its resize or migration
  $ cowhand step create-overlay --help | sed '/^Everywhere/,$d'
  cowhand step create-overlay [flags]
  
  Put a copy-on-write disk on a base
  
  Flags:
    --disk  overlay to make                                    [string] [required]
    --base  raw base that it is to stand on                    [string] [required]
    --size  size that the guest is to see                      [string] [required]
  

An instance, step by step. First the image and its base; to be asked again does nothing:

  $ instances=$PWD/instances
  $ cowhand step import-image --file $PWD/debian.qcow2 --directory $PWD/images --name debian --format qcow2
  $ digest=sha256:$(sha256sum <debian.qcow2 | cut -d ' ' -f 1)
  $ base=$instances/_base/$(printf %s "$digest" | sha1sum | cut -c -40)
  $ cache_base() { cowhand step cache-base --from $PWD/debian.qcow2 --digest $digest --format qcow2 --base $base "$@"; }
  $ cache_base --dry-run | norm
  cache-base: planned
    mkdir ./instances/_base
    verify ./debian.qcow2 (sha256:<sha256>)
    examine ./debian.qcow2 (qcow2)
    qemu-img check -q -f qcow2 ./debian.qcow2
    qemu-img convert -p -W -m 16 -f qcow2 -O raw ./debian.qcow2 ./instances/_base/<sha1>.converted  [1.3M of space]
    record ./instances/_base/<sha1>.json
    publish ./instances/_base/<sha1>.converted ./instances/_base/<sha1>
  step cache-base: 1 of 1 steps to do (about 1.3M of space); nothing was changed
  $ cache_base
  $ cache_base --verbose
  cache-base: ok
  step cache-base: nothing to do

The bytes have to be those that were named:

  $ cowhand step cache-base --from $PWD/debian.qcow2 --digest sha256:$(printf '%064d' 0) --format qcow2 --base $instances/_base/other |& norm
  cowhand: Cannot use "./debian.qcow2": its digest is sha256:<sha256>, expected sha256:<sha256>
    remedy: get the file again, or ask its maker for the right checksum
  [3]
  $ ls instances/_base | norm
  <sha1>
  <sha1>.json

Then the instance and its disks. What has to be there before is asked for:

  $ overlay() { cowhand step create-overlay --disk $instances/web1/"$1" --base "$2" --size "$3"; }
  $ overlay disk.local $instances/_base/ephemeral_0_1_linux 1G |& norm
  cowhand: Cannot put "./instances/web1/disk.local" on base "./instances/_base/ephemeral_0_1_linux": there is no such base
    remedy: make it: cowhand step cache-base, make-ephemeral-base or make-swap-base
  [3]
  $ uuid=12345678-1234-4123-8123-123456789abc
  $ cowhand step record-instance --directory $instances/web1 --name web1 --uuid $uuid --image-id $digest --image-name debian --root 2G --ephemeral 1G --ephemeral-format ext4 --swap 256M --disks disk --disks disk.local --disks disk.swap
  $ overlay disk $base 2G
  $ cowhand step make-ephemeral-base --base $instances/_base/ephemeral_0_1_linux --size 1G --format ext4
  $ overlay disk.local $instances/_base/ephemeral_0_1_linux 1G
  $ cowhand step make-swap-base --base $instances/_base/swap_256 --size 256M
  $ overlay disk.swap $instances/_base/swap_256 256M
  $ cowhand step write-domain --directory $instances/web1 --name web1 --uuid $uuid --disks disk=vda --disks disk.local=vdb --disks disk.swap=vdc
  $ cowhand show web1 | norm
  web1
    image:     debian
    image id:  sha256:<sha256>
    uuid:      <uuid>
    directory: ./instances/web1
    os type:   linux
    disk (qcow2, 2G, <used> on disk)
    `- ./instances/_base/<sha1> (raw, 8M, <used> on disk)
    disk.local (qcow2, 1G, <used> on disk)
    `- ./instances/_base/ephemeral_0_1_linux (raw, 1G, <used> on disk)
    disk.swap (qcow2, 256M, <used> on disk)
    `- ./instances/_base/swap_256 (raw, 256M, <used> on disk)

That is what `create` makes of it: it finds nothing to do.

  $ cowhand image add debian.qcow2 --verbose | norm
  import-image: ok
  image add: nothing to do
  $ cowhand create web1 --image debian --root 2G --ephemeral 1G --swap 256M --verbose
  root disk: create from the whole image
  cache-base: ok
  make-ephemeral-base: ok
  make-swap-base: ok
  record-instance: ok
  create-overlay: ok
  create-overlay: ok
  create-overlay: ok
  write-domain: ok
  create web1: nothing to do

The other steps of `create`:

  $ printf '#cloud-config\n' >user-data
  $ cowhand step make-seed --seed $instances/web1/disk.config --user-data user-data --instance-id $uuid --hostname web1
  $ isoinfo -R -x /meta-data -i instances/web1/disk.config
  instance-id: 12345678-1234-4123-8123-123456789abc
  local-hostname: web1

User data may be packed (cloud-init unpacks it): its bytes are kept as they are.

  $ gzip -nc user-data >user-data.gz
  $ cowhand step make-seed --seed $instances/seed --user-data user-data.gz --instance-id $uuid --hostname web1
  $ isoinfo -R -x /user-data -i $instances/seed | cmp - user-data.gz && rm $instances/seed

  $ cowhand step extend-base --base $base --sized ${base}_2 --size 2G
  $ qemu-img info -f raw --output=json ${base}_2 | jq '."virtual-size"'
  2147483648
  $ cowhand step extend-base --base $base --sized ${base}_2 --size 2500M
  cowhand: Cannot make a base of 2621440000 bytes: sized bases have whole GiB
    remedy: ask for a size such as 20G, or set base_layout: overlay
  [2]
  $ cowhand step define-domain --uri test:///default --name web1 --uuid $uuid --xml $instances/nothere/libvirt.xml |& norm
  cowhand: Cannot define domain "web1": there is no "./instances/nothere/libvirt.xml"
    remedy: make it: cowhand step write-domain
  [3]

and of `delete` and `image remove`:

  $ cowhand step remove-instance --directory $instances/web1
  $ cowhand step remove-image --directory $PWD/images --name debian
  $ ls instances images | norm
  images:
  locks
  
  instances:
  _base
  locks

What is wrong is said as for any command:

  $ cowhand step
  cowhand: Cannot run "step": it does not say what
    remedy: name a step: cowhand steps lists them
  [2]
  $ cowhand step cash-base
  cowhand: Cannot find the command "step cash-base": there is none
    remedy: did you mean: cowhand step cache-base
  [2]
  $ cowhand step create-overlay --disk web1/disk --base $base --size 1G
  cowhand: Cannot read --disk "web1/disk": it is not an absolute path
    remedy: see what it may be: cowhand step create-overlay --help
  [2]
  $ cowhand step create-overlay --disk $instances/web1/disk --base $base
  cowhand: Cannot read the command "step create-overlay": --size is missing
    remedy: add it; what it means: cowhand step create-overlay --help
  [2]
  $ cowhand step create-overlay --disk $instances/../disk --base $base --size 1G |& norm
  cowhand: Cannot read --disk "./instances/../disk": it has a ".." in it
    remedy: see what it may be: cowhand step create-overlay --help
  [2]
