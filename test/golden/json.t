The contract with scripts: --json prints one document on standard output, whatever happens, and the exit code says how
it went. What is for people goes to standard error.

  $ . "$TESTDIR/setup.sh"
  $ cowhand image add debian.qcow2 --json | jq -c '[.version, .task, .ok, .changed]'
  [1,"image add",true,true]
  $ create() { cowhand create web1 --image debian --root 2G --swap 256M --json "$@"; }
  $ create >result.json
  $ jq -c 'keys' result.json
  ["bytes","changed","disks","instance","ok","reasons","steps","task","version"]
  $ jq -c '[.version, .task, .ok, .changed, .instance]' result.json
  [1,"create",true,true,"web1"]
  $ jq -c '.steps[] | [.step, .status, .changed, (.actions | length)]' result.json
  ["cache-base","changed",true,6]
  ["make-swap-base","changed",true,5]
  ["record-instance","changed",true,3]
  ["create-overlay","changed",true,2]
  ["create-overlay","changed",true,2]
  ["write-domain","changed",true,2]
  $ jq -c '.steps[0] | keys, (.actions[0] | keys), (.seconds | type)' result.json
  ["actions","changed","seconds","status","step"]
  ["action"]
  "number"
  $ jq -c '.disks[] | [.name, .path, .format, .virtualSize, .backing, (.actualSize | type)]' result.json | norm
  ["disk","./instances/web1/disk","qcow2",2147483648,"./instances/_base/<sha1>","number"]
  ["disk.swap","./instances/web1/disk.swap","qcow2",268435456,"./instances/_base/swap_256","number"]
  $ jq -c '.bytes' result.json
  {"fetched":0,"sent":0}

Nothing to do is a success that changed nothing. In a dry run each step is planned:

  $ create | jq -c '[.ok, .changed, ([.steps[].status] | unique)]'
  [true,false,["ok"]]
  $ cowhand create web2 --image debian --root 2G --dry-run --json | jq -c '[.ok, .changed, (.steps[] | .status)]'
  [true,false,"ok","planned","planned","planned"]

Errors
------

An error has a code that stays the same from version to version; the sentence may change.

  $ cowhand create web1 --image debian --root 3G --swap 256M --json 2>sentence | jq -c '[.ok, .changed, (.error | .code, .kind, .step)]'
  [false,false,"INSTANCE_DIFFERS","refused","record-instance"]
  [3]
  $ cat sentence
  cowhand: Cannot create "web1": it exists with root 2G, not 3G
    remedy: ask for what it has (cowhand show web1), or remove it: cowhand delete web1
  $ cowhand create web2 --image nothere --root 3G --json 2>/dev/null | jq -c '.error | keys, .code'
  ["code","kind","message","remedy"]
  "IMAGE_NOT_FOUND"
  [3]
  $ cowhand create web2 --json 2>/dev/null | jq -c '[.version, .task, .ok, .steps, .error.code, .error.message]'
  [1,"create",false,[],"BAD_SPEC","Cannot read the command \"create\": --image is missing"]
  [2]

The exit codes. 0: it is as it is to be.

  $ create >/dev/null

2: the request is wrong. 3: refused, a decision is needed; nothing was changed.

  $ create --color 2>/dev/null | jq -r .error.code
  BAD_SPEC
  [2]
  $ cowhand delete web1 --json 2>/dev/null | jq -r .error.code
  CONFIRMATION_NEEDED
  [3]

1: it failed, and the same command again goes on (`web.t`). 4: another task has it (`progress.t`). 128+n: ended by signal n.

Queries
-------

  $ cowhand list --json | jq -c '.instances[] | [.name, .image, .root, .ephemeral, .swap, (.actualSize | type)]'
  ["web1","debian",2147483648,null,268435456,"number"]
  $ cowhand show web1 --json | jq -c '[.name, .image.name, .root, (.disks[] | .name, .backingVirtualSize)]'
  ["web1","debian",2147483648,"disk",8388608,"disk.swap",268435456]
  $ cowhand image list --json | jq -c '.images[] | [.name, .format, .virtualSize, (.digest == .id)]'
  ["debian","qcow2",8388608,true]
  $ cowhand image show debian --json | jq -c '[.name, .base.cached]'
  ["debian",true]
  $ cowhand doctor --json | jq -c '[.version, .task, (.checks | type)], ([.checks[] | keys[]] | unique), ([.checks[].status] | unique - ["ok", "warn", "missing"])'
  [1,"doctor","array"]
  ["found","name","needs","remedy","status"]
  []
  $ cowhand steps --json | jq -c '.steps[0] | keys'
  ["name","summary"]
  $ cowhand show web9 --json 2>/dev/null | jq -c '[.ok, .error.code]'
  [false,"INSTANCE_NOT_FOUND"]
  [3]
  $ cowhand --version --json
  {"version":"0.1.0"}
