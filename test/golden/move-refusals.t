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
  $ cowhand migrate web1 --to beta@alpha
  $ COWHAND_SSH_PORT=2222 cowhand migrate web1 --to beta |& norm
  $ COWHAND_SSH_USER=nobody cowhand migrate web1 --to beta |& norm
  $ mv /root/.ssh/known_hosts .
  $ cowhand migrate web1 --to beta |& norm
  $ mv known_hosts /root/.ssh/
  $ cowhand migrate web1 --to alpha |& norm
  $ cowhand resize web1 --root 2G --to alpha |& norm

What runs there
---------------

  $ COWHAND_REMOTE_COWHAND=/opt/cowhand cowhand migrate web1 --to beta |& norm
  $ wrap() { printf '#!/bin/sh\necho %s\nexec cowhand "$@"\n' "'$1'" >there && chmod +x there; }
  $ wrap 'Welcome to beta!'
  $ COWHAND_REMOTE_COWHAND=$PWD/there cowhand migrate web1 --to beta |& norm
  $ wrap '{"cowhand":"0.0.1","protocol":1,"host":"beta"}'
  $ ours() { sed "s/and this host [0-9.]* (/and this host <version> (/"; }
  $ COWHAND_REMOTE_COWHAND=$PWD/there cowhand migrate web1 --to beta |& norm | ours

What is there
-------------

  $ beta cowhand image add $PWD/debian.qcow2 --name other
  $ beta cowhand create web1 --image other --root 1G --network none --memory 64M
  $ cowhand migrate web1 --to beta |& norm
  $ beta cowhand delete web1 --yes
  $ beta mkdir $instances/web1.incoming && beta touch $instances/web1.incoming/notes
  $ cowhand migrate web1 --to beta |& norm
  $ beta rm -r $instances/web1.incoming
  $ printf '<domain type="qemu"><name>web1</name><memory>1</memory><os><type>hvm</type></os></domain>' >other.xml
  $ beta virsh -q define $PWD/other.xml
  $ cowhand migrate web1 --to beta |& norm
  $ beta virsh -q undefine web1
  $ cp /etc/cowhand/cowhand.yaml . && beta sed -i /libvirt_uri/d /etc/cowhand/cowhand.yaml
  $ cowhand migrate web1 --to beta |& norm
  $ beta cp $PWD/cowhand.yaml /etc/cowhand/

What it is
----------

  $ cowhand resize web1 --root 512M --to beta
  $ cowhand migrate web1 --to beta --ephemeral-policy refuse

  $ head -c 8M /dev/urandom >big.raw && cowhand image add big.raw
  $ cowhand create web2 --image big --root 1G --network none --memory 64M
  $ beta "mkdir /srv/small && mount -t tmpfs -o size=6M none /srv/small"
  $ beta "sed -i 's#^instances: .*#instances: /srv/small#' /etc/cowhand/cowhand.yaml"
  $ cowhand migrate web2 --to beta |& norm
  $ beta cp $PWD/cowhand.yaml /etc/cowhand/
  $ base=$instances/_base/$(cowhand image show big --json | jq -j .id | sha1sum | cut -c -40)
  $ echo x >>$base
  $ cowhand migrate web2 --to beta |& norm
  $ truncate -s 8M $base
  $ virsh -q domstate web2
  $ cowhand delete web2 --yes && rm $base $base.json

Where a destination cannot tell what is in its base, or has another one of that name, nothing is refused: the source
sends its own, or merges the disk with it. After all of this, both hosts are as they were:

  $ beta rm -r $instances/_base
  $ state | diff before - | norm
