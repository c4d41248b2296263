# Sourced by each story: instances and a store of its own, a small image to make disks of, and `norm`.
# shellcheck shell=bash
set -o pipefail # so that `cowhand … | norm` has cowhand's exit code
umask 022

here=$PWD
host=$(hostname)
export COWHAND_INSTANCES=$here/instances COWHAND_STORE=dir:$here/images

# debian.qcow2: 8 MiB with one of data in it, the same bytes each time.
yes 'this is Debian' | head -c 1M >debian.raw
truncate -s 8M debian.raw
qemu-img convert -f raw -O qcow2 debian.raw debian.qcow2
rm debian.raw

# What differs from run to run, or from host to host, by its meaning:
# names that are digests, the story's own directory, uuids, MAC addresses, times, space in use, O_DIRECT.
norm() {
  sed -E \
    -e "s#$here#.#g; s#\bon $host\b#on <host>#g" \
    -e 's#\b[0-9a-f]{128}\b#<sha512>#g; s#\b[0-9a-f]{64}\b#<sha256>#g; s#\b[0-9a-f]{40}(\b|_)#<sha1>\1#g' \
    -e 's#\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b#<uuid>#g' \
    -e 's#\b52:54:00(:[0-9a-f]{2}){3}\b#<mac>#g' \
    -e 's#\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9:]+)#<time>#g' \
    -e 's#("(seconds|downtimeSeconds)": ?)[0-9.e-]+#\1<seconds>#g; s#\b[0-9]+(\.[0-9]+)? s\b#<seconds> s#g' \
    -e 's#("actualSize": ?)[0-9]+#\1<bytes>#g; s#\b[0-9.]+[KMGT]? on disk#<used> on disk#g' \
    -e 's#\bfrees [0-9.]+[KMGT]?#frees <used>#g' \
    -e 's#(\b(copied|travels) \((at most )?)[0-9.]+[KMGT]?\)#\1<used>)#; s#\b[0-9.]+[KMGT]? (free$|to (send|allocate)\b)#<used> \1#g' \
    -e 's#^( *copy \./instances/.*_resize/.*) \([0-9.]+[KMGT]?\).*#\1 (<used>)#; s#^( *push .*) \([0-9.]+[KMGT]?, #\1 (<used>, #; s#("sent": ?)[0-9]+#\1<bytes>#' \
    -e 's#(^ *(alpha|beta): by .*): .*#\1: <reason>#; s#\bbase [0-9a-f]{12}(…|\.\.\.)#base <sha1>#g; s#\b[0-9.]+[KMGT]? sent\b#<used> sent#' \
    -e 's#^((resize|migrate) .*) \(about [0-9.]+[KMGT]? of space\)#\1 (about <used> of space)#' \
    -e 's#^((web|vm)[^ ]* .*) [0-9.]+[KMGT]?$#\1 <used>#' \
    -e 's#(\bwrite [^ ]+) \([0-9]+ bytes\)#\1 (<size> bytes)#; s#└─#`-#; s#…#...#g' \
    -e 's#convert -p -t none#convert -p#; s#\bpid [0-9]+#pid <pid>#g; s#http://127.0.0.1:[0-9]+#http://127.0.0.1:<port>#g'
}

# serve DIRECTORY [RATE]: a web server of its files, as $url; those called slow* come with RATE bytes a second.
# $server is its process; it ends with the story.
serve() {
  (cd "$1" && exec setpriv --pdeathsig KILL python3 "$TESTDIR/server.py" "${2:-4000000}") >"$here/port" 2>"$here/server.log" &
  server=$!
  until [ -s "$here/port" ]; do sleep 0.05; done
  url=http://127.0.0.1:$(cat "$here/port")
  rm "$here/port"
}
trap 'kill $server 2>/dev/null' EXIT
