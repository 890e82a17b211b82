#!/bin/bash
# Sandboxed steps that leave their session and want to stay, ended at random moments: by themselves, cancelled, or with
# their worker by SIGKILL. Nothing of them stays: no process, no mount, no directory.
# COX_SEED=N repeats a run's choices.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox-sandbox cox python3
steps_wanted=${COX_KILLS:-300} # an emulated machine is slow
[ -z "${COX_TEST_LONG:-}" ] || steps_wanted=10000
seed=${COX_SEED:-$((SRANDOM % 32768))}
RANDOM=$seed
echo "seed $seed (COX_SEED)"
mark=cox-stays-$$
work=$scenario_dir/work
at_exit+=("pgrep -f '^$mark' | xargs -r kill -9")
start() { start_worker killed --work-dir "$work" --slots 8; }
start_coxd
start
cox worker describe killed >"$scenario_dir/describe" 2>&1
if ! grep -q '^strict *yes' "$scenario_dir/describe"; then
    skip sandbox-kills "this host gives none: $(grep '^strict' "$scenario_dir/describe")"
    exit 0
fi
python3 - "$mark" >"$scenario_dir/task.json" <<'END'
import json, sys
stay = f"for i in 1 2; do (exec setsid bash -c 'exec -a {sys.argv[1]} sleep 300' >/dev/null 2>&1 &); done; mkdir -p a/b; touch a/b/c; sleep 0.0$((RANDOM % 9))"
steps = {f"s{i}": {"run": {"argv": ["bash", "-c", stay], "sandbox": "net" if i % 4 == 0 else "strict"}} for i in range(20)}
print(json.dumps({"api_version": "v1", "name": "kills", "steps": steps}))
END
begun=0 n_cancelled=0 n_killed=0 n_ended=0
ids=()
while [ "$begun" -lt "$steps_wanted" ]; do
    id=$(cox task submit -o name "$scenario_dir/task.json")
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    case $((RANDOM % 3)) in
        0)
            cox task cancel "$id" >/dev/null 2>&1
            n_cancelled=$((n_cancelled + 1))
            ;;
        1)
            stop_worker killed KILL
            cox task cancel "$id" >/dev/null 2>&1
            start
            n_killed=$((n_killed + 1))
            ;;
        2)
            cox task watch "$id" >/dev/null 2>&1
            n_ended=$((n_ended + 1))
            ;;
    esac
    cox task watch "$id" >/dev/null 2>&1
    n=$(cox task describe "$id" -o json | python3 -c 'import json, sys; print(sum(len(s["attempts"]) for s in json.load(sys.stdin)["steps"]))')
    begun=$((begun + n))
done
gone() { [ "$(pgrep -cf "^$mark")" = 0 ] && [ "$(pgrep -cf "^cox-sandbox .*$scenario_dir")" = 0 ]; }
await 20 gone
check_equal "of $begun attempts no process stays ($n_ended tasks ended, $n_cancelled cancelled, $n_killed with their worker)" \
    "0 and 0" "$(pgrep -cf "^$mark") and $(pgrep -cf "^cox-sandbox .*$scenario_dir")"
check_equal "and no mount" 0 "$(grep -c "$scenario_dir" /proc/self/mountinfo)"
await 20 eval '[ "$(find "$work" -mindepth 2 -maxdepth 2 | grep -c /a)" = 0 ]'
check_equal "and no directory of an attempt, nor of a killed worker" "1 and 0" \
    "$(find "$work" -mindepth 1 -maxdepth 1 | wc -l) and $(find "$work" -mindepth 2 -maxdepth 2 | grep -c '/a[0-9]')"
finish
