From nothing to a VM's disks: an image is taken into the store, and an instance is created on it.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ cowhand image list | norm
  NAME    FORMAT  DISK  FILE  ID
  debian  qcow2   8M    1.3M  sha256:<sha256>
  $ cat >web1.yaml <<'YAML'
  > #cloud-config
  > hostname: web1
  > YAML
  $ create() { cowhand create web1 --image debian --root 2G --ephemeral 1G --swap 256M --user-data web1.yaml "$@"; }

On success nothing is said, for a script or cron. --verbose names each step (and what it did; `dry-run.t` shows that):

  $ create --verbose | grep -v '^ '
  root disk: create from the whole image
  cache-base: changed
  make-ephemeral-base: changed
  make-swap-base: changed
  record-instance: changed
  create-overlay: changed
  create-overlay: changed
  create-overlay: changed
  make-seed: changed
  write-domain: changed
  create web1: done

Who knows the host of a Nova compute service knows each file. A base is named by the sha1 of its image's id,
and beside it is written how it was made:

  $ (cd instances && find . -not -path './locks/*' -printf '%M %P\n' | sort -k 2) | norm
  drwxr-xr-x 
  drwxr-xr-x _base
  -rw-r--r-- _base/<sha1>
  -rw-r--r-- _base/<sha1>.json
  -rw-r--r-- _base/ephemeral_0_1_linux
  -rw-r--r-- _base/ephemeral_0_1_linux.json
  -rw-r--r-- _base/swap_256
  -rw-r--r-- _base/swap_256.json
  drwxr-xr-x locks
  drwxr-xr-x web1
  -rw-rw---- web1/console.log
  -rw------- web1/disk
  -rw------- web1/disk.config
  -rw-r--r-- web1/disk.info
  -rw------- web1/disk.local
  -rw------- web1/disk.swap
  -rw-r--r-- web1/instance.json
  -rw------- web1/libvirt.xml
  $ stat -c '%a %s' instances/web1/console.log
  660 0
  $ name=$(cowhand image show debian --json | jq -j .id | sha1sum | cut -c -40)
  $ jq -c '.format, .digest, .arguments' instances/_base/$name.json | norm
  "qcow2"
  "sha256:<sha256>"
  ["qemu-img","convert","-p","-t","none","-W","-m","16","-f","qcow2","-O","raw","./images/debian.qcow2","./instances/_base/<sha1>.converted"]

The disks are qcow2 overlays; their bases are raw, and neither format is ever guessed:

  $ for disk in disk disk.local disk.swap; do
  >   qemu-img check -q -f qcow2 instances/web1/$disk &&
  >   qemu-img info -f qcow2 --output=json instances/web1/$disk |
  >     jq -r '[.filename, ."virtual-size", ."full-backing-filename", ."backing-filename-format"] | join(" ")'
  > done | norm
  instances/web1/disk 2147483648 ./instances/_base/<sha1> raw
  instances/web1/disk.local 1073741824 ./instances/_base/ephemeral_0_1_linux raw
  instances/web1/disk.swap 268435456 ./instances/_base/swap_256 raw
  $ norm <instances/web1/disk.info
  {
    "./instances/web1/disk": "qcow2",
    "./instances/web1/disk.local": "qcow2",
    "./instances/web1/disk.swap": "qcow2"
  }
  $ qemu-img compare -f raw -F qcow2 instances/_base/$name images/debian.qcow2
  Images are identical.

The ephemeral disk is found by its label, and the seed by its own; they are read without being mounted:

  $ blkid -p -s LABEL -s TYPE -o value instances/_base/ephemeral_0_1_linux
  ephemeral0
  ext4
  $ blkid -p -s LABEL -s TYPE -o value instances/_base/swap_256
  swap0
  swap
  $ blkid -p -s LABEL -o value instances/web1/disk.config
  cidata
  $ isoinfo -R -x /user-data -i instances/web1/disk.config
  #cloud-config
  hostname: web1

