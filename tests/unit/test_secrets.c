/* Where secrets are and who gets them (worker/secrets.h), and what slots make of steps with secrets: a spec
 * with its values, and reports without them. */
#include "secrets.h"
#include "slots_fixture.h"

#include "cox/json.h"

#define VALUE "s3cr3t-\\-value"

/* ---- the table ---- */

static void refused(const char *json, const char *path, const char *expected)
{
    struct cox_buf at = { 0 }, why = { 0 };
    struct secret_table *t = NULL;

    assert_int_equal(secret_table_read(cox_slice_str(json), &t, &at, &why), COX_ERR_INVALID);
    assert_string_equal(cox_buf_cstr(&at), path);
    if (!strstr(cox_buf_cstr(&why), expected))
        fail_msg("%s: found %s", json, cox_buf_cstr(&why));
    cox_buf_fini(&at);
    cox_buf_fini(&why);
}

static struct secret_table *table(const char *json)
{
    struct cox_buf at = { 0 }, why = { 0 };
    struct secret_table *t;

    if (secret_table_read(cox_slice_str(json), &t, &at, &why) != COX_OK)
        fail_msg("%s: %s", cox_buf_cstr(&at), cox_buf_cstr(&why));
    return t;
}

static void test_what_is_refused(void **state)
{
    (void)state;
    refused("[]", "secrets", "names of secrets");
    refused("{\"../x\": {\"file\": \"/a\"}}", "secrets.../x", "a name of letters");
    refused("{\"x\": \"/a\"}", "secrets.x", "one of {file: PATH}");
    refused("{\"x\": {}}", "secrets.x", "exactly one");
    refused("{\"x\": {\"file\": \"/a\", \"command\": [\"/a\"]}}", "secrets.x", "exactly one");
    refused("{\"x\": {\"file\": \"a\"}}", "secrets.x.file", "from the root");
    refused("{\"x\": {\"file\": 1}}", "secrets.x.file", "from the root");
    refused("{\"x\": {\"file\": \"/a\\u0000b\"}}", "secrets.x.file", "from the root");
    refused("{\"x\": {\"command\": [\"sh\"]}}", "secrets.x.command", "from the root");
    refused("{\"x\": {\"command\": []}}", "secrets.x.command", "from the root");
    refused("{\"x\": {\"command\": \"/a\"}}", "secrets.x.command", "from the root");
    refused("{\"x\": {\"env\": \"A=B\"}}", "secrets.x.env", "name of an environment variable");
    refused("{\"x\": {\"env\": \"PATH\"}}", "secrets.x.env", "that steps do not see");
    refused("{\"x\": {\"file\": \"/a\", \"tenants\": []}}", "secrets.x.tenants", "a list of names");
    refused("{\"x\": {\"file\": \"/a\", \"tenants\": \"a\"}}", "secrets.x.tenants", "a list of names");
    refused("{\"x\": {\"file\": \"/a\", \"ttl\": \"1m\"}}", "secrets.x", "beside a command only");
    refused("{\"x\": {\"command\": [\"/a\"], \"timeout\": \"0\"}}", "secrets.x.timeout", "a duration");
    refused("{\"x\": {\"file\": \"/a\", \"tenant\": [\"a\"]}}", "secrets.x.tenant", "one of file");
    secret_table_unref(table(""));
    secret_table_unref(table("null"));
}

/* ---- asking ---- */

struct asker {
    struct secrets *secrets;
    struct bench bench; /* its directory of programs, and who waits */
    struct cox_buf text;
};

static void asker_begin(struct asker *a, const char *json)
{
    *a = (struct asker){ 0 };
    bench_begin(&a->bench);
    for (const char *p = json; *p; p++) { /* @ is where the test's files are */
        if (*p == '@')
            cox_buf_append_str(&a->text, a->bench.programs);
        else
            cox_put_u8(&a->text, (uint8_t)*p);
    }
    a->secrets = secrets_create(
        &(struct secrets_config){ .dir = a->bench.programs, .on_ready = bench_on_reply, .user = &a->bench });
    secrets_configure(a->secrets, table(cox_buf_cstr(&a->text)));
}

