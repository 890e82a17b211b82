#!/bin/bash
# A client and a worker with none of our code, made of proto/ by npm's @grpc/grpc-js; then peers that break the
# protocol. The two packages are installed beside the tree, in COX_INTEROP_CACHE (default: ~/.cache/coxswain),
# as package-lock.json pins them.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd node npm
here=$scenario_root/tests/interop

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
COX_INTEROP_MODULES=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/grpc-js-$lock
export COX_INTEROP_MODULES
if [ ! -e "$COX_INTEROP_MODULES/installed" ]; then
    mkdir -p "$COX_INTEROP_MODULES"
    cp "$here/package.json" "$here/package-lock.json" "$COX_INTEROP_MODULES"
    if ! (cd "$COX_INTEROP_MODULES" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund) \
        >"$scenario_dir/npm.log" 2>&1; then
        skip grpc-js "npm cannot install @grpc/grpc-js here"
        exit 0
    fi
    touch "$COX_INTEROP_MODULES/installed"
fi

# tests_of PROGRAM: its lines are results of tests.
tests_of() {
    local line
    node "$here/$1" >"$scenario_dir/$1.out" 2>&1 </dev/null
    echo $? >"$scenario_dir/$1.code"
    while IFS= read -r line; do
        case $line in
            "ok "*) ok "${line#ok }" ;;
            "not ok "*) not_ok "${line#not ok }" ;;
            *) echo "    $line" ;;
        esac
    done <"$scenario_dir/$1.out"
    check_match "$1 went through" '^[01]$' "$scenario_dir/$1.code"
}

start_coxd
node "$here/worker.mjs" >"$scenario_dir/worker.log" 2>&1 </dev/null &
worker_pids[js]=$!
await_file "$scenario_dir/worker.log" "${worker_pids[js]}" || not_ok "a worker attaches" "$scenario_dir/worker.log"

tests_of user.mjs
tests_of abuse.mjs
check "the other worker did not notice" kill -0 "${worker_pids[js]}"
check "coxd is still the same" kill -0 "$coxd_pid"
stop_coxd TERM
check_equal "and stops in order" 0 $?
finish
