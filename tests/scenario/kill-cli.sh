#!/bin/bash
# kill -9 of a command line in the middle of submitting: submitting again with the same key gives one task,
# and the same one each time.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3

start_coxd
start_worker w1 --slots 4
put_load

# How long one takes here, in microseconds: it is killed somewhere within that, or just after.
begin=${EPOCHREALTIME/./}
cox task submit "$scenario_dir/load.json" --key key-0 -o name >"$scenario_dir/said"
took=$((${EPOCHREALTIME/./} - begin))
echo "key-0 $(cat "$scenario_dir/said")" >"$scenario_dir/acknowledged"

n=$(rounds 30 3000)
n_said=0
n_silent=0
differ=
for ((i = 1; i <= n; i++)); do
    : >"$scenario_dir/said" # it may be killed before it would have been emptied for it
    "$COX_BUILD/cox" task submit "$scenario_dir/load.json" --key "key-$i" -o name >"$scenario_dir/said" 2>/dev/null &
    pid=$!
    sleep "$(printf '0.%06d' $((took * (RANDOM % 120) / 100 % 1000000)))"
    stop_process "$pid" KILL
    said=$(cat "$scenario_dir/said")
    first=$(cox task submit "$scenario_dir/load.json" --key "key-$i" -o name)
    second=$(cox task submit "$scenario_dir/load.json" --key "key-$i" -o name)
    if [ -n "$said" ]; then n_said=$((n_said + 1)); else n_silent=$((n_silent + 1)); fi
    [ -n "$first" ] && [ "$first" = "$second" ] && [ "${said:-$first}" = "$first" ] ||
        differ="$differ key-$i:$said,$first,$second"
    echo "key-$i $first" >>"$scenario_dir/acknowledged"
done
echo "$n_silent killed before they said an id, $n_said after"
check_equal "the same id each time" "" "$differ"
read_acknowledged
check_load
finish
