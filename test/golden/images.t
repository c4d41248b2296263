The store keeps images, each under a name that you give it and with a digest that it is proven by.

  $ . "$TESTDIR/setup.sh"
  $ sum=$(sha256sum <debian.qcow2 | cut -d ' ' -f 1)
  $ cowhand image add debian.qcow2 --name debian-12 --checksum sha256:$sum --property os_distro=debian --property arch=x86_64 --verbose |& norm
  import-image: changed
    mkdir ./images
    copy ./debian.qcow2 ./images/debian-12.qcow2.part (1.3M)  [1.3M of space]
    examine ./images/debian-12.qcow2.part (qcow2)
    qemu-img check -q -f qcow2 ./images/debian-12.qcow2.part
    record ./images/debian-12.json
    publish ./images/debian-12.qcow2.part ./images/debian-12.qcow2
  image add: done
  $ cowhand image list | norm
  NAME       FORMAT  DISK  FILE  ID
  debian-12  qcow2   8M    1.3M  sha256:<sha256>
  $ cowhand image show debian-12 | norm
  debian-12
    id:       sha256:<sha256>
    file:     ./images/debian-12.qcow2
    format:   qcow2
    disk:     8M
    base:     ./instances/_base/<sha1> (not cached)
    property: os_distro=debian
    property: arch=x86_64
  $ ls images
  debian-12.json
  debian-12.qcow2
  locks
  $ jq -c '[.version, .name, .file, .format, .virtualSize, .properties]' images/debian-12.json
  [1,"debian-12","debian-12.qcow2","qcow2",8388608,{"os_distro":"debian","arch":"x86_64"}]
  $ cmp debian.qcow2 images/debian-12.qcow2

By the same words nothing is done:

  $ cowhand image add debian.qcow2 --name debian-12 --checksum sha256:$sum --property os_distro=debian --property arch=x86_64 --verbose
  import-image: ok
  image add: nothing to do

A name means one image. Another file, another format or another property under the same name is refused:

  $ qemu-img convert -f qcow2 -O raw debian.qcow2 other.raw
  $ cowhand image add other.raw --name debian-12 |& norm
  cowhand: Cannot add "./other.raw" as "debian-12": the store has another image of this name
    remedy: choose another --name, or remove the old one: cowhand image remove debian-12
  [3]
  $ cowhand image add debian.qcow2 --name debian-12 |& norm
  cowhand: Cannot add "./debian.qcow2" as "debian-12": the store has it with another property os_distro
    remedy: choose another --name, or remove the old one: cowhand image remove debian-12
  [3]

So is a file that has not the checksum which its maker gave, and nothing of it is kept. The checksum may be a
sha256 or a sha512:

  $ cowhand image add debian.qcow2 --name copy --checksum sha256:$(printf '%064d' 0) |& norm
  cowhand: Cannot use "./debian.qcow2": its digest is sha256:<sha256>, expected sha256:<sha256>
    remedy: get the file again, or ask its maker for the right checksum
  [3]
  $ cowhand image add debian.qcow2 --name copy --checksum sha512:$(sha512sum <debian.qcow2 | cut -d ' ' -f 1)
  $ cowhand image add debian.qcow2 --name copy --checksum md5:d41d8cd98f00b204e9800998ecf8427e |& norm
  cowhand: Cannot use image "./debian.qcow2": only md5 vouches for its bytes, and that can be forged
    remedy: give a better one: --checksum sha256:HEX; or take it all the same: --allow-weak-checksum
  [3]
  $ ls images
  copy.json
  copy.qcow2
  debian-12.json
  debian-12.qcow2
  locks

Formats
-------

An image's format is what you say, or what the file's name says, and the content has to agree. From each
format comes the same base:

  $ convert() { qemu-img convert -f qcow2 -O "$@" debian.qcow2 "disk.$n"; }
  $ n=raw convert raw; n=vmdk convert vmdk; n=vdi convert vdi; n=vhdx convert vhdx; n=vpc convert vpc -o force_size=on
  $ mv disk.vpc disk.vhd
  $ n=v2.qcow2 convert qcow2 -o compat=0.10; n=zlib.qcow2 convert qcow2 -c; n=zstd.qcow2 convert qcow2 -c -o compression_type=zstd
  $ for file in disk.*; do
  >   cowhand image add "$file" --name "${file#disk.}" && cowhand create "vm-${file#disk.}" --image "${file#disk.}" --root 16M
  > done
  $ cowhand image list --json | jq -r '.images[] | [.name, .format, .virtualSize] | join(" ")'
  copy qcow2 8388608
  debian-12 qcow2 8388608
  raw raw 8388608
  v2.qcow2 qcow2 8388608
  vdi vdi 8388608
  vhd vpc 8388608
  vhdx vhdx 8388608
  vmdk vmdk 8388608
  zlib.qcow2 qcow2 8388608
  zstd.qcow2 qcow2 8388608
  $ for disk in instances/vm-*/disk; do
  >   qemu-img compare -q -f qcow2 -F qcow2 $disk debian.qcow2 || echo "$disk differs"
  > done

