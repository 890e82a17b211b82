/* Programs in the slots: warm, crashing, lying; batches, workspaces, jq. */
#include "slots_fixture.h"

#include "handlers/answer.h"
#include "jq_program.h"

#include "cox/json.h"
#include "cox/rpc.h"

#include <fcntl.h>

static const char trial[] =
    "#!/usr/bin/env python3\n"
    "import json, os, signal, sys, time\n"
    "if '--describe' in sys.argv:\n"
    "    print(json.dumps({'name': 'trial', 'version': '3.1.0', 'description': 'tries',\n"
    "        'input_schema': {'type': 'object', 'required': ['do'], 'properties': {'do': {'type': "
    "'string'}}},\n"
    "        'output_schema': {'type': ['object', 'string']}}))\n"
    "    sys.exit()\n"
    "n = 0\n"
    "for line in sys.stdin:\n"
    "    c = json.loads(line); i = c['input']; do = i['do']; n += 1\n"
    "    print('doing', do, file=sys.stderr, flush=True)\n"
    "    if do == 'crash': os.kill(os.getpid(), 9)\n"
    "    if do == 'exit': sys.exit(3)\n"
    "    if do == 'mute': os.close(1); time.sleep(1000)\n"
    "    if do == 'end': sys.exit(0)\n"
    "    if do == 'sleep': time.sleep(1000)\n"
    "    if do == 'late': signal.pthread_sigmask(0, [15]); print('now', file=sys.stderr, flush=True); "
    "signal.sigwait([15])\n"
    "    a = {'output': {'n': n, 'pid': os.getpid(), 'context': c['context']}}\n"
    "    if do == 'number': a = {'output': 5}\n"
    "    if do == 'error': a = {'error': i['error']}\n"
    "    if do == 'again': a = {'continue': {'steps': {'a': {}}, 'state': 7}}\n"
    "    if do == 'both': a = {'output': 'x', 'error': {}}\n"
    "    if do in ('big', 'late'): a = {'output': 'x' * i['n']}\n"
    "    if do == 'garbage': print('not json', flush=True)\n"
    "    elif do == 'other': print(json.dumps({'id': 'x', 'output': 'y'}), flush=True)\n"
    "    else: print(json.dumps({'id': c['id'], **a}), flush=True)\n";

static struct cox_agent_assign asks(const char *spec)
{
    return (struct cox_agent_assign){ .handler = cox_slice_str("trial@3"), .spec_json = cox_slice_str(spec) };
}

static void begin(struct bench *b)
{
    bench_begin(b);
    bench_write(b, "trial@3", trial);
    bench_start(b);
}

static int64_t number(struct cox_slice object, const char *name)
{
    struct cox_slice value;
    int64_t n = -1;

    assert_true(cox_json_member(object, name, &value) && cox_json_int(value, &n));
    return n;
}

static void expect_failure(struct bench *b, const char *spec, enum cox_code code, const char *message)
{
    struct slots_reply *reply = bench_run(b, asks(spec));

    if (reply->result.code != code ||
        !memmem(reply->result.message.data, reply->result.message.len, message, strlen(message)))
        fail_msg("%s: found %s \"%.*s\"", spec, cox_code_text(reply->result.code),
                 (int)reply->result.message.len, (const char *)reply->result.message.data);
    slots_reply_free(b->slots, reply);
}

static int64_t pid_of_call(struct bench *b, int64_t n)
{
    struct slots_reply *reply = bench_run(b, asks("{\"do\":\"echo\"}"));
    int64_t pid;

    assert_int_equal(reply->result.status, COX_ATTEMPT_SUCCEEDED);
    assert_int_equal(number(reply->result.output, "n"), n);
    pid = number(reply->result.output, "pid");
    slots_reply_free(b->slots, reply);
    return pid;
}

static void test_a_program_stays_warm(void **state)
{
    struct bench b;
    int64_t pid;

    (void)state;
    begin(&b);
    pid = pid_of_call(&b, 1);
    for (int64_t n = 2; n < 20; n++)
        assert_int_equal(pid_of_call(&b, n), pid);
    bench_end(&b);
}

