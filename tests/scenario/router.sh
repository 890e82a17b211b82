#!/bin/bash
# The router and the OpenAI edge: calls of models through coxd to simulated servers, as programs make them.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox cox-modelsim python3

"$COX_BUILD/cox-modelsim" --endpoints 2 --speed 20 --output-tokens 20 --ready-file "$scenario_dir/sim.ready" \
    >"$scenario_dir/sim.log" 2>&1 </dev/null &
sim_pid=$!
at_exit+=("kill $sim_pid")
await_file "$scenario_dir/sim.ready" "$sim_pid" || { not_ok "cox-modelsim starts" "$scenario_dir/sim.log"; exit 1; }
urls=$(python3 -c 'import json, sys; print(",".join(json.load(open(sys.argv[1]))["endpoints"]))' "$scenario_dir/sim.ready")

models() { # models NAME...: the configuration
    echo "models:"
    for name in "$@"; do
        printf -- '- name: %s\n  endpoints: [%s]\n' "$name" "$(sed 's|\([^,]*\)|{url: "\1"}|g' <<<"$urls")"
    done
}
models sim >"$scenario_dir/coxd.yaml"
start_coxd --config "$scenario_dir/coxd.yaml"
python3 "$scenario_root/tests/scenario/router.py" "$coxd_http" "$scenario_dir/sim.ready" >"$scenario_dir/out" 2>&1
echo $? >"$scenario_dir/code"
while IFS= read -r line; do
    case $line in
        "ok "*) ok "${line#ok }" ;;
        "not ok "*) not_ok "${line#not ok }" ;;
        *) echo "    $line" ;;
    esac
done <"$scenario_dir/out"
check_match "router.py went through" '^[01]$' "$scenario_dir/code"
! grep -q '^Traceback' "$scenario_dir/out" || not_ok "router.py runs to its end"

# A reload with other models does not drop a call.
curl -sN -m 60 "http://$coxd_http/v1/chat/completions" -H 'Content-Type: application/json' \
    -d '{"model":"sim","stream":true,"max_tokens":2000,"min_tokens":2000,"messages":[{"role":"user","content":"go on"}]}' \
    >"$scenario_dir/long" &
curl_pid=$!
await 10 grep -q delta "$scenario_dir/long" || not_ok "a long answer begins" "$scenario_dir/long"
models sim other >"$scenario_dir/coxd.yaml"
kill -HUP "$coxd_pid"
lists_other() { curl -s -m 5 "http://$coxd_http/v1/models" | grep -q '"other"'; }
check "another model is there after SIGHUP" await 10 lists_other
wait "$curl_pid"
check_equal "a reload leaves calls alone" 0 $?
check_match "and their answers whole" 'DONE' "$scenario_dir/long"
stop_coxd
check_equal "coxd stops in order" 0 $?

# Who calls.
hash_of() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
cat >"$scenario_dir/tokens" <<YAML
- {name: reader, token_sha256: "$(hash_of reader)", roles: [reader], tenants: [a]}
- {name: agent, token_sha256: "$(hash_of agent)", roles: [submitter], tenants: [a]}
- {name: worker, token_sha256: "$(hash_of worker)", roles: [worker], tenants: "*"}
YAML
chmod 600 "$scenario_dir/tokens"
start_coxd --model "sim=$urls" --token-file "$scenario_dir/tokens"
call() { # call [CURL ARGUMENT...]: the status; the body in $scenario_dir/body
    curl -s -m 20 -o "$scenario_dir/body" -w '%{http_code}' "http://$coxd_http/v1/chat/completions" -H 'Content-Type: application/json' \
        -d '{"model":"sim","messages":[{"role":"user","content":"hello"}]}' "$@"
}
check_equal "a stranger calls no model" 401 "$(call)"
check_match "and is told in OpenAI's words" '"code":"invalid_api_key"' "$scenario_dir/body"
check_equal "nor does a reader" 403 "$(call -H 'Authorization: Bearer reader')"
check_equal "nor a worker that does not say for which attempt" 403 "$(call -H 'Authorization: Bearer worker')"
check_equal "nor one for an attempt that it does not hold" 401 \
    "$(call -H 'Authorization: Bearer worker' -H 'cox-attempt: 1/0/1/1' -H 'cox-session: x')"
check_equal "a submitter does" 200 "$(call -H 'Authorization: Bearer agent')"
check_equal "but for no other tenant" 403 "$(call -H 'Authorization: Bearer agent' -H 'Cox-Tenant: b')"
stop_coxd
finish
