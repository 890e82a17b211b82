#!/bin/bash
# Models of a coxd: read from its file, read again, found by a file that changes, with keys; endpoints that fail, are
# out and come back; what is shown and counted of them. Against simulated inference servers.
. "$(dirname "$0")/lib.sh"
need_programs cox coxd cox-modelsim curl python3

cd "$scenario_dir" || exit 1
sims=()
at_exit+=('stop_sims')
stop_sims() { for pid in "${sims[@]}"; do stop_process "$pid" TERM; done; }

# start_sim NAME FLAG...: leaves URLs in NAME.ready.
start_sim() {
    local name=$1
    shift
    "$COX_BUILD/cox-modelsim" --ready-file "$name.ready" "$@" >"$name.log" 2>&1 </dev/null &
    sims+=($!)
    await_file "$name.ready" $! || { not_ok "$name starts" "$name.log"; exit 1; }
}
url() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["endpoints"][int(sys.argv[2])])' "$1.ready" "$2"; }
faults() { curl -fsS "$admin/sim/faults" -d "$1" >/dev/null; }

# chat MODEL [HEADER]: one call through coxd; its status is printed.
chat() {
    curl -sS -m 60 -o answer -w '%{http_code}' "http://$coxd_http/v1/chat/completions" -H "${2:-x-session-id: s1}" \
        -H 'content-type: application/json' \
        -d "{\"model\": \"$1\", \"max_tokens\": 4, \"messages\": [{\"role\": \"user\", \"content\": \"$RANDOM $RANDOM\"}]}"
}
# model NAME EXPRESSION: of `cox model describe`, `m` the model and `e` its endpoints by their ports.
model() {
    cox model describe "$1" -o json >model.json 2>model.err || return 1
    python3 -c 'import json, sys
d = json.load(open("model.json")); m = d["model"]; e = {x["name"].rsplit(":", 1)[1]: x for x in d["endpoints"]}
sys.exit(not eval(sys.argv[1]))' "$2"
}
comes() { if await 60 model "$2" "$3"; then ok "$1"; else not_ok "$1" model.json; fi; }
is() { check "$1" model "$2" "$3"; }
logged() { if await 60 grep -Eq -- "$2" coxd.log; then ok "$1"; else not_ok "$1" coxd.log; fi; }
port() { sed 's|.*:\([0-9]*\)/v1|\1|' <<<"$1"; }

start_sim sim --endpoints 3 --speed 20
start_sim keyed --require-key sk-right-key
admin=$(json_string sim.ready admin)
u0=$(url sim 0) u1=$(url sim 1) u2=$(url sim 2) k0=$(url keyed 0)
p0=$(port "$u0") p1=$(port "$u1") p2=$(port "$u2")

# write_config [MORE]: two models, and what is said.
write_config() {
    cat >coxd.yaml <<E
models:
  - name: llama
    aliases: [default]
    price: {input: 1, output: 2, currency: EUR}
    endpoints: [{url: "${u0%/v1}", max_in_flight: 50}]
    discovery: {file: $scenario_dir/endpoints}
  - name: keyed
    endpoints: [{url: "$k0", api_key_file: $scenario_dir/key}]
${1:-}
E
}
put_endpoints() { printf '%s\n' "$@" >endpoints.next && mv endpoints.next endpoints; }
hang_up() { kill -HUP "$coxd_pid"; }

# ---- the start ----
printf 'models: [{name: a, endpoints: [ftp://x]}]\n' >bad.yaml
check_exit "a bad file at the start is refused" 1 "$COX_BUILD/coxd" --data-dir none --grpc 127.0.0.1:0 --http 127.0.0.1:0 \
    --config bad.yaml
check_match "with its place" 'line 1: models\[0\].endpoints\[0\].*expected a URL' err
put_endpoints "# none yet"
printf 'sk-wrong-key\n' >key
chmod 600 key
write_config
start_coxd --config coxd.yaml
comes "an endpoint says who it is" llama "m['endpoints_up'] == 1 and e['$p0']['engine'] == 'vllm' and e['$p0']['running'] == 0"
check_equal "a call by an alias is answered" 200 "$(chat default)"

# ---- a file that is looked at again ----
put_endpoints "$u1" "$u2"
comes "endpoints of a file are found" llama "m['endpoints'] == 3 and m['endpoints_up'] == 3"
printf '["http://x' >endpoints.next && mv endpoints.next endpoints
logged "a bad file is told" 'cannot find endpoints.*JSON'
is "and changes nothing" llama "m['endpoints'] == 3"
rm endpoints
logged "so is one that is gone" 'cannot find endpoints.*No such file'
is "and that changes nothing" llama "m['endpoints'] == 3"
faults '{"endpoint": 2, "slow": 100}'
put_endpoints "$u2"
comes "one that is named no more is gone" llama "sorted(e) == sorted(['$p0', '$p2'])"
put_endpoints
comes "so is another" llama "list(e) == ['$p0']"
faults '{"endpoint": 2, "slow": 1}'
put_endpoints "$u1" "$u2"
comes "and they come back" llama "m['endpoints_up'] == 3"

# ---- reloads ----
write_config "  - {name: small, endpoints: [\"$u0\"], fallbacks: [llama]}"
hang_up
comes "SIGHUP brings a model" small "m['endpoints'] == 1"
is "the others stay as they were" llama "m['endpoints'] == 3 and m['traffic']['calls'] == 1"
for row in 'unknown key; did you mean endpoints?:  - {name: x, endpoint: [a]}' \
    'is no model:  - {name: x, endpoints: ["http://h"], fallbacks: [smal]}' \
    'is the name or an alias of a model already:  - {name: default, endpoints: ["http://h"]}'; do
    write_config "${row#*:}"
    hang_up
    logged "refused: ${row%%:*}" "cannot read the models.*line 9: models\[2\].*${row%%[?:]*}"
    is "nothing has changed" small "m['endpoints'] == 1"