static void test_what_breaks_is_started_anew(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    expect_failure(&b, "{\"do\":\"crash\"}", COX_CODE_EXIT_NONZERO, "killed by SIGKILL: doing crash");
    pid_of_call(&b, 1);
    expect_failure(&b, "{\"do\":\"exit\"}", COX_CODE_EXIT_NONZERO, "exited with code 3");
    expect_failure(&b, "{\"do\":\"end\"}", COX_CODE_OUTPUT_INVALID, "ended without an answer");
    expect_failure(&b, "{\"do\":\"mute\"}", COX_CODE_EXIT_NONZERO,
                   "closed its standard output, then was killed");
    expect_failure(&b, "{\"do\":\"garbage\"}", COX_CODE_OUTPUT_INVALID, "no JSON: column 1");
    pid_of_call(&b, 1);
    expect_failure(&b, "{\"do\":\"other\"}", COX_CODE_OUTPUT_INVALID, "expected its \"id\"");
    expect_failure(&b, "{\"do\":\"both\"}", COX_CODE_OUTPUT_INVALID, "expected one of");
    pid_of_call(&b, 1);
    bench_end(&b);
}

static void test_values_have_the_described_shape(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    expect_failure(&b, "{\"do\":5}", COX_CODE_INPUT_INVALID, "input: do: expected string, found a number");
    expect_failure(&b, "{}", COX_CODE_INPUT_INVALID, "expected a member \"do\"");
    expect_failure(&b, "{\"do\":\"number\"}", COX_CODE_OUTPUT_INVALID, "output: the value: expected one of");
    pid_of_call(&b, 2); /* a wrong value is no reason to end it */
    bench_end(&b);
}

static void test_errors_keep_their_code(void **state)
{
    static const struct {
        const char *said;
        int retryable; /* -1: not said */
        enum cox_code code;
        bool named;
    } cases[] = {
        { "INPUT_INVALID", -1, COX_CODE_INPUT_INVALID, false },
        { "UNAVAILABLE", 1, COX_CODE_UNAVAILABLE, false },
        { "UNAVAILABLE", 0, COX_CODE_INTERNAL, true },
        { "TIMEOUT", 0, COX_CODE_INTERNAL, true },
        { "INPUT_INVALID", 1, COX_CODE_UNAVAILABLE, true },
        { "DENIED", 0, COX_CODE_DENIED, false },
        { "WORKER_LOST", -1, COX_CODE_INTERNAL, true },
        { "PREEMPTED", 0, COX_CODE_INTERNAL, true },
        { "OUT_OF_CHEESE", -1, COX_CODE_INTERNAL, true },
        { "OUT_OF_CHEESE", 1, COX_CODE_UNAVAILABLE, true },
        { "", -1, COX_CODE_INTERNAL, false },
        { "", 1, COX_CODE_UNAVAILABLE, false },
        { "NONE", -1, COX_CODE_INTERNAL, true },
    };
    struct bench b;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool named;

        assert_int_equal(answer_code(cox_slice_str(cases[i].said), cases[i].retryable >= 0,
                                     cases[i].retryable > 0, &named),
                         cases[i].code);
        assert_int_equal(named, cases[i].named);
    }
    begin(&b);
    expect_failure(&b, "{\"do\":\"error\",\"error\":{\"code\":\"DENIED\",\"message\":\"no\"}}",
                   COX_CODE_DENIED, "no");
    expect_failure(&b, "{\"do\":\"error\",\"error\":{\"code\":\"ODD\",\"message\":\"no\"}}",
                   COX_CODE_INTERNAL, "ODD: no");
    pid_of_call(&b, 3);
    bench_end(&b);
}

static void test_a_failed_call_leaves_what_it_wrote(void **state)
{
    static const char *const failing[] = { "{\"do\":\"error\",\"error\":{\"code\":\"DENIED\"}}",
                                           "{\"do\":\"number\"}", "{\"do\":\"crash\"}" };
    static const char *const wrote[] = { "{\"stderr\":\"doing error\\n\"}",
                                         "{\"stderr\":\"doing number\\n\"}",
                                         "{\"stderr\":\"doing crash\\n\"}" };
    struct bench b;

    (void)state;
    begin(&b);
    for (size_t i = 0; i < 3; i++) {
        struct slots_reply *reply = bench_run(&b, asks(failing[i]));

        assert_int_equal(reply->result.status, COX_ATTEMPT_FAILED);
        assert_true(cox_slice_is(reply->result.output, wrote[i]));
        slots_reply_free(b.slots, reply);
    }
    bench_end(&b);
}

