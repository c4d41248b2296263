An image may come straight from a web server, when something vouches for its bytes: a checksum that you give, or a
SHA256SUMS beside it.

  $ . "$TESTDIR/setup.sh"
  $ mkdir www && mv debian.qcow2 www/
  $ serve www
  $ sum=sha256:$(sha256sum <www/debian.qcow2 | cut -d ' ' -f 1)

Nothing vouches for it:

  $ cowhand create web1 --image $url/debian.qcow2 --root 2G |& norm
  cowhand: Cannot use "http://127.0.0.1:<port>/debian.qcow2": nothing vouches for its bytes, there is no SHA512SUMS or SHA256SUMS beside it that names debian.qcow2
    remedy: give its checksum: --checksum sha256:HEX
  [3]
  $ ls
  server.log
  www

Of bytes that have not the checksum nothing is left, and no part either:

  $ cowhand create web1 --image $url/debian.qcow2 --checksum sha256:$(printf '%064d' 0) --root 2G |& norm
  cowhand: Cannot use "http://127.0.0.1:<port>/debian.qcow2": its sha256 is 0d982bf477c81403..., expected 0000000000000000...
    remedy: compare the checksum with the one that the publisher gives now
  [1]
  $ find instances -not -path '*/locks/*' -type f

What the server has not, what is too large, and what would show a password to every process of the host:

  $ cowhand create web1 --image $url/nothere.qcow2 --checksum $sum --root 2G |& norm
  cowhand: Cannot fetch "http://127.0.0.1:<port>/nothere.qcow2": the server has no such file (404)
    remedy: check the URL
  [1]
  $ cowhand create web1 --image $url/debian.qcow2 --checksum $sum --root 4M |& norm
  cowhand: Cannot create "web1" with --root 4M: image "http://127.0.0.1:<port>/debian.qcow2" has 8M
    remedy: ask for at least that: --root 8M
  [3]
  $ cowhand create web1 --image http://me:secret@127.0.0.1/debian.qcow2 --checksum $sum --root 2G
  cowhand: Cannot use this URL: it has a password in it, which every process on the host could read
    remedy: serve the image without one; --checksum protects it
  [2]
  $ cowhand create web1 --image $url/ --checksum $sum --root 2G
  cowhand: Cannot tell the format of "": its name does not say it
    remedy: add --image-format qcow2, or raw, vmdk, vdi, vhd, vhdx: cowhand never guesses from the content
  [2]

What is downloaded is examined like any other image, and not kept where it is refused:

  $ qemu-img create -q -f qcow2 -F raw -b /etc/passwd www/backing.qcow2 1M
  $ cowhand create web1 --image $url/backing.qcow2 --checksum sha256:$(sha256sum <www/backing.qcow2 | cut -d ' ' -f 1) --root 2G |& norm
  cowhand: Cannot use image "http://127.0.0.1:<port>/backing.qcow2": it has a backing file
    remedy: if you trust its maker, have it made whole: qemu-img convert -O qcow2 IMAGE NEW-IMAGE
  [3]
  $ find instances -not -path '*/locks/*' -type f

With the checksum it is downloaded once:

  $ cowhand create web1 --image $url/debian.qcow2 --checksum $sum --root 2G --dry-run |& norm | sed -n '1,4p;$p'
  root disk: create from the whole image
  cache-base: planned
    mkdir ./instances/_base
    fetch http://127.0.0.1:<port>/debian.qcow2 ./instances/_base/<sha1>.part (1.3M)  [1.3M to fetch, 1.3M of space]
  create web1: 4 of 4 steps to do (1.3M to fetch, about 2.9M of space); nothing was changed
  $ cowhand create web1 --image $url/debian.qcow2 --checksum $sum --root 2G --verbose |& norm | grep -v '^ '
  root disk: create from the whole image
  cache-base: changed
  record-instance: changed
  create-overlay: changed
  write-domain: changed
  create web1: done, 1.3M fetched
  $ qemu-img compare -q -f qcow2 -F qcow2 www/debian.qcow2 instances/web1/disk || echo differs
  $ cowhand show web1 | norm
  web1
    image:     http://127.0.0.1:<port>/debian.qcow2
    image id:  sha256:<sha256>
    uuid:      <uuid>
    directory: ./instances/web1
    os type:   linux
    disk (qcow2, 2G, <used> on disk)
    `- ./instances/_base/<sha1> (raw, 8M, <used> on disk)

With a SHA256SUMS beside it the checksum need not be given; the same bytes are the same image, so nothing is fetched:

  $ (cd www && sha256sum debian.qcow2 >SHA256SUMS)
  $ cowhand create web2 --image $url/debian.qcow2 --root 2G --json | jq -c '[.ok, .bytes.fetched]'
  [true,0]

When the maker publishes another image under the same name, it is another image, with a base of its own:

  $ qemu-img create -q -f qcow2 www/debian.qcow2 16M && (cd www && sha256sum debian.qcow2 >SHA256SUMS)
  $ cowhand create web3 --image $url/debian.qcow2 --root 2G
  $ cowhand create web2 --image $url/debian.qcow2 --root 2G |& norm
  cowhand: Cannot create "web2": it exists with image http://127.0.0.1:<port>/debian.qcow2 (sha256:0d982bf477c8...), not http://127.0.0.1:<port>/debian.qcow2 (sha256:a868962514df...)
    remedy: ask for what it has (cowhand show web2), or remove it: cowhand delete web2
  [3]
  $ ls instances/_base/*.json | wc -l
  2

Packed images are unpacked on the way:

  $ gzip -c www/debian.qcow2 >www/packed.qcow2.gz
  $ cowhand create web4 --image $url/packed.qcow2.gz --checksum sha256:$(sha256sum <www/packed.qcow2.gz | cut -d ' ' -f 1) --root 2G
  $ qemu-img compare -q -f qcow2 -F qcow2 www/debian.qcow2 instances/web4/disk || echo differs

How large such an image is shows only when it is unpacked. Of an instance that it is too large for nothing is written
down, so what the remedy says can be done. (A URL has %20 and the like where a file's name has blanks.)

  $ gzip -9c www/debian.qcow2 >'www/another one.qcow2.gz' && (cd www && sha256sum another* >SHA256SUMS)
  $ cowhand create web6 --image $url/another%20one.qcow2.gz --root 8M |& norm
  cowhand: Cannot create "web6" with --root 8M: image "http://127.0.0.1:<port>/another%20one.qcow2.gz" has 16M
    remedy: ask for at least that: --root 16M
  [3]
  $ ls instances | grep web6
  [1]
  $ cowhand create web6 --image $url/another%20one.qcow2.gz --root 16M
  $ cowhand delete web6 --yes

A base that is there needs no server, when the checksum says which it is:

  $ kill $server
  $ cowhand create web5 --image $url/debian.qcow2 --checksum $sum --root 3G
  $ cowhand list | norm
  NAME  IMAGE                                   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  http://127.0.0.1:<port>/debian.qcow2     2G    -          -     <used>
  web2  http://127.0.0.1:<port>/debian.qcow2     2G    -          -     <used>
  web3  http://127.0.0.1:<port>/debian.qcow2     2G    -          -     <used>
  web4  http://127.0.0.1:<port>/packed.qcow2.gz  2G    -          -     <used>
  web5  http://127.0.0.1:<port>/debian.qcow2     3G    -          -     <used>