static void asker_end(struct asker *a)
{
    secrets_destroy(a->secrets);
    janitor_remove_now(a->bench.programs);
    assert_int_equal(rmdir(a->bench.dir), 0);
    close(a->bench.replied);
    cox_buf_fini(&a->text);
}

static void on_done(struct secret_job *job, void *user)
{
    *(struct secret_job **)user = job;
}

static struct secret_job *ask(struct asker *a, const char *tenant, const char *name)
{
    struct secret_job *job = secret_job(cox_slice_str(tenant), 1), *done = NULL;

    job->names[0] = strdup(name);
    job->on_done = on_done;
    job->user = &done;
    for (secrets_submit(a->secrets, job); !done; secrets_reap(a->secrets)) {
        bench_wait(&a->bench);
    }
    return done;
}

static void gives(struct asker *a, const char *tenant, const char *name, const char *value)
{
    struct secret_job *job = ask(a, tenant, name);

    if (job->code != COX_CODE_NONE || !cox_slice_is(cox_buf_slice(&job->values[0]), value))
        fail_msg("%s: found %s \"%s\"", name, cox_buf_cstr(&job->message), cox_buf_cstr(&job->values[0]));
    secret_job_free(job);
}

static void gives_not(struct asker *a, const char *tenant, const char *name, const char *words)
{
    struct secret_job *job = ask(a, tenant, name);
    struct cox_buf expected = { 0 };

    cox_buf_printf(&expected, words, name);
    assert_int_equal(job->code, COX_CODE_UNAVAILABLE);
    assert_string_equal(cox_buf_cstr(&job->message), cox_buf_cstr(&expected));
    cox_buf_fini(&expected);
    secret_job_free(job);
}

#define MISSING "this worker has no secret \"%s\""
#define UNUSABLE "this worker cannot use the secret \"%s\"; its log says why"

static void test_tenants(void **state)
{
    struct asker a;

    (void)state;
    asker_begin(
        &a,
        "{\"all\": {\"file\": \"@/v\"}, \"some\": {\"file\": \"@/v\", \"tenants\": [\"red\", \"default\"]}}");
    bench_write(&a.bench, "v", "value");
    gives(&a, "blue", "all", "value");
    gives(&a, "red", "some", "value");
    gives(&a, "", "some", "value"); /* whoever is not named is "default" */
    gives_not(&a, "blue", "some", MISSING);
    gives_not(&a, "blue", "other", MISSING);
    gives_not(&a, "re", "some", MISSING);
    asker_end(&a);
}