Packed files are unpacked as a stream, and what was unpacked is examined like any other image:

  $ gzip -k disk.raw && xz -k0 debian.qcow2 && zstd -q disk.vmdk && bzip2 -k disk.raw
  $ for file in disk.raw.gz debian.qcow2.xz disk.vmdk.zst disk.raw.bz2; do
  >   cowhand image add $file --name ${file##*.} && cowhand create vm-${file##*.} --image ${file##*.} --root 16M &&
  >     qemu-img compare -q -f qcow2 -F qcow2 instances/vm-${file##*.}/disk debian.qcow2
  > done
  $ cowhand image list --json | jq -r '.images[] | select(.packing) | [.name, .format, .packing] | join(" ")'
  bz2 raw bz2
  gz raw gz
  xz qcow2 xz
  zst vmdk zst
  $ cowhand image show xz | norm
  xz
    id:       sha256:<sha256>
    file:     ./images/xz.qcow2.xz
    format:   qcow2, packed with xz
    disk:     8M
    base:     ./instances/_base/<sha1> (<used> on disk)
  $ ls images | grep -E 'part|unpacked|converted'
  [1]

Replaced files
--------------

A file of the store that was replaced or written to is noticed when it is to be used:

  $ qemu-img create -q -f qcow2 new.qcow2 32M
  $ cp new.qcow2 images/debian-12.qcow2
  $ cowhand create web1 --image debian-12 --root 2G |& norm
  cowhand: Cannot use image "debian-12": its file ./images/debian-12.qcow2 was replaced since it was added
    remedy: put the old file back, or take the new one in: cowhand image add ./images/debian-12.qcow2 --name debian-12
  [3]
  $ cowhand image add $PWD/images/debian-12.qcow2 --name debian-12

Now it is another image: it has another id, and a base of its own. The old base stays as it is for those that stand on it:

  $ cowhand image show debian-12 | norm
  debian-12
    id:       sha256:<sha256>
    file:     ./images/debian-12.qcow2
    format:   qcow2
    disk:     32M
    base:     ./instances/_base/<sha1> (not cached)
  $ ls instances/_base/*.json | wc -l
  12
  $ cowhand create web1 --image debian-12 --root 2G
  $ ls instances/_base/*.json | wc -l
  13

A file that was only copied or touched has the same bytes, and is the same image:

  $ touch images/debian-12.qcow2
  $ cowhand create web1 --image debian-12 --root 2G --verbose
  root disk: create from the whole image
  cache-base: ok
  record-instance: ok
  create-overlay: ok
  write-domain: ok
  create web1: nothing to do

Remove
------

  $ cowhand image remove gz
  cowhand: Cannot delete image "gz" from the store: there is nobody to ask
    remedy: say that you are sure: --yes
  [3]
  $ cowhand image remove gz --yes --verbose | norm
  remove-image: changed
    remove ./images/gz.raw.gz
    remove ./images/gz.json
  image remove: done
  $ cowhand image remove gz --yes --verbose
  remove-image: ok
  image remove: nothing to do
  $ ls images | grep -w gz
  [1]
  $ cowhand image show gz |& norm
  cowhand: Cannot find image "gz": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name gz
  [3]
  $ cowhand create vm --image gz --root 1G |& norm
  cowhand: Cannot find image "gz": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name gz
  [3]

What was made of it lives on:

  $ cowhand create vm-bz2 --image bz2 --root 16M --verbose
  root disk: create from the whole image
  cache-base: ok
  record-instance: ok
  create-overlay: ok
  write-domain: ok
  create vm-bz2: nothing to do
  $ qemu-img compare -q -f qcow2 -F qcow2 instances/vm-gz/disk debian.qcow2

A record that is none does not hide the other images, and is named:

  $ echo nonsense > images/broken.json
  $ cowhand image list |& norm | grep -e debian-12 -e Cannot
  debian-12   qcow2     32M   192K  sha256:<sha256>
  Cannot read "./images/broken.json": it is not JSON
  [1]
  $ cowhand create vm2 --image debian-12 --root 1G
