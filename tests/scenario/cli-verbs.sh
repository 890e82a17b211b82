#!/bin/bash
# Every verb of `cox`, once where it does what it says and once where it cannot: exit code and what is printed. A verb
# of the table that one of the two is missing for is a failure of its own.
. "$(dirname "$0")/lib.sh"
need_programs cox coxd cox-worker python3

out=$scenario_dir/out
err=$scenario_dir/err
export HOME=$scenario_dir/home XDG_CONFIG_HOME=
mkdir -p "$HOME"
declare -A seen=()

# v CODE NAME VERB-WORDS ARGUMENT...: one run of a verb. What it printed is left in $out and $err.
v() {
    local code=$1 name=$2 verb=$3
    shift 3
    [ "$code" = 0 ] && seen[$verb:good]=1 || seen[$verb:bad]=1
    # shellcheck disable=SC2086
    check_exit "$verb: $name" "$code" cox $verb "$@"
}
# json NAME EXPRESSION: standard output is JSON, and the Python expression over it, `v`, is true.
json() {
    if python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); sys.exit(not eval(sys.argv[2]))' "$out" "$2" \
        2>"$scenario_dir/python.log"; then ok "$1"; else
        { echo "not true: $2"; cat "$out" "$err" "$scenario_dir/python.log"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}
silent() { check_equal "$1: nothing on standard output" "" "$(cat "$out")"; }
printed() { check_match "$1" "$2" "$out"; }
said() { check_match "$1" "$2" "$err"; }

cd "$scenario_dir" || exit 1
cat >ok.yaml <<'E'
api_version: v1
name: echo
labels: {kind: echo}
inputs: {text: {type: string, default: hello}, number: {type: integer, default: 0}}
steps:
  say: {run: {argv: [printenv, TEXT], env: {TEXT: "${{ inputs.text }}"}}}
outputs: {text: "${{ inputs.text }}", number: "${{ inputs.number }}", said: "${{ steps.say.output.stdout }}"}
E
cat >fail.yaml <<'E'
api_version: v1
name: fail
steps:
  good: {run: {argv: ["true"]}}
  broken: {run: {argv: [sh, -c, "seq 1 30 >&2; echo the reason >&2; test -e $MENDED"], env: {MENDED: MENDED_FILE}}, needs: [good]}
  later: {needs: [broken], run: {argv: ["true"]}}
E
sed -i "s|MENDED_FILE|$scenario_dir/mended|" fail.yaml
printf 'api_version: v1\nname: nap\nsteps:\n  nap: {run: {argv: [sleep, "600"]}}\n' >nap.yaml
cat >signal.yaml <<'E'
api_version: v1
name: waits
steps:
  go: {wait: {signal: go}}
  after: {run: {argv: [echo, "${{ toJSON(steps.go.output) }}"]}}
outputs: {got: "${{ steps.go.output }}"}
E
cat >approve.yaml <<'E'
api_version: v1
name: asks
steps:
  ask: {approval: {prompt: "Go on?"}}
  after: {needs: [ask], run: {argv: ["true"]}}
E
mkdir -p bundle/sub
echo "from the bundle" >bundle/sub/hello
echo "junk" >bundle/junk.o
echo "*.o" >bundle/.coxignore
cat >bundle.yaml <<'E'
api_version: v1
name: bundled
bundle: ./bundle
steps:
  look: {run: {argv: [sh, -c, 'cat "$COX_BUNDLE/sub/hello"; ls "$COX_BUNDLE"']}}
outputs: {text: "${{ steps.look.output.stdout }}"}
E
cat >template.yaml <<'E'
api_version: v1
kind: template
name: shout
version: 2
inputs: {text: {type: string}}
steps:
  up: {run: {argv: [tr, a-z, A-Z], stdin: "${{ inputs.text }}"}}
outputs: {text: "${{ steps.up.output.stdout }}"}
E
cat >schedule.yaml <<'E'
api_version: v1
kind: schedule
name: nightly
schedule: {cron: "0 3 * * *", time_zone: UTC, overlap: skip}
steps:
  tidy: {run: {argv: ["true"]}}
E
printf 'api_version: v1\nname: bad\nsteps:\n  one:\n    run: {argv: ls}\n' >bad.yaml

