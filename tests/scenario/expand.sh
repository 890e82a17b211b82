#!/bin/bash
# Steps that wait and expand, by real processes: races, waits, approvals, sub-tasks, programs that ask for steps and
# are called again, pause, retry, fork; and all of it over a kill -9 of the orchestrator.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3 pgrep

tools=$scenario_dir/tools
mkdir -p "$tools"
cp "$scenario_root/docs/examples/python/cox.py" "$tools/"
cat >"$tools/fib" <<'PY'
#!/usr/bin/env python3
import cox

@cox.tool
def fib(n: int) -> int:
    """Computes by asking for two smaller ones."""
    if n > 1 and not cox.context.again:
        return cox.call_again({"a": {"uses": "fib@1", "with": {"n": n - 1}},
                               "b": {"uses": "fib@1", "with": {"n": n - 2}}}, {"n": n})
    if n <= 1:
        return n
    assert cox.context.state["n"] == n
    return cox.context.steps["a"]["output"] + cox.context.steps["b"]["output"]

cox.main()
PY
cat >"$tools/rounds" <<'PY'
#!/usr/bin/env python3
import cox

@cox.tool
def rounds(of: int) -> list:
    """Runs one step after the other, as many as it is told, and one that fails in each round."""
    state = cox.context.state or []
    if cox.context.again:
        said = cox.context.steps["say"]
        assert cox.context.steps["fail"]["status"] == "FAILED", cox.context.steps
        assert cox.context.steps["fail"]["error"]["code"] == "EXIT_NONZERO"
        state = state + [said["output"]["stdout"].strip()]
    if len(state) == of:
        return state
    return cox.call_again({"say": {"run": {"argv": ["echo", "round %d" % len(state)]}},
                           "fail": {"run": {"argv": ["false"]}}}, state)

cox.main()
PY
cat >"$tools/ask" <<'PY'
#!/usr/bin/env python3
import cox

@cox.tool
def ask(word: str) -> str:
    """Submits a task of its own and waits for it."""
    task = {"api_version": "v1", "name": "asked", "inputs": {"word": {"type": "string"}},
            "steps": {"say": {"run": {"argv": ["echo", "${{ inputs.word }}"]}}},
            "outputs": {"said": "${{ steps.say.output.stdout }}"}}
    return cox.submit(task, {"word": word})["said"].strip()

cox.main()
PY
chmod +x "$tools/fib" "$tools/rounds" "$tools/ask"

start_coxd
export COX_HTTP=http://$coxd_http
start_worker w1 --slots 4 --handler-dir "$tools"

