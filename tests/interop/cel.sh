#!/bin/bash
# Expressions of tasks against npm's @marcbachmann/cel-js, an implementation of CEL with none of our code: the
# same values and the same refusals over generated cases. It is installed beside the tree, in COX_INTEROP_CACHE
# (default: ~/.cache/coxswain), as cel/package-lock.json pins it. COX_CEL_SEED repeats a run.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs tests/interop/cel-eval node npm
here=$scenario_root/tests/interop/cel

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
COX_INTEROP_MODULES=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/cel-$lock
export COX_INTEROP_MODULES
if [ ! -e "$COX_INTEROP_MODULES/installed" ]; then
    mkdir -p "$COX_INTEROP_MODULES"
    cp "$here/package.json" "$here/package-lock.json" "$COX_INTEROP_MODULES"
    if ! (cd "$COX_INTEROP_MODULES" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund) \
        >"$scenario_dir/npm.log" 2>&1; then
        skip cel "npm cannot install cel-js here"
        exit 0
    fi
    touch "$COX_INTEROP_MODULES/installed"
fi

n=5000
[ "${COX_TEST_LONG:-}" = 1 ] && n=100000
node "$here/cel.mjs" "$COX_BUILD/tests/interop/cel-eval" "$n" "${COX_CEL_SEED:-$RANDOM}" \
    >"$scenario_dir/cel.out" 2>"$scenario_dir/cel.err" </dev/null
code=$?
while IFS= read -r line; do
    case $line in
        "ok "*) ok "${line#ok }" ;;
        "not ok "*) not_ok "${line#not ok }" ;;
        *) echo "    $line" ;;
    esac
done <"$scenario_dir/cel.out"
[ "$code" -le 1 ] && [ ! -s "$scenario_dir/cel.err" ]
check_equal "cel.mjs went through" 0 $?
[ -s "$scenario_dir/cel.err" ] && sed 's/^/    /' "$scenario_dir/cel.err"
finish