# ---- without an orchestrator ----
unset COX_ADDRESS
nobody=(--address 127.0.0.1:1 --connect-timeout 100ms)
v 0 "all verbs" help
cp "$out" help.txt
v 2 "no such verb" help nonsense
for shell in bash zsh fish; do v 0 "$shell" completion $shell; done
v 2 "another shell" completion tcsh
v 0 "limits" version -o json
json "version: has them" 'v["limits"]["task_steps"] == 100000 and v["limits"]["map_items"] == 10000000 and v["limits"]["depth"] == 16'
v 2 "an argument too many" version x
v 0 "a document, with its bundle" validate ok.yaml bundle.yaml template.yaml schedule.yaml
v 2 "a wrong one" validate bad.yaml
said "validate: names the line" "bad.yaml:5: steps.one.run.argv"
v 0 "a folder" init project
printed "init: names it" "^project$"
check_equal "init: what there is" "README.md orders.jsonl task.yaml tools" "$(ls project | paste -sd' ')"
check_equal "init: a line for each order" 1000 "$(wc -l <project/orders.jsonl)"
check "init: the task is valid" cox validate project/task.yaml
for tool in parse_order price_order write_receipt; do
    check "init: $tool describes itself" sh -c "project/tools/$tool --describe | python3 -m json.tool"
done
v 2 "what is there stays" init project
said "init: says what is in the way" "project/task.yaml is there already"

# ---- contexts ----
v 0 "nothing yet" "config view"
v 2 "without an address" "config set-context" one
v 0 "a new one" "config set-context" one --address 127.0.0.1:1111 --token secret --use
v 0 "another" "config set-context" two --address 127.0.0.1:2222
check_equal "config: for its owner only" 600 "$(stat -c %a "$HOME/.config/coxswain/config.yaml")"
v 0 "both" "config get-contexts" -o json
json "config get-contexts: the current one is marked" \
    '[(c["name"], c["address"], c["current"]) for c in v["contexts"]] == [("one", "127.0.0.1:1111", True), ("two", "127.0.0.1:2222", False)]'
v 0 "a token" "config view" -o json
json "config view: hides it" 'v["contexts"]["one"]["token"] == "(hidden)"'
v 0 "a token, shown" "config view" --show-tokens
printed "config view: shows it when asked" "token: secret"
check_exit "the current context is where a verb goes" 5 cox task get t0-1 --connect-timeout 0
said "and it says so" "127.0.0.1:1111"
v 0 "the other" "config use-context" two
check_exit "then that one" 5 cox task get t0-1 --connect-timeout 0
said "then it is that one" "127.0.0.1:2222"
check_exit "--context wins" 5 cox task get t0-1 --connect-timeout 0 --context one
said "--context: its address" "127.0.0.1:1111"
check_exit "a variable wins over the context" 5 env COX_ADDRESS=127.0.0.1:3 "$COX_BUILD/cox" task get t0-1 --connect-timeout 0
said "the variable's address" "127.0.0.1:3:"
v 3 "an unknown one" "config use-context" three
check_exit "--context of an unknown one" 2 cox task get t0-1 --context three
v 0 "the current one" "config delete-context" two
v 3 "again" "config delete-context" two
printf 'connect_timeout: soon\n' >broken-config.yaml
v 2 "a wrong value" "config view" --config broken-config.yaml
said "config: names the line" "broken-config.yaml:1: connect_timeout: \"soon\""
printf '\nadress: x\n' >broken-config.yaml
v 2 "an unknown key" "config get-contexts" --config broken-config.yaml
said "config: suggests" "broken-config.yaml:2: adress: unknown key; did you mean address"
v 0 "one is left" "config delete-context" one

# ---- with one ----
start_coxd --model llama=http://127.0.0.1:1,http://127.0.0.1:2 --model big=http://127.0.0.1:1
start_worker w1 --slots 4 --label zone=a

