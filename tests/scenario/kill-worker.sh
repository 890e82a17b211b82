#!/bin/bash
# kill -9 of workers at random moments under load: their steps are run again, by others or by the one that
# comes back, and each attempt only once.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3

start_coxd
for w in w1 w2 w3; do start_worker "$w" --slots 3; done

put_load
start_load "$scenario_dir/load.json" --in-flight 12

n=$(rounds 8 500)
for ((i = 1; i <= n; i++)); do
    random_moment
    w=w$((RANDOM % 2 + 1))
    stop_worker "$w" KILL
    start_worker "$w" --slots 3
done
ok "killed $n times, and back each time"

# One that does not come back: what it was doing goes to the others once it is given up.
python3 "$load_py" slow "$body" "$logs" 2000 >"$scenario_dir/slow.json"
stop_worker w1 TERM
stop_worker w2 TERM
slow=$(cox task submit "$scenario_dir/slow.json" -o name)
await 20 test -s "$logs/$slow.long"
start_worker w4 --slots 3
stop_worker w3 KILL
check "a step of a worker that is gone for good ends" cox task watch "$slow" --connect-timeout 60s
check_equal "as the second attempt" "1 2 " \
    "$(awk '$1 == "start" { printf "%s ", $4 }' "$logs/$slow.long")"
await_load
check_load
finish
