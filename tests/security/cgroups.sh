#!/bin/bash
# Sandboxed steps in control groups of version 2: what the kernel counts, kills and shares out, what is left behind, and
# what holds where the groups are not the worker's alone. Needs root and a tree that has controllers; where there is
# none, cgroups-vm.sh starts a machine that has.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox-sandbox cox python3 setpriv
[ "$(id -u)" = 0 ] || { skip cgroups "it makes groups, which needs root"; exit 0; }
tree=$(awk '$5 ~ /^\/sys\/fs\/cgroup/ && / - cgroup2 / && $6 !~ /(^|,)ro(,|$)/ { print $5; exit }' /proc/self/mountinfo)
for controller in memory pids cpu; do
    grep -qw $controller "$tree/cgroup.controllers" 2>/dev/null && continue
    skip cgroups "no tree of version 2 that is writable and has the controller $controller"
    exit 0
done
top=$tree/cox-test-$$
remove_tree() { find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; }
at_exit+=('for name in "${!worker_pids[@]}"; do stop_worker $name TERM; done' "remove_tree $top")
for controller in memory pids cpu; do echo "+$controller" >"$tree/cgroup.subtree_control"; done
mkdir "$top" || { not_ok "a group for the test"; finish; }
for controller in memory pids cpu; do echo "+$controller" >"$top/cgroup.subtree_control"; done
chmod 755 "$scenario_dir"

# start_in NAME GROUP [COMMAND...]: a worker in that group, started through COMMAND.
start_in() {
    local name=$1 group=$2 folder=$scenario_dir/$1.work
    shift 2
    rm -f "$folder/ready"
    mkdir -p "$folder"
    [ "$#" = 0 ] || chown 65534:65534 "$folder"
    (cd "$folder" && echo $BASHPID >"$group/cgroup.procs" &&
        exec "$@" "$COX_BUILD/cox-worker" --orchestrator "$COX_ADDRESS" --worker-id "$name" --ready-file "$folder/ready" \
            --label "name=$name" --work-dir "$folder/work" --resources cpu=8,memory=4Gi,disk=4Gi --slots 4) \
        >>"$scenario_dir/$name.log" 2>&1 </dev/null &
    worker_pids[$name]=$!
    await_file "$folder/ready" "${worker_pids[$name]}" || { not_ok "worker $name attaches" "$scenario_dir/$name.log"; finish; }
    cox worker describe "$name" >"$scenario_dir/describe" 2>&1
}
step() { # WORKER CPU MEMORY COMMAND...: a document of one step
    python3 -c 'import json, sys; print(json.dumps({"api_version": "v1", "name": "s", "steps": {"a": {"requires": "name == " + sys.argv[1],
        "resources": {"cpu": float(sys.argv[2]), "memory": sys.argv[3]}, "run": {"argv": sys.argv[4:], "sandbox": "strict"}}}}))' "$@"
}
submit() { step "$@" | cox task submit -o name -; }
outcome() { # of one step, run to its end
    local id
    id=$(submit "$@")
    cox task watch "$id" >/dev/null 2>&1
    cox task describe "$id" >"$scenario_dir/outcome" 2>&1
    cox task describe "$id" -o json >"$scenario_dir/outcome.json" 2>&1
}
attempts() { find "$1" -mindepth 2 -maxdepth 2 -type d -name '[0-9]*' -path '*/cox-attempts-*' 2>/dev/null; }
groups() { find "$1" -mindepth 1 -type d | wc -l; }
hog='import sys
x = []
while True: x.append(bytearray(b"x") * (1 << 20))'

start_coxd
mkdir "$top/main"
start_in main "$top/main"
if ! grep -q '^strict *yes' "$scenario_dir/describe"; then
    skip cgroups "this host gives no sandbox: $(grep '^strict' "$scenario_dir/describe")"
    exit 0
fi
for limit in memory processes cpu; do check_match "a worker in a group of its own has $limit by it" "^$limit +control group" "$scenario_dir/describe"; done
check_match "and says where" "^cgroups +version 2, in $top/main/cox-attempts-" "$scenario_dir/describe"
check_equal "it stands in a leaf" "${worker_pids[main]}" "$(cat "$top"/main/cox-attempts-*/self/cgroup.procs)"

