#!/bin/bash
# HTTP: every route of /openapi.json, asked well and asked wrongly; events, bounds, guards, probes over a restart.
# The routes are a table in http_edge.py; a route that the server describes and the table lacks is a failure.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3 curl
here=$scenario_root/tests/scenario

results_of() { # the lines of a program are results of tests
    local line
    "$@" >"$scenario_dir/http.out" 2>&1 </dev/null
    echo $? >"$scenario_dir/http.code"
    while IFS= read -r line; do
        case $line in
            "ok "*) ok "${line#ok }" ;;
            "not ok "*) not_ok "${line#not ok }" ;;
            "skip "*) echo "$line" ;;
            *) echo "    $line" ;;
        esac
    done <"$scenario_dir/http.out"
    check_match "http_edge.py went through" '^[03]$' "$scenario_dir/http.code"
}

# The reference: its examples, in order, on a coxd that has seen no task.
start_coxd
start_worker w0
export HTTP=$coxd_http
awk '/^```sh/ { on = 1; next } /^```/ { on = 0 } on' "$scenario_root/docs/reference/http.md" |
    sed 's/^curl -s/curl -f -m 20 -s/' >"$scenario_dir/examples.sh"
check "the reference has examples" grep -q 'curl.*follow' "$scenario_dir/examples.sh"
check "and they work" bash -eu "$scenario_dir/examples.sh"
stop_worker w0
stop_coxd
rm -rf "$scenario_dir/data"

start_coxd --http-host coxswain.example --cors-origin https://ok.example --model told=http://127.0.0.1:9/v1
start_worker w1 --slots 4
# Debian's Python has Debian's python3-protobuf, whichever comes first in PATH.
python=python3
/usr/bin/python3 -c 'import google.protobuf' 2>/dev/null && python=/usr/bin/python3
results_of "$python" "$here/http_edge.py" "$coxd_http" "$COX_BUILD/proto/coxswain.protoset"

# A stream is told that the orchestrator goes away, and goes on where it was once it is back.
id=$(cox task submit "$scenario_root/docs/examples/cancel.yaml" -o name)
curl -sN "http://$coxd_http/api/v1/tasks/$id/events" >"$scenario_dir/events" 2>"$scenario_dir/curl.err" &
curl_pid=$!
await 10 grep -q '^event: task' "$scenario_dir/events" || not_ok "events begin" "$scenario_dir/events"
stop_coxd TERM
check_equal "coxd stops in order with a stream open" 0 $?
wait "$curl_pid"
check_equal "the stream ended as a whole" 0 $?
check_match "with an error that names the reason" '"code":"UNAVAILABLE"' "$scenario_dir/events"
coxd_http_before=$coxd_http
start_coxd
check_equal "the port is the same again" "$coxd_http_before" "$coxd_http"
last=$(sed -n 's/^id: //p' "$scenario_dir/events" | tail -n 1)
curl -sN -m 2 -H "Last-Event-ID: $last" "http://$coxd_http/api/v1/tasks/$id/events" >"$scenario_dir/resumed"
check_match "a resume gets the task" '^data: .*"task":{"id":"'"$id" "$scenario_dir/resumed"

# Many times a task with large inputs: refused before all of it has been put together.
python3 - >"$scenario_dir/large.json" <<'PY'
import json
print(json.dumps({"document": {"api_version": "v1", "name": "large", "inputs": {"text": {"type": "string", "default": "x" * 3900000}},
                               "steps": {"a": {"approval": {"prompt": "go on?"}}}}}))
PY
large=$(curl -sf -H 'Content-Type: application/json' -d "@$scenario_dir/large.json" "http://$coxd_http/api/v1/tasks" |
    sed 's/.*"id":"\([^"]*\)".*/\1/')
ids=$(printf "ids=$large&%.0s" $(seq 120))
check_equal "an answer that would be too long is refused" 429 \
    "$(curl -s -o "$scenario_dir/batch" -w '%{http_code}' "http://$coxd_http/api/v1/tasks:batch?$ids")"
check_match "with the reason" ANSWER_TOO_LARGE "$scenario_dir/batch"
if is_sanitized; then
    skip "and cost little memory" "a sanitizer takes more than that"
else
    check "and cost little memory" test "$(awk '/VmHWM/ { print $2 }' "/proc/$coxd_pid/status")" -lt 300000
fi
check "it can be cancelled" curl -sf -X POST "http://$coxd_http/api/v1/tasks/$id:cancel"
finish
