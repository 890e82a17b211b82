#!/bin/bash
# cox-bench measures what it says, small here: the contract's names of figures, checked results, and no figures
# at all when a result is wrong.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-bench python3

# figures WORKLOAD NAME...: a small run gives these, and they are positive.
figures() {
    local workload=$1
    shift
    "$COX_BUILD/cox-bench" "$workload" --spawn --runs 2 --steps "${steps:-400}" --data-dir "$scenario_dir" --json |
        python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
assert [line.get("run") for line in lines] == [1, 2, None], lines
for name in sys.argv[1:]:
    low, high = sorted(line[name] for line in lines[:2])
    assert 0 < low <= lines[2]["median"][name] <= high, (name, lines)
assert all(line["cpu_s"][part] > 0 for line in lines[:2] for part in ("coxd", "workers")), lines
' "$@"
}

check w1 figures w1 steps_per_s cpu_us_per_step
check w1t figures w1t tasks_per_s cpu_us_per_task
check w2 figures w2 steps_per_s
check w2l figures w2l hop_us
check w3 figures w3 steps_per_s
check w4 figures w4 p50_us p99_us
steps=40000 check fanout figures fanout items_per_s cpu_us_per_item
check_exit "what comes later" 2 "$COX_BUILD/cox-bench" fleet
check_match "what comes later says so" 'not available in this version' "$scenario_dir/err"
check_exit "a misspelled workload" 2 "$COX_BUILD/cox-bench" w5

start_coxd
"$COX_BUILD/cox-bench" worker --orchestrator "$COX_ADDRESS" --result-len 99 >"$scenario_dir/worker.log" 2>&1 &
worker_pids[wrong]=$!
check_exit "a run with other results than expected" 1 \
    "$COX_BUILD/cox-bench" w2 --addr "$COX_ADDRESS" --workers 0 --steps 400 --runs 1
check_match "says that a task failed" 'a task failed: other outputs than expected' "$scenario_dir/err"
check_equal "and gives no figures" "" "$(cat "$scenario_dir/out")"
stop_worker wrong
"$COX_BUILD/cox-bench" worker --orchestrator "$COX_ADDRESS" --result-len 100 >"$scenario_dir/worker.log" 2>&1 &
worker_pids[right]=$!
check_exit "the same with the right ones" 0 \
    "$COX_BUILD/cox-bench" w2 --addr "$COX_ADDRESS" --workers 0 --steps 400 --runs 1
check_match "of coxd's CPU time it knows nothing" '"coxd":null' "$scenario_dir/out"
finish
