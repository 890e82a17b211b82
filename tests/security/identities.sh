#!/bin/bash
# Who may do what: every method of every interface called by a stranger, with a token that is expired, revoked or
# garbage, in the wrong role, and by another tenant; and what somebody would try who wants more than their token says.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs cox coxd cox-worker curl protoc
/usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null || { skip identities "python3-grpcio is not installed"; exit 0; }

cd "$scenario_dir" || exit 1
install -m 600 /dev/null tokens.yaml
for role in reader submitter approver operator admin; do
    token "$role-a" --role $role --tenant alpha
    token "$role-b" --role $role --tenant beta
    token "$role-all" --role $role --tenant '*'
done
token worker-all --role worker
token reader-other --role reader --tenant other
token both --role submitter --role approver --tenant alpha --tenant beta
token expired --role admin --tenant '*' --expires 1ms
token revoked --role admin --tenant '*'
token stream --role admin --tenant '*'
token narrowed --role reader --tenant '*'

mkdir -p pb
(cd "$scenario_root/proto" && protoc -I. -I/usr/include --python_out="$scenario_dir/pb" coxswain/v1/*.proto externalscaler/*.proto \
    google/rpc/*.proto grpc/health/v1/*.proto grpc/reflection/v1/*.proto 2>"$scenario_dir/protoc.log")
start_coxd --token-file tokens.yaml --cors-origin https://app.example.com
start_worker w1 --slots 4 --token-file "$scenario_dir/worker-all.token"
PYTHONPATH="$scenario_dir/pb" /usr/bin/python3 "$scenario_root/tests/security/identities.py" \
    "$coxd_grpc" "$coxd_http" "$scenario_dir" "$coxd_pid" >python.log 2>&1
code=$?
grep -E '^(ok|not ok|skip|    )' python.log; [ "$code" -le 1 ] || tail -5 python.log
scenario_checks=$((scenario_checks + $(grep -c '^ok\|^not ok' python.log)))
scenario_failed=$((scenario_failed + $(grep -c '^not ok' python.log)))
[ "$code" -le 1 ] && grep -q . python.log || not_ok "identities.py runs to its end" python.log

# ---- a worker's token is exchanged while it works ----
old_token=$(cat worker-all.token)
cat >works.yaml <<YAML
api_version: v1
name: works
steps: {a: {map: {over: [$(seq -s, 150)]}, run: {argv: [sh, -c, 'echo "\$COX_STEP" >>$scenario_dir/ran; sleep 0.03']}}}
YAML
works=$(COX_TOKEN=$(cat submitter-a.token) cox task submit works.yaml -o name 2>works.err) || cat works.err
ran() { test "$(wc -l <ran)" -ge "$1"; }
revoke() { # revoke TOKEN: its row leaves the file
    python3 - "$(printf %s "$1" | sha256sum | cut -d' ' -f1)" <<'PY'
import re, sys
rows = re.split(r"(?m)^(?=- name)", open("tokens.yaml").read())
left = [r for r in rows if sys.argv[1] not in r]
assert len(left) == len(rows) - 1
open("tokens.yaml", "w").write("".join(left))
PY
    kill -HUP "$coxd_pid"
}
answers_to() { COX_TOKEN=$1 cox worker list >answer 2>&1; cat answer; }
check "steps run" await 60 ran 10
cox admin token worker-all --role worker 2>>tokens.yaml >worker.next
kill -HUP "$coxd_pid"
is_known() { ! answers_to "$1" | grep -q "unknown, expired or revoked"; }
check "the next token is known, and the old one still is" await 20 is_known "$(cat worker.next)"
check "both at once" is_known "$old_token"
mv worker.next worker-all.token
n_ran=$(wc -l <ran)
revoke "$old_token"
is_unknown() { ! is_known "$1"; }
check "the old token is refused when its row is gone" await 20 is_unknown "$old_token"
check "while steps run ($n_ran had)" test "$n_ran" -lt 150
check "its worker goes on with the new one" await 60 ran "$((n_ran + 20))"
COX_TOKEN=$(cat reader-a.token) timeout 120 "$COX_BUILD/cox" task watch "$works" >works.watch 2>&1
check_equal "no step is lost, and none runs twice" "150 150 SUCCEEDED" "$(wc -l <ran) $(sort -u ran | wc -l) $(COX_TOKEN=$(cat reader-a.token) \
    cox task get "$works" -o json | sed -n 's/^ *"status": *"\([A-Z]*\)".*/\1/p' | head -n 1)"
check_match "the worker was told, and came back" "UNAUTHENTICATED|revoked|unknown" w1.log

# ---- what was refused is counted ----
counted() { curl -s -H "Authorization: Bearer $(cat reader-all.token)" "http://$coxd_http/metrics" | sed -n "s/^cox_refused_total{reason=\"$1\"} //p"; }
before="$(counted identity) $(counted role) $(counted tenant)"
for _ in 1 2; do curl -s -o /dev/null "http://$coxd_http/api/v1/tasks"; done
COX_TOKEN=no cox task list >/dev/null 2>&1
COX_TOKEN=$(cat reader-a.token) cox task cancel t0-000001 >/dev/null 2>&1
COX_TOKEN=$(cat reader-a.token) cox task list --tenant beta >/dev/null 2>&1
read -r n_identity n_role n_tenant <<<"$before"
check_equal "the metric counts three unknown callers, one wrong role and one tenant that is another's" \
    "$((n_identity + 3)) $((n_role + 1)) $((n_tenant + 1))" "$(counted identity) $(counted role) $(counted tenant)"
check "and what was tried before" test "$n_identity" -gt 50 -a "$n_role" -gt 50 -a "$n_tenant" -gt 0

# ---- what the file must be, and where coxd listens ----
serve() { timeout 20 "$COX_BUILD/coxd" --data-dir other --http off "$@" 2>&1; }
check_exit "a port that other hosts reach is refused without TLS" 2 serve --grpc 0.0.0.0:0 --token-file tokens.yaml
chmod 666 tokens.yaml
check_exit "a token file that others may write is refused" 1 serve --grpc 127.0.0.1:0 --token-file tokens.yaml
chmod 600 tokens.yaml
check_equal "the clear tokens are nowhere in the data directory, the log or the file" "" \
    "$(cat ./*.token | grep -rlFf - tokens.yaml data coxd.log w1.log)"
check_equal "no process shows one on its command line" "" \
    "$(cat "/proc/$coxd_pid/cmdline" "/proc/${worker_pids[w1]}/cmdline" | tr '\0' ' ' | grep -o 'cox_[0-9a-f]*')"

# ---- what is kept, looked at by the operator ----
printf 'api_version: v1\nname: values\nsteps: {a: {run: {argv: [sh, -c, "seq 3000"]}}, b: {run: {argv: [sh, -c, "seq 4000"]}}}\n' >values.yaml
check "a tenant's task with values of some size" env COX_TOKEN="$(cat submitter-a.token)" "$COX_BUILD/cox" task run values.yaml
stop_worker w1
stop_coxd
check_exit "the data of several tenants is whole" 0 "$COX_BUILD/coxd" --verify --data-dir data
check_equal "and holds values of theirs" 1 "$(python3 -c 'import json, sys; print(int(json.load(sys.stdin)["payloads"] >= 2))' <out)"
python3 - data/state.db <<'PY'
import hashlib, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
owned = [r for r in db.execute("SELECT DISTINCT p.rowid, p.hash, p.crc, p.d FROM payload p JOIN ref ON ref.hash = p.hash WHERE ref.owner > 0")
         if hashlib.sha256(r[3]).digest() != r[1]]
one, two = [r for r in owned if r[3] != owned[0][3]][0], owned[0]
db.execute("UPDATE payload SET crc = ?, d = ? WHERE rowid = ?", (two[2], two[3], one[0]))
db.commit()
PY
check_exit "a tenant's value with the bytes of another is found" 1 "$COX_BUILD/coxd" --verify --data-dir data
check_match "by name" 'payload sha256:[0-9a-f]*: its bytes are others' out
finish
