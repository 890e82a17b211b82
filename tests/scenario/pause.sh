#!/bin/bash
# SIGSTOP and SIGCONT of the orchestrator, of workers, of both, of clients and of a step, past every limit that
# judges silence. Rule 7: after a gap what was said meanwhile is heard before anybody is judged, so no step is
# taken from a worker that lives. Who is stopped alone for too long loses its steps, and may come back.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3

past_lost_s=9 # COX_LOST_MS, and a little
all() { for pid in "$coxd_pid" "${worker_pids[@]}"; do kill "-$1" "$pid"; done; }
# What is stopped cannot end: scenario_cleanup asks it to.
at_exit+=('all CONT')

log_lines() { grep -c "$1" "$scenario_dir/coxd.log"; }
start_slow() { # start_slow MS: sets slow
    python3 "$load_py" slow "$body" "$logs" "$1" >"$scenario_dir/slow.json"
    slow=$(cox task submit "$scenario_dir/slow.json" -o name)
    await 20 test -s "$logs/$slow.long" || not_ok "a slow step starts" "$scenario_dir/coxd.log"
}
note_judged() { judged=$(log_lines 'session closed'); }

# nobody_judged NAME: since note_judged no session was ended by the orchestrator, and the slow step ran once.
nobody_judged() {
    cox task watch "$slow" >"$scenario_dir/watch.log" 2>&1 || not_ok "$1: the slow step ends" "$scenario_dir/watch.log"
    check_equal "$1: nobody is taken for dead" "$judged" "$(log_lines 'session closed')"
    check "$1: a step that runs meanwhile is run once" python3 "$load_py" ran-once "$logs" "$slow" long
}

stopped_orchestrator() { # stopped_orchestrator NAME SECONDS
    start_slow $((($2 + 1) * 1000))
    note_judged
    kill -STOP "$coxd_pid"
    cox task get "$slow" --connect-timeout 1s >"$scenario_dir/get.log" 2>&1 &
    local gets=$! code=0
    sleep "$2"
    kill -0 "$gets" 2>/dev/null && not_ok "$1: a client gives up" "$scenario_dir/get.log"
    kill -CONT "$coxd_pid"
    wait "$gets" || code=$?
    check_equal "$1: a client that meets silence exits 5" 5 "$code"
    nobody_judged "$1"
}

# The whole host sleeps: workers wake after the orchestrator.
stopped_together() { # stopped_together NAME SECONDS
    start_slow $((($2 + 1) * 1000))
    note_judged
    all STOP
    sleep "$2"
    kill -CONT "$coxd_pid"
    sleep 1
    all CONT
    nobody_judged "$1"
}

stopped_worker() { # a worker alone: lost after 8 s, also past its own --orphan-timeout; and it comes back
    start_worker w3 --slots 1 --label kind=third --orphan-timeout 2s
    python3 "$load_py" slow "$body" "$logs" 3000 |
        python3 -c 'import json, sys; d = json.load(sys.stdin); d["steps"]["long"]["requires"] = "kind == third"; print(json.dumps(d))' \
            >"$scenario_dir/third.json"
    slow=$(cox task submit "$scenario_dir/third.json" -o name)
    await 20 test -s "$logs/$slow.long"
    local hung pid
    hung=$(cox task submit "$scenario_dir/hung.json" -o name)
    await 20 test -s "$scenario_dir/hung.pid"
    pid=$(cat "$scenario_dir/hung.pid")
    kill -STOP "$pid"
    cox task watch "$slow" >"$scenario_dir/watch.log" 2>&1 &
    local watch=$!
    kill -STOP "$watch" "${worker_pids[w3]}"
    await 30 grep -q 'session closed.*worker=w3.*silent' "$scenario_dir/coxd.log" || not_ok "a silent worker is given up" "$scenario_dir/coxd.log"
    check "its step has ended by itself meanwhile" grep -q '^end' "$logs/$slow.long"
    kill -CONT "${worker_pids[w3]}"
    check "a worker that comes back is given its step anew" await 20 grep -q '^start .* long 2 ' "$logs/$slow.long"
    kill -CONT "$watch"
    check "a client that was stopped sees the end" wait "$watch"
    check_equal "and the attempt that counts is the second" 2 "$(cox task output "$slow" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["long"]["attempt"])')"
    check_exit "a step that is stopped meets its time limit" 1 cox task watch "$hung"
    check_equal "and is gone" no "$(kill -0 "$pid" 2>/dev/null && echo yes || echo no)"
    stop_worker w3
}
cat >"$scenario_dir/hung.json" <<E2
{"api_version": "v1", "name": "hung", "steps": {"h": {"timeout": "2s", "run": {"argv": ["sh", "-c", "echo \$\$ >$scenario_dir/hung.pid; while :; do sleep 1; done"]}}}}
E2

start_coxd
for w in w1 w2; do start_worker "$w" --slots 4; done
put_load
start_load "$scenario_dir/load.json" --in-flight 8
stopped_orchestrator "the orchestrator, past 8 s" "$past_lost_s"
stopped_together "all, past 8 s" "$past_lost_s"
stopped_worker
if [ -n "${COX_TEST_LONG:-}" ]; then
    stopped_orchestrator "the orchestrator, past the keepalive of its peers" 45
    stopped_together "all, past the adoption window" 65
    # Just recovered, and stopped before its workers are back, for longer than it would wait for them.
    start_slow 90000
    stop_coxd KILL
    note_judged
    start_coxd
    kill -STOP "$coxd_pid"
    sleep 65
    kill -CONT "$coxd_pid"
    nobody_judged "the orchestrator, through its adoption window"
    for ((i = 1; i <= 100; i++)); do
        victims=("$coxd_pid" "${worker_pids[@]}")
        victim=${victims[RANDOM % 3]}
        kill -STOP "$victim"
        random_moment
        kill -CONT "$victim"
        random_moment
    done
    ok "stopped $i times for moments"
fi
await_load
check_load
finish
