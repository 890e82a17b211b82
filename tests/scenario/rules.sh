#!/bin/bash
# The numbered rules of the task format by real programs: what a rule promises users, seen from outside. Each check
# bears its rule's number. (Rules 5 and 12 have scripts of their own too: map.sh, kept.sh, operate.sh. Rules 7 and 8
# are of agents and plans, which this version refuses.)
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3
cd "$scenario_dir" || exit 1

write() { cat >"$1"; }
submit() { cox task submit "$@" -q -o name; }
# holds NAME FILE EXPRESSION: the file is JSON, and the Python expression over it, `v`, is true.
holds() {
    if python3 - "$2" "$3" >python.log 2>&1 <<'PY'; then ok "$1"; else not_ok "$1" python.log; fi
import json, re, sys
v = json.load(open(sys.argv[1]))
steps = {s["address"].split("/", 1)[1]: s for s in v["steps"]} if isinstance(v.get("steps"), list) else {}
if not eval(sys.argv[2]):
    sys.exit(f"not true: {sys.argv[2]}\n{json.dumps(v, indent=1)[:6000]}")
PY
}
# described FILE ID: once the task has ended.
described() {
    cox task watch "$2" -q >/dev/null 2>&1
    cox task describe "$2" -o json >"$1"
}

start_coxd
start_worker w1 --slots 4 --label zone=a

# ---- rule 1: names, scope, addresses ----
write names.yaml <<'Y'
api_version: v1
name: names
steps:
  m: {map: {over: [5, 6], as: it}, run: {argv: [echo, "${{ it + item + index }}"], output: json}}
  w: {map: {over: [0, 1]}, race: [{run: {argv: [echo, "${{ index }}"], output: json}}, {wait: {signal: go}}]}
Y
id=$(submit names.yaml)
described names.json "$id"
holds "rule 1: item, its name, and index" names.json 'steps["m"]["output"] == [10, 13] and steps["w"]["output"] == [0, 1]'
holds "rule 1: addresses begin with the task's" names.json 'all(s["address"].startswith(v["id"] + "/") for s in v["steps"])'
for bad in 'Upper: {run: {argv: [x]}}' 'a-b: {run: {argv: [x]}}' '1a: {run: {argv: [x]}}' \
    'a: {map: {over: [], as: steps}, run: {argv: [x]}}' 'a: {run: {argv: ["${{ item }}"]}}'; do
    printf 'api_version: v1\nname: bad\nsteps:\n  %s\n' "$bad" >bad.yaml
    check_exit "rule 1: refused: $bad" 2 cox task submit bad.yaml
    check_match "rule 1: by its line" "bad.yaml:[34]: steps" err
done

# ---- rule 2: expressions ----
write expressions.yaml <<'Y'
api_version: v1
name: expressions
steps:
  first: {run: {argv: [echo, '{"n": 7, "s": "x", "deep": {"a": [1, null]}}'], output: json}}
  shell: {run: {argv: [sh, -c, 'printf %s "$V"; cat'], env: {V: "$(touch injected); \"${{ steps.first.output.s }}"}, stdin: "${{ steps.first.output.deep }}"}}
  broken: {run: {argv: [echo, "${{ steps.first.output.s + 1 }}"]}, allow_failure: true}
outputs:
  whole: "${{ steps.first.output.deep }}"
  number: "${{ steps.first.output.n + 1 }}"
  inside: "<${{ steps.first.output.s }} ${{ steps.first.output.deep }}>"
  null_path: "${{ steps.first.output.deep.a[1].b.c }}"
  choice: "${{ steps.first.output.n in [7, 8] && has(steps.first.output.s) ? 'yes' : 'no' }}"
  evil: "${{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$') }}"
  back: "${{ fromJSON(toJSON(steps.first.output.deep)).a[0] }}"
Y
id=$(submit expressions.yaml)
described expressions.json "$id"
holds "rule 2: a whole-string expression keeps its type" expressions.json 'v["outputs"]["whole"] == {"a": [1, None]} and v["outputs"]["number"] == 8'
holds "rule 2: inside a text, compact JSON" expressions.json "v['outputs']['inside'] == '<x {\"a\":[1,null]}>'"
holds "rule 2: the language" expressions.json 'v["outputs"]["choice"] == "yes" and v["outputs"]["null_path"] is None and v["outputs"]["back"] == 1'
holds "rule 2: patterns do not backtrack" expressions.json 'v["outputs"]["evil"] is False'
holds "rule 2: a reference is a need" expressions.json 'steps["shell"]["needs"] == ["first"]'
holds "rule 2: env and stdin are text and no shell code" expressions.json \
    "steps['shell']['output']['stdout'] == '\$(touch injected); \"x{\"a\":[1,null]}'"
