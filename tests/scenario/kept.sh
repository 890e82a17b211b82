#!/bin/bash
# Templates and schedules, by real programs: the examples of docs/examples/kept, the errors of the services as
# programs see them (kept.py), over a coxd that is killed in between; and a schedule that runs when the minute comes.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3
kept=$scenario_root/docs/examples/kept
field() { python3 -c 'import json, sys; print(json.load(sys.stdin).get(sys.argv[1], ""))' "$1"; }

start_coxd
start_worker w1 --slots 2

# ---- a schedule that will have run when the rest of this is done ----
check "heartbeat is applied" cox schedule apply "$kept/heartbeat.yaml"

# ---- templates ----
check_exit "a task without its template is refused" 2 cox task submit "$kept/release.yaml" --input version=1.2.3
check_match "and says which" 'release\.yaml:7: steps\.tag\.task\.ref: there is no template "checksum@1"' "$scenario_dir/err"
check_exit "so is a schedule" 2 cox schedule apply "$kept/nightly.yaml"
check_match "and says which, too" 'there is no template "checksum@1"' "$scenario_dir/err"
check "the template is applied" cox template apply "$kept/checksum.yaml"
sum=$(printf 'release 1.2.3' | sha256sum | cut -c 1-8)
check_equal "its sub-task runs" "{\"tag\":\"$sum\\n\"}" \
    "$(cox task run -q -o jsonl "$kept/release.yaml" --input version=1.2.3 2>"$scenario_dir/run.err")"
check "now the schedule is applied" cox schedule apply "$kept/nightly.yaml"

# ---- a task that sleeps is in lists, whatever became of the index ----
echo '{"api_version":"v1","name":"sleepy","steps":{"w":{"wait":{"for":"1h"}}}}' >"$scenario_dir/sleepy.json"
sleepy=$(cox task submit "$scenario_dir/sleepy.json" -o name)
asleep() { curl -s "http://$coxd_http/metrics" | grep -q '^cox_tasks_asleep 1$'; }
is_listed() { cox task list -o json | grep -q "\"$sleepy\""; }
check "a task falls asleep" await 30 asleep
stop_coxd KILL
start_coxd
check "it is in the list after a kill" await 10 is_listed
stop_coxd
rm "$scenario_dir/data/index.db"
start_coxd
check "and when the index was lost" await 10 is_listed
cox task cancel "$sleepy" >/dev/null 2>&1

stop_coxd KILL
start_coxd
check_equal "a killed coxd has kept the template" "checksum" "$(cox template get checksum -o json | field name)"
next=$(cox schedule get nightly -o json | field next_run_at)
check_equal "and when nightly runs next" "02:30 New York" \
    "$(TZ=America/New_York date -d "$next" '+%H:%M' 2>&1) New York"

# ---- the services, as programs see them ----
if /usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null && command -v protoc >/dev/null; then
    mkdir -p "$scenario_dir/py"
    (cd "$scenario_root/proto" && find . -name '*.proto' -print0 | xargs -0 protoc -I. --python_out="$scenario_dir/py") \
        >"$scenario_dir/protoc.log" 2>&1
    PYTHONPATH=$scenario_dir/py /usr/bin/python3 "$scenario_root/tests/scenario/kept.py" "$COX_ADDRESS" \
        >"$scenario_dir/kept.out" 2>"$scenario_dir/kept.err" </dev/null
    code=$?
    while IFS= read -r line; do
        case $line in
            "ok "*) ok "${line#ok }" ;;
            "not ok "*) not_ok "${line#not ok }" ;;
            *) echo "    $line" ;;
        esac
    done <"$scenario_dir/kept.out"
    [ "$code" = 0 ] || cat "$scenario_dir/protoc.log" "$scenario_dir/kept.err" >"$scenario_dir/check.log"
    check_equal "kept.py went through" 0 "$code"
    [ "$code" = 0 ] || sed 's/^/    /' "$scenario_dir/check.log"
else
    skip "the services as programs see them" "python3-grpcio or protoc is not installed"
fi

# ---- the minute has come ----
has_run() { cox schedule get heartbeat -o json | grep -q '"last_task_id": *"t'; }
check "heartbeat has run" await 90 has_run
id=$(cox schedule get heartbeat -o json | field last_task_id)
check "its task succeeds" cox task watch "$id" --timeout 30s
check_equal "and names its schedule" heartbeat \
    "$(cox task get "$id" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["labels"]["coxswain.schedule"])')"
check "the schedule is deleted" cox schedule delete heartbeat
check_exit "and gone" 3 cox schedule get heartbeat
check "its task is not" cox task get "$id"
finish
