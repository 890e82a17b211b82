#!/bin/bash
# Transport: strangers at both ports, who have no certificate, a wrong one, an old TLS, or no TLS at all; handshakes begun and not
# ended; certificates exchanged under load. Each attack beside somebody honest who is served.
. "$(dirname "$0")/../scenario/lib.sh"
need_programs coxd cox-worker cox cox-bench python3 openssl curl
long=${COX_TEST_LONG:-}
certs=$scenario_dir/certs
stranger() { python3 "$scenario_root/tests/security/transport.py" "$@"; }
out=$scenario_dir/out

# saw NAME EXPECTED COMMAND...: what the stranger came to, by how its line begins.
saw() {
    local name=$1 want=$2
    shift 2
    "$@" >"$out" 2>&1 </dev/null
    case "$(tail -n 1 "$out")" in
        "$want"*) ok "$name (expected: $want; seen: $(tail -n 1 "$out" | cut -c 1-70))" ;;
        *) not_ok "$name (expected: $want; seen: $(tail -n 1 "$out" | cut -c 1-70))" "$out" ;;
    esac
}

# ---- certificates: ours, and those of an attacker ----

cox -q admin certs "$certs" >/dev/null || { not_ok "cox admin certs"; exit 1; }
cox -q admin certs "$scenario_dir/other" >/dev/null
check_equal "keys are for their owner only" "600 600 600 600" \
    "$(stat -c %a "$certs"/{ca,server,worker,client-admin}.key | tr '\n' ' ' | sed 's/ $//')"
