Whatever takes more than half a second is shown on a terminal: how much is done, how fast, and how long it will take.
Elsewhere nothing is said, unless it is asked for. Here a web server sends 1 MiB in a second.

  $ . "$TESTDIR/setup.sh"
  $ mkdir www && head -c 1M /dev/zero | tr '\0' x >www/slow.raw
  $ sum=sha256:$(sha256sum <www/slow.raw | cut -d ' ' -f 1)
  $ serve www 1200000
  $ create() { cowhand create "$1" --image $url/slow.raw --checksum $sum --root 1G "${@:2}"; }
  $ again() { rm -rf instances; }

--progress plain is for logs: a line for every tenth, or half a minute.

  $ create web1 --progress plain 2>log
  $ numbers() { sed -E 's#[0-9.]+(%|s left|[KMG]?/s|[KMG]? of)#<n>\1#g; s#<n>[KMG]#<n>#g' | sort -u; }
  $ numbers <log
  fetch slow.raw  <n>%  <n> of 1M  <n>/s  <n>s left
  $ [ $(wc -l <log) -ge 2 ] && [ $(wc -l <log) -le 10 ]

--progress json is for programs: one JSON document a line, of a form that `cowhand schema` has.

  $ again; create web1 --progress json 2>events
  $ jq -c 'select(.type != "progress")' events | norm
  {"version":1,"type":"step","step":"cache-base","status":"running"}
  {"version":1,"type":"action","step":"cache-base","action":"mkdir ./instances/_base"}
  {"version":1,"type":"action","step":"cache-base","action":"fetch http://127.0.0.1:<port>/slow.raw ./instances/_base/<sha1>.part (1M)"}
  {"version":1,"type":"action","step":"cache-base","action":"examine ./instances/_base/<sha1>.part (raw)"}
  {"version":1,"type":"action","step":"cache-base","action":"rename ./instances/_base/<sha1>.part ./instances/_base/<sha1>.converted"}
  {"version":1,"type":"action","step":"cache-base","action":"record ./instances/_base/<sha1>.json"}
  {"version":1,"type":"action","step":"cache-base","action":"publish ./instances/_base/<sha1>.converted ./instances/_base/<sha1>"}
  {"version":1,"type":"action","step":"cache-base","action":"remove ./instances/_base/<sha1>.part"}
  {"version":1,"type":"step","step":"cache-base","status":"changed"}
  {"version":1,"type":"step","step":"record-instance","status":"running"}
  {"version":1,"type":"action","step":"record-instance","action":"mkdir ./instances/web1"}
  {"version":1,"type":"action","step":"record-instance","action":"write ./instances/web1/disk.info (<size> bytes)"}
  {"version":1,"type":"action","step":"record-instance","action":"write ./instances/web1/instance.json (<size> bytes)"}
  {"version":1,"type":"step","step":"record-instance","status":"changed"}
  {"version":1,"type":"step","step":"create-overlay","status":"running"}
  {"version":1,"type":"action","step":"create-overlay","action":"overlay ./instances/web1/disk.part (1G) on ./instances/_base/<sha1>"}
  {"version":1,"type":"action","step":"create-overlay","action":"publish ./instances/web1/disk.part ./instances/web1/disk"}
  {"version":1,"type":"step","step":"create-overlay","status":"changed"}
  {"version":1,"type":"step","step":"write-domain","status":"running"}
  {"version":1,"type":"action","step":"write-domain","action":"write ./instances/web1/libvirt.xml (<size> bytes)"}
  {"version":1,"type":"action","step":"write-domain","action":"write ./instances/web1/console.log (<size> bytes)"}
  {"version":1,"type":"step","step":"write-domain","status":"changed"}
  $ jq -c 'select(.type == "progress") | keys, .what, .total' events | sort -u
  "fetch slow.raw"
  1048576
  ["done","total","type","version","what"]
  $ jq -s '[.[] | select(.type == "progress") | .done] | . == sort and length >= 4 and .[-1] == 1048576' events
  true

