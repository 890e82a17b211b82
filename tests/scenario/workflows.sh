#!/bin/bash
# Two workflows that people run, as task graphs: no step starts before those it needs have ended, as seen by the
# steps themselves, and each is given their values. COX_SHARED_DATA is a folder with the recorded workflows;
# where it is missing, generated graphs of the same shape take their place.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox tests/scenario/step-body python3
here=$scenario_root/tests/scenario
data=${COX_SHARED_DATA:-$scenario_root/../shared/data}

start_coxd
start_worker w1 --slots 4
start_worker w2 --slots 4

workflow() { # workflow NAME FILE GENERATED
    local shape=$3 logs=$scenario_dir/logs-$1 id
    if [ -r "$data/$2" ]; then shape=$data/$2; else echo "$2 is not there: a generated graph instead"; fi
    mkdir "$logs"
    python3 "$here/wfformat.py" document "$shape" "$COX_BUILD/tests/scenario/step-body" "$logs" \
        >"$scenario_dir/$1.json"
    id=$(cox task submit "$scenario_dir/$1.json" -o name)
    check "$1 ends well" cox task watch "$id"
    cox task output "$id" -o json >"$scenario_dir/$1.outputs"
    check "$1: order and data" python3 "$here/wfformat.py" check "$shape" "$id" "$scenario_dir/$1.outputs" "$logs"
    tail -n 1 "$scenario_dir/check.log"
}

workflow montage montage-chameleon-2mass-05d-001.json.gz montage:350
workflow bwa bwa-chameleon-large-004.json.gz bwa:1000
finish
