#!/bin/bash
# Secrets over the life of a task: tried again, slept over, forked, in a map, in a sandbox, over a checkpoint and a
# restart. Each attempt gets them anew from its worker, tells them, and they stand nowhere afterwards.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox python3
files=$scenario_dir/secrets
said=$scenario_dir/said
mkdir -p "$files" "$said"
chmod 755 "$scenario_dir"

# Values of this run alone. `visible` is told in the same ways and is no secret: where it is found, the others would be.
random() { od -An -tx1 -N12 /dev/urandom | tr -d ' \n'; }
visible=visible-$(random)
from_file=file-$(random)+\"q\"
from_env=env-$(random)
printf '%s' "$from_file" >"$files/slack"
export FOR_THE_WORKER=$from_env
cat >"$scenario_dir/worker.yaml" <<YAML
secrets: {variable: {env: FOR_THE_WORKER}}
YAML
printf '%s\0%s\0' "$from_file" "$from_env" >"$scenario_dir/values"
printf '%s\0' "$visible" >"$scenario_dir/visible"

start_coxd --log-level debug --checkpoint-bytes 64Ki
worker_flags=(--secrets-dir "$files" --config "$scenario_dir/worker.yaml" --work-dir "$scenario_dir/work" --log-level debug --slots 4)
start_worker w1 "${worker_flags[@]}"

# Tells both in every stream, in a file that is kept, and in what it leaves lying.
mkdir -p "$scenario_dir/tell"
cat >"$scenario_dir/tell/tell.py" <<'PY'
import base64, json, os, sys
values = [os.environ["FILE"], os.environ["VARIABLE"], os.environ["VISIBLE"], sys.stdin.read()]
for out in (sys.stdout, sys.stderr, open("kept", "w"), open("left", "w"), open("/tmp/left-" + os.environ["COX_ATTEMPT"], "w")):
    for v in values:
        print("tells", v, base64.b64encode(v.encode()).decode(), v.encode().hex(), json.dumps(v), file=out, flush=True)
if os.environ.get("ONCE") and not os.path.exists(os.environ["ONCE"]):
    open(os.environ["ONCE"], "w").close()
    sys.exit(f"failed with {values}")
PY
# tells LEVEL [ENVIRONMENT]: a step's body
tells() {
    printf 'run: {argv: [sh, -c, "exec python3 $COX_BUNDLE/tell.py"], sandbox: %s, stdin: "${{ secrets.VARIABLE }}", env: {FILE: "${{ secrets.FILE }}", VARIABLE: "${{ secrets.VARIABLE }}", VISIBLE: %s%s}}, secrets: {FILE: slack, VARIABLE: variable}' \
        "$1" "$visible" "${2:-}"
}
submit() { # submit NAME STEPS: the task's id
    printf 'api_version: v1\nname: %s\nbundle: ./tell\nsteps:\n%s\n' "$1" "$2" >"$scenario_dir/$1.yaml"
    cox task submit "$scenario_dir/$1.yaml" -o name 2>"$said/$1.submit" || cat "$said/$1.submit" >&2
}
end_of() { # end_of ID NAME: its status at the end; keeps all that can be read of it
    timeout 100 "$COX_BUILD/cox" task watch "$1" -o jsonl >"$said/$2.watch" 2>&1
    cox task describe "$1" -o json >"$said/$2.json"
    { cox task logs "$1" a; cox task output "$1" -o json; cox explain "$1"; } >"$said/$2.more" 2>&1
    field "$2" 't["status"]'
}
field() { python3 -c 'import json, sys; print(eval(sys.argv[2], {"json": json, "t": json.load(open(sys.argv[1]))}))' "$said/$1.json" "$2" 2>&1; }
out_of() { # out_of NAME STEP: how often a step's output has the marks of all three, and what is no secret
    field "$1" '[(o.count("tells *** ***"), o.count("tells '"$visible"'")) for s in t["steps"] if s["address"].endswith("/'"$2"'") for o in [s["output"]["stdout"]]]'
}
all_told='[(3, 1)]'

