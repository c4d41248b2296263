From cron, with next to no environment, a strict umask, the root directory and no standard input, a good run says
nothing at all: whatever is said is worth a mail.

  $ . "$TESTDIR/setup.sh"
  $ cowhand=$(command -v cowhand)
  $ cron() { (cd / && umask 077 && env -i "$cowhand" "$@" --instances "$here/instances" --store "dir:$here/images" <&-); }
  $ printf '#cloud-config\n' >user-data
  $ cron image add $PWD/debian.qcow2
  $ cron create web1 --image debian --root 2G --ephemeral 1G --swap 256M --user-data $PWD/user-data
  $ cron create web1 --image debian --root 2G --ephemeral 1G --swap 256M --user-data $PWD/user-data

What it made has the modes that it should have:

  $ (cd instances && find . -mindepth 1 -not -path './locks/*' -printf '%m %P\n' | sort -k 2) | norm
  755 _base
  644 _base/<sha1>
  644 _base/<sha1>.json
  644 _base/ephemeral_0_1_linux
  644 _base/ephemeral_0_1_linux.json
  644 _base/swap_256
  644 _base/swap_256.json
  755 locks
  755 web1
  660 web1/console.log
  600 web1/disk
  600 web1/disk.config
  644 web1/disk.info
  600 web1/disk.local
  600 web1/disk.swap
  644 web1/instance.json
  600 web1/libvirt.xml
  $ stat -c '%a %n' images images/*
  755 images
  644 images/debian.json
  644 images/debian.qcow2
  755 images/locks

An error is said, and only that:

  $ cron create web1 --image debian --root 3G --ephemeral 1G --swap 256M --user-data $PWD/user-data
  cowhand: Cannot create "web1": it exists with root 2G, not 3G
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  [3]
  $ cron delete web1
  cowhand: Cannot delete instance "web1" with all its disks: there is nobody to ask
    remedy: say that you are sure: --yes
  [3]
  $ cron create web2 --image debian --root 2G >stdout
  $ cat stdout
  $ cron run -
  cowhand: Cannot read the job on standard input: it has no "task"
    remedy: name it, such as task: create; cowhand schema has the whole form
  [2]

Its exit code is the same where its words do not get through:

  $ cron create web2 --image nothere --root 2G --json >/dev/full 2>&1
  [3]

--verbose says what was done, on standard output; --quiet says errors only, also on a terminal:

  $ cron delete web2 --yes --verbose 2>stderr | grep -v '^ '
  remove-instance: changed
  delete web2: done
  $ cat stderr
  $ cron create web3 --image debian --root 2G --quiet --verbose
  $ cron create web3 --image nothere --root 2G --quiet |& norm
  cowhand: Cannot find image "nothere": the store ./images has no such name or id
    remedy: see what it has: cowhand image list; or add it: cowhand image add FILE --name nothere
  [3]

The caller's habits have no influence, and none of its secrets come to the programs that are started:

  $ printf 'touch %s/was-sourced\n' "$PWD" >rc
  $ (cd / && umask 0 && BASH_ENV=$here/rc ENV=$here/rc LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo TMPDIR=/nonexistent POSIXLY_CORRECT=1 NODE_OPTIONS=--throw-deprecation \
  >   "$cowhand" create web4 --image debian --root 2G --swap 8M --user-data $here/user-data)
  $ find instances/web4 -printf '%m %f\n' | sort -k 2
  660 console.log
  600 disk
  600 disk.config
  644 disk.info
  600 disk.swap
  644 instance.json
  600 libvirt.xml
  755 web4
  $ ls was-sourced 2>/dev/null
  [2]
