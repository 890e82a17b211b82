/* The `run` handler with real processes. */
#include "check.h"

#include "handlers/run.h"
#include "work.h"

#include "cox/base/units.h"
#include "cox/json.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define GUARD_S 30 /* a test that hangs fails */

/* ---------------------------------------------------------------- a bench for one run */

struct bench {
    struct work_host host;
    struct work *run;
    char dir[64];
    bool ended;
    struct cox_agent_result result;
    struct cox_buf message, output;
    struct cox_buf log; /* "1:..." or "2:..." a piece */
    bool log_dropped;
    const char *kill_when; /* kill once the log holds this */
    int room;              /* pieces of log that are taken */
};

static void on_ended(struct work *run, const struct cox_agent_result *result, void *user)
{
    struct bench *b = user;

    assert_ptr_equal(run, b->run);
    assert_false(b->ended);
    b->ended = true;
    b->result = *result;
    cox_buf_append_slice(&b->message, result->message);
    cox_buf_append_slice(&b->output, result->output);
    work_destroy(run);
    event_base_loopbreak(b->host.handlers.base);
}

static bool on_log(struct work *run, enum livelog_stream stream, struct cox_slice data, bool dropped,
                   void *user)
{
    struct bench *b = user;

    if (b->room == 0)
        return false;
    b->room--;
    b->log_dropped |= dropped;
    cox_buf_printf(&b->log, "%d:", stream);
    cox_buf_append_slice(&b->log, data);
    if (b->kill_when && strstr(cox_buf_cstr(&b->log), b->kill_when))
        work_kill(run);
    return true;
}

static const struct work_ops ops = { on_ended, on_log };

static void begin(struct bench *b)
{
    memset(b, 0, sizeof(*b));
    snprintf(b->dir, sizeof(b->dir), "/tmp/cox-test-run-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    b->host.handlers.base = event_base_new();
    b->host.janitor = janitor_create();
    b->host.dir = b->dir;
    b->host.ops = &ops;
    b->host.log_len_max = 1 << 20;
    b->room = INT32_MAX;
}

static int n_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;

    for (struct dirent *e; d && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.' || (e->d_name[1] != 0 && e->d_name[1] != '.');
    if (d)
        closedir(d);
    return n;
}

/* Every test ends with: nothing is left in the directory. */
static void end(struct bench *b)
{
    janitor_destroy(b->host.janitor);
    assert_int_equal(n_entries(b->dir), 0);
    assert_int_equal(rmdir(b->dir), 0);
    event_base_free(b->host.handlers.base);
    cox_buf_fini(&b->message);
    cox_buf_fini(&b->output);
    cox_buf_fini(&b->log);
}

static void start(struct bench *b, const char *spec)
{
    struct cox_agent_assign assign = {
        .ref = { 1, 2, { 3, 4 } },
        .attempt = 5,
        .task_id = cox_slice_str("t0-000001"),
        .step_name = cox_slice_str("build"),
        .handler = cox_slice_str("run"),
        .spec_json = cox_slice_str(spec),
        .idempotency_key = cox_slice_str("key-1"),
    };

    b->ended = false;
    cox_buf_clear(&b->message);
    cox_buf_clear(&b->output);
    cox_buf_clear(&b->log);
    b->run = work_start(&b->host, &assign, b);
    assert_false(b->ended);
}

static void await_end(struct bench *b)
{
    const struct timeval guard = { .tv_sec = GUARD_S };

    event_base_loopexit(b->host.handlers.base, &guard);
    event_base_dispatch(b->host.handlers.base);
    if (!b->ended)
        fail_msg("no end after %d s", GUARD_S);
    /* The guard's timer would end the next loop early: a base of its own for each run. */
    event_base_free(b->host.handlers.base);
    b->host.handlers.base = event_base_new();
}

static void run(struct bench *b, const char *spec)
{
    start(b, spec);
    await_end(b);
}

static void expect_ended(struct bench *b, enum cox_code code, int exit_code)
{
    if (b->result.code != code || (exit_code >= 0) != b->result.has_exit_code ||
        (exit_code >= 0 && exit_code != b->result.exit_code))
        fail_msg("ended with %s, exit code %d: %s", cox_code_text(b->result.code), b->result.exit_code,
                 cox_buf_cstr(&b->message));
    assert_int_equal(b->result.status, code == COX_CODE_NONE ? COX_ATTEMPT_SUCCEEDED : COX_ATTEMPT_FAILED);
    assert_true((b->message.len == 0) == (code == COX_CODE_NONE));
    assert_true(cox_utf8_ok(cox_buf_slice(&b->message)));
    assert_true(b->message.len <= COX_ERROR_MESSAGE_LEN_MAX);
    assert_true(b->output.len <= COX_LOGGED_PAYLOAD_LEN_MAX);
    if (b->output.len > 0)
        assert_int_equal(cox_json_check(cox_buf_slice(&b->output), NULL), COX_OK);
}

static void expect_output(struct bench *b, const char *expected)
{
    assert_string_equal(cox_buf_cstr(&b->output), expected);
}

static void expect_message(struct bench *b, const char *expected)
{
    assert_string_equal(cox_buf_cstr(&b->message), expected);
}

/* A member of the output, its quotes and escapes resolved. */
static struct cox_buf member(struct bench *b, const char *key)
{
    struct cox_slice value;
    struct cox_buf text = { 0 };

    assert_true(cox_json_member(cox_buf_slice(&b->output), key, &value));
    cox_json_unquote(&text, value);
    return text;
}

/* ---------------------------------------------------------------- ends */

static void test_a_program_says_hello(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"echo\",\"hello\",3,true]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"hello 3 true\\n\",\"stderr\":\"\"}");
    assert_true(b.result.max_rss_bytes > 100000);
    assert_true(b.result.run_us > 0);
    end(&b);
}

