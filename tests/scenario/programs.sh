#!/bin/bash
# Programs that workers serve: the Python examples, a hundred calls of three tools, a crash, wrong values, programs
# that come, go and cannot be described while everything runs.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3

cp -r "$scenario_root/docs/examples/python" "$scenario_dir/python"
tools=$scenario_dir/python/tools
printf '#!/bin/sh\nexit 1\n' >"$tools/broken@1"
printf '#!/bin/sh\necho "{\\"name\\":\\"other\\"}"\n' >"$tools/misnamed"
chmod +x "$tools/broken@1" "$tools/misnamed"

start_coxd
start_worker w1 --slots 2 --handler-dir "$tools" --http-allow 127.0.0.1

run() { cox task run -q -o jsonl "$@" 2>>"$scenario_dir/run.log"; }
# doc STEPS [OUTPUTS]: a task as JSON in $scenario_dir/task.json
doc() { printf '{"api_version":"v1","name":"t","steps":%s,"outputs":%s}' "$1" "${2:-{\}}" >"$scenario_dir/task.json"; }
serves() { cox worker describe w1 -o json | grep -q "\"$1\""; }
serves_not() { ! serves "$1"; }

check_match "a program that cannot be described is named" 'left out a program.*broken@1.*exit code 1' "$scenario_dir/w1.log"
check_match "so is one that calls itself something else" 'left out a program.*misnamed.*own name' "$scenario_dir/w1.log"
check_equal "the example" '{"first":{"crew":1,"oars":1,"pulls":1,"the":2},"changes":[{"path":"oars","kind":"removed"},{"path":"the","kind":"changed"},{"path":"together","kind":"added"}]}' \
    "$(run "$scenario_dir/python/words.yaml")"

# ---- three tools, a hundred calls each, by few processes ----
cat >"$tools/whoami" <<'END'
#!/usr/bin/env python3
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
import cox

@cox.tool
def whoami(n: int) -> dict:
    return {"pid": os.getpid(), "n": n, "here": os.path.samefile(os.getcwd(), os.environ["COX_WORKSPACE"])}

cox.main()
END
chmod +x "$tools/whoami"
check "a program that comes is offered without a restart" await 20 serves whoami@1
python3 - >"$scenario_dir/many.json" <<'PY'
import json
steps = {}
for i in range(100):
    steps[f"a{i}"] = {"uses": "whoami@1", "with": {"n": i}}
    steps[f"b{i}"] = {"uses": "word_count@1", "with": {"text": "a " * (i + 1)}}
    steps[f"c{i}"] = {"uses": "json_diff@2", "with": {"before": {"x": i}, "after": {"x": 50}}}
outputs = {"who": "${{ [" + ", ".join(f"steps.a{i}.output" for i in range(100)) + "] }}"}
outputs.update({f"n{i}": f"${{{{ steps.b{i}.output.a }}}}" for i in range(100)})
outputs["same"] = "${{ size(steps.c50.output) }}"
outputs["changed"] = "${{ size(steps.c51.output) }}"
print(json.dumps({"api_version": "v1", "name": "many", "steps": steps, "outputs": outputs}))
PY
run "$scenario_dir/many.json" >"$scenario_dir/many.out"
check_equal "three hundred calls give what they should, by at most two processes a tool" "True True True True" \
    "$(python3 - "$scenario_dir/many.out" <<'PY'
import json, sys
v = json.load(open(sys.argv[1]))
who = v["who"]
print([w["n"] for w in who] == list(range(100)), all(w["here"] for w in who), len({w["pid"] for w in who}) <= 2,
      all(v[f"n{i}"] == i + 1 for i in range(100)) and v["same"] == 0 and v["changed"] == 1)
PY
)"

# ---- failures ----
cat >"$tools/odd" <<'END'
#!/usr/bin/env python3
import os, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
import cox

@cox.tool
def odd(do: str, mark: str = "") -> int:
    if mark:
        with open(mark, "a") as f:
            f.write("x")
    if do == "crash":
        os.abort()
    if do == "once" and cox.context.attempt == 1:
        os.abort()
    if do == "never":
        raise cox.Error("UNAVAILABLE", "gone for good", retryable=False)
    return "text" if do == "text" else 3

cox.main()
END
chmod +x "$tools/odd"
check "another one" await 20 serves odd@1
# fails NAME CODE STEP: a task of this one step fails with the code.
fails() {
    doc "{\"s\":$3}"
    local id
    id=$(cox task submit "$scenario_dir/task.json" -o name -q --wait --timeout 30s)
    check_equal "$1" "$2" "$(cox task get "$id" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["error"]["code"])')"
}
once='"retry":{"max_attempts":1}'
fails "a crash" EXIT_NONZERO "{\"uses\":\"odd@1\",\"with\":{\"do\":\"crash\"},$once}"
fails "a result of another shape" OUTPUT_INVALID "{\"uses\":\"odd@1\",\"with\":{\"do\":\"text\"}}"
fails "an input of another shape" INPUT_INVALID "{\"uses\":\"odd@1\",\"with\":{\"do\":7}}"
fails "an error that must not be tried again" INTERNAL \
    "{\"uses\":\"odd@1\",\"with\":{\"do\":\"never\",\"mark\":\"$scenario_dir/never\"},\"retry\":{\"max_attempts\":3,\"initial_backoff\":\"10ms\"}}"
check_equal "was not" x "$(cat "$scenario_dir/never")"
doc "{\"s\":{\"uses\":\"odd@1\",\"with\":{\"do\":\"once\"},\"retry\":{\"max_attempts\":2,\"initial_backoff\":\"10ms\"}}}" '{"n":"${{ steps.s.output }}"}'
check_equal "a crash that is tried again" '{"n":3}' "$(run "$scenario_dir/task.json")"

