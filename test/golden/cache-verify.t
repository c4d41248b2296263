Bases are shared by many instances: a wrong byte in one harms all of them. cowhand makes them before they are needed,
reads them again when it is asked to, and lets nothing new stand on one that is not what it was.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ base=$PWD/instances/_base/$(cowhand image show debian --json | jq -j .id | sha1sum | cut -c -40)

Before they are needed
----------------------

`cache prefetch` is for cron. With the base comes the digest of its content: the bytes are at hand, and nobody waits.

  $ cowhand cache prefetch debian --verbose | norm
  debian: base ./instances/_base/<sha1>
  cache-base: changed
    mkdir ./instances/_base
    examine ./images/debian.qcow2 (qcow2)
    qemu-img check -q -f qcow2 ./images/debian.qcow2
    qemu-img convert -p -W -m 16 -f qcow2 -O raw ./images/debian.qcow2 ./instances/_base/<sha1>.converted  [1.3M of space]
    measure ./instances/_base/<sha1>.converted
    record ./instances/_base/<sha1>.json
    publish ./instances/_base/<sha1>.converted ./instances/_base/<sha1>
  cache prefetch: done
  $ cowhand cache prefetch debian --verbose | norm
  debian: base ./instances/_base/<sha1>
  cache-base: ok
  cache prefetch: nothing to do
  $ jq -c '.id, .name, .source, .digest, .format, .sourceSize, .size, .reader, .made' $base.json | norm
  "sha256:<sha256>"
  "debian"
  "./images/debian.qcow2"
  "sha256:<sha256>"
  "qcow2"
  1376256
  8388608
  1
  "<time>"
  $ jq -c '.content | .digest, .proven' $base.json | norm
  "content-sha256:<sha256>"
  true

Each image is a matter of its own: where one cannot be had, the others are made all the same.

  $ cp debian.qcow2 other.qcow2 && printf x >>other.qcow2 && cowhand image add other.qcow2
  $ cowhand cache prefetch nothere other |& norm
  cowhand: Cannot find image "nothere": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name nothere
  [3]
  $ ls instances/_base | norm
  <sha1>
  <sha1>.json
  <sha1>
  <sha1>.json

From a web server, and not so fast that the guests starve:

  $ mkdir www && cp debian.qcow2 www/web.qcow2 && (cd www && sha256sum web.qcow2 >SHA256SUMS && head -c 1M /dev/urandom >big.raw)
  $ serve www
  $ sum=sha256:$(sha256sum <www/big.raw | cut -d ' ' -f 1)
  $ cowhand cache prefetch $url/big.raw --checksum $sum --bwlimit 2M --json | jq -c '.ok, .changed, .bytes.fetched'
  true
  true
  1048576
  $ cowhand cache prefetch $url/big.raw debian --checksum $sum |& norm
  cowhand: Cannot use --checksum for 2 images: it is of one
    remedy: prefetch that one by itself
  [2]
  $ cowhand cache prefetch debian --bwlimit fast
  cowhand: Cannot read --bwlimit "fast": it is not a rate such as 50M (bytes per second)
    remedy: see what it may be: cowhand cache prefetch --help
  [2]
  $ cowhand cache prefetch
  cowhand: Cannot read IMAGE: it is empty
    remedy: see what it may be: cowhand cache prefetch --help
  [2]

Read again
----------

  $ cowhand create web1 --image debian --root 1G --swap 16M
  $ cowhand create web2 --image debian --root 1G
  $ cowhand cache verify --verbose | norm
  verify-base <sha1>: ok
  verify-base <sha1>: ok
  verify-base <sha1>: ok
  verify-base swap_16: changed
    record ./instances/_base/swap_16.json (there is nothing to compare it with: what is in it now was recorded, not proven)
  cache verify: done
  $ cowhand cache verify
  $ cowhand cache verify debian swap_16 --verbose | norm
  verify-base <sha1>: ok
  verify-base swap_16: ok
  cache verify: nothing to do
  $ cowhand cache verify nothere |& norm
  cowhand: Cannot find image "nothere": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name nothere
  [3]

What something wrote to
-----------------------

A few bytes, of the same size, and even the time is put back:

  $ touch -r $base time
  $ printf oops | dd of=$base bs=1 seek=5000 conv=notrunc status=none && touch -r time $base
  $ cowhand cache verify |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded; on it stand web1, web2
    remedy: put back what was in it, or remove these instances; then: cowhand cache verify <sha1>
  [1]
  $ cowhand cache verify $(basename $base) --json 2>/dev/null | jq -c '.error.code, (.steps[] | .step, .status)'
  "BASE_DIFFERS"
  "verify-base"
  "failed"
  [1]