static void test_a_failure_shows_its_code_and_what_it_said_last(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"echo out; echo first >&2; echo last >&2; exit 3\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 3);
    expect_message(&b, "exited with code 3: first\nlast");
    expect_output(&b, "{\"exit_code\":3,\"stdout\":\"out\\n\",\"stderr\":\"first\\nlast\\n\"}");

    run(&b, "{\"argv\":[\"sh\",\"-c\",\"seq 1 100000 >&2; exit 1\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 1);
    assert_non_null(strstr(cox_buf_cstr(&b.message), "exited with code 1: 99981\n"));
    assert_non_null(strstr(cox_buf_cstr(&b.message), "\n100000"));
    end(&b);
}

static void test_a_signal_counts_as_128_and_more(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"kill -SEGV $$\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 128 + SIGSEGV);
    expect_message(&b, "killed by SIGSEGV");
    end(&b);
}

static void test_signals_are_as_a_shell_leaves_them(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"grep -E '^Sig(Blk|Ign):' /proc/self/status\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    assert_non_null(strstr(cox_buf_cstr(&b.output), "SigBlk:\\t0000000000000000\\n"));
    assert_non_null(strstr(cox_buf_cstr(&b.output), "SigIgn:\\t0000000000000000\\n"));
    end(&b);
}

static void test_only_standard_descriptors_are_open(void **state)
{
    struct bench b;
    int leaky = dup(0); /* without close-on-exec, as a careless library would */

    (void)state;
    begin(&b);
    /* The fourth is the shell's own, with which it reads the directory. */
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"cd /proc/$$/fd; echo *\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"0 1 2 3\\n\",\"stderr\":\"\"}");
    close(leaky);
    end(&b);
}

static void test_cpu_time_is_counted(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    assert_true(b.result.cpu_us > 1000);
    assert_true(b.result.cpu_us <= 2 * b.result.run_us);
    end(&b);
}

/* ---------------------------------------------------------------- bad requests */

