# Helpers for scenario scripts: real programs on free loopback ports, stopped by process id, tidied up on exit.
#
#   #!/bin/bash
#   . "$(dirname "$0")/lib.sh"
#   start_coxd                         # data in $scenario_dir/data, sets COX_ADDRESS
#   start_worker w1 --slots 4
#   check "a task succeeds" cox task run docs/examples/diamond.yaml
#   finish
#
# Each check prints one line: "ok NAME", "not ok NAME" (with what the command said, indented, before it) or
# "skip NAME reason". `finish` exits 1 when a check failed. The build folder is $COX_BUILD (default: build in
# the root). COX_KEEP=1 keeps the scratch folder with its logs.

set -u

scenario_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
COX_BUILD=$(cd "${COX_BUILD:-$scenario_root/build}" 2>/dev/null && pwd || echo "${COX_BUILD:-build}")
scenario_dir=$(mktemp -d "${TMPDIR:-/tmp}/cox-scenario.XXXXXX")
scenario_checks=0
scenario_failed=0
coxd_pid=
coxd_grpc=127.0.0.1:0
coxd_http=127.0.0.1:0
declare -A worker_pids=()
at_exit=() # commands, run before anything else is tidied up
export NO_COLOR=1
unset COX_TOKEN

# The command line under test. `cox` in a check is this function, so no PATH is needed.
cox() { "$COX_BUILD/cox" "$@"; }

# ---- results --------------------------------------------------------------------------------------------

ok() {
    scenario_checks=$((scenario_checks + 1))
    echo "ok $1"
}

# not_ok NAME [FILE]: FILE holds what to show.
not_ok() {
    scenario_checks=$((scenario_checks + 1))
    scenario_failed=$((scenario_failed + 1))
    [ -n "${2:-}" ] && [ -s "$2" ] && tail -n 40 "$2" | sed 's/^/    /'
    echo "not ok $1"
}

skip() { echo "skip $1 ${2:-}"; }

# Ends the script as skipped when a program is not built (or not installed).
need_programs() {
    local p
    for p in "$@"; do
        if [ ! -x "$COX_BUILD/$p" ] && ! command -v "$p" >/dev/null; then
            skip "$(basename "$0" .sh)" "$p is not there"
            exit 0
        fi
    done
}

# is_sanitized: the programs watch their own memory, which takes several times as much of it.
is_sanitized() { nm "$COX_BUILD/coxd" 2>/dev/null | grep -E '__(asan|tsan)_init' >/dev/null; }

# check NAME COMMAND...: passes when the command exits 0.
check() {
    local name=$1
    shift
    if "$@" >"$scenario_dir/check.log" 2>&1; then ok "$name"; else not_ok "$name" "$scenario_dir/check.log"; fi
}

# check_exit NAME CODE COMMAND...: passes when the command exits with CODE. Its standard output and error are
# left in $scenario_dir/out and $scenario_dir/err.
check_exit() {
    local name=$1 want=$2 got=0
    shift 2
    "$@" >"$scenario_dir/out" 2>"$scenario_dir/err" </dev/null || got=$?
    if [ "$got" = "$want" ]; then
        ok "$name"
    else
        { echo "exit code $got, expected $want: $*"; cat "$scenario_dir/out" "$scenario_dir/err"; } \
            >"$scenario_dir/check.log"
        not_ok "$name" "$scenario_dir/check.log"
    fi
}

# check_equal NAME EXPECTED FOUND
check_equal() {
    printf 'expected: %s\nfound:    %s\n' "$2" "$3" >"$scenario_dir/check.log"
    if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$scenario_dir/check.log"; fi
}

