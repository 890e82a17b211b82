#!/bin/bash
# The orchestrator is killed under 5,000 simulated workers (1,000 in a plain run), each with a stream of its own and
# a step that runs, and under as many who watch. All come back at once; every worker keeps its step, every watcher is told again.
. "$(dirname "$0")/load.sh"
need_programs coxd cox cox-bench python3

n_workers=$(rounds 1000 5000)
n_watchers=$(rounds 800 4000) # over gRPC, and
n_readers=$(rounds 200 1000)  # of events over HTTP
crew=$scenario_dir/crew.log
watchers=$scenario_dir/watchers.log
status_mib() { awk -v what="$1" '$1 == what ":" { print int($2 / 1024) }' "/proc/$coxd_pid/status"; }
# said FILE PATTERN N: so many lines of it
said() { [ "$(grep -c "$2" "$1")" -ge "$3" ]; }

ulimit -n "$(ulimit -Hn)"
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt 16000 ]; then
    skip reconnect "a process may have $(ulimit -n) descriptors here; 16,000 are needed"
    exit 0
fi
start_coxd
"$COX_BUILD/cox-bench" crew --addr "$COX_ADDRESS" --workers "$n_workers" >"$crew" 2>"$scenario_dir/crew.err" &
worker_pids[crew]=$!
check "$n_workers simulated workers attach" await 240 said "$crew" attached 1
python3 -c "
import json
print(json.dumps({'api_version': 'v1', 'name': 'crew', 'steps': {f's{i}': {'uses': 'noop@1'} for i in range($n_workers)}}))" \
    >"$scenario_dir/crew.json"
task=$(cox task submit "$scenario_dir/crew.json" -o name)
check "each is given a step" await 60 said "$crew" begun 1
cat >"$scenario_dir/waits.json" <<'E2'
{"api_version": "v1", "name": "waits", "steps": {"w": {"wait": {"signal": "go"}}}}
E2
watched=$(cox task submit "$scenario_dir/waits.json" -o name)
mkfifo "$scenario_dir/stdin"
python3 "$scenario_root/tests/scenario/watchers.py" "$coxd_grpc" "$coxd_http" "$watched" "$n_watchers" "$n_readers" \
    <"$scenario_dir/stdin" >"$watchers" 2>&1 &
exec 3>"$scenario_dir/stdin"
check "$((n_watchers + n_readers)) watch" await 240 said "$watchers" told 1

n=$(rounds 1 10)
for ((i = 1; i <= n; i++)); do
    begin=${EPOCHREALTIME/./}
    stop_coxd KILL
    start_coxd
    echo "recovered and serving $(((${EPOCHREALTIME/./} - begin) / 1000)) ms after the kill"
    await 240 said "$crew" attached $((i + 1)) || not_ok "all workers come back" "$crew"
    await 240 said "$watchers" told $((i + 1)) || not_ok "all watchers come back" "$watchers"
done
ok "killed $n times, and all back each time"
echo "workers: $(tail -n 1 "$crew"); watchers: $(tail -n 1 "$watchers")"
echo "coxd resident: $(status_mib VmRSS) MiB, at most $(status_mib VmHWM) MiB"
check "memory: at most 1 GiB" test "$(status_mib VmHWM)" -le 1024
kill -USR1 "${worker_pids[crew]}" # their steps end
check "every step ends" cox task watch "$task" -q --connect-timeout 60s
stop_worker crew
check_equal "and none was given twice" "{\"begun\":$n_workers,\"left\":true}" "$(tail -n 1 "$crew")"
check_equal "nobody was given up" 0 "$(grep -c 'session closed' "$scenario_dir/coxd.log")"
exec 3>&-
finish