cat >"$tools/reads" <<'END'
#!/usr/bin/env python3
import os, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
import cox

@cox.tool
def reads() -> str:
    return sys.stdin.read() + subprocess.run(["cat"], stdout=subprocess.PIPE).stdout.decode() + "nothing"

cox.main()
END
chmod +x "$tools/reads"
check "a tool that reads" await 20 serves reads@1
doc '{"s":{"uses":"reads@1","timeout":"10s"}}' '{"n":"${{ steps.s.output }}"}'
check_equal "has no call to read" '{"n":"nothing"}' "$(run "$scenario_dir/task.json")"

# ---- reload ----
sed -i 's/else 3$/else 4/' "$tools/odd"
changed() {
    doc '{"s":{"uses":"odd@1","with":{"do":"x"}}}' '{"n":"${{ steps.s.output }}"}'
    [ "$(run "$scenario_dir/task.json")" = '{"n":4}' ]
}
check "a program that changes is served as it is now" await 20 changed
rm "$tools/odd"
check "one that goes is offered no more" await 20 serves_not odd@1

# ---- work handed out, maps, workspaces ----
doc '{"s":{"uses":"survey@1","with":{"texts":["a b","b c","c"]}}}' '{"n":"${{ steps.s.output }}"}'
check_equal "a tool that hands work out and is called again" '{"n":{"a":1,"b":2,"c":2}}' "$(run "$scenario_dir/task.json")"
doc '{"m":{"map":{"over":"${{ [1,2,3,4,5] }}","as":"x","batch":2},"uses":"whoami@1","with":{"n":"${{ x }}"}}}' \
    '{"n":"${{ steps.m.output }}"}'
check_equal "a mapped tool" "[1, 2, 3, 4, 5]" \
    "$(run "$scenario_dir/task.json" | python3 -c 'import json, sys; print([v["n"] for v in json.load(sys.stdin)["n"]])')"
doc '{"w":{"run":{"argv":["sh","-c","echo x > f"]}},"v":{"needs":["w"],"affinity":{"workspace":"w"},"run":{"argv":["cat","f"]}}}' \
    '{"n":"${{ steps.v.output.stdout }}"}'
check_equal "a workspace of two steps" '{"n":"x\n"}' "$(run "$scenario_dir/task.json")"

# ---- blobs, artifacts, bundles ----
doc '{"big":{"run":{"argv":["seq","1","100000"]}},"use":{"run":{"argv":["wc","-l"],"stdin":"${{ steps.big.output.stdout_blob }}"}},
      "art":{"run":{"argv":["sh","-c","echo patch > out.diff"]},"artifacts":{"patch":"out.diff"}}}' \
    '{"n":"${{ steps.use.output.stdout }}","size":"${{ steps.big.output.stdout_blob.size }}"}'
check_equal "long output, whole on another step's standard input" '{"n":"100000\n","size":588895}' \
    "$(run "$scenario_dir/task.json")"
doc '{"m":{"map":{"over":"${{ [1,2,3,4,5] }}","as":"x","batch":3},"run":{"argv":["sh","-c","yes | head -c 70000"]}},
      "one":{"jq":{"program":".[4]","input":"${{ steps.m.output }}"}},
      "use":{"run":{"argv":["sh","-c","REF=${REF#*sha256:}; cat $COX_BLOBS/${REF%%[!0-9a-f]*}"],"output":"json",
                    "env":{"REF":"${{ steps.one.output }}"}}},
      "end":{"run":{"argv":["wc","-c"],"stdin":"${{ steps.use.output.stdout_blob }}"}}}' \
    '{"n":"${{ steps.end.output.stdout }}","items":"${{ size(steps.m.output) }}"}'
check_equal "long output of a map's items" '{"n":"70000\n","items":5}' "$(run "$scenario_dir/task.json")"
cp "$scenario_root/docs/examples/python/words.yaml" "$scenario_dir/bundled.yaml"
sed -i 's/word_count@1/.\/tools\/word_count/; s/json_diff@2/.\/tools\/json_diff@2/; s/^name: words/name: words\nbundle: .\/python/' \
    "$scenario_dir/bundled.yaml"
rm "$tools/broken@1" "$tools/misnamed"
check_equal "the example with its tools in a bundle" "$(run "$scenario_dir/python/words.yaml")" \
    "$(run "$scenario_dir/bundled.yaml")"
check_equal "which is not nothing" '{"first":{"crew":1' "$(run "$scenario_dir/bundled.yaml" | cut -c1-18)"

# ---- jq, http ----
python3 -u -m http.server --bind 127.0.0.1 --directory "$scenario_dir/python" 0 >"$scenario_dir/http.log" 2>&1 &
http_pid=$!
at_exit+=("kill $http_pid")
await_file "$scenario_dir/http.log" "$http_pid"
port=$(sed -n 's/.* port \([0-9]*\).*/\1/p' "$scenario_dir/http.log" | head -n 1)
doc "{\"s\":{\"http\":{\"url\":\"http://127.0.0.1:$port/words.yaml\"}}}" '{"n":"${{ steps.s.output.status }}","has":"${{ steps.s.output.body.contains(\"api_version: v1\") }}"}'
check_equal "http" '{"n":200,"has":true}' "$(run "$scenario_dir/task.json")"
fails "http of what is not there" INPUT_INVALID "{\"http\":{\"url\":\"http://127.0.0.1:$port/none\"}}"
doc '{"s":{"jq":{"program":"map(. * 2)","input":[1,2,3]}}}' '{"n":"${{ steps.s.output }}"}'
check_equal "jq" '{"n":[2,4,6]}' "$(run "$scenario_dir/task.json")"
finish
