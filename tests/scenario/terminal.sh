#!/bin/bash
# What is drawn on a terminal and nowhere else: the views of `task watch` and `top`, colours, the question before many
# tasks are touched. terminal.py gives the command line a terminal of its own.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3
unset NO_COLOR

on_terminal() { python3 "$scenario_root/tests/scenario/terminal.py" "$@"; }
escapes() { grep -c $'\033' "$1"; }
write() { cat >"$scenario_dir/$1"; }

start_coxd
start_worker w1 --slots 4
write tree.yaml <<'Y'
api_version: v1
name: tree
labels: {seen: "1"}
steps:
  many: {map: {over: [1, 2]}, wait: {signal: go}}
  items: {map: {over: [1, 2, 3, 4]}, run: {argv: ["true"]}}
  bad: {run: {argv: ["false"]}, allow_failure: true}
  last: {needs: [many], run: {argv: ["true"]}}
Y
submit() { cox task submit "$scenario_dir/tree.yaml" -q -o name; }
status() { cox task get "$1" -o json | python3 -c 'import json,sys; print(json.load(sys.stdin)["status"])'; }
is() { [ "$(status "$1")" = "$2" ]; }
go() { for _ in 1 2; do cox task signal "$1" go >/dev/null 2>&1; done; }

# ---- task watch ----
id=$(submit)
check "it waits" await 20 is "$id" WAITING
on_terminal --until 'many.*WAITING' --then "$COX_BUILD/cox task signal $id go; $COX_BUILD/cox task signal $id go" \
    "$COX_BUILD/cox" task watch "$id" >"$scenario_dir/out"
check_equal "task watch on a terminal ends with the task" 0 $?
check_match "it is a tree: items stand below their map" '    \[1\] +' "$scenario_dir/out"
check_match "maps have a bar" '\[[#.]+\] 0/2' "$scenario_dir/out"
check_match "with colours" $'\033\\[3[0-9]m' "$scenario_dir/out"
check_match "drawn over what was there" $'\033\\[[0-9]*(A|F)' "$scenario_dir/out"
on_terminal env NO_COLOR=1 "$COX_BUILD/cox" task watch "$id" >"$scenario_dir/out"
check_equal "NO_COLOR: none" 0 "$(grep -c $'\033\\[3[0-9]m' "$scenario_dir/out")"
on_terminal "$COX_BUILD/cox" task watch "$id" --no-color >"$scenario_dir/out"
check_equal "--no-color: none" 0 "$(grep -c $'\033\\[3[0-9]m' "$scenario_dir/out")"
on_terminal env TERM=dumb "$COX_BUILD/cox" task watch "$id" >"$scenario_dir/out"
check_equal "a terminal that can do nothing gets lines" 0 "$(escapes "$scenario_dir/out")"
cox task watch "$id" >"$scenario_dir/out" 2>&1
check_equal "so does what is no terminal" 0 "$(escapes "$scenario_dir/out")"
id=$(submit)
on_terminal --until 'many.*WAITING' --then INT "$COX_BUILD/cox" task watch "$id" >"$scenario_dir/out"
check_equal "Ctrl-C is 130" 130 $?
check "and the task goes on" is "$id" WAITING

# ---- top ----
on_terminal --until 'workers 1 .*workers 1 ' --then INT "$COX_BUILD/cox" top --every 100ms >"$scenario_dir/out"
check_equal "top on a terminal: Ctrl-C is 130" 130 $?
check_match "a screen, again and again" $'\033\\[H' "$scenario_dir/out"
check_match "with the task" "$id" "$scenario_dir/out"
check_match "and the worker" 'w1 +ATTACHED' "$scenario_dir/out"
timeout -s INT 2 "$COX_BUILD/cox" top --every 100ms >"$scenario_dir/out" 2>&1 </dev/null
check "elsewhere lines" [ "$(grep -c 'workers 1 ' "$scenario_dir/out")" -ge 2 ]
check_equal "without a drawing" 0 "$(escapes "$scenario_dir/out")"

# ---- what is asked ----
on_terminal --until '\?' --then 'type n' "$COX_BUILD/cox" task cancel -l seen=1 --status WAITING >"$scenario_dir/out"
check "no is no" is "$id" WAITING
on_terminal --until '\?' --then 'type y' "$COX_BUILD/cox" task cancel -l seen=1 --status WAITING >"$scenario_dir/out"
check_equal "yes is yes" 0 $?
check "and it is done" await 20 is "$id" CANCELLED

# ---- task run ----
on_terminal "$COX_BUILD/cox" task run "$scenario_root/docs/examples/diamond.yaml" >"$scenario_dir/out"
check_match "task run draws a bar" $'\r\033\\[K.*[0-9]+/[0-9]+' "$scenario_dir/out"
on_terminal "$COX_BUILD/cox" task run -q "$scenario_root/docs/examples/diamond.yaml" >"$scenario_dir/out"
check_equal "-q: none" 0 "$(escapes "$scenario_dir/out")"
finish
