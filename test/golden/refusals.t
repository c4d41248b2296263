What cannot be done as it was asked for is refused, with a sentence that says why and a remedy that can be typed.
The exit code is 2 where the request itself is wrong and 3 where something that is there stands against it;
either way nothing was changed.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --swap 16M
  $ tree() { find . -not -path '*/locks*' -not -name before '(' -type d -printf '%P\n' -o -printf '%P %i %s %T@ %m\n' ')' | sort; }

Words
-----

  $ tree >before
  $ cowhand creat web2
  cowhand: Cannot find the command "creat": there is none
    remedy: did you mean: cowhand create
  [2]
  $ cowhand image lst
  cowhand: Cannot find the command "image lst": there is none
    remedy: did you mean: cowhand image list
  [2]
  $ cowhand image
  cowhand: Cannot run "image": it does not say what
    remedy: one of: cowhand image add, cowhand image remove, cowhand image list, cowhand image show
  [2]
  $ cowhand create
  cowhand: Cannot read the command "create": NAME is missing
    remedy: add it; what it means: cowhand create --help
  [2]
  $ cowhand create web2 --image debian
  cowhand: Cannot read the command "create": --root is missing
    remedy: add it; what it means: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --rot 2G
  cowhand: Cannot use --rot: the command "create" has no such flag
    remedy: did you mean --root? see what there is: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root
  cowhand: Cannot read --root: it needs a value
    remedy: see what there is: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root 2G --root 3G
  cowhand: Cannot read --root: it is given more than once
    remedy: leave all but one out
  [2]
  $ cowhand create web2 web3 --image debian --root 2G
  cowhand: Cannot read the command line: "web3" is one word too many
    remedy: see what there is: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root 2G --os-type beos
  cowhand: Cannot read --os-type "beos": it is not one of: linux, windows
    remedy: see what there is: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root 2G --vcpus two
  cowhand: Cannot read --vcpus "two": it is not a number
    remedy: see what it may be: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root 2G --user-data nothere.yaml
  cowhand: Cannot read "nothere.yaml": there is no such file
    remedy: name a file that exists
  [2]
  $ cowhand create web2 --image debain --root 2G |& norm
  cowhand: Cannot find image "debain": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name debain
  [3]

Sizes
-----

Sizes are absolute and exact: a number of bytes, or of the binary units K, M, G, T.

  $ for size in 1.5G 0 -1G +5G 20GB ''; do cowhand create web2 --image debian --root "$size" || echo "  [$?]"; done
  cowhand: Cannot read --root "1.5G": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read --root "0": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read --root "-1G": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read --root "+5G": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read --root "20GB": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read --root "": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
    [2]
  $ cowhand create web2 --image debian --root 8388700
  cowhand: Cannot read --root "8388700": it is not a multiple of 512 bytes
    remedy: see what it may be: cowhand create --help
  [2]
  $ cowhand create web2 --image debian --root 1K
  cowhand: Cannot create "web2" with --root 1K: image "debian" has 8M
    remedy: ask for at least that: --root 8M
  [3]
  $ cowhand create web2 --image debian --root 1G --ephemeral 64K
  cowhand: Cannot make an ephemeral disk of 64K: ext4 needs 1M
    remedy: ask for at least that: --ephemeral 1M
  [2]
  $ cowhand create web2 --image debian --root 1G --ephemeral 100M --ephemeral-format xfs
  cowhand: Cannot make an ephemeral disk of 100M: xfs needs 300M
    remedy: ask for at least that: --ephemeral 300M
  [2]
  $ cowhand create web2 --image debian --root 1G --swap 1500K
  cowhand: Cannot make a swap disk of 1536000 bytes: it is not a whole number of MiB
    remedy: ask for a size such as --swap 512M
  [2]

Names
-----