static void test_files(void **state)
{
    char large[70000];
    struct asker a;
    char path[100], target[100];

    (void)state;
    asker_begin(
        &a,
        "{\"v\": {\"file\": \"@/other\", \"tenants\": [\"red\"]}, \"fifo\": {\"file\": \"@/pipe\"}, \"dir\": "
        "{\"file\": \"@\"}}");
    bench_write(&a.bench, "one", "line\n");
    bench_write(&a.bench, "dos", "line\r\n");
    bench_write(&a.bench, "two", " two\n\n");
    gives(&a, "x", "one", "line");
    gives(&a, "x", "dos", "line");
    gives(&a, "x", "two", " two\n");
    bench_write(&a.bench, "one", "rotated");
    gives(&a, "x", "one", "rotated");
    bench_write(&a.bench, "v", "of the directory"); /* the table speaks first, also to say no */
    gives_not(&a, "x", "v", MISSING);
    bench_write(&a.bench, "short", "abc\n");
    gives_not(&a, "x", "short", UNUSABLE);
    bench_write(&a.bench, "latin", "caf\xe9s");
    gives_not(&a, "x", "latin", UNUSABLE);
    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = 0;
    bench_write(&a.bench, "large", large);
    gives_not(&a, "x", "large", UNUSABLE);
    large[65536] = '\n';
    large[65537] = 0;
    bench_write(&a.bench, "large", large);
    large[65536] = 0;
    gives(&a, "x", "large", large);
    snprintf(path, sizeof(path), "%s/pipe", a.bench.programs);
    assert_int_equal(mkfifo(path, 0600), 0);
    gives_not(&a, "x", "fifo", UNUSABLE);
    gives_not(&a, "x", "dir", UNUSABLE);
    snprintf(path, sizeof(path), "%s/out", a.bench.programs);
    assert_int_equal(symlink("/etc/hostname", path), 0);
    gives_not(&a, "x", "out", UNUSABLE);
    snprintf(path, sizeof(path), "%s/up", a.bench.programs);
    snprintf(target, sizeof(target), "../%s/one", strrchr(a.bench.programs, '/') + 1);
    assert_int_equal(symlink(target, path), 0);
    gives_not(&a, "x", "up", UNUSABLE);
    snprintf(path, sizeof(path), "%s/within", a.bench.programs);
    assert_int_equal(symlink("one", path), 0);
    gives(&a, "x", "within", "rotated");
    gives_not(&a, "x", "../secret", MISSING);
    gives_not(&a, "x", ".one", MISSING);
    asker_end(&a);
}

static void test_commands(void **state)
{
    struct asker a;

    (void)state;
    asker_begin(&a, "{\"again\": {\"command\": [\"@/count\"], \"ttl\": \"0\"}, \"kept\": {\"command\": "
                    "[\"@/count\", \"x\"]}, "
                    "\"fails\": {\"command\": [\"@/fails\"]}, \"hangs\": {\"command\": [\"@/hangs\"], "
                    "\"timeout\": \"100ms\"}, "
                    "\"silent\": {\"command\": [\"@/silent\"], \"timeout\": \"100ms\"}, \"none\": "
                    "{\"command\": [\"@/none\"]}}");
    bench_write(&a.bench, "count",
                "#!/bin/sh\necho x >>\"$0.runs\"\necho \"$COX_SECRET $1 $(wc -l <\"$0.runs\")\"\n");
    bench_write(&a.bench, "fails", "#!/bin/sh\necho value\nexit 1\n");
    bench_write(&a.bench, "hangs", "#!/bin/sh\nsleep 1000\n");
    bench_write(&a.bench, "silent", "#!/bin/sh\necho value\nexec >&-\nsleep 1000\n");
    gives(&a, "x", "again", "again  1");
    gives(&a, "x", "again", "again  2");
    gives(&a, "x", "kept", "kept x 3");
    gives(&a, "x", "kept", "kept x 3");
    gives_not(&a, "x", "fails", UNUSABLE);
    gives_not(&a, "x", "hangs", UNUSABLE);
    gives_not(&a, "x", "silent", UNUSABLE);
    gives_not(&a, "x", "none", UNUSABLE);
    secrets_configure(a.secrets, table("{\"again\": {\"file\": \"/none\"}}")); /* SIGHUP */
    gives_not(&a, "x", "kept", MISSING);
    gives_not(&a, "x", "again", UNUSABLE);
    asker_end(&a);
}

static void test_a_variable_is_taken_out_of_the_environment(void **state)
{
    struct asker a;

    (void)state;
    setenv("COX_TEST_SECRET", "of the environment", 1);
    asker_begin(&a, "{\"e\": {\"env\": \"COX_TEST_SECRET\"}, \"f\": {\"env\": \"COX_TEST_SECRET\"}, "
                    "\"unset\": {\"env\": \"COX_TEST_UNSET\"}}");
    assert_string_equal(getenv("COX_TEST_SECRET"), "");
    gives(&a, "x", "e", "of the environment");
    gives(&a, "x", "f", "of the environment");
    gives_not(&a, "x", "unset", UNUSABLE);
    secrets_configure(a.secrets, table("{\"g\": {\"env\": \"COX_TEST_SECRET\"}}"));
    gives(&a, "x", "g", "of the environment");
    asker_end(&a);
}

