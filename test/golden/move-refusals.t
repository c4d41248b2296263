Whatever can be refused is refused while the guest still runs, and then nothing was changed on either host.

  $ . "$TESTDIR/two-hosts.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 64M --network none --memory 64M
  $ tree() { find $instances -not -path '*/locks*' -not -name console.log -type f -printf '%P %i %s %m\n' | sort; }
  $ state() { tree; virsh -q list --all; beta "find $instances -not -path '*/locks*'; virsh -q list --all"; }
  $ state >before

The way there
-------------

  $ cowhand migrate web1 --to nowhere |& sed 's/nowhere: .*/nowhere: <reason>/'
  cowhand: Cannot reach "nowhere": Could not resolve hostname nowhere: <reason>
    remedy: give its address, or name it in /etc/hosts or in ssh_config
  [1]
  $ cowhand migrate web1 --to beta@alpha
  cowhand: Cannot read --to "beta@alpha": it has a user in it: give the host alone, and the user as ssh_user
    remedy: see what it may be: cowhand migrate --help
  [2]
  $ COWHAND_SSH_PORT=2222 cowhand migrate web1 --to beta |& norm
  cowhand: Cannot reach "beta": connect to host beta port 2222: Connection refused
    remedy: see that sshd runs there; another port is the setting ssh_port: ssh -p 2222 beta true
  [1]
  $ COWHAND_SSH_USER=nobody cowhand migrate web1 --to beta |& norm
  cowhand: Cannot reach "beta": it does not let us in: nobody@beta: Permission denied (publickey)
    remedy: give it a key that has no passphrase, or is in an agent: ssh-copy-id nobody@beta
  [3]
  $ mv /root/.ssh/known_hosts .
  $ cowhand migrate web1 --to beta |& norm
  cowhand: Cannot reach "beta": its host key is not known here
    remedy: look at its key and accept it once, as this user: ssh beta true
  [3]
  $ mv known_hosts /root/.ssh/
  $ cowhand migrate web1 --to alpha |& norm
  cowhand: Cannot migrate "web1" to "alpha": that is this very host
    remedy: name another host
  [3]
  $ cowhand resize web1 --root 2G --to alpha |& norm
  cowhand: Cannot resize "web1" to "alpha": that is this very host
    remedy: leave --to out
  [3]

What runs there
---------------

  $ COWHAND_REMOTE_COWHAND=/opt/cowhand cowhand migrate web1 --to beta |& norm
  cowhand: Cannot run "/opt/cowhand" on beta: it is not installed there
    remedy: install it there, of the same version; or say where it is: remote_cowhand: /PATH in /etc/cowhand/cowhand.yaml
  [3]
  $ wrap() { printf '#!/bin/sh\necho %s\nexec cowhand "$@"\n' "'$1'" >there && chmod +x there; }
  $ wrap 'Welcome to beta!'
  $ COWHAND_REMOTE_COWHAND=$PWD/there cowhand migrate web1 --to beta |& norm
  cowhand: Cannot talk to cowhand on beta: something else speaks first: "Welcome to beta!"
    remedy: let its shell (~/.bashrc, ~/.profile) print nothing without a terminal; this must print nothing: ssh beta true
  [3]
  $ wrap '{"cowhand":"0.0.1","protocol":1,"host":"beta"}'
  $ ours() { sed "s/and this host [0-9.]* (/and this host <version> (/"; }
  $ COWHAND_REMOTE_COWHAND=$PWD/there cowhand migrate web1 --to beta |& norm | ours
  cowhand: Cannot work with beta: it has cowhand 0.0.1 (protocol 1), and this host <version> (protocol 1)
    remedy: install the same version on both; what it has: ssh beta ./there --version
  [3]

What is there
-------------

  $ beta cowhand image add $PWD/debian.qcow2 --name other
  $ beta cowhand create web1 --image other --root 1G --network none --memory 64M
  $ cowhand migrate web1 --to beta |& norm
  cowhand: Cannot receive "web1": on beta: "/var/lib/cowhand/instances/web1" is there
    remedy: on beta: look at it: cowhand show web1; or choose another host
  [3]
  $ beta cowhand delete web1 --yes
  $ beta mkdir $instances/web1.incoming && beta touch $instances/web1.incoming/notes
  $ cowhand migrate web1 --to beta |& norm
  cowhand: Cannot use "/var/lib/cowhand/instances/web1.incoming": on beta: it is of no move of cowhand
    remedy: on beta: look at it, and move it away: ls -l /var/lib/cowhand/instances/web1.incoming
  [3]
  $ beta rm -r $instances/web1.incoming
  $ printf '<domain type="qemu"><name>web1</name><memory>1</memory><os><type>hvm</type></os></domain>' >other.xml
  $ beta virsh -q define $PWD/other.xml
  $ cowhand migrate web1 --to beta |& norm
  cowhand: Cannot receive "web1": on beta: libvirt has a domain "web1", <uuid>
    remedy: on beta: look at it: virsh -c qemu:///system dumpxml <uuid>; or choose another host
  [3]
  $ beta virsh -q undefine web1
  $ cp /etc/cowhand/cowhand.yaml . && beta sed -i /libvirt_uri/d /etc/cowhand/cowhand.yaml
  $ cowhand migrate web1 --to beta |& norm
  cowhand: Cannot receive "web1": on beta: no libvirt is configured, and its guest is to run
    remedy: on beta: set libvirt_uri: qemu:///system in /etc/cowhand/cowhand.yaml
  [3]
  $ beta cp $PWD/cowhand.yaml /etc/cowhand/

What it is
----------

  $ cowhand resize web1 --root 512M --to beta
  cowhand: Cannot resize "web1" to --root 512M: its root disk has 1G already
    remedy: ask for at least that: --root 1G
  [3]
  $ cowhand migrate web1 --to beta --ephemeral-policy refuse
  cowhand: Cannot migrate "web1": it has an ephemeral disk, and --ephemeral-policy is refuse
    remedy: let it travel: --ephemeral-policy copy; or have an empty one made: --ephemeral-policy recreate
  [3]

  $ head -c 8M /dev/urandom >big.raw && cowhand image add big.raw
  $ cowhand create web2 --image big --root 1G --network none --memory 64M
  $ beta "mkdir /srv/small && mount -t tmpfs -o size=6M none /srv/small"
  $ beta "sed -i 's#^instances: .*#instances: /srv/small#' /etc/cowhand/cowhand.yaml"
  $ cowhand migrate web2 --to beta |& norm
  cowhand: Cannot send 8M to "beta": only 6M are free there under "/srv/small"
    remedy: free at least 2M there: cowhand cache clean; or choose another host
  [3]
  $ beta cp $PWD/cowhand.yaml /etc/cowhand/
  $ base=$instances/_base/$(cowhand image show big --json | jq -j .id | sha1sum | cut -c -40)
  $ echo x >>$base
  $ cowhand migrate web2 --to beta |& norm
  cowhand: Cannot use base "/var/lib/cowhand/instances/_base/<sha1>": it has 8388610 bytes, and was made with 8388608
    remedy: find out what is in it and who stands on it: cowhand cache verify <sha1>
  [3]
  $ truncate -s 8M $base
  $ virsh -q domstate web2
  running
  $ cowhand delete web2 --yes && rm $base $base.json

Where a destination cannot tell what is in its base, or has another one of that name, nothing is refused: the source
sends its own, or merges the disk with it. After all of this, both hosts are as they were:

  $ beta rm -r $instances/_base
  $ state | diff before - | norm