The domain has the disks in their places:

  $ grep -E "<(name|uuid|source file|target dev|driver)" instances/web1/libvirt.xml | norm
    <name>web1</name>
    <uuid><uuid></uuid>
        <driver name='qemu' type='qcow2' cache='none'/>
        <source file='./instances/web1/disk'/>
          <source file='./instances/_base/<sha1>'>
        <target dev='vda' bus='virtio'/>
        <driver name='qemu' type='qcow2' cache='none'/>
        <source file='./instances/web1/disk.local'/>
          <source file='./instances/_base/ephemeral_0_1_linux'>
        <target dev='vdb' bus='virtio'/>
        <driver name='qemu' type='qcow2' cache='none'/>
        <source file='./instances/web1/disk.swap'/>
          <source file='./instances/_base/swap_256'>
        <target dev='vdc' bus='virtio'/>
        <driver name='qemu' type='raw'/>
        <source file='./instances/web1/disk.config'/>
        <target dev='sda' bus='scsi'/>

What there is now:

  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    1G         256M  <used>
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
  $ cowhand image show debian | norm
  debian
    id:       sha256:<sha256>
    file:     ./images/debian.qcow2
    format:   qcow2
    disk:     8M
    base:     ./instances/_base/<sha1> (<used> on disk)

The same command again finds everything as it is to be. No file is written to, nor replaced:

  $ tree() { find instances images -not -path '*/locks*' -type f -printf '%p %i %s %T@ %C@ %m\n' | sort; }
  $ tree >before
  $ create --verbose
  root disk: create from the whole image
  cache-base: ok
  make-ephemeral-base: ok
  make-swap-base: ok
  record-instance: ok
  create-overlay: ok
  create-overlay: ok
  create-overlay: ok
  make-seed: ok
  write-domain: ok
  create web1: nothing to do
  $ tree | diff before -

A second VM of the same image and sizes needs no more than its overlays:

  $ cowhand create web2 --image debian --root 3G --swap 256M --verbose |& norm
  root disk: create from the whole image
  cache-base: ok
  make-swap-base: ok
  record-instance: changed
    mkdir ./instances/web2
    write ./instances/web2/disk.info (<size> bytes)
    write ./instances/web2/instance.json (<size> bytes)
  create-overlay: changed
    overlay ./instances/web2/disk.part (3G) on ./instances/_base/<sha1>  [256K of space]
    publish ./instances/web2/disk.part ./instances/web2/disk
  create-overlay: changed
    overlay ./instances/web2/disk.swap.part (256M) on ./instances/_base/swap_256  [256K of space]
    publish ./instances/web2/disk.swap.part ./instances/web2/disk.swap
  write-domain: changed
    write ./instances/web2/libvirt.xml (<size> bytes)
    write ./instances/web2/console.log (<size> bytes)
  create web2: done
  $ cowhand list | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    1G         256M  <used>
  web2  debian  3G    -          256M  <used>

Something is destroyed only when somebody says so:

  $ cowhand delete web1
  cowhand: Cannot delete instance "web1" with all its disks: there is nobody to ask
    remedy: say that you are sure: --yes
  [3]
  $ cowhand delete web1 --yes --verbose | norm
  remove-instance: changed
    touch the records of its bases
    remove ./instances/web1/console.log
    remove ./instances/web1/disk
    remove ./instances/web1/disk.config
    remove ./instances/web1/disk.info
    remove ./instances/web1/disk.local
    remove ./instances/web1/disk.swap
    remove ./instances/web1/libvirt.xml
    remove ./instances/web1/instance.json
    rmdir ./instances/web1
  delete web1: done
  $ cowhand delete web1 --yes --verbose
  remove-instance: ok
  delete web1: nothing to do

The bases stay: other instances stand on them, and the next one will.

  $ ls instances instances/_base | norm
  instances:
  _base
  locks
  web2
  
  instances/_base:
  <sha1>
  <sha1>.json
  ephemeral_0_1_linux
  ephemeral_0_1_linux.json
  swap_256
  swap_256.json
  $ cowhand show web1 |& norm
  cowhand: Cannot find instance "web1": "./instances" has none of this name
    remedy: see what there is: cowhand list
  [3]