/* A worker that ends does not wait for a command that does not. */
static void test_the_end_does_not_wait(void **state)
{
    struct secret_job *job = secret_job(cox_slice_str(""), 1), *done = NULL;
    struct asker a;

    (void)state;
    asker_begin(&a, "{\"hangs\": {\"command\": [\"@/hangs\"], \"timeout\": \"10m\"}}");
    bench_write(&a.bench, "hangs", "#!/bin/sh\necho x >\"$0.runs\"\nsleep 1000\n");
    job->names[0] = strdup("hangs");
    job->on_done = on_done;
    job->user = &done;
    secrets_submit(a.secrets, job);
    asker_end(&a);
    assert_ptr_equal(done, job);
    assert_int_equal(job->code, COX_CODE_UNAVAILABLE);
    secret_job_free(job);
}

/* ---- in the slots ---- */

static void begin(struct bench *b)
{
    bench_begin(b);
    b->secrets = table("{\"others\": {\"file\": \"/etc/hostname\", \"tenants\": [\"others\"]}}");
    b->secrets_dir = b->programs;
    bench_write(b, "token", VALUE "\n");
    bench_write(
        b, "keeps",
        "#!/usr/bin/env python3\n"
        "import json, os, sys\n"
        "if '--describe' in sys.argv:\n"
        "    print('{}'); sys.exit()\n"
        "last = None\n"
        "for line in sys.stdin:\n"
        "    c = json.loads(line); given = c['input'].get('t')\n"
        "    sys.stderr.write('log '); sys.stderr.flush()\n"
        "    for x in str(given): sys.stderr.write(x); sys.stderr.flush()\n"
        "    if c['input'].get('die'): sys.exit(3)\n"
        "    print(json.dumps({'id': c['id'], 'output': {'given': given, 'last': last, 'pid': os.getpid(),\n"
        "        'same': given == c['input'].get('plain')}}), flush=True)\n"
        "    last = given\n");
    bench_start(b);
}

static struct slots_reply *run(struct bench *b, const char *handler, const char *spec)
{
    return bench_run(
        b, (struct cox_agent_assign){ .handler = cox_slice_str(handler), .spec_json = cox_slice_str(spec) });
}

static void expect(struct bench *b, const char *handler, const char *spec, enum cox_code code,
                   const char *output, const char *message)
{
    struct slots_reply *reply = run(b, handler, spec);
    const struct cox_agent_result *r = &reply->result;

    if (r->code != code ||
        !memmem(r->output.data ? (const void *)r->output.data : "", r->output.len, output, strlen(output)) ||
        !memmem(r->message.data ? (const void *)r->message.data : "", r->message.len, message,
                strlen(message)) ||
        memmem(reply->bytes.data, reply->bytes.len, "s3cr3t", 6))
        fail_msg("%s: found %s, %.*s, %.*s", spec, cox_code_text(r->code), (int)r->output.len,
                 (const char *)r->output.data, (int)r->message.len, (const char *)r->message.data);
    slots_reply_free(b->slots, reply);
}

#define SH(script) "{\"argv\":[\"sh\",\"-c\",\"" script "\"],\"env\":{\"T\":[\"<\",\"K\",\">\"]}}"
#define WITH(spec, places) "[{\"K\":\"token\"}," spec "," places "]"
#define ENV "[[\"env\",\"T\"]]"

