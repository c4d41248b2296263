# The first process of a host of the lab (host.ts starts it, as root, in namespaces of its own): gives it its own
# places to write to, starts libvirt, says "ready", and stays until its standard input is closed. When it ends, the
# kernel ends every process of the host. It must stay a shell that reaps: libvirt waits for a dead QEMU to be gone.
# MORE, where it is given, is read before: it may make files and define `more_daemons`, which is called when libvirt runs.
# Usage: bash host.sh DIRECTORY NAME USER GROUP [MORE]
set -eu
directory=$1
user=$3 group=$4
hostname "$2"
ip link set lo up
more_daemons() { :; }
# shellcheck source=/dev/null
[ -z "${5-}" ] || . "$5"

# Private: what libvirt keeps, and the sockets that clients find it by. All else is seen as it is.
for place in /run /etc/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
  own=$directory$place
  mkdir -p "$own"
  mount --bind "$own" "$place"
done
mkdir -p /run/lock /var/lib/libvirt/qemu
chown "$user:$group" /var/lib/libvirt/qemu # as Debian's package does

# A host that is booted again is still the same one.
[ -e /etc/libvirt/libvirtd.conf ] || cat >/etc/libvirt/libvirtd.conf <<CONF
auth_unix_rw = "none"
host_uuid = "$(cat /proc/sys/kernel/random/uuid)"
CONF
cat >/etc/libvirt/qemu.conf <<CONF
security_driver = "none"
user = "$user"
group = "$group"
remember_owner = 0
cgroup_controllers = [ ]
namespaces = [ ]
CONF
# Small, so that a guest that says much sees its console rotated, as after 2 MiB on a real host.
echo 'max_size = 8192' >/etc/libvirt/virtlogd.conf

virtlogd </dev/null >/run/virtlogd.out 2>&1 &
libvirtd </dev/null >/run/libvirtd.out 2>&1 &
daemon=$!
until virsh -q -c qemu:///system uri </dev/null >/dev/null 2>&1; do
  kill -0 "$daemon" 2>/dev/null || { cat /run/*.out >&2; exit 1; }
  sleep 0.1
done
more_daemons
echo ready
read -r _ || :
