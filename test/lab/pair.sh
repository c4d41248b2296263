# What a host of a pair has besides: host.sh reads this before it mounts its own places.
# Of `directory`: `own` has files that this host sees where the machine has others, or none; `places` names directories
# that it has for itself, "FROM TO" a line. What it writes to other places of the overlays is gone when it ends.

thin=$directory/thin
mkdir -p "$thin"
mount -t tmpfs -o mode=0755 tmpfs "$thin"
for place in /etc /root /srv /usr/local /var/lib; do
  upper=$thin/upper$place work=$thin/work$place
  mkdir -p "$upper" "$work"
  [ ! -d "$directory/own$place" ] || cp -a "$directory/own$place/." "$upper/"
  chown --reference="$place" "$upper"
  chmod --reference="$place" "$upper"
  mount -t overlay -o "lowerdir=$place,upperdir=$upper,workdir=$work" overlay "$place"
done
while read -r from to; do
  mkdir -p "$from" "$to"
  mount --bind "$from" "$to"
done <"$directory/places"

# Each start of a host has its own, by which a process that was there before is known to be dead.
cp /proc/sys/kernel/random/uuid "$thin/boot_id"
mount --bind "$thin/boot_id" /proc/sys/kernel/random/boot_id
# sshd lets nobody in whose account is locked, as root's often is.
sed 's/^root:[^:]*:/root:*:/' /etc/shadow >"$thin/shadow"
cp "$thin/shadow" /etc/shadow

# As a service manager does: what was killed is there again.
keep() {
  while :; do
    "$@" </dev/null >>"/run/$(basename "$1").out" 2>&1 || :
    sleep 0.2
  done
}

more_daemons() {
  mkdir -p /run/sshd
  keep /usr/sbin/sshd -D -e &
  keep rsync --daemon --no-detach &
  for port in 22 873; do
    until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
      [ "$SECONDS" -lt 50 ] || { cat /run/sshd.out /run/rsync.out >&2; exit 1; }
      sleep 0.1
    done
  done
}
