#!/bin/bash
# Agents, as people see them: two tools at once, an approval, a question, a word in between, cancelling, retrying
# after a failed model, kill -9 of coxd and of the worker. The simulated model answers by rules: what it has heard
# decides which of them fits, so a conversation that is wrong has another end.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox cox-modelsim python3

cd "$scenario_dir" || exit 1
cat >replies.yaml <<'E'
- match: {last: 'Sort it out', turn: 1}
  reply:
    tool_calls:
      - {name: look, arguments: {at: up}, id: c1}
      - {name: look, arguments: {at: down}, id: c2}
- match: {last: 'seen down', role: tool, turn: 2}
  reply: {tool_calls: [{name: erase, arguments: {at: floor}, id: c3}, {name: ask_user, arguments: {question: 'Which colour?'}, id: c4}]}
- match: {last: 'the "red" one', role: tool, turn: 3}
  reply: {text: Thinking., delay: 1s}
- match: {last: 'and hurry', role: user, turn: 4}
  reply: {text: All is red.}
- match: {last: 'Fail once', turn: 1}
  reply: {tool_calls: [{name: look, arguments: {at: once}, id: f1}]}
- match: {last: 'seen once', role: tool, turn: 2}
  times: 1
  reply: {error: {status: 400, message: not today, type: invalid_request_error}}
- match: {last: 'seen once', role: tool, turn: 2}
  reply: {text: Better now.}
- match: {last: 'Take long', turn: 1}
  reply: {tool_calls: [{name: wait, arguments: {}, id: w1}, {name: look, arguments: {at: aside}, id: w2}]}
- match: {last: 'seen aside', role: tool, turn: 2}
  reply: {text: Waited.}
E
agent() { # agent NAME INPUT
    cat >"$1.yaml" <<E
api_version: v1
name: $1
steps:
  triage:
    agent:
      instructions: Do as you are told.
      input: $2
      max_turns: 6
      approve: [erase]
      tools:
        - name: look
          description: looks somewhere
          parameters: {type: object, properties: {at: {type: string}}, required: [at]}
          run: {argv: [sh, -c, 'echo "looking \$0" >&2; printf "seen %s" "\$0"', "\${{ args.at }}"]}
        - name: erase
          description: erases
          parameters: {type: object, properties: {at: {type: string}}, required: [at]}
          run: {argv: [echo, "erased \${{ args.at }}"]}
        - name: wait
          description: waits
          run: {argv: [sh, -c, 'while ! [ -e "$scenario_dir/go" ]; do sleep 0.05; done; echo waited']}
        - {ask_user: true}
outputs: {answer: "\${{ steps.triage.output.content }}"}
E
    cox task submit "$1.yaml" -o name | sed 's,^task/,,'
}

"$COX_BUILD/cox-modelsim" --script replies.yaml --ready-file sim.ready >sim.log 2>&1 </dev/null &
sim_pid=$!
at_exit+=("stop_process $sim_pid TERM")
await_file sim.ready "$sim_pid" || { not_ok "the simulated server starts" sim.log; exit 1; }
url=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["endpoints"][0])' <sim.ready)
start() { start_coxd --model "default=$url"; }
start
start_worker w1 --slots 4

