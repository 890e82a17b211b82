#!/bin/bash
# kill -9 of the orchestrator at random moments under load: nothing acknowledged is lost, nothing is computed
# from anything but what was recorded, and a step that runs meanwhile is not run again.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3

start_coxd
start_worker w1 --slots 4
start_worker w2 --slots 4

python3 "$load_py" slow "$body" "$logs" 10000 >"$scenario_dir/slow.json"
slow=()
start_slow() {
    slow+=("$(cox task submit "$scenario_dir/slow.json" -o name)")
    await 30 test -s "$logs/${slow[-1]}.long"
}
start_slow
put_load
start_load "$scenario_dir/load.json" --in-flight 8

n=$(rounds 8 500)
for ((i = 1; i <= n; i++)); do
    [ $((i % 50)) != 0 ] || start_slow
    random_moment
    stop_coxd KILL
    # Recovery from the log alone, and from checkpoints of all ages.
    checkpoints=(32Ki 256Ki 64Mi)
    start_coxd --checkpoint-bytes "${checkpoints[RANDOM % 3]}"
done
ok "killed $n times, and back each time"

each_slow() { for id in "${slow[@]}"; do "$@" "$id" || return 1; done; }
ran_once() { python3 "$load_py" ran-once "$logs" "$1" long; }
check "steps that took 10 s all the while end: ${#slow[@]}" each_slow cox task watch
check "and were run once" each_slow ran_once
await_load
check_load
finish
