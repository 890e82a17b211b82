#!/bin/bash
# Model steps of tasks, from the document to a simulated inference server and back: an answer is the output; a
# call is made elsewhere when an endpoint fails; a cancel frees the endpoints at once; kill -9 of coxd in the
# middle of a call; everybody who watches sees the same text; who is a worker and who is not.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox cox-modelsim python3

steps_py=$(dirname "$0")/model_steps.py
ask() { python3 "$steps_py" "$@"; }

"$COX_BUILD/cox-modelsim" --endpoints 2 --ready-file "$scenario_dir/sim.ready" >"$scenario_dir/sim.log" 2>&1 </dev/null &
sim_pid=$!
at_exit+=("stop_process $sim_pid TERM")
await_file "$scenario_dir/sim.ready" "$sim_pid" || { not_ok "the simulated server starts" "$scenario_dir/sim.log"; exit 1; }
admin=$(json_string "$scenario_dir/sim.ready" admin)
urls=$(python3 -c 'import json, sys; print(",".join(json.load(sys.stdin)["endpoints"]))' <"$scenario_dir/sim.ready")

start() { start_coxd --model "default=$urls"; }
start

# submit NAME INPUT MAX_TOKENS [MORE]: a task of one model step, `say`; its id.
submit() {
    printf '{"api_version":"v1","name":"%s","steps":{"say":{"model":{"input":"%s","max_tokens":%s}%s}},"outputs":{"text":"${{ steps.say.output.content }}"}}' \
        "$1" "$2" "$3" "${4:-}" >"$scenario_dir/$1.json"
    cox task submit "$scenario_dir/$1.json" -o name | sed 's,^task/,,'
}
output() { cox task output "$1" | python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)["text"])'; }
watched() { cox task watch "$1" >"$scenario_dir/watch.log" 2>&1; }

# ---- an answer -------------------------------------------------------------------------------------------

id=$(submit hello "Tell me something." 30)
check "a model step succeeds without any worker" watched "$id"
cox task output "$id" say >"$scenario_dir/said.json"
check "and its answer is its output" python3 - "$scenario_dir/said.json" <<'E2'
import json, sys
said = json.load(open(sys.argv[1]))
assert said["content"] and said["finish_reason"] in ("stop", "length") and said["model"] == "default", said
assert said["usage"]["input_tokens"] > 0 and 0 < said["usage"]["output_tokens"] <= 30, said
E2
check "the endpoint was asked once" ask sim "$admin" "calls == 1 and answered == 1 and in_flight == 0"
cox task get "$id" -o json >"$scenario_dir/get.json"
check "and its task was charged for that" ask usage "$scenario_dir/get.json" \
    "model_calls == 1 and input_tokens > 0 and 0 < output_tokens <= 30 and wasted_tokens == 0"
check_equal "the router is no worker to people" 0 "$(cox worker list -o name | wc -l)"
check_exit "nor to be drained" 2 cox worker drain router
check_exit "nor to be cordoned" 2 cox worker cordon router
check_match "but told what to do instead" 'SIGHUP, or pause' "$scenario_dir/err"
"$COX_BUILD/cox-worker" --orchestrator "$COX_ADDRESS" --worker-id router --work-dir "$scenario_dir/w" --idle-exit 200ms \
    >"$scenario_dir/false.log" 2>&1 </dev/null
check_match "and nobody attaches in its name" 'worker_id.*own' "$scenario_dir/false.log"

# ---- elsewhere -------------------------------------------------------------------------------------------

ask faults "$admin" '{"endpoint": 0, "error_500": 1}'
for i in 1 2 3 4 5 6; do ids[i]=$(submit "retry$i" "Say $i." 10); done
all_succeed() { for id in "${ids[@]}"; do watched "$id" || return 1; done; }
check "an endpoint that fails is gone around" all_succeed
check "though it was asked" ask sim "$admin" "endpoints[0]['faulted'] > 0"
ask faults "$admin" '{"endpoint": 0, "reset": true}'

# ---- watching --------------------------------------------------------------------------------------------

