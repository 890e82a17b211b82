#!/bin/bash
# An orderly life under valgrind: coxd and cox-worker serve a few tasks of each kind, stop, and have lost no memory
# and touched none that is not theirs. Only in the long run: both are thirty times slower.
. "$(dirname "$0")/lib.sh"
[ -n "${COX_TEST_LONG:-}" ] || { skip valgrind "only in the long run"; exit 0; }
need_programs coxd cox-worker cox valgrind
if is_sanitized; then
    skip valgrind "the programs have sanitizers of their own"
    exit 0
fi

# slow PROGRAM: runs under valgrind in place of the program itself.
mkdir "$scenario_dir/slow"
for program in coxd cox-worker; do
    cat >"$scenario_dir/slow/$program" <<END
#!/bin/sh
exec valgrind --quiet --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
    --error-exitcode=99 --child-silent-after-fork=yes --log-file="$scenario_dir/$program.valgrind" \
    --suppressions="$scenario_root/tests/valgrind.supp" "$COX_BUILD/$program" "\$@"
END
    chmod +x "$scenario_dir/slow/$program"
done
slowly() { COX_BUILD=$scenario_dir/slow "$@"; }

cat >"$scenario_dir/parent.json" <<'END'
{"api_version": "v1", "name": "many", "inputs": {"of": {"type": "array", "default": [1, 2, 3, 4, 5, 6]}, "url": {"type": "string"}},
 "steps": {
   "large": {"run": {"argv": ["sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x"]}, "requires": "plain == yes"},
   "use": {"run": {"argv": ["wc", "-c"], "stdin": "${{ steps.large.output.stdout }}"}, "requires": "plain == yes"},
   "each": {"map": {"over": "${{ inputs.of }}"}, "run": {"argv": ["echo", "${{ item }}"]}, "requires": "plain == yes"},
   "first": {"race": [{"run": {"argv": ["true"]}, "requires": "plain == yes"}, {"run": {"argv": ["sleep", "60"]}, "requires": "plain == yes"}]},
   "fails": {"run": {"argv": ["false"]}, "retry": {"max_attempts": 2, "initial_backoff": "10ms"}, "allow_failure": true},
   "page": {"http": {"url": "${{ inputs.url }}"}, "requires": "plain != yes"},
   "pages": {"map": {"over": "${{ inputs.of }}", "batch": 3}, "http": {"url": "${{ inputs.url }}"}, "requires": "plain != yes"},
   "waits": {"wait": {"signal": "go"}}},
 "outputs": {"n": "${{ steps.use.output.stdout }}", "last": "${{ steps.each.output[5].stdout }}", "page": "${{ steps.page.output.status }}"}}
END

# valgrind knows no pidfd_open, so the worker that runs under it starts no process: it fetches, batches, fails to
# start, is cancelled. Another one, plain, gives coxd the rest to do.
slowly start_coxd
slowly start_worker w1 --slots 4 --http-allow 127.0.0.1
start_worker w2 --slots 4 --label plain=yes
for _ in 1 2 3; do
    id=$(cox task submit "$scenario_dir/parent.json" --input "url=http://$coxd_http/readyz" -o name)
    check "a signal is taken" cox task signal "$id" go
    check "its task ends well" cox task watch "$id"
done
check "what it says of itself" cox task describe "$id"
check "lists" cox task list
check "a step's log" cox task logs "$id" use
check "metrics" curl -sf "http://$coxd_http/metrics"
check_exit "an unknown task" 3 cox task get t0-zzzzzz
echo '{"api_version": "v1", "name": "x", "steps": {"a": {"run": {"argv": ["sleep", "60"]}, "requires": "plain == yes"}}}' >"$scenario_dir/slow.json"
slow=$(cox task submit "$scenario_dir/slow.json" -o name)
check "a task is cancelled" cox task cancel "$slow"

# ended NAME PROGRAM CODE
ended() {
    { cat "$scenario_dir/$2.valgrind"; tail -n 5 "$scenario_dir/coxd.log"; } >"$scenario_dir/check.log"
    if [ "$3" = 0 ]; then ok "$1"; else not_ok "$1" "$scenario_dir/check.log"; fi
}
stop_worker w2 TERM
stop_worker w1 TERM
ended "the worker stops and has lost nothing" cox-worker $?
stop_coxd TERM
ended "coxd stops and has lost nothing" coxd $?

# A program that leaks must show, or all this says nothing.
cat >"$scenario_dir/leak.c" <<'END'
#include <stdlib.h>
int main(void)
{
    char *volatile p = malloc(77);
    p = NULL;
    return p != NULL;
}
END
if cc -o "$scenario_dir/leak" "$scenario_dir/leak.c"; then
    check_exit "a planted leak is found" 99 valgrind --quiet --leak-check=full --errors-for-leak-kinds=definite \
        --error-exitcode=99 "$scenario_dir/leak"
fi
finish