A name becomes a file name, the name of a domain and of a lock; so it is a plain word, and none that cowhand uses:

  $ for name in ../x a/b a_resize locks _base web2.part '' "$(printf 'a%.0s' {1..64})"; do
  >   cowhand create "$name" --image debian --root 1G || echo "  [$?]"
  > done
  cowhand: Cannot read NAME "../x": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "a/b": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "a_resize": it is a name that cowhand uses itself
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "locks": it is a name that cowhand uses itself
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "_base": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "web2.part": it is a name that cowhand uses itself
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand create --help
    [2]
  cowhand: Cannot read NAME "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": it is longer than 63 characters
    remedy: see what it may be: cowhand create --help
    [2]
  $ cowhand create -x --image debian --root 1G
  cowhand: Cannot use -x: the command "create" has no such flag
    remedy: see what there is: cowhand create --help
  [2]
  $ cowhand delete ../images --yes
  cowhand: Cannot read NAME "../images": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand delete --help
  [2]
  $ cowhand image remove ../instances --yes
  cowhand: Cannot remove image "../instances": it is no name or id of an image
    remedy: see what there is: cowhand image list
  [2]
  $ tree | diff before -

Images
------

An image comes from elsewhere and is not trusted. It has to be what it is declared to be, whole, and alone:

  $ head -c 700000 debian.qcow2 >cut.qcow2
  $ cp debian.qcow2 wrong.vmdk
  $ cp debian.qcow2 wrong.raw
  $ cp debian.qcow2 disk.img
  $ qemu-img create -q -f qcow2 -F raw -b /etc/passwd backing.qcow2 1M
  $ qemu-img create -q -f qcow2 huge.qcow2 9T
  $ touch empty.raw
  $ ln -s debian.qcow2 link.qcow2
  $ gzip -c debian.qcow2 | head -c 1000 >cut.qcow2.gz
  $ tree >before
  $ for file in cut.qcow2 wrong.vmdk wrong.raw disk.img backing.qcow2 huge.qcow2 empty.raw link.qcow2 cut.qcow2.gz nothere.raw; do
  >   cowhand image add $file || echo "  [$?]"
  > done |& norm
  cowhand: Cannot use image "./cut.qcow2": it is damaged or cut short, qemu-img check finds errors in it
    remedy: get the image again from its source, or use another one
    [3]
  cowhand: Cannot use image "./wrong.vmdk": it is declared vmdk but its content is qcow2
    remedy: add it with --format qcow2
    [3]
  cowhand: Cannot use image "./wrong.raw": it is declared raw but its content is qcow2
    remedy: add it with --format qcow2
    [3]
  cowhand: Cannot tell the format of "disk.img": its name does not say it
    remedy: add --format qcow2, or raw, vmdk, vdi, vhd, vhdx: cowhand never guesses from the content
    [2]
  cowhand: Cannot use image "./backing.qcow2": it has a backing file
    remedy: if you trust its maker, have it made whole: qemu-img convert -O qcow2 IMAGE NEW-IMAGE
    [3]
  cowhand: Cannot use image "./huge.qcow2": its virtual size of 9T (9895604649984 bytes) is above the limit of 8T
    remedy: if it is wanted, set image_ceiling: 9895604649984 in the configuration
    [3]
  cowhand: Cannot use image "./empty.raw": it is empty
    remedy: get the image again from its source, or use another one
    [3]
  cowhand: Cannot use "./link.qcow2": it is a symbolic link
    remedy: name the file itself: readlink -f ./link.qcow2
    [3]
  cowhand: Cannot unpack "./cut.qcow2.gz": gzip: stdin: unexpected end of file
    remedy: get the image again
    [3]
  cowhand: Cannot add "./nothere.raw": there is no such file
    remedy: name a file that exists
    [3]
  $ cowhand image add debian.qcow2 --name wrong --checksum sha256:$(printf '%064d' 0) |& norm
  cowhand: Cannot use "./debian.qcow2": its digest is sha256:<sha256>, expected sha256:<sha256>
    remedy: get the file again, or ask its maker for the right checksum
  [3]
  $ cowhand image add debian.qcow2 --name ../wrong
  cowhand: Cannot read --name "../wrong": it may have only letters, digits, ".", "_" and "-", and starts with a letter or digit
    remedy: see what it may be: cowhand image add --help
  [2]
  $ cowhand image add debian.qcow2 --property os
  cowhand: Cannot read --property "os": it is not KEY=VALUE, in one line
    remedy: see what it may be: cowhand image add --help
  [2]
  $ cowhand create web2 --image debian --root 1G --checksum sha256:$(printf '%064d' 0) |& norm
  cowhand: Cannot use image "debian": its digest is sha256:<sha256>, expected sha256:<sha256>
    remedy: see what the store has: cowhand image show debian
  [3]
  $ cowhand create web2 --image debian --root 1G --image-format raw
  cowhand: Cannot use image "debian" as raw: the store has it as qcow2
    remedy: leave --image-format out
  [2]
  $ tree | diff before -

