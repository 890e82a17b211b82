#!/bin/bash
# The orchestrator, two workers and a client in network namespaces of their own behind a router that drops what it is
# told to: short cuts, cuts past 8 s, of one direction only, of everybody. Nothing says that a cut has begun: packets
# vanish. Nothing is lost, nothing counts twice, and everybody finds back by himself.
. "$(dirname "$0")/load.sh"
need_programs coxd cox-worker cox cox-bench tests/scenario/step-body python3 ip

# ---- hosts: o the orchestrator's, a and b the workers', c the client's; r routes between them ----

net=cox-$$
hosts=(o a b c)
declare -A address=([o]=10.213.1.2 [a]=10.213.2.2 [b]=10.213.3.2 [c]=10.213.4.2)
at_exit+=('for h in "${hosts[@]}" r; do ip netns del "$net-$h"; done')

router() { ip netns exec "$net-r" "$@"; }
make_host() { # make_host NAME
    local net_of=${address[$1]%.2}
    ip netns add "$net-$1" && ip -n "$net-r" link add "to-$1" type veth peer name eth0 netns "$net-$1" &&
        ip -n "$net-r" address add "$net_of.1/24" dev "to-$1" && ip -n "$net-r" link set "to-$1" up &&
        ip -n "$net-$1" address add "$net_of.2/24" dev eth0 && ip -n "$net-$1" link set eth0 up &&
        ip -n "$net-$1" link set lo up && ip -n "$net-$1" route add default via "$net_of.1"
}
make_net() {
    ip netns add "$net-r" && router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward' || return 1
    for h in "${hosts[@]}"; do make_host "$h" || return 1; done
    # A rule that drops, tried: not every kernel routes by rules.
    ip -n "$net-r" rule add from 10.213.9.9 blackhole
}
if ! make_net >"$scenario_dir/net.log" 2>&1; then
    skip netcut "no network namespaces here: $(tail -n 1 "$scenario_dir/net.log")"
    exit 0
fi
# sever from|to HOST, heal from|to HOST: what it sends, or what is sent to it, vanishes.
sever() { ip -n "$net-r" rule add "$1" "${address[$2]}" blackhole; }
heal() { ip -n "$net-r" rule del "$1" "${address[$2]}" blackhole; }
cut_off() { sever from "$1" && sever to "$1"; }
heal_off() { heal from "$1" && heal to "$1"; }

# Every program runs on the host named by $ON.
mkdir -p "$scenario_dir/bin"
for program in coxd cox-worker cox cox-bench; do
    printf '#!/bin/sh\nexec ip netns exec "%s-${ON:-c}" "%s" "$@"\n' "$net" "$COX_BUILD/$program" >"$scenario_dir/bin/$program"
    chmod +x "$scenario_dir/bin/$program"
done
COX_BUILD=$scenario_dir/bin
coxd_grpc=${address[o]}:0
coxd_http=${address[o]}:0
log_lines() { grep -c "$1" "$scenario_dir/coxd.log"; }
start_slow() { # start_slow MS: a step that only worker a may run; sets slow
    python3 "$load_py" slow "$body" "$logs" "$1" | sed 's/"run":/"requires": "host == a", "run":/' >"$scenario_dir/slow.json"
    slow=$(cox task submit "$scenario_dir/slow.json" -o name)
    await 20 test -s "$logs/$slow.long" || not_ok "a slow step starts" "$scenario_dir/coxd.log"
}
attempts() { grep -c '^start' "$logs/$slow.long"; }
counted() { cox task output "$slow" -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["long"]["attempt"])'; }

ON=o start_coxd --insecure
ON=a start_worker w1 --slots 3 --label host=a
ON=b start_worker w2 --slots 3 --label host=b
put_load
start_load "$scenario_dir/load.json" --in-flight 6

# Short, and silent: it is not noticed.
start_slow 4500
cox task watch "$slow" -q --connect-timeout 60s >"$scenario_dir/watch.log" 2>&1 &
watch=$!
cut_off a
sleep 2.5
heal_off a
cut_off c
sleep 1
heal_off c
check "short cuts: a watcher sees the end" wait "$watch"
check_equal "short cuts: nobody is taken for dead" 0 "$(log_lines 'session closed')"
check "short cuts: a step that runs meanwhile is run once" python3 "$load_py" ran-once "$logs" "$slow" long

# What worker a says vanishes, what it is told arrives.
start_slow 3000
sever from a
await 30 grep -q 'session closed.*worker=w1.*silent' "$scenario_dir/coxd.log" || not_ok "a worker that cannot be heard is given up" "$scenario_dir/coxd.log"
check "one way: its step has ended by itself" await 20 grep -q '^end' "$logs/$slow.long"
heal from a
check "one way: the worker comes back, and runs it again" cox task watch "$slow" -q
check_equal "one way: twice, as the orchestrator could not know" 2 "$(attempts)"
check_equal "one way: the second counts" 2 "$(counted)"

if [ -n "${COX_TEST_LONG:-}" ]; then
    # What worker a is told vanishes; it is heard, and the connection dies of what nobody acknowledges.
    start_slow 40000
    sever to a
    sleep 20
    heal to a
    check "the other way: the step ends" cox task watch "$slow" -q
    # Everybody is cut off from everybody, for longer than keepalive takes: 30 s and 10.
    for h in a b c; do cut_off "$h"; done
    sleep 50
    for h in a b c; do heal_off "$h"; done
    check "all cut off: a client is served again" cox worker list --connect-timeout 60s
    # The orchestrator recovers while a worker is cut off, for longer than it waits for it.
    start_slow 20000
    cut_off a
    stop_coxd KILL
    ON=o start_coxd --insecure
    sleep 75
    heal_off a
    check "cut off through the adoption window: the step ends" cox task watch "$slow" -q
    # Thousands of connections vanish: no word, no reset. Keepalive finds out.
    fds=$(find "/proc/$coxd_pid/fd" -mindepth 1 | wc -l)
    ip netns exec "$net-c" python3 - "$coxd_grpc" <<'PY'
import socket, sys, time
sys.path.insert(0, "tests/scenario")
import peers
host, port = sys.argv[1].rsplit(":", 1)
gone = []
for i in range(5000):
    gone.append(socket.create_connection((host, int(port))))
    gone[-1].send(peers.PREFACE + peers.settings())
time.sleep(1)
# The link goes down before they are closed, so that nothing of that is heard; the load's client has to wait too.
import subprocess
subprocess.run(["ip", "link", "set", "eth0", "down"], check=True)
PY
    given_back() { [ "$(find "/proc/$coxd_pid/fd" -mindepth 1 | wc -l)" -le $((fds + 10)) ]; }
    check "5,000 vanished connections are given back" await 120 given_back
    ip -n "$net-c" link set eth0 up
    ip -n "$net-c" route add default via "${address[c]%.2}.1" 2>/dev/null
fi
await_load
check_load
finish
