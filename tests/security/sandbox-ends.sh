#!/bin/bash
# What sandboxed steps use up and leave behind: bombs, orphans, workers killed, hosts that cannot. Controls run without.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox-sandbox cox python3
here=$(cd "$(dirname "$0")" && pwd)
if [ "$(uname -m)" != x86_64 ]; then
    skip sandbox-ends "the attacks know the numbers of x86-64's system calls"
    exit 0
fi
export COX_BUILD
mark=cox-orphan-$$
export ATTACK_MARK=$mark
work=$scenario_dir/work
at_exit+=("pgrep -f '^$mark' | xargs -r kill -9")

orphans() { pgrep -cf "^$mark"; }
sandboxes() { pgrep -cf "^cox-sandbox .*$scenario_dir"; }
mounts() { grep -c "$scenario_dir" /proc/self/mountinfo; }
# Nothing is left of any step: no process, no mount, no directory of an attempt.
nothing_left() { [ "$(orphans)" = 0 ] && [ "$(sandboxes)" = 0 ] && [ "$(mounts)" = 0 ]; }
left() { echo "orphans $(orphans), sandboxes $(sandboxes), mounts $(mounts), directories $(find "$work" -mindepth 2 -maxdepth 2 -name 'a*' 2>/dev/null | wc -l)"; }
attack() { # GROUP WORKER LEVEL
    ATTACK_AGENT=${worker_pids[$2]} python3 "$here/sandbox.py" "$@" >"$scenario_dir/attack.out" 2>&1 || scenario_failed=1
    grep -qE '^(ok|not ok|skip) ' "$scenario_dir/attack.out" || { not_ok "attacks $*" "$scenario_dir/attack.out"; return; }
    cat "$scenario_dir/attack.out"
    scenario_checks=$((scenario_checks + 1))
}
submit() { cox task submit -o name - <<<"$1"; }
step() { # LEVEL COMMAND: a document of one step
    python3 -c 'import json, sys; print(json.dumps({"api_version": "v1", "name": "s", "steps": {"a": {"run": {"argv": ["sh", "-c", sys.argv[2]], "sandbox": sys.argv[1], "env": {"MARK": sys.argv[3]}}}}}))' "$1" "$2" "$mark"
}
daemon='python3 -c "
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv(\"/bin/sleep\", [os.environ[\"MARK\"], \"300\"])
    os._exit(0)
os.wait()
"; touch started; sleep 0.2'

start_coxd
start_worker main --label name=main --work-dir "$work" --resources memory=4Gi,disk=4Gi --slots 4
cox worker describe main >"$scenario_dir/describe" 2>&1
if ! grep -q '^strict *yes' "$scenario_dir/describe"; then
    skip sandbox-ends "this host gives none: $(grep '^strict' "$scenario_dir/describe")"
    exit 0
fi

# ---- amounts
attack bombs main strict
attack bombs main none

# Not a bomb: one piece of memory that five processes look at.
cat >"$scenario_dir/common.json" <<'END'
{"api_version": "v1", "name": "common", "steps": {"a": {"resources": {"memory": "64Mi"}, "run": {"sandbox": "strict", "argv": ["python3", "-c",
  "import os, time\nx = bytearray(b'x') * (32 << 20)\nfor _ in range(4):\n  if os.fork() == 0:\n    time.sleep(0.7)\n    os._exit(x[5] != 120)\nfor _ in range(4):\n  assert os.wait()[1] == 0"]}}}}
END
check "memory that processes have in common counts once" cox task run "$scenario_dir/common.json"

# Nor is what a child borrows until it becomes another program. It stays between: it opens a pipe that nobody writes to.
cat >"$scenario_dir/borrowed.json" <<'END'
{"api_version": "v1", "name": "borrowed", "steps": {"a": {"resources": {"memory": "64Mi"}, "run": {"sandbox": "strict", "argv": ["python3", "-c",
  "import os, time\nos.mkfifo('f')\nif os.fork() == 0:\n  time.sleep(0.7)\n  os.close(os.open('f', os.O_WRONLY))\n  os._exit(0)\nx = bytearray(b'x') * (40 << 20)\nos.posix_spawn('/bin/true', ['true'], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, 'f', os.O_RDONLY, 0)])\nfor _ in range(2):\n  assert os.wait()[1] == 0"]}}}}
END
check "memory that a child borrows counts once" cox task run "$scenario_dir/borrowed.json"

id=$(submit "$(step strict 'python3 -c "
for name in (\"/dev/stdout\", \"/dev/stderr\", \"/proc/self/fd/1\"):
    open(name, \"w\").close()"')")
cox task watch "$id" >/dev/null 2>&1
check_match "a step opens its own output by its names" SUCCEEDED <(cox task describe "$id" 2>&1)

# ---- what is counted for all of a user: a step's is not root's
if [ "$(id -u)" = 0 ]; then
    can_watch() { python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).inotify_init1(0) < 0)'; }
    for level in none strict; do
        id=$(submit "$(python3 - "$here/sandbox_attacks.py" "$level" "$mark" <<'END'
import json, sys
print(json.dumps({"api_version": "v1", "name": "watches", "steps": {"a": {"run": {
    "argv": ["python3", "-c", open(sys.argv[1]).read(), "all_watches"], "sandbox": sys.argv[2], "env": {"ATTACK_MARK": sys.argv[3]}}}}}))
END
        )")
        await 20 eval '[ "$(orphans)" = 1 ]'
        [ $level = none ] && check_exit "control: at none a step uses up the watches of files that root has" 1 can_watch
        [ $level = strict ] && check "at strict root has its own" can_watch
        cox task cancel "$id" >/dev/null 2>&1
        cox task watch "$id" >/dev/null 2>&1
    done
fi

# ---- what starts the sandbox obeys nothing of the step's environment: it is outside, and may be root
for level in none strict; do
    id=$(submit '{"api_version": "v1", "name": "s", "steps": {"a": {"run": {"argv": ["true"], "sandbox": "'$level'",
        "env": {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": "'"$scenario_dir/loader-$level"'"}}}}}')
    cox task watch "$id" >/dev/null 2>&1
done
check "control: at none the loader writes where the environment says" ls "$scenario_dir"/loader-none.*
check_equal "at strict nothing outside is written" "" "$(find "$scenario_dir" -name 'loader-strict*')"

# ---- what a step leaves behind
id=$(submit "$(step none "$daemon")")
cox task watch "$id" >/dev/null 2>&1
check_equal "control: at none a process that left its session outlives its step" 1 "$(orphans)"
pgrep -f "^$mark" | xargs -r kill -9
await 10 nothing_left
id=$(submit "$(step strict "$daemon")")
cox task watch "$id" >/dev/null 2>&1
check_equal "at strict nothing outlives a step that has ended" "orphans 0, sandboxes 0, mounts 0, directories 0" "$(left)"
id=$(submit "$(step strict "$daemon; sleep 300")")
await 20 eval '[ "$(orphans)" = 1 ]'
cox task cancel "$id" >/dev/null 2>&1
cox task watch "$id" >/dev/null 2>&1
check_equal "nor one that was cancelled" "orphans 0, sandboxes 0, mounts 0, directories 0" "$(left)"
id=$(submit "$(step strict 'kill -9 0; kill -9 -1; sleep 300')")
cox task watch "$id" >/dev/null 2>&1
check_exit "a step that signals whoever it can ends itself alone" 0 cox worker describe main
echo "a secret of the host" >"$scenario_dir/secret"
id=$(submit "$(python3 -c 'import json, sys; print(json.dumps({"api_version": "v1", "name": "s", "steps": {"a": {"run": {"argv": ["sh", "-c", "ln -s " + sys.argv[1] + " x; ln -s / d"], "sandbox": "strict"}, "artifacts": {"x": "x"}}, "b": {"run": {"argv": ["sh", "-c", "ln -s / d"], "sandbox": "strict"}, "artifacts": {"x": "d" + sys.argv[1]}, "needs": []}, "c": {"run": {"argv": ["sh", "-c", "echo mine > x"], "sandbox": "strict"}, "artifacts": {"x": "x"}}}}))' "$scenario_dir/secret")")
cox task watch "$id" >/dev/null 2>&1
cox task describe "$id" >"$scenario_dir/links" 2>&1
check_match "a link to a file of the host is no artifact" '^a .*FAILED.*OUTPUT_INVALID' "$scenario_dir/links"
check_match "nor is a file behind a link" '^b .*FAILED.*OUTPUT_INVALID' "$scenario_dir/links"
check_match "control: a file of its own is" '^c .*SUCCEEDED' "$scenario_dir/links"

# ---- a worker that is killed
for level in none strict; do
    id=$(submit "$(step $level "$daemon; sleep 300")")
    await 20 eval '[ "$(orphans)" = 1 ]'
    stop_worker main KILL
    if [ $level = none ]; then
        check_equal "control: at none what left its session outlives a killed worker" 1 "$(orphans)"
        pgrep -f "^$mark" | xargs -r kill -9
    else
        await 10 nothing_left
        check_equal "a killed worker leaves no sandboxed process and no mount" "orphans 0, sandboxes 0, mounts 0" "$(left | sed 's/, directories.*//')"
    fi
    cox task cancel "$id" >/dev/null 2>&1
    start_worker main --label name=main --work-dir "$work" --resources memory=4Gi,disk=4Gi --slots 4
done
check_equal "the next worker removes its directories" 1 "$(find "$work" -mindepth 1 -maxdepth 1 | wc -l)"

# ---- levels of a worker
start_worker hard --label name=hard --sandbox strict --work-dir "$scenario_dir/hard"
cat >"$scenario_dir/levels.json" <<'END'
{"api_version": "v1", "name": "levels", "steps": {
  "unsaid": {"run": {"argv": ["id", "-un"]}, "requires": "name == hard"},
  "none": {"run": {"argv": ["id", "-un"], "sandbox": "none"}, "requires": "name == hard"},
  "jq": {"jq": {"program": "$__prog_args // env.HOME"}, "requires": "name == hard"},
  "net": {"run": {"argv": ["id", "-un"], "sandbox": "net"}, "requires": "name == hard"},
  "bare": {"run": {"argv": ["id", "-un"]}, "requires": "name == main"}}}
END
sed -i 's/\$__prog_args \/\/ env.HOME/env.HOME/' "$scenario_dir/levels.json"
id=$(cox task submit -o name "$scenario_dir/levels.json")
await 60 eval 'cox task describe "$id" -o json | grep -c SUCCEEDED | grep -qx "[4-9].*"'
stdout_of() { cox task describe "$id" -o json | python3 -c 'import json, sys; print({s["address"].partition("/")[2]: s for s in json.load(sys.stdin)["steps"]}[sys.argv[1]]["output"])' "$1"; }
check_match "a worker at strict runs what asks for nothing at strict" "'stdout': 'step" <(stdout_of unsaid)
check_match "and what asks for none" "'stdout': 'step" <(stdout_of none)
check_match "and jq" "/tmp" <(stdout_of jq)
check_match "control: a worker at none does not" "'stdout': '$(id -un)" <(stdout_of bare)
check_exit "a step that needs its network is not placed where there is none" 0 cox explain "$id/net"
check_match "and explain says why" "the sandbox net" "$scenario_dir/out"
cox task cancel "$id" >/dev/null 2>&1

# ---- a worker that would show every step the work of all others
ln -s . "$scenario_dir/link"
mkdir "$scenario_dir/seen"
start_worker shows --sandbox-read "$scenario_dir/link/seen" --work-dir "$scenario_dir/seen/work"
check_exit "a worker whose steps may read where all work says so" 0 cox worker describe shows
check_match "and gives no sandbox" '^strict *no: the work directory lies in what every step may read' "$scenario_dir/out"
stop_worker shows

# ---- a host that cannot: cox-sandbox is not there
mkdir "$scenario_dir/bare"
cp "$COX_BUILD/cox-worker" "$scenario_dir/bare/"
stop_worker main
stop_worker hard
(cd "$scenario_dir" && exec "$scenario_dir/bare/cox-worker" --orchestrator "$COX_ADDRESS" --worker-id bare \
    --ready-file "$scenario_dir/bare.ready" --work-dir "$scenario_dir/bare.dir") >"$scenario_dir/bare.log" 2>&1 </dev/null &
worker_pids[bare]=$!
await_file "$scenario_dir/bare.ready" "${worker_pids[bare]}" || not_ok "a worker without cox-sandbox attaches" "$scenario_dir/bare.log"
check_exit "a worker on a host that cannot says so" 0 cox worker describe bare
check_match "and why" '^strict *no: cannot start .*cox-sandbox: No such file' "$scenario_dir/out"
id=$(submit "$(step strict true)")
await 20 eval 'cox explain "$id/a" | grep -q "the sandbox strict"'
check_exit "its steps wait for a host that can, and are not run without" 0 cox explain "$id/a"
check_match "and explain names the sandbox" "no attached worker that offers run has the sandbox strict" "$scenario_dir/out"
check_exit "a worker that cannot keep its own --sandbox does not start" 1 "$scenario_dir/bare/cox-worker" \
    --orchestrator "$COX_ADDRESS" --sandbox strict --work-dir "$scenario_dir/bare.dir2"
check_match "and says why" 'level=strict why="?cannot start' "$scenario_dir/err"
finish