# is ID STEP STATUS: the step has this status.
is() { cox task describe "$1" "$2" -o json | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["steps"][0]["status"] != sys.argv[1])' "$3"; }
answer() { cox task output "$1" | python3 -c 'import json, sys; sys.stdout.write(json.load(sys.stdin)["answer"])'; }
steps() { cox task describe "$1" -o json | python3 -c '
import json, sys
for s in json.load(sys.stdin)["steps"]:
    a = s["attempts"]
    print(s["address"].split("/")[1], s["kind"], s["status"], "timed" if a and a[0].get("started_at") else "-")'; }

# ---- tools at once, an approval, a question ---------------------------------------------------------------

id=$(agent talk 'Sort it out.')
check "an approval is asked for" await 60 is "$id" triage.t2.erase.0.approval WAITING
check "and a question" await 60 is "$id" triage.t2.ask_user.1.approval WAITING
cox explain "$id/triage" >explain.log
check_match "what the agent waits for is explained" 'turn 2' explain.log
check_match "with the command that answers" "cox task approve $id triage.t2.erase.0.approval" explain.log
check_match "and the question" 'Which colour' explain.log
steps "$id" >steps.log
check_match "a turn that has ended is shown" '^triage\.t1 model SUCCEEDED timed$' steps.log
check_match "and its tools" '^triage\.t1\.look\.1 run SUCCEEDED timed$' steps.log
check_equal "a tool's output is there while the task lives" '"seen down"' "$(cox task output "$id" triage.t1.look.1 | python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["stdout"]))')"
check_exit "so is its log" 0 cox task logs "$id" triage.t1.look.1
check_match "whole" 'looking down' out
check "and what becomes of it is explained" cox explain "$id/triage.t1.look.1"
check_exit "a turn that never was is none" 3 cox task describe "$id" triage.t9
check_exit "nor is another call" 3 cox task output "$id" triage.t1.look.2
check_exit "a person allows it" 0 cox task approve "$id" triage.t2.erase.0.approval
check_exit "and answers" 0 cox task approve "$id" triage.t2.ask_user.1.approval --comment 'the "red" one'
curl -sN "http://$coxd_http/api/v1/tasks/$id/events?tokens=true" >events.log 2>/dev/null &
events_pid=$!
at_exit+=("stop_process $events_pid TERM")
check "the model thinks" await 60 is "$id" triage.t3 RUNNING
cox task logs -f "$id" triage.t3 >thought.log 2>&1 &
thought_pid=$!
check_exit "a word meanwhile" 0 cox task message "$id" triage 'and hurry' -o json
check_match "is said" '"said": *"and hurry"' out
check "is heard: the agent goes on" cox task watch "$id"
check_equal "to the end that belongs to all that was said" "All is red." "$(answer "$id")"
wait "$thought_pid"
check_equal "a turn's text was there to be followed" "Thinking." "$(cat thought.log)"
wait "$events_pid"
cat >texts.py <<'E'
import json, sys
texts = [json.loads(line[6:]) for line in open(sys.argv[1]) if line.startswith('data: {"step":')]
print("".join(t["text"] for t in texts if t["step"] == sys.argv[2]))
E
check_equal "also among the task's events, by its address" "Thinking." "$(python3 texts.py events.log "$id/triage.t3")"

# ---- what has ended -----------------------------------------------------------------------------------------

steps "$id" >steps.log
for step in 't1 model' 't1.look.0 run' 't2 model' 't2.erase.0 run' 't2.ask_user.1.approval approval' 't3 model' 't4 model'; do
    check_match "an ended task shows $step" "^triage\\.${step//./\\.} SUCCEEDED timed\$" steps.log
done
check_equal "and nothing beside these" 9 "$(wc -l <steps.log)"
cox task describe "$id" triage.t2.erase.0 -o json >one.json
check "one of them, with its attempt and worker" python3 - one.json "$id/triage.t2.erase.0" <<'E'
import json, sys
d = json.load(open(sys.argv[1]))
(s,) = d["steps"]
assert s["address"] == sys.argv[2] and s["attempts"][0]["worker"] == "w1" and s["output"]["stdout"] == "erased floor\n", s
assert d["status"] == "SUCCEEDED" and d["name"] == "talk", d
E
check_exit "its output" 0 cox task output "$id" triage.t2.erase.0
check_match "whole" 'erased floor' out
check_exit "its log" 0 cox task logs "$id" triage.t1.look.0
check_match "whole" 'looking up' out
check_exit "what a model said" 0 cox task logs "$id" triage.t4
check_match "whole" 'All is red.' out
check_exit "why it is there" 0 cox explain "$id/triage.t2.erase.0"
check_match "as a whole" 'triage.t2.erase.0 SUCCEEDED' out
check_exit "a word to it is too late" 2 cox task message "$id" 'hello'

# ---- cancelling, retrying ------------------------------------------------------------------------------------

id=$(agent drop 'Take long.')
check "a tool runs" await 60 is "$id" triage.t1.wait.0 RUNNING
check_exit "the task is cancelled" 0 cox task cancel "$id"
check_exit "and ends" 1 cox task watch "$id"
check "with its tool" is "$id" triage CANCELLED

id=$(agent again 'Fail once.')
check_exit "a model that fails, fails its agent" 1 cox task watch "$id"
check_exit "which is tried again" 0 cox task retry "$id"
check_exit "and goes on" 0 cox task watch "$id"
check_equal "where it was" "Better now." "$(answer "$id")"

# ---- a program that nobody offers ----------------------------------------------------------------------------

cat >lacks.yaml <<'E'
api_version: v1
name: lacks
steps:
  triage: {agent: {instructions: Do., input: Sort., tools: [{uses: nobody@1}]}}
E
id=$(cox task submit lacks.yaml -o name | sed 's,^task/,,')
check "an agent without its tool waits" await 60 is "$id" triage WAITING
explained() { cox explain "$id/triage" >explain.log && grep -q 'nobody@1' explain.log; }
check "and says which" await 60 explained
check_match "and what to do" 'attaches that offers it' explain.log
check_exit "it can be cancelled" 0 cox task cancel "$id"

# ---- kill -9 ---------------------------------------------------------------------------------------------------

id=$(agent long 'Take long.')
check "one tool has returned, one runs" await 60 is "$id" triage.t1.look.1 SUCCEEDED
cox task describe "$id" triage.t1.look.1 -o json >before.json
stop_coxd KILL
start
check "coxd has the agent where it was" await 60 is "$id" triage.t1.wait.0 RUNNING
stop_worker w1 KILL
start_worker w1 --slots 4
touch go
check "the agent ends" cox task watch "$id"
check_equal "with the conversation that it had" "Waited." "$(answer "$id")"
cox task describe "$id" triage.t1.look.1 -o json >after.json
check "and the tool that had returned was not run again" python3 - before.json after.json <<'E'
import json, sys
before, after = (json.load(open(f))["steps"][0] for f in sys.argv[1:])
assert before["attempts"] == after["attempts"] and after["address"].endswith("/triage.t1.look.1"), (before, after)
E
finish