static void test_a_process_gets_it_and_reports_do_not(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    /* It is the value indeed: its length is known to the process, and to this test. */
    expect(&b, "run", WITH(SH("printf %s \\\"$T\\\" | wc -c"), ENV), COX_CODE_NONE, "\"stdout\":\"16\\n\"",
           "");
    expect(&b, "run", WITH(SH("printf %s \\\"$T\\\"; printf %s \\\"$T\\\" >&2"), ENV), COX_CODE_NONE,
           "\"stdout\":\"<***>\",\"stderr\":\"<***>\"", "");
    expect(&b, "run", WITH(SH("echo \\\"$T\\\" >&2; exit 4"), ENV), COX_CODE_EXIT_NONZERO, "<***>",
           "exited with code 4: <***>");
    expect(&b, "run",
           WITH("{\"argv\":[\"cat\"],\"stdin\":[\"\",\"K\",\"\"],\"output\":\"text\"}", "[[\"stdin\"]]"),
           COX_CODE_NONE, "\"stdout\":\"***\"", "");
    /* JSON is JSON still, however it is escaped. */
    expect(&b, "run",
           WITH("{\"argv\":[\"python3\",\"-c\",\"import "
                "json,os;print(json.dumps({'k':[os.environ['T']]}).replace('s','\\\\\\\\u0073',1))\"],"
                "\"env\":{\"T\":[\"\",\"K\",\"\"]},\"output\":\"json\"}",
                ENV),
           COX_CODE_NONE, "{\"k\": [\"***\"]}", "");
    expect(&b, "run", WITH(SH("printf '%s' 's3cr3'; echo"), ENV), COX_CODE_NONE, "\"stdout\":\"s3cr3\\n\"",
           "");
    bench_end(&b);
}

/* More than the tail holds: what is cut is redacted already. */
static void test_much_output(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    expect(&b, "run", WITH(SH("i=0; while [ $i -lt 9000 ]; do echo \\\"$T $i\\\"; i=$((i+1)); done"), ENV),
           COX_CODE_NONE, "\\n<***> 8999\\n", "");
    bench_end(&b);
}

static void test_who_gets_none(void **state)
{
    struct bench b;

    (void)state;
    begin(&b);
    expect(&b, "run", "[{\"K\":\"none\"}," SH("true") "," ENV "]", COX_CODE_UNAVAILABLE, "",
           "this worker has no secret \"none\"");
    expect(&b, "run", "[{\"K\":\"others\"}," SH("true") "," ENV "]", COX_CODE_UNAVAILABLE, "",
           "this worker has no secret \"others\"");
    expect(&b, "run", "[{\"K\":\"token\"}," SH("true") ",[[\"env\",\"U\"]]]", COX_CODE_INPUT_INVALID, "",
           "places");
    expect(&b, "run", "[{\"K\":\"token\"}," SH("true") "]", COX_CODE_INPUT_INVALID, "", "an object");
    expect(&b, "run", SH("echo \\\"$T\\\""), COX_CODE_NONE, "[\\\"<\\\",\\\"K\\\",\\\">\\\"]",
           ""); /* data, as it is */
    bench_end(&b);
}

static int64_t number(struct cox_slice object, const char *name)
{
    struct cox_slice value;
    int64_t n = -1;

    assert_true(cox_json_member(object, name, &value) && cox_json_int(value, &n));
    return n;
}

static void has(struct cox_slice text, const char *words)
{
    if (!memmem(text.data, text.len, words, strlen(words)))
        fail_msg("expected %s, found %.*s", words, (int)text.len, (const char *)text.data);
}