v 0 "prints outputs" "task run" ok.yaml --input text=007 --input number=7
json "task run: a string stays one" 'v == {"text": "007", "number": 7, "said": "007\n"}'
printf 'from a file' >text.txt
v 0 "@file" "task run" ok.yaml --input text=@text.txt -q
json "task run: the file's text" 'v["text"] == "from a file"'
printf 'text: yaml\nnumber: 3\n' >inputs.yaml
v 0 "--inputs" "task run" ok.yaml --inputs inputs.yaml --input number=4 -q
json "task run: --input wins" 'v["text"] == "yaml" and v["number"] == 4'
v 2 "@file that is not there" "task run" ok.yaml --input text=@nowhere
v 1 "a failing task" "task run" fail.yaml
said "task run: code, attempts, worker" "attempt 1 on w1: FAILED, exit code 1"
said "task run: stderr" "the reason"
said "task run: the next command" "next: cox task"
v 124 "a deadline" "task run" nap.yaml --timeout 200ms
v 0 "a bundle" "task run" bundle.yaml
json "task run: steps see it, without what is ignored" 'v["text"] == "from the bundle\nsub\n"'
said "task run: uploads it" "uploading ./bundle"
v 0 "the bundle again" "task run" bundle.yaml
check_equal "task run: known, not uploaded" 0 "$(grep -c uploading "$err")"

v 0 "with labels and a key" "task submit" ok.yaml --label run=one --label team=a --key k1 -o name --wait
id=$(head -n 1 "$out")
v 0 "the same key" "task submit" ok.yaml --label run=one --label team=a --key k1 -o json
json "task submit: the same task" "v == {'id': '$id', 'existed': True}"
v 0 "a dry run" "task submit" ok.yaml --dry-run
v 2 "a wrong document" "task submit" bad.yaml
said "task submit: names the line" "bad.yaml:5: steps.one.run.argv"
v 5 "nobody there" "task submit" ok.yaml "${nobody[@]}"

# for-each: lines good and bad, again, in part
printf '{"text": "a"}\n\n{"text": "b", "number": 2}\nnot json\n{"text": 5}\n[1]\n{"text": "c"}\n' >lines.jsonl
v 2 "lines, three of them wrong" "task submit" ok.yaml --for-each lines.jsonl --key lines --label run=lines -o jsonl
check_equal "for-each: each line told" 6 "$(wc -l <"$out")"
said "for-each: broken JSON by its line" "lines.jsonl:4: column 1: expected"
said "for-each: a wrong input by its line" "lines.jsonl:5: .*text"
said "for-each: no object" "lines.jsonl:6: expected an object of inputs, found an array"
python3 -c '
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
assert [r["line"] for r in rows if r["id"]] == [1, 3, 7], rows
assert {r["line"]: r["code"] for r in rows if not r["id"]} == {4: "INVALID_ARGUMENT", 5: "INVALID_ARGUMENT", 6: "INVALID_ARGUMENT"}, rows
' "$out" 2>python.log && ok "for-each: which are tasks" || not_ok "for-each: which are tasks" python.log
python3 -c 'import json,sys; print(*[r["id"] for r in map(json.loads, open(sys.argv[1])) if r["id"]])' "$out" >ids.txt
sed -n '1p;3p;7p' lines.jsonl >good.jsonl
v 0 "good lines" "task submit" ok.yaml --for-each good.jsonl --wait --label run=good -o json
json "for-each: waited for, with outputs" \
    'sorted((r["line"], r["status"], r["outputs"]["text"]) for r in v["results"]) == [(1, "SUCCEEDED", "a"), (2, "SUCCEEDED", "b"), (3, "SUCCEEDED", "c")]'
v 2 "the same lines again" "task submit" ok.yaml --for-each lines.jsonl --key lines --label run=lines -o jsonl
check_equal "for-each: the same tasks" "$(cat ids.txt)" \
    "$(python3 -c 'import json,sys; print(*[r["id"] for r in map(json.loads, open(sys.argv[1])) if r["id"]])' "$out")"
python3 -c 'for i in range(2500): print("{\"text\": \"%d\"}" % i)' >many.jsonl
v 0 "2,500 lines" "task submit" ok.yaml --for-each - --label run=many -q <many.jsonl
check_exit "for-each: 2,500 lines from standard input" 0 bash -c "$COX_BUILD/cox task submit ok.yaml --for-each - --label run=many -o name --dry-run <many.jsonl"
printf '{"api_version":"v1","name":"slow","steps":{"s":{"wait":{"for":"1h"}}}}' >slow.json
check_exit "for-each: what goes on when time is up" 124 bash -c "echo '{}' | $COX_BUILD/cox task submit slow.json --for-each - --wait --timeout 500ms -o json"
json "for-each: is told" 'len(v["results"]) == 1 and v["results"][0]["id"] and v["results"][0]["status"] is None'
check_exit "for-each: failures make exit code 1" 1 bash -c "echo '{}' | $COX_BUILD/cox task submit fail.yaml --for-each - --wait -o name"
said "for-each: and are named" "^-:1: t0-[0-9a-z]+ FAILED: EXIT_NONZERO in broken"

