# shellcheck shell=bash
# Sourced by kill-*.sh and disk-full.sh: a client that keeps tasks under way and a list of what was acknowledged;
# and the check of all of them in the end.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

body=$COX_BUILD/tests/scenario/step-body
logs=$scenario_dir/logs
load_py=$scenario_root/tests/scenario/load.py
load_pid=
mkdir -p "$logs"
RANDOM=${COX_SEED:-$$}
echo "seed ${COX_SEED:-$$} (COX_SEED)"

# rounds SHORT LONG: how many rounds to go.
rounds() { if [ -n "${COX_TEST_LONG:-}" ]; then echo "$2"; else echo "$1"; fi; }

# A moment between two kills. It is random on purpose: there is no event to wait for.
random_moment() { sleep "0.$((RANDOM % 8 + 1))$((RANDOM % 10))"; }

start_load() { # start_load DOCUMENT [OPTION...]
    local document=$1
    shift
    "$COX_BUILD/cox-bench" submit --addr "$COX_ADDRESS" --document "$document" --list "$scenario_dir/acknowledged" \
        "$@" 2>"$scenario_dir/load.log" &
    load_pid=$!
    at_exit+=("kill -KILL $load_pid")
    await 20 test -s "$scenario_dir/acknowledged" || { not_ok "a client submits" "$scenario_dir/load.log"; exit 1; }
}

# The client ends what it has under way; then every task it was promised is read again, into results.
await_load() {
    kill -TERM "$load_pid"
    check "the client gets every result" wait "$load_pid"
    tail -n 1 "$scenario_dir/load.log"
    read_acknowledged
}

read_acknowledged() {
    cut -d ' ' -f 2 "$scenario_dir/acknowledged" |
        "$COX_BUILD/cox-bench" await --addr "$COX_ADDRESS" >"$scenario_dir/results"
}

put_load() { python3 "$load_py" document "$body" "$logs" >"$scenario_dir/load.json"; }

check_load() {
    check "every acknowledged task has the right result" \
        python3 "$load_py" check "$scenario_dir/acknowledged" "$scenario_dir/results" "$logs"
    tail -n 1 "$scenario_dir/check.log"
}
