A job is a document, too: `task` and the same names as the flags. It may be kept, reviewed and generated, as YAML or
JSON, in a file or on standard input.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2
  $ cat >web1.yaml <<'YAML'
  > # what web1 is to be
  > task: create
  > name: web1
  > image: debian
  > root: 2G
  > swap: 256M
  > vcpus: 2
  > YAML
  $ cowhand run web1.yaml --dry-run | grep -v '^ ' | norm
  root disk: create from the whole image
  cache-base: planned
  make-swap-base: planned
  record-instance: planned
  create-overlay: planned
  create-overlay: planned
  write-domain: planned
  create web1: 6 of 6 steps to do (about 1.8M of space); nothing was changed
  $ cowhand run web1.yaml --verbose | grep -v '^ '
  root disk: create from the whole image
  cache-base: changed
  make-swap-base: changed
  record-instance: changed
  create-overlay: changed
  create-overlay: changed
  write-domain: changed
  create web1: done
  $ cowhand run - <web1.yaml --verbose
  root disk: create from the whole image
  cache-base: ok
  make-swap-base: ok
  record-instance: ok
  create-overlay: ok
  create-overlay: ok
  write-domain: ok
  create web1: nothing to do

The flags mean the same, and so does JSON, where a size is also a number of bytes:

  $ cowhand create web1 --image debian --root 2G --swap 256M --vcpus 2 --verbose | tail -1
  create web1: nothing to do
  $ jq -n '{task: "create", name: "web1", image: "debian", root: 2147483648, swap: "256M", vcpus: 2}' | cowhand run - --verbose | tail -1
  create web1: nothing to do

Queries and steps are tasks like any other:

  $ echo 'task: list' | cowhand run - | norm
  NAME  IMAGE   ROOT  EPHEMERAL  SWAP  ON DISK
  web1  debian  2G    -          256M  <used>
  $ echo '{"task": "step make-swap-base", "base": "'$PWD'/instances/_base/swap_8", "size": "8M"}' | cowhand run - --verbose | grep -v '^ '
  make-swap-base: changed
  step make-swap-base: done
  $ echo '{"task": "delete", "name": "web1"}' | cowhand run - --yes --verbose | tail -1
  delete web1: done

A document that is wrong is refused as a whole, with what is wrong in it:

  $ echo 'name: web1' | cowhand run -
  cowhand: Cannot read the job on standard input: it has no "task"
    remedy: name it, such as task: create; cowhand schema has the whole form
  [2]
  $ echo 'task: craete' | cowhand run -
  cowhand: Cannot find the command "craete": there is none
    remedy: did you mean: cowhand create
  [2]
  $ printf 'task: create\nname: web1\nimage: debian\nroot: 2G\nswop: 256M\n' | cowhand run -
  cowhand: Cannot use --swop: the command "create" has no such name
    remedy: did you mean --swap? what there is: cowhand create --help
  [2]
  $ printf 'task: create\nname: web1\nimage: debian\nroot: 2.5G\n' | cowhand run -
  cowhand: Cannot read --root "2.5G": it is not an absolute size such as 20G, 512M or 1073741824
    remedy: see what it may be: cowhand create --help
  [2]
  $ printf 'task: create\nname: 123\nimage: debian\nroot: 2G\n' | cowhand run -
  cowhand: Cannot read NAME "123": it is not text
    remedy: see what it may be: cowhand create --help
  [2]
  $ printf 'task: create\nname: web1\n image: debian\n' | cowhand run -
  cowhand: Cannot read the job on standard input: Nested mappings are not allowed in compact mappings at line 2, column 7
    remedy: mend the line that it names
  [2]
  $ printf 'task: create\nname: web1\nimage: debian\nroot: !size 2G\n' | cowhand run -
  cowhand: Cannot read the job on standard input: Unresolved tag: !size at line 4, column 7
    remedy: mend the line that it names
  [2]
  $ printf 'task: list # \344\n' >latin1.yaml && cowhand run latin1.yaml
  cowhand: Cannot read "latin1.yaml": it is not UTF-8 text
    remedy: convert it: iconv -t UTF-8 latin1.yaml
  [2]
  $ printf '[1, 2' | cowhand run -
  cowhand: Cannot read the job on standard input: Flow sequence must end with a ] at line 1, column 6
    remedy: mend the line that it names
  [2]
  $ printf -- '- task: list\n' | cowhand run -
  cowhand: Cannot read the job on standard input: it has no "task"
    remedy: name it, such as task: create; cowhand schema has the whole form
  [2]
  $ cowhand run - </dev/null
  cowhand: Cannot read the job on standard input: it has no "task"
    remedy: name it, such as task: create; cowhand schema has the whole form
  [2]
  $ cowhand run nothere.yaml
  cowhand: Cannot read "nothere.yaml": there is no such file
    remedy: name a file that exists
  [2]
  $ cowhand run
  cowhand: Cannot read the command "run": JOB is missing
    remedy: add it; what it means: cowhand run --help
  [2]
  $ ls instances | norm
  _base
  locks

The whole form is a JSON schema, for editors and other programs:

  $ cowhand schema >schema.json
  $ jq -r '."$schema", (."$defs" | keys | join(" "))' schema.json
  https://json-schema.org/draft/2020-12/schema
  event job result settings
  $ jq -r '[."$defs".job.oneOf[].properties.task.const] | map(select(startswith("step") | not)) | join(", ")' schema.json
  cache clean, cache prefetch, cache verify, confirm, create, delete, image add, image remove, migrate, migrate-destination, migrate-source, resize, revert, list, show, cache list, image list, image show, doctor, rsyncd-conf
  $ jq -c '."$defs".job.oneOf[] | select(.properties.task.const == "create") | .required, .additionalProperties' schema.json
  ["task","name","image","root"]
  false
  $ jq -c '."$defs".result.required' schema.json
  ["version","task","ok","changed","steps"]
