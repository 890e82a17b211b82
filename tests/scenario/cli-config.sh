#!/bin/bash
# Configuration files of the daemons: what takes effect when, and that a bad file is told and harmless.
. "$(dirname "$0")/lib.sh"
need_programs cox coxd cox-worker

cd "$scenario_dir" || exit 1
printf 'log_level: warn\nslots: 3\nlabel: {zone: a, arch: amd64}\n' >worker.yaml
printf 'log_level: info\nlog_format: text\n' >coxd.yaml
start_coxd --config coxd.yaml
start_worker w1 --config "$scenario_dir/worker.yaml"
check_exit "the worker has what its file says" 0 cox worker describe w1 -o json
check_match "its labels" '"zone": "a"' "$scenario_dir/out"
check_match "its slots" '"slots": 3' "$scenario_dir/out"

logged() { grep -Eq -- "$2" "$scenario_dir/$1.log"; }
printf 'log_level: debug\nlog_format: json\nstore: memory\n' >coxd.yaml
kill -HUP "$coxd_pid"
check "coxd reads its file again" await 20 logged coxd '^{.*"message":"read the configuration again"'
check "and names what needs a restart" await 20 logged coxd '"keys":"store"'
printf 'log_format: text\nstroe: memory\n' >coxd.yaml
kill -HUP "$coxd_pid"
check "a bad file is named with its line" await 20 logged coxd 'stays as it was.*coxd.yaml:2: stroe: unknown key; did you mean store'
check_exit "and coxd goes on" 0 cox worker list

submit() { cox task submit "$scenario_root/docs/examples/diamond.yaml" -q --connect-timeout 0 >out 2>err; }
printf 'min_free: 1000T\n' >coxd.yaml
kill -HUP "$coxd_pid"
refused() { ! submit && grep -q 'disk\|room\|min-free' err; }
check "more room to keep free: submissions are refused" await 20 refused
printf 'min_free: 0\n' >coxd.yaml
kill -HUP "$coxd_pid"
check "less: they are taken again" await 20 submit

printf 'log_level: info\nslots: 4\n' >worker.yaml
kill -HUP "${worker_pids[w1]}"
check "the worker reads its file again" await 20 logged w1 'read the configuration again'
check "and names what needs a restart" await 20 logged w1 'keys="?slots, label'
printf 'log_level: [\n' >worker.yaml
kill -HUP "${worker_pids[w1]}"
check "a bad file is named" await 20 logged w1 'stays as it was'
check_exit "and the worker goes on" 0 cox task run "$scenario_root/docs/examples/diamond.yaml" -q

check_exit "coxd: a file that is not there" 2 "$COX_BUILD/coxd" --config nowhere.yaml
check_match "coxd: says so" "nowhere.yaml: No such file" "$scenario_dir/err"
check_exit "cox-worker: a wrong value" 2 env COX_SLOTS=many "$COX_BUILD/cox-worker"
check_match "cox-worker: names the variable" 'COX_SLOTS: "many"; expected a number' "$scenario_dir/err"
finish
