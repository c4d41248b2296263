Whatever can be refused is refused while the guest still runs, and then nothing was changed on either host.

  $ . "$TESTDIR/two-hosts.sh"
  $ cowhand image add debian.qcow2
  $ cowhand create web1 --image debian --root 1G --ephemeral 64M --network none --memory 64M
  $ tree() { find $instances -not -path '*/locks*' -not -name console.log -type f -printf '%P %i %s %m\n' | sort; }
  $ state() { tree; virsh -q list --all; beta "find $instances -not -path '*/locks*'; virsh -q list --all"; }
  $ state >before

The way there
-------------

  $ cowhand migrate web1 --to nowhere |& norm
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
  $ printf '#!/bin/sh\nexec cowhand --version\n' >chatty && chmod +x chatty
  $ COWHAND_REMOTE_COWHAND=$PWD/chatty cowhand migrate web1 --to beta |& norm
  $ printf '#!/bin/sh\necho %s\n' "'"'{"cowhand":"0.0.1","protocol":1,"host":"beta"}'"'" >old && chmod +x old
  $ COWHAND_REMOTE_COWHAND=$PWD/old cowhand migrate web1 --to beta |& norm | sed -E 's/[0-9]+\.[0-9]+\.[0-9]+ \(/<version> (/g; s/, and this host .* \(/, and this host <version> (/'

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

  $ beta rm -r $instances/_base
  $ state | diff before - | norm