static void test_programs(void **state)
{
    struct slots_reply *reply;
    struct bench b;
    int64_t warm;

    (void)state;
    begin(&b);
    slots_reply_free(b.slots, run(&b, "keeps@1", WITH("{\"t\":[\"\",\"K\",\"\"]}", "[[\"t\"]]")));
    reply = run(&b, "keeps@1", "{\"t\":\"a\"}");
    has(reply->result.output, "\"last\": null"); /* what was given one serves nobody else */
    warm = number(reply->result.output, "pid");
    slots_reply_free(b.slots, reply);
    reply =
        run(&b, "keeps@1", WITH("{\"t\":[\"\",\"K\",\"\"],\"plain\":\"s3cr3t-\\\\-value\"}", "[[\"t\"]]"));
    has(reply->result.output, "\"given\": \"***\", \"last\": null");
    has(reply->result.output, "\"same\": true");
    assert_true(number(reply->result.output, "pid") != warm); /* what served others hears none */
    slots_reply_free(b.slots, reply);
    reply = run(&b, "keeps@1", "{\"t\":\"b\"}");
    assert_int_equal(number(reply->result.output, "pid"), warm);
    has(reply->result.output, "\"last\": \"a\"");
    slots_reply_free(b.slots, reply);
    expect(&b, "keeps@1", WITH("{\"t\":[\"\",\"K\",\"\"],\"die\":1}", "[[\"t\"]]"), COX_CODE_EXIT_NONZERO,
           "log ***", "exited with code 3: log ***");
    bench_end(&b);
}

static void test_batches(void **state)
{
    const struct cox_agent_item items[] = {
        { 0, cox_slice_str(WITH(SH("echo 0 $T"), ENV)) },
        { 7, cox_slice_str(WITH(SH("echo 7 $T >&2; exit 1"), ENV)) },
        { 9,
          cox_slice_str("[{\"K\":\"others\"}," SH("true") "," ENV "]") }, /* not what the batch asked for */
    };
    struct slots_reply *reply;
    struct bench b;

    (void)state;
    begin(&b);
    reply = bench_run(
        &b, (struct cox_agent_assign){ .handler = cox_slice_str("run"), .items = items, .n_items = 2 });
    assert_int_equal(reply->result.n_items, 2);
    has(reply->result.items[0].output, "0 <***>");
    has(reply->result.items[1].message, "7 <***>");
    assert_null(memmem(reply->bytes.data, reply->bytes.len, "s3cr3t", 6));
    slots_reply_free(b.slots, reply);
    reply = bench_run(
        &b, (struct cox_agent_assign){ .handler = cox_slice_str("run"), .items = items, .n_items = 3 });
    assert_int_equal(reply->result.code, COX_CODE_INPUT_INVALID);
    assert_int_equal(reply->result.n_items, 2);
    slots_reply_free(b.slots, reply);
    bench_end(&b);
}

/* Killed while its secret is looked up: it ends, and what comes later is nobody's. */
static void test_a_kill_while_it_waits(void **state)
{
    struct cox_agent_assign assign = { .ref = { 1, 1, { 1, 1 } },
                                       .handler = cox_slice_str("run"),
                                       .spec_json =
                                           cox_slice_str("[{\"K\":\"hangs\"}," SH("true") "," ENV "]") };
    struct cox_buf text = { 0 };
    struct slots_reply *reply;
    struct bench b;

    (void)state;
    bench_begin(&b);
    bench_write(&b, "hangs", "#!/bin/sh\n[ $# = 1 ] || sleep 1000\n");
    cox_buf_printf(&text, "{\"hangs\": {\"command\": [\"%s/hangs\"], \"timeout\": \"10m\"}}", b.programs);
    b.secrets = table(cox_buf_cstr(&text));
    bench_start(&b);
    slots_start(b.slots, 0, &assign);
    slots_kill(b.slots, 0);
    reply = bench_reply(&b);
    assert_int_equal(reply->result.code, COX_CODE_CANCELLED);
    slots_reply_free(b.slots, reply);
    cox_buf_fini(&text);
    bench_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_tenants),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_a_variable_is_taken_out_of_the_environment),
        cmocka_unit_test(test_the_end_does_not_wait),
        cmocka_unit_test(test_a_process_gets_it_and_reports_do_not),
        cmocka_unit_test(test_much_output),
        cmocka_unit_test(test_who_gets_none),
        cmocka_unit_test(test_programs),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_a_kill_while_it_waits),
    };

    return cmocka_run_group_tests(tests, bench_block_signals, NULL);
}
