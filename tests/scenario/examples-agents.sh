#!/bin/bash
# Every example of docs/examples/agents, run by real programs on a scripted model. Its rules match on what tools really gave; what
# comes out is checked here.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox cox-modelsim cc git python3

examples=$scenario_root/docs/examples/agents
"$COX_BUILD/cox-modelsim" --script "$examples/replies.yaml" --ready-file "$scenario_dir/modelsim.ready" \
    >"$scenario_dir/modelsim.log" 2>&1 </dev/null &
modelsim_pid=$!
at_exit+=('stop_process "$modelsim_pid" TERM')
await_file "$scenario_dir/modelsim.ready" "$modelsim_pid" || { not_ok "the model starts" "$scenario_dir/modelsim.log"; exit 1; }
model=default=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["endpoints"][0])' "$scenario_dir/modelsim.ready")
start_coxd --model "$model"
start_worker w1 --slots 4 --handler-dir "$scenario_root/docs/examples/python/tools" --http-allow 127.0.0.0/8

# run NAME [OPTION...]: the example's outputs to NAME.json; what happened to run.log.
run() {
    local name=$1
    shift
    cox task run -q "$examples/$name.yaml" "$@" >"$scenario_dir/$name.json" 2>>"$scenario_dir/run.log"
}
# is NAME EXPRESSION: true of the example's outputs, `o`.
is() {
    python3 -c 'import json, sys
o = json.load(open(sys.argv[1]))
sys.exit(not eval(sys.argv[2]) and f"not so: {sys.argv[2]}\n{json.dumps(o)}")' "$scenario_dir/$1.json" "$2"
}

for file in "$examples"/*.yaml; do
    [ "$(basename "$file")" = replies.yaml ] || check "$(basename "$file") is valid" cox validate "$file"
done

# ---- coder ----
check "coder: runs" run coder
check "coder: the tests pass" is coder 'o["tests"] == "0 failed\n"'
check "coder: it says why they did not" is coder '"pairs such as IV" in o["answer"]'
cp -r "$examples/roman" "$scenario_dir/roman"
check_exit "coder: before, a test fails" 1 env -C "$scenario_dir/roman" ./check
cp -r "$examples/roman" "$scenario_dir/mended"
python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["patch"], end="")' "$scenario_dir/coder.json" >"$scenario_dir/patch"
check "coder: its patch fits" git -C "$scenario_dir/mended" apply "$scenario_dir/patch"
check "coder: and mends" env -C "$scenario_dir/mended" ./check

# ---- cleaner: a question, an approval, a rejection ----
id=$(cox task submit "$examples/cleaner.yaml" -o name -q)
check "cleaner: it asks" await 20 cox task approve "$id" clean.t2.ask_user.0.approval --comment "the logs only"
waits() { cox task describe "$id" -o json | grep -q 'clean.t3.delete.1.approval'; }
check "cleaner: two deletions wait" await 20 waits
stop_coxd KILL # what was said, asked and answered is kept
start_coxd --model "$model"
check "cleaner: after a crash one is approved" await 20 cox task approve "$id" clean.t3.delete.0.approval
check "cleaner: and the other is rejected" await 20 cox task reject "$id" clean.t3.delete.1.approval --comment "not that one"
check "cleaner: it goes on" cox task watch "$id" --timeout 60s
cox task output "$id" -o json >"$scenario_dir/cleaner.json"
check "cleaner: only what was approved is gone" is cleaner 'o["left"] == ["notes.txt", "photo.jpg"]'
check "cleaner: the agent was told" is cleaner 'o["answer"] == "old.log is deleted; notes.txt stays."'

# ---- team ----
check "team: runs" run team
check "team: what its experts said" is team 'o == {"advice": "Take boots and an umbrella, and eat at the Fish Stall of Oslo.", "umbrella": True}'

# ---- tools in Python ----
check "python-tools: runs" run python-tools
check "python-tools: what they counted" is python-tools 'o["answer"] == "\"oars\" went and \"together\" came; \"the\" is there three times."'

# ---- research: a catalogue over MCP, documents over HTTP ----
mkdir "$scenario_dir/site"
echo "2.3.2 418 I'm a teapot: any attempt to brew coffee with a teapot" >"$scenario_dir/site/rfc2324.txt"
python3 -u -m http.server --bind 127.0.0.1 --directory "$scenario_dir/site" 0 >"$scenario_dir/site.log" 2>&1 </dev/null &
site_pid=$!
at_exit+=('stop_process "$site_pid" TERM')
check "research: a site" await_file "$scenario_dir/site.log" "$site_pid"
port=$(sed -n 's/.* port \([0-9]*\) .*/\1/p' "$scenario_dir/site.log")
check_exit "research: runs" 0 cox task run "$examples/research.yaml" --input "site=http://127.0.0.1:$port"
cp "$scenario_dir/out" "$scenario_dir/research.json"
check "research: the answer is that of the document" is research 'o == {"answer": "It answers 418, I am a teapot.", "sources": [2324]}'
check_match "research: it searched" 'research.t1.search.1 +SUCCEEDED' "$scenario_dir/err"
check_match "research: a document that is not there is said to be so" 'research.t2.read.0 +FAILED .*404' "$scenario_dir/err"
cp "$scenario_dir/err" "$scenario_dir/research.err" # check_exit writes its own
check_exit "research: nothing was called that is not allowed" 1 grep -q 'research[.]t1[.][a-z]*[.]0' "$scenario_dir/research.err"

