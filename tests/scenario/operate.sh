#!/bin/bash
# What operators see and do: cordon and drain, why a step does not run, numbers under load, KEDA's questions.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox tests/scenario/operate

operate() { "$COX_BUILD/tests/scenario/operate" "$COX_ADDRESS" "$@"; }

# says NAME REGEX VERB...: a line of what the verb prints matches.
says() {
    local name=$1 regex=$2
    shift 2
    operate "$@" >"$scenario_dir/said" 2>&1
    check_match "$name" "$regex" "$scenario_dir/said"
}

prints() { # prints REGEX VERB...
    local regex=$1
    shift
    operate "$@" 2>&1 | grep -Eq -- "$regex"
}

# comes NAME REGEX VERB...: the same, within ten seconds.
comes() {
    local name=$1 regex=$2
    shift 2
    await 10 prints "$regex" "$@"
    says "$name" "$regex" "$@"
}

# submitted DOCUMENT: its id.
submitted() {
    printf '%s\n' "$1" >"$scenario_dir/doc.json"
    cox task submit "$scenario_dir/doc.json" -o name
}

step() { printf '{"api_version": "v1", "name": "x", "steps": {"a": {%s}}}' "$1"; }
run='"run": {"argv": ["true"]}'

start_coxd

# ---- why a step does not run ----
none=$(submitted "$(step "$run")")
says "no worker at all" 'step a is READY: no worker is attached' explain "$none" a
says "and what to do" '^- start a worker' explain "$none" a
says "the task says which step" '^- a is READY: no worker is attached' explain "$none"
says "and where to ask on" "^\\$ cox explain $none/a" explain "$none"
start_worker w1 --slots 2 --resources cpu=2,memory=1Gi
check "the first worker runs it" cox task watch "$none"
says "an archived step" 'step a SUCCEEDED' explain "$none" a
says "an archived task" "task $none SUCCEEDED" explain "$none"

label=$(submitted "$(step "$run, \"requires\": \"gpu == yes, spot != true\"")")
says "a missing label" 'no attached worker that offers run has gpu == yes, spot != true' explain "$label" a
large=$(submitted "$(step "$run, \"resources\": {\"cpu\": 64}")")
says "too large for all" 'no attached worker that offers run has cpu 64.000' explain "$large" a
says "with the counts" '1 workers are attached; 1 offer run, 1 of these have the labels, 0 of these are large enough' \
    explain "$large" a
program=$(submitted "$(step '"uses": "nobody@1"')")
says "a program that nobody has" 'no attached worker offers nobody@1' explain "$program" a
says "all of them in one view" '"?a"? is READY|a is READY' explain "$program"
says "a step that is not there" 'NOT_FOUND NO_STEP' explain "$program" b
says "a task that is not there" 'NOT_FOUND' explain t0-zzzzzz
failed=$(submitted "$(step '"run": {"argv": ["false"]}')")
cox task watch "$failed" >/dev/null 2>&1
says "a failure" 'step a FAILED with EXIT_NONZERO' explain "$failed" a
says "of a task" "^\\$ cox task logs $failed a" explain "$failed"
blocked=$(submitted '{"api_version": "v1", "name": "x", "steps": {"a": {"uses": "nobody@1"},
    "b": {"run": {"argv": ["true"]}, "needs": ["a"]}}}')
says "what waits for another" 'step b is BLOCKED: waits for a' explain "$blocked" b
cox task cancel "$blocked" >/dev/null 2>&1
says "a step that was cancelled" 'step b was CANCELLED' explain "$blocked" b

# ---- every status has its words ----
all=$(submitted '{"api_version": "v1", "name": "x", "steps": {
    "sig": {"wait": {"signal": "go"}}, "ask": {"approval": {"prompt": "Really?"}}, "late": {"wait": {"for": "1h"}},
    "off": {"if": false, "run": {"argv": ["true"]}}, "dep": {"needs": ["off"], "run": {"argv": ["true"]}},
    "runs": {"run": {"argv": ["sleep", "600"]}},
    "again": {"run": {"argv": ["false"]}, "retry": {"max_attempts": 2, "initial_backoff": "1h", "max_backoff": "1h"}},
    "fall": {"run": {"argv": ["false"]}, "fallback": {"run": {"argv": ["true"]}}},
    "m": {"map": {"over": [1, 2, 3]}, "wait": {"signal": "other"}},
    "done": {"map": {"over": [1, 2]}, "run": {"argv": ["true"]}}}}')
