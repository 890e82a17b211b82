#!/bin/bash
# `mcp` steps on real programs: servers of both eras, over both transports, kept, shared, crashing, and bad.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox-worker cox python3
server=$scenario_root/tests/scenario/mcp_server.py
python=$(command -v python3)
mkdir "$scenario_dir/secrets"
printf open-sesame >"$scenario_dir/secrets/sesame"
start_coxd
start_worker w1 --slots 8 --http-allow 127.0.0.1 --secrets-dir "$scenario_dir/secrets"

# serve QUIRK...: an HTTP server in the background; sets $url.
n_servers=0
serve() {
    n_servers=$((n_servers + 1))
    "$python" "$server" --http "$scenario_dir/url.$n_servers" "$@" >"$scenario_dir/server.log" 2>&1 </dev/null &
    local pid=$!
    at_exit+=("kill $pid")
    await_file "$scenario_dir/url.$n_servers" "$pid" || not_ok "a server starts: $*" "$scenario_dir/server.log"
    url=$(cat "$scenario_dir/url.$n_servers")
}

# stdio QUIRK...: the members of `mcp` that say a server of ours that is a process.
stdio() {
    local quirk all="\"$server\""
    for quirk in "$@"; do all="$all, \"$quirk\""; done
    echo "command: \"$python\", args: [$all]"
}
http() { serve "$@" && server_members="url: \"$url\""; }

# run STEPS [OUTPUT]: a task of these steps; its id is left in $task, what it gave in $scenario_dir/out.
run() {
    printf 'api_version: v1\nname: tools\nsteps:\n%s\noutputs: {o: "${{ %s }}"}\n' "$1" "${2:-steps.s.output}" >"$scenario_dir/mcp.yaml"
    "$COX_BUILD/cox" task run "$scenario_dir/mcp.yaml" -o json >"$scenario_dir/out" 2>"$scenario_dir/err" </dev/null
    code=$?
    task=$(sed -n 's/^\(t[^ ]*\) submitted.*/\1/p' "$scenario_dir/err")
}

