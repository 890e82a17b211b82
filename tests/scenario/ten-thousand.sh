#!/bin/bash
# A task of 10,000 steps, 5 % of whose attempts fail: every output is checked, and how often each step ran.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox tests/scenario/step-body python3
here=$scenario_root/tests/scenario

start_coxd
start_worker w1 --slots 8
start_worker w2 --slots 8

python3 "$here/ten_thousand.py" document "$COX_BUILD/tests/scenario/step-body" >"$scenario_dir/task.json"
id=$(cox task submit "$scenario_dir/task.json" -o name)
check "the task ends well" cox task watch "$id"
cox task output "$id" -o json >"$scenario_dir/outputs.json"
cox task describe "$id" -o json >"$scenario_dir/description.json"
check "every output and every attempt" \
    python3 "$here/ten_thousand.py" check "$scenario_dir/outputs.json" "$scenario_dir/description.json"
finish
