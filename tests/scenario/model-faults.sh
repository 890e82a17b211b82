#!/bin/bash
# Servers of models that fail, hang, lie, are slow and go away, with coxd before them: no call is lost, none is answered or
# charged twice, nobody has more than it takes; who leaves frees a server at once; a reload drops nothing. What the servers
# (cox-modelsim) saw is told by themselves. COX_SEED repeats a run.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox cox-worker cox-modelsim python3 curl
here=$scenario_root/tests/scenario
in_flight_max=6
ulimit -n "$(ulimit -Hn)"

# results FILE: the lines of model_faults.py
results() {
    local line
    while IFS= read -r line; do
        case $line in
            "ok "*) ok "${line#ok }" ;;
            "not ok "*) not_ok "${line#not ok }" ;;
            *) echo "    $line" ;;
        esac
    done <"$1"
    check_match "model_faults.py tells of something" '^(ok|not ok) ' "$1"
    ! grep -q '^Traceback' "$1" || not_ok "model_faults.py runs to its end" "$1"
}

# faults MODE ARGUMENT...
faults() {
    python3 "$here/model_faults.py" "$1" "http://$coxd_http" "$sim" "${@:2}" ${COX_SEED:+--seed "$COX_SEED"} >"$scenario_dir/$1.out" 2>&1 </dev/null
    results "$scenario_dir/$1.out"
}

# simulate NAME FLAG...: servers; sets sim, their admin URL, and endpoints
simulate() {
    "$COX_BUILD/cox-modelsim" --ready-file "$scenario_dir/$1.json" "${@:2}" >"$scenario_dir/$1.log" 2>&1 </dev/null &
    at_exit+=("kill $!")
    await_file "$scenario_dir/$1.json" $! || not_ok "the simulator starts" "$scenario_dir/$1.log"
    sim=$(json_string "$scenario_dir/$1.json" admin)
    mapfile -t endpoints < <(grep -o 'http://[^"]*/v1' "$scenario_dir/$1.json")
}

simulate sick --endpoints 42 --speed 10
# model NAME MAX URL...: a model of coxd's file, whose servers take MAX calls at once
model() {
    printf '  - name: %s\n    price: {input: 1, output: 4, currency: USD}\n    endpoints:\n' "$1"
    printf "      - {url: '%s', max_in_flight: $2}\n" "${@:3}"
}

{
    echo "models:"
    for ((i = 0; i < ${#endpoints[@]} / 3; i++)); do
        model "m$i" "$in_flight_max" "${endpoints[@]:3 * i:3}"
    done
} >"$scenario_dir/coxd.yaml"
start_coxd --config "$scenario_dir/coxd.yaml"
faults faults "$in_flight_max"
stop_coxd TERM

# ---- leaving, and other servers while calls are under way ----

# Slow, and streams without an end: however long it takes to begin 400 of them here, none is over by then, and what they say
# meanwhile is little.
simulate large --endpoints 3 --max-num-seqs 2000 --kv-tokens 80000000 --speed 0.25
{ echo "models:" && model small 2000 "${endpoints[@]:0:3}"; } >"$scenario_dir/coxd.yaml"
start_coxd --config "$scenario_dir/coxd.yaml"
faults cancel 400

{ echo "models:" && model small 64 "${endpoints[@]:0:2}"; } >"$scenario_dir/coxd.yaml"
kill -HUP "$coxd_pid"
check "the servers of a model are read again" await 30 grep -q "read the configuration again" "$scenario_dir/coxd.log"
python3 "$here/model_faults.py" hold "http://$coxd_http" "$sim" 40 600 >"$scenario_dir/hold.out" 2>&1 </dev/null &
hold_pid=$!
check "forty streams begin" await 60 grep -q '^begun' "$scenario_dir/hold.out"
{ echo "models:" && model small 64 "${endpoints[2]}"; } >"$scenario_dir/coxd.yaml"
kill -HUP "$coxd_pid"
calls_of() { curl -s "$sim/sim/state" | python3 -c "import json,sys; print(json.load(sys.stdin)['endpoints'][$1]['calls'])"; }
before=$(calls_of 2)
ask() { curl -sf "http://$coxd_http/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model":"small","max_tokens":2,"messages":[{"role":"user","content":"x"}]}'; }
reaches_the_third() { ask && [ "$(calls_of 2)" -gt "$before" ]; }
check "new calls go to the new server" await 30 reaches_the_third
wait "$hold_pid"
results "$scenario_dir/hold.out"

# ---- an attempt that is not current any more: its worker has stopped, and holds the connection of its call ----

cat >"$scenario_dir/stream.yaml" <<'YAML'
api_version: v1
name: stream
steps:
  s:
    run:
      argv:
        - python3
        - -c
        - |
          import json, os, urllib.request
          body = {"model": "small", "stream": True, "max_tokens": 100000, "ignore_eos": True, "messages": [{"role": "user", "content": "x"}]}
          headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
          for line in urllib.request.urlopen(urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), headers)):
              pass
YAML
start_worker w1 --slots 1
in_flight() { [ "$(curl -s "$sim/sim/state" | python3 -c 'import json,sys; print(json.load(sys.stdin)["in_flight"])')" = "$1" ]; }
stream=$(cox task submit "$scenario_dir/stream.yaml" -o name)
check "a step's process calls a model" await 60 in_flight 1
kill -STOP "${worker_pids[w1]}"
check "its call ends when its worker is given up, though that holds the connection" await 60 in_flight 0
kill -CONT "${worker_pids[w1]}"
check "the step is run again, and calls again" await 60 in_flight 1
cox task cancel "$stream" >/dev/null 2>&1
check "and ends with its task" await 60 in_flight 0
cox task get "$stream" -o json >"$scenario_dir/task.json"
check_match "what was given up is the task's waste" '"wasted_tokens": *"?[1-9]' "$scenario_dir/task.json"
stop_coxd TERM
check_equal "coxd stops in order" 0 $?
finish
