#!/bin/bash
# A disk without room for a commit: the orchestrator ends with 75 and does not come back before there is room;
# then everything it has acknowledged is there and goes on. On a small file system of its own, so as root.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3

mkdir "$scenario_dir/data"
if ! mount -t tmpfs -o size=48m cox-disk-full "$scenario_dir/data" 2>/dev/null; then
    skip disk-full "a small file system cannot be mounted here"
    exit 0
fi
at_exit+=("umount -l '$scenario_dir/data'")

start_coxd --min-free 0 # else it would refuse before the disk is full
start_worker w1 --slots 4
put_load
start_load "$scenario_dir/load.json" --in-flight 32

n=$(rounds 2 10)
for ((i = 1; i <= n; i++)); do
    random_moment
    cat /dev/zero >"$scenario_dir/data/filler" 2>/dev/null
    code=0
    timeout 60 tail --pid="$coxd_pid" -f /dev/null
    wait "$coxd_pid" || code=$?
    check_equal "a full disk, time $i: exit code" 75 "$code"

    "$COX_BUILD/coxd" --data-dir "$scenario_dir/data" --grpc 127.0.0.1:0 --http 127.0.0.1:0 --ready-file "$scenario_dir/none.ready" \
        >"$scenario_dir/none.log" 2>&1 &
    pid=$!
    timeout 60 tail --pid="$pid" -f /dev/null
    code=0
    wait "$pid" || code=$?
    check_equal "started again without room: exit code" 75 "$code"

    rm "$scenario_dir/data/filler"
    start_coxd --min-free 0
done
await_load
check_load
finish
