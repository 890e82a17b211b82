#!/bin/bash
# Keys of attempts and what they open: steps that want the blobs of others from their worker, and workers that want
# those of tasks that they do not run from the orchestrator.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs cox coxd cox-worker cox-sandbox protoc python3
/usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null || { skip keys "python3-grpcio is not installed"; exit 0; }
chmod 755 "$scenario_dir"
cd "$scenario_dir" || exit 1

install -m 600 /dev/null tokens.yaml
token alpha --role admin --tenant alpha
token beta --role admin --tenant beta
token operator --role operator --tenant '*'
token worker --role worker
chmod 644 worker.token # the worker without rights reads it, too
mkdir -p pb
(cd "$scenario_root/proto" && protoc -I. -I/usr/include --python_out="$scenario_dir/pb" coxswain/v1/*.proto google/rpc/*.proto 2>"$scenario_dir/protoc.log")
start_coxd --token-file tokens.yaml
mkdir handlers
cp "$scenario_root/docs/examples/python/cox.py" handlers/
cat >handlers/keep <<'PY'
#!/usr/bin/env python3
import cox

last = None

@cox.tool
def keep(n: int) -> dict:
    """Stores n bytes, and tries the key of the call before."""
    global last
    now, before = cox.context.key, "there was none"
    if last:
        cox.context.set_key(last)
        try:
            cox.store(b"x")
            before = "still good"
        except cox.Error as e:
            before = e.message
        cox.context.set_key(now)
    last = now
    return {"file": cox.store(b"x" * n), "before": before}

cox.Context.set_key = lambda self, key: setattr(self, "key", key)
cox.main()
PY
chmod -x handlers/cox.py
chmod +x handlers/keep
resources=(--handler-dir "$scenario_dir/handlers" --resources memory=4Gi,disk=4Gi --slots 12 --token-file "$scenario_dir/worker.token")
start_worker main --label name=main --work-dir "$scenario_dir/main.dir" "${resources[@]}"
COX_TOKEN=$(cat operator.token) cox worker describe main >describe 2>&1
levels=none
for level in net strict; do
    if grep -q "^$level *yes" describe; then levels="$levels $level"; else skip "keys at $level" "this host gives none"; fi
done
attack() { # WORKER LEVEL...: what its steps can do at these levels
    PYTHONPATH="$scenario_dir/pb" /usr/bin/python3 "$scenario_root/tests/security/keys.py" "$coxd_grpc" "$coxd_http" "$scenario_dir" "$@" >python.log 2>&1
    grep -E '^(ok|not ok|skip|    )' python.log
    scenario_checks=$((scenario_checks + $(grep -c '^ok\|^not ok' python.log)))
    scenario_failed=$((scenario_failed + $(grep -c '^not ok' python.log)))
    grep -q '^the end$' python.log || not_ok "keys.py $* runs to its end" python.log
}
attack main $levels
if [ "$(id -u)" = 0 ] && [ "$levels" = "none net strict" ]; then
    mkdir plain
    chown 65534:65534 plain
    (cd plain && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$COX_BUILD/cox-worker" \
        --orchestrator "$COX_ADDRESS" --worker-id plain --ready-file "$scenario_dir/plain/ready" --label name=plain \
        --work-dir "$scenario_dir/plain.dir/work" "${resources[@]}") >plain.log 2>&1 </dev/null &
    worker_pids[plain]=$!
    mkdir plain.dir && chown 65534:65534 plain.dir
    if await_file plain/ready "${worker_pids[plain]}"; then
        attack plain strict
    else
        not_ok "a worker without rights attaches" plain.log
    fi
else
    skip "keys of a worker without rights" "it needs root, to have none"
fi
attack main programs
if [ "$levels" = "none net strict" ]; then
    start_worker caged --label name=caged --sandbox strict --work-dir "$scenario_dir/caged.dir" "${resources[@]}"
    attack caged programs
fi
attack thieves
check_equal "no key stands in the log of a program" "" "$(grep -haoE 'COXKEY-[0-9a-f]{48}' coxd.log main.log plain.log 2>/dev/null)"
finish
