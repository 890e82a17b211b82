/* The mcp handler with real processes: what is kept, for whom, for how long, and what is left in the end. The
 * server is tests/scenario/mcp_server.py; scenario/mcp.sh tries what it can be asked. */
#include "check.h"

#include "janitor.h"
#include "mcp/mcp.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/json.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct bench {
    char dir[64];
    struct handler_host *host;
    struct janitor *janitor;
    struct mcp *mcp;
};

struct question {
    struct bench *bench;
    struct call *call;
    struct cox_agent_assign assign;
    struct cox_buf log;
    bool done;
    enum cox_code code;
    struct cox_buf output, message;
};

static void begin(struct bench *b, int64_t idle_ms, uint32_t n_max)
{
    static const struct reach nowhere;
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    snprintf(b->dir, sizeof(b->dir), "/tmp/cox-mcp-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    b->host = COX_NEW(struct handler_host);
    b->host->base = event_base_new();
    b->janitor = janitor_create();
    b->mcp = mcp_create(&(struct mcp_config){ .host = b->host,
                                              .reach = &nowhere,
                                              .janitor = b->janitor,
                                              .dir = b->dir,
                                              .n_max = n_max,
                                              .idle_ms = idle_ms,
                                              .probe_ms = 100 });
}

static void finish(struct bench *b)
{
    mcp_destroy(b->mcp);
    janitor_destroy(b->janitor);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing of it is left, */
    assert_int_equal(errno, ECHILD);
    assert_int_equal(rmdir(b->dir), 0); /* no directory either */
    event_base_free(b->host->base);
    cox_free(b->host);
}

static void on_done(struct call *call, struct outcome *o)
{
    struct question *q = call->user;

    q->done = true;
    q->code = o->code;
    q->output = o->output;
    q->message = o->message;
    o->output = o->message = (struct cox_buf){ 0 };
    call->ops->destroy(call);
    q->call = NULL;
    event_base_loopbreak(q->bench->host->base);
}

static void on_log(struct call *call, enum livelog_stream stream, struct cox_slice data)
{
    (void)stream;
    cox_buf_append_slice(&((struct question *)call->user)->log, data);
    event_base_loopbreak(((struct question *)call->user)->bench->host->base);
}

/* `quirk` may be "". */
static void ask(struct bench *b, struct question *q, const char *task, const char *workspace,
                const char *quirk, const char *tool, const char *text)
{
    char spec[600];

    *q = (struct question){ .bench = b };
    q->assign = (struct cox_agent_assign){ .task_id = cox_slice_str(task),
                                           .step_name = cox_slice_str("s"),
                                           .idempotency_key = cox_slice_str("t/s"),
                                           .workspace = cox_slice_str(workspace),
                                           .attempt = 1 };
    snprintf(spec, sizeof(spec),
             "{\"mcp\":{\"command\":\"python3\",\"args\":[\"" MCP_SERVER
             "\"%s%s%s]},\"tool\":\"%s\",\"arguments\":{\"text\":"
             "\"%s\"}}",
             *quirk ? ",\"" : "", quirk, *quirk ? "\"" : "", tool, text);
    q->call =
        mcp_call(b->mcp,
                 &(struct call_args){
                     .assign = &q->assign, .spec = cox_slice_str(spec), .dir = b->dir, .spool_dir = b->dir },
                 on_done, on_log, q);
}

static void await(struct question *q)
{
    while (!q->done)
        event_base_loop(q->bench->host->base, EVLOOP_ONCE);
}

static void drop(struct question *q)
{
    cox_buf_fini(&q->log);
    cox_buf_fini(&q->output);
    cox_buf_fini(&q->message);
}

static void expect(struct question *q, enum cox_code code, const char *part)
{
    struct cox_buf *text = code == COX_CODE_NONE ? &q->output : &q->message;

    await(q);
    if (q->code != code || !strstr(cox_buf_cstr(text), part))
        fail_msg("expected %s with %s, found %s with %s; log %s", cox_code_text(code), part,
                 cox_code_text(q->code), cox_buf_cstr(text), cox_buf_cstr(&q->log));
    drop(q);
}

static void run(struct bench *b, const char *task, const char *quirk, const char *tool, enum cox_code code,
                const char *part)
{
    struct question q;

    ask(b, &q, task, "", quirk, tool, "x");
    expect(&q, code, part);
}

static int pid_of(struct bench *b, const char *task, const char *workspace, const char *quirk)
{
    struct cox_slice text;
    struct question q;
    struct cox_buf number = { 0 };
    int pid;

    ask(b, &q, task, workspace, quirk, "pid", "");
    await(&q);
    assert_int_equal(q.code, COX_CODE_NONE);
    assert_true(cox_json_member(cox_buf_slice(&q.output), "text", &text));
    cox_json_unquote(&number, text);
    pid = (int)strtol(cox_buf_cstr(&number), NULL, 10);
    assert_true(pid > 1);
    cox_buf_fini(&number);
    drop(&q);
    return pid;
}

/* Until so many are kept. */
static void await_servers(struct bench *b, uint32_t n)
{
    while (mcp_n_servers(b->mcp) != n)
        event_base_loop(b->host->base, EVLOOP_ONCE);
}

static void test_who_shares(void **state)
{
    struct bench b;
    int first;

    (void)state;
    begin(&b, 0, 16);
    first = pid_of(&b, "t1", "", "");
    assert_int_equal(pid_of(&b, "t1", "", ""), first);
    assert_int_not_equal(pid_of(&b, "t2", "", ""), first);
    assert_int_not_equal(pid_of(&b, "t1", "", "dual"), first);
    assert_int_not_equal(pid_of(&b, "t1", "w", ""), first);
    assert_int_equal(mcp_n_servers(b.mcp), 4);
    mcp_forget(b.mcp, cox_slice_str("t1"));
    assert_int_equal(mcp_n_servers(b.mcp), 1);
    assert_int_not_equal(pid_of(&b, "t1", "", ""), first);
    finish(&b);
}

static void test_calls_beside_each_other(void **state)
{
    struct question q[3];
    struct bench b;

    (void)state;
    begin(&b, 0, 16);
    for (size_t i = 0; i < 3; i++)
        ask(&b, &q[i], "t", "", "", "crowd", "3");
    for (size_t i = 0; i < 3; i++)
        expect(&q[i], COX_CODE_NONE, "together");
    finish(&b);
}

static void test_the_idle_go(void **state)
{
    struct bench b;

    (void)state;
    begin(&b, 20, 16);
    run(&b, "t1", "", "echo", COX_CODE_NONE, "\"text\":\"x\"");
    await_servers(&b, 0);
    finish(&b);

    begin(&b, 0, 2);
    run(&b, "t1", "", "echo", COX_CODE_NONE, "x");
    run(&b, "t2", "", "echo", COX_CODE_NONE, "x");
    run(&b, "t3", "", "echo", COX_CODE_NONE, "x");
    assert_int_equal(mcp_n_servers(b.mcp), 2);
    finish(&b);
}

static void test_a_crash(void **state)
{
    struct question hangs, crashes;
    struct bench b;
    int first;

    (void)state;
    begin(&b, 0, 16);
    first = pid_of(&b, "t", "", "");
    ask(&b, &hangs, "t", "", "", "hang", "");
    ask(&b, &crashes, "t", "", "", "crash", "");
    expect(&hangs, COX_CODE_UNAVAILABLE, "exited with code 3");
    expect(&crashes, COX_CODE_UNAVAILABLE, "about to crash");
    assert_int_not_equal(pid_of(&b, "t", "", ""), first);
    /* One that ends while nobody calls. */
    first = pid_of(&b, "t", "", "");
    kill(first, SIGKILL);
    await_servers(&b, 0);
    assert_int_not_equal(pid_of(&b, "t", "", ""), first);
    finish(&b);
}

static void test_a_call_that_is_stopped(void **state)
{
    struct question q, other;
    struct bench b;
    int first;

    (void)state;
    begin(&b, 0, 16);
    first = pid_of(&b, "t", "", "");
    /* Another one still waits, so it is kept. */
    ask(&b, &q, "t", "", "", "hang", "");
    ask(&b, &other, "t", "", "", "hang", "");
    while (!strstr(cox_buf_cstr(&q.log), "asked tools/call"))
        event_base_loop(b.host->base, EVLOOP_ONCE);
    q.call->ops->kill(q.call);
    expect(&q, COX_CODE_UNAVAILABLE, "stopped");
    other.call->ops->kill(other.call);
    expect(&other, COX_CODE_UNAVAILABLE, "stopped");
    assert_int_not_equal(pid_of(&b, "t", "", ""), first);
    /* Destroyed while it runs, as when a worker leaves. */
    ask(&b, &q, "t", "", "", "hang", "");
    q.call->ops->destroy(q.call);
    drop(&q);
    finish(&b);
}

static void test_how_the_silent_are_asked(void **state)
{
    struct bench b;

    (void)state;
    begin(&b, 0, 16);
    run(&b, "t", "mute-before", "echo", COX_CODE_NONE, "\"text\":\"x\"");
    run(&b, "t", "garbage", "echo", COX_CODE_OUTPUT_INVALID, "more than 1000");
    assert_int_equal(mcp_n_servers(b.mcp), 1);
    finish(&b);
}

static void test_what_is_refused(void **state)
{
    static const char *const cases[][2] = {
        { "{", "mcp: expected an object" },
        { "{\"mcp\":{\"command\":\"x\"}}", "mcp.tool: expected the name" },
        { "{\"mcp\":{\"command\":\"x\"},\"tool\":\"t\",\"arguments\":[]}",
          "mcp.arguments: expected an object" },
        { "{\"mcp\":{},\"list\":true}", "mcp.command: expected the name of a program" },
        { "{\"mcp\":{\"command\":\"x\",\"args\":\"y\"},\"list\":true}", "mcp.args: expected an array" },
        { "{\"mcp\":{\"command\":\"x\",\"env\":{\"a=b\":\"\"}},\"list\":true}", "mcp.env: expected names" },
        { "{\"mcp\":{\"url\":\"ftp://x\"},\"list\":true}", "mcp.url: expected http" },
        { "{\"mcp\":{\"url\":\"http://x\",\"headers\":{\"Mcp-Session-Id\":\"1\"}},\"list\":true}",
          "mcp.headers: expected names" },
        { "{\"mcp\":{\"url\":\"http://x\",\"headers\":{\"A\":\"1\\n2\"}},\"list\":true}",
          "without control characters" },
    };
    struct bench b;

    (void)state;
    begin(&b, 0, 16);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct question q = { .bench = &b };

        q.call = mcp_call(
            b.mcp,
            &(struct call_args){ .assign = &q.assign, .spec = cox_slice_str(cases[i][0]), .dir = b.dir },
            on_done, on_log, &q);
        expect(&q, COX_CODE_INPUT_INVALID, cases[i][1]);
        assert_int_equal(mcp_n_servers(b.mcp), 0);
    }
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_shares),
        cmocka_unit_test(test_calls_beside_each_other),
        cmocka_unit_test(test_the_idle_go),
        cmocka_unit_test(test_a_crash),
        cmocka_unit_test(test_a_call_that_is_stopped),
        cmocka_unit_test(test_how_the_silent_are_asked),
        cmocka_unit_test(test_what_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