What is there already
---------------------

An instance that exists is left as it is, whatever else is asked for:

  $ cowhand create web1 --image debian --root 2G --swap 16M
  cowhand: Cannot create "web1": it exists with root 1G, not 2G
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  [3]
  $ cowhand create web1 --image debian --root 1G
  cowhand: Cannot create "web1": it exists with swap 16M
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  [3]
  $ cowhand create web1 --image debian --root 1G --swap 16M --memory 2G
  cowhand: Cannot create "web1": it exists without memory
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  [3]
  $ cowhand create web1 --image debian --root 1G --swap 16M --user-data $TESTDIR/setup.sh
  cowhand: Cannot create "web1": it exists, made with another --user-data, --meta-data or --network-config
    remedy: give the same as then, or remove it: cowhand delete web1
  [3]
  $ tree | diff before -

What cowhand did not make it does not touch: a file in an instance's directory, a file in the place of one, a
symbolic link in the place of a disk.

  $ mkdir instances/web2 instances/web4
  $ touch instances/web2/notes.txt instances/web3
  $ ln -s /dev/sda instances/web4/disk
  $ mv instances/web1/disk kept && ln -s /dev/sda instances/web1/disk
  $ tree >before
  $ cowhand create web2 --image debian --root 1G |& norm
  cowhand: Cannot create "web2": "./instances/web2" holds notes.txt, which cowhand did not make
    remedy: choose another name, or look at it and move it away
  [3]
  $ cowhand delete web2 --yes |& norm
  cowhand: Cannot remove "./instances/web2": it holds notes.txt, which cowhand did not make
    remedy: look at it, and move it away
  [3]
  $ cowhand create web3 --image debian --root 1G |& norm
  cowhand: Cannot use "./instances/web3/instance.json": something on its path is not a directory
    remedy: look at it, and move it away
  [3]
  $ cowhand create web4 --image debian --root 1G |& norm
  cowhand: Cannot create "web4": "./instances/web4" holds disk, which cowhand did not make
    remedy: choose another name, or look at it and move it away
  [3]
  $ cowhand create web1 --image debian --root 1G --swap 16M |& norm
  cowhand: Cannot use "./instances/web1/disk": it is a symbolic link
    remedy: look at it, and move it away: ls -ld ./instances/web1/disk
  [3]
  $ cowhand delete web1 --yes |& norm
  cowhand: Cannot use "./instances/web1/disk": it is a symbolic link
    remedy: look at it, and move it away: ls -ld ./instances/web1/disk
  [3]
  $ tree | diff before -

Nor what a link leads to: files of others, or a file that has a second name.

  $ mkdir others && touch others/user-data && cp debian.qcow2 others/
  $ mkdir instances/web6 && ln -s $PWD/others instances/web6/disk.config.d
  $ ln -s $PWD/others instances/web7
  $ ln others/debian.qcow2 instances/_base/swap_32.part
  $ tree >before
  $ cowhand delete web6 --yes |& norm
  cowhand: Cannot use "./instances/web6/disk.config.d": it is a symbolic link
    remedy: look at it, and move it away: ls -ld ./instances/web6/disk.config.d
  [3]
  $ cowhand create web7 --image debian --root 1G |& norm
  cowhand: Cannot use "./instances/web7": it is a symbolic link
    remedy: look at it, and move it away: ls -ld ./instances/web7
  [3]
  $ cowhand step make-swap-base --base $PWD/instances/_base/swap_32 --size 32M |& norm
  cowhand: Cannot write "./instances/_base/swap_32.part": it has another name (hard link)
    remedy: look at it, and move it away: ls -ld ./instances/_base/swap_32.part
  [3]
  $ cmp debian.qcow2 others/debian.qcow2
  $ rm -r instances/web6 instances/web7

A disk that stands on another base is somebody's data:

  $ rm instances/web1/disk && qemu-img create -q -f qcow2 instances/web1/disk 1G
  $ cowhand create web1 --image debian --root 1G --swap 16M |& norm
  cowhand: Cannot make "./instances/web1/disk": a disk on "no base" is there
    remedy: look at it, and move it away if nobody needs it: qemu-img info ./instances/web1/disk
  [3]
  $ mv kept instances/web1/disk