# gives NAME EXPECTED STEPS [OUTPUT]: the task's output, compact.
gives() {
    run "$3" "${4:-steps.s.output.text}"
    python3 -c 'import json, sys; print(json.dumps(json.load(sys.stdin)["o"]))' <"$scenario_dir/out" >"$scenario_dir/found" 2>>"$scenario_dir/err"
    if [ "$(cat "$scenario_dir/found")" = "$2" ]; then ok "$1"; else
        { echo "expected: $2"; echo "found:    $(cat "$scenario_dir/found")"; cat "$scenario_dir/err"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}

# refuses NAME REGEX STEP: the step fails with it.
refuses() {
    run "  s: $3"
    if [ "$code" = 1 ] && grep -Eq -- "$2" "$scenario_dir/err"; then ok "$1"; else
        { echo "exit code $code, expected 1 and: $2"; cat "$scenario_dir/err"; } >"$scenario_dir/check.log"
        not_ok "$1" "$scenario_dir/check.log"
    fi
}

# ---- what every server must do, in each era and over each transport ----

works() {
    local name=$1 at=$2
    gives "$name: a tool" '"hi"' "  s: {mcp: {$at, tool: echo, arguments: {text: hi}}}"
    gives "$name: the list" 20 "  s: {mcp: {$at, list: true}}" 'size(steps.s.output.tools)'
    gives "$name: what it says of a tool" '["echo", "Does echo.", "object"]' "  s: {mcp: {$at, list: true}}" \
        '[steps.s.output.tools[0].name, steps.s.output.tools[0].description, steps.s.output.tools[0].input_schema.type]'
    gives "$name: structured content" '{"n": 1}' "  s: {mcp: {$at, tool: structured}}" steps.s.output.structured_content
    gives "$name: images, links and resources" '[4, "image", "cG5n"]' "  s: {mcp: {$at, tool: image}}" \
        '[size(steps.s.output.content), steps.s.output.content[1].type, steps.s.output.content[1].data]'
    gives "$name: with progress" '"done"' "  s: {mcp: {$at, tool: slow}}"
    refuses "$name: a tool that fails" 'INTERNAL: it broke: so' "{mcp: {$at, tool: fails, arguments: {text: so}}}"
    refuses "$name: a tool that is not there" 'INPUT_INVALID: .*Unknown tool' "{mcp: {$at, tool: nope}}"
    refuses "$name: an error of the server" 'INTERNAL: .*it will not' "{mcp: {$at, tool: refuses}}"
    refuses "$name: no result" 'OUTPUT_INVALID: .*expected "content"' "{mcp: {$at, tool: nothing}}"
    refuses "$name: a call that takes too long" 'TIMEOUT' "{mcp: {$at, tool: hang}, timeout: 1s}"
    gives "$name: a large result" 3000000 "  s: {mcp: {$at, tool: big, arguments: {text: \"3000000\"}}}" 'size(steps.s.output.text)'
}
works "stdio, older" "$(stdio)"
works "stdio, newer" "$(stdio modern)"
http && works "HTTP, older" "$server_members"
http modern && works "HTTP, newer" "$server_members"

# ---- processes: kept, shared, found dead ----

two="  a: {mcp: {$(stdio), tool: pid}}
  s: {needs: [a], mcp: {$(stdio), tool: pid}}"
gives "a server is kept for the next call" true "$two" 'steps.a.output.text == steps.s.output.text'
run "  s: {mcp: {$(stdio), tool: pid}}" steps.s.output.text
first=$(cat "$scenario_dir/out")
run "  s: {mcp: {$(stdio), tool: pid}}" steps.s.output.text
check "and not for another task" test "$first" != "$(cat "$scenario_dir/out")"
gives "nor for another server" false "  a: {mcp: {$(stdio), tool: pid}}
  s: {mcp: {$(stdio), env: {X: y}, tool: pid}}" 'steps.a.output.text == steps.s.output.text'
gives "calls are made beside each other in one server" '["together", "together", "together"]' "  a: {mcp: {$(stdio), tool: crowd, arguments: {text: \"3\"}}}
  b: {mcp: {$(stdio), tool: crowd, arguments: {text: \"3\"}}}
  s: {mcp: {$(stdio), tool: crowd, arguments: {text: \"3\"}}}" '[steps.a.output.text, steps.b.output.text, steps.s.output.text]'
gives "items of a map, too" '["a", "b", "c"]' "  s: {map: {over: [a, b, c]}, mcp: {$(stdio), tool: echo, arguments: {text: '\${{ item }}'}}}" \
    '[steps.s.output[0].text, steps.s.output[1].text, steps.s.output[2].text]'
refuses "a server that crashes" 'UNAVAILABLE: mcp: the server has ended: exited with code 3: .*about to crash' "{mcp: {$(stdio), tool: crash}}"
gives "and is started again for the next call" '["x", true]' "  a: {mcp: {$(stdio), tool: crash}, allow_failure: true}
  s: {needs: [a], mcp: {$(stdio), tool: echo, arguments: {text: x}}}" "[steps.s.output.text, steps.a.output.stderr.contains('about to crash')]"
gives "one that kept silent when it was stopped is not asked again" '["x"]' "  a: {mcp: {$(stdio), tool: echo, arguments: {text: x}}}
  b: {needs: [a], mcp: {$(stdio), tool: hang}, timeout: 500ms, allow_failure: true}
  s: {needs: [b], mcp: {$(stdio), tool: echo, arguments: {text: x}}}" '[steps.s.output.text]'
gives "its environment" '"b"' "  s: {mcp: {$(stdio), env: {A: b}, tool: env, arguments: {text: A}}}"
gives "which says nothing of an attempt" '"not set"' "  s: {mcp: {$(stdio), tool: env, arguments: {text: COX_ATTEMPT}}}"
gives "it works where the step's files are" '"made by run\n"' "  a: {run: {argv: [sh, -c, 'echo made by run >f; pwd']}}
  b: {needs: [a], affinity: {workspace: a}, mcp: {$(stdio), tool: cwd}}
  s: {needs: [b], run: {argv: [cat, '\${{ steps.b.output.text }}/f']}, affinity: {workspace: a}}" steps.s.output.stdout
refuses "a program that is not there" 'UNAVAILABLE: mcp: cannot run "no-such-server"' "{mcp: {command: no-such-server, tool: x}}"
refuses "a program that is no server" 'UNAVAILABLE: mcp: the server has ended: exited with code 0' "{mcp: {command: 'true', tool: x}}"
if cox worker describe w1 | grep -q '^strict *yes'; then
    gives "in a sandbox, with the files of its workspace and no others" '["hi", "2"]' "  a: {run: {argv: [cp, \"$server\", server.py]}}
  b: {needs: [a], affinity: {workspace: a}, mcp: {command: /usr/bin/python3, args: [server.py], sandbox: strict, tool: echo, arguments: {text: hi}}}
  s: {needs: [a], mcp: {command: /usr/bin/python3, args: [\"$server\"], sandbox: strict, tool: echo}, allow_failure: true, fallback: {jq: {program: '{text: \"2\"}'}}}" \
        '[steps.b.output.text, steps.s.output.text]'
else
    skip "in a sandbox" "this host gives none"
fi

# ---- secrets ----

gives "a secret in its environment is not told" '"***"' "  s: {mcp: {$(stdio), env: {A: '\${{ secrets.S }}'}, tool: env, arguments: {text: A}}, secrets: {S: sesame}}"
refuses "nor in what fails" 'it broke: \*\*\*' "{mcp: {$(stdio), tool: fails, arguments: {text: '\${{ secrets.S }}'}}, secrets: {S: sesame}}"
http auth
refuses "a server that wants to know who asks" 'DENIED: .*401.*expected .headers. with Authorization' "{mcp: {$server_members, tool: echo}}"
gives "a secret in a header" '"hi"' "  s: {mcp: {$server_members, headers: {Authorization: 'Bearer \${{ secrets.S }}'}, tool: echo, arguments: {text: hi}}, secrets: {S: sesame}}"

# ---- both eras in one server, and servers that are found out about in other ways ----

for era in dual "version=2024-11-05" "version=2025-03-26" "version=2025-06-18" mute-before banner ping pages strict-order twice; do
    gives "stdio: $era" '"hi"' "  s: {mcp: {$(stdio "$era"), tool: echo, arguments: {text: hi}}}"
done
gives "page by page" 20 "  s: {mcp: {$(stdio pages), list: true}}" 'size(steps.s.output.tools)'
refuses "a version that nobody knows" 'INPUT_INVALID: .*1999-01-01' "{mcp: {$(stdio version=1999-01-01), tool: echo}}"
refuses "a newer one that nobody knows" 'INPUT_INVALID: .*2099-01-01' "{mcp: {$(stdio modern version=2099-01-01), tool: echo}}"
gives "the state of a call is given back" '"by the state"' "  s: {mcp: {$(stdio modern), tool: state}}"
refuses "a tool that asks for a person" 'INPUT_INVALID: .*elicitation/create' "{mcp: {$(stdio modern), tool: asks}}"
refuses "a result of another type" 'OUTPUT_INVALID: .*complete' "{mcp: {$(stdio modern), tool: odd-type}}"

# ---- HTTP: sessions, streams, headers ----

for era in dual strict-order cut ping keeps-open forgetful; do
    http $era
    gives "HTTP: $era" '["hi", "ho"]' "  a: {mcp: {$server_members, tool: echo, arguments: {text: hi}}}
  s: {needs: [a], mcp: {$server_members, tool: echo, arguments: {text: ho}}}" '[steps.a.output.text, steps.s.output.text]'
done
http modern header
gives "a parameter as a header" '"h\u00e4"' "  s: {mcp: {$server_members, tool: echo, arguments: {text: hä}}}"
gives "a parameter as a header, listed before" '"hi"' "  a: {mcp: {$server_members, list: true}}
  s: {needs: [a], mcp: {$server_members, tool: echo, arguments: {text: hi}}}"
http
run "  a: {mcp: {$server_members, tool: echo, arguments: {text: x}}}
  s: {needs: [a], mcp: {$server_members, tool: requests}}" 'steps.s.output.text'
python3 - "$scenario_dir/out" >"$scenario_dir/requests" <<'PY'
import json, sys
for r in json.loads(json.load(open(sys.argv[1]))["o"]):
    print(r["what"], r.get("mcp-session-id", "-"), r.get("mcp-protocol-version", "-"), r.get("mcp-method", "-"))
PY
check_match "asked about the newer era first" "^server/discover - 2026-07-28 server/discover$" "$scenario_dir/requests"
check_match "then initialized" "^initialize - - -$" "$scenario_dir/requests"
check_match "in a session, of a version" "^tools/call session-0 2025-11-25 -$" "$scenario_dir/requests"
check_equal "which is one for both calls" 1 "$(grep -c '^initialize' "$scenario_dir/requests")"
http forgets-always
refuses "a session that is always lost" 'UNAVAILABLE: .*loses its session' "{mcp: {$server_members, tool: echo}}"

# ---- bad servers: bounded, and said ----

refuses "garbage without end" 'OUTPUT_INVALID: .*more than 1000 messages' "{mcp: {$(stdio garbage), tool: echo}}"
refuses "answers that nobody asked for" 'OUTPUT_INVALID: .*more than 1000 messages' "{mcp: {$(stdio unknown-ids), tool: echo}}"
refuses "silence" 'TIMEOUT' "{mcp: {$(stdio mute), tool: echo}, timeout: 1s}"
refuses "pages without end" 'OUTPUT_INVALID: .*at most 1000 pages' "{mcp: {$(stdio endless-pages), list: true}}"
refuses "the same page again" 'OUTPUT_INVALID: .*the same cursor' "{mcp: {$(stdio same-cursor), list: true}}"
refuses "too many tools" 'OUTPUT_INVALID: .*at most 4096 tools' "{mcp: {$(stdio many-tools), list: true}}"
refuses "a result that is too large" 'OUTPUT_TOO_LARGE: .*64 MiB' "{mcp: {$(stdio), tool: big, arguments: {text: \"70000000\"}}}"
gives "tools that are none are left out" 20 "  s: {mcp: {$(stdio bad-tools), list: true}}" 'size(steps.s.output.tools) - 1'
refuses "a schema too deep to be read" 'OUTPUT_INVALID: .*64 deep' "{mcp: {$(stdio deep-schema), list: true}}"
http deep-schema
refuses "HTTP: a schema too deep to be read" 'OUTPUT_INVALID: .*64 deep' "{mcp: {$server_members, list: true}}"
for case in "redirect|INPUT_INVALID: .*redirects are not followed" "busy|UNAVAILABLE: .*503" "html|OUTPUT_INVALID: .*no JSON" "accepted|not one of the protocol"; do
    http "${case%%|*}"
    refuses "HTTP: ${case%%|*}" "${case#*|}" "{mcp: {$server_members, tool: echo}}"
done
refuses "HTTP: nobody there" 'UNAVAILABLE' "{mcp: {url: 'http://127.0.0.1:1/mcp', tool: echo}}"
refuses "HTTP: an address that steps may not reach" 'DENIED: .*127.0.0.2 is not a public address' "{mcp: {url: 'http://127.0.0.2:1/mcp', tool: echo}}"

# ---- nothing is left ----

check "the worker is there yet" kill -0 "${worker_pids[w1]}"
stop_worker w1
check "no server outlives its worker" await 20 bash -c "! pgrep -f '[p]ython3 $server( [^-]|\$)'"
finish
