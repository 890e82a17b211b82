#!/bin/bash
# Model calls and the end of coxd: SIGTERM lets those under way end, of clients, of steps and of steps' processes, and begins no more;
# a second one does not wait; neither does the first for longer than --drain-timeout. And the other end: no process has a model called
# before its promise is durable.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox cox-worker cox-modelsim python3 curl
cd "$scenario_dir" || exit 1

"$COX_BUILD/cox-modelsim" --ready-file sim.json --speed 0.25 --max-num-seqs 64 >sim.log 2>&1 </dev/null &
at_exit+=("kill $!")
await_file sim.json $! || { not_ok "the simulator starts" sim.log; exit 1; }
admin=$(json_string sim.json admin)
url=$(grep -o 'http://[^"]*/v1' sim.json)
sim() { python3 "$scenario_root/tests/scenario/model_steps.py" sim "$admin" "$1" >/dev/null; }
status_of() { curl -s -m 20 -o body -w '%{http_code}' "$@"; }
stream() { # stream FILE TOKENS
    curl -sN -m 120 "http://$coxd_http/v1/chat/completions" -H 'Content-Type: application/json' -d "{\"model\": \"m\", \"stream\": true, \
\"max_tokens\": $2, \"ignore_eos\": true, \"messages\": [{\"role\": \"user\", \"content\": \"go on\"}]}" >"$1" 2>/dev/null
}

cat >step.yaml <<'YAML'
api_version: v1
name: step
steps:
  s: {model: {model: m, input: "Tell me a story.", max_tokens: 120}}
YAML
cat >process.yaml <<'YAML'
api_version: v1
name: process
steps:
  s:
    run:
      argv:
        - python3
        - -c
        - |
          import json, os, urllib.request
          body = {"model": "m", "max_tokens": 120, "ignore_eos": True, "messages": [{"role": "user", "content": "x"}]}
          headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
          request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), headers)
          json.load(urllib.request.urlopen(request))
YAML

# ---- what is under way ends ----

start_coxd --model "m=$url"
start_worker w1 --slots 4
first_http=$coxd_http
step=$(cox task submit step.yaml -o name)
process=$(cox task submit process.yaml -o name)
stream long 400 &
curl_pid=$!
check "a client, a step and a step's process call" await 60 sim "in_flight == 3"
kill -TERM "$coxd_pid"
draining() { [ "$(status_of "http://$first_http/readyz")" = 503 ]; }
check "from SIGTERM on it is not ready" await 20 draining
check_equal "and takes no calls" 503 "$(status_of "http://$first_http/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"model": "m", "messages": [{"role": "user", "content": "x"}]}')"
check_match "and says why" 'stopping' body
check "while those under way go on" kill -0 "$curl_pid"
wait "$curl_pid"
check_equal "the client's ends" 0 $?
check_match "with its whole answer" 'data: \[DONE\]' long
pid=$coxd_pid
coxd_pid=
wait "$pid"
check_equal "then coxd has stopped in order" 0 $?
check "nobody was cut off" sim "answered == 3 and cancelled == 0"

start_coxd --model "m=$url"
check "the step has succeeded" cox task watch "$step"
check "and the process" cox task watch "$process"
check "without another call" sim "calls == 3"
for task in "$step" "$process"; do
    cox task get "$task" -o json >task.json
    check "its use is known, to the token" python3 "$scenario_root/tests/scenario/model_steps.py" usage task.json \
        "model_calls == 1 and output_tokens > 0 and wasted_tokens == 0"
done

# ---- a second signal, and the limit ----

stream cut 100000 &
curl_pid=$!
check "a call without an end is under way" await 60 sim "in_flight == 1"
kill -TERM "$coxd_pid"
first_http=$coxd_http
check "it drains" await 20 draining
kill -TERM "$coxd_pid"
wait "$coxd_pid"
check_equal "a second signal does not wait" 143 $?
coxd_pid=
wait "$curl_pid"
check "its call is cancelled" await 60 sim "in_flight == 0"

start_coxd --model "m=$url" --drain-timeout 1s
stream cut 100000 &
curl_pid=$!
check "another one" await 60 sim "in_flight == 1"
stop_coxd TERM
check_equal "is not waited for longer than --drain-timeout" 0 $?
check_match "which is said" 'model calls are cut off' coxd.log
wait "$curl_pid"
check "and it is cancelled" await 60 sim "in_flight == 0"

# ---- promises ----

preload=$COX_BUILD/tests/scenario/libhold-sync.so
if is_sanitized || [ ! -e "$preload" ]; then
    skip "promises are durable" "nothing can be preloaded here"
    finish
fi
sed "s|import json, os, urllib.request|import json, os, time, urllib.request; open(\"$scenario_dir/runs\", \"w\")\n          while not os.path.exists(\"$scenario_dir/go\"): time.sleep(0.01)|; s|: 120|: 4|" \
    process.yaml >waits.yaml
export HOLD_SYNC=$scenario_dir/hold
LD_PRELOAD=$preload start_coxd --model "m=$url"
curl -s -X POST "$admin/sim/reset" >reset.json
process=$(cox task submit waits.yaml -o name)
check "a step's process runs" await 60 test -e runs
running() { cox task get "$process" -o json | grep -q '"RUNNING"'; }
check "and the orchestrator knows" await 60 running
mkfifo hold
touch go
check "it calls, and that is to become durable" await 60 test -e hold.held
check_equal "a client's call is answered meanwhile" 200 "$(status_of "http://$coxd_http/v1/chat/completions" \
    -H 'Content-Type: application/json' -d '{"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "x"}]}')"
check "the process's has not begun" python3 "$scenario_root/tests/scenario/model_steps.py" sim "$admin" "calls == 1 and in_flight == 0"
exec 9<>hold # whoever waits goes on
rm hold
check "once it is durable it is" cox task watch "$process"
check "once" sim "calls == 2 and answered == 2"
stop_coxd TERM
check_equal "and coxd stops in order" 0 $?
finish
