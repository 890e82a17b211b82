#!/bin/bash
# cox-modelsim by itself: what it answers, what it counts, and that each of its faults is the one it says.
. "$(dirname "$0")/lib.sh"
need_programs cox-modelsim python3
cd "$scenario_dir" || exit 1

cat >script.yaml <<'END'
replies:
  - match: {last: "the weather"}
    reply: {tool_calls: [{name: weather, id: call_w, arguments: {city: Oslo}}], usage: {prompt_tokens: 11, cached_tokens: 7}}
  - match: {role: tool, turn: 2}
    reply: {text: "It rains in Oslo."}
  - match: {model: "bad-*"}
    reply: {error: {status: 429, message: "slow down", code: rate_limit_exceeded, retry_after: 3}}
  - match: {last: once}
    reply: {text: "only once"}
    times: 1
END
"$COX_BUILD/cox-modelsim" --endpoints 2 --script script.yaml --ready-file ready --speed 4 2>banner &
modelsim_pid=$!
at_exit+=("kill $modelsim_pid")
await_file ready "$modelsim_pid" || { not_ok "cox-modelsim starts" banner; exit 1; }
check_match "its banner says that it is a simulator" 'SIMULATED' banner
check_match "its help says that it is a simulator" 'SIMULATED' <("$COX_BUILD/cox-modelsim" --help)
"$COX_BUILD/cox-modelsim" --faults '{"kill": 2}' 2>error </dev/null
check_equal "a rate beyond 1 is refused" 5 "$?"
check_match "the refusal says where" 'kill: a rate from 0 to 1' error

python3 "$scenario_root/tests/scenario/modelsim.py" ready >checks 2>trouble
cat checks trouble
scenario_checks=$((scenario_checks + $(grep -c '^ok ' checks)))
scenario_failed=$((scenario_failed + $(grep -c '^not ok ' checks)))
grep -q '^done$' checks || not_ok "the checks came to their end" trouble
kill "$modelsim_pid"
wait "$modelsim_pid"
check_equal "it ends on SIGTERM" 0 "$?"
finish