static void test_a_missing_program_is_named(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"no-such-program\"],\"env\":{\"PATH\":\"/bin:/nowhere\"}}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 127);
    expect_message(&b, "cannot run \"no-such-program\": not found in PATH (/bin:/nowhere)");
    run(&b, "{\"argv\":[\"./nothing\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 127);
    expect_message(&b, "cannot run \"./nothing\": No such file or directory");
    run(&b, "{\"argv\":[\"/etc/passwd\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 126);
    expect_message(&b, "cannot run \"/etc/passwd\": Permission denied");
    run(&b, "{\"argv\":[\"/\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 126);
    end(&b);
}

static void test_bad_specs_are_refused(void **state)
{
    static const char *const bad[][2] = {
        { "", "run: " },
        { "[]", "run: expected an object" },
        { "{\"argv\":[\"a\"", "run: " },
        { "{}", "run.argv: expected an array of strings" },
        { "{\"argv\":\"ls\"}", "run.argv: expected an array of strings" },
        { "{\"argv\":[]}", "run.argv[0]: expected the name of a program" },
        { "{\"argv\":[\"\"]}", "run.argv[0]: expected the name of a program" },
        { "{\"argv\":[\"a\",\"b\\u0000c\"]}", "run.argv[1]: expected text without NUL characters" },
        { "{\"argv\":[\"a\"],\"env\":[]}", "run.env: expected an object of strings" },
        { "{\"argv\":[\"a\"],\"env\":{\"A=B\":\"\"}}",
          "run.env: expected names that are not empty and have no '='" },
        { "{\"argv\":[\"a\"],\"output\":\"yaml\"}", "run.output: expected text or json" },
        { "{\"argv\":[\"a\"],\"sandbox\":\"soft\"}", "run.sandbox: expected none, net or strict" },
    };
    struct bench b;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        run(&b, bad[i][0]);
        expect_ended(&b, COX_CODE_INPUT_INVALID, -1);
        if (strncmp(cox_buf_cstr(&b.message), bad[i][1], strlen(bad[i][1])) != 0)
            fail_msg("%s: %s", bad[i][0], cox_buf_cstr(&b.message));
    }
    end(&b);
}

/* ---------------------------------------------------------------- streams */

static void test_input_arrives_whole(void **state)
{
    struct bench b;
    struct cox_buf spec = { 0 };

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"cat\"],\"stdin\":\"a\\nb\\u00e9\"}");
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"a\\nb\303\251\",\"stderr\":\"\"}");
    run(&b, "{\"argv\":[\"cat\"],\"stdin\":{\"n\": 1}}");
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"{\\\"n\\\":1}\",\"stderr\":\"\"}");
    run(&b, "{\"argv\":[\"cat\"]}"); /* without: an empty input, not an endless one */
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"\",\"stderr\":\"\"}");

    cox_buf_append_str(&spec, "{\"argv\":[\"wc\",\"-c\"],\"stdin\":\"");
    memset(cox_buf_extend(&spec, 1 << 20), 'x', 1 << 20);
    cox_buf_append_str(&spec, "\"}");
    run(&b, cox_buf_cstr(&spec));
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"1048576\\n\",\"stderr\":\"\"}");

    cox_buf_clear(&spec);
    cox_buf_append_str(&spec, "{\"argv\":[\"true\"],\"stdin\":\"");
    memset(cox_buf_extend(&spec, 1 << 20), 'x', 1 << 20);
    cox_buf_append_str(&spec, "\"}");
    run(&b, cox_buf_cstr(&spec)); /* which does not read it */
    expect_ended(&b, COX_CODE_NONE, 0);
    cox_buf_fini(&spec);
    end(&b);
}

static void test_of_much_output_the_end_is_kept(void **state)
{
    struct bench b;
    struct cox_buf out;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"yes 0123456789abcde | head -c 10485760; echo; echo the end\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    out = member(&b, "stdout");
    assert_int_equal(out.len, COX_STDIO_TAIL_LEN_MAX);
    assert_memory_equal(out.data + out.len - 9, "\nthe end\n", 9);
    cox_buf_fini(&out);
    end(&b);
}

static void test_bytes_that_are_no_text_are_replaced(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"printf\",\"a\\\\377b\\\\000c\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"a\357\277\275b\\u0000c\",\"stderr\":\"\"}");
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2; exit 1\"]}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 1); /* every byte six characters, and still it fits */
    assert_true(b.output.len > 700000);
    end(&b);
}

static void test_json_output(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"echo\",\" {\\\"a\\\": 12345678901234567890.10} \"],\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_output(&b, "{\"a\": 12345678901234567890.10}");
    run(&b, "{\"argv\":[\"echo\",\"{\\\"a\\\":\\n oops}\"],\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_OUTPUT_INVALID, 0);
    assert_non_null(strstr(cox_buf_cstr(&b.message), "stdout is not JSON: line 2, column 2: expected "));
    run(&b, "{\"argv\":[\"true\"],\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_OUTPUT_INVALID, 0);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"echo '{}'; exit 4\"],\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 4);
    expect_output(&b, "{\"exit_code\":4,\"stdout\":\"{}\\n\",\"stderr\":\"\"}");
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"printf '\\\"'; head -c 1048574 /dev/zero | tr '\\\\0' x; printf "
            "'\\\"'\"],"
            "\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_NONE, 0);
    assert_int_equal(b.output.len, COX_LOGGED_PAYLOAD_LEN_MAX);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"printf '\\\"'; head -c 1048575 /dev/zero | tr '\\\\0' x; printf "
            "'\\\"'\"],"
            "\"output\":\"json\"}");
    expect_ended(&b, COX_CODE_UNAVAILABLE, 0); /* a blob, and here is nowhere to store it */
    end(&b);
}

/* ---------------------------------------------------------------- surroundings */

static void test_the_environment_is_small_and_ours(void **state)
{
    struct bench b;

    (void)state;
    setenv("SECRET_OF_THE_WORKER", "1", 1);
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"echo $COX_TASK_ID $COX_STEP $COX_ATTEMPT $COX_IDEMPOTENCY_KEY $A $N "
            "$SECRET_OF_THE_WORKER\"],\"env\":{\"A\":\"b c\",\"N\":7}}");
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"t0-000001 build 5 key-1 b c 7\\n\",\"stderr\":\"\"}");
    run(&b,
        "{\"argv\":[\"sh\",\"-c\",\"[ \\\"$COX_WORKSPACE\\\" = \\\"$(pwd)\\\" ] && [ -n \\\"$PATH\\\" ]\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"echo $TRACEPARENT | grep -Ex '00-[0-9a-f]{32}-[0-9a-f]{16}-01'\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    end(&b);
}

