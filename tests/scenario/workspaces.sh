#!/bin/bash
# Shared workspaces outlive their worker: saved at the end of each step, made again where the next one runs, bit
# for bit. With real programs: a worker is killed with -9 in the middle of a step, and another
# drained between two; with and without a sandbox.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox cox-sandbox python3

# What a tree is, to the last bit that is kept: kind, mode, size and content of all, times of files.
digest='find . -mindepth 1 \( -type f -printf "%P f %m %s %T@ " -exec sha256sum {} \; -o -type d -printf "%P d %m\n" -o -type l -printf "%P l %l\n" \) | LC_ALL=C sort | sha256sum | cut -c1-64'
make='mkdir -p src/deep empty; for i in $(seq 200); do echo "file $i" > src/f$i.c; done; printf "#!/bin/sh\n" > run; chmod 755 run
ln -s src/f1.c link; ln -s /etc/passwd out; ln src/f2.c src/deep/hard; mkfifo pipe; printf x > "$(printf "new\nline")"; printf y > "$(printf "\377")"
head -c 3000000 /dev/urandom > big; : > nothing; chmod 400 src/f3.c; chmod 000 src/f4.c; chmod 500 src/deep'
stuck='if [ "$COX_ATTEMPT" = 1 ]; then chmod 700 src/deep; rm -rf src/deep big; echo junk > junk; sleep 600; fi; '

# steps LEVEL: the document.
steps() {
    python3 - "$1" "$digest" "$make" "$stuck" <<'PY'
import json, sys
level, digest, make, stuck = sys.argv[1:]
def run(script, **more):
    return dict(run={"argv": ["bash", "-c", script], "sandbox": level}, **more)
there = {"workspace": "make"}
print(json.dumps({"api_version": "v1", "name": "files", "steps": {
    "make": run(make + "\n" + digest),
    "change": run("echo changed > src/f7.c; rm src/f8.c; " + digest, affinity=there, needs=["make"]),
    "stuck": run(stuck + digest, affinity=there, needs=["change"]),
    "go": {"wait": {"signal": "go"}, "needs": ["stuck"]},
    "after": run(digest, affinity=there, needs=["go"]),
}, "outputs": {s: "${{ steps.%s.output.stdout }}" % s for s in ("make", "change", "stuck", "after")}}))
PY
}

# running TASK STEP
running() { cox task describe "$1" -o json | python3 -c '
import json, sys
steps = {s["address"].split("/")[-1]: s["status"] for s in json.load(sys.stdin)["steps"]}
sys.exit(steps.get(sys.argv[1]) != sys.argv[2])' "$2" "$3"; }

# output TASK NAME
output() { cox task get "$1" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["outputs"][sys.argv[1]].strip())' "$2"; }

# workers TASK STEP: of its attempts
workers() { cox task describe "$1" -o json | python3 -c '
import json, sys
print(*[a["worker"] for s in json.load(sys.stdin)["steps"] if s["address"].split("/")[-1] == sys.argv[1] for a in s["attempts"]])' "$2"; }

start_coxd
for level in none strict; do
    start_worker "a-$level" --slots 2
    steps "$level" >"$scenario_dir/$level.json"
    task=$(cox task submit "$scenario_dir/$level.json" -o name)
    if ! await 30 running "$task" stuck RUNNING; then
        { cox task describe "$task"; cox explain "$task/make"; } >"$scenario_dir/check.log"
        if grep -q "has the sandbox strict" "$scenario_dir/check.log"; then
            skip "$level" "this host has no such sandbox"
            continue
        fi
        not_ok "$level: the chain begins" "$scenario_dir/check.log"
        finish
    fi
    check "$level: describe shows it" await 30 eval 'cox worker describe "a-$level" | grep -q "1 on its disk, .* MiB, 0 not saved"'
    start_worker "b-$level" --slots 2
    stop_worker "a-$level" KILL
    check "$level: the step of a killed worker runs again, elsewhere" await 60 running "$task" go WAITING
    check_equal "$level: by whom" "a-$level b-$level" "$(workers "$task" stuck)"

    # Drained between two steps: nobody waits for it to be lost.
    start_worker "c-$level" --slots 2
    cox worker drain "b-$level" >/dev/null
    check "$level: the drained worker leaves" await 30 eval '! kill -0 "${worker_pids[b-'"$level"']}" 2>/dev/null'
    cox task signal "$task" go >/dev/null
    check "$level: the chain ends" cox task watch "$task"
    check_equal "$level: the last step ran on the third worker" "c-$level" "$(workers "$task" after)"
    check_equal "$level: the files after the kill are those before it" "$(output "$task" change)" "$(output "$task" stuck)"
    check_equal "$level: and after the drain" "$(output "$task" change)" "$(output "$task" after)"
    check "$level: which were not the first ones" test "$(output "$task" make)" != "$(output "$task" change)"
    stop_worker "c-$level" TERM
done

# Nobody uses it for a while: the directory goes, and comes back with the next step.
start_worker d --slots 2 --work-dir "$scenario_dir/d.dir" --workspace-ttl 1s
python3 -c '
import json, sys
make, digest = sys.argv[1:]
run = lambda script: {"run": {"argv": ["bash", "-c", script]}}
print(json.dumps({"api_version": "v1", "name": "idle", "steps": {
    "make": run(make + "\n" + digest),
    "go": {"wait": {"signal": "go"}, "needs": ["make"]},
    "after": dict(run(digest), affinity={"workspace": "make"}, needs=["go"])},
    "outputs": {s: "${{ steps.%s.output.stdout }}" % s for s in ("make", "after")}}))' "$make" "$digest" >"$scenario_dir/idle.json"
task=$(cox task submit "$scenario_dir/idle.json" -o name)
check "idle: its first step ends" await 60 running "$task" go WAITING
check "idle: describe shows none by then" await 30 eval '! cox worker describe d | grep -q WORKSPACES'
check "idle: its directory goes" await 30 eval '! ls -d "$scenario_dir"/d.dir/boot-*/w* 2>/dev/null'
cox task signal "$task" go >/dev/null
check "idle: the task ends" cox task watch "$task"
check_equal "idle: the files are what they were" "$(output "$task" make)" "$(output "$task" after)"
check "idle: and go with the task" await 30 eval '! ls -d "$scenario_dir"/d.dir/boot-*/w* 2>/dev/null'
finish
