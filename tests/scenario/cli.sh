#!/bin/bash
# The command line as scripts see it: exit codes, what goes where, and what survives a restart of coxd.
. "$(dirname "$0")/lib.sh"
need_programs cox

out=$scenario_dir/out
err=$scenario_dir/err
silent() { check_equal "$1: nothing on standard output" "" "$(cat "$out")"; }
# json NAME EXPRESSION: standard output is JSON, and the Python expression over it, `v`, is true.
json() {
    if python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$out" "$2" \
        2>"$scenario_dir/python.log"; then ok "$1"; else
        { echo "not true: $2"; cat "$out" "$scenario_dir/python.log"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}

# ---- without an orchestrator ----
unset COX_ADDRESS
check_exit "no verb is wrong use" 2 cox
check_exit "help is not" 0 cox help
check_match "help is on standard output" "cox task run" "$out"
check_exit "help of a verb" 0 cox task submit --help
check_match "with examples" "^  cox task submit" "$out"
check_exit "a misspelled verb" 2 cox taks run x
check_match "gets a suggestion" "did you mean cox task" "$err"
check_exit "a misspelled option" 2 cox task get t0-000001 --adress x
check_match "gets one too" "did you mean --address" "$err"
check_exit "a verb of a later version" 2 cox tenant list
check_match "says so" "not available in this version" "$err"
check_exit "a missing argument" 2 cox task get
check_exit "a bad format" 2 cox version -o xml
check_exit "version as JSON" 0 cox version -o json
json "version has limits" 'v["limits"]["task_steps"] == 100000'
check_exit "nobody there" 5 cox task get t0-000001 --address 127.0.0.1:1 --connect-timeout 100ms
check_match "says what was tried" "127.0.0.1:1: gave up after" "$err"
silent "nobody there"
check_exit "an address without a port" 5 cox task get t0-000001 --address 127.0.0.1 --connect-timeout 100ms
check_match "is told so" "Expected HOST:PORT" "$err"
check "completion is a script" bash -c "$COX_BUILD/cox completion bash | bash -n"

cat >"$scenario_dir/bad.yaml" <<'YAML'
api_version: v1
name: bad
steps:
  one:
    run:
      argv: ls -l
YAML
check_exit "a wrong type" 2 cox validate "$scenario_dir/bad.yaml"
check_match "is shown with its line" "bad.yaml:6: steps.one.run.argv: " "$err"
silent "validate"
check_exit "as JSON" 2 cox validate "$scenario_dir/bad.yaml" -o json
json "with path and line" 'v["valid"] is False and v["violations"][0]["path"] == "steps.one.run.argv" and v["violations"][0]["line"] == 6'
printf 'a: 1\nb: 2\na: 3\n' >"$scenario_dir/twice.yaml"
check_exit "a key given twice" 2 cox validate "$scenario_dir/twice.yaml"
check_match "is refused at its line and column" "twice.yaml:3:1: the key a was given before" "$err"
printf '{"a": 1,}' >"$scenario_dir/bad.json"
check_exit "broken JSON" 2 cox validate "$scenario_dir/bad.json"
check_match "is shown with line and column" "bad.json:1:9: expected a name" "$err"

# ---- with one ----
need_programs coxd cox-worker
start_coxd
closed=0
"$COX_BUILD/cox" task list -o json 2>"$err" >&- || closed=$?
check_equal "a closed standard output" "5 cox: cannot write the result: Bad file descriptor" "$closed $(cat "$err")"
start_worker w1 --slots 4

cat >"$scenario_dir/echo.yaml" <<'YAML'
api_version: v1
name: echo
inputs: {text: {type: string}, number: {type: integer, default: 0}}
steps:
  say:
    run: {argv: [printenv, TEXT], env: {TEXT: "${{ inputs.text }}"}}
outputs: {text: "${{ inputs.text }}", number: "${{ inputs.number }}", said: "${{ steps.say.output.stdout }}"}
YAML
cat >"$scenario_dir/sleep.yaml" <<'YAML'
api_version: v1
name: sleep
inputs: {seconds: {type: number, default: 60}}
steps:
  nap: {run: {argv: [sleep, "${{ inputs.seconds }}"]}}
YAML
cat >"$scenario_dir/fail.yaml" <<'YAML'
api_version: v1
name: fail
steps:
  good: {run: {argv: ["true"]}}
  broken: {run: {argv: [sh, -c, "seq 1 30 >&2; echo the reason >&2; exit 3"]}, retry: {max_attempts: 2, initial_backoff: 10ms}}
  later: {needs: [broken], run: {argv: ["true"]}}
YAML

check_exit "run prints outputs" 0 cox task run "$scenario_dir/echo.yaml" --input text=007 --input number=7
json "and only them; a string stays one" 'v == {"text": "007", "number": 7, "said": "007\n"}'
check_match "the id is on standard error" "^t0-[0-9a-z]+ submitted" "$err"
check_exit "-q is quiet" 0 cox task run -q "$scenario_dir/echo.yaml" --input text=x
check_equal "-q: nothing on standard error" "" "$(cat "$err")"
check_exit "a missing input" 2 cox task run "$scenario_dir/echo.yaml"
silent "a missing input"
check_exit "a wrong document" 2 cox task submit "$scenario_dir/bad.yaml"
check_match "is shown with the line in the file" "bad.yaml:6: steps.one.run.argv: " "$err"
check_exit "a dry run" 0 cox task submit "$scenario_dir/echo.yaml" --input text=x --dry-run

check_exit "submit" 0 cox task submit "$scenario_dir/echo.yaml" --input text=x --key once --label a=b -o name
id=$(cat "$out")
check_exit "again with its key" 0 cox task submit "$scenario_dir/echo.yaml" --input text=x --key once --label a=b -o json
json "is the same task" "v == {'id': '$id', 'existed': True}"
check_exit "its key with another document" 2 cox task submit "$scenario_dir/sleep.yaml" --key once
check_exit "from standard input" 0 bash -c "$COX_BUILD/cox task submit - --input text=x --wait -o json -q <'$scenario_dir/echo.yaml'"
json "and waited for" 'v["status"] == "SUCCEEDED" and v["outputs"]["text"] == "x"'

check_exit "watch" 0 cox task watch "$id"
check_exit "get" 0 cox task get "$id" -o json
json "has the contract's shape" 'set("id name tenant status labels created_at started_at finished_at inputs outputs error steps usage".split()) <= set(v) and v["steps"] == {"total": 1, "by_status": {"SUCCEEDED": 1}} and v["labels"] == {"a": "b"} and "cpu_seconds" in v["usage"] and v["error"] is None'
check_exit "describe" 0 cox task describe "$id" -o json
json "has steps with attempts" 'v["steps"][0]["attempts"][0]["worker"] == "w1" and v["steps"][0]["attempts"][0]["exit_code"] == 0'
check_exit "a table" 0 cox task get "$id"
check_match "with a heading" "^ID +NAME +STATUS" "$out"
check_exit "YAML" 0 cox task get "$id" -o yaml
check_match "in blocks" "^status: SUCCEEDED" "$out"
check_exit "output of a step" 0 cox task output "$id" say
json "is JSON" 'v["stdout"] == "x\n"'
check_exit "the log" 0 cox task logs "$id" say
check_equal "the log: as it was written" x "$(cat "$out")"
check_exit "an unknown task" 3 cox task get t0-zzzzzz
silent "an unknown task"
check_exit "an unknown step" 3 cox task output "$id" nothing
check_exit "workers" 0 cox worker list -o json
json "are listed" 'v["workers"][0]["id"] == "w1" and v["workers"][0]["slots"] == 4'
check_exit "a worker" 0 cox worker describe w1
check_exit "an unknown worker" 3 cox worker describe w9

check_exit "a failed task" 1 cox task run "$scenario_dir/fail.yaml"
silent "a failed task"
check_match "names code and step" "step broken FAILED: EXIT_NONZERO" "$err"
check_match "names the attempt, the worker, the exit code" "attempt 2 on w1: FAILED, exit code 3" "$err"
check_match "shows the end of stderr" "^    the reason" "$err"
check_equal "shows 20 lines of it" 20 "$(grep -c '^    [0-9t]' "$err")"
check_match "and the next command" "next: cox task logs t0-" "$err"

check_exit "time is up" 124 cox task submit "$scenario_dir/sleep.yaml" --wait --timeout 300ms -o json
json "shows the task as it is" 'v["status"] in ("PENDING", "RUNNING")'
one=$(cox task submit "$scenario_dir/sleep.yaml" -o name -q)
two=$(cox task submit "$scenario_dir/sleep.yaml" -o name -q)
check_exit "cancel several" 0 cox task cancel "$one" "$two" -o name
check_equal "cancel several: their ids" "$one $two" "$(paste -sd' ' "$out")"
check_exit "they end" 1 cox task watch "$one" -q --timeout 60s

# A job in the background ignores Ctrl-C unless told not to.
env --default-signal=INT "$COX_BUILD/cox" task run "$scenario_dir/sleep.yaml" >"$out" 2>"$err" </dev/null &
pid=$!
check "run goes on" await 20 grep -q submitted "$err"
kill -INT "$pid"
wait "$pid"
check_equal "Ctrl-C is 130" 130 $?
check_match "and says how to go on" "cox task watch t0-.*cox task cancel t0-" "$err"

# ---- a restart of coxd is a pause ----
"$COX_BUILD/cox" task run "$scenario_dir/sleep.yaml" --input seconds=2 --key nap >"$out" 2>"$err" </dev/null &
pid=$!
napping() { cox task submit "$scenario_dir/sleep.yaml" --input seconds=2 --key nap --wait --timeout 10ms -o jsonl | grep -q '"RUNNING":1'; }
check "the step runs" await 20 napping
stop_coxd KILL
start_coxd
wait "$pid"
check_equal "run outlives kill -9 of coxd" 0 $?
stop_coxd TERM
"$COX_BUILD/cox" task submit "$scenario_dir/echo.yaml" --input text=x -o name >"$out" 2>"$err" </dev/null &
pid=$!
check "submit waits for coxd" await 20 grep -q "trying for up to" "$err"
start_coxd
wait "$pid"
check_equal "submit reaches it" 0 $?
check_match "and prints an id" "^t0-" "$out"

finish
