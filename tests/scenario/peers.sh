#!/bin/bash
# Thousands of peers that are silent, slow, deaf, half gone or gone, on both ports at once. Meanwhile who behaves
# is served within bounds, memory stays within bounds, and afterwards everything they held is given back.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox python3 curl

if [ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 16000 ]; then
    skip peers "a process may have $(ulimit -Hn) descriptors here; 16,000 are needed"
    exit 0
fi
start_coxd
start_worker w1 --slots 4
rss() { awk -v what="$1" '$1 == what ":" { print int($2 / 1024) }' "/proc/$coxd_pid/status"; } # MiB
n_fds() { find "/proc/$coxd_pid/fd" -mindepth 1 | wc -l; }

# Something to watch, and something large to ask for.
python3 - >"$scenario_dir/watched.json" <<'PY'
import json
steps = {f"s{i}": {"wait": {"signal": f"s{i}"}} for i in range(200)}
print(json.dumps({"api_version": "v1", "name": "watched", "steps": steps}))
PY
cat >"$scenario_dir/big.json" <<'E2'
{"api_version": "v1", "name": "big", "outputs": {"o": "${{ steps.s.output }}"},
 "steps": {"s": {"run": {"argv": ["sh", "-c", "head -c 60000 /dev/zero | tr '\\0' x"], "output": "text"}}}}
E2
watched=$(cox task submit "$scenario_dir/watched.json" -o name)
big=$(cox task submit "$scenario_dir/big.json" -q --wait -o name)
cat >"$scenario_dir/small.json" <<E2
{"api_version": "v1", "name": "small", "steps": {"s": {"run": {"argv": ["true"]}}}}
E2
cox task get "$big" -o json | wc -c # 60,000 and more: every answer has it
fds_before=$(n_fds)
rss_before=$(rss VmRSS)

python3 "$scenario_root/tests/scenario/peers.py" "$coxd_grpc" "$coxd_http" "$watched" "$big" "$(rounds 10 90)" "$(rounds 1 3)" \
    >"$scenario_dir/peers.log" 2>&1 &
peers_pid=$!
at_exit+=('kill $peers_pid')
await 60 grep -q ready "$scenario_dir/peers.log" || not_ok "the crowd is there" "$scenario_dir/peers.log"

slowest_ms=0
n_served=0
n_refused=0
while kill -0 "$peers_pid" 2>/dev/null; do
    begin=${EPOCHREALTIME/./}
    cox task submit "$scenario_dir/small.json" --wait --timeout 30s -q >"$scenario_dir/normal.log" 2>&1 || n_refused=$((n_refused + 1))
    curl -sf --max-time 30 "http://$coxd_http/api/v1/workers" >>"$scenario_dir/normal.log" 2>&1 || n_refused=$((n_refused + 1))
    n_served=$((n_served + 1))
    took_ms=$(((${EPOCHREALTIME/./} - begin) / 1000))
    slowest_ms=$((took_ms > slowest_ms ? took_ms : slowest_ms))
    sleep 0.2
done
wait "$peers_pid"
check_equal "the crowd stayed to the end" 0 $?
sed 's/^/    /' "$scenario_dir/peers.log"
peak=$(rss VmHWM)
echo "$n_served rounds of a normal client, $n_refused calls refused, the slowest took $slowest_ms ms; resident $rss_before MiB before, $peak MiB at most"
check_equal "a client that behaves is served all the while" "0 refused" "$n_refused refused$([ "$n_served" -gt 0 ] || echo ", nobody asked")"
check "memory: at most 1 GiB" test "$peak" -le 1024
gone() { [ "$(n_fds)" -le $((fds_before + 10)) ]; }
check "what they held is given back" await 60 gone
cox task cancel "$watched" -q >"$scenario_dir/check.log" 2>&1
check "and the orchestrator goes on" cox task submit "$scenario_dir/small.json" --wait -q
finish