# ---- memory
outcome main 0.1 64Mi python3 -c "$hog"
check_match "a memory bomb ends by the kernel, as one that was seen" 'RESOURCE_EXHAUSTED: stopped: the step used all of its memory and wanted more than the 64 MiB' "$scenario_dir/outcome"
outcome main 0.1 64Mi sh -c "python3 -c '$hog' || true; echo survived"
check_match "all of it, also where only a child wanted so much" 'FAILED.*RESOURCE_EXHAUSTED: stopped: the step used all of its memory' "$scenario_dir/outcome"
outcome main 0.1 32Mi python3 -c 'import fcntl, os
for i in range(1000):
  for end in os.pipe(): fcntl.fcntl(end, fcntl.F_SETFL, os.O_NONBLOCK)
  try: os.write(end, b"x" * 65536)
  except BlockingIOError: pass'
check_match "what the kernel keeps for it counts (pipes)" 'RESOURCE_EXHAUSTED: stopped: the step used all of its memory' "$scenario_dir/outcome"
outcome main 0.1 64Mi python3 -c 'x = bytearray(b"x") * (32 << 20)'
check_match "control: half of it is there to be had" '^a .*SUCCEEDED' "$scenario_dir/outcome"
outcome main 0.1 64Mi sh -c 'head -c 300M /dev/zero >file; cat file >/dev/null; rm file'
check_match "control: files that are kept in memory give way" '^a .*SUCCEEDED' "$scenario_dir/outcome"
outcome main 0.1 64Mi cat /proc/self/cgroup
check_match "the path of its group is hidden from it" '"stdout": ?"0::/.n"' "$scenario_dir/outcome.json"

