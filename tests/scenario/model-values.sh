#!/bin/bash
# Values of model steps that are too large for a message, against a real coxd: answers of megabytes are outputs
# like others; what a request refers to is what the model reads. And items of maps are watched while they are
# written.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3 curl

values_py=$(dirname "$0")/model_values.py
python3 "$values_py" serve "$scenario_dir/model.url" </dev/null 2>"$scenario_dir/model.log" &
model_pid=$!
at_exit+=("stop_process $model_pid TERM")
await_file "$scenario_dir/model.url" "$model_pid" || { not_ok "the model serves" "$scenario_dir/model.log"; exit 1; }
url=$(cat "$scenario_dir/model.url")
start_coxd --model "default=$url" --http-advertise http://models.example:7601
start_worker w1 --slots 2

by_name() { curl -s -o /dev/null -w '%{http_code}' -H "Host: $1" "http://$coxd_http/api/v1/workers"; }
check_equal "the name that workers are told of is one to call it by" "200 403" "$(by_name models.example:7601) $(by_name other.example)"

# ---- answers of megabytes --------------------------------------------------------------------------------

cat >"$scenario_dir/large.json" <<'E2'
{"api_version": "v1", "name": "large", "steps": {
  "say": {"model": {"input": "much 5000000"}},
  "again": {"map": {"over": [1, 200000]}, "model": {"input": "much ${{ item }}"}},
  "size": {"jq": {"program": ".content | length", "input": "${{ steps.say.output }}"}},
  "ask": {"model": {"messages": [{"role": "user", "content": "${{ steps.say.output.content }}"}, {"role": "user", "content": "echo"}]}}},
 "outputs": {"size": "${{ steps.size.output }}", "seen": "${{ steps.ask.output.content }}"}}
E2
check_exit "an answer of 5 MB is an output" 0 cox task run "$scenario_dir/large.json" --timeout 60s
check_match "which others read whole" '"?size"?:? *5000000' "$scenario_dir/out"
digest=$(python3 -c 'import hashlib; print(hashlib.sha256(b"y" * 5000000).hexdigest())')
check_match "models, too" "5000000 $digest" "$scenario_dir/out"
id=$(cox task list -o name | sed 's,^task/,,' | head -n 1)
cox task output "$id" say >"$scenario_dir/say.json"
check "and people" python3 "$values_py" large "$scenario_dir/say.json" 5000000
cox task describe "$id" -o json >"$scenario_dir/describe.json"
check "a large item is stored, too" grep -q 'blob' <(cox task output "$id" again)

# ---- what a request refers to ----------------------------------------------------------------------------

cat >"$scenario_dir/refers.json" <<'E2'
{"api_version": "v1", "name": "refers", "steps": {
  "make": {"run": {"argv": ["/usr/bin/python3", "-c", "print('z' * 299999)"]}},
  "ask": {"model": {"messages": [{"role": "user", "content": "${{ steps.make.output.stdout_blob }}"}, {"role": "user", "content": "echo"}]}}},
 "outputs": {"seen": "${{ steps.ask.output.content }}"}}
E2
check_exit "a request may refer to a large text" 0 cox task run "$scenario_dir/refers.json" --timeout 60s
digest=$(python3 -c 'import hashlib; print(hashlib.sha256(b"z" * 299999 + b"\n").hexdigest())')
check_match "and the model reads all of it" "300000 $digest" "$scenario_dir/out"
nothing=$(printf '0%.0s' {1..64})
sed "s/\\\${{ steps.make.output.stdout_blob }}/{\\\\\"\$blob\\\\\":\\\\\"sha256:$nothing\\\\\"}/" "$scenario_dir/refers.json" >"$scenario_dir/nothing.json"
check_exit "what is not there fails the step" 1 cox task run "$scenario_dir/nothing.json" --timeout 60s
check_match "and is named" "INPUT_INVALID.*sha256:$nothing" "$scenario_dir/err"

# ---- items, watched --------------------------------------------------------------------------------------

cat >"$scenario_dir/items.json" <<'E2'
{"api_version": "v1", "name": "items", "steps": {"say": {"map": {"over": [0, 1, 2]}, "model": {"input": "hold ${{ item }}"}}},
 "outputs": {"texts": "${{ steps.say.output }}"}}
E2
id=$(cox task submit "$scenario_dir/items.json" -o name | sed 's,^task/,,')
await 30 bash -c "[ \"\$($COX_BUILD/cox task describe $id -o json | grep -c RUNNING)\" -gt 0 ]"
curl -sN --max-time 60 "http://$coxd_http/api/v1/tasks/$id/events?tokens=true" >"$scenario_dir/events" &
reader=$!
cox task logs -f "$id" 'say[1]' >"$scenario_dir/log" 2>&1 &
logs=$!
for i in 0 1 2; do
    check "item $i is seen while it is written" await 30 grep -q "one $i, " "$scenario_dir/events"
done
check "also as a log" await 30 grep -q "one 1, " "$scenario_dir/log"
curl -s "${url%/v1}/go" >"$scenario_dir/go"
wait "$reader" "$logs"
for i in 0 1 2; do
    check_equal "and then whole" "one $i, two." "$(python3 "$values_py" text "$scenario_dir/events" "say[$i]")"
done
check_equal "the log is the item's alone" "one 1, two." "$(cat "$scenario_dir/log")"
stop_coxd TERM
check "coxd ends in order" test $? = 0
finish