v 0 "by id" "task get" "$id" -o json
json "task get: it" "v['id'] == '$id' and v['status'] == 'SUCCEEDED'"
v 3 "an unknown id" "task get" t0-zzzzzz
silent "task get: unknown"
v 0 "a tree" "task describe" "$id"
printed "task describe: its step" "say .*SUCCEEDED"
v 3 "an unknown id" "task describe" t0-zzzzzz
v 0 "a step's output" "task output" "$id" say -o json
json "task output: it" 'v["stdout"] == "hello\n"'
v 3 "an unknown step" "task output" "$id" nowhere
v 0 "events" "task watch" "$id" -o jsonl
v 3 "an unknown id" "task watch" t0-zzzzzz
v 0 "a step's log" "task logs" "$id" say -f
v 3 "an unknown id" "task logs" t0-zzzzzz say

# ---- lists ----
listed() { [ "$(cox task list -l "$1" -o name --all | wc -l)" = "$2" ]; }
check "task list: all lines" await 20 listed run=lines 3
v 0 "by two labels" "task list" -l run=one -l team=a -o json
json "task list: the one" "[t['id'] for t in v['tasks']] == ['$id']"
v 0 "by status and age" "task list" --status failed,cancelled --since 1h -o jsonl
v 0 "a page" "task list" --limit 2
check_equal "task list: a heading and two" 3 "$(wc -l <"$out")"
said "task list: says that there are more" "--limit N or --all"
v 0 "wide" "task list" -l run=one -o wide
printed "task list: labels" "run=one"
v 2 "a wrong status" "task list" --status done
v 2 "a wrong time" "task list" --since yesterday

