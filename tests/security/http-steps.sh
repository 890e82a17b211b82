#!/bin/bash
# What an `http` step may reach: a server on this host counts who comes, however its address was written. The same
# steps reach it from a worker that allows it, so that the silence elsewhere says something.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox python3

cat >"$scenario_dir/server.py" <<'END'
import http.server, socket, sys, threading
visits = open(sys.argv[1], "a", buffering=1)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        visits.write(self.path + "\n")
        to = self.path.partition("?to=")[2]
        self.send_response(302 if to else 200)
        if to:
            self.send_header("Location", to)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass

class V6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
try:
    six = V6(("::1", server.server_port), Handler)
    threading.Thread(target=six.serve_forever, daemon=True).start()
except OSError:
    pass
with open(sys.argv[2], "w") as port:
    print(server.server_port, file=port)
server.serve_forever()
END
: >"$scenario_dir/visits"
python3 "$scenario_dir/server.py" "$scenario_dir/visits" "$scenario_dir/port" 2>"$scenario_dir/server.log" &
server_pid=$!
at_exit+=("kill $server_pid")
await_file "$scenario_dir/port" "$server_pid"
port=$(cat "$scenario_dir/port")

start_coxd
start_worker closed --label at=closed
start_worker open --label at=open --http-allow 127.0.0.1

# step AT URL: how a step ended that asks for it on that worker: the code of its failure, or ok
step() {
    local id
    printf '{"api_version":"v1","name":"t","steps":{"s":{"requires":"at == %s","http":{"url":"%s"}}}}' \
        "$1" "$2" >"$scenario_dir/task.json"
    id=$(cox task submit "$scenario_dir/task.json" -o name -q --wait --timeout 30s 2>>"$scenario_dir/run.log")
    cox task get "$id" -o json 2>&1 |
        python3 -c 'import json, sys; print((json.load(sys.stdin).get("error") or {"code": "ok"})["code"])' 2>&1 | tail -n 1
}

check_equal "control: a worker that allows 127.0.0.1 reaches it: expected ok" ok "$(step open "http://127.0.0.1:$port/control")"
check_match "control: the server saw it" '^/control$' "$scenario_dir/visits"
: >"$scenario_dir/visits"

for host in 127.0.0.1 localhost 127.1 0 0x7f000001 2130706433 0177.0.0.1 127.255.255.254 '[::1]' '[::ffff:127.0.0.1]' \
    '[::ffff:7f00:1]' '[::127.0.0.1]' '[::]'; do
    check_equal "host written as $host: expected DENIED" DENIED "$(step closed "http://$host:$port/in")"
done
for url in http://169.254.169.254/latest/meta-data/ http://10.0.0.1/ http://192.168.0.1/ http://172.16.0.1/ http://100.64.0.1/ \
    'http://[fe80::1]/' 'http://[fd00::1]/' 'http://[64:ff9b::a00:1]/' 'http://[2002:7f00:1::1]/'; do
    check_equal "$url: expected DENIED" DENIED "$(step closed "$url")"
done
check_equal "nobody came to the server: expected 0 visits" 0 "$(wc -l <"$scenario_dir/visits")"

check_equal "redirected inwards by one that is allowed: expected DENIED" DENIED \
    "$(step open "http://127.0.0.1:$port/?to=http://127.0.0.2:$port/in")"
check_equal "redirected to [::1]: expected DENIED" DENIED "$(step open "http://127.0.0.1:$port/?to=http://[::1]:$port/in")"
check_equal "control: redirected to what is allowed: expected ok" ok "$(step open "http://127.0.0.1:$port/?to=http://127.0.0.1:$port/out")"
check_equal "nobody came that was denied: expected 0 visits" 0 "$(grep -c '^/in$' "$scenario_dir/visits")"
finish