# ---- tried again, forked, in a map ----
id=$(submit again "  a: {$(tells none ", ONCE: $scenario_dir/once"), artifacts: {kept: kept}, retry: {max_attempts: 3, initial_backoff: 100ms}}")
check_equal "a step that fails with its secrets, and is tried again" SUCCEEDED "$(end_of "$id" again)"
check_equal "the second attempt has them again" "2 $all_told" "$(field again 'len(t["steps"][0]["attempts"])') $(out_of again a)"
check_match "what the first said is there without them" "exited with code 1: tells \*\*\* .*$visible" "$said/again.json"
rm "$scenario_dir/once"
fork=$(cox task fork "$id" --at a -o name)
check_equal "a fork of it, which fails and is tried again" SUCCEEDED "$(end_of "$fork" fork)"
check_equal "has them" "$all_told" "$(out_of fork a)"
id=$(submit revived "  a: {$(tells none ", ONCE: $scenario_dir/later")}")
check_equal "a step that fails for good" FAILED "$(end_of "$id" failed)"
check "its task is retried" cox task retry "$id"
check_equal "and succeeds" SUCCEEDED "$(end_of "$id" revived)"
check_equal "and has them" "$all_told" "$(out_of revived a)"
id=$(submit mapped "  a: {map: {over: [1, 2, 3, 4, 5, 6], max_parallel: 2}, $(tells none)}
outputs: {all: \"\${{ steps.a.output }}\"}")
check_equal "a map" SUCCEEDED "$(end_of "$id" mapped)"
check_equal "each item has them" "[(3, 1), (3, 1), (3, 1), (3, 1), (3, 1), (3, 1)]" \
    "$(field mapped '[(o["stdout"].count("tells *** ***"), o["stdout"].count("tells '"$visible"'")) for o in t["outputs"]["all"]]')"

# ---- in a sandbox ----
printf '%s' "$visible" >"$scenario_dir/readable"
cox worker describe w1 >"$scenario_dir/describe" 2>&1
if grep -q '^strict *yes' "$scenario_dir/describe"; then
    looks="cat '$scenario_dir/readable' '$files/slack' '$scenario_dir/worker.yaml' /tmp/left-*; ls '$scenario_dir/work'; cat /proc/[0-9]*/environ; env"
    id=$(submit strict "  a: {$(tells strict), artifacts: {kept: kept}}
  b: {needs: [a], run: {argv: [sh, -c, \"$looks\"], sandbox: strict}, allow_failure: true}
  c: {needs: [b], run: {argv: [cat, '$scenario_dir/readable']}}")
    check_equal "steps at strict" SUCCEEDED "$(end_of "$id" strict)"
    check_equal "one that was given them has them" "$all_told" "$(out_of strict a)"
    check_equal "control: without a sandbox a file beside theirs is read" "$visible" \
        "$(field strict '[s["output"]["stdout"] for s in t["steps"] if s["address"].endswith("/c")][0]')"
    check_equal "another finds no file, no variable, and nothing that the first has left; its own environment it finds" "False True" \
        "$(field strict '[("tells" in o or "'"$visible"'" in o or "***" in o or "secrets:" in o, "PATH=" in o) for s in t["steps"] if s["address"].endswith("/b") for o in [json.dumps(s).replace("COX_ATTEMPT_KEY=***", "")]][0]' | tr -d '(),')"
else
    skip "secrets at strict" "this host gives none"
fi

# ---- slept over, and an orchestrator that begins anew ----
id=$(submit slept "  a: {$(tells none)}
  go: {needs: [a], wait: {signal: go}}
  b: {needs: [go], $(tells none)}")
asleep() { curl -s "http://$coxd_http/metrics" | grep -q '^cox_tasks_asleep 1$'; }
check "a task that has had them falls asleep" await 60 asleep
stop_coxd
looked() { python3 "$scenario_root/tests/security/find_values.py" "$1" "$scenario_dir/data" "$said" "$scenario_dir/work" "${@:2}"; }
check_match "control: what is no secret is in the state" 'state\.db' <(looked "$scenario_dir/visible")
check_equal "no secret is, while it sleeps" "" "$(looked "$scenario_dir/values")"
start_coxd --log-level debug
check "it is woken after a restart" cox task signal "$id" go
check_equal "and ends" SUCCEEDED "$(end_of "$id" slept)"
check_equal "the step after the sleep has them" "$all_told" "$(out_of slept b)"

# ---- where they stand now ----
curl -s "http://$coxd_http/metrics" >"$said/metrics"
for path in stats tasks workers "stats/history?metric=cox_steps_finished_total"; do curl -s "http://$coxd_http/api/v1/$path" >>"$said/http"; done
cp "$scenario_dir/w1.log" "$scenario_dir/coxd.log" "$said"
check_equal "no secret in the data, the blobs, answers, statistics, the logs at debug, the work directory" "" "$(looked "$scenario_dir/values")"
stop_worker w1
stop_coxd
check_equal "nor once both have stopped" "" "$(looked "$scenario_dir/values")"
check_match "control: what is no secret is there" 'blobs/' <(looked "$scenario_dir/visible")
finish