comes "a step that runs" 'step runs is RUNNING' explain "$all" runs
says "on which worker" '^- attempt 1 on w1: RUNNING' explain "$all" runs
says "and how to look at it" "^\\$ cox task logs $all runs -f" explain "$all" runs
says "a step that waits for a signal" 'step sig is WAITING: waits for the signal go' explain "$all" sig
says "and how to send it" "^\\$ cox task signal $all go" explain "$all" sig
says "a step that waits for somebody" 'step ask is WAITING: waits for an approval: Really\?' explain "$all" ask
says "and how to answer" "^\\$ cox task approve $all ask" explain "$all" ask
says "a step that waits for time" 'step late is WAITING: waits until 20' explain "$all" late
says "a step whose condition was false" 'step off was SKIPPED' explain "$all" off
says "and that it was" '^- its `if` was false' explain "$all" off
says "a step skipped with it" '^- it needs off, which is SKIPPED' explain "$all" dep
comes "a step that backs off" 'step again is READY: tries again at 20.* after EXIT_NONZERO' explain "$all" again
comes "a step saved by its fallback" 'step fall SUCCEEDED by its fallback' explain "$all" fall
comes "a map" 'step m is WAITING: 0 of 3 items have ended' explain "$all" m
says "an item that is a frame" 'step m\[1\] is WAITING: waits for the signal other' explain "$all" 'm[1]'
comes "an item of a map" 'step done SUCCEEDED' explain "$all" 'done[1]'
says "an item that is not there" 'NOT_FOUND NO_STEP' explain "$all" 'm[3]'
says "the task, with what holds it" '^- sig is WAITING: waits for the signal go' explain "$all"
check "it is paused" cox task pause "$all"
says "a task that is paused" "task $all is PAUSED" explain "$all"
says "and how it goes on" "^\\$ cox task resume $all" explain "$all"
check "it is cancelled" cox task cancel "$all" --reason enough
cox task watch "$all" >/dev/null 2>&1
says "a task that was cancelled" "task $all was CANCELLED: .*enough" explain "$all"
says "an item of an ended map" 'step done SUCCEEDED' explain "$all" 'done[1]'

# ---- a version that nobody offers any more ----
mkdir "$scenario_dir/programs"
cat >"$scenario_dir/programs/lint" <<'PROGRAM'
#!/bin/bash
[ "${1:-}" = --describe ] && echo "{\"name\": \"lint\", \"version\": \"$(cat "$(dirname "$0")/version")\"}" && exit
while read -r line; do
    id=$(sed 's/.*"id" *: *\("[^"]*"\|[0-9]*\).*/\1/' <<<"$line")
    echo "{\"id\": $id, \"output\": 1}"
done
PROGRAM
chmod +x "$scenario_dir/programs/lint"
echo 1.4.2 >"$scenario_dir/programs/version"
start_worker lint --slots 1 --handler-dir "$scenario_dir/programs"
comes "the program's worker is there" 'lint WORKER_STATE_ATTACHED' workers
pinned=$(submitted '{"api_version": "v1", "name": "x", "steps": {"a": {"uses": "lint@1", "with": {}},
    "w": {"needs": ["a"], "wait": {"signal": "go"}}, "b": {"needs": ["w"], "uses": "lint@1", "with": {}}}}')
comes "its first step ran" 'step a SUCCEEDED' explain "$pinned" a
stop_worker lint TERM
echo 1.5.0 >"$scenario_dir/programs/version"
start_worker lint --slots 1 --handler-dir "$scenario_dir/programs"
check "it goes on" cox task signal "$pinned" go
comes "another version does not do" 'its task is pinned to lint@1 in version 1.4.2' explain "$pinned" b
says "and what does" '^- start a worker with version 1.4.2' explain "$pinned" b
says "KEDA hears of it" '^active cox_steps 16 1$' scale lint@1

# ---- cordon and drain ----
cox task cancel "$pinned" >/dev/null 2>&1
stop_worker lint TERM
operate cordon w1
says "a cordoned worker" '^w1 WORKER_STATE_CORDONED' workers
held=$(submitted "$(step "$run")")
stop_coxd TERM
start_coxd
comes "it stays cordoned over a restart" '^w1 WORKER_STATE_CORDONED' workers
comes "why nothing runs" 'every worker that fits is cordoned or draining \(1\)' \
    explain "$held" a
operate uncordon w1
check "it runs once the cordon is lifted" cox task watch "$held"
operate drain w1
comes "a drained worker leaves" '^w1 WORKER_STATE_(DISCONNECTED|DRAINING)' workers
check "by itself, in order" await 20 eval '! kill -0 "${worker_pids[w1]}"'
says "a worker that nobody knows" 'NOT_FOUND NO_WORKER' drain nobody

# ---- numbers ----
start_worker w2 --slots 4
long=$(submitted '{"api_version": "v1", "name": "x", "steps": {"m": {"map": {"over": [1,2,3,4,5,6,7,8]},
    "run": {"argv": ["sleep", "0.3"]}}, "s": {"run": {"argv": ["sleep", "2"]}}}}')
comes "slots are busy" '^cox_slots\{.*state=busy.*\} [1-9]' stats cox_slots
says "and more than one sample comes" '^cox_slots' watch-stats cox_slots 3
check "the load ends" cox task watch "$long"
says "steps are counted" '^cox_steps_finished_total\{(kind=run,status=SUCCEEDED|status=SUCCEEDED,kind=run)\} [1-9]' \
    stats cox_steps_finished_total
comes "history has points" '^[1-9][0-9]* ' history cox_workers
says "of what there is" 'NOT_FOUND NO_METRIC' history cox_nothing
operate metrics >"$scenario_dir/metrics"
check_match "metrics as text" '^cox_step_run_seconds_bucket\{le="\+Inf"\} [1-9]' "$scenario_dir/metrics"
while read -r name; do
    grep -q "\`$name\`" "$scenario_root/docs/reference/metrics.md" || not_ok "$name is documented"
done < <(sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$scenario_dir/metrics")
if command -v promtool >/dev/null; then
    check "promtool finds nothing wrong" eval 'promtool check metrics <"$scenario_dir/metrics"'
else
    skip "promtool finds nothing wrong" "promtool is not there"
fi
finish
