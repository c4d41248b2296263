Settings come from four places, and the first that has one wins: a flag, COWHAND_* in the environment, the
configuration file, the default. The file is --config, COWHAND_CONFIG or /etc/cowhand/cowhand.yaml.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ where() { cowhand create web1 --image debian --root 1G --dry-run "$@" | sed -n 's#.* mkdir \(.*\)/web1$#\1#p;s#  mkdir \(.*\)/web1$#\1#p' | uniq | norm; }
  $ cat >cowhand.yaml <<YAML
  > instances: $here/from-file
  > store: dir:$here/images
  > YAML
  $ where --config cowhand.yaml --instances $here/from-flag
  ./from-flag
  $ where --config cowhand.yaml
  ./instances
  $ unset COWHAND_INSTANCES COWHAND_STORE
  $ where --config cowhand.yaml
  ./from-file
  $ COWHAND_CONFIG=cowhand.yaml where
  ./from-file

The file may be a link to where it is kept:

  $ ln -s cowhand.yaml link.yaml
  $ where --config link.yaml
  ./from-file

An empty variable is as good as none:

  $ COWHAND_INSTANCES= where --config cowhand.yaml
  ./from-file

The settings there are:

  $ cowhand schema | jq -r '."$defs".settings.properties | to_entries[] | "\(.key) [\(.value.default // "none")]: \(.value.description)"'
  instances [/var/lib/cowhand/instances]: directory of the instances and of _base
  store [dir:/var/lib/cowhand/images]: where images come from
  os_cloud [none]: cloud of clouds.yaml whose Glance is the store
  libvirt_uri [none]: libvirt that runs the guests, such as qemu:///system
  virt_type [kvm]: kind of domain: kvm, or qemu where there is no KVM
  base_layout [overlay]: overlay: disks stand on the base itself; sized: on a copy of it in the size of the disk
  image_ceiling [8T]: largest virtual size of an image
  snapshot_optimization [true]: allow the optimised way for snapshots
  ssh_user [none]: user on the other host, where it is not as ssh has it
  ssh_port [none]: port of sshd on the other host, where it is not as ssh has it
  ssh_identity [none]: private key for the other host; no other one is tried then
  remote_cowhand [cowhand]: how cowhand is started on the other host
  transport [ssh]: how disks travel: rsync over ssh, or to its daemon
  compress [auto]: what travels is compressed: always, never, or by what it is and how fast the link is
  rsyncd_port [873]: port of the rsync daemon that receives on this host
  rsyncd_module [cowhand]: module of that daemon: its path is that of the instances
  rsyncd_user [none]: user of that module [cowhand]
  rsyncd_secrets [none]: file of lines USER:PASSWORD: what its daemon knows, and what a push tells

What is wrong is named with where it came from:

  $ wrong() { echo "$1" >wrong.yaml; cowhand list --config wrong.yaml; }
  $ wrong 'instnaces: /srv'
  cowhand: Cannot use instnaces in wrong.yaml: the configuration has no such name
    remedy: did you mean instances in wrong.yaml? what there is: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'instances: srv'
  cowhand: Cannot read instances in wrong.yaml "srv": it is not an absolute path
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'base_layout: size'
  cowhand: Cannot read base_layout in wrong.yaml "size": it is not one of: overlay, sized
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'snapshot_optimization: 3'
  cowhand: Cannot read snapshot_optimization in wrong.yaml "3": it is not true or false
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'image_ceiling: 1.5T'
  cowhand: Cannot read image_ceiling in wrong.yaml "1.5T": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'instances: [/srv]'
  cowhand: Cannot read instances in wrong.yaml: it is not text
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ wrong 'instances: "/srv'
  cowhand: Cannot read configuration "wrong.yaml": Missing closing "quote at line 2, column 1
    remedy: mend the line that it names
  [2]
  $ wrong '- instances'
  cowhand: Cannot read configuration "wrong.yaml": it is not a list of names and values
    remedy: write lines such as base_layout: overlay
  [2]
  $ COWHAND_VIRT_TYPE=xen cowhand list
  cowhand: Cannot read COWHAND_VIRT_TYPE "xen": it is not one of: kvm, qemu
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ COWHAND_STORE=/srv/images cowhand image list
  cowhand: Cannot read COWHAND_STORE "/srv/images": it is not dir:/PATH, glance, or glance:URL without a password
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ cowhand list --instances srv
  cowhand: Cannot read --instances "srv": it is not an absolute path
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ cowhand list --instances /srv/../etc
  cowhand: Cannot read --instances "/srv/../etc": it has a ".." in it
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ cowhand list --store dir:srv
  cowhand: Cannot read --store "dir:srv": it is not dir:/PATH, glance, or glance:URL without a password
    remedy: see what it may be: cowhand schema | jq '."$defs".settings'
  [2]
  $ cowhand list --config nothere.yaml
  cowhand: Cannot read configuration "nothere.yaml": there is no such file
    remedy: name a file that exists
  [2]
  $ cowhand list --progress loud
  cowhand: Cannot read --progress "loud": it is not one of: auto, tty, plain, json, none
    remedy: see what there is: cowhand list --help
  [2]