Instances stand on it, so it stays where it is; but nothing new will:

  $ cowhand create web3 --image debian --root 1G |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded
    remedy: find out what is in it and who stands on it: cowhand cache verify <sha1>
  [3]
  $ ls instances
  _base
  locks
  web1
  web2
  $ cowhand show web1 | norm | grep QUARANTINED
    `- ./instances/_base/<sha1> (raw, 8M, <used> on disk; QUARANTINED: its content is not what it was when it was recorded)
  $ cowhand cache verify debian |& norm | head -1
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded; on it stand web1, web2
  [1]
  $ jq -c .quarantined $base.json | norm
  {"since":"<time>","why":"its content is not what it was when it was recorded"}

When its bytes are right again, it is as before:

  $ qemu-img convert -f qcow2 -O raw debian.qcow2 $base
  $ cowhand create web3 --image debian --root 1G |& norm | head -1
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded
  [3]
  $ cowhand cache verify debian --verbose | norm
  verify-base <sha1>: changed
    record ./instances/_base/<sha1>.json (it is right again)
  cache verify: done
  $ cowhand create web3 --image debian --root 1G

A base that nobody stands on is set aside, and the next instance gets a new one:

  $ for name in web1 web2 web3; do cowhand delete $name --yes; done
  $ printf oops | dd of=$base bs=1 seek=5000 conv=notrunc status=none
  $ cowhand create web1 --image debian --root 1G |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded
    remedy: find out what is in it and who stands on it: cowhand cache verify <sha1>
  [3]
  $ cowhand cache verify debian |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": its content is not what it was when it was recorded; nothing stands on it, and it was set aside as ./instances/_base/<sha1>.quarantined
    remedy: the next create makes it anew; look at what became of it, and remove it: rm ./instances/_base/<sha1>.quarantined
  [1]
  $ cowhand create web1 --image debian --root 1G
  $ ls instances/_base/$(basename $base)* | norm
  instances/_base/<sha1>
  instances/_base/<sha1>.json
  instances/_base/<sha1>.quarantined
  instances/_base/<sha1>.quarantined.json
  $ rm $base.quarantined $base.quarantined.json

A base that is another file now (put back from a backup, say) is believed when it is proven, and that is seen by itself:

  $ cp --sparse=always $base copy && mv copy $base
  $ cowhand create web2 --image debian --root 1G --verbose | norm | head -3
  root disk: create from the whole image
  cache-base: changed
    record ./instances/_base/<sha1>.json

What nothing can prove is not believed. Swap spaces have no image; this one was never read before:

  $ cowhand create web4 --image debian --root 1G --swap 32M
  $ printf oops | dd of=instances/_base/swap_32 bs=1 seek=5000 conv=notrunc status=none
  $ cowhand create web5 --image debian --root 1G --swap 32M |& norm
  cowhand: Cannot use base "./instances/_base/swap_32": it was written to or replaced since it was made, and nothing proves what is in it now
    remedy: find out what is in it and who stands on it: cowhand cache verify swap_32
  [3]
  $ cowhand cache verify swap_32 |& norm
  cowhand: Cannot use base "./instances/_base/swap_32": it was written to or replaced since it was made, and nothing proves what is in it; on it stand web4
    remedy: put back what was in it, or remove these instances; then: cowhand cache verify swap_32
  [1]
  $ cowhand delete web4 --yes
  $ cowhand cache verify swap_32 2>/dev/null
  [1]
  $ cowhand create web4 --image debian --root 1G --swap 32M

Records
-------

A base of another tool, or one whose record was lost, is examined and taken over. Verifying it finds the proof:

  $ rm $base.json
  $ cowhand create web5 --image debian --root 1G --verbose | norm | head -4
  root disk: create from the whole image
  cache-base: changed
    examine ./instances/_base/<sha1> (raw)
    record ./instances/_base/<sha1>.json (made by another tool: cowhand cache verify looks for a proof of it)
  $ cowhand cache verify debian --verbose | norm
  verify-base <sha1>: changed
    record ./instances/_base/<sha1>.json (proven)
  cache verify: done
  $ jq -c '.adopted, .content.proven' $base.json
  true
  true

A record that cannot be read:

  $ echo '{' >$base.json
  $ cowhand create web6 --image debian --root 1G |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": its record ./instances/_base/<sha1>.json cannot be read
    remedy: find out what is in it and who stands on it: cowhand cache verify <sha1>
  [3]
  $ cowhand cache verify $(basename $base)
  $ cowhand create web6 --image debian --root 1G

A second name, by which somebody could write to the base:

  $ ln $base name
  $ cowhand create web7 --image debian --root 1G |& norm
  cowhand: Cannot use "./instances/_base/<sha1>": it has another name (hard link)
    remedy: find that one, and remove it: find / -xdev -samefile ./instances/_base/<sha1>
  [3]
  $ rm name && cowhand create web7 --image debian --root 1G
