#!/bin/bash
# What is kept, listed, deleted and refused: lists under filters, deletion, blobs whole and in part, the index made
# again after damage and kill -9, and refusals when the disk or the memory is short while running tasks finish.
. "$(dirname "$0")/lib.sh"
need_programs coxd cox cox-worker python3 curl

cat >"$scenario_dir/task.yaml" <<'YAML'
api_version: v1
name: quick
labels: { team: red }
steps:
  say: { run: { argv: [echo, hello] } }
outputs: { said: "${{ steps.say.output.stdout }}" }
YAML
cat >"$scenario_dir/fail.yaml" <<'YAML'
api_version: v1
name: broken
labels: { team: blue }
steps:
  say: { run: { argv: ["false"] } }
YAML
cat >"$scenario_dir/slow.yaml" <<'YAML'
api_version: v1
name: slow
labels: { team: red }
steps:
  nap: { run: { argv: [sh, -c, "while [ ! -e \"$GO\" ]; do sleep 0.05; done; echo done"], env: { GO: GOFILE } } }
YAML
sed -i "s|GOFILE|$scenario_dir/go|" "$scenario_dir/slow.yaml"

coxd_http() { json_string "$scenario_dir/coxd.ready" http; }
api() { curl -sS "http://$(coxd_http)/api/v1$1" "${@:2}"; }
names() { # names QUERY: "name status" of each, newest first
    api "/tasks?$1" | python3 -c '
import json, sys
for t in json.load(sys.stdin).get("tasks", []):
    print(t["name"], t["status"].removeprefix("TASK_STATUS_"))'
}
ended() { [ "$(names "labels.team=$1&statuses=$2" | wc -l)" = "$3" ]; }

start_coxd --http 127.0.0.1:0
start_worker w1 --slots 4
for i in 1 2 3; do cox task submit "$scenario_dir/task.yaml" >>"$scenario_dir/ids" 2>/dev/null; done
cox task submit "$scenario_dir/fail.yaml" >"$scenario_dir/failed.id" 2>/dev/null
slow=$(cox task submit "$scenario_dir/slow.yaml" -o name 2>/dev/null | tail -n 1)
check "tasks end" await 20 ended red TASK_STATUS_SUCCEEDED 3
check "a task fails" await 20 ended blue TASK_STATUS_FAILED 1
running() { [ "$(names statuses=TASK_STATUS_RUNNING)" = "slow RUNNING" ]; }
check "a running task is listed as such" await 20 running
check_equal "all, newest first" "slow RUNNING
broken FAILED
quick SUCCEEDED
quick SUCCEEDED
quick SUCCEEDED" "$(names '')"
check_equal "by label and status" "slow RUNNING" "$(names 'labels.team=red&statuses=TASK_STATUS_RUNNING')"
check_equal "nothing fits" "" "$(names 'labels.team=green')"
page=$(api "/tasks?page_size=2")
token=$(echo "$page" | python3 -c 'import json,sys; p=json.load(sys.stdin); assert len(p["tasks"])==2; print(p.get("next_page_token") or p["nextPageToken"])')
check_equal "the next page" "quick SUCCEEDED
quick SUCCEEDED
quick SUCCEEDED" "$(names "page_token=$token&page_size=10")"

check_exit "a live task is not deleted" 2 cox task delete "$slow" --yes
check_match "and it is said what to do" "cox task cancel $slow" "$scenario_dir/err"

# ---- blobs ----
head -c 3000000 /dev/urandom >"$scenario_dir/blob"
hash=sha256:$(sha256sum "$scenario_dir/blob" | cut -d' ' -f1)
check "a blob is taken" api "/blobs/$hash" -f -T "$scenario_dir/blob"
api "/blobs/$hash" >"$scenario_dir/blob.back"
check "and given back" cmp "$scenario_dir/blob" "$scenario_dir/blob.back"
check_equal "bytes that are not the hash" 400 \
    "$(api "/blobs/sha256:$(printf '%064d' 1)" -o /dev/null -w '%{http_code}' -T "$scenario_dir/blob")"