On a terminal there is one line that is drawn again and again, and at the end the result. script(1) is a terminal of
no known width, which is taken for one of 80 columns:

  $ again
  $ drawn() { tr '\r' '\n' | sed 's#\x1b\[K##g; /^$/d'; }
  $ terminal() { script -qec "$(printf '%q ' "$@")" /dev/null </dev/null | drawn; }
  $ terminal cowhand create web1 --image $url/slow.raw --checksum $sum --root 1G | numbers
  cache-base: changed
  create web1: done, 1M fetched
  create-overlay: changed
  fetch slow.raw  <n>%  <n> of 1M  <n>/s  <n>s left
  record-instance: changed
  write-domain: changed

A narrow one gets less of the line, so that it never wraps:

  $ again
  $ terminal sh -c "stty cols 30; exec cowhand create web1 --image $url/slow.raw --checksum $sum --root 1G" >narrow
  $ grep -c fetch narrow >/dev/null && grep fetch narrow | awk 'length > 29'
  $ tail -1 narrow
  create web1: done, 1M fetched

Colours are for a terminal that has them, and for people who want them:

  $ TERM=xterm terminal cowhand show web9 | norm | cat -v
  cowhand: ^[[31mCannot find instance "web9": "./instances" has none of this name^[[39m
    remedy: see what there is: cowhand list
  [3]
  $ TERM=xterm NO_COLOR=1 terminal cowhand show web9 | norm | cat -v
  cowhand: Cannot find instance "web9": "./instances" has none of this name
    remedy: see what there is: cowhand list
  [3]
  $ TERM=dumb terminal cowhand show web9 | norm | cat -v
  cowhand: Cannot find instance "web9": "./instances" has none of this name
    remedy: see what there is: cowhand list
  [3]
  $ cowhand show web9 |& norm | cat -v
  cowhand: Cannot find instance "web9": "./instances" has none of this name
    remedy: see what there is: cowhand list
  [3]

Interrupted
-----------

A signal ends the task, and the exit code is 128 and its number. What was downloaded stays, and is gone on with:

  $ again; rm events
  $ create() { exec cowhand create "$1" --image $url/slow.raw --checksum $sum --root 1G "${@:2}"; }
  $ started() { until grep -qs '"done":[1-9]' events; do sleep 0.02; done; }
  $ create web1 --progress json 2>events & task=$!
  $ started; kill $task; wait $task
  [143]
  $ tail -2 events
  cowhand: Cannot go on: interrupted by SIGTERM
    remedy: run the same command again: it goes on where it was
  $ find instances -name '*.part' | norm
  instances/_base/<sha1>.part
  $ (create web1 --json) | jq -c '.ok, (.bytes.fetched | . > 0 and . < 1048576)'
  true
  true
  $ find instances -name '*.part'

Two at once
-----------

While one task makes an instance, another one that wants to is turned away at once, with exit code 4:

  $ again; rm events
  $ create web1 --progress json 2>events & task=$!
  $ started; kill -STOP $task
  $ (create web1) |& norm
  cowhand: Cannot lock "instance.web1": pid <pid> on <host> holds it for "create web1" since <time>
    remedy: wait for it, or ask again with --lock-wait SECONDS
  [4]

A base in the making is worth waiting for, an hour by default; then it is there, and is not downloaded again:

  $ (create web2 --lock-wait 0) |& norm
  cowhand: Cannot lock "base.<sha1>": pid <pid> on <host> holds it for "create web1" since <time>
    remedy: wait for it, or ask again with --lock-wait SECONDS
  [4]
  $ create web2 --verbose >waited 2>&1 & other=$!
  $ until grep -qs waiting waited; do sleep 0.02; done; kill -CONT $task
  $ wait $task && wait $other && grep -v '^ ' waited | norm
  cowhand: waiting for base.<sha1>: pid <pid> on <host> has it for "create web1" since <time>
  root disk: create from the whole image
  cache-base: ok
  record-instance: changed
  create-overlay: changed
  write-domain: changed
  create web2: done
  $ cowhand list | norm
  NAME  IMAGE                            ROOT  EPHEMERAL  SWAP  ON DISK
  web1  http://127.0.0.1:<port>/slow.raw  1G    -          -     <used>
  web2  http://127.0.0.1:<port>/slow.raw  1G    -          -     <used>
