--dry-run prints what would be done: the very actions of the real run, the bytes that would be fetched, and the
space that it may take. It changes nothing, and makes no directory either.

  $ . "$TESTDIR/setup.sh"
  $ touch before planned && find . | sort >before
  $ cowhand image add debian.qcow2 --dry-run |& norm
  import-image: planned
    mkdir ./images
    copy ./debian.qcow2 ./images/debian.qcow2.part (1.3M)  [1.3M of space]
    examine ./images/debian.qcow2.part (qcow2)
    qemu-img check -q -f qcow2 ./images/debian.qcow2.part
    record ./images/debian.json
    publish ./images/debian.qcow2.part ./images/debian.qcow2
  image add: 1 of 1 steps to do (about 1.3M of space); nothing was changed
  $ find . | sort | diff before -

  $ cowhand image add debian.qcow2
  $ printf '#cloud-config\n' >web1.yaml
  $ create() { cowhand create web1 --image debian --root 2G --ephemeral 1G --swap 256M --user-data web1.yaml "$@"; }
  $ find . | sort >before
  $ create --dry-run | tee planned | norm
  root disk: create from the whole image
  cache-base: planned
    mkdir ./instances/_base
    examine ./images/debian.qcow2 (qcow2)
    qemu-img check -q -f qcow2 ./images/debian.qcow2
    qemu-img convert -p -W -m 16 -f qcow2 -O raw ./images/debian.qcow2 ./instances/_base/<sha1>.converted  [1.3M of space]
    record ./instances/_base/<sha1>.json
    publish ./instances/_base/<sha1>.converted ./instances/_base/<sha1>
  make-ephemeral-base: planned
    mkdir ./instances/_base
    allocate ./instances/_base/ephemeral_0_1_linux.part (1G, sparse)
    mke2fs -q -F -T default -L ephemeral0 -U <uuid> -b 4096 -I 256 -i 16384 -m 5 -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file,extent,64bit,flex_bg,huge_file,dir_nlink,extra_isize,metadata_csum -E hash_seed=<uuid>,root_owner=0:0,assume_storage_prezeroed=1 ./instances/_base/ephemeral_0_1_linux.part
    record ./instances/_base/ephemeral_0_1_linux.json
    publish ./instances/_base/ephemeral_0_1_linux.part ./instances/_base/ephemeral_0_1_linux
  make-swap-base: planned
    mkdir ./instances/_base
    allocate ./instances/_base/swap_256.part (256M, sparse)
    mkswap -q -p 4096 -L swap0 -U <uuid> ./instances/_base/swap_256.part
    record ./instances/_base/swap_256.json
    publish ./instances/_base/swap_256.part ./instances/_base/swap_256
  record-instance: planned
    mkdir ./instances/web1
    write ./instances/web1/disk.info (<size> bytes)
    write ./instances/web1/instance.json (<size> bytes)
  create-overlay: planned
    overlay ./instances/web1/disk.part (2G) on ./instances/_base/<sha1>  [256K of space]
    publish ./instances/web1/disk.part ./instances/web1/disk
  create-overlay: planned
    overlay ./instances/web1/disk.local.part (1G) on ./instances/_base/ephemeral_0_1_linux  [256K of space]
    publish ./instances/web1/disk.local.part ./instances/web1/disk.local
  create-overlay: planned
    overlay ./instances/web1/disk.swap.part (256M) on ./instances/_base/swap_256  [256K of space]
    publish ./instances/web1/disk.swap.part ./instances/web1/disk.swap
  make-seed: planned
    mkdir ./instances/web1/disk.config.d
    write ./instances/web1/disk.config.d/user-data (<size> bytes)
    write ./instances/web1/disk.config.d/meta-data (<size> bytes)
    genisoimage -quiet -output ./instances/web1/disk.config.part -volid cidata -joliet -rock ./instances/web1/disk.config.d
    publish ./instances/web1/disk.config.part ./instances/web1/disk.config
    remove ./instances/web1/disk.config.d/user-data
    remove ./instances/web1/disk.config.d/meta-data
    rmdir ./instances/web1/disk.config.d
  write-domain: planned
    write ./instances/web1/libvirt.xml (<size> bytes)
    write ./instances/web1/console.log (<size> bytes)
  create web1: 9 of 9 steps to do (about 2.1M of space); nothing was changed
  $ find . | sort | diff before -

The same as JSON, for a script that wants to know what it will cost:

  $ create --dry-run --json | jq -c '.ok, .changed, [.steps[] | [.step, .status]], ([.steps[].actions[].space // 0] | add < 4000000)'
  true
  false
  [["cache-base","planned"],["make-ephemeral-base","planned"],["make-swap-base","planned"],["record-instance","planned"],["create-overlay","planned"],["create-overlay","planned"],["create-overlay","planned"],["make-seed","planned"],["write-domain","planned"]]
  true

The real run does these very actions:

  $ create --verbose >done
  $ diff <(grep '^ ' planned) <(grep '^ ' 'done')

When all is done, nothing is left to do; and what is missing in part is done in part:

  $ create --dry-run
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
  $ rm instances/web1/disk.swap
  $ create --dry-run | norm
  root disk: create from the whole image
  cache-base: ok
  make-ephemeral-base: ok
  make-swap-base: ok
  record-instance: ok
  create-overlay: ok
  create-overlay: ok
  create-overlay: planned
    overlay ./instances/web1/disk.swap.part (256M) on ./instances/_base/swap_256  [256K of space]
    publish ./instances/web1/disk.swap.part ./instances/web1/disk.swap
  make-seed: ok
  write-domain: ok
  create web1: 1 of 9 steps to do (about 256K of space); nothing was changed
  $ create && qemu-img check -q -f qcow2 instances/web1/disk.swap

What would be refused is refused here too, with the same exit code:

  $ cowhand create web1 --image debian --root 3G --dry-run
  cowhand: Cannot create "web1": it exists with root 2G, not 3G
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  [3]
  $ cowhand create web2 --image debian --root 1K --dry-run
  cowhand: Cannot create "web2" with --root 1K: image "debian" has 8M
    remedy: ask for at least that: --root 8M
  [3]

To delete is planned without a question:

  $ cowhand delete web1 --dry-run | norm
  remove-instance: planned
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
  delete web1: 1 of 1 steps to do; nothing was changed
  $ ls instances/web1 | wc -l
  8
