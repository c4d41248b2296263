Nothing is believed that can be forged, and nothing that a guest or an image's author wrote.

  $ . $TESTDIR/setup.sh
  $ md5=md5:$(md5sum debian.qcow2 | cut -d' ' -f1)

Of md5 and sha1 two files with one digest can be made. Such a checksum counts only where the operator says so, and then
it is said aloud:

  $ cowhand image add debian.qcow2 --name debian --checksum $md5 |& norm
  cowhand: Cannot use image "./debian.qcow2": only md5 vouches for its bytes, and that can be forged
    remedy: give a better one: --checksum sha256:HEX; or take it all the same: --allow-weak-checksum
  [3]
  $ cowhand image add debian.qcow2 --name debian --checksum $md5 --allow-weak-checksum |& norm
  warning: image "./debian.qcow2" is vouched for by md5 only, which can be forged

The store proves the bytes by it, and gives them a digest of its own, which is their id:

  $ cowhand image show debian | norm
  debian
    id:       sha256:<sha256>
    file:     ./images/debian.qcow2
    format:   qcow2
    disk:     8M
    base:     ./instances/_base/<sha1> (not cached)
  $ cowhand image add debian.qcow2 --name other --checksum md5:00000000000000000000000000000000 --allow-weak-checksum |& norm
  warning: image "./debian.qcow2" is vouched for by md5 only, which can be forged
  cowhand: Cannot use "./debian.qcow2": its digest is md5:a93dd784f1dee539242866188f43cf88, expected md5:00000000000000000000000000000000
    remedy: get the file again, or ask its maker for the right checksum
  [3]

From a web server it is the same. There nothing better is known of the bytes, so the URL becomes a part of the id: two
files with one md5 never meet in one base.

  $ mkdir www && cp debian.qcow2 www/ && serve www
  $ web() { cowhand create web1 --image $url/debian.qcow2 --root 1G --checksum $md5 "$@"; }
  $ web |& norm
  cowhand: Cannot use image "http://127.0.0.1:<port>/debian.qcow2": only md5 vouches for its bytes, and that can be forged
    remedy: give a better one: --checksum sha256:HEX; or take it all the same: --allow-weak-checksum
  [3]
  $ web --allow-weak-checksum |& norm
  warning: image "http://127.0.0.1:<port>/debian.qcow2" is vouched for by md5 only, which can be forged
  $ web --allow-weak-checksum --json 2>/dev/null | jq -c '.ok, .changed, .warnings' | norm
  true
  false
  ["image \"http://127.0.0.1:<port>/debian.qcow2\" is vouched for by md5 only, which can be forged"]
  $ cowhand show web1 | grep 'image id' | sed -E 's/[0-9a-f]{32,}/<hex>/g'
    image id:  weak:md5:<hex>@<hex>

Ad hoc too:

  $ cowhand step cache-base --from $here/debian.qcow2 --digest $md5 --format qcow2 --base $here/instances/_base/mine |& norm
  cowhand: Cannot use image "./debian.qcow2": only md5 vouches for its bytes, and that can be forged
    remedy: give a better one: --checksum sha256:HEX; or take it all the same: --allow-weak-checksum
  [3]

A SHA512SUMS beside the image is preferred to a SHA256SUMS:

  $ (cd www && sha256sum debian.qcow2 >SHA256SUMS && sha512sum debian.qcow2 >SHA512SUMS)
  $ cowhand create web2 --image $url/debian.qcow2 --root 1G
  $ cowhand show web2 | grep 'image id' | norm
    image id:  sha512:<sha512>

A disk is what disk.info says. A guest that writes a qcow2 header into its raw disk has written data:

  $ cowhand create vm1 --image debian --root 1G
  $ qemu-img create -q -f qcow2 -F raw -u -b /etc/shadow instances/vm1/disk 1G
  $ echo "{\"$here/instances/vm1/disk\": \"raw\"}" >instances/vm1/disk.info
  $ cowhand show vm1 | grep -A1 'disk (' | sed -E 's/[0-9.]+K/<size>/g'
    disk (raw, <size>, <size> on disk)

Names are written by others. What would steer the terminal, or turn the direction of writing, is shown instead:

  $ cowhand image add debian.qcow2 --name odd --property "note=$(printf 'a\xe2\x80\xaegnp')"
  $ cowhand image show odd | grep note
    property: note=a\u{202e}gnp
  $ cowhand image show "$(printf 'x\033[2Jy\ncowhand: all is well')" |& norm
  cowhand: Cannot find image "x\x1b[2Jy\x0acowhand: all is well": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name NAME
  [3]
