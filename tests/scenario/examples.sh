#!/bin/bash
# Every example of docs/examples, run by real programs; what they print is checked against the tools themselves.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox

examples=$scenario_root/docs/examples
start_coxd
mkdir "$scenario_dir/secrets"
echo 0123456789abcdef >"$scenario_dir/secrets/signing-key"
start_worker w1 --slots 4 --secrets-dir "$scenario_dir/secrets"

outputs() { cox task run -q -o jsonl "$@" 2>>"$scenario_dir/run.log"; }
# value FILE PATH: a value of a JSON file, "a.b.c"; strings as they are.
value() {
    python3 - "$1" "$2" <<'PY'
import json, sys
v = json.load(open(sys.argv[1]))
for key in sys.argv[2].split("."):
    v = v[int(key)] if isinstance(v, list) else v[key]
print(v if isinstance(v, str) else json.dumps(v))
PY
}

for file in "$examples"/*.yaml; do
    check "$(basename "$file") is valid" cox validate "$file"
done

# ---- diamond ----
check_equal "diamond: the default" '{"sum":40}' "$(outputs "$examples/diamond.yaml")"
check_equal "diamond: an input" '{"sum":160}' "$(outputs "$examples/diamond.yaml" --input number=20)"

# ---- retry and fallback ----
check_equal "retry-and-fallback: outputs" \
    '{"attempts":3,"answer":"from the cache, because of EXIT_NONZERO","extra":"EXIT_NONZERO"}' \
    "$(outputs "$examples/retry-and-fallback.yaml" --key retry)"
id=$(cox task submit "$examples/retry-and-fallback.yaml" --key retry -o name -q)
cox task describe "$id" -o json >"$scenario_dir/retry.json"
check_equal "retry-and-fallback: three attempts at flaky" 3 \
    "$(value "$scenario_dir/retry.json" steps.0.attempts | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))')"
check_equal "retry-and-fallback: answer came from the fallback" fallback "$(value "$scenario_dir/retry.json" steps.1.via)"
check_equal "retry-and-fallback: extra FAILED" FAILED "$(value "$scenario_dir/retry.json" steps.2.status)"

# ---- secrets ----
check_equal "secrets: signed with the worker's key, which is not told" \
    "{\"signature\":\"$(printf hello | openssl dgst -sha256 -hmac 0123456789abcdef -r | cut -d' ' -f1)\",\"told\":\"the key is ***\"}" \
    "$(outputs "$examples/secrets.yaml")"

# ---- mcp ----
outputs "$examples/mcp.yaml" >"$scenario_dir/mcp.json"
check_match "mcp: the list, a call, and calls under a map" '^\{"tools":\["convert","units"\],"miles":26.219,"feet":\[3.281,6.562,9.843\],"told":"there is no unit parsec: expected one of ft, km, m, mi"\}$' \
    "$scenario_dir/mcp.json"

# ---- cancel ----
id=$(cox task submit "$examples/cancel.yaml" -o name -q)
long_runs() { cox task describe "$id" long -o jsonl | grep -q '"status":"RUNNING"'; }
check "cancel: the long step starts" await 20 long_runs
check "cancel: accepted" cox task cancel "$id" --reason "seen enough"
check_exit "cancel: watch ends with 1" 1 cox task watch "$id" -o json --timeout 60s
check_equal "cancel: the task is CANCELLED" CANCELLED "$(value "$scenario_dir/out" status)"
cox task describe "$id" -o json >"$scenario_dir/cancel.json"
check_equal "cancel: the step is CANCELLED" CANCELLED "$(value "$scenario_dir/cancel.json" steps.0.status)"
check_equal "cancel: what needs it is CANCELLED" CANCELLED "$(value "$scenario_dir/cancel.json" steps.1.status)"

# ---- release: a map, a race, a signal, an approval ----
id=$(cox task submit "$examples/release.yaml" -o name -q)
waits() { [ "$(value <(cox task get "$id" -o json) status)" = WAITING ]; }
check "release: it waits for people" await 20 waits
check "release: a signal" cox task signal "$id" begin --payload '{"version": "1.2"}'
check "release: an approval" cox task approve "$id" ship --comment "go on"
check_exit "release: it ends" 0 cox task watch "$id" --timeout 60s
cox task output "$id" -o json >"$scenario_dir/release.json"
check_equal "release: what came of it" "1.2 shipped (go on)" "$(value "$scenario_dir/release.json" text)"
check_equal "release: the race" quick "$(value "$scenario_dir/release.json" greeting)"
check_equal "release: the map" "$(wc -c </etc/passwd)" "$(value "$scenario_dir/release.json" sizes.0)"
check_equal "release: its failed item" 2 "$(value "$scenario_dir/release.json" failed.0.index)"

# ---- audit, of a copy: the tree itself may change while its numbers are taken ----
tree=$scenario_dir/tree
mkdir "$tree"
cp -r "$scenario_root"/{cli,docs,include,lib,proto} "$tree"
printf 'no newline at the end, T%s' 'ODO' >"$tree/odd name\"s.txt"
cox task run -q "$examples/repo-audit.yaml" --input "repo=$tree" >"$scenario_dir/audit.json" 2>>"$scenario_dir/run.log"
check_equal "repo-audit: files" "$(find "$tree" -type f | wc -l)" "$(value "$scenario_dir/audit.json" files)"
check_equal "repo-audit: bytes" "$(find "$tree" -type f -exec cat {} + | wc -c)" "$(value "$scenario_dir/audit.json" bytes)"
check_equal "repo-audit: lines" "$(find "$tree" -type f -exec cat {} + | wc -l)" "$(value "$scenario_dir/audit.json" lines)"
check_equal "repo-audit: lines of C" "$(find "$tree" -name '*.c' -exec cat {} + | wc -l)" \
    "$(value "$scenario_dir/audit.json" lines_by_kind.c)"
check_equal "repo-audit: marks" "$(grep -rIE '[T]ODO|[F]IXME' "$tree" | wc -l)" "$(value "$scenario_dir/audit.json" marks)"
value "$scenario_dir/audit.json" report >"$scenario_dir/report.md"
check_match "repo-audit: the report has the total" "^$(find "$tree" -type f | wc -l) files, " "$scenario_dir/report.md"

if command -v git >/dev/null; then
    git -C "$tree" init -q
    git -C "$tree" add lib
    cox task run -q "$examples/repo-audit.yaml" --input "repo=$tree" >"$scenario_dir/git.json" 2>>"$scenario_dir/run.log"
    check_equal "repo-audit: only tracked files" "$(find "$tree/lib" -type f | wc -l)" "$(value "$scenario_dir/git.json" files)"
    check_equal "repo-audit: only tracked lines" "$(find "$tree/lib" -type f -exec cat {} + | wc -l)" \
        "$(value "$scenario_dir/git.json" lines)"
else
    skip "repo-audit: only tracked files" "git is not installed"
fi
check_exit "repo-audit: a tree that is not there fails" 1 cox task run "$examples/repo-audit.yaml" --input repo=/nowhere
check_match "repo-audit: and says which step, and why" "nowhere" "$scenario_dir/err"

finish
