#!/bin/bash
# Documents that are wrong in every way we know. Each is refused with exit code 2 and words that name the place
# and what was expected; nothing is created; the orchestrator is none the worse for it.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox python3

start_coxd
cd "$scenario_dir" || exit 1

# refused NAME FILE REGEX: the document on standard input, as FILE; a line of what is said matches REGEX.
refused() {
    cat >"$2"
    check_exit "$1: exit code" 2 cox task submit "$2"
    check_match "$1: words" "$3" err
    check_equal "$1: no id" "" "$(cat out)"
}

# step STEP REST: a document with this in its one step.
step() { printf '{"api_version": "v1", "name": "x", "steps": {"a": {%s}}%s}\n' "$1" "${2:-}"; }
run='"run": {"argv": ["true"]}'

# ---- malformed ----
printf '' | refused "an empty file" empty.json '^empty.json:1:1: expected a JSON value'
step "$run" | head -c 60 | refused "a document cut short" short.json '^short.json:1:61: expected'
echo '{"api_version": "v1",}' | refused "a comma too many" comma.json '^comma.json:1:22: expected a name'
printf 'api_version: v1\nsteps:\n  a: {run: {argv: [true}}\n' |
    refused "YAML that is not closed" open.yaml '^open.yaml:3:[0-9]+: .*expected'
printf '{"api_version": "v1", "name": "\377"}' |
    refused "invalid UTF-8" utf8.json '^utf8.json:1:[0-9]+: expected UTF-8'
printf 'api_version: v1\nname: "\377"\n' | refused "invalid UTF-8 in YAML" utf8.yaml '^utf8.yaml:[0-9:]+: .*UTF-8'
step '"run": {"argv": ["\ud800"]}' | refused "half a surrogate pair" half.json '^half.json:1:[0-9]+: expected'
python3 -c 'print("[" * 200 + "]" * 200)' | refused "nested too deep" deep.json '^deep.json:1:65: expected less nesting'

# ---- oversized ----
python3 -c 'print("{\"api_version\": \"v1\", \"name\": \"%s\"}" % ("x" * 5000000))' |
    refused "5 MB" big.json '4 MiB'
python3 -c 'import json; print(json.dumps({"api_version": "v1", "name": "x", "steps": {
    "s%d" % i: {"uses": "n@1"} for i in range(100001)}}))' |
    refused "100,001 steps" many.json '^many.json:1: steps: found 100001 steps, expected 1 to 100000'
{ echo 'a: &a [x,x,x,x,x,x,x,x]'
  for pair in ab bc cd de ef fg gh; do echo "${pair:1}: &${pair:1} [$(printf "*${pair::1},%.0s" {1..8})x]"; done
} | refused "aliases that explode" bomb.yaml '^bomb.yaml:[0-9]+:[0-9]+: aliases'
step '"run": {"argv": ["'"\${{ $(printf '1+%.0s' {1..9000})1 }}"'"]}' |
    refused "an expression of 18,000 characters" long.json 'steps.a.run.argv\[0\]: .*16384'
step '"run": {"argv": ["'"\${{ $(printf '(%.0s' {1..100})1$(printf ')%.0s' {1..100}) }}"'"]}' |
    refused "an expression nested too deep" nest.json 'steps.a.run.argv\[0\]: .*(nest|deep)'
check_exit "a key of 256 bytes" 2 cox task submit <(step "$run") --key "$(printf 'k%.0s' {1..256})"

