#!/bin/bash
# A record that recovery cannot take, put into the log by hand: after three times its task is left alone, and
# everything else goes on. All of it is kept: lifted, it goes on where it was.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3
data=$scenario_dir/data
tool=$scenario_root/tests/scenario/quarantine.py

# document NAME COMMAND...: three steps, the second of which runs the command.
document() {
    cat >"$scenario_dir/$1.json" <<END
{"api_version": "v1", "name": "$1", "labels": {"who": "$1"}, "outputs": {"first": "\${{ steps.first.output.stdout }}"},
 "steps": {"first": {"run": {"argv": ["sh", "-c", "echo first >>$scenario_dir/$1.ran; echo one"]}},
           "second": {"needs": ["first"], "run": {"argv": ["sh", "-c", "echo second >>$scenario_dir/$1.ran; $2"]}},
           "third": {"needs": ["second"], "run": {"argv": ["true"]}}}}
END
}

# fails NAME N CODE: coxd does not come up N times, but leaves with CODE (134: by an assertion).
fails() {
    local i code
    for ((i = 1; i <= $2; i++)); do
        code=0
        { (ulimit -c 0; exec "$COX_BUILD/coxd" --data-dir "$data" --grpc "$coxd_grpc" --http "$coxd_http") \
            >>"$scenario_dir/coxd.log" 2>&1 </dev/null || code=$?; } 2>/dev/null
        [ "$code" = "$3" ] || { not_ok "$1: time $i it left with $code" "$scenario_dir/coxd.log"; return; }
    done
    ok "$1: $2 times"
}

field() { cox task get "$1" -o json | python3 -c "import json,sys; v=json.load(sys.stdin); print($2)"; }
metric() { curl -s "http://$coxd_http/metrics" | sed -n "s/^$1 //p"; }
ran() { sort "$scenario_dir/$1.ran" | uniq -c | sed 's/^ *//' | tr '\n' ' '; }

start_coxd
start_worker w1 --slots 4 --orphan-timeout 1h
gate=$scenario_dir/gate
mkfifo "$gate"
document victim "cat $gate"
document bystander "cat $gate"
document done "true"
victim=$(cox task submit "$scenario_dir/victim.json" --key k1 -o name)
bystander=$(cox task submit "$scenario_dir/bystander.json" -o name)
check "a task ends" cox task run "$scenario_dir/done.json"
await 20 grep -q second "$scenario_dir/victim.ran"
await 20 grep -q second "$scenario_dir/bystander.ran"

# ---- three times, and it is left alone ----
stop_coxd KILL
seq=$("$tool" refused "$data" "$victim" "$bystander")
fails "a poisoned record keeps the orchestrator from starting" 3 1
check_match "it says where" "record $seq was the last that could be read" "$scenario_dir/coxd.log"
start_coxd
ok "and then it starts"
check_match "it says which task, and why" "quarantined a task.*$victim.*applying record $seq of the log" "$scenario_dir/coxd.log"
check_equal "the task is shown as failed" "FAILED INTERNAL" "$(field "$victim" 'v["status"] + " " + v["error"]["code"]')"
check_equal "with its name" victim "$(field "$victim" 'v["name"]')"
cox task get "$victim" -o json >"$scenario_dir/out"
check_match "and what happened" "quarantined: recovery failed 3 times applying record $seq" "$scenario_dir/out"
cox task list -l who=victim -o name >"$scenario_dir/out"
check_equal "it is listed" "$victim" "$(cat "$scenario_dir/out")"
cox explain "$victim" >"$scenario_dir/out" 2>&1
check_match "and explained" "quarantined" "$scenario_dir/out"
check_match "with what can be done" "next: cox admin lift $victim" "$scenario_dir/out"
check_equal "and nothing that would be refused" 0 "$(grep -c 'next: cox task retry' "$scenario_dir/out")"
check_equal "and counted" 1 "$(metric cox_tasks_quarantined)"
check_exit "it cannot be retried" 2 cox task retry "$victim"
check_match "and the answer says why" "quarantined" "$scenario_dir/err"
check_equal "its key is still its own" "$victim" "$(cox task submit "$scenario_dir/victim.json" --key k1 -o name)"
check_equal "records behind it are applied" PAUSED "$(field "$bystander" 'v["status"]')"
check "what others run goes on" cox task resume "$bystander"
stopped() { [ "$(pgrep -fc "cat $gate")" -le 2 ]; } # the other task's shell and its cat
check "what its worker ran of it is stopped" await 30 stopped
echo go >"$gate"
check "and others end" cox task watch "$bystander"
check_equal "having run once" "1 first 1 second " "$(ran bystander)"
check "new tasks are taken" cox task run "$scenario_dir/done.json"

# ---- the log is cut: what was kept aside stays ----
stop_coxd
check_equal "it stops in order" 0 $?
check_match "a check of the data says so" '"tasks_quarantined": *1' <("$COX_BUILD/coxd" --verify --data-dir "$data")
start_coxd
check_equal "it is still left alone" 1 "$(metric cox_tasks_quarantined)"
stop_coxd

# ---- lifted ----
check_exit "a task that is not quarantined cannot be lifted" 1 cox admin lift "$bystander" --data-dir "$data"
check "lifting" cox admin lift "$victim" --data-dir "$data"
fails "lifted with the same version, it is there again" 3 1
start_coxd
check_equal "and is left alone again" 1 "$(metric cox_tasks_quarantined)"
stop_coxd
"$tool" mend "$data" "$victim"
check "lifting, for a version that can read it" cox admin lift "$victim" --data-dir "$data"
start_coxd
check_equal "it is taken up" 0 "$(metric cox_tasks_quarantined)"
stop_coxd KILL
start_coxd
check_equal "a crash does not undo that" "RUNNING" "$(field "$victim" 'v["status"]')"
await 30 sh -c "[ \$(grep -c second $scenario_dir/victim.ran) = 2 ]"
echo go >"$gate"
check "it ends" cox task watch "$victim"
cox task output "$victim" -o json >"$scenario_dir/out" 2>&1
check_match "with what it had" '"first": *"one' "$scenario_dir/out"
check_equal "and what it had done was not done again" "1 first 2 second " "$(ran victim)"
stop_coxd
check_equal "nothing of it is kept aside" 0 "$("$tool" aside "$data" "$victim")"
start_coxd

# ---- deleted ----
document other "cat $gate"
other=$(cox task submit "$scenario_dir/other.json" -o name)
await 20 grep -q second "$scenario_dir/other.ran"
stop_coxd KILL
"$tool" crash "$data" "$other" >/dev/null
fails "another one crashes it" 3 134
start_coxd
check_match "and is left alone" "quarantined a task.*$other.*taking up step 2 of task.*Aborted" "$scenario_dir/coxd.log"
check "a quarantined task can be deleted" cox task delete "$other"
check_exit "and is gone" 3 cox task get "$other"
stop_coxd KILL
start_coxd
check_exit "its records in the log bring nothing back" 3 cox task get "$other"
check_equal "and nothing is counted" 0 "$(metric cox_tasks_quarantined)"
stop_coxd
check_equal "nothing of it is kept" 0 "$("$tool" aside "$data" "$other")"
start_coxd
check "and the log is free of it" cox task run "$scenario_dir/done.json"
finish
