#!/bin/bash
# Secrets against steps, tasks and tenants that want them: a step that was given one tells it in every way it knows,
# and afterwards it stands nowhere; who was given none gets none, whatever stands in inputs, outputs and documents.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs python3
files=$scenario_dir/secrets
mkdir -p "$files/dir" "$scenario_dir/handlers" "$scenario_dir/work"

# Values of this run alone, with characters that each encoding writes otherwise. `visible` is told in the same ways,
# and is no secret: where it is found, the other would be.
random() { od -An -tx1 -N12 /dev/urandom | tr -d ' \n'; }
visible="visible-$(random)"
token="tk/$(random)+\"q\" ü&$(random)"
printf '%s\n' "$token" >"$files/dir/slack"
printf '%s' "from-file-$(random)" >"$files/plain"
printf '%s' "of-others-$(random)" >"$files/others"
printf -- '-----BEGIN KEY-----\n%s\n%s\n-----END KEY-----\n' "$(random)$(random)" "$(random)$(random)" >"$files/dir/pem"
printf 'abc' >"$files/dir/short"
head -c 70000 /dev/zero | tr '\0' x >"$files/dir/large"
ln -s ../plain "$files/dir/outside"
mkdir "$files/dir/..data"
printf '%s' "mounted-$(random)" >"$files/dir/..data/mounted"
ln -s ..data/mounted "$files/dir/mounted"
printf '%s' "everybody-$(random)" >"$files/dir/writable"
chmod 666 "$files/dir/writable"
cat >"$files/command" <<'SH'
#!/bin/sh
echo run >>"$(dirname "$0")/command.runs"
cat "$(dirname "$0")/commanded"
SH
printf '#!/bin/sh\nsleep 98765.%s & wait\n' "$$" >"$files/hang"
printf '#!/bin/sh\ncat /dev/zero\n' >"$files/flood"
chmod +x "$files/command" "$files/hang" "$files/flood"
printf '%s' "from-command-$(random)" >"$files/commanded"
export PLANTED_FOR_THE_WORKER="from-env-$(random)"
printf '%s' "$PLANTED_FOR_THE_WORKER" >"$files/env"
cat >"$scenario_dir/worker.yaml" <<YAML
secrets:
  file: {file: $files/plain}
  variable: {env: PLANTED_FOR_THE_WORKER}
  commanded: {command: [$files/command, --quiet], ttl: "0"}
  others: {file: $files/others, tenants: [others]}
  mine: {file: $files/plain, tenants: [others, default]}
  hanging: {command: [$files/hang], timeout: 500ms}
  flood: {command: [$files/flood], timeout: 20s}
  gone: {file: $files/none}
YAML

# A program that tells what it was given as its output, its log and its errors, and remembers it for the next call.
cat >"$scenario_dir/handlers/tell" <<'PY'
#!/usr/bin/env python3
import json, os, sys
if "--describe" in sys.argv:
    print(json.dumps({"version": "1.0.0", "serve": True}))
    sys.exit()
last = None
for line in sys.stdin:
    call = json.loads(line)
    given = call["input"].get("t")
    print("log:", given, "before:", last, file=sys.stderr, flush=True)
    answer = {"error": {"code": "INTERNAL", "message": f"failed with {given}"}} if call["input"].get("fail") else \
        {"output": {"got": given, "before": last, str(given): [given, {"x": f"<{given}>"}], "pid": os.getpid(),
                    "args": open("/proc/self/cmdline").read()}}
    last = given or last
    print(json.dumps({"id": call["id"], **answer}), flush=True)
PY
chmod +x "$scenario_dir/handlers/tell"