holds "rule 2: a type error fails the step and names the expression" expressions.json \
    'steps["broken"]["status"] == "FAILED" and "steps.first.output.s + 1" in steps["broken"]["error"]["message"]'

# ---- rules 3, 4 and 6: failure, fallback, skips ----
write failure.yaml <<'Y'
api_version: v1
name: failure
steps:
  bad: {run: {argv: [sh, -c, "exit 3"]}, retry: {max_attempts: 3, initial_backoff: 10ms}, fallback: {run: {argv: [sh, -c, "exit 4"]}}}
  after: {needs: [bad], run: {argv: ["true"]}}
  later: {needs: [after], run: {argv: ["true"]}}
  other: {run: {argv: [sleep, "0.3"]}}
  allowed: {run: {argv: ["false"]}, allow_failure: true}
  goes_on: {needs: [allowed], run: {argv: ["true"]}}
  always: {needs: [bad], if: "${{ always() }}", run: {argv: ["true"]}}
  saved: {run: {argv: ["false"]}, fallback: {run: {argv: [echo, "${{ error.code }}"]}}}
  listed: {run: {argv: ["false"]}, retry: {max_attempts: 5, on: [TIMEOUT]}, allow_failure: true}
  slow: {run: {argv: [sleep, "60"]}, timeout: 200ms, allow_failure: true}
outputs: {never: "${{ steps.bad.output }}"}
Y
id=$(submit failure.yaml)
described failure.json "$id"
holds "rule 3: retry, then the fallback, then FAILED" failure.json \
    '[(a["exit_code"], a["fallback"]) for a in steps["bad"]["attempts"]] == [(3, False)] * 3 + [(4, True)] and steps["bad"]["status"] == "FAILED"'
holds "rule 3: dependants are SKIPPED, other branches finish" failure.json \
    '[steps[n]["status"] for n in ("after", "later", "other")] == ["SKIPPED", "SKIPPED", "SUCCEEDED"]'
holds "rule 3: the task is FAILED with the first error" failure.json \
    'v["status"] == "FAILED" and v["error"]["step"] == "bad" and v["error"]["code"] == "EXIT_NONZERO"'
holds "rule 3: allow_failure lets dependants run" failure.json 'steps["goes_on"]["status"] == "SUCCEEDED"'
holds "rule 3: only codes of retry.on are tried again" failure.json 'len(steps["listed"]["attempts"]) == 1'
holds "rule 3: a time limit is TIMEOUT" failure.json 'steps["slow"]["error"]["code"] == "TIMEOUT"'
holds "rule 4: a fallback succeeds as the step, marked" failure.json \
    'steps["saved"]["status"] == "SUCCEEDED" and steps["saved"]["via"] == "fallback" and steps["saved"]["output"]["stdout"] == "EXIT_NONZERO\n"'
holds "rule 6: always() runs after a failure" failure.json 'steps["always"]["status"] == "SUCCEEDED"'
write fast.yaml <<'Y'
api_version: v1
name: fast
fail_fast: true
steps:
  long: {run: {argv: [sleep, "600"]}}
  bad: {run: {argv: ["false"]}}
Y
id=$(submit fast.yaml)
described fast.json "$id"
holds "rule 3: fail_fast cancels the rest" fast.json 'v["status"] == "FAILED" and steps["long"]["status"] == "CANCELLED"'
write skip.yaml <<'Y'
api_version: v1
name: skip
steps:
  off: {if: false, run: {argv: ["true"]}}
  after: {needs: [off], run: {argv: ["true"]}}
  anyway: {if: "${{ steps.off.output.x.y == null }}", run: {argv: ["true"]}}
outputs: {off: "${{ steps.off.output }}", path: "${{ steps.after.output.a[3].b }}", status: "${{ steps.after.status }}"}
Y
id=$(submit skip.yaml)
described skip.json "$id"
holds "rule 6: a skip propagates" skip.json 'steps["after"]["status"] == "SKIPPED" and steps["anyway"]["status"] == "SUCCEEDED"'
holds "rule 6: skipped is null, and outputs keep their keys" skip.json \
    'v["status"] == "SUCCEEDED" and v["outputs"] == {"off": None, "path": None, "status": "SKIPPED"}'