What cannot be a disk is said before anything of the instance is written down:

  $ cowhand create web6 --image debian --root 65T |& norm
  cowhand: Cannot make an overlay on "./instances/_base/<sha1>": 71468255805440 bytes is no size for it
    remedy: ask for a multiple of 512 bytes, at most 64T
  [3]
  $ qemu-img convert -O qcow2 -f qcow2 debian.qcow2 instances/_base/foreign
  $ cowhand step create-overlay --disk $PWD/web6 --base $PWD/instances/_base/foreign --size 1G |& norm
  cowhand: Cannot put "./web6" on base "./instances/_base/foreign": it is a qcow2, and bases are raw
    remedy: make a raw one of it: cowhand step cache-base
  [3]
  $ ls web6 instances/web6 2>/dev/null
  [2]
  $ rm instances/_base/foreign

Before something is destroyed a terminal is asked. Ctrl-C is an interrupt there too, and a terminal that hangs up says no:

  $ cat >ask.py <<PYTHON
  > import os, pty, sys
  > pid, terminal = pty.fork()
  > pid or os.execvp("cowhand", ["cowhand", "delete", "web1"])
  > print(os.read(terminal, 100).decode(), flush=True)
  > os.write(terminal, b"\x03") if sys.argv[1] == "ctrl-c" else os.close(terminal)
  > print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in ((130,) if sys.argv[1] == "ctrl-c" else (3, 129)))
  > PYTHON
  $ python3 ask.py ctrl-c
  Delete instance "web1" with all its disks? This cannot be undone [y/N] 
  True
  $ python3 ask.py hang-up
  Delete instance "web1" with all its disks? This cannot be undone [y/N] 
  True

A base that something wrote to would give wrong data to each of its instances:

  $ base=$(ls instances/_base/???????????????????????????????????????? | head -1)
  $ echo x >>"$base"
  $ cowhand create web1 --image debian --root 1G --swap 16M |& norm
  cowhand: Cannot use base "./instances/_base/<sha1>": it has 8388610 bytes, and was made with 8388608
    remedy: find out what is in it and who stands on it: cowhand cache verify <sha1>
  [3]
  $ truncate -s 8M "$base"
  $ cowhand create web1 --image debian --root 1G --swap 16M

The host
--------

Where it is known beforehand that the disk cannot hold it, nothing is begun. `small` is a disk of 4 MiB:

  $ small() { unshare -rm sh -c "mount -t tmpfs -o size=4M none small && $1; code=\$?; find small -type f; exit \$code"; }
  $ mkdir small
  $ head -c 6M /dev/zero | tr '\0' x >big.raw && xz -k0 big.raw
  $ cowhand image add big.raw --name big
  $ cowhand image add big.raw.xz --name packed
  $ small "cowhand create web5 --image big --root 1G --instances $PWD/small" |& norm
  cowhand: Cannot write 6.3M under "./small/_base": only 4M are free there
    remedy: free at least 2.3M, or choose another --instances directory
  [3]
  $ small "cowhand image add big.raw --store dir:$PWD/small" |& norm
  cowhand: Cannot write 6M under "./small": only 4M are free there
    remedy: free at least 2M, or choose another --instances directory
  [3]

Where it shows in the middle, what was begun goes away, for guests need the space more:

  $ small "cowhand create web5 --image packed --root 1G --instances $PWD/small" |& norm
  cowhand: Cannot go on: no space is left on the device
    remedy: free some space, then run the same command again
  [1]

Without the right to write:

  $ mkdir ours && chmod 555 ours
  $ powerless() { unshare -r setpriv --bounding-set=-all "$@"; }
  $ powerless cowhand create web5 --image debian --root 1G --instances "$PWD/ours" |& norm
  cowhand: Cannot use "./ours/locks": permission denied
    remedy: run it as root, or choose --instances and --store that you may write to
  [3]
  $ powerless cowhand image add debian.qcow2 --store "dir:$PWD/ours" |& norm
  cowhand: Cannot use "./ours/locks": permission denied
    remedy: run it as root, or choose --instances and --store that you may write to
  [3]
  $ chmod 000 ours
  $ powerless cowhand list --instances "$PWD/ours" |& norm
  cowhand: Cannot use "./ours": permission denied
    remedy: run it as root, or choose --instances and --store that you may write to
  [3]