# ---- processes
id=$(submit main 0.1 1Gi python3 -c 'import os, time
try:
  while os.fork() or time.sleep(300): pass
except OSError: time.sleep(300)')
bombed() { grep -q '^max [1-9]' "$(attempts "$top/main" | head -1)/pids.events"; }
check "a bomb of processes meets pids.max" await 300 bombed
bomb=$(attempts "$top/main" | head -1)
check_equal "which is that of a sandbox" 1024 "$(cat "$bomb/pids.max")"
check_equal "and so many it has, counted from outside" 1024 "$(cat "$bomb/pids.current")"
cox task cancel "$id" >/dev/null 2>&1
cox task watch "$id" >/dev/null 2>&1
check_equal "nothing of it stays" "" "$(attempts "$top/main")"

# ---- the processor: reported, not judged, for how exactly it is shared is the kernel's to say
burn='for i in 1 2 3 4; do (while :; do :; done) & done; wait'
ids=("$(submit main 0.5 64Mi sh -c "$burn")" "$(submit main 1.5 64Mi sh -c "$burn")")
weighed() { [ "$(attempts "$top/main" | sed 's#$#/cpu.weight#' | xargs cat | sort -n | paste -sd' ')" = "50 150" ]; }
check "attempts that ask for half a core and for one and a half weigh 50 and 150" await 120 weighed
used() { # WEIGHT: of the attempt that has it, in ms
    local group
    for group in $(attempts "$top/main"); do
        [ "$(cat "$group/cpu.weight")" != "$1" ] || awk '/^usage_usec/ { print int($2 / 1000) }' "$group/cpu.stat"
    done
}
await 120 eval '[ "$(used 50)" -gt 500 ] && [ "$(used 150)" -gt 500 ]'
light=$(used 50) heavy=$(used 150)
sleep 10
light=$(($(used 50) - light)) heavy=$(($(used 150) - heavy))
echo "    processor in 10 s on $(nproc) cores, four busy processes each: $light ms by weight 50, $heavy ms by weight 150: 1 to $(awk "BEGIN { printf \"%.2f\", $heavy / ($light + 0.001) }")"
for id in "${ids[@]}"; do cox task cancel "$id" >/dev/null 2>&1; cox task watch "$id" >/dev/null 2>&1; done

# ---- what is left
check_equal "between steps there is the worker's leaf alone" 2 "$(groups "$top/main")"
stop_worker main TERM
check_equal "a worker that ends leaves no group" 0 "$(groups "$top/main")"
check_equal "and no controller enabled" "" "$(cat "$top/main/cgroup.subtree_control")"
start_in main "$top/main"
id=$(submit main 0.1 64Mi sleep 300)
check "control: an attempt has a group" await 60 eval '[ -n "$(attempts "$top/main")" ]'
stop_worker main KILL
check "of a killed worker no process stays in its groups" await 30 grep -qx 'populated 0' "$top/main/cgroup.events"
cox task cancel "$id" >/dev/null 2>&1
remove_tree "$top/main" # as systemd does before it starts a unit again
check_equal "so that who started it can remove them" no "$([ -e "$top/main" ] && echo yes || echo no)"
# Two workers in the root of all, where others may be beside groups: that of the dead goes, that of the living does not.
if [ ! -e "$tree/cgroup.type" ]; then
    start_in root1 "$tree"
    start_in root2 "$tree"
    check_match "in the root of all no worker needs to be alone" "^memory +control group" "$scenario_dir/describe"
    id=$(submit root1 0.1 64Mi sleep 300)
    await 60 eval '[ -n "$(attempts "$tree")" ]'
    dead=${worker_pids[root1]}
    stop_worker root1 KILL
    cox task cancel "$id" >/dev/null 2>&1
    check_match "control: what a killed worker left is there" "cox-attempts-$dead-" <(ls "$tree")
    start_in root3 "$tree"
    check_equal "the next one removes it, and not its neighbour's" "cox-attempts-${worker_pids[root2]}-0 cox-attempts-${worker_pids[root3]}-0" \
        "$(cd "$tree" && find . -maxdepth 1 -name 'cox-attempts-*' | sed 's#./##' | sort -t- -k3n | paste -sd' ')"
    stop_worker root2
    stop_worker root3
fi

# ---- a worker without rights, to whom a group was delegated
mkdir "$top/plain"
chown 65534:65534 "$top/plain" "$top/plain/cgroup.procs" "$top/plain/cgroup.subtree_control" "$top/plain/cgroup.threads"
start_in plain "$top/plain" setpriv --reuid 65534 --regid 65534 --clear-groups
check_match "a worker without rights has what was delegated to it" "^memory +control group" "$scenario_dir/describe"
outcome plain 0.1 64Mi python3 -c "$hog"
check_match "a memory bomb there ends by the kernel" 'RESOURCE_EXHAUSTED: stopped: the step used all of its memory and wanted more than the 64 MiB' "$scenario_dir/outcome"
stop_worker plain
check_equal "it leaves no group" 0 "$(groups "$top/plain")"

# ---- what is not the worker's: watched, and said
mkdir "$top/foreign"
start_in foreign "$top/foreign" setpriv --reuid 65534 --regid 65534 --clear-groups
check_match "without delegation memory is watched" "^memory +watched: .* is not delegated to the worker's user" "$scenario_dir/describe"
outcome foreign 0.1 64Mi python3 -c "$hog"
check_match "a memory bomb is seen" 'RESOURCE_EXHAUSTED: stopped: the step used .* of memory, more than the 64 MiB' "$scenario_dir/outcome"
stop_worker foreign
mkdir "$top/shared"
(echo $BASHPID >"$top/shared/cgroup.procs" && exec sleep 3000) &
neighbour=$!
at_exit+=("kill $neighbour")
await 10 grep -qx $neighbour "$top/shared/cgroup.procs"
start_in shared "$top/shared"
check_match "a group with others' processes is left alone" "^memory +watched: .* has other processes than this worker" "$scenario_dir/describe"
check_equal "and they stay where they are" 0 "$(groups "$top/shared")"
stop_worker shared
kill $neighbour
mkdir -p "$top/part/inner"
echo "+pids" >"$top/part/cgroup.subtree_control"
start_in part "$top/part/inner"
check_match "of a tree with one controller that one is used" "^processes +control group" "$scenario_dir/describe"
check_match "and what the others would do is done without" "^memory +watched: no controller memory" "$scenario_dir/describe"
outcome part 0.1 64Mi python3 -c "$hog"
check_match "there too a memory bomb is seen" 'RESOURCE_EXHAUSTED: stopped: the step used .* of memory, more than the 64 MiB' "$scenario_dir/outcome"
finish
