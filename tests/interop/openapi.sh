#!/bin/bash
# /openapi.json in other people's hands: Redocly's linter finds nothing to say, and a client of types that
# openapi-typescript generates from it compiles and works against a real coxd. The packages are installed beside the
# tree, in COX_INTEROP_CACHE (default: ~/.cache/coxswain), as openapi/package-lock.json pins them.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker node npm curl
here=$scenario_root/tests/interop/openapi

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
packages=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/openapi-$lock
if [ ! -e "$packages/installed" ]; then
    mkdir -p "$packages"
    cp "$here/package.json" "$here/package-lock.json" "$packages"
    if ! (cd "$packages" && timeout 120 npm ci --ignore-scripts --no-audit --no-fund) >"$scenario_dir/npm.log" 2>&1; then
        skip openapi "npm cannot install openapi-typescript here"
        exit 0
    fi
    touch "$packages/installed"
fi
modules=$packages/node_modules

start_coxd
start_worker w1
api=$scenario_dir/openapi.json
client=$scenario_dir/client
mkdir "$client"
ln -s "$modules" "$client/node_modules"
cp "$here/client.ts" "$client"
echo '{"type": "module"}' >"$client/package.json"

check "/openapi.json is served" curl -sf "http://$coxd_http/openapi.json" -o "$api"
check "a linter has nothing to say" node "$here/lint.mjs" "$api" "$modules"
sed 's/"TaskStatus":{/"TaskStatus":{"nonsense":1,/' "$api" >"$scenario_dir/broken.json"
check_exit "and finds what is planted" 1 node "$here/lint.mjs" "$scenario_dir/broken.json" "$modules"
check "types are generated" node "$modules/openapi-typescript/bin/cli.js" "$api" -o "$client/coxswain.ts"
check "the client compiles" node "$modules/typescript/bin/tsc" --strict --target es2022 --module nodenext \
    --skipLibCheck --lib es2022,dom,dom.iterable --outDir "$client/out" "$client/client.ts" "$client/coxswain.ts" "$here/node.d.ts"
node "$client/out/client.js" "http://$coxd_http" >"$scenario_dir/client.out" 2>&1
echo $? >"$scenario_dir/client.code"
while IFS= read -r line; do
    case $line in
        "ok "*) ok "${line#ok }" ;;
        "not ok "*) not_ok "${line#not ok }" ;;
        *) echo "    $line" ;;
    esac
done <"$scenario_dir/client.out"
check "the client tells of something" grep -q "^ok" "$scenario_dir/client.out"
check_match "the client went through" '^[01]$' "$scenario_dir/client.code"
finish