done
write_config
hang_up
if await 60 eval '! model small True'; then ok "a model that is not named any more is gone"; else not_ok "gone" model.json; fi
check_equal "clients hear so" 404 "$(chat small)"

# ---- keys ----
check_equal "a wrong key is ours, and not the client's" 502 "$(chat keyed)"
is "and no fault of the endpoint" keyed "m['endpoints_up'] == 1"
printf 'sk-right-key\n' >key
hang_up
if await 60 eval '[ "$(chat keyed)" = 200 ]'; then ok "SIGHUP reads the key again"; else not_ok "SIGHUP reads the key again" answer; fi
chmod 666 key
hang_up
logged "a key that others can write is refused" 'cannot read the models.*api_key_file: .*chmod go-w'
check_equal "and the old one goes on" 200 "$(chat keyed)"
chmod 600 key

# ---- failures ----
# endpoint_fails EXPRESSION: calls until it is true; every one of them is answered.
calls_until() {
    local deadline=$((SECONDS + 60))
    until model llama "$1"; do
        [ "$(chat llama "x-session-id: $RANDOM")" = 200 ] || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
    done
}
faults '{"endpoint": 1, "error_500": 1}'
check "calls go elsewhere until a failing endpoint is out" calls_until "e['$p1']['gate'] == 'closed'"
is "why is said" llama "e['$p1']['why'] != '' and e['$p1']['failed_calls'] >= 5"
check_match "and told in the log" 'an endpoint is out model=llama' coxd.log
faults '{"endpoint": 1, "error_500": 0}'
comes "after a probe it is tried" llama "e['$p1']['gate'] == 'half-open'"
check "and calls bring it back" calls_until "e['$p1']['gate'] == 'open'"
faults '{"endpoint": 2, "refuse": true}'
comes "one that cannot be reached is out without a call" llama "e['$p2']['gate'] == 'closed' and e['$p2']['why'] == 'no connection'"
check_equal "calls do not notice" 200 "$(chat llama)"
faults '{"endpoint": 2, "refuse": false}'
comes "it is back as soon as it answers" llama "e['$p2']['gate'] != 'closed'"
faults '{"endpoint": 0, "metrics": "404"}'
comes "one that says nothing any more is still used" llama "e['$p0']['running'] == -1 and e['$p0']['up']"
faults '{"endpoint": 0, "metrics": "ok"}'

# ---- what is shown ----
check_exit "usage by model" 0 cox usage --by model -o json
cp out usage.json
check "has tokens and money" python3 -c 'import json
row = {r["model"]: r["usage"] for r in json.load(open("usage.json"))["rows"]}["llama"]
assert row["model_calls"] > 5 and row["input_tokens"] > 0 and row["output_tokens"] > 0, row
assert row["cost"]["currency"] == "EUR" and row["cost"]["micros"] > 0, row'
check_match "and says since when" '"since": *"2[0-9]{3}-[0-9]{2}-[0-9]{2}T' usage.json
check_exit "usage by program" 0 cox usage --program s1
check_match "names the session" '^default +s1 +[1-9]' out
check_match "and since when that is" '^since 2[0-9]{3}-[0-9]{2}-[0-9]{2}T' out
check_exit "usage by tenant" 0 cox usage --by tenant
check_match "names the tenant" '^default +[1-9][0-9]* ' out
curl -sS "http://$coxd_http/api/v1/models/default" >out
check "a model over HTTP" python3 -c 'import json
d = json.load(open("out")); assert d["model"]["name"] == "llama" and len(d["endpoints"]) == 3, d'
check_equal "an unknown one" 404 "$(curl -s -o out -w '%{http_code}' "http://$coxd_http/api/v1/models/nothing")"
curl -sS "http://$coxd_http/api/v1/usage?by=TENANT" >out
check_match "usage over HTTP" '"tenant":"default"' out
curl -sS "http://$coxd_http/metrics" >metrics
check_match "endpoints in the metrics" "^cox_endpoint_up\{model=\"llama\",endpoint=\"127.0.0.1:$p0\"\} 1" metrics
check_match "calls" '^cox_model_calls_total\{model="llama",status="ok"\} [1-9]' metrics
check_match "times to the first token" '^cox_model_ttft_seconds_bucket\{model="llama",le="\+Inf"\} [1-9]' metrics
check_match "money" '^cox_model_cost_micros_total\{model="llama",currency="EUR"\} [1-9]' metrics
check_match "endpoints that were out" 'an endpoint is out' coxd.log
if command -v promtool >/dev/null; then
    check "promtool finds nothing wrong" eval 'promtool check metrics <metrics'
else
    skip "promtool finds nothing wrong" "promtool is not there"
fi
while read -r name; do
    grep -q "\`$name\`" "$scenario_root/docs/reference/metrics.md" || not_ok "$name is documented"
done < <(sed -n 's/^# TYPE \(cox_\(model\|endpoint\)[^ ]*\) .*/\1/p' metrics)
cox model describe keyed -o json >out 2>&1
check "keys are nowhere" eval '! grep -rq sk-right-key out metrics coxd.log model.json data'
stop_coxd
check_equal "it stops in order" 0 $?
finish