# ---- rules 9 and 10: workspaces, outputs ----
write files.yaml <<'Y'
api_version: v1
name: files
steps:
  make: {run: {argv: [sh, -c, "echo kept >f; mkdir out; echo diff >out/d; head -c 200000 /dev/zero | tr '\\0' y"]}, artifacts: {patch: out/d}}
  same: {affinity: {workspace: make}, run: {argv: [cat, f]}}
  apart: {needs: [make], run: {argv: [ls, -A]}}
  whole: {run: {argv: [wc, -c], stdin: "${{ steps.make.output.stdout_blob }}"}}
  patch: {run: {argv: [cat], stdin: "${{ steps.make.artifacts.patch }}"}}
  big: {run: {argv: [python3, -c, 'import json; print(json.dumps({"list": ["z" * 100] * 1000}))'], output: json}}
  uses: {run: {argv: [echo, "${{ size(steps.big.output.list) }}"], output: json}}
  wrong: {run: {argv: [echo, no json], output: json}, allow_failure: true}
Y
id=$(submit files.yaml)
described files.json "$id"
holds "rule 9: a workspace is shared by who names it" files.json 'steps["same"]["output"]["stdout"] == "kept\n"'
holds "rule 9: and private otherwise" files.json 'steps["apart"]["output"]["stdout"] == ""'
holds "rule 10: a tail of 64 KiB inline, the whole by reference" files.json \
    'set(steps["same"]["output"]) == {"exit_code", "stdout", "stderr"} and steps["make"]["output"].get("stdout_blob", {}).get("size") == 200000 or "$blob" in steps["make"]["output"]'
holds "rule 10: the whole where it is used" files.json 'steps["whole"]["output"]["stdout"].strip() == "200000"'
holds "rule 10: artifacts are kept" files.json \
    'set(steps["make"]["artifacts"]["patch"]) == {"$blob", "size"} and steps["patch"]["output"]["stdout"] == "diff\n"'
holds "rule 10: a value too large to inline is a reference, resolved where it is used" files.json \
    'set(steps["big"]["output"]) == {"$blob", "size"} and steps["uses"]["output"] == 1000'
printf 'api_version: v1\nname: long\nsteps: {s: {run: {argv: [python3, -c, "print(chr(34) + chr(120) * 17000000 + chr(34))"], output: json}}}\noutputs: {s: "${{ steps.s.output }}"}\n' >long-output.yaml
id=$(submit long-output.yaml)
check_exit "rule 10: an output longer than an answer" 0 cox task watch "$id" -q --timeout 60s
check_equal "rule 10: comes whole" 17000000 "$(cox task output "$id" s --raw | wc -c)"
check_equal "rule 10: in the task's outputs too" 17000000 \
    "$(cox task output "$id" -o json | python3 -c 'import json, sys; print(len(json.load(sys.stdin)["s"]))')"
holds "rule 10: output that is no JSON is OUTPUT_INVALID" files.json 'steps["wrong"]["error"]["code"] == "OUTPUT_INVALID"'

# ---- rule 11: idempotency ----
write once.yaml <<'Y'
api_version: v1
name: once
steps:
  a: {run: {argv: [sh, -c, 'echo "$COX_IDEMPOTENCY_KEY $COX_ATTEMPT" >>"$LOG"; exit 1'], env: {LOG: LOGFILE}}, retry: {max_attempts: 2, initial_backoff: 10ms}, allow_failure: true}
  b: {needs: [a], run: {argv: [sh, -c, 'echo "$COX_IDEMPOTENCY_KEY $COX_ATTEMPT" >>"$LOG"'], env: {LOG: LOGFILE}}}
Y
sed -i "s|LOGFILE|$scenario_dir/keys|g" once.yaml
id=$(submit once.yaml --key k)
described once.json "$id"
check_equal "rule 11: same key and document, same task" "$id" "$(submit once.yaml --key k)"
sed 's/exit 1/exit 2/' once.yaml >other.yaml
check_exit "rule 11: same key, other document" 2 cox task submit other.yaml --key k -o json
check_match "rule 11: is ALREADY_EXISTS" "another document" err
check_equal "rule 11: attempts of a step see one key, other steps another" "3 2" \
    "$(wc -l <keys) $(cut -d' ' -f1 keys | sort -u | wc -l)"

# ---- rule 12: versions ----
write t.yaml <<'Y'
api_version: v1
kind: template
name: say
version: 2
steps: {s: {run: {argv: [echo, old]}}}
outputs: {said: "${{ steps.s.output.stdout }}"}
Y
write calls.yaml <<'Y'
api_version: v1
name: calls
steps:
  hold: {wait: {signal: go}}
  call: {needs: [hold], task: {ref: say@2}}