# ---- documents: 10,000 calls of a model, reduced ----
check "documents: runs" run documents --input n=10000
check "documents: each has its topic" is documents 'o["by_topic"] == {"billing": 3334, "crash": 3333, "delivery": 3333} and o["failed"] == 0'
check "documents: the agent reports" is documents 'o["report"].startswith("In equal parts: invoices")'

# ---- a graph in a step ----
check "graph: runs" run graph
check "graph: it went round" is graph 'o == {"text": "Eight people row as one.", "rounds": 2, "reviews": ["Say who rows."]}'

# ---- planner: what is not allowed is refused, what is allowed is run ----
check_exit "planner: runs" 0 cox task run "$examples/planner.yaml"
cp "$scenario_dir/out" "$scenario_dir/planner.json"
check "planner: what came of the plan" is planner 'o == {"answer": {"changed": ["oars", "the", "together"], "words": 4}}'
check_match "planner: a step of the plan" 'solve.compare +SUCCEEDED' "$scenario_dir/err"
check_match "planner: the second answer was taken" 'solve.t2 +SUCCEEDED' "$scenario_dir/err"
cp "$scenario_dir/err" "$scenario_dir/planner.err"
check_exit "planner: what is not allowed was not run" 1 grep -q "solve.count" "$scenario_dir/planner.err"

# ---- the audit's agent: what it may see, and what comes into the report ----
mkdir "$scenario_dir/tree"
printf 'int main(void) {}\n' >"$scenario_dir/tree/main.c"
echo "# A tree" >"$scenario_dir/tree/README.md"
check_exit "repo-audit: runs" 0 cox task run "$examples/../repo-audit.yaml" --input "repo=$scenario_dir/tree"
cp "$scenario_dir/out" "$scenario_dir/audit.json"
check "repo-audit: the report has what the agent said" is audit 'o["summary"].startswith("No model was asked") and o["summary"] in o["report"]'
check_match "repo-audit: the agent opened a file" 'summary.t1.look.0 +SUCCEEDED' "$scenario_dir/err"
ln -sf /etc/passwd "$scenario_dir/tree/README.md"
check_exit "repo-audit: runs again" 0 cox task run "$examples/../repo-audit.yaml" --input "repo=$scenario_dir/tree"
check_match "repo-audit: what is not audited is not shown to the agent" 'summary.t1.look.0 +FAILED .*there is no such file' "$scenario_dir/err"

finish
