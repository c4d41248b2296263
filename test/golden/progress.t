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
  $ [ $(wc -l <log) -ge 2 ] && [ $(wc -l <log) -le 10 ]

--progress json is for programs: one JSON document a line, of a form that `cowhand schema` has.

  $ again; create web1 --progress json 2>events
  $ jq -c 'select(.type != "progress")' events | norm
  $ jq -c 'select(.type == "progress") | keys, .what, .total' events | sort -u
  $ jq -s '[.[] | select(.type == "progress") | .done] | . == sort and length >= 4 and .[-1] == 1048576' events

On a terminal there is one line that is drawn again and again, and at the end the result. script(1) is a terminal of
no known width, which is taken for one of 80 columns:

  $ again
  $ drawn() { tr '\r' '\n' | sed 's#\x1b\[K##g; /^$/d'; }
  $ terminal() { script -qec "$(printf '%q ' "$@")" /dev/null </dev/null | drawn; }
  $ terminal cowhand create web1 --image $url/slow.raw --checksum $sum --root 1G | numbers

A narrow one gets less of the line, so that it never wraps:

  $ again
  $ terminal sh -c "stty cols 30; exec cowhand create web1 --image $url/slow.raw --checksum $sum --root 1G" >narrow
  $ grep -c fetch narrow >/dev/null && grep fetch narrow | awk 'length > 29'
  $ tail -1 narrow

Colours are for a terminal that has them, and for people who want them:

  $ TERM=xterm terminal cowhand show web9 | norm | cat -v
  $ TERM=xterm NO_COLOR=1 terminal cowhand show web9 | norm | cat -v
  $ TERM=dumb terminal cowhand show web9 | norm | cat -v
  $ cowhand show web9 |& norm | cat -v

Interrupted
-----------

A signal ends the task, and the exit code is 128 and its number. What was downloaded stays, and is gone on with:

  $ again
  $ create() { exec cowhand create "$1" --image $url/slow.raw --checksum $sum --root 1G "${@:2}"; }
  $ started() { until find instances -name '*.part' -size +0 2>/dev/null | grep -q .; do sleep 0.02; done; }
  $ create web1 & task=$!
  $ started; kill $task; wait $task
  $ find instances -name '*.part' | norm
  $ (create web1 --json) | jq -c '.ok, (.bytes.fetched | . > 0 and . < 1048576)'
  $ find instances -name '*.part'

Two at once
-----------

While one task makes an instance, another one that wants to is turned away at once, with exit code 4:

  $ again
  $ create web1 & task=$!
  $ started; kill -STOP $task
  $ (create web1) |& norm

A base in the making is worth waiting for, an hour by default; then it is there, and is not downloaded again:

  $ (create web2 --lock-wait 0) |& norm
  $ create web2 --verbose >waited 2>&1 & other=$!
  $ until grep -q waiting waited; do sleep 0.02; done; kill -CONT $task
  $ wait $task && wait $other && grep -v '^ ' waited | norm
  $ cowhand list | norm