outputs: {said: "${{ steps.call.output.said }}"}
Y
check "rule 12: a template is kept" cox template apply t.yaml
id=$(submit calls.yaml)
sed -i 's/old/new/' t.yaml
check "rule 12: and changed" cox template apply t.yaml
cox task signal "$id" go >/dev/null 2>&1
described calls.json "$id"
holds "rule 12: a task stays with what it was submitted with" calls.json 'v["outputs"]["said"] == "old\n"'
id=$(submit calls.yaml)
cox task signal "$id" go >/dev/null 2>&1
described calls.json "$id"
holds "rule 12: the next has the new one" calls.json 'v["outputs"]["said"] == "new\n"'

# ---- rule 13: limits ----
cox version -o json >version.json
holds "rule 13: the limits are what the format says" version.json \
    '{"document_bytes": 4 << 20, "task_steps": 100000, "map_items": 10000000, "inline_value_bytes": 64 << 10, "output_bytes": 1 << 30, "log_bytes": 16 << 20, "depth": 16, "expression_cost": 100000}.items() <= v["limits"].items()'
large() { # large NAME STEPS DESCRIPTION-LENGTH
    python3 -c '
import json, sys
steps = {"s%d" % i: {"run": {"argv": ["true"]}} for i in range(int(sys.argv[1]))}
print(json.dumps({"api_version": "v1", "name": "large", "description": "x" * int(sys.argv[2]), "steps": steps}))' "$2" "$3" >"$1"
}
large long.json 1 $((4 << 20))
check_exit "rule 13: a document of more than 4 MiB" 2 cox task submit long.json
check_match "rule 13: is told its size" "4194304|4 MiB" err
large many.json 100001 1
check_exit "rule 13: a task of more than 100,000 steps" 2 cox task submit many.json
check_match "rule 13: is told how many" "100001 steps" err
write items.yaml <<'Y'
api_version: v1
name: items
steps:
  list: {run: {argv: [python3, -c, "print('[0' + ',0' * 10000000 + ']')"], output: json}}
  each: {map: {over: "${{ steps.list.output }}"}, jq: {program: ".", input: 1}}
Y
id=$(submit items.yaml)
check_exit "rule 13: a map over more than 10,000,000 items" 1 cox task watch "$id" -q --timeout 60s
cox task get "$id" -o json >items.json
holds "rule 13: is told the limit" items.json '"10000000" in v["error"]["message"]'
write down.yaml <<'Y'
api_version: v1
kind: template
name: down
steps: {s: {task: {ref: down@1}}}
Y
check "rule 13: a template that calls itself is kept" cox template apply down.yaml
printf 'api_version: v1\nname: deep\nsteps: {s: {task: {ref: down@1}}}\n' >deep.yaml
id=$(submit deep.yaml)
check_exit "rule 13: and ends" 1 cox task watch "$id" -q --timeout 60s
cox task get "$id" -o json >deep.json
holds "rule 13: at a depth of 16" deep.json '"deeper than 16" in v["error"]["message"]'

# ---- rule 14: scheduling fields ----
write where.yaml <<'Y'
api_version: v1
name: where
steps:
  a: {run: {argv: [sh, -c, "echo + >>$LOG; sleep 0.2; echo - >>$LOG"], env: {LOG: LOGFILE}}, concurrency: {key: one, limit: 1}, requires: "zone == a, spot != true"}
  b: {run: {argv: [sh, -c, "echo + >>$LOG; sleep 0.2; echo - >>$LOG"], env: {LOG: LOGFILE}}, concurrency: {key: one, limit: 1}, priority: 5}
Y
sed -i "s|LOGFILE|$scenario_dir/gate|g" where.yaml
id=$(submit where.yaml)
described where.json "$id"
check_equal "rule 14: concurrency holds back" "+ - + -" "$(paste -sd' ' gate)"
holds "rule 14: requires and priority are taken" where.json 'v["status"] == "SUCCEEDED"'
printf 'api_version: v1\nname: nowhere\nsteps: {a: {run: {argv: ["true"]}, requires: "zone == b"}}\n' >nowhere.yaml
id=$(submit nowhere.yaml)
check_exit "rule 14: what no worker has is waited for" 0 cox explain "$id/a"
check_match "rule 14: and named" "zone == b" out
cox task cancel "$id" >/dev/null 2>&1
printf 'api_version: v1\nname: s\nsteps: {a: {run: {argv: ["true"], sandbox: soft}}}\n' >bad.yaml
check_exit "rule 14: a sandbox that there is not is refused" 2 cox task submit bad.yaml
for field in priority=101 priority=-101; do
    printf 'api_version: v1\nname: bad\npriority: %s\nsteps: {a: {run: {argv: [x]}}}\n' "${field#*=}" >bad.yaml
    check_exit "rule 14: $field is refused" 2 cox validate bad.yaml
done
finish