# ---- steering ----
submit() { cox task submit "$@" -q -o name; }
status() { cox task get "$1" -o json | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"])'; }
is() { [ "$(status "$1")" = "$2" ]; }
one=$(submit nap.yaml -l nap=1) two=$(submit nap.yaml -l nap=1)
check "both run" await 20 listed nap=1 2
v 0 "by label" "task pause" -l nap=1 --yes -o json
json "task pause: both" "sorted(r['id'] for r in v['results']) == sorted(['$one', '$two']) and {r['code'] for r in v['results']} == {'OK'}"
check "task pause: held" await 20 is "$one" PAUSED
v 3 "an unknown id" "task pause" t0-zzzzzz
v 0 "by id" "task resume" "$one" "$two"
v 3 "an unknown id" "task resume" t0-zzzzzz
v 3 "one of two is unknown" "task cancel" "$one" t0-zzzzzz -o name
check_equal "task cancel: the other is done" "$one" "$(cat "$out")"
v 0 "by label" "task cancel" -l nap=1 --reason enough
check "task cancel: ended" await 20 is "$two" CANCELLED
v 2 "neither ids nor labels" "task cancel"
v 2 "both" "task cancel" "$one" -l nap=1
v 0 "an ended task" "task delete" "$two"
v 3 "again" "task delete" "$two"
broken=$(submit fail.yaml)
check "a task fails" await 20 is "$broken" FAILED
v 0 "why" explain "$broken/broken"
printed "explain: names the code" "EXIT_NONZERO"
v 0 "why, as JSON" explain "$broken" -o json
json "explain: a line" 'v["summary"]'
v 3 "an unknown id" explain t0-zzzzzz
touch mended
v 0 "a while" "task token" "$broken" --expires 1h
printed "task token: the token alone" '^coxt_[0-9a-f]+\.[0-9a-f]{64}$'
v 2 "longer than a day" "task token" "$broken" --expires 2d
v 3 "no such task" "task token" t0-zzzzzz
v 0 "what failed" "task retry" "$broken"
check "task retry: now it succeeds" await 20 is "$broken" SUCCEEDED
v 2 "what has succeeded" "task retry" "$broken"
v 0 "other inputs" "task fork" "$id" --at say --input text=forked -o name
fork=$(cat "$out")
check "task fork: succeeds" await 20 is "$fork" SUCCEEDED
check_exit "task fork: with the new input" 0 cox task output "$fork" -o json
json "task fork: its outputs" 'v["text"] == "forked"'
v 3 "an unknown id" "task fork" t0-zzzzzz
waits=$(submit signal.yaml -l signalled=1)
check "a task waits" await 20 is "$waits" WAITING
v 0 "with a payload" "task signal" "$waits" go --payload '{"eur": 12}'
check "task signal: it goes on" await 20 is "$waits" SUCCEEDED
check_exit "task signal: outputs" 0 cox task output "$waits" -o json
json "task signal: the payload is there" 'v["got"]["eur"] == 12'
v 3 "an unknown id" "task signal" t0-zzzzzz go
asks=$(submit approve.yaml) asks2=$(submit approve.yaml)
check "a task asks" await 20 is "$asks" WAITING
v 0 "go on" "task approve" "$asks" ask --comment fine -o json
json "task approve: said" 'v["approved"] is True'
check "task approve: it goes on" await 20 is "$asks" SUCCEEDED
v 3 "an unknown step" "task approve" "$asks2" nowhere
v 0 "do not" "task reject" "$asks2" ask --comment no
check "task reject: it fails" await 20 is "$asks2" FAILED
v 3 "an unknown id" "task reject" t0-zzzzzz ask
cat >hears.yaml <<'E'
api_version: v1
name: hears
steps: {listener: {agent: {instructions: Listen., input: Well., tools: [{uses: nobody@1}]}}}
E
hears=$(submit hears.yaml)
begun() { cox explain "$hears/listener" | grep -q 'nobody@1'; }
check "an agent waits for its tool" await 20 begun
v 0 "to the only agent" "task message" "$hears" "go on" -o json
json "task message: said" 'v["said"] == "go on" and v["step"] == ""'
v 0 "to one by name" "task message" "$hears" listener "and hurry" -o name
v 3 "an unknown step" "task message" "$hears" nowhere hello
v 3 "an unknown id" "task message" t0-zzzzzz hello
v 2 "nothing" "task message" "$hears" ""

# ---- templates, schedules ----
v 0 "a file" "template apply" template.yaml
printed "template apply: its name" "^shout@2$"
v 2 "a wrong one" "template apply" bad.yaml
v 0 "all" "template list" -o json
json "template list: it" '[(t["name"], t["major"]) for t in v["templates"]] == [("shout", 2)]'
v 5 "nobody there" "template list" "${nobody[@]}"
v 0 "as YAML" "template get" shout
check "template get: applies again" bash -c "$COX_BUILD/cox template get shout@2 | $COX_BUILD/cox template apply -"
v 0 "as JSON" "template get" shout -o json
json "template get: with its document" 'v["document"]["steps"]["up"]'
v 3 "an unknown one" "template get" whisper
v 0 "by name and version" "template delete" shout@2
v 3 "again" "template delete" shout@2
v 0 "a file" "schedule apply" schedule.yaml
v 2 "no schedule" "schedule apply" ok.yaml
v 0 "all" "schedule list" -o json
json "schedule list: when it runs next" 'v["schedules"][0]["name"] == "nightly" and v["schedules"][0]["next_run_at"]'
v 5 "nobody there" "schedule list" "${nobody[@]}"
v 0 "as JSON" "schedule get" nightly -o json
json "schedule get: with its document" 'v["document"]["schedule"]["cron"] == "0 3 * * *"'
v 3 "an unknown one" "schedule get" daily
v 0 "by name" "schedule delete" nightly
v 3 "again" "schedule delete" nightly

# ---- workers ----
v 0 "all" "model list"
printed "model list: a row" "^llama +[0-2]/2 +0 +0"
v 0 "as JSON" "model list" -o json
json "model list: in the configuration's order" '[m["name"] for m in v["models"]] == ["llama", "big"]'
v 5 "nobody there" "model list" "${nobody[@]}"
v 0 "one" "model describe" llama
printed "model describe: its endpoints" "^127.0.0.1:2 "
v 3 "an unknown one" "model describe" gpt
said "model describe: says so" "no model gpt"
for by in program task tenant model; do v 0 "by $by" usage --by $by; done
printed "usage: a row a model" "^llama +0 "
v 0 "of one program" usage --program none -o json
json "usage: nothing yet" 'v["rows"] == []'
v 2 "by something else" usage --by hour
v 0 "wide" "worker list" -o wide
printed "worker list: its label" "w1 .*zone=a"
v 5 "nobody there" "worker list" "${nobody[@]}"
v 0 "one" "worker describe" w1 -o json
json "worker describe: it" 'v["worker"]["id"] == "w1"'
v 3 "an unknown one" "worker describe" nobody
v 0 "one" "worker cordon" w1
check_exit "worker cordon: shown" 0 cox worker list
printed "worker cordon: its state" "w1 +CORDONED"
v 3 "an unknown one" "worker cordon" nobody
v 0 "one" "worker uncordon" w1
v 3 "an unknown one" "worker uncordon" nobody
v 0 "once" top --once
printed "top: the workers" "w1 +ATTACHED"
v 0 "as JSON" top --once -o json
json "top: samples and workers" 'v["workers"][0]["id"] == "w1" and any(s["name"].startswith("cox_") for s in v["samples"])'
v 2 "no time" top --every 0
start_worker w2
v 0 "one" "worker drain" w2
ended() { ! kill -0 "${worker_pids[w2]}" 2>/dev/null; }
check "worker drain: its program ends" await 20 ended
v 3 "an unknown one" "worker drain" nobody

# ---- backups ----
v 0 "a CA and what it signs" "admin certs" certs -o json
json "admin certs: what it made" 'len(v["certificates"]) == 4'
v 2 "a role that is none" "admin certs" certs --client eve --role king
v 2 "a tenant that coxd would not take" "admin certs" certs --client eve --role reader --tenant Blue
v 2 "more days than there are" "admin certs" others --days 4294967295
v 2 "a tenant that coxd would not take" "admin token" eve --role reader --tenant Blue
v 0 "while it works" "admin backup" backup -o json
json "admin backup: what it holds" 'v["files"] > 0 and v["bytes"] > 0 and v["as_of_seq"] > 0'
v 2 "what is there stays" "admin backup" backup
v 0 "a backup" "admin verify" backup
v 0 "into a new folder" "admin restore" backup --data-dir restored
v 2 "without a place" "admin restore" backup
cp -r backup damaged
dd if=/dev/zero of=damaged/log.db bs=4096 seek=1 count=3 conv=notrunc 2>/dev/null
if cox admin verify damaged >"$out" 2>"$err"; then not_ok "admin verify: finds damage" "$out"; else ok "admin verify: finds damage"; fi
seen[admin verify:bad]=1
v 0 "a token" "admin token" ci --role submitter --tenant alpha --tenant beta --expires 2030-01-01 -o json
json "admin token: the row has its hash, not the token" \
    '__import__("hashlib").sha256(v["token"].encode()).hexdigest() == v["row"]["token_sha256"] and v["row"] == {"name": "ci", "token_sha256": v["row"]["token_sha256"], "roles": ["submitter"], "tenants": ["alpha", "beta"], "expires": "2030-01-01T00:00:00.000Z"}'
v 0 "for all tenants" "admin token" root --role admin
printed "admin token: the token alone" '^cox_[0-9a-f]{64}$'
said "admin token: its row beside it" '^  tenants: "\*"$'
v 2 "without a role" "admin token" ci
v 2 "an unknown role" "admin token" ci --role root
v 2 "a day that is none" "admin token" ci --role reader --expires tomorrow
v 1 "not quarantined" "admin lift" t0-000001 --data-dir restored
python3 -c 'import sqlite3
sqlite3.connect("restored/state.db", isolation_level=None).execute("INSERT INTO quarantine VALUES(1, 1, 0, 0, \"why\")")'
v 0 "quarantined" "admin lift" t0-000001 --data-dir restored

# ---- dev ----
stop_worker w1
v 0 "a command" dev project --once 'cox task run project/task.yaml -q'
json "dev: the project's tools run" 'v == {"receipt": "3 x pear: 3.60"}'
check_equal "dev: its context is gone" "" "$(cox config get-contexts -o name)"
v 7 "the command's exit code" dev project --once 'exit 7'

# ---- nothing forgotten ----
sed -n 's/^  cox \([a-z][a-z -]*[a-z]\) .*/\1/p' help.txt | while read -r line; do
    set -- $line
    case "$1" in
        admin | config | model | schedule | task | template | worker) echo "$1 $2" ;;
        *) echo "$1" ;;
    esac
done | sort -u >verbs.txt
check_equal "the help has as many verbs as the table" "$(grep -c '^  cox ' help.txt)" "$(($(wc -l <verbs.txt) + 1))"
while read -r verb; do
    for how in good bad; do
        [ -n "${seen[$verb:$how]:-}" ] || not_ok "$verb has a test of how it goes $how"
    done
done <verbs.txt
finish
