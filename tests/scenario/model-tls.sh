#!/bin/bash
# Servers of models behind TLS: who is believed, what an endpoint says there, that connections are kept, and CA files that a reload
# changes. Against a simulated inference server behind a relay that speaks TLS.
. "$(dirname "$0")/lib.sh"
need_programs cox coxd cox-modelsim curl python3
cd "$scenario_dir" || exit 1

"$COX_BUILD/cox-modelsim" --ready-file sim.ready --speed 20 >sim.log 2>&1 </dev/null &
at_exit+=("stop_process $! TERM")
await_file sim.ready $! || { not_ok "the simulator starts" sim.log; exit 1; }
sim_port=$(sed -n 's|.*http://127.0.0.1:\([0-9]*\)/v1.*|\1|p' sim.ready | head -1)
for ca in ours other; do cox admin certs "$ca" >/dev/null 2>certs.log || not_ok "certificates are made" certs.log; done

# start_relay PORT: sets relay_pid and port
start_relay() {
    rm -f relay.ready
    python3 "$scenario_root/tests/scenario/tls_relay.py" ours/server.crt ours/server.key "$sim_port" "$1" relay.ready >relay.log 2>&1 </dev/null &
    relay_pid=$!
    await_file relay.ready "$relay_pid" || { not_ok "the relay starts" relay.log; exit 1; }
    port=$(cat relay.ready)
}
relay_pid=
at_exit+=('stop_process "$relay_pid" TERM')
start_relay 0

# chat MODEL [true]: a call, or a stream; its status is printed.
chat() {
    curl -sS -m 60 -o answer -w '%{http_code}' "http://$coxd_http/v1/chat/completions" -H 'content-type: application/json' \
        -d "{\"model\": \"$1\", \"stream\": ${2:-false}, \"max_tokens\": 4, \"messages\": [{\"role\": \"user\", \"content\": \"$RANDOM $RANDOM\"}]}"
}
seen() { python3 -c 'import json, sys; print(json.load(open("relay.ready.seen"))[sys.argv[1]])' "$1"; }
write_config() {
    cat >coxd.yaml <<E
models:
  - name: secure
    endpoints: [{url: "https://localhost:$port", ca_file: $scenario_dir/ours/ca.crt}]
  - name: doubted
    endpoints: [{url: "https://localhost:$port/v1/", ca_file: $scenario_dir/$1/ca.crt, upstream_model: small}]
  - name: unknown
    endpoints: ["https://localhost:$port"]
  - name: misnamed
    endpoints: [{url: "https://127.0.0.2:$port", ca_file: $scenario_dir/ours/ca.crt}]
E
}
write_config other
start_coxd --config coxd.yaml

check_equal "a call to a server whose CA is named is answered" 200 "$(chat secure)"
check_match "with an answer" '"finish_reason"' answer
check_equal "so is a stream" 200 "$(chat secure true)"
check_match "to its end" 'data: \[DONE\]' answer
for model in doubted unknown misnamed; do
    check_equal "a server that is not to be believed gets no call ($model)" 502 "$(chat "$model")"
    check_match "and the caller is told why ($model)" 'SSL[^"]*(certificate|subject name)' answer
done
says_engine() { cox model describe secure -o json >model.json && grep -q '"engine": *"vllm"' model.json; }
check "what the server says of itself is read through TLS" await 60 says_engine

# Calls one after the other, and readings of what it says: no handshake but for a call and a reading at once.
before=$(seen connections) pieces=$(seen pieces)
for _ in {1..20}; do [ "$(chat secure)" = 200 ] || not_ok "a call by a kept connection is answered" answer; done
check "it is read again and again" await 60 eval '[ "$(seen pieces)" -ge $((pieces + 60)) ]'
made=$(($(seen connections) - before))
echo "    $made connections made for $(($(seen pieces) - pieces)) requests"
check "connections are kept" [ "$made" -le 3 ]

write_config ours
kill -HUP "$coxd_pid"
answers() { [ "$(chat doubted)" = 200 ]; }
check "another CA file by a reload is used" await 60 answers

stop_process "$relay_pid" TERM
check_equal "without its server a call fails" 502 "$(chat secure)"
start_relay "$port"
back() { [ "$(chat secure)" = 200 ]; }
check "and is answered again when that is back" await 60 back
stop_coxd
check_equal "it stops in order" 0 $?
finish