Disks on sized bases
--------------------

base_layout: sized puts each disk on a base of its own size, a copy `<sha1>_<GiB>` of the image's, as Nova did; by
default the overlay is larger than its base, and nothing is copied.

  $ echo 'base_layout: sized' >>cowhand.yaml
  $ cowhand create web1 --image debian --root 2G --config cowhand.yaml --verbose | norm
  root disk: create from the whole image
  cache-base: changed
    mkdir ./from-file/_base
    examine ./images/debian.qcow2 (qcow2)
    qemu-img check -q -f qcow2 ./images/debian.qcow2
    qemu-img convert -p -W -m 16 -f qcow2 -O raw ./images/debian.qcow2 ./from-file/_base/<sha1>.converted  [1.3M of space]
    record ./from-file/_base/<sha1>.json
    publish ./from-file/_base/<sha1>.converted ./from-file/_base/<sha1>
  extend-base: changed
    copy ./from-file/_base/<sha1> ./from-file/_base/<sha1>_2.part (1M)  [1M of space]
    truncate -s 2147483648 ./from-file/_base/<sha1>_2.part
    record ./from-file/_base/<sha1>_2.json
    publish ./from-file/_base/<sha1>_2.part ./from-file/_base/<sha1>_2
  record-instance: changed
    mkdir ./from-file/web1
    write ./from-file/web1/disk.info (<size> bytes)
    write ./from-file/web1/instance.json (<size> bytes)
  create-overlay: changed
    overlay ./from-file/web1/disk.part (2G) on ./from-file/_base/<sha1>_2  [256K of space]
    publish ./from-file/web1/disk.part ./from-file/web1/disk
  write-domain: changed
    write ./from-file/web1/libvirt.xml (<size> bytes)
    write ./from-file/web1/console.log (<size> bytes)
  create web1: done
  $ ls from-file/_base | norm
  <sha1>
  <sha1>.json
  <sha1>_2
  <sha1>_2.json
  $ qemu-img info -f qcow2 --output=json from-file/web1/disk | jq -r '."virtual-size", ."full-backing-filename"' | norm
  2147483648
  ./from-file/_base/<sha1>_2
  $ cowhand create web1 --image debian --root 2G --config cowhand.yaml --verbose | tail -1
  create web1: nothing to do

The name holds whole GiB, so other sizes are refused, before anything is made:

  $ cowhand create web2 --image debian --root 2500M --config cowhand.yaml
  cowhand: Cannot make a base of 2621440000 bytes: sized bases have whole GiB
    remedy: ask for a size such as 20G, or set base_layout: overlay
  [2]
  $ ls from-file
  _base
  locks
  web1

An instance stays on the base that it was made on. Under the other layout it is somebody else's:

  $ COWHAND_BASE_LAYOUT=overlay cowhand create web1 --image debian --root 2G --config cowhand.yaml |& norm
  cowhand: Cannot make "./from-file/web1/disk": a disk on "./from-file/_base/<sha1>_2" is there
    remedy: look at it, and move it away if nobody needs it: qemu-img info ./from-file/web1/disk
  [3]
