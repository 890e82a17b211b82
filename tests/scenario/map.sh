#!/bin/bash
# Maps with real workers: what rule 5 of the task format says, and a million items through kills of the orchestrator.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench python3

start_coxd
start_worker w1 --slots 4

cat >"$scenario_dir/rules.yaml" <<'YAML'
api_version: v1
name: rules
steps:
  list: {run: {argv: [echo, '{"files": ["a", "b", "c", "d", "e"]}'], output: json}}
  scan:
    map: {over: "${{ steps.list.output.files }}", as: file, batch: 2, max_parallel: 4, tolerate_failures: 30%}
    run: {argv: [sh, -c, 'test $FILE != c && echo "\"$FILE$INDEX\""'], env: {FILE: "${{ file }}", INDEX: "${{ index }}"}, output: json}
  again: {map: {over: "${{ steps.scan.output }}"}, race: [{run: {argv: [echo, "${{ item }}"]}}, {wait: {for: 1h}}]}
  none: {map: {over: []}, run: {argv: ["true"]}}
outputs: {all: "${{ steps.scan.output }}", errors: "${{ steps.scan.errors }}", last: "${{ steps.again.output[4].stdout }}",
          none: "${{ steps.none.output }}"}
YAML
check "a map over a program's output runs to its end" cox task run "$scenario_dir/rules.yaml"
cox task submit "$scenario_dir/rules.yaml" --wait -o json >"$scenario_dir/rules.json" 2>"$scenario_dir/err"
check "rule 5: order, a null for what failed, and its error" python3 - "$scenario_dir/rules.json" <<'PY'
import json, sys
got = json.load(open(sys.argv[1]))["outputs"]
want = {"all": ["a0", "b1", None, "d3", "e4"], "last": "e4\n", "none": [],
        "errors": [{"index": 2, "code": "EXIT_NONZERO", "message": "exited with code 1"}]}
assert got == want, got
PY
check_exit "which item it was is described" 0 cox task describe "$(python3 -c 'import json, sys; print(json.load(sys.stdin)["id"])' <"$scenario_dir/rules.json")"
check_match "with its error" 'item 2: EXIT_NONZERO: exited with code 1' "$scenario_dir/out"
sed 's/30%/19%/' "$scenario_dir/rules.yaml" >"$scenario_dir/strict.yaml"
check_exit "a failure more than is tolerated fails the step" 1 cox task run "$scenario_dir/strict.yaml"
cat "$scenario_dir/out" "$scenario_dir/err" >"$scenario_dir/strict.log"
check_match "and says which item, and how many" '1 of 5 items failed, tolerated are 0; item 2: exited with code 1' \
    "$scenario_dir/strict.log"
stop_worker w1

# ---- a million items ----

for name in m1 m2; do
    "$COX_BUILD/cox-bench" worker --orchestrator "$COX_ADDRESS" --slots 4 --id "$name" --result-len 2 \
        >"$scenario_dir/$name.log" 2>&1 &
    worker_pids[$name]=$!
done
python3 -c '
import json
print(json.dumps({"api_version": "v1", "name": "million",
                  "steps": {"scan": {"uses": "noop@1", "map": {"batch": 50, "over": [0] * 1000000}}},
                  "outputs": {"n": "${{ size(steps.scan.output) }}", "e": "${{ size(steps.scan.errors) }}",
                              "last": "${{ steps.scan.output[999999] }}"}}, separators=(",", ":")))
' >"$scenario_dir/million.json"
id=$(cox task submit "$scenario_dir/million.json" -o name)
n=$(rounds 3 20)
for ((i = 1; i <= n; i++)); do
    random_moment
    stop_coxd KILL
    start_coxd --checkpoint-bytes 4Mi
done
check "a million items survive $n kills of the orchestrator" cox task watch "$id"
check_equal "and every one is in the output" \
    '{"e":0,"last":"ab","n":1000000}' \
    "$(cox task output "$id" | python3 -c 'import json,sys; print(json.dumps(json.load(sys.stdin), sort_keys=True, separators=(",", ":")))')"
stop_worker m1
stop_worker m2
finish