# ---- kill -9, and a damaged index ----
stop_coxd KILL
start_coxd --http "$(coxd_http)"
all='slow RUNNING
broken FAILED
quick SUCCEEDED
quick SUCCEEDED
quick SUCCEEDED'
listed() { [ "$(names '')" = "$all" ]; }
check "the list survives kill -9" await 20 listed
stop_coxd KILL
head -c 100000 /dev/urandom >"$scenario_dir/data/index.db"
rm -f "$scenario_dir/data/index.db-wal"
start_coxd --http "$(coxd_http)"
check "a damaged index is made again" await 20 listed
touch "$scenario_dir/go"
check "the slow task ends" await 20 ended red TASK_STATUS_SUCCEEDED 4
check "an ended task is deleted" cox task delete "$slow" --yes
check_exit "and is gone" 3 cox task get "$slow"
stop_coxd KILL
start_coxd --http "$(coxd_http)"
all='broken FAILED
quick SUCCEEDED
quick SUCCEEDED
quick SUCCEEDED'
check "it does not come back" await 20 listed
mkdir "$scenario_dir/race"
python3 "$scenario_root/tests/scenario/delete_race.py" "$(coxd_http)" "$scenario_dir/race" >"$scenario_dir/race.out" 2>&1
check_equal "a task is retried or deleted, never both" 0 "$?"
sed -n 's/^# /# race: /p' "$scenario_dir/race.out"

# ---- a blob that a live task's inputs name stays, though nobody asks for it ----
put_blob() { # put_blob WORD: a blob of it; prints its file
    printf %s "$1" >"$scenario_dir/word"
    word=$(sha256sum "$scenario_dir/word" | cut -d' ' -f1)
    api "/blobs/sha256:$word" -f -T "$scenario_dir/word" >/dev/null
    echo "$scenario_dir/data/blobs/${word:0:2}/${word:2}"
}
nobodys=$(put_blob nobody) inputs=$(put_blob input)
hash=$(basename "$(dirname "$inputs")")$(basename "$inputs")
check "a task names a blob" api /tasks -f -H 'content-type: application/json' -d '{"document": {"api_version": "v1",
    "name": "names", "inputs": {"file": {"type": "object", "default": {"$blob": "sha256:'"$hash"'", "size": 5}}},
    "steps": {"a": {"approval": {"prompt": "go on?"}}}}}'
touch -d '2 days ago' "$nobodys" "$inputs"
check "what nobody names goes" await 30 test ! -e "$nobodys"
check "what the task names stays" test -e "$inputs"

# ---- what is short ----
stop_coxd TERM
rm "$scenario_dir/go"
start_coxd --http "$(coxd_http)" --memory-limit 1M
readyz() { curl -sS -o /dev/null -w '%{http_code}' "http://$(coxd_http)/readyz"; }
check_equal "above the memory limit: not ready" 503 "$(readyz)"
submit_code() { # what a submission over HTTP is answered
    api /tasks -o "$scenario_dir/refusal" -w '%{http_code}' -H 'content-type: application/json' \
        -d '{"document": {"api_version": "v1", "name": "one", "steps": {"a": {"run": {"argv": ["true"]}}}}}'
}
check_equal "and no task is taken" 429 "$(submit_code)"
check_match "with the reason" MEMORY_FULL "$scenario_dir/refusal"
stop_coxd TERM
start_coxd --http "$(coxd_http)" --min-free 1000T
check_equal "below --min-free: not ready" 503 "$(readyz)"
check_equal "no task is taken" 429 "$(submit_code)"
check_match "with its reason" DISK_FULL "$scenario_dir/refusal"
failed=$(grep -o 't[0-9]*-[0-9a-z]*' "$scenario_dir/failed.id" | tail -n 1)
for verb in retry fork; do
    check_equal "$verb is work too" 429 "$(api "/tasks/$failed:$verb" -o "$scenario_dir/refusal" -w '%{http_code}' \
        -H 'content-type: application/json' -d '{}')"
    check_match "and says so" DISK_FULL "$scenario_dir/refusal"
done
check_equal "and no blob" 429 \
    "$(api "/blobs/sha256:$(printf '%064d' 2)" -o /dev/null -w '%{http_code}' -T "$scenario_dir/blob")"
curl -sS "http://$(coxd_http)/metrics" >"$scenario_dir/metrics"
check_match "refusals are counted" '^cox_refused_total{reason="disk"} 3$' "$scenario_dir/metrics"
stop_coxd TERM
stop_worker w1
finish