static void test_a_program_asks_to_be_called_again(void **state)
{
    struct bench b;
    struct slots_reply *reply;
    struct cox_agent_assign again = asks("{\"do\":\"echo\"}");
    struct cox_slice context, value;

    (void)state;
    begin(&b);
    reply = bench_run(&b, asks("{\"do\":\"again\"}"));
    assert_int_equal(reply->result.status, COX_ATTEMPT_SUCCEEDED);
    assert_true(cox_slice_is(reply->result.continuation_json, "{\"steps\":{\"a\":{}},\"state\":7}"));
    slots_reply_free(b.slots, reply);
    again.continuation_json = cox_slice_str("{\"state\":7,\"steps\":{\"a\":{\"status\":\"SUCCEEDED\"}}}");
    again.task_id = cox_slice_str("t0-000001");
    again.idempotency_key = cox_slice_str("key");
    reply = bench_run(&b, again);
    assert_true(cox_json_member(reply->result.output, "context", &context));
    assert_true(cox_json_member(context, "continuation", &value));
    assert_int_equal(number(value, "state"), 7);
    assert_true(cox_json_member(context, "task_id", &value) && cox_slice_is(value, "\"t0-000001\""));
    assert_true(cox_json_member(context, "idempotency_key", &value) && cox_slice_is(value, "\"key\""));
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

static void test_a_killed_call_ends(void **state)
{
    struct bench b;
    struct cox_agent_assign assign = asks("{\"do\":\"sleep\"}");
    struct slots_reply *reply;

    (void)state;
    begin(&b);
    assign.ref = (struct cox_ref){ 1, 1, { 1, 1 } };
    slots_start(b.slots, 0, &assign);
    slots_log(b.slots, 0, true);
    reply = bench_reply(&b); /* it is there: it talks */
    assert_int_equal(reply->kind, SLOTS_LOG);
    assert_true(cox_slice_is(cox_buf_slice(&reply->bytes), "doing sleep\n"));
    slots_reply_free(b.slots, reply);
    slots_kill(b.slots, 0);
    reply = bench_reply(&b);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    assert_int_equal(reply->result.status, COX_ATTEMPT_FAILED);
    slots_reply_free(b.slots, reply);
    pid_of_call(&b, 1);
    bench_end(&b);
}

static void test_a_batch_is_worked_through(void **state)
{
    static const struct cox_agent_item items[] = {
        { 4, { (const uint8_t *)"{\"do\":\"echo\"}", 13 } },
        { 5, { (const uint8_t *)"{\"do\":\"sleep\"}", 14 } },
        { 9, { (const uint8_t *)"{\"do\":\"again\"}", 14 } },
        { 10, { (const uint8_t *)"{\"do\":1}", 8 } },
        { 11, { (const uint8_t *)"{\"do\":\"echo\"}", 13 } },
    };
    const struct cox_agent_item_result *r;
    struct cox_slice context, item;
    struct bench b;
    struct slots_reply *reply;

    (void)state;
    begin(&b);
    reply = bench_run(
        &b, (struct cox_agent_assign){
                .handler = cox_slice_str("trial"), .items = items, .n_items = 5, .timeout_ms = 1000 });
    assert_int_equal(reply->result.status, COX_ATTEMPT_SUCCEEDED);
    assert_int_equal(reply->result.n_items, 5);
    r = reply->result.items;
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(r[i].index, items[i].index);
    assert_int_equal(r[0].status, COX_ATTEMPT_SUCCEEDED);
    assert_true(cox_json_member(r[0].output, "context", &context));
    assert_true(cox_json_member(context, "item", &item) && cox_slice_is(item, "{\"index\": 4}"));
    assert_int_equal(r[1].status, COX_ATTEMPT_TIMED_OUT);
    assert_true(cox_slice_is(r[1].message, "stopped after its time limit of 1s"));
    assert_int_equal(r[2].code, COX_CODE_OUTPUT_INVALID);
    assert_int_equal(r[3].code, COX_CODE_INPUT_INVALID);
    for (size_t i = 1; i < 4; i++) /* there may be millions */
        assert_int_equal(r[i].output.len, 0);
    assert_int_equal(r[4].status, COX_ATTEMPT_SUCCEEDED);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

static void test_a_killed_batch_reports_what_was_done(void **state)
{
    static const struct cox_agent_item items[] = {
        { 0, { (const uint8_t *)"{\"argv\":[\"echo\",\"a\"]}", 21 } },
        { 1, { (const uint8_t *)"{\"argv\":[\"sh\",\"-c\",\"echo here; sleep 1000\"]}", 44 } },
        { 2, { (const uint8_t *)"{\"argv\":[\"echo\",\"c\"]}", 21 } },
    };
    struct cox_agent_assign assign = {
        .ref = { 1, 1, { 1, 1 } }, .handler = cox_slice_str("run"), .items = items, .n_items = 3
    };
    struct bench b;
    struct slots_reply *reply;
    bool here = false;

    (void)state;
    begin(&b);
    slots_start(b.slots, 0, &assign);
    slots_log(b.slots, 0, true);
    while (!here) {
        reply = bench_reply(&b);
        assert_int_equal(reply->kind, SLOTS_LOG);
        here = strstr(cox_buf_cstr(&reply->bytes), "here") != NULL;
        slots_reply_free(b.slots, reply);
    }
    slots_kill(b.slots, 0);
    reply = bench_reply(&b);
    assert_int_equal(reply->result.status, COX_ATTEMPT_FAILED);
    assert_int_equal(reply->result.n_items, 1);
    assert_int_equal(reply->result.items[0].status, COX_ATTEMPT_SUCCEEDED);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

static void test_programs_come_and_change(void **state)
{
    struct bench b;
    struct slots_reply *reply;
    struct catalogue_view *view;
    struct cox_agent_assign pinned = asks("{\"do\":\"echo\"}");
    uint64_t generation;

    (void)state;
    begin(&b);
    pid_of_call(&b, 1);
    pinned.version = cox_slice_str("3.0.9");
    reply = bench_run(&b, pinned);
    assert_int_equal(reply->result.code, COX_CODE_UNAVAILABLE);
    slots_reply_free(b.slots, reply);
    generation = catalogue_generation(b.catalogue);
    bench_write(&b, "trial@3", trial); /* another file of the same content */
    bench_write(&b, "second", "#!/bin/sh\necho '{\"description\":\"two\",\"idempotent\":true}'\n");
    while (catalogue_generation(b.catalogue) == generation)
        bench_wait(&b);
    view = catalogue_view(b.catalogue);
    assert_int_equal(view->n, 2);
    assert_string_equal(view->items[0]->handler, "second@1");
    assert_true(view->items[0]->idempotent);
    assert_string_equal(view->items[1]->version, "3.1.0");
    catalogue_view_free(view);
    pid_of_call(&b, 1); /* the old process is not asked again */
    bench_end(&b);
}

static void test_bad_descriptions_are_left_out(void **state)
{
    static const char *const bad[] = {
        "exit 1",
        "echo no json",
        "echo '[]'",
        "echo '{\"name\":\"else\"}'",
        "echo '{\"version\":\"2.0\"}'",
        "echo '{\"version\":\"latest\"}'",
        "echo '{\"input_schema\":{\"type\":\"text\"}}'",
        "echo '{\"idempotent\":\"yes\"}'",
        "head -c 300000 /dev/zero",
        "kill -9 $$",
    };
    struct bench b;
    struct catalogue_view *view;

    (void)state;
    bench_begin(&b);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char name[16], text[200];

        snprintf(name, sizeof(name), "bad%zu@1", i);
        snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", bad[i]);
        bench_write(&b, name, text);
    }
    bench_write(&b, "Bad-Name", "#!/bin/sh\necho '{}'\n");
    bench_write(&b, "good", "#!/bin/sh\necho '{}'\n");
    bench_start(&b);
    view = catalogue_view(b.catalogue);
    assert_int_equal(view->n, 1);
    assert_string_equal(view->items[0]->handler, "good@1");
    catalogue_view_free(view);
    bench_end(&b);
}

static void test_a_program_without_serve_is_run_for_each_call(void **state)
{
    struct bench b;

    (void)state;
    bench_begin(&b);
    bench_write(
        &b, "once",
        "#!/bin/sh\n"
        "case $1 in --describe) echo '{}'; exit;; --serve) exit 2;; esac\n"
        "read -r line\n"
        "id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"
        "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":\\\"$COX_STEP in $(basename $COX_WORKSPACE)\\\"}\"\n");
    bench_start(&b);
    for (int i = 1; i < 4; i++) {
        struct slots_reply *reply =
            bench_run(&b, (struct cox_agent_assign){ .handler = cox_slice_str("once@1"),
                                                     .step_name = cox_slice_str("s") });
        char expected[32];

        snprintf(expected, sizeof(expected), "\"s in a%d\"", i);
        if (!cox_slice_is(reply->result.output, expected))
            fail_msg("%.*s %.*s", (int)reply->result.output.len, (const char *)reply->result.output.data,
                     (int)reply->result.message.len, (const char *)reply->result.message.data);
        slots_reply_free(b.slots, reply);
    }
    bench_end(&b);
}

/* What was set when the first process fell silent must not end the second. */
static void test_a_program_that_falls_silent_before_it_refuses_to_serve_has_its_time(void **state)
{
    struct bench b;

    (void)state;
    bench_begin(&b);
    bench_write(&b, "slow",
                "#!/bin/sh\n"
                "case $1 in --describe) echo '{}'; exit;; --serve) exec >&-; sleep 0.05; exit 2;; esac\n"
                "read -r line\n"
                "id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"
                "parent=${line#*\\\"traceparent\\\":\\\"}; parent=${parent%%\\\"*}\n"
                "sleep 2.5\n"
                "[ \"$parent\" = \"$TRACEPARENT\" ] && [ ${#parent} = 55 ] && same=true || same=false\n"
                "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":$same}\"\n");
    bench_start(&b);
    struct slots_reply *reply = bench_run(
        &b, (struct cox_agent_assign){ .handler = cox_slice_str("slow@1"), .step_name = cox_slice_str("s") });

    if (!cox_slice_is(reply->result.output, "true"))
        fail_msg("%.*s %.*s", (int)reply->result.output.len, (const char *)reply->result.output.data,
                 (int)reply->result.message.len, (const char *)reply->result.message.data);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

/* Answers when it has read the first of its call, then stays. */
#define HASTY(before)                                                                                        \
    "#!/bin/sh\n"                                                                                            \
    "case $1 in --describe) echo '{}'; exit;; esac\n"                                                        \
    "head=$(dd bs=64 count=1 2>/dev/null)\n"                                                                 \
    "id=${head#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n" before                                                  \
    "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":1}\"\n"                                                   \
    "exec sleep 1000\n"

/* What it has not read would be taken for the beginning of the next call, if it could still be asked. */
static void test_a_process_that_did_not_read_its_call_gets_no_other(void **state)
{
    static const char *const names[] = { "hasty@1", "deaf@1" };
    struct bench b;
    struct cox_buf input = { 0 };

    (void)state;
    bench_begin(&b);
    bench_write(&b, "hasty", HASTY(""));
    bench_write(&b, "deaf", HASTY("exec <&-; sleep 0.1\n"));
    bench_start(&b);
    cox_put_u8(&input, '"');
    for (int i = 0; i < 300000; i++)
        cox_put_u8(&input, 'x');
    cox_put_u8(&input, '"');
    for (int i = 0; i < 4; i++) {
        struct slots_reply *reply =
            bench_run(&b, (struct cox_agent_assign){ .handler = cox_slice_str(names[i / 2]),
                                                     .spec_json = cox_buf_slice(&input) });
        assert_int_equal(reply->result.status, COX_ATTEMPT_SUCCEEDED);
        slots_reply_free(b.slots, reply);
    }
    cox_buf_fini(&input);
    bench_end(&b);
}

/* It ends between two calls, and the second is on its way before that is seen. */
static void test_a_call_that_nobody_began_is_begun_anew(void **state)
{
    struct bench b;

    (void)state;
    bench_begin(&b);
    bench_write(&b, "tired",
                "#!/bin/sh\n"
                "case $1 in --describe) echo '{\"serve\":true}'; exit;; esac\n"
                "read -r head\n"
                "id=${head#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"
                "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":$$}\"\n"
                "sleep 0.3\n");
    bench_start(&b);
    for (int i = 0; i < 3; i++) {
        struct slots_reply *reply =
            bench_run(&b, (struct cox_agent_assign){ .handler = cox_slice_str("tired@1"),
                                                     .spec_json = cox_slice_str("0") });
        if (reply->result.status != COX_ATTEMPT_SUCCEEDED)
            fail_msg("call %d: %.*s", i, (int)reply->result.message.len,
                     (const char *)reply->result.message.data);
        slots_reply_free(b.slots, reply);
    }
    bench_end(&b);
}