sum=$(sha256sum "$certs"/* | sha256sum)
cox -q admin certs "$certs" >/dev/null
check_equal "a second time changes nothing" "$sum" "$(sha256sum "$certs"/* | sha256sum)"
for f in crt key; do
    cp "$scenario_dir/other/client-admin.$f" "$certs/others-admin.$f"
    cp "$scenario_dir/other/server.$f" "$certs/others-server.$f"
done
cp "$scenario_dir/other/ca.crt" "$certs/other-ca.crt"
make_request() { # NAME SUBJECT
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$certs/$1.key" -subj "$2" -out "$certs/$1.csr"
} 2>/dev/null
make_request expired /O=cox:admin/CN=admin
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >"$scenario_dir/names"
openssl x509 -req -in "$certs/expired.csr" -CA "$certs/ca.crt" -CAkey "$certs/ca.key" -days -1 -extfile "$scenario_dir/names" \
    -out "$certs/expired.crt" 2>/dev/null
make_request elsewhere /CN=127.0.0.1
printf 'subjectAltName=DNS:elsewhere.example\nextendedKeyUsage=serverAuth\n' >"$scenario_dir/names"
openssl x509 -req -in "$certs/elsewhere.csr" -CA "$certs/ca.crt" -CAkey "$certs/ca.key" -days 9 -extfile "$scenario_dir/names" \
    -out "$certs/elsewhere.crt" 2>/dev/null
make_request self /O=cox:admin/CN=admin
openssl x509 -req -in "$certs/self.csr" -signkey "$certs/self.key" -days 9 -out "$certs/self.crt" 2>/dev/null
# Many certificates where one is enough.
cp "$certs/client-admin.key" "$certs/endless.key"
cp "$certs/client-admin.crt" "$certs/endless.crt"
for _ in $(seq 100); do cat "$certs/ca.crt"; done >>"$certs/endless.crt"

cp "$certs/server.crt" "$scenario_dir/now.crt"
cp "$certs/server.key" "$scenario_dir/now.key"
cp "$certs/ca.crt" "$scenario_dir/now-ca.crt"
begin() { start_coxd --tls-cert "$scenario_dir/now.crt" --tls-key "$scenario_dir/now.key" --tls-ca "$scenario_dir/now-ca.crt"; }
begin
cp "$certs/worker.crt" "$certs/worker.key" "$scenario_dir/"
export COX_TLS_CA=$certs/ca.crt COX_TLS_CERT=$scenario_dir/worker.crt COX_TLS_KEY=$scenario_dir/worker.key
start_worker w1 --slots 4
export COX_TLS_CERT=$certs/client-admin.crt COX_TLS_KEY=$certs/client-admin.key
served() { cox --connect-timeout 20s task list >/dev/null; }
check "control: cox and a worker with certificates of this CA are served" cox task run "$scenario_root/docs/examples/diamond.yaml"

# ---- who is let in ----

g="$coxd_grpc $certs"
saw "control: TLS 1.3 with a certificate" served stranger grpc $g client-admin
saw "control: TLS 1.2 with a certificate" served stranger grpc $g client-admin max=1.2
saw "no certificate, TLS 1.3" refused stranger grpc $g
saw "no certificate, TLS 1.2" refused stranger grpc $g max=1.2
saw "a certificate that signs itself" refused stranger grpc $g self
saw "an expired certificate" refused stranger grpc $g expired
saw "a certificate of another CA" refused stranger grpc $g others-admin
saw "the server's certificate shown by a client" refused stranger grpc $g server
saw "a chain of a hundred certificates" refused stranger grpc $g endless
saw "TLS 1.1" refused stranger grpc $g client-admin max=1.1
saw "TLS 1.0" refused stranger grpc $g client-admin max=1.0
saw "a cipher without forward secrecy" refused stranger grpc $g client-admin max=1.2 ciphers=AES128-GCM-SHA256
saw "a cipher with CBC and SHA-1" refused stranger grpc $g client-admin max=1.2 ciphers=ECDHE-ECDSA-AES128-SHA
saw "no word of which protocol" refused stranger grpc $g client-admin alpn=none
saw "another protocol than HTTP/2" refused stranger grpc $g client-admin alpn=http/1.1
saw "control: one of two protocols is HTTP/2" served stranger grpc $g client-admin alpn=http/1.1,h2
h="$coxd_http $certs"
saw "control: HTTPS without a certificate" served stranger http $h
saw "control: HTTPS with one of this CA" served stranger http $h client-admin
saw "HTTPS with a certificate of another CA" refused stranger http $h others-admin
saw "HTTPS with TLS 1.1" refused stranger http $h max=1.1
saw "HTTP/2 over HTTPS" refused stranger http $h alpn=h2

# ---- no TLS ----

stranger raw "$coxd_grpc" 505249202a20485454502f322e300d0a0d0a534d0d0a0d0a000000040000000000 >"$out"
check "plain HTTP/2 on the gRPC port hears no frame, at most an alert of TLS" test "$(wc -c <"$out")" -le 10
stranger raw "$coxd_http" 474554202f6865616c746820485454502f312e310d0a0d0a >"$out"
check_match "plain HTTP on the HTTPS port is told so" '^This port speaks TLS' "$out"
head -c 3000 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$scenario_dir/garbage"
for port in "$coxd_grpc" "$coxd_http"; do
    stranger raw "$port" "$(cat "$scenario_dir/garbage")" >/dev/null
    stranger raw "$port" "160301ffff$(cat "$scenario_dir/garbage")" >/dev/null # a length that no record has
    stranger raw "$port" "1603010004feffffff" >/dev/null                        # an unknown message
done
check "after garbage instead of a hello cox is served" served

# ---- what clients are told; their exit code is that of no orchestrator ----

told() { # NAME PATTERN ADDRESS CA CERT
    COX_TLS_CA=$4 COX_TLS_CERT=${5:+$5.crt} COX_TLS_KEY=${5:+$5.key} \
        check_exit "cox leaves: $1" 5 cox --address "$3" --connect-timeout 0 task list
    check_match "and says why: $1" "$2" "$scenario_dir/err"
}
told "plaintext to a TLS port" "speaks TLS: say --tls-ca" "$coxd_grpc" "" ""
told "without a certificate" "wants a certificate" "$coxd_grpc" "$certs/ca.crt" ""
told "the wrong CA" "not signed by the CA" "$coxd_grpc" "$certs/other-ca.crt" "$certs/client-admin"
told "a client of another CA" "does not know the CA" "$coxd_grpc" "$certs/ca.crt" "$certs/others-admin"
told "the HTTP port" "does not speak gRPC" "$coxd_http" "$certs/ca.crt" "$certs/client-admin"
told "its own certificate has expired" "expired.crt has expired" "$coxd_grpc" "$certs/ca.crt" "$certs/expired"
# Servers that are not who they should be: OpenSSL's own, with other certificates.
impostor() { # NAME CERTIFICATE PATTERN
    local fifo=$scenario_dir/impostor.in pid port
    rm -f "$fifo" "$scenario_dir/impostor" && mkfifo "$fifo" # or the last one's port is read before there is a new one
    openssl s_server -accept 127.0.0.1:0 -cert "$certs/$2.crt" -key "$certs/$2.key" -alpn h2 <"$fifo" >"$scenario_dir/impostor" 2>&1 &
    pid=$!
    exec 4>"$fifo"
    await 10 grep -q ^ACCEPT "$scenario_dir/impostor"
    port=$(sed -n 's/^ACCEPT .*:\([0-9]*\).*/\1/p' "$scenario_dir/impostor" | head -n 1)
    told "$1" "$3" "127.0.0.1:$port" "$certs/ca.crt" "$certs/client-admin"
    exec 4>&-
    stop_process "$pid" TERM
}
impostor "a server with an expired certificate" expired "certificate has expired"
impostor "a server of another CA" others-server "not signed by the CA"
impostor "a server with a certificate for another name" elsewhere "is not for 127.0.0.1 but for elsewhere.example"
impostor "a worker's certificate shown by a server" worker "cannot be trusted"