write() { cat >"$scenario_dir/$1"; }
submit() { cox task submit "$scenario_dir/$1" "${@:2}" -o name 2>>"$scenario_dir/err"; }
status() { cox task get "$1" -o json | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"])'; }
is() { [ "$(status "$1")" = "$2" ]; }
field() { python3 -c 'import json,sys; d=json.load(sys.stdin)
for k in sys.argv[1].split("."): d = d[int(k)] if isinstance(d, list) else d[k]
print(json.dumps(d) if not isinstance(d, str) else d)' "$1"; }
step_status() { cox task describe "$1" -o json | python3 -c 'import json,sys
print(next((s["status"] for s in json.load(sys.stdin)["steps"] if s["address"].split("/", 1)[1] == sys.argv[1]), "none"))' "$2"; }
step_is() { [ "$(step_status "$1" "$2")" = "$3" ]; }
await_restart() { stop_coxd KILL; start_coxd; }

# ---- race: the first success wins, the others are stopped
write race.yaml <<'Y'
api_version: v1
name: race
steps:
  first:
    race:
      - run: {argv: [sh, -c, "exec sleep 59.731"]}
      - run: {argv: [sh, -c, "exit 3"]}
      - run: {argv: [echo, fast]}
  none:
    race:
      - run: {argv: [sh, -c, "exit 4"]}
      - run: {argv: [sh, -c, "exit 5"]}
    fallback: {run: {argv: [echo, "${{ error.code }}"]}}
outputs: {first: "${{ steps.first.output.stdout }}", none: "${{ steps.none.output.stdout }}"}
Y
check_exit "a race is won by the first success" 0 cox task run "$scenario_dir/race.yaml" -o json
check_match "with its output" 'fast' "$scenario_dir/out"
check_match "and one that nobody wins goes to the fallback" 'EXIT_NONZERO' "$scenario_dir/out"
loser_is_gone() { pgrep -f "^sleep 59.731$"; [ $? = 1 ]; } # 1: none matched, and not that it could not be run
check "the loser's process is gone" await 20 loser_is_gone

# ---- waits, signals, approvals, over a kill
write wait.yaml <<'Y'
api_version: v1
name: wait
inputs: {at: {type: string}}
steps:
  cool: {wait: {for: 300ms}}
  past: {wait: {until: "${{ inputs.at }}"}}
  go: {wait: {signal: go}}
  ok: {needs: [cool], approval: {prompt: "Apply ${{ inputs.at }}?"}}
  late: {approval: {prompt: "Quick!", expires: 200ms, on_expire: approve}}
  end: {needs: [ok, past, late], run: {argv: [echo, "${{ steps.go.output.x }}", "${{ steps.ok.output.comment }}"]}}
outputs: {said: "${{ steps.end.output.stdout }}"}
Y
id=$(submit wait.yaml --input at=2020-01-01T00:00:00Z)
check "a task that only waits is WAITING" await 5 is "$id" WAITING
asleep() { curl -s "http://$coxd_http/metrics" | grep -q '^cox_tasks_asleep [1-9]'; }
check "and leaves memory" await 60 asleep
await_restart
check_equal "it still is after a kill" WAITING "$(status "$id")"
check_exit "an approval that is not there is not found" 3 cox task approve "$id" nothing
check "a signal" cox task signal "$id" go --payload '{"x": "sent"}'
check "an approval" cox task approve "$id" ok --comment fine
check_exit "it ends" 0 cox task watch "$id"
check_equal "with what was said" "sent fine" "$(cox task output "$id" -o json | field said | tr -d '\n')"
check_exit "it cannot be approved again" 2 cox task approve "$id" ok
id=$(submit wait.yaml --input at=2020-01-01T00:00:00Z)
await 5 step_is "$id" ok WAITING
check "a rejection" cox task reject "$id" ok --comment "not today"
check "a signal that nobody waits for any more" cox task signal "$id" go
check "fails the task" await 5 is "$id" FAILED
cox task get "$id" -o json >"$scenario_dir/out"
check_match "as denied" '"DENIED"' "$scenario_dir/out"

# ---- sub-tasks
write child.yaml <<'Y'
api_version: v1
kind: template
name: greet
version: 2
inputs: {who: {type: string}, fail: {type: boolean, default: false}}
steps:
  say: {run: {argv: [sh, -c, 'test "$FAIL" = false && echo "hello $WHO"'], env: {WHO: "${{ inputs.who }}", FAIL: "${{ inputs.fail }}"}}}
outputs: {text: "${{ steps.say.output.stdout }}"}
Y
write parent.yaml <<'Y'
api_version: v1
name: parent
inputs: {fail: {type: boolean, default: false}}
steps:
  names: {run: {argv: [echo, '["ada", "bob"]'], output: json}}
  one: {task: {ref: greet@2, inputs: {who: "${{ steps.names.output[0] }}", fail: "${{ inputs.fail }}"}}}
  each: {map: {over: "${{ steps.names.output }}", as: who}, task: {ref: greet@2, inputs: {who: "${{ who }}"}}}
outputs: {one: "${{ steps.one.output.text }}", each: "${{ steps.each.output }}"}
Y
check_exit "a task whose template is missing is refused" 2 cox task submit "$scenario_dir/parent.yaml"
check_match "by its name" 'greet@2' "$scenario_dir/err"
check "a template is kept" cox template apply "$scenario_dir/child.yaml"
check_exit "a task with sub-tasks succeeds" 0 cox task run "$scenario_dir/parent.yaml" -o json
check_equal "with their outputs" '["hello ada\n", "hello bob\n"]' \
    "$(python3 -c 'import json,sys; d=json.load(open(sys.argv[1])); d=d.get("outputs",d); print(json.dumps([e["text"] for e in d["each"]]))' "$scenario_dir/out")"
inner=$(cox task describe "$(sed -n 's/^\(t0-[0-9a-z]*\) submitted.*/\1/p' "$scenario_dir/err" | head -1)" -o json |
    python3 -c 'import json,sys; print(next(s["attempts"][0]["task"] for s in json.load(sys.stdin)["steps"] if s["address"].endswith("/one")))')
check_equal "whose steps can be looked at" "SUCCEEDED" "$(step_status "$inner" say)"
check_exit "a sub-task that fails fails its step" 1 cox task run "$scenario_dir/parent.yaml" --input fail=true
check_match "and says where" 'step say' "$scenario_dir/err"

# ---- programs that ask for steps
write fib.yaml <<'Y'
api_version: v1
name: fib
steps:
  f: {uses: fib@1, with: {n: 7}}
  r: {uses: rounds@1, with: {of: 5}}
  a: {uses: ask@1, with: {word: heard}, retry: {max_attempts: 5}}
outputs: {f: "${{ steps.f.output }}", r: "${{ steps.r.output }}", a: "${{ steps.a.output }}"}
Y
id=$(submit fib.yaml)
sleep 0.3 # somewhere in the middle: any moment will do
await_restart
check_exit "programs that are called again succeed, over a kill" 0 cox task watch "$id"
check_equal "steps in steps" 13 "$(cox task output "$id" -o json | field f)"
check_equal "a task that a program submitted" heard "$(cox task output "$id" -o json | field a)"
check_equal "rounds in order" '["round 0", "round 1", "round 2", "round 3", "round 4"]' "$(cox task output "$id" -o json | field r)"

# ---- pause and resume
write pause.yaml <<'Y'
api_version: v1
name: pause
steps:
  a: {run: {argv: [sleep, "3"]}}
  b: {needs: [a], run: {argv: [echo, done]}}
Y
id=$(submit pause.yaml)
await 5 step_is "$id" a RUNNING
check "pausing" cox task pause "$id"
check "lets what runs finish" await 10 step_is "$id" a SUCCEEDED
sleep 0.3 # that nothing happens is no event
check_equal "and starts nothing" PAUSED "$(status "$id")"
await_restart
check_equal "not even after a kill" "PAUSED READY" "$(status "$id") $(step_status "$id" b)"
check "resuming" cox task resume "$id"
check "goes on" await 5 is "$id" SUCCEEDED
check_exit "an ended task cannot be paused" 2 cox task pause "$id"

# ---- retry and fork of a task of 500 steps, the 401st of which fails
python3 - "$scenario_dir" <<'PY'
import json, sys
d = sys.argv[1]
run = lambda i: {"run": {"argv": ["sh", "-c", "echo %d >> %s/ran; test %d != 400 || test -e %s/mended" % (i, d, i, d)]}}
steps = {"s0": run(0)}
for i in range(1, 500):
    steps["s%d" % i] = dict(run(i), needs=["s%d" % (i - 1 if i % 10 else i - 10)])
json.dump({"api_version": "v1", "name": "five-hundred", "steps": steps}, open(d + "/five.json", "w"))
PY
id=$(submit five.json)
check_exit "a task of 500 steps fails at its 401st" 1 cox task watch "$id"
ran=$(wc -l <"$scenario_dir/ran")
check_equal "after 401 steps" 401 "$ran"
: >"$scenario_dir/ran"
fork=$(cox task fork "$id" --at s400 -o name)
check_exit "its fork fails there again" 1 cox task watch "$fork"
check_equal "having run one step" 1 "$(wc -l <"$scenario_dir/ran")"
touch "$scenario_dir/mended"
: >"$scenario_dir/ran"
fork=$(cox task fork "$id" --at s390 -o name)
check_exit "mended, a fork ten steps earlier succeeds" 0 cox task watch "$fork"
check_equal "having run what it must" "$(seq 390 499 | sort | tr '\n' ' ')" "$(sort "$scenario_dir/ran" | tr '\n' ' ')"
: >"$scenario_dir/ran"
check "the task itself is tried again" cox task retry "$id"
check_exit "and succeeds" 0 cox task watch "$id"
check_equal "having run what had not succeeded" "$(seq 400 499 | sort | tr '\n' ' ')" "$(sort "$scenario_dir/ran" | tr '\n' ' ')"
check_exit "once" 2 cox task retry "$id"
finish