# check_match NAME REGEX FILE: passes when a line of FILE matches (extended regular expression).
check_match() {
    if grep -Eq -- "$2" "$3"; then ok "$1"; else
        { echo "no line matches: $2"; cat "$3"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}

finish() {
    [ "$scenario_checks" -gt 0 ] || { echo "not ok $(basename "$0" .sh) checked nothing"; exit 1; }
    [ "$scenario_failed" = 0 ]
    exit
}

# ---- processes ------------------------------------------------------------------------------------------

# await_file FILE PID [SECONDS]: until FILE has a whole line; fails when PID ends first or time is up.
await_file() {
    local deadline=$((SECONDS + ${3:-120}))
    until [ -s "$1" ]; do
        kill -0 "$2" 2>/dev/null || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.02
    done
}

# await SECONDS COMMAND...: runs the command until it exits 0; fails when time is up.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.05
    done
}

# token NAME OPTION...: makes an identity: its row goes to tokens.yaml here, the token to NAME.token.
token() {
    local name=$1
    shift
    cox admin token "$name" "$@" 2>>tokens.yaml >"$name.token"
}

# json_string FILE KEY: a string of a flat JSON object of one line, as ready files are.
json_string() { sed -n "s/.*\"$2\" *: *\"\([^\"]*\)\".*/\1/p" "$1" | head -n 1; }

# start_coxd [FLAG...]: starts coxd on free ports, or on the ports it had before, so that clients and workers
# find it again after a restart. Log: $scenario_dir/coxd.log.
start_coxd() {
    local ready=$scenario_dir/coxd.ready
    rm -f "$ready"
    "$COX_BUILD/coxd" --data-dir "$scenario_dir/data" --grpc "$coxd_grpc" --http "$coxd_http" --ready-file "$ready" "$@" \
        >>"$scenario_dir/coxd.log" 2>&1 </dev/null &
    coxd_pid=$!
    if ! await_file "$ready" "$coxd_pid"; then
        not_ok "coxd starts" "$scenario_dir/coxd.log"
        exit 1
    fi
    coxd_grpc=$(json_string "$ready" grpc)
    coxd_http=$(json_string "$ready" http)
    export COX_ADDRESS=$coxd_grpc
}

# stop_process PID SIGNAL: sends and waits; its exit code. A stopped job is not announced by the shell.
stop_process() {
    kill "-$2" "$1" 2>/dev/null
    wait "$1" 2>/dev/null
}

stop_coxd() { # stop_coxd [SIGNAL], default TERM; its exit code
    local pid=$coxd_pid
    coxd_pid=
    [ -z "$pid" ] || stop_process "$pid" "${1:-TERM}"
}

# start_worker NAME [FLAG...]: starts a worker and waits until it has attached. Log: $scenario_dir/NAME.log.
start_worker() {
    local name=$1 ready=$scenario_dir/$1.ready
    shift
    rm -f "$ready"
    mkdir -p "$scenario_dir/$name.work"
    (cd "$scenario_dir/$name.work" &&
        exec "$COX_BUILD/cox-worker" --orchestrator "$COX_ADDRESS" --worker-id "$name" --ready-file "$ready" "$@") \
        >>"$scenario_dir/$name.log" 2>&1 </dev/null &
    worker_pids[$name]=$!
    if ! await_file "$ready" "${worker_pids[$name]}"; then
        not_ok "worker $name attaches" "$scenario_dir/$name.log"
        exit 1
    fi
}

stop_worker() { # stop_worker NAME [SIGNAL]
    local pid=${worker_pids[$1]:-}
    unset "worker_pids[$1]"
    [ -z "$pid" ] || stop_process "$pid" "${2:-TERM}"
}

scenario_cleanup() {
    local code=$? name command
    trap - EXIT
    for command in "${at_exit[@]}"; do eval "$command" 2>/dev/null; done
    for name in "${!worker_pids[@]}"; do stop_worker "$name" TERM; done
    stop_coxd TERM
    if [ -n "${COX_KEEP:-}" ]; then echo "kept $scenario_dir" >&2; else rm -rf "$scenario_dir"; fi
    exit "$code"
}
trap scenario_cleanup EXIT
trap 'exit 130' INT TERM
