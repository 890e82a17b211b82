#!/bin/bash
# Workers as units of systemd, which owns the tree of control groups: what a unit with Delegate= gets, also after its
# worker was killed and systemd has read its units again, and that a unit without it is left alone.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox-sandbox cox python3 systemd-run
if [ "$(id -u)" != 0 ] || [ ! -d /run/systemd/system ] || [ ! -f /sys/fs/cgroup/cgroup.subtree_control ]; then
    skip cgroups-systemd "it starts units, which needs root and a systemd with control groups of version 2"
    exit 0
fi
chmod 755 "$scenario_dir"
unit=coxtest$$
at_exit+=("systemctl stop $unit-1 $unit-2 $unit-3")
# start_unit NUMBER PROPERTY...
start_unit() {
    local name=$unit-$1 folder=$scenario_dir/$1
    shift
    mkdir -p "$folder"
    chown 65534:65534 "$folder"
    systemd-run -q --unit="$name" -p DefaultDependencies=no -p "WorkingDirectory=$folder" -p "StandardError=append:$folder/log" "$@" \
        "$COX_BUILD/cox-worker" --orchestrator "$COX_ADDRESS" --worker-id "$name" --ready-file "$folder/ready" \
        --label "name=$name" --work-dir "$folder/work" --resources cpu=4,memory=1Gi 2>>"$folder/log"
    await 120 test -s "$folder/ready" || { not_ok "$name attaches" "$folder/log"; finish; }
    cox worker describe "$name" >"$scenario_dir/describe" 2>&1
    check_match "$name has a sandbox" "^strict +yes" "$scenario_dir/describe"
}
bomb() { # NUMBER: a step that wants more memory than it may have
    local id
    id=$(cox task submit -o name - <<<'{"api_version": "v1", "name": "s", "steps": {"a": {"requires": "name == '"$unit-$1"'", "resources": {"memory": "64Mi"},
        "run": {"sandbox": "strict", "argv": ["python3", "-c", "x = []\nwhile True: x.append(bytearray(b\"x\") * (1 << 20))"]}}}}')
    timeout 200 "$COX_BUILD/cox" task watch "$id" >/dev/null 2>&1
    { cox task describe "$id"; cox explain "$id/a"; } >"$scenario_dir/outcome" 2>&1
}
by_the_kernel='RESOURCE_EXHAUSTED: stopped: the step used all of its memory and wanted more than the 64 MiB'

start_coxd
start_unit 1 -p "Delegate=cpu memory pids" -p User=nobody -p Restart=always -p RestartSec=0
for limit in memory processes cpu; do check_match "a unit to which systemd delegates has $limit by a control group, without being root" "^$limit +control group" "$scenario_dir/describe"; done
bomb 1
check_match "a memory bomb ends by the kernel" "$by_the_kernel" "$scenario_dir/outcome"
systemctl daemon-reload
bomb 1
check_match "so it does when systemd has read its units again" "$by_the_kernel" "$scenario_dir/outcome"
pid=$(systemctl show -P MainPID "$unit-1")
rm "$scenario_dir/1/ready"
kill -9 "$pid"
check "a killed worker is started again by systemd" await 120 test -s "$scenario_dir/1/ready"
cox worker describe "$unit-1" >"$scenario_dir/describe" 2>&1
check_match "and has its control groups again" "^memory +control group" "$scenario_dir/describe"
bomb 1
check_match "which hold" "$by_the_kernel" "$scenario_dir/outcome"

start_unit 2
check_match "a unit to which systemd does not delegate is left alone, for root too" "^memory +watched: systemd has not delegated" "$scenario_dir/describe"
bomb 2
check_match "and its steps are watched" 'RESOURCE_EXHAUSTED: stopped: the step used .* of memory, more than the 64 MiB' "$scenario_dir/outcome"
start_unit 3 -p Delegate=yes
check_match "root has what is delegated" "^memory +control group" "$scenario_dir/describe"
finish