/* What it leaves, however deep, long-named, unreadable or linked, is removed; end() looks. */
static void test_the_directory_is_private_and_removed(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"ls -A | wc -l; echo x > file; mkdir -p a/b/c .moved-0; ln -s / root; "
            "ln -s .. a/b/up; echo y > a/b/c/.hidden; chmod 0 a/b/c; chmod 500 a\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_output(&b, "{\"exit_code\":0,\"stdout\":\"0\\n\",\"stderr\":\"\"}");
    run(&b, "{\"argv\":[\"sh\",\"-c\",\"i=0; while [ $i -lt 250 ]; do mkdir directory-of-a-long-name && "
            "cd -P directory-of-a-long-name || exit; i=$((i+1)); done\"]}");
    expect_ended(&b, COX_CODE_NONE, 0);
    assert_true(access("/etc/passwd", R_OK) == 0);
    end(&b);
}

/* ---------------------------------------------------------------- kill */

/* The process with the number in the log's first line is gone, or about to be: SIGKILL takes its time. */
static void expect_gone(struct bench *b)
{
    long pid = strtol(strchr(cox_buf_cstr(&b->log), ':') + 1, NULL, 10);
    struct pollfd p = { .fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0), .events = POLLIN };

    assert_true(pid > 1);
    if (p.fd < 0)
        return;
    assert_int_equal(poll(&p, 1, 5000), 1);
    close(p.fd);
}

static void test_kill_ends_the_whole_group(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    b.kill_when = "ready";
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"sleep 1000 & echo $!; echo ready; wait\"]}");
    work_log(b.run, true);
    await_end(&b);
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 128 + SIGTERM);
    expect_gone(&b);
    assert_true(b.result.run_us < 1900000);
    end(&b);
}

static void test_a_group_that_ignores_sigterm_is_killed_harder(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    b.kill_when = "ready";
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"trap '' TERM; sleep 1000 & echo $!; echo ready; wait; wait\"]}");
    work_log(b.run, true);
    await_end(&b);
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 128 + SIGKILL);
    expect_gone(&b);
    assert_true(b.result.run_us >= RUN_KILL_GRACE_MS * 1000);
    end(&b);
}

static void test_sigterm_may_be_used_to_end_well(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    b.kill_when = "ready";
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"trap 'echo bye; exit 9' TERM; echo ready; sleep 1000 & wait\"]}");
    work_log(b.run, true);
    await_end(&b);
    expect_ended(&b, COX_CODE_EXIT_NONZERO, 9);
    expect_output(&b, "{\"exit_code\":9,\"stdout\":\"ready\\nbye\\n\",\"stderr\":\"\"}");
    end(&b);
}

static void test_what_is_left_in_the_background_does_not_hold_the_slot(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"sleep 1000 & echo $!\"]}"); /* it keeps stdout and stderr open */
    work_log(b.run, true);
    await_end(&b);
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_gone(&b);
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"sleep 1000 >/dev/null 2>&1 </dev/null & echo $!\"]}");
    work_log(b.run, true);
    await_end(&b);
    expect_ended(&b, COX_CODE_NONE, 0);
    expect_gone(&b);
    end(&b);
}

static void test_destroying_a_running_run_leaves_nothing(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"echo x > file; sleep 1000\"]}");
    work_destroy(b.run);
    end(&b);
}

/* ---------------------------------------------------------------- log */

