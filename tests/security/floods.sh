#!/bin/bash
# Connections that ask for nothing and make work: each kind of flood is ended, and meanwhile a client that has come before
# goes on as if nothing were, and one that comes then is let in. Memory stays where it was.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox python3
if ! /usr/bin/python3 -c "import grpc" 2>/dev/null; then
    skip floods "Python's grpc is not here"
    exit 0
fi

start_coxd
memory_mib() { awk '/VmHWM/ { print int($2 / 1024) }' "/proc/$coxd_pid/status"; }

security=$scenario_root/tests/security
# served NAME COMMAND...: what a client saw that was there before, while the command ran. Fails when a call of its one connection did.
# The client's port is $victim: grpc or http.
victim=grpc
served() {
    local name=$1 pid address=$coxd_grpc
    shift
    [ "$victim" = grpc ] || address=$coxd_http
    rm -f "$scenario_dir/stop" "$scenario_dir/$name"
    /usr/bin/python3 "$security/victim.py" "$victim" "$address" "$scenario_dir/stop" >"$scenario_dir/$name" 2>&1 &
    pid=$!
    await_file "$scenario_dir/$name" "$pid"
    "$@"
    touch "$scenario_dir/stop"
    wait "$pid"
    grep -q ' 0 failed' "$scenario_dir/$name"
}
flood() { python3 "$security/floods.py" "$1" "$coxd_grpc" 4 "$seconds" >"$scenario_dir/flood" 2>&1; }

seconds=$([ -n "${COX_TEST_LONG:-}" ] && echo 10 || echo 1.2)
check "control: a client alone is served" served alone sleep "$seconds"
echo "alone: $(tail -n 1 "$scenario_dir/alone")"
before=$(memory_mib)
# ---- connections that never say anything whole ----

ulimit -n "$(ulimit -Hn)"
n_slow=$([ -n "${COX_TEST_LONG:-}" ] && echo 5000 || echo 1500) # there is room for 1,024
slow() { python3 "$security/slowloris.py" "$1" "$2" "$n_slow" "$seconds" >"$scenario_dir/slow" 2>&1; }
slowly() { # PORT KIND: the port of a client and what the slow ones say
    local upon=$coxd_http
    victim=$1
    [ "$2" = h2 ] && upon=$coxd_grpc
    check "$n_slow slow connections ($2): the connection of a client of $victim is not ended" served "slow-$2-$1" slow "$2" "$upon"
    echo "slow $2, $1: $(tail -n 1 "$scenario_dir/slow-$2-$1"); $(tail -n 1 "$scenario_dir/slow")"
}
one_more() { curl -sS -m 20 -o "$scenario_dir/answer" "http://$coxd_http/healthz"; }
for kind in http body; do
    slowly http $kind
    check_match "and slow ones are" ' [1-9][0-9]* came back$' "$scenario_dir/slow"
done
slowly grpc http
slowly grpc h2
python3 "$security/slowloris.py" http "$coxd_http" "$n_slow" 30 >"$scenario_dir/slow" 2>&1 &
slow_pid=$!
await_file "$scenario_dir/slow" "$slow_pid"
check "$n_slow slow connections: one that comes then is served" one_more
kill "$slow_pid"
wait "$slow_pid" 2>/dev/null

# ---- connections that only make work ----

victim=grpc
for kind in reset ping settings continuation headers empty priority; do
    check "$kind: a client that was there before is served" served "$kind" flood "$kind"
    echo "$kind: $(tail -n 1 "$scenario_dir/$kind"); $(tail -n 1 "$scenario_dir/flood")"
    check_match "$kind: expected connections to be ended" ' [1-9][0-9]* cut$' "$scenario_dir/flood"
    check "$kind: one that comes then is let in" timeout 30 "$COX_BUILD/cox" task list -q
done
# What costs its sender as much as us is borne.
check "control: window updates: a client is served" served window flood window
check_match "control: window updates are use, not a flood: expected no connection to be ended" ' 0 cut$' "$scenario_dir/flood"
echo "memory: $before MiB before, $(memory_mib) MiB at most"
check "control: 4,000 pings of a client that is given an answer for each are use" python3 "$security/prober.py" "$coxd_grpc" 4000
is_sanitized || check "memory: at most 128 MiB more" test "$(memory_mib)" -le $((before + 128))
check_match "the log names the address" 'ended a connection that asks for nothing.*127.0.0.1' "$scenario_dir/coxd.log"
finish
