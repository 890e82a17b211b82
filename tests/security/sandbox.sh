#!/bin/bash
# What a step in a sandbox can reach, tried by steps of real tasks. Each attack also runs without a sandbox, where it
# must succeed: else its failure inside would say nothing.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox-sandbox cox python3
here=$(cd "$(dirname "$0")" && pwd)
if [ "$(uname -m)" != x86_64 ]; then
    skip sandbox "the attacks know the numbers of x86-64's system calls"
    exit 0
fi
export COX_BUILD ATTACK_SECRET=hunter2 # in the worker's environment, to be found there
chmod 755 "$scenario_dir"

# What is there to be reached: sockets of every kind, and a file.
cat >"$scenario_dir/host.py" <<'END'
import os, socket, sys, threading
folder, name = sys.argv[1:3]
tcp = socket.create_server(("127.0.0.1", 0))
path = socket.socket(socket.AF_UNIX)
path.bind(f"{folder}/socket")
path.listen()
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0" + name)
abstract.listen()
datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
datagrams.bind("\0" + name + "-dgram")
with open(f"{folder}/host.ready.new", "w") as f:
    print(f"127.0.0.1:{tcp.getsockname()[1]}", file=f)
os.rename(f"{folder}/host.ready.new", f"{folder}/host.ready")
def serve(s):
    while True:
        s.accept()[0].close()
threading.Thread(target=serve, args=[path], daemon=True).start()
threading.Thread(target=serve, args=[abstract], daemon=True).start()
serve(tcp)
END
export ATTACK_ABSTRACT=cox-attack-$$ ATTACK_SOCKET=$scenario_dir/socket ATTACK_FILE=$scenario_dir/secret
echo "a secret of the host" >"$ATTACK_FILE"
python3 "$scenario_dir/host.py" "$scenario_dir" "$ATTACK_ABSTRACT" >"$scenario_dir/host.log" 2>&1 &
host_pid=$!
at_exit+=("kill $host_pid")
await_file "$scenario_dir/host.ready" "$host_pid" || { not_ok "the host to be attacked" "$scenario_dir/host.log"; finish; }
chmod 666 "$ATTACK_SOCKET"
ATTACK_TCP=$(cat "$scenario_dir/host.ready")
export ATTACK_TCP

attack() { # GROUP WORKER LEVEL
    ATTACK_AGENT=${worker_pids[$2]} python3 "$here/sandbox.py" "$@" >"$scenario_dir/attack.out" 2>&1 || scenario_failed=1
    grep -qE '^(ok|not ok|skip) ' "$scenario_dir/attack.out" || { not_ok "attacks $*" "$scenario_dir/attack.out"; return; }
    cat "$scenario_dir/attack.out"
    scenario_checks=$((scenario_checks + 1))
}
resources=(--resources memory=4Gi,disk=4Gi --slots 4)
start_coxd
is_root=; [ "$(id -u)" = 0 ] && is_root=1
start_worker main --label name=main --work-dir "$scenario_dir/main.dir" "${resources[@]}"
cox worker describe main >"$scenario_dir/describe" 2>&1
if ! grep -q '^strict *yes' "$scenario_dir/describe"; then
    skip sandbox "this host gives none: $(grep '^strict' "$scenario_dir/describe")"
    exit 0
fi
check_match "worker describe tells what the host gives" '^net *yes' "$scenario_dir/describe"

attack reach main strict
attack inside main strict
attack shared main net
if [ -n "$is_root" ]; then # without root much is denied by other means
    attack reach main none
    # A worker without any right gives the same.
    mkdir "$scenario_dir/plain"
    chown 65534:65534 "$scenario_dir/plain"
    chmod 644 "$ATTACK_FILE"
    (cd "$scenario_dir/plain" && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$COX_BUILD/cox-worker" \
        --orchestrator "$COX_ADDRESS" --worker-id plain --ready-file "$scenario_dir/plain/ready" --label name=plain \
        --work-dir work "${resources[@]}") >"$scenario_dir/plain.log" 2>&1 </dev/null &
    worker_pids[plain]=$!
    if await_file "$scenario_dir/plain/ready" "${worker_pids[plain]}"; then
        attack shared plain net
        attack reach plain strict
        attack moved plain strict # whose directory lies where the step's own user may rename
        check_match "it was found where it had gone" RESOURCE_EXHAUSTED "$scenario_dir/attack.out"
    else
        not_ok "a worker without rights attaches" "$scenario_dir/plain.log"
    fi

    # A kernel without Landlock: the step's user must not be whose cox-sandbox is. Landlock's calls are not there.
    cat >"$scenario_dir/without_landlock.py" <<'END'
import ctypes, os, struct, sys
one = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
program = one(0x20, 0, 0, 0) + one(0x35, 0, 2, 444) + one(0x35, 1, 0, 447) + one(0x06, 0, 0, 0x50026) + one(0x06, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(program, len(program))
libc = ctypes.CDLL(None, use_errno=True)
fprog = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, fprog):
    sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[1], sys.argv[1:])
END
    mkdir "$scenario_dir/own"
    cp "$COX_BUILD/cox-worker" "$COX_BUILD/cox-sandbox" "$scenario_dir/own/"
    for owner in 0 65534; do
        chown -R 65534:65534 "$scenario_dir/own"
        chown "$owner" "$scenario_dir/own/cox-sandbox"
        (cd "$scenario_dir/own" && exec setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 ../without_landlock.py ./cox-worker \
            --orchestrator "$COX_ADDRESS" --worker-id "of-$owner" --ready-file "$scenario_dir/own/ready-$owner" \
            --work-dir "$scenario_dir/own/work") >"$scenario_dir/own.log" 2>&1 </dev/null &
        worker_pids[of-$owner]=$!
        await_file "$scenario_dir/own/ready-$owner" "${worker_pids[of-$owner]}" || not_ok "a worker attaches" "$scenario_dir/own.log"
        cox worker describe "of-$owner" >"$scenario_dir/describe" 2>&1
        if [ "$owner" = 0 ]; then
            check_match "control: there is a sandbox without Landlock" '^strict *yes' "$scenario_dir/describe"
            check_match "control: and no Landlock" '^landlock *no' "$scenario_dir/describe"
        else
            check_match "there is none where a step could change cox-sandbox" "^strict *no: .*another user's file" "$scenario_dir/describe"
        fi
    done
else
    skip "controls at none" "they need root"
fi
check_exit "the worker is unharmed" 0 cox worker describe main
finish