# ---- misspelled, wrongly typed, missing ----
echo '[]' | refused "a list" list.json 'found a list, expected an object'
step '"rnu": {"argv": ["true"]}' | refused "a misspelled kind" kind.json 'steps.a.rnu: unknown field; did you mean `run`'
step "$run, \"timout\": \"3s\"" | refused "a misspelled field" field.json 'steps.a.timout: .*did you mean `timeout`'
step "$run, \"uses\": \"b@1\"" | refused "two kinds" two.json 'steps.a: .*exactly one kind'
step '"run": {"argv": "true"}' | refused "a string for a list" argv.json 'steps.a.run.argv: found the string "true", expected a list'
step '"run": {"argv": []}' | refused "no program" program.json 'steps.a.run.argv: .*expected'
step "$run, \"timeout\": \"soon\"" | refused "no duration" soon.json 'steps.a.timeout: found the string "soon", expected a duration'
step "$run, \"retry\": {\"max_attempts\": 0}" | refused "no attempt" zero.json 'steps.a.retry.max_attempts: .*from 1 to 1000'
step "$run, \"retry\": {\"on\": [\"RAIN\"]}" | refused "an unknown code" code.json 'steps.a.retry.on\[0\]: .*RAIN.*expected'
step "$run" ', "api_version": "v1"' | refused "a key twice" twice.json 'api_version: this key appears twice'
printf 'api_version: v1\nname: x\nsteps:\n  a: {run: {argv: [b]}}\n  a: {run: {argv: [c]}}\n' |
    refused "a step twice in YAML" twice.yaml '^twice.yaml:5:3: the key a was given before'
echo '{"api_version": "v2", "name": "x", "steps": {}}' | refused "another version" v2.json 'api_version: .*"v2", expected "v1"'
echo '{"api_version": "v1", "name": "No!", "steps": {"A": {"uses": "b@1"}}}' |
    refused "names" names.json 'steps(\.A|\["A"\]): .*expected a name'

# ---- graphs ----
echo '{"api_version": "v1", "name": "x", "steps": {"a": {"needs": ["c"], "uses": "n@1"},
  "b": {"needs": ["a"], "uses": "n@1"}, "c": {"needs": ["b"], "uses": "n@1"}}}' |
    refused "a cycle" cycle.json 'steps need each other in a cycle: a -> c -> b -> a'
step '"run": {"argv": ["${{ steps.a.output }}"]}' | refused "a step that reads itself" self.json 'steps.a.run.argv\[0\]: .*itself'
step "$run, \"needs\": [\"b\"]" | refused "a need that is not there" needs.json 'steps.a.needs\[0\]: unknown step `b`'
echo '{"api_version": "v1", "name": "x", "steps": {"fetch": {"uses": "n@1"},
  "b": {"run": {"argv": ["${{ steps.fetsh.output }}"]}}}}' |
    refused "an unknown step in an expression" fetch.json '^fetch.json:2: steps.b.run.argv\[0\]: .*unknown step `fetsh`; did you mean `fetch`'
step '"run": {"argv": ["${{ inputs.who }}"]}' | refused "an unknown input" input.json 'unknown input `who`'
step '"run": {"argv": ["${{ 1 + }}"]}' | refused "half an expression" plus.json 'steps.a.run.argv\[0\]: .*expected a value'
step '"run": {"argv": ["${{ 1"]}' | refused "an open expression" brace.json 'without its `}}`'

# ---- on the command line ----
step "$run" ', "inputs": {"n": {"type": "integer"}}' >typed.json
check_exit "an input of another type" 2 cox task submit typed.json --input n=many
check_match "an input of another type: words" 'inputs.n: .*expected' err
check_exit "an input that is missing" 2 cox task submit typed.json
check_match "an input that is missing: words" 'inputs.n' err
check_exit "an input that nobody asked for" 2 cox task submit typed.json --input n=1 --input m=2
check_match "an input that nobody asked for: words" 'inputs.m: unknown input' err
check_exit "a file that is not there" 2 cox task submit nowhere.json
check_exit "an id that is none" 3 cox task get not-an-id

# Ids are counted: the first task that is accepted is the first that there is.
step "$run" >good.json
check_exit "a good document" 0 cox task submit good.json -o name
check_equal "nothing was created before it" t0-000001 "$(cat out)"
check "the orchestrator is still the same" kill -0 "$coxd_pid"
finish