static void await_log(struct bench *b, const char *text)
{
    bool here = false;

    while (!here) {
        struct slots_reply *reply = bench_reply(b);

        assert_int_equal(reply->kind, SLOTS_LOG);
        here = strstr(cox_buf_cstr(&reply->bytes), text) != NULL;
        slots_reply_free(b->slots, reply);
    }
}

/* No message would hold it, and nobody stores it any more. */
static void test_a_killed_call_leaves_no_long_output(void **state)
{
    struct bench b;
    struct cox_agent_assign assign = asks("{\"do\":\"late\",\"n\":3000000}");
    struct slots_reply *reply;

    (void)state;
    begin(&b);
    assign.ref = (struct cox_ref){ 1, 1, { 1, 1 } };
    slots_start(b.slots, 0, &assign);
    slots_log(b.slots, 0, true);
    await_log(&b, "now");
    slots_kill(b.slots, 0);
    reply = bench_reply(&b);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    assert_int_equal(reply->result.status, COX_ATTEMPT_FAILED);
    assert_int_equal(reply->result.output.len, 0);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

/* An item without the output that it had would be taken for done. */
static void test_a_killed_batch_says_nothing_of_what_is_not_stored(void **state)
{
    static const struct cox_agent_item items[] = {
        { 0, { (const uint8_t *)"{\"do\":\"big\",\"n\":3}", 18 } },
        { 1, { (const uint8_t *)"{\"do\":\"big\",\"n\":100000}", 23 } },
        { 2, { (const uint8_t *)"{\"do\":\"sleep\"}", 14 } },
    };
    struct cox_agent_assign assign = {
        .ref = { 1, 1, { 1, 1 } }, .handler = cox_slice_str("trial@3"), .items = items, .n_items = 3
    };
    struct bench b;
    struct slots_reply *reply;

    (void)state;
    cox_rpc_init();
    bench_begin(&b);
    b.with_blobs = true;
    bench_write(&b, "trial@3", trial);
    bench_start(&b);
    slots_aim(b.slots, "127.0.0.1:1", "", ""); /* nobody is there: storing takes its time */
    slots_start(b.slots, 0, &assign);
    slots_log(b.slots, 0, true);
    await_log(&b, "doing sleep");
    slots_kill(b.slots, 0);
    reply = bench_reply(&b);
    assert_int_equal(reply->kind, SLOTS_ENDED);
    assert_int_equal(reply->result.n_items, 1);
    assert_int_equal(reply->result.items[0].index, 0);
    assert_true(cox_slice_is(reply->result.items[0].output, "\"xxx\""));
    slots_reply_free(b.slots, reply);
    bench_end(&b);
    cox_rpc_fini();
}

/* What a service remembers of one item it must not take for another's. */
static void test_an_item_has_a_name_of_its_own(void **state)
{
    static const struct cox_agent_item items[] = {
        { 4, { (const uint8_t *)"{\"argv\":[\"sh\",\"-c\",\"echo $COX_STEP $COX_IDEMPOTENCY_KEY\"]}", 58 } },
    };
    static const struct cox_agent_item calls[] = { { 17, { (const uint8_t *)"{\"do\":\"echo\"}", 13 } } };
    struct cox_agent_assign assign = { .handler = cox_slice_str("run"),
                                       .step_name = cox_slice_str("scan"),
                                       .idempotency_key = cox_slice_str("k/scan"),
                                       .items = items,
                                       .n_items = 1 };
    struct cox_slice context, value;
    struct bench b;
    struct slots_reply *reply;

    (void)state;
    begin(&b);
    reply = bench_run(&b, assign);
    assert_true(cox_json_member(reply->result.items[0].output, "stdout", &value));
    assert_true(cox_slice_is(value, "\"scan[4] k/scan[4]\\n\""));
    slots_reply_free(b.slots, reply);
    assign.handler = cox_slice_str("trial@3");
    assign.items = calls;
    reply = bench_run(&b, assign);
    assert_true(cox_json_member(reply->result.items[0].output, "context", &context));
    assert_true(cox_json_member(context, "step", &value) && cox_slice_is(value, "\"scan[17]\""));
    assert_true(cox_json_member(context, "idempotency_key", &value) && cox_slice_is(value, "\"k/scan[17]\""));
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

static void expect_stdout(struct bench *b, const char *task, const char *workspace, const char *command,
                          const char *expected)
{
    char spec[200];
    struct slots_reply *reply;
    struct cox_slice value;

    snprintf(spec, sizeof(spec), "{\"argv\":[\"sh\",\"-c\",\"%s\"]}", command);
    reply = bench_run(b, (struct cox_agent_assign){ .handler = cox_slice_str("run"),
                                                    .task_id = cox_slice_str(task),
                                                    .workspace = cox_slice_str(workspace),
                                                    .spec_json = cox_slice_str(spec) });
    assert_true(cox_json_member(reply->result.output, "stdout", &value));
    if (!cox_slice_is(cox_json_inner(value), expected))
        fail_msg("%s: found %.*s", command, (int)value.len, (const char *)value.data);
    slots_reply_free(b->slots, reply);
}

static void test_a_workspace_lasts_until_it_is_released(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    expect_stdout(&b, "t1", "w", "echo a > f", "");
    expect_stdout(&b, "t1", "w", "cat f; test $COX_WORKSPACE = $(pwd) && echo same", "a\\nsame\\n");
    expect_stdout(&b, "t1", "v", "ls", "");
    expect_stdout(&b, "t2", "w", "ls", "");
    expect_stdout(&b, "t1", "", "ls", "");
    slots_release(b.slots, cox_slice_str("t1"));
    expect_stdout(&b, "t1", "w", "ls", "");
    expect_stdout(&b, "t2", "w", "echo b > g", "");
    slots_release(b.slots, cox_slice_str("t3"));
    expect_stdout(&b, "t2", "w", "cat g", "b\\n");
    bench_end(&b);
}

/* It has been on another host since, or is to begin anew: what is here is of no use. */
static void test_a_workspace_of_another_home_is_another(void **state)
{
    struct bench b;
    struct slots_reply *reply;

    (void)state;
    begin(&b);
    expect_stdout(&b, "t1", "w", "echo a > f", "");
    reply = bench_run(&b, (struct cox_agent_assign){
                              .handler = cox_slice_str("run"),
                              .task_id = cox_slice_str("t1"),
                              .workspace = cox_slice_str("w"),
                              .home = 2,
                              .spec_json = cox_slice_str("{\"argv\":[\"sh\",\"-c\",\"ls; echo b > g\"]}") });
    assert_null(memmem(reply->result.output.data, reply->result.output.len, "f\\n", 3));
    assert_int_equal(reply->result.code, COX_CODE_NONE);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

static void test_a_workspace_goes_when_nobody_uses_it(void **state)
{
    struct bench b;
    char path[100];
    struct pollfd nobody = { .fd = -1 };

    (void)state;
    bench_begin(&b);
    b.workspace_ttl_ms = 300;
    bench_start(&b);
    snprintf(path, sizeof(path), "%s/boot-b1/w1", b.dir);
    expect_stdout(&b, "t1", "w", "echo a > f", "");
    expect_stdout(&b, "t1", "w", "cat f", "a\\n");
    assert_int_equal(access(path, F_OK), 0);
    for (int i = 0; i < PATIENCE_MS / 20 && access(path, F_OK) == 0; i++)
        poll(&nobody, 1, 20);
    assert_int_not_equal(access(path, F_OK), 0);
    expect_stdout(&b, "t1", "w", "ls", "");
    bench_end(&b);
}

static void expect_jq(struct bench *b, const char *spec, enum cox_code code, const char *expected)
{
    struct slots_reply *reply = bench_run(
        b, (struct cox_agent_assign){ .handler = cox_slice_str("jq"), .spec_json = cox_slice_str(spec) });
    struct cox_slice found = code == COX_CODE_NONE ? reply->result.output : reply->result.message;

    if (reply->result.code != code || !memmem(found.data, found.len, expected, strlen(expected)))
        fail_msg("%s: found %s %.*s", spec, cox_code_text(reply->result.code), (int)found.len,
                 (const char *)found.data);
    slots_reply_free(b->slots, reply);
}

/* It would be whatever JSON the worker may read. */
static void expect_no_import(struct bench *b)
{
    char path[128], spec[256];
    int fd;

    snprintf(path, sizeof(path), "%s/own.json", b->dir);
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, "1", 1), 1);
    close(fd);
    snprintf(spec, sizeof(spec), "{\"program\":\"import \\\"own\\\" as $own {search: \\\"%s\\\"}; $own\"}",
             b->dir);
    expect_jq(b, spec, COX_CODE_INPUT_INVALID, "error loading data file");
    unlink(path);
}

static void test_jq(void **state)
{
    struct cox_agent_assign endless = { .ref = { 1, 1, { 1, 1 } },
                                        .handler = cox_slice_str("jq"),
                                        .spec_json = cox_slice_str("{\"program\":\"last(repeat(1))\"}") };
    struct bench b;

    (void)state;
    begin(&b);
    expect_jq(&b, "{\"program\":\".a | map(. + 1)\",\"input\":{\"a\":[1,2]}}", COX_CODE_NONE, "[2,3]");
    expect_jq(&b, "{\"program\":\"empty\"}", COX_CODE_NONE, "null");
    expect_jq(&b, "{\"program\":\".[]\",\"input\":[1,2]}", COX_CODE_OUTPUT_INVALID, "more than one result");
    expect_jq(&b, "{\"program\":\".a\",\"input\":3}", COX_CODE_INPUT_INVALID, "Cannot index number");
    expect_jq(&b, "{\"program\":\"{{\"}", COX_CODE_INPUT_INVALID, "syntax error");
    expect_jq(&b, "{\"input\":1}", COX_CODE_INPUT_INVALID, "jq.program");
    expect_no_import(&b);
    slots_start(b.slots, 1, &endless);
    expect_jq(&b, "{\"program\":\"1\"}", COX_CODE_NONE, "1"); /* beside it */
    slots_kill(b.slots, 1);
    slots_reply_free(b.slots, bench_reply(&b));
    bench_end(&b);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_program_stays_warm),
        cmocka_unit_test(test_what_breaks_is_started_anew),
        cmocka_unit_test(test_values_have_the_described_shape),
        cmocka_unit_test(test_errors_keep_their_code),
        cmocka_unit_test(test_a_failed_call_leaves_what_it_wrote),
        cmocka_unit_test(test_a_program_asks_to_be_called_again),
        cmocka_unit_test(test_a_killed_call_ends),
        cmocka_unit_test(test_a_batch_is_worked_through),
        cmocka_unit_test(test_a_killed_batch_reports_what_was_done),
        cmocka_unit_test(test_programs_come_and_change),
        cmocka_unit_test(test_bad_descriptions_are_left_out),
        cmocka_unit_test(test_a_program_without_serve_is_run_for_each_call),
        cmocka_unit_test(test_a_program_that_falls_silent_before_it_refuses_to_serve_has_its_time),
        cmocka_unit_test(test_a_process_that_did_not_read_its_call_gets_no_other),
        cmocka_unit_test(test_a_call_that_nobody_began_is_begun_anew),
        cmocka_unit_test(test_a_killed_call_leaves_no_long_output),
        cmocka_unit_test(test_a_killed_batch_says_nothing_of_what_is_not_stored),
        cmocka_unit_test(test_an_item_has_a_name_of_its_own),
        cmocka_unit_test(test_a_workspace_lasts_until_it_is_released),
        cmocka_unit_test(test_a_workspace_of_another_home_is_another),
        cmocka_unit_test(test_a_workspace_goes_when_nobody_uses_it),
        cmocka_unit_test(test_jq),
    };

    if (argc > 1 && strcmp(argv[1], SLOTS_JQ_ARGUMENT) == 0)
        return jq_main();
    return cmocka_run_group_tests(tests, bench_block_signals, NULL);
}