ask faults "$admin" '{"slow": 20}' # until all of them read
id=$(submit story "Tell me a long story." 250)
cox task logs -f "$id" say >"$scenario_dir/one" 2>&1 &
one=$!
ask events "$coxd_http" "$id" "$scenario_dir/events" &
two=$!
await 30 test -s "$scenario_dir/one"
cox task logs -f "$id" say >"$scenario_dir/three" 2>&1 &
three=$!
await 30 test -s "$scenario_dir/three"
await 30 grep -q "^event: token" "$scenario_dir/events"
check "the text is there before the answer is" test "$(cox task get "$id" -o json | python3 -c "import json,sys; print(json.load(sys.stdin)[\"status\"])")" = RUNNING
ask faults "$admin" '{"reset": true}'
wait "$one" "$two" "$three"
output "$id" >"$scenario_dir/whole"
ask text "$scenario_dir/events" say >"$scenario_dir/two"
cox task logs "$id" say >"$scenario_dir/late"
for who in one two three late; do
    check "reader $who has the whole text, once" cmp "$scenario_dir/$who" "$scenario_dir/whole"
done

# ---- cancelling ------------------------------------------------------------------------------------------

python3 - >"$scenario_dir/many.json" <<'E2'
import json
step = {"map": {"over": list(range(1000))}, "model": {"input": "${{ item }}", "max_tokens": 2000}}
print(json.dumps({"api_version": "v1", "name": "many", "steps": {"say": step}}))
E2
id=$(cox task submit "$scenario_dir/many.json" -o name | sed 's,^task/,,')
check "1,000 calls fill the endpoints" await 60 ask sim "$admin" "in_flight >= 100"
check "a cancel ends them" cox task cancel "$id"
check "and the endpoints are free" await 30 ask sim "$admin" "in_flight == 0 and cancelled >= 100"
check "for others" watched "$(submit after "Still there?" 10)"

# ---- kill -9 ---------------------------------------------------------------------------------------------

await 30 ask sim "$admin" "in_flight == 0"
curl_reset() { python3 -c 'import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], data=b""), timeout=30)' "$admin/sim/reset"; }
curl_reset
id=$(submit killed "Tell me the longest story." 300)
await 30 ask sim "$admin" "in_flight == 1"
stop_coxd KILL
start
check "a call that was under way at a kill -9 is made again" watched "$id"
check "once: two calls, one answer" ask sim "$admin" "calls == 2 and answered == 1 and cancelled == 1"
check "and its step has its answer" test -n "$(output "$id")"

cox task get "$id" -o json >"$scenario_dir/get.json"
check "the lost call counts as wasted, the other once" ask usage "$scenario_dir/get.json" \
    "wasted_tokens > 0 and model_calls <= 2 and output_tokens <= 300"

# ---- SIGTERM ---------------------------------------------------------------------------------------------

ask faults "$admin" '{"slow": 100}' # what ends within a second is let end
id=$(submit stopped "Tell me the longest story, again." 600)
await 30 ask sim "$admin" "in_flight == 1"
stop_coxd TERM
check "coxd ends in order in the middle of a call" test $? = 0
check "which is given up" await 5 ask sim "$admin" "in_flight == 0"
ask faults "$admin" '{"reset": true}'
start
check "and made again" watched "$id"
cox task describe "$id" -o json >"$scenario_dir/describe.json"
check "the first is told as PREEMPTED, and as wasted" python3 - "$scenario_dir/describe.json" <<'E2'
import json, sys
task = json.load(open(sys.argv[1]))
attempts = task["steps"][0]["attempts"]
assert [a["status"] for a in attempts] == ["FAILED", "SUCCEEDED"] and attempts[0]["error"]["code"] == "PREEMPTED", attempts
usage = task["task"]["usage"] if "task" in task else task["usage"]
assert usage["wasted_tokens"] > 0, usage
E2

# ---- budgets ---------------------------------------------------------------------------------------------

cat >"$scenario_dir/budget.json" <<'E2'
{"api_version": "v1", "name": "budget", "budget": {"tokens": 30}, "steps": {
  "one": {"model": {"input": "Say something.", "max_tokens": 50}},
  "two": {"model": {"input": "And more: ${{ steps.one.output.content }}", "max_tokens": 50}}}}
E2
check_exit "a task that has used its tokens up begins no call more" 1 cox task run "$scenario_dir/budget.json"
check_match "and says so" BUDGET_EXHAUSTED "$scenario_dir/err"

start_worker w1
cat >"$scenario_dir/spend.py" <<'E2'
import json, os, urllib.error, urllib.request
codes = []
for _ in range(2):
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions",
                                     json.dumps({"model": "default", "max_tokens": 40, "messages": [{"role": "user", "content": "Say something."}]}).encode(),
                                     {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    try:
        codes.append(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        codes.append(error.code)
print(codes)
E2
printf '{"api_version": "v1", "name": "spend", "budget": {"tokens": 30}, "steps": {"go": {"run": {"argv": ["/usr/bin/python3", "%s"]}}}, "outputs": {"codes": "${{ steps.go.output.stdout }}"}}' \
    "$scenario_dir/spend.py" >"$scenario_dir/spend.json"
check_exit "a step's process may call models" 0 cox task run "$scenario_dir/spend.json"
check_match "until its task has used its tokens up" '\[200, 429\]' "$scenario_dir/out"

stop_coxd TERM
check "coxd ends in order" test $? = 0

# ---- recorded, and played back ---------------------------------------------------------------------------

mkdir "$scenario_dir/project"
dev() { timeout 60 "$COX_BUILD/cox" dev "$scenario_dir/project" --no-context --once "cox task run -q '$scenario_dir/hello.json'" "$@"; }
check_exit "cox dev has a model, though a simulated one" 0 dev --record "$scenario_dir/calls"
check_match "and says that it is" SIMULATED "$scenario_dir/err"
cp "$scenario_dir/out" "$scenario_dir/recorded"
check_exit "what was recorded is played back without any model" 0 dev --replay "$scenario_dir/calls"
check "and the same comes out" cmp "$scenario_dir/recorded" "$scenario_dir/out"
sed -i 's/Tell me something/Tell me anything/' "$scenario_dir/hello.json"
check_exit "a call that was not recorded fails" 1 dev --replay "$scenario_dir/calls"
check_match "and names the message" 'messages\[0\] differs: recorded is .*something.*asked .*anything' "$scenario_dir/err"
finish
