#!/bin/bash
# One allocation of the orchestrator fails, early or late, under load: it leaves with code 75 (or gRPC or the C++ library
# below it aborts, or it goes on), and what it had acknowledged is there when it is started again.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-bench python3 tests/scenario/libfail-alloc.so

start_coxd
"$COX_BUILD/cox-bench" worker --orchestrator "$COX_ADDRESS" --id w1 --result-len 100 >"$scenario_dir/w1.log" 2>&1 &
worker_pids[w1]=$!
python3 "$load_py" chain >"$scenario_dir/chain.json"
start_load "$scenario_dir/chain.json" --in-flight 100
stop_coxd TERM

# run_short_of_memory K: coxd on the ports that clients know, until it ends or has lived through it; sets `code`.
run_short_of_memory() {
    local log=$scenario_dir/short.log
    LD_PRELOAD=$COX_BUILD/tests/scenario/libfail-alloc.so COX_FAIL_ALLOC=$1 \
        "$COX_BUILD/coxd" --data-dir "$scenario_dir/data" --grpc "$coxd_grpc" --http "$coxd_http" --checkpoint-bytes 256Ki \
        >"$log" 2>&1 </dev/null &
    coxd_pid=$!
    if ! await 30 grep -q 'an allocation fails' "$log"; then
        code=unmet
        stop_coxd KILL
    elif timeout 3 tail --pid="$coxd_pid" -f /dev/null; then
        code=0
        wait "$coxd_pid" || code=$?
        coxd_pid=
    else
        code=alive
        stop_coxd KILL
    fi
    cat "$log" >>"$scenario_dir/coxd.log"
}

declare -A codes=()
n=$(rounds 5 60)
for ((i = 1; i <= n; i++)); do
    # As many of the start, of the first moments and of later ones.
    k=$(((1 << (10 + RANDOM % 9)) + RANDOM % 1024))
    run_short_of_memory "$k"
    codes[$code]=$((${codes[$code]:-0} + 1))
    case $code in
        75 | 134 | alive | unmet) ;;
        # Before it serves it says why it cannot start, as of any other reason.
        1) grep -q 'cannot start.*out of memory' "$scenario_dir/short.log" || not_ok "allocation $k fails: exit code 1" "$scenario_dir/short.log" ;;
        *)
            tail -n 5 "$scenario_dir/short.log" >"$scenario_dir/check.log"
            not_ok "allocation $k fails: exit code $code" "$scenario_dir/check.log"
            ;;
    esac
done
for code in "${!codes[@]}"; do echo "$code: ${codes[$code]} times"; done
if [ "${codes[75]:-0}" -gt 0 ]; then ok "without memory it leaves with code 75"; else not_ok "without memory it leaves with code 75"; fi
start_coxd
await_load
check "every acknowledged chain has the right result" \
    python3 "$load_py" check-chains "$scenario_dir/acknowledged" "$scenario_dir/results"
tail -n 1 "$scenario_dir/check.log"
finish
