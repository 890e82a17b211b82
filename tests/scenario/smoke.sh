#!/bin/bash
# The shortest way through everything: submit, run, read, kill -9, start again, read the same.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3

cat >"$scenario_dir/diamond.json" <<'END'
{"api_version": "v1", "name": "diamond", "inputs": {"who": {"type": "string", "default": "crew"}},
 "steps": {
   "a": {"run": {"argv": ["printf", "hello %s", "${{ inputs.who }}"]}},
   "b": {"run": {"argv": ["printf", "%s b", "${{ steps.a.output.stdout }}"]}},
   "c": {"run": {"argv": ["printf", "%s c", "${{ steps.a.output.stdout }}"]}},
   "d": {"run": {"argv": ["sh", "-c", "printf '%s, %s' \"$B\" \"$C\"; echo seen >&2"],
                 "env": {"B": "${{ steps.b.output.stdout }}", "C": "${{ steps.c.output.stdout }}"}}}},
 "outputs": {"text": "${{ steps.d.output.stdout }}"}}
END
cat >"$scenario_dir/large.json" <<'END'
{"api_version": "v1", "name": "large",
 "steps": {
   "make": {"run": {"argv": ["sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x"]}},
   "use": {"run": {"argv": ["wc", "-c"], "stdin": "${{ steps.make.output.stdout }}"}}},
 "outputs": {"n": "${{ steps.use.output.stdout }}", "size": "${{ size(steps.make.output.stdout) }}"}}
END
cat >"$scenario_dir/slow.json" <<'END'
{"api_version": "v1", "name": "slow",
 "steps": {"sleep": {"run": {"argv": ["sh", "-c", "echo ran >> \"$0\"; sleep 3; echo done", "MARK"]}}}}
END
sed -i "s|MARK|$scenario_dir/mark|" "$scenario_dir/slow.json"

submit() { cox task submit "$@" -o name; }
output() { cox task output "$1" -o json; }
value() { python3 -c 'import json, sys; print(eval(sys.argv[1], {}, {"v": json.load(sys.stdin)}))' "$1"; }

start_coxd
start_worker w1 --slots 2
check_equal "the worker is listed" w1 "$(cox worker list -o name)"

id=$(submit "$scenario_dir/diamond.json" --wait --timeout 30s)
check_equal "a diamond's outputs" "hello crew b, hello crew c" "$(output "$id" | value 'v["text"]')"
check "its last step's stderr" grep -q seen <(cox task logs "$id" d)

large=$(submit "$scenario_dir/large.json" --wait --timeout 30s)
check_equal "a value that is stored, not inlined" 40000 "$(output "$large" | value 'v["size"]')"
check_equal "the same on a step's standard input" 40000 "$(output "$large" | value 'v["n"].strip()')"

check_exit "no such task" 3 cox task get t0-zzzzzz
check_exit "a bad document" 2 cox task submit <(echo '{"api_version": "v1", "name": "x", "steps": {"a": {"rnu": {}}}}')

key1=$(submit "$scenario_dir/diamond.json" --key k1)
slow=$(submit "$scenario_dir/slow.json")
await 20 test -s "$scenario_dir/mark"
stop_coxd KILL
start_coxd
check_equal "the outputs after kill -9" "hello crew b, hello crew c" "$(output "$id" | value 'v["text"]')"
check_equal "the stored value after kill -9" 40000 "$(output "$large" | value 'v["size"]')"
check_equal "the same key gives the same task" "$key1" "$(submit "$scenario_dir/diamond.json" --key k1)"
check "a step that was running goes on" cox task watch "$slow"
check_equal "and was not run again" 1 "$(wc -l <"$scenario_dir/mark")"

stop_coxd TERM
check_equal "an orderly stop exits 0" 0 $?
start_coxd
check_equal "the outputs after an orderly stop" "hello crew b, hello crew c" "$(output "$id" | value 'v["text"]')"
finish