# ---- handshakes that do not end ----

rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$coxd_pid/status"; }
fds() { ls "/proc/$coxd_pid/fd" | wc -l; }
ulimit -n "$(ulimit -Hn)"
n_held=$([ -n "$long" ] && echo 5000 || echo 1500)
if [ "$(ulimit -n)" != unlimited ] && [ "$(ulimit -n)" -lt $((n_held * 3 + 3000)) ]; then n_held=200; fi
before_fds=$(fds) before_kib=$(rss_kib)
check "$n_held handshakes are dropped half way" stranger drop "$coxd_grpc" "$certs" "$n_held"
few_fds() { [ "$(fds)" -le $((before_fds + 5)) ]; }
check "and leave no descriptor behind" await 30 few_fds
mkfifo "$scenario_dir/hold.in"
stranger hold "$coxd_grpc" "$n_held" <"$scenario_dir/hold.in" >"$scenario_dir/hold" 2>&1 &
hold_pid=$!
exec 5>"$scenario_dir/hold.in"
at_exit+=("exec 5>&-")
check "$n_held halves of a handshake are held" await_file "$scenario_dir/hold" "$hold_pid" 60
n_served=0
for _ in $(seq 20); do served && n_served=$((n_served + 1)); done
check_equal "meanwhile 20 of 20 honest clients are served" 20 "$n_served"
check "and tasks run" cox task run "$scenario_root/docs/examples/diamond.yaml"
grown=$((($(rss_kib) - before_kib) / 1024))
if is_sanitized; then
    skip "and memory is bounded" "a sanitizer takes more than that"
elif [ "$grown" -le 80 ]; then ok "and memory is bounded (expected: at most 80 MiB more; seen: $grown)"; else
    not_ok "and memory is bounded (expected: at most 80 MiB more; seen: $grown)"; fi
await 30 few_fds
few_fds && ok "who holds one is cut off after its time" || not_ok "who holds one is cut off after its time: $(fds) descriptors"
exec 5>&-
wait "$hold_pid"
rm "$scenario_dir/hold.in" "$scenario_dir/hold"
mkfifo "$scenario_dir/hold.in"
stranger hold "$coxd_http" "$n_held" http/1.1 <"$scenario_dir/hold.in" >"$scenario_dir/hold" 2>&1 &
hold_pid=$!
exec 5>"$scenario_dir/hold.in"
check "$n_held halves of a handshake are held on the HTTPS port" await_file "$scenario_dir/hold" "$hold_pid" 60
n_served=0
for _ in $(seq 20); do curl -sS -m 20 --cacert "$certs/ca.crt" "https://$coxd_http/healthz" >/dev/null && n_served=$((n_served + 1)); done
check_equal "meanwhile 20 of 20 honest requests are answered" 20 "$n_served"
exec 5>&-
wait "$hold_pid"

# ---- attempts to begin anew, after the handshake ----

again() { # VERSION COMMAND
    yes "$2" | head -n 20000 |
        openssl s_client -connect "$coxd_grpc" "$1" -alpn h2 -CAfile "$certs/ca.crt" -cert "$certs/client-admin.crt" \
            -key "$certs/client-admin.key"
}
timeout 60 bash -c "$(declare -f again); coxd_grpc=$coxd_grpc certs=$certs again -tls1_2 R" >"$out" 2>&1
check_match "renegotiation is refused" "no renegotiation|RENEGOTIATING" "$out"
timeout 60 bash -c "$(declare -f again); coxd_grpc=$coxd_grpc certs=$certs again -tls1_3 K" >"$out" 2>&1
check "after floods of both cox is served" served

