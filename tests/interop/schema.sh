#!/bin/bash
# The schema of task documents in the hands of npm's ajv, against `cox validate`: both take and both refuse the
# same documents. ajv is installed beside the tree, in COX_INTEROP_CACHE (default: ~/.cache/coxswain), as
# schema/package-lock.json pins it.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs cox node npm
here=$scenario_root/tests/interop/schema

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
COX_INTEROP_MODULES=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/schema-$lock
export COX_INTEROP_MODULES
if [ ! -e "$COX_INTEROP_MODULES/installed" ]; then
    mkdir -p "$COX_INTEROP_MODULES"
    cp "$here/package.json" "$here/package-lock.json" "$COX_INTEROP_MODULES"
    if ! (cd "$COX_INTEROP_MODULES" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund) \
        >"$scenario_dir/npm.log" 2>&1; then
        skip schema "npm cannot install ajv here"
        exit 0
    fi
    touch "$COX_INTEROP_MODULES/installed"
fi

node "$here/schema.mjs" "$scenario_root/proto/task.v1.schema.json" "$COX_BUILD/cox" "$scenario_dir" \
    >"$scenario_dir/schema.out" 2>"$scenario_dir/schema.err" </dev/null
code=$?
while IFS= read -r line; do
    case $line in
        "ok "*) ok "${line#ok }" ;;
        "not ok "*) not_ok "${line#not ok }" ;;
        *) echo "    $line" ;;
    esac
done <"$scenario_dir/schema.out"
[ "$code" -le 1 ] && [ ! -s "$scenario_dir/schema.err" ]
check_equal "schema.mjs went through" 0 $?
[ -s "$scenario_dir/schema.err" ] && sed 's/^/    /' "$scenario_dir/schema.err"
finish