static void test_the_log_is_sent_from_its_beginning_and_as_it_grows(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    b.room = 0;
    start(&b, "{\"argv\":[\"sh\",\"-c\",\"echo one; read x; echo two >&2\"],\"stdin\":\"\\n\"}");
    work_log(b.run, true);
    b.room = 100;
    await_end(&b);
    assert_string_equal(cox_buf_cstr(&b.log), "1:one\n2:two\n");
    assert_false(b.log_dropped);
    end(&b);
}

static void test_a_log_keeps_its_end_and_says_so(void **state)
{
    struct livelog l;
    enum livelog_stream stream;
    struct cox_slice data;
    bool dropped;
    char block[1000];

    (void)state;
    memset(block, 'x', sizeof(block));
    livelog_init(&l, 200000);
    livelog_rewind(&l);
    assert_false(livelog_peek(&l, &stream, &data, &dropped));
    livelog_append(&l, LIVELOG_STDOUT, cox_slice("a", 1));
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && !dropped && cox_slice_is(data, "a"));
    livelog_advance(&l);
    assert_false(livelog_peek(&l, &stream, &data, &dropped));
    livelog_append(&l, LIVELOG_STDOUT, cox_slice("b", 1)); /* joins the piece that was read */
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && cox_slice_is(data, "b"));
    for (int i = 0; i < 1000; i++) {
        livelog_append(&l, i % 70 ? LIVELOG_STDERR : LIVELOG_STDOUT, cox_slice(block, sizeof(block)));
        assert_true(l.len <= 200000);
    }
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && dropped);
    livelog_advance(&l);
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && !dropped);
    livelog_rewind(&l); /* whoever is given it again is told so, once */
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && dropped);
    livelog_advance(&l);
    assert_true(livelog_peek(&l, &stream, &data, &dropped) && !dropped);
    livelog_fini(&l);
}

static void test_a_tail_is_the_end_of_all(void **state)
{
    struct tail t = { .len_max = 10 };
    struct cox_buf all = { 0 };

    (void)state;
    for (int i = 0; i < 200; i++) {
        char piece[40];
        int len = snprintf(piece, sizeof(piece), "%.*s", i % 23, "abcdefghijklmnopqrstuvwxyz");

        tail_append(&t, cox_slice(piece, (size_t)len));
        cox_buf_append(&all, piece, (size_t)len);
        struct cox_slice s = tail_slice(&t);
        assert_int_equal(s.len, all.len < 10 ? all.len : 10);
        assert_true(s.len == 0 || memcmp(s.data, all.data + all.len - s.len, s.len) == 0);
        assert_int_equal(t.cut, all.len > 10);
    }
    tail_append(&t, cox_slice_str("\303\251123456789")); /* cut within a character */
    assert_true(cox_slice_is(tail_slice(&t), "123456789"));
    tail_fini(&t);
    cox_buf_fini(&all);
}

static int block_signals(void **state)
{
    sigset_t all;

    (void)state;
    sigfillset(&all);
    return sigprocmask(SIG_BLOCK, &all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_program_says_hello),
        cmocka_unit_test(test_a_failure_shows_its_code_and_what_it_said_last),
        cmocka_unit_test(test_a_signal_counts_as_128_and_more),
        cmocka_unit_test(test_signals_are_as_a_shell_leaves_them),
        cmocka_unit_test(test_only_standard_descriptors_are_open),
        cmocka_unit_test(test_cpu_time_is_counted),
        cmocka_unit_test(test_a_missing_program_is_named),
        cmocka_unit_test(test_bad_specs_are_refused),
        cmocka_unit_test(test_input_arrives_whole),
        cmocka_unit_test(test_of_much_output_the_end_is_kept),
        cmocka_unit_test(test_bytes_that_are_no_text_are_replaced),
        cmocka_unit_test(test_json_output),
        cmocka_unit_test(test_the_environment_is_small_and_ours),
        cmocka_unit_test(test_the_directory_is_private_and_removed),
        cmocka_unit_test(test_kill_ends_the_whole_group),
        cmocka_unit_test(test_a_group_that_ignores_sigterm_is_killed_harder),
        cmocka_unit_test(test_sigterm_may_be_used_to_end_well),
        cmocka_unit_test(test_what_is_left_in_the_background_does_not_hold_the_slot),
        cmocka_unit_test(test_destroying_a_running_run_leaves_nothing),
        cmocka_unit_test(test_the_log_is_sent_from_its_beginning_and_as_it_grows),
        cmocka_unit_test(test_a_log_keeps_its_end_and_says_so),
        cmocka_unit_test(test_a_tail_is_the_end_of_all),
    };
    return cmocka_run_group_tests(tests, block_signals, NULL);
}
