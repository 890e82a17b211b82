#!/bin/bash
# kill -9 of the orchestrator at full speed: workers whose steps take no time, hundreds of chains under way, so
# that each kill finds large commits, checkpoints and archiving at work.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-bench python3

start_coxd
for w in w1 w2; do
    "$COX_BUILD/cox-bench" worker --orchestrator "$COX_ADDRESS" --id "$w" --result-len 100 >"$scenario_dir/$w.log" 2>&1 &
    worker_pids[$w]=$!
done
python3 "$load_py" chain >"$scenario_dir/chain.json"
start_load "$scenario_dir/chain.json" --in-flight 400

n=$(rounds 8 500)
for ((i = 1; i <= n; i++)); do
    random_moment
    stop_coxd KILL
    checkpoints=(256Ki 4Mi 64Mi)
    start_coxd --checkpoint-bytes "${checkpoints[RANDOM % 3]}"
done
ok "killed $n times, and back each time"

await_load
check "every acknowledged chain has the right result" \
    python3 "$load_py" check-chains "$scenario_dir/acknowledged" "$scenario_dir/results"
tail -n 1 "$scenario_dir/check.log"
finish