# ---- certificates exchanged while tasks run ----

show_serial() { stranger serial "$coxd_http" "$certs"; }
reload() { # FOLDER NAME, CA: and until the server shows what is there, or says that it cannot
    cp "$1/$2.crt" "$scenario_dir/now.crt"
    cp "$1/$2.key" "$scenario_dir/now.key"
    cp "$3" "$scenario_dir/now-ca.crt"
    kill -HUP "$coxd_pid"
}
cat >"$scenario_dir/many.yaml" <<'YAML'
api_version: v1
name: many
steps:
YAML
for i in $(seq 300); do printf '  s%s: {run: {argv: [sh, -c, "echo %s"]}}\n' "$i" "$i"; done >>"$scenario_dir/many.yaml"
first=$(show_serial)
cp -r "$certs" "$scenario_dir/renewed"
cox -q admin certs "$scenario_dir/renewed" --renew >/dev/null
(cox task run "$scenario_dir/many.yaml"; echo "exit $?") >"$scenario_dir/many" 2>&1 &
many_pid=$!
for i in $(seq 10); do
    [ $((i % 2)) = 1 ] && from=renewed || from=certs
    reload "$scenario_dir/$from" server "$certs/ca.crt"
    served || not_ok "a new connection during reload $i"
done
reload "$scenario_dir/renewed" server "$certs/ca.crt"
changed() { [ "$(show_serial)" != "$first" ]; }
check "a renewed certificate is shown to new connections" await 20 changed
wait "$many_pid"
check_match "300 steps went through 11 reloads" '^exit 0$' "$scenario_dir/many"
if grep -q detached "$scenario_dir/w1.log"; then not_ok "no stream was dropped" "$scenario_dir/w1.log"; else ok "no stream was dropped"; fi

second=$(show_serial)
head -c 100 "$certs/server.key" >"$scenario_dir/now.key"
kill -HUP "$coxd_pid"
check "a broken key is reported" await 10 grep -q "TLS stays as it was" "$scenario_dir/coxd.log"
check_equal "and the old one stays" "$second" "$(show_serial)"
check "and clients are served" served

# The CA is exchanged: who had a certificate of the old one is a stranger now, but not thrown out.
reload "$certs" server "$certs/other-ca.crt"
saw_refused() { case "$(stranger grpc $g client-admin)" in refused*) true ;; *) false ;; esac }
check "a certificate of a CA that was taken away gets nobody in" await 20 saw_refused
saw "control: one of the new CA does" served stranger grpc $g others-admin
id=$(COX_TLS_CERT=$certs/others-admin.crt COX_TLS_KEY=$certs/others-admin.key cox task submit "$scenario_root/docs/examples/diamond.yaml" -o name)
export COX_TLS_CERT=$certs/others-admin.crt COX_TLS_KEY=$certs/others-admin.key
check "and the stream of before still works" cox task watch "$id"


# Whoever has to connect anew needs a certificate of the new CA; a worker takes it from where the old one was.
stop_coxd
check_equal "coxd ends well" 0 $?
begin
check "a worker of the old CA is told why it cannot attach" await 60 grep -q "does not know the CA" "$scenario_dir/w1.log"
cp "$scenario_dir/other/worker.crt" "$scenario_dir/other/worker.key" "$scenario_dir/"
attached_twice() { [ "$(grep -c ' attached ' "$scenario_dir/w1.log")" -ge 2 ]; }
check "with new files in the old place it attaches" await 60 attached_twice
stop_worker w1
stop_coxd

# ---- certificates that begin to be asked for while coxd runs: what they may is decided when it starts ----

unset COX_TLS_CA COX_TLS_CERT COX_TLS_KEY
printf 'tls_cert: %s\ntls_key: %s\n' "$certs/server.crt" "$certs/server.key" >"$scenario_dir/late.yaml"
start_coxd --config "$scenario_dir/late.yaml"
echo "tls_ca: $certs/ca.crt" >>"$scenario_dir/late.yaml"
kill -HUP "$coxd_pid"
check "a CA of clients that comes by SIGHUP is not taken, and that is said" await 10 \
    grep -q "asked for, or not, from a restart on" "$scenario_dir/coxd.log"
finish
