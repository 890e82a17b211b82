#!/bin/bash
# A backup taken under load, restored elsewhere, checked and started: every task acknowledged before the call is in
# it, with its outputs and blobs. Damage planted in a copy is found by the check.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox cox-worker python3 curl

cat >"$scenario_dir/task.yaml" <<'YAML'
api_version: v1
name: quick
steps:
  say: { run: { argv: [sh, -c, "head -c 6000 /dev/zero | tr '\\0' x"] } }
outputs: { said: "${{ steps.say.output.stdout }}" }
YAML

start_coxd --http 127.0.0.1:0
start_worker w1 --slots 2
http=$(json_string "$scenario_dir/coxd.ready" http)
head -c 700000 /dev/urandom >"$scenario_dir/blob"
hash=$(sha256sum "$scenario_dir/blob" | cut -d' ' -f1)
curl -sSf -T "$scenario_dir/blob" "http://$http/api/v1/blobs/sha256:$hash" >/dev/null

# One in the first of the directories of blobs, one in the last.
for text in "blob 54" "blob 7"; do
    printf %s "$text" >"$scenario_dir/small"
    edge=$(sha256sum "$scenario_dir/small" | cut -d' ' -f1)
    edges+=("${edge:0:2}/${edge:2}")
    curl -sSf -T "$scenario_dir/small" "http://$http/api/v1/blobs/sha256:$edge" >/dev/null
done
check_equal "the blobs that were chosen" "00 ff" "${edges[0]%/*} ${edges[1]%/*}"

touch "$scenario_dir/acked"
(
    while [ ! -e "$scenario_dir/enough" ]; do
        "$COX_BUILD/cox" task submit "$scenario_dir/task.yaml" -o name 2>/dev/null | tail -n 1 >>"$scenario_dir/acked"
    done
) &
submitter=$!
at_exit+=("touch '$scenario_dir/enough'; wait $submitter")
acked() { [ "$(wc -l <"$scenario_dir/acked")" -ge "$1" ]; }
n=0
for round in $(seq "$([ -n "${COX_TEST_LONG:-}" ] && echo 10 || echo 3)"); do
    n=$((n + 15))
    check "load, round $round" await 60 acked "$n"
    cp "$scenario_dir/acked" "$scenario_dir/before"
    check "a backup under load, round $round" timeout 60 "$COX_BUILD/cox" admin backup "$scenario_dir/copy$round"
    check "it leaves nothing behind, round $round" await 10 test ! -e "$scenario_dir/data/backup"
    check "it can be restored, round $round" \
        "$COX_BUILD/cox" admin restore "$scenario_dir/copy$round" --data-dir "$scenario_dir/new$round"
    for edge in "${edges[@]}"; do
        check "with blob $edge, round $round" test -s "$scenario_dir/new$round/blobs/$edge"
    done
    check_exit "and is whole, round $round" 0 "$COX_BUILD/coxd" --verify --data-dir "$scenario_dir/new$round"
    check_match "and says so, round $round" '"ok":true' "$scenario_dir/out"
done
touch "$scenario_dir/enough"
wait "$submitter"
stop_worker w1
stop_coxd KILL

# The control: a byte of a blob, and a page of the state.
cp -r "$scenario_dir/new$round" "$scenario_dir/bad"
chmod -R u+w "$scenario_dir/bad"
printf x | dd of="$scenario_dir/bad/blobs/${hash:0:2}/${hash:2}" bs=1 seek=1000 conv=notrunc 2>/dev/null
check_exit "a damaged blob is found" 1 "$COX_BUILD/coxd" --verify --data-dir "$scenario_dir/bad"
check_match "by its name" "$hash" "$scenario_dir/out"
python3 - "$scenario_dir/bad/state.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE archive SET crc = crc + 1 WHERE id = (SELECT min(id) FROM archive)")
db.commit()
PY
check_exit "a damaged task is found" 1 "$COX_BUILD/coxd" --verify --data-dir "$scenario_dir/bad"
check_match "by its number" "archived task" "$scenario_dir/out"
check_exit "what is in use is not overwritten" 1 \
    "$COX_BUILD/coxd" --restore "$scenario_dir/copy1" --data-dir "$scenario_dir/data"
check_exit "what is no backup is refused" 1 \
    "$COX_BUILD/coxd" --restore "$scenario_dir" --data-dir "$scenario_dir/other"

# The last one goes on where the old one stood.
mv "$scenario_dir/data" "$scenario_dir/lost"
mv "$scenario_dir/new$round" "$scenario_dir/data"
start_coxd --http "$http"
start_worker w2 --slots 2
missing() {
    while read -r id; do
        curl -sS "http://$http/api/v1/tasks/$id?wait=60s" >/dev/null
        [ "$(timeout 60 "$COX_BUILD/cox" task output "$id" 2>/dev/null | wc -c)" -gt 6000 ] || echo "$id"
    done <"$scenario_dir/before"
}
check_equal "every task acknowledged before the call is there" "" "$(missing)"
curl -sS "http://$http/api/v1/blobs/sha256:$hash" >"$scenario_dir/blob.back"
check "the blob too" cmp "$scenario_dir/blob" "$scenario_dir/blob.back"
finish
