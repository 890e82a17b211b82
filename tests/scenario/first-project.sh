#!/bin/bash
# The guide's ten minutes: init, dev, a thousand runs of three Python tools, one failure found and mended.
. "$(dirname "$0")/lib.sh"
need_programs cox coxd cox-worker python3 pgrep

export HOME=$scenario_dir/home XDG_CONFIG_HOME=
mkdir -p "$HOME"
unset COX_ADDRESS
cd "$scenario_dir" || exit 1
check_exit "a project" 0 cox init orders
"$COX_BUILD/cox" dev orders --slots 4 >dev.log 2>&1 </dev/null &
dev_pid=$!
at_exit+=('kill $dev_pid; wait $dev_pid')
up() { cox config get-contexts -o name | grep -qx dev; }
check "dev is up, and found by its context" await 60 up
cd orders || exit 1

check_exit "one run" 0 cox task run task.yaml --input line="plum, 12, 0.50" -q
check_match "its receipt" '12 x plum: 5.40' "$scenario_dir/out"
check_exit "a thousand; one does not succeed" 1 \
    cox task submit task.yaml --for-each orders.jsonl --key first --label run=first --wait --timeout 10m -o jsonl
check_equal "every line is told" 1000 "$(wc -l <"$scenario_dir/out")"
check_match "the one is named" '^orders.jsonl:617: t0-[0-9a-z]+ FAILED: [A-Z_]+ in parse' "$scenario_dir/err"
check_equal "it is the only one" 999 "$(grep -c '"status":"SUCCEEDED"' "$scenario_dir/out")"
id=$(sed -n 's/^orders.jsonl:617: \(t0-[0-9a-z]*\) .*/\1/p' "$scenario_dir/err" | head -n 1)
found() { [ "$(cox task list -l run=first --status FAILED -o name)" = "$id" ]; }
check "a list finds it" await 20 found
check_exit "what happened" 0 cox task describe "$id"
check_match "is said" "invalid literal for int\(\) with base 10: 'two'" "$scenario_dir/out"

sed -i 's/^    return {"name"/    quantity = {"one": 1, "two": 2, "three": 3}.get(quantity, quantity)\n&/' tools/parse_order
mended() { # the worker takes the new file when it has seen it; until then the old one fails again
    cox task retry -l run=first --status FAILED -q
    cox task watch "$id" -q
}
check "mended, and run again" await 60 mended
check_exit "its outputs" 0 cox task output "$id"
check_match "a receipt" '2 x plum' "$scenario_dir/out"
check_exit "the same lines again are the same tasks" 0 \
    cox task submit task.yaml --for-each orders.jsonl --key first --label run=first --wait -o jsonl
check_equal "all have succeeded" 1000 "$(grep -c '"status":"SUCCEEDED"' "$scenario_dir/out")"

kill -INT "$dev_pid"
wait "$dev_pid"
check_equal "Ctrl-C ends dev" 130 "$?"
check_equal "and its context" "" "$(cox config get-contexts -o name)"
check_equal "and its programs" "" "$(pgrep -f "$scenario_dir/orders/.cox" | paste -sd' ')"
finish