# Two servers: one says back what it is told and can send elsewhere, the other remembers what it hears.
cat >"$scenario_dir/server.py" <<'PY'
import http.server, json, sys, threading
heard = open(sys.argv[1], "w")
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        text = f"{self.path} {self.headers.get('Authorization')} {self.headers.get('X-Key')} {body}"
        heard.write(text + "\n"); heard.flush()
        self.send_response(302 if self.path.startswith("/away") else 500 if self.path.startswith("/fail") else 200)
        if self.path.startswith("/away"):
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/landed")
        self.send_header("X-Told", str(self.headers.get("X-Key")))
        data = (json.dumps({"told": text}) if self.path.startswith("/json") else text).encode()
        self.send_header("Content-Type", "application/json" if self.path.startswith("/json") else "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    do_GET = do_POST
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
PY
python3 "$scenario_dir/server.py" "$files/heard" >"$scenario_dir/port" 2>"$scenario_dir/server.log" &
server=$!
at_exit+=("kill $server")
await_file "$scenario_dir/port" "$server" || exit 1
url=http://127.0.0.1:$(cat "$scenario_dir/port")

# Two tenants, and who serves them.
token_of() { "$COX_BUILD/cox" admin token "$@" 2>>"$scenario_dir/tokens.yaml"; }
token_of worker --role worker >"$scenario_dir/worker.token"
admin=$(token_of root --role admin)
others=$(token_of others --role submitter --role reader --tenant others)
COX_TOKEN=$(token_of default --role submitter --role reader --role operator --tenant default)
export COX_TOKEN
start_coxd --log-level debug --token-file "$scenario_dir/tokens.yaml"
worker_flags=(--config "$scenario_dir/worker.yaml" --secrets-dir "$files/dir" --handler-dir "$scenario_dir/handlers"
    --work-dir "$scenario_dir/work" --slots 4 --log-level debug --token-file "$scenario_dir/worker.token")
if "$COX_BUILD/cox-worker" --help | grep -q -- --http-allow; then worker_flags+=(--http-allow 127.0.0.0/8); fi
start_worker w1 "${worker_flags[@]}"

# run_task NAME STEPS [MORE]: a document's steps, in YAML; its outcome in $scenario_dir/NAME.json.
said=$scenario_dir/said
mkdir "$said"
run_task() {
    printf 'api_version: v1\nname: %s\n%s\nsteps:\n%s\n' "$1" "${3:-}" "$2" >"$scenario_dir/$1.yaml"
    rm -f "$said/$1.json"
    cox task run "$scenario_dir/$1.yaml" -o json >"$said/$1.outputs" 2>"$said/$1.err"
    local id
    id=$(sed -n 's/ submitted$//p' "$said/$1.err")
    [ -z "$id" ] || cox task describe "$id" -o json >"$said/$1.json"
}
field() { python3 -c 'import json, sys; print(eval(sys.argv[2], {"t": json.load(open(sys.argv[1]))}))' "$said/$1.json" "$2" 2>&1; }
id_of() { field "$1" 't["id"]'; }

# ---- a step that was given secrets tells them ----------------------------------------------------------
tell='import base64, json, os, sys, urllib.parse
def every(v):
    yield v
    yield base64.b64encode(v.encode()).decode()
    yield base64.b64encode(("user:" + v).encode()).decode()
    yield base64.urlsafe_b64encode(("x" + v).encode()).decode()
    yield v.encode().hex()
    yield urllib.parse.quote(v)
    yield urllib.parse.quote_plus(v)
    yield json.dumps({"v": v})
    yield json.dumps(json.dumps({"v": v}))
    yield json.dumps({"v": v}, ensure_ascii=False)
values = [os.environ["TOKEN"], os.environ["PEM"], os.environ["MIXED"], sys.stdin.read(), os.environ["VISIBLE"]]
for out in (sys.stdout, sys.stderr):
    for v in values:
        for way in every(v):
            print("tells", way, file=out, flush=True)
        for c in v:
            out.write(c); out.flush()
        for line in v.splitlines():
            print("|", line, file=out)
'
cat >"$scenario_dir/tell.py" <<<"$tell"
echo_step="  echo:
    run:
      argv: [python3, $scenario_dir/tell.py]
      env: {TOKEN: \"\${{ secrets.TOKEN }}\", PEM: \"\${{ secrets.PEM }}\", MIXED: \"a \${{ secrets.FILE }}\", VISIBLE: $visible}
      stdin: \"\${{ secrets.VARIABLE }}\"
    secrets: {TOKEN: slack, PEM: pem, FILE: file, VARIABLE: variable}"
run_task echo "$echo_step" "labels: {seen: $visible}"
check_match "the process got all four: its output has the marks where they were" 'a \*\*\*' "$said/echo.json"
check_match "what is no secret is in its output" "tells $visible" "$said/echo.json"

large="  large:
    run:
      argv: [python3, -c, 'import os, sys; exec(\"for i in range(3000):\\n print(i, os.environ[chr(84)], os.environ[chr(86)], file=sys.stdout if i % 2 else sys.stderr)\")']
      env: {T: \"\${{ secrets.TOKEN }}\", V: $visible}
    secrets: {TOKEN: slack}
  as_json:
    run:
      argv: [python3, -c, 'import json, os; print(json.dumps({os.environ[\"T\"]: [os.environ[\"T\"] * 3, os.environ[\"V\"]] * 9000}))']
      env: {T: \"\${{ secrets.TOKEN }}\", V: $visible}
      output: json
    secrets: {TOKEN: slack}
  escaped:
    run:
      argv: [python3, -c, 'import json, os; print(json.dumps([\"\".join(chr(92) + \"u%04x\" % ord(c) for c in os.environ[\"T\"])] * 9000).replace(chr(92) * 2, chr(92)))']
      env: {T: \"\${{ secrets.FILE }}\"}
      output: json
    secrets: {FILE: file}
  files:
    run: {argv: [sh, -c, 'printf \"%s\\n\" \"\$T\" \"\$V\" >kept; head -c 70000 /dev/zero >>kept; printf \"%s\" \"\$T\" >>kept'],
      env: {T: \"\${{ secrets.TOKEN }}\", V: $visible}}
    artifacts: {kept: kept}
    secrets: {TOKEN: slack}
  fails:
    allow_failure: true
    run: {argv: [sh, -c, 'echo \"died of \$T \$V\" >&2; exit 3'], env: {T: \"\${{ secrets.TOKEN }}\", V: $visible}}
    secrets: {TOKEN: slack}
  after: {needs: [fails], run: {argv: [echo, \"\${{ steps.fails.error.message }}\"]}}
  cut:
    allow_failure: true
    run: {argv: [nonesuch], env: {PATH: \"$(printf '/p%.0s' {1..298}):\${{ secrets.TOKEN }}\"}}
    secrets: {TOKEN: slack}"
run_task large "$large"
check_equal "outputs as blobs, artifacts, failures: the task succeeds" SUCCEEDED "$(field large 't["status"]')"
check_match "a message that is cut has no half of a secret" '/p:\*\*\*\)' "$said/large.json"
cox task output "$(id_of large)" escaped -o json >"$said/escaped" 2>"$said/escaped.err"
check_equal "a large output of JSON with all characters escaped" "9000 ***" \
    "$(python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); print(len(v), *set(v))' "$said/escaped" 2>&1 | tail -n 1)"

programs="  told: {uses: tell@1, with: {t: \"x \${{ secrets.TOKEN }}\", v: $visible}, secrets: {TOKEN: slack}}
  next: {needs: [told], uses: tell@1, with: {v: $visible}}
  mapped:
    map: {over: [1, 2, 3], batch: 3}
    uses: tell@1
    with: {t: \"\${{ secrets.TOKEN }}\", n: \"\${{ item }}\"}
    secrets: {TOKEN: slack}
  fails: {allow_failure: true, uses: tell@1, with: {t: \"\${{ secrets.TOKEN }}\", fail: true, v: $visible}, secrets: {TOKEN: slack}}
  body:
    http: {method: POST, url: \"$url/said\", headers: {Authorization: \"Bearer \${{ secrets.FILE }}\", X-Key: \"\${{ secrets.MOUNTED }}\"}, body: \"$visible \${{ secrets.TOKEN }}\"}
    secrets: {FILE: file, MOUNTED: mounted, TOKEN: slack}
  json: {http: {method: POST, url: \"$url/json/\${{ secrets.FILE }}\", json: {k: [\"\${{ secrets.TOKEN }}\", $visible]}}, secrets: {FILE: file, TOKEN: slack}}
  away:
    allow_failure: true
    http: {url: \"$url/away\", headers: {X-Key: \"\${{ secrets.FILE }}\"}}
    secrets: {FILE: file}
  refused: {allow_failure: true, http: {url: \"$url/fail\", headers: {X-Key: \"\${{ secrets.FILE }}\"}}, secrets: {FILE: file}}
outputs: {told: \"\${{ steps.told.output }}\", next: \"\${{ steps.next.output }}\", body: \"\${{ steps.body.output }}\", mapped: \"\${{ steps.mapped.output }}\"}"
run_task programs "$programs"
check_equal "programs and requests: the task succeeds" SUCCEEDED "$(field programs 't["status"]')"
check_equal "a program's output has the mark, in keys too" "['x ***', ['x ***', {'x': '<x ***>'}]]" \
    "$(field programs '[t["outputs"]["told"]["got"], t["outputs"]["told"]["x ***"]]')"
check_equal "a program that was given a secret serves no other call: the next one finds nothing remembered" None \
    "$(field programs 't["outputs"]["next"]["before"]')"
check_equal "each item got it" 3 "$(field programs 'len([x for x in t["outputs"]["mapped"] if x["got"] == "***"])')"
check "the server heard the header, joined as the document says" grep -qF "Bearer $(cat "$files/plain") $(cat "$files/dir/mounted") $visible $token" "$files/heard"
check "the server heard the path and the JSON" grep -qF "/json/$(cat "$files/plain")" "$files/heard"
if grep -q /landed "$files/heard"; then
    not_ok "a redirect is not followed with secrets: expected no request at the other name"
else ok "a redirect is not followed with secrets: expected and seen no request at the other name"; fi

# ---- who was given none --------------------------------------------------------------------------------
forged='["","TOKEN",""]'
forge="  given: {run: {argv: [sh, -c, 'cat; env'], env: {T: \"\${{ secrets.TOKEN }}\", A: \"\${{ inputs.a }}\", B: \"\${{ steps.says.output.stdout }}\"},
    stdin: \"\${{ toJSON(inputs.a) }}\"}, secrets: {TOKEN: slack}}
  says: {run: {argv: [printf, '[{\"TOKEN\":\"slack\"},{\"got\":[\"\",\"TOKEN\",\"\"]},[[\"got\"]]] \$%s secrets.TOKEN }}', '{{']}}
  without: {needs: [given], run: {argv: [env], env: {A: \"\${{ inputs.a }}\", B: \"\${{ steps.says.output.stdout }}\"}}}
  whole: {uses: tell@1, with: {t: \"\${{ inputs.a }}\", u: \"\${{ inputs.b }}\"}}
  beside: {uses: tell@1, with: {t: \"\${{ inputs.a }}\", u: \"\${{ secrets.TOKEN }}\"}, secrets: {TOKEN: slack}}
outputs: {whole: \"\${{ steps.whole.output.got }}\", beside: \"\${{ steps.beside.output.got }}\", without: \"\${{ steps.without.output.stdout }}\"}"
run_task forge "$forge" "inputs: {a: {type: any, default: $forged}, b: {type: any, default: [{TOKEN: slack}, {got: $forged}, [[got]]]}}" ||
    sed 's/^/    /' "$said/forge.err"
check_equal "a list of pieces from an input stays a list, in a step without the secret" "['', 'TOKEN', '']" "$(field forge 't["outputs"]["whole"]')"
check_equal "and in a step with it" "['', 'TOKEN', '']" "$(field forge 't["outputs"]["beside"]')"
check "a step without the secret has no variable of it" python3 - "$said/forge.json" <<'PY'
import json, sys
text = json.load(open(sys.argv[1]))["outputs"]["without"].replace("COX_ATTEMPT_KEY=***", "")
sys.exit("***" in text or "\nT=" in text or 'A=["","TOKEN",""]' not in text)
PY

# refused NAME PATH DOCUMENT-STEPS: at submission, with the place.
refused() {
    run_task "refused" "$3" "${4:-}"
    check_match "refused at submission: $1, at $2" "$2.*secret" "$said/refused.err"
}
run='run: {argv: [x]}, secrets: {T: slack}'
refused "in a condition" 'steps\.a\.if' "  a: {$run, if: \"\${{ secrets.T == 'x' }}\"}"
refused "in an argument, which /proc shows" 'steps\.a\.run\.argv\[1\]' "  a: {run: {argv: [x, \"\${{ secrets.T }}\"]}, secrets: {T: slack}}"
refused "in an output" 'outputs\.x' "  a: {$run}
outputs: {x: \"\${{ secrets.T }}\"}"
refused "in a function" 'steps\.a\.run\.env\.E' "  a: {run: {argv: [x], env: {E: \"\${{ toJSON(secrets.T) }}\"}}, secrets: {T: slack}}"
refused "as the items of a map" 'steps\.a\.map\.over' "  a: {$run, map: {over: \"\${{ secrets.T }}\"}}"
refused "another step's" 'steps\.b\.run\.stdin' "  a: {$run}
  b: {run: {argv: [x], stdin: \"\${{ secrets.T }}\"}}"
refused "by an expression" 'steps\.a\.secrets\.T' "  a: {run: {argv: [x]}, secrets: {T: \"\${{ inputs.x }}\"}}"
refused "a path" 'steps\.a\.secrets\.T' "  a: {run: {argv: [x]}, secrets: {T: ../plain}}"
run_task labels "  a: {$run}" "labels: {x: \"\${{ secrets.T }}\"}"
check "a label is text: no secret is read in it" grep -rqF '${{ secrets.T }}' "$said/labels.json"

# ---- what a worker does not give -----------------------------------------------------------------------
# answers NAME REFERENCE EXPECTED
answers() {
    run_task "a-$2" "  a: {run: {argv: [sh, -c, 'test -n \"\$T\"'], env: {T: \"\${{ secrets.T }}\"}}, secrets: {T: $2}}"
    check_equal "$1" "$3" "$(field "a-$2" 't["error"]["message"] if t.get("error") else t["status"]')"
}
answers "a secret that nobody has" nothing 'this worker has no secret "nothing"'
answers "another tenant's: the same words" others 'this worker has no secret "others"'
answers "one of several tenants'" mine SUCCEEDED
for reference in others mine file; do
    COX_TOKEN=$others answers "control: a task of that tenant has it, and what is for all: $reference" "$reference" SUCCEEDED
done
answers "a link out of the directory" outside 'this worker cannot use the secret "outside"; its log says why'
answers "a link within, as clusters mount them" mounted SUCCEEDED
answers "a file that everybody may write" writable 'this worker cannot use the secret "writable"; its log says why'
answers "a file too large" large 'this worker cannot use the secret "large"; its log says why'
answers "a value too short to be kept out of output" short 'this worker cannot use the secret "short"; its log says why'
answers "a command that hangs" hanging 'this worker cannot use the secret "hanging"; its log says why'
answers "a command without end" flood 'this worker cannot use the secret "flood"; its log says why'
answers "a file that is gone" gone 'this worker cannot use the secret "gone"; its log says why'
# A step that waits for a worker that has them: what it waits for, in the very words for another tenant's as for nobody's.
lacks="this worker has no secret \"nothing\", nor \"others\""
printf 'api_version: v1\nname: lacks\nsteps:\n  a: {run: {argv: [x]}, secrets: {A: nothing, B: slack, C: others}, retry: {max_attempts: 9, initial_backoff: 1h, max_backoff: 1h}}\n' \
    >"$scenario_dir/lacks.yaml"
lacks_id=$(cox task submit "$scenario_dir/lacks.yaml" -o name)
backs_off() { cox explain "$lacks_id/a" >"$said/explain-lacks" 2>&1 && grep -q "tries again" "$said/explain-lacks"; }
check "a step that lacks secrets is put off" await 30 backs_off
check_match "cox explain names all that its worker lacks" "step a is READY: tries again at .* after UNAVAILABLE: $lacks" "$said/explain-lacks"
check_match "and says where they are given" "secrets are given to workers, by --secrets-dir" "$said/explain-lacks"
cox task describe "$lacks_id" -o json >"$said/lacks.json"
check_equal "so does the step's reason" "$lacks" "$(field lacks 't["steps"][0]["reason"].split(": ", 1)[1]')"
cox task cancel "$lacks_id" >"$said/lacks.cancel" 2>&1
check_equal "nothing is left of the command that hung" "" "$(pgrep -f "sleep 98765.$$")"

# Rotation: the next attempt has what the file and the command say now, and a worker that is told the rest by SIGHUP.
printf '%s' "rotated-$(random)" >"$files/plain"
printf '%s' "rotated-$(random)" >"$files/commanded"
printf '%s' "added-$(random)" >"$files/added"
printf '  added: {file: %s}\n' "$files/added" >>"$scenario_dir/worker.yaml"
kill -HUP "${worker_pids[w1]}"
await 10 grep -q "read the configuration again" "$scenario_dir/w1.log"
digests() { for f in "$@"; do sha256sum <"$f" | cut -d' ' -f1; done | tr '\n' ' '; }
run_task rotated "  a:
    run: {argv: [sh, -c, 'for v in \"\$F\" \"\$C\" \"\$A\" \"\$E\"; do printf %s \"\$v\" | sha256sum | cut -d\" \" -f1; done | tr \"\\n\" \" \"'],
      env: {F: \"\${{ secrets.F }}\", C: \"\${{ secrets.C }}\", A: \"\${{ secrets.A }}\", E: \"\${{ secrets.E }}\"}}
    secrets: {F: file, C: commanded, A: added, E: variable}
outputs: {digests: \"\${{ steps.a.output.stdout }}\"}"
check_equal "rotated values, a new name, and the variable that the worker took at its start" \
    "$(digests "$files/plain" "$files/commanded" "$files/added" "$files/env")" "$(field rotated 't["outputs"]["digests"]')"
check_equal "the worker's environment has the variable no more" "" \
    "$(tr '\0' '\n' <"/proc/${worker_pids[w1]}/environ" | grep -aF "$(cat "$files/env")")"
cat >"$scenario_dir/look.py" <<'PY'
import glob, os
found = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        data = open(path, "rb").read()
    except OSError:
        continue
    found += [path] * (os.environ["T"].encode() in data) + ["control"] * (b"look.py" in data)
print(" ".join(found))
PY
run_task look "  a:
    run: {argv: [python3, $scenario_dir/look.py], env: {T: \"\${{ secrets.T }}\"}}
    secrets: {T: file}
outputs: {found: \"\${{ steps.a.output.stdout }}\"}"
check_equal "while the step runs, its secret is among no process's arguments (its own are found)" control "$(field look 't["outputs"]["found"].strip()')"

# ---- where they stand now ------------------------------------------------------------------------------
echo_id=$(id_of echo)
for verb in get describe output logs; do cox task "$verb" "$echo_id" >"$said/$verb-echo" 2>&1; done
cox explain "$echo_id" >"$said/explain-echo" 2>&1
timeout 60 "$COX_BUILD/cox" task watch "$echo_id" -o jsonl >"$said/watch-echo" 2>&1
COX_TOKEN=$admin cox worker describe w1 -o json >"$said/worker" 2>&1
python3 - "http://$coxd_http" "$echo_id" "$said" "$admin" <<'PY'
import sys, urllib.request
base, task, out, token = sys.argv[1:]
for i, path in enumerate(["/metrics", f"/api/v1/tasks/{task}", f"/api/v1/tasks/{task}/steps", f"/api/v1/tasks/{task}/steps/echo/output",
                          "/api/v1/stats", "/api/v1/workers", "/api/v1/tasks"]):
    with urllib.request.urlopen(urllib.request.Request(base + path, headers={"Authorization": f"Bearer {token}"})) as answer:
        open(f"{out}/http-{i}", "wb").write(answer.read())
PY
check "what is looked through: the command line and HTTP have answered" test "$(cat "$said"/http-* "$said"/*.json "$said"/describe-* "$said"/logs-echo | wc -c)" -gt 20000
cp "$scenario_dir/w1.log" "$scenario_dir/coxd.log" "$said"
find_in() { python3 "$scenario_root/tests/security/find_values.py" "$@"; } # FILE-OF-VALUES FOLDER...
for f in "$files/dir/slack" "$files/dir/pem" "$files/plain" "$files/env" "$files/commanded" "$files/dir/mounted" "$files/added" "$files/others"; do
    printf '%s\0' "$(cat "$f")"
done >"$files/values"
printf '%s\0' "$(sed -n 's/^Bearer //p; s/.*Bearer \(from-file-[0-9a-f]*\).*/\1/p' "$files/heard" | head -n 1)" >>"$files/values"
printf '%s' "$visible" >"$scenario_dir/visible"
looked() { find_in "$1" "$scenario_dir/data" "$said" "$scenario_dir/work" "$scenario_dir/w1.work"; }
check_match "control: what is no secret is found in the log, in blobs and in answers" 'log\.db.*' <(find_in "$scenario_dir/visible" "$scenario_dir/data")
check_equal "no secret in the data, the blobs, what commands, HTTP and metrics said, the logs at debug, the work directory" "" "$(looked "$files/values")"
stop_worker w1
stop_coxd
check_equal "nor in the data once coxd has stopped" "" "$(looked "$files/values")"
check_match "control: and what is no secret is there" 'state\.db|log\.db' <(find_in "$scenario_dir/visible" "$scenario_dir/data")

# ---- bad configuration ---------------------------------------------------------------------------------
misconfigured() { # misconfigured NAME YAML WORDS
    printf '%s\n' "$2" >"$scenario_dir/bad.yaml"
    "$COX_BUILD/cox-worker" --config "$scenario_dir/bad.yaml" >"$scenario_dir/bad" 2>&1 </dev/null
    check_match "a worker refuses $1" "$3" "$scenario_dir/bad"
}
misconfigured "two sources" 'secrets: {x: {file: /a, env: B}}' 'line 1.*secrets\.x: expected exactly one'
misconfigured "a relative path" 'secrets: {x: {file: a}}' 'secrets\.x\.file: expected the path of a file'
misconfigured "a variable that steps see" 'secrets: {x: {env: HOME}}' 'secrets\.x\.env: expected a variable that steps do not see'
misconfigured "a misspelled field" 'secrets: {x: {file: /a, tenant: [b]}}' 'secrets\.x\.tenant: expected one of'
finish
