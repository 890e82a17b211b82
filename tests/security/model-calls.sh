#!/bin/bash
# Model calls of a step's process where everybody has to say who he is: workers and people by certificates and tokens, TLS on both
# ports. The process knows of none of that; its worker speaks for it, and nobody else gets an answer.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox cox-modelsim curl python3
cd "$scenario_dir" || exit 1

"$COX_BUILD/cox-modelsim" --ready-file sim.json --speed 20 >sim.log 2>&1 </dev/null &
at_exit+=("kill $!")
await_file sim.json $! || { not_ok "the simulator starts" sim.log; exit 1; }
admin=$(json_string sim.json admin)
url=$(grep -o 'http://[^"]*/v1' sim.json)
ask() { python3 "$scenario_root/tests/scenario/model_steps.py" "$@"; }

cox -q admin certs certs >/dev/null || { not_ok "cox admin certs"; exit 1; }
install -m 600 /dev/null tokens.yaml
token worker --role worker
token alice --role submitter --tenant blue
token reader --role reader --tenant blue
start_coxd --model "default=$url" --token-file tokens.yaml --tls-cert certs/server.crt --tls-key certs/server.key --tls-ca certs/ca.crt
export COX_TLS_CA=$scenario_dir/certs/ca.crt
COX_TLS_CERT=$scenario_dir/certs/worker.crt COX_TLS_KEY=$scenario_dir/certs/worker.key \
    start_worker w1 --slots 2 --token-file "$scenario_dir/worker.token"
export COX_TLS_CERT=$scenario_dir/certs/client-admin.crt COX_TLS_KEY=$scenario_dir/certs/client-admin.key COX_TOKEN=
COX_TOKEN=$(cat alice.token)

cat >process.yaml <<'YAML'
api_version: v1
name: process
budget: {tokens: 100000}
steps:
  s:
    run:
      argv:
        - python3
        - -c
        - |
          import json, os, urllib.request
          assert not [name for name in os.environ if name.startswith("COX_TLS") or name == "COX_TOKEN"]
          headers = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"}
          def call(stream):
              body = {"model": "default", "max_tokens": 8, "ignore_eos": True, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
              request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(), headers)
              return urllib.request.urlopen(request).read().decode()
          assert json.loads(call(False))["usage"]["completion_tokens"] == 8
          assert call(True).rstrip().endswith("data: [DONE]")
          print("both answered")
YAML
process=$(cox task submit process.yaml -o name)
check "a step's process has its model called, whole and as a stream" cox task watch "$process"
cox task get "$process" -o json >task.json
check "its task pays" ask usage task.json "model_calls == 2 and output_tokens == 16 and wasted_tokens == 0"
was_its_tenants() { cox usage --by tenant | grep -Eq "^blue +2 "; }
check "it was its tenant's" await 20 was_its_tenants
check "nobody else called" ask sim "$admin" "calls == 2 and answered == 2"

body='{"model": "default", "messages": [{"role": "user", "content": "x"}]}'
status() { curl -s -m 20 -o body -w '%{http_code}' "https://$coxd_http/v1/chat/completions" -H 'Content-Type: application/json' -d "$body" "$@"; }
check_equal "who does not know the CA calls nobody" 000 "$(status)"
check_equal "without a token there is no answer" 401 "$(status --cacert certs/ca.crt)"
check_equal "nor for who may only read" 403 "$(status --cacert certs/ca.crt -H "Authorization: Bearer $(cat reader.token)")"
check_equal "nor for a key of no attempt" 401 "$(status --cacert certs/ca.crt -H "Authorization: Bearer $(cat worker.token)" \
    -H 'cox-attempt: 1/0/1/1' -H 'cox-session: 0')"
check "none of them was passed on" ask sim "$admin" "calls == 2"
check_equal "who may submit may call" 200 "$(status --cacert certs/ca.crt -H "Authorization: Bearer $(cat alice.token)")"
stop_coxd TERM
check_equal "coxd stops in order" 0 $?
finish
