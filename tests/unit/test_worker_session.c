/* A whole worker, agent, stream, slots and processes, against an orchestrator of a few lines. */
#include "pack_fixture.h"
#include "rpc_fixture.h"
#include "session.h"

#include "cox/json.h"
#include "cox/limits.h"

#include <coxswain/v1/blob_service.pb-c.h>
#include <coxswain/v1/worker_service.pb-c.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define WORKERS (&coxswain__v1__worker_service__descriptor)

/* ---------------------------------------------------------------- the orchestrator */

struct orchestrator {
    struct cox_rpc_server *server;
    struct cox_rpc_call *call; /* the worker's stream */
    bool answers;
    int n_hellos;
    size_t n_holds; /* of the last Hello */
    uint64_t granted, returned, started;
    bool draining;
    int n_results;
    int status; /* of the last result */
    int exit_code;
    char code[32];
    struct cox_buf output, log, artifacts, message;
    size_t n_blobs; /* named by the last result */
    bool log_ended;

    /* its blobs */
    struct stored {
        char hash[80];
        struct cox_buf bytes;
    } stored[4];
    size_t n_stored, n_gets;
    struct cox_buf put;
    char put_hash[80];
    bool lies;      /* gives other bytes than asked for */
    int n_refusals; /* left: it is about to stop */
};

static struct orchestrator o;

static void send_down(Coxswain__V1__AttachResponse *m)
{
    assert_int_equal(cox_rpc_send(o.call, &m->base), COX_OK);
}

static void take_result(Coxswain__V1__Result *r)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Answer answer = COXSWAIN__V1__ANSWER__INIT;
    Coxswain__V1__Answer *answers[] = { &answer };

    o.n_results++;
    o.status = (int)r->status;
    o.exit_code = r->exit_code ? r->exit_code->value : -1;
    snprintf(o.code, sizeof(o.code), "%s", r->error ? r->error->code : "");
    cox_buf_clear(&o.output);
    cox_buf_append(&o.output, r->output_json.data, r->output_json.len);
    cox_buf_clear(&o.artifacts);
    cox_buf_append(&o.artifacts, r->artifacts_json.data, r->artifacts_json.len);
    cox_buf_clear(&o.message);
    cox_buf_append_str(&o.message, r->error ? r->error->message : "");
    o.n_blobs = r->n_blobs;
    if (!o.answers)
        return;
    answer.ref = r->ref;
    answer.kind = COXSWAIN__V1__ANSWER_KIND__ANSWER_KIND_ACCEPTED;
    m.answers = answers;
    m.n_answers = 1;
    send_down(&m);
}

static void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__AttachRequest *m = (const Coxswain__V1__AttachRequest *)message;

    (void)user;
    if (m->hello) {
        Coxswain__V1__AttachResponse down = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
        Coxswain__V1__Welcome welcome = COXSWAIN__V1__WELCOME__INIT;

        o.call = call;
        o.n_hellos++;
        o.n_holds = m->hello->n_holds;
        o.granted = 0;
        assert_string_equal(m->hello->worker_id, "w1");
        assert_string_equal(m->hello->handlers[0], "run");
        assert_string_equal(m->hello->labels[0]->key, "zone");
        welcome.shard_uid = 77;
        down.welcome = &welcome;
        send_down(&down);
    }
    assert_ptr_equal(call, o.call); /* Hello was in the first message */
    o.started += m->n_started;
    for (size_t i = 0; i < m->n_results; i++)
        take_result(m->results[i]);
    o.returned += m->n_returned;
    if (m->credit)
        o.granted = m->credit->granted;
    for (size_t i = 0; i < m->n_logs; i++) {
        cox_buf_append(&o.log, m->logs[i]->data.data, m->logs[i]->data.len);
        o.log_ended |= m->logs[i]->end;
    }
    o.draining |= m->draining;
}

static void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)user;
    (void)status;
    if (o.call == call)
        o.call = NULL;
}

static void on_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    cox_rpc_finish(call);
}

static const struct cox_rpc_method methods[] = {
    { "Attach", { .on_message = on_message, .on_half_close = on_half_close, .on_closed = on_closed } },
};

static bool refuses(struct cox_rpc_call *call)
{
    if (o.n_refusals == 0)
        return false;
    o.n_refusals--;
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE, .message = "stopping" });
    return true;
}

static void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetBlobRequest *m = (const Coxswain__V1__GetBlobRequest *)message;

    (void)user;
    if (refuses(call))
        return;
    o.n_gets++;
    for (size_t i = 0; i < o.n_stored; i++) {
        const struct stored *s = &o.stored[i];

        if (strcmp(s->hash, m->hash) != 0)
            continue;
        for (size_t at = 0; at < s->bytes.len; at += COX_BLOB_CHUNK_LEN) {
            Coxswain__V1__GetBlobResponse chunk = COXSWAIN__V1__GET_BLOB_RESPONSE__INIT;

            chunk.data.data = s->bytes.data + at;
            chunk.data.len = s->bytes.len - at < COX_BLOB_CHUNK_LEN ? s->bytes.len - at : COX_BLOB_CHUNK_LEN;
            chunk.data.len -= o.lies;
            assert_int_equal(cox_rpc_send(call, &chunk.base), COX_OK);
        }
        cox_rpc_finish(call);
        return;
    }
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_NOT_FOUND, .message = "no such blob" });
}

static void on_put(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__PutBlobRequest *m = (const Coxswain__V1__PutBlobRequest *)message;

    (void)call;
    (void)user;
    if (m->hash[0]) {
        snprintf(o.put_hash, sizeof(o.put_hash), "%s", m->hash);
        cox_buf_clear(&o.put);
    }
    assert_true(m->data.len <= COX_BLOB_CHUNK_LEN);
    cox_buf_append(&o.put, m->data.data, m->data.len);
}

static void keep_blob(const char *hash, struct cox_slice bytes)
{
    struct stored *s = &o.stored[o.n_stored++];

    assert_true(o.n_stored <= 4);
    snprintf(s->hash, sizeof(s->hash), "%s", hash);
    cox_buf_append_slice(&s->bytes, bytes);
}

static void on_put_end(struct cox_rpc_call *call, void *user)
{
    Coxswain__V1__PutBlobResponse m = COXSWAIN__V1__PUT_BLOB_RESPONSE__INIT;

    (void)user;
    if (refuses(call))
        return;
    keep_blob(o.put_hash, cox_buf_slice(&o.put));
    cox_rpc_reply(call, &m.base);
}

static const struct cox_rpc_method blob_methods[] = {
    { "GetBlob", { .on_message = on_get } },
    { "PutBlob", { .on_message = on_put, .on_half_close = on_put_end } },
};
static const struct cox_rpc_service services[] = {
    { .descriptor = WORKERS, .methods = methods, .n_methods = 1 },
    { .descriptor = &coxswain__v1__blob_service__descriptor, .methods = blob_methods, .n_methods = 2 },
};

static void listen_at(struct cox_rpc_loop *loop, int port)
{
    char address[32];

    snprintf(address, sizeof(address), "127.0.0.1:%d", port);
    assert_int_equal(cox_rpc_server_create(loop,
                                           &(struct cox_rpc_server_config){
                                               .address = address, .services = services, .n_services = 2 },
                                           &o.server),
                     COX_OK);
}

/* More of an assignment, for who needs it. */
struct more {
    const char *handler, *bundle, *artifacts;
};

static void assign_more(uint64_t number, const char *spec, uint64_t timeout_ms, struct more more)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Assign as = COXSWAIN__V1__ASSIGN__INIT;
    Coxswain__V1__AttemptRef ref = COXSWAIN__V1__ATTEMPT_REF__INIT;
    Coxswain__V1__Token token = COXSWAIN__V1__TOKEN__INIT;
    Coxswain__V1__Assign *assigns[] = { &as };

    token.epoch = 1;
    token.counter = number;
    ref.task = number;
    ref.token = &token;
    as.ref = &ref;
    as.task_id = (char *)(uintptr_t) "t0-000001";
    as.step_name = (char *)(uintptr_t) "s";
    as.attempt = 1;
    as.handler = (char *)(uintptr_t)(more.handler ? more.handler : "run");
    as.bundle = (char *)(uintptr_t)(more.bundle ? more.bundle : "");
    as.artifacts_json.data = (uint8_t *)(uintptr_t)more.artifacts;
    as.artifacts_json.len = more.artifacts ? strlen(more.artifacts) : 0;
    as.timeout_ms = timeout_ms;
    as.spec_json.data = (uint8_t *)(uintptr_t)spec;
    as.spec_json.len = strlen(spec);
    m.assigns = assigns;
    m.n_assigns = 1;
    send_down(&m);
}

static void assign(uint64_t number, const char *spec, uint64_t timeout_ms)
{
    assign_more(number, spec, timeout_ms, (struct more){ 0 });
}

/* Cancels, or asks for the log of, attempt `number`. */
static void ask(uint64_t number, bool cancel)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__AttemptRef ref = COXSWAIN__V1__ATTEMPT_REF__INIT;
    Coxswain__V1__Token token = COXSWAIN__V1__TOKEN__INIT;
    Coxswain__V1__LogWanted log = COXSWAIN__V1__LOG_WANTED__INIT;
    Coxswain__V1__AttemptRef *cancels[] = { &ref };
    Coxswain__V1__LogWanted *logs[] = { &log };

    token.epoch = 1;
    token.counter = number;
    ref.task = number;
    ref.token = &token;
    log.ref = &ref;
    log.wanted = true;
    m.cancels = cancels;
    m.n_cancels = cancel;
    m.logs_wanted = logs;
    m.n_logs_wanted = !cancel;
    send_down(&m);
}

/* ---------------------------------------------------------------- the worker */

struct worker {
    struct cox_rpc_loop *loop;
    struct slots *slots;
    struct session *session;
    char dir[64];
    char address[32];
    const char *addresses[1];
    int n_attached;
    bool left;
};

static void wake(void *loop)
{
    cox_rpc_loop_wake(loop);
}

static void on_attached(void *user)
{
    (*(int *)user)++;
}

static void begin(struct worker *w)
{
    static const struct session_label labels[] = { { "zone", "a" } };
    static const char *const handlers[] = { "run" };

    memset(w, 0, sizeof(*w));
    memset(&o, 0, sizeof(o));
    o.answers = true;
    cox_rpc_init();
    w->loop = cox_rpc_loop_create();
    listen_at(w->loop, 0);
    snprintf(w->dir, sizeof(w->dir), "/tmp/cox-test-session-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    snprintf(w->address, sizeof(w->address), "127.0.0.1:%d", cox_rpc_server_port(o.server));
    w->addresses[0] = w->address;
    assert_int_equal(slots_create(&(struct slots_config){ .n_slots = 2,
                                                          .work_dir = w->dir,
                                                          .boot_id = "b1",
                                                          .with_blobs = true,
                                                          .on_reply = wake,
                                                          .user = w->loop },
                                  &w->slots),
                     COX_OK);
    w->session = session_create(w->loop, w->slots,
                                &(struct session_config){ .agent = { .slots = 2,
                                                                     .n_addresses = 1,
                                                                     .drain_timeout_ms = 10000,
                                                                     .orphan_timeout_ms = 60000,
                                                                     .seed = 1 },
                                                          .addresses = w->addresses,
                                                          .worker_id = "w1",
                                                          .boot_id = "b1",
                                                          .version = "test",
                                                          .labels = labels,
                                                          .n_labels = 1,
                                                          .handlers = handlers,
                                                          .n_handlers = 1,
                                                          .on_attached = on_attached,
                                                          .user = &w->n_attached });
}

static void end(struct worker *w)
{
    session_destroy(w->session);
    slots_destroy(w->slots);
    cox_rpc_server_destroy(o.server);
    cox_rpc_loop_destroy(w->loop);
    cox_rpc_fini();
    cox_buf_fini(&o.output);
    cox_buf_fini(&o.log);
    cox_buf_fini(&o.artifacts);
    cox_buf_fini(&o.message);
    cox_buf_fini(&o.put);
    while (o.n_stored > 0)
        cox_buf_fini(&o.stored[--o.n_stored].bytes);
    assert_int_equal(rmdir(w->dir), 0); /* nothing was left in it */
}

#define TURN_UNTIL(w, cond)                                                                                  \
    do {                                                                                                     \
        int64_t give_up_ns = cox_clock_mono_ns() + PATIENCE_NS;                                              \
        while (!(cond)) {                                                                                    \
            (w)->left |= !session_turn((w)->session, cox_clock_mono_ns() + 50000000);                        \
            assert_true(cox_clock_mono_ns() < give_up_ns);                                                   \
        }                                                                                                    \
    } while (0)

/* ---------------------------------------------------------------- stories */

static void test_steps_run_and_report(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assert_int_equal(w.n_attached, 1);
    assign(1, "{\"argv\":[\"echo\",\"hi\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    assert_string_equal(cox_buf_cstr(&o.output), "{\"exit_code\":0,\"stdout\":\"hi\\n\",\"stderr\":\"\"}");
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, "{\"argv\":[\"sh\",\"-c\",\"exit 7\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_FAILED);
    assert_string_equal(o.code, "EXIT_NONZERO");
    assert_int_equal(o.exit_code, 7);
    end(&w);
}

static void test_limits_and_cancels_kill(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sleep\",\"1000\"]}", 50);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_TIMED_OUT);
    assert_string_equal(o.code, "TIMEOUT");
    assign(2, "{\"argv\":[\"sleep\",\"1000\"]}", 0);
    TURN_UNTIL(&w, o.started == 2);
    ask(2, true);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_CANCELLED);
    assert_int_equal(o.exit_code, 128 + SIGTERM);
    end(&w);
}

static void test_a_restarted_orchestrator_gets_its_steps_back(void **state)
{
    struct worker w;
    int port;

    (void)state;
    begin(&w);
    o.answers = false;
    port = cox_rpc_server_port(o.server);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"echo\",\"once\"]}", 0);
    assign(2, "{\"argv\":[\"sh\",\"-c\",\"until [ -e go ]; do sleep 0.05; done; echo twice\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1 && o.started >= 1);
    cox_rpc_server_destroy(o.server);
    assert_null(o.call);
    o.answers = true;
    listen_at(w.loop, port);
    TURN_UNTIL(&w, o.n_hellos == 2);
    assert_int_equal(o.n_holds, 2); /* one ended and unanswered, one running */
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(cox_buf_cstr(&o.output), "{\"exit_code\":0,\"stdout\":\"once\\n\",\"stderr\":\"\"}");
    ask(2, true);
    TURN_UNTIL(&w, o.n_results == 3);
    end(&w);
}

static void test_logs_are_sent_when_wanted(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sh\",\"-c\",\"seq 1 100000; until [ -e go ]; do sleep 0.05; done\"]}", 0);
    TURN_UNTIL(&w, o.started == 1);
    assert_int_equal(o.log.len, 0);
    ask(1, false);
    TURN_UNTIL(&w, o.log.len == 588895);
    assert_false(o.log_ended);
    ask(1, true);
    TURN_UNTIL(&w, o.n_results == 1 && o.log_ended);
    o.log_ended = false;
    ask(9, false);
    TURN_UNTIL(&w, o.log_ended); /* there is none */
    end(&w);
}

static void test_nonsense_ends_the_stream_not_the_worker(void **state)
{
    struct worker w;
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Assign as = COXSWAIN__V1__ASSIGN__INIT;
    Coxswain__V1__Assign *assigns[] = { &as };

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    m.assigns = assigns;
    m.n_assigns = 1;
    send_down(&m);
    TURN_UNTIL(&w, o.n_hellos == 2 && o.granted == 2);
    m.n_assigns = 0;
    m.reconnect = true;
    send_down(&m);
    TURN_UNTIL(&w, o.n_hellos == 3 && o.granted == 2);
    assign(1, "not json", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "INPUT_INVALID");
    end(&w);
}

static void test_sigterm_drains(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"sleep\",\"0.2\"]}", 0);
    TURN_UNTIL(&w, o.started == 1);
    kill(getpid(), SIGTERM);
    TURN_UNTIL(&w, o.draining);
    assert_false(w.left);
    TURN_UNTIL(&w, w.left);
    assert_int_equal(o.n_results, 1);
    assert_int_equal(o.status, COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED);
    end(&w);
}

/* ---------------------------------------------------------------- blobs */

static void expect_json(const struct cox_buf *object, const char *name, const char *expected)
{
    struct cox_slice value;

    if (!cox_json_member(cox_buf_slice(object), name, &value) || !cox_slice_is(value, expected))
        fail_msg("%s: expected %s in %.*s", name, expected, (int)object->len, (const char *)object->data);
}

static void test_rule_10_long_output_is_kept_whole(void **state)
{
    struct worker w;
    struct cox_slice value;
    char text[1000];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"seq\",\"1\",\"100000\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_stored, 1);
    assert_int_equal(o.stored[0].bytes.len, 588895);
    assert_memory_equal(o.stored[0].bytes.data + 588888, "100000\n", 7);
    snprintf(text, sizeof(text), "{\"$blob\":\"%s\",\"size\":588895}", o.stored[0].hash);
    expect_json(&o.output, "stdout_blob", text);
    expect_json(&o.output, "stderr", "\"\"");
    assert_true(cox_json_member(cox_buf_slice(&o.output), "stdout", &value));
    assert_in_range(value.len, COX_STDIO_TAIL_LEN_MAX, COX_STDIO_TAIL_LEN_MAX + 20000);
    assert_int_equal(o.n_blobs, 1);
    /* and somebody reads it, as a file and as standard input */
    snprintf(text, sizeof(text),
             "{\"argv\":[\"sh\",\"-c\",\"wc -c < $COX_BLOBS/%s; wc -l\"],\"stdin\":", o.stored[0].hash + 7);
    struct cox_buf spec = { 0 };
    cox_buf_append_str(&spec, text);
    assert_true(cox_json_member(cox_buf_slice(&o.output), "stdout_blob", &value));
    cox_json_quote(&spec, value); /* as a document gives it, whose stdin is a string */
    cox_buf_append_str(&spec, "}");
    for (int i = 2; i < 4; i++) {
        TURN_UNTIL(&w, o.granted >= (uint64_t)i);
        assign((uint64_t)i, cox_buf_cstr(&spec), 0);
        TURN_UNTIL(&w, o.n_results == i);
        expect_json(&o.output, "stdout", "\"588895\\n100000\\n\"");
    }
    assert_int_equal(o.n_gets, 1); /* then it is in the cache */
    cox_buf_fini(&spec);
    end(&w);
}

static void test_rule_10_large_json_is_a_blob(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1,
           "{\"argv\":[\"sh\",\"-c\",\"printf [0; seq 1 200000 | sed s/^/,/; echo ]\"],\"output\":\"json\"}",
           0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_stored, 1);
    assert_true(o.stored[0].bytes.len > COX_LOGGED_PAYLOAD_LEN_MAX);
    assert_int_equal(cox_json_check(cox_buf_slice(&o.stored[0].bytes), NULL), COX_OK);
    assert_true(strstr(cox_buf_cstr(&o.output), o.stored[0].hash) != NULL);
    end(&w);
}

static void test_a_blob_that_is_not_there_or_not_right(void **state)
{
    static const char spec[] =
        "{\"argv\":[\"true\"],\"stdin\":{\"$blob\":\"sha256:"
        "00000000000000000000000000000000000000000000000000000000000000aa\",\"size\":3}}";
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, spec, 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "INPUT_INVALID");
    assert_non_null(strstr(cox_buf_cstr(&o.message), "no such blob"));
    keep_blob("sha256:00000000000000000000000000000000000000000000000000000000000000aa",
              cox_slice_str("abc"));
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, spec, 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(o.code, "INPUT_INVALID");
    assert_non_null(strstr(cox_buf_cstr(&o.message), "other content"));
    end(&w);
}

static void test_rule_10_artifacts_are_kept(void **state)
{
    static const struct {
        const char *command, *artifacts, *code, *message;
    } bad[] = {
        { "true", "{\"a\":\"missing\"}", "OUTPUT_INVALID", "artifact \"a\": expected a file \"missing\"" },
        { "ln -s /etc/passwd f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
        { "ln -s / d", "{\"a\":\"d/etc/passwd\"}", "OUTPUT_INVALID", "artifact" },
        { "true", "{\"a\":\"../../../../../../etc/passwd\"}", "OUTPUT_INVALID", "within" },
        { "true", "{\"a\":\"/etc/passwd\"}", "OUTPUT_INVALID", "within" },
        { "mkfifo f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
        { "mkdir f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
    };
    struct worker w;
    char text[400];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign_more(1, "{\"argv\":[\"sh\",\"-c\",\"mkdir d; echo patch > d/out.diff; echo -n > empty\"]}", 0,
                (struct more){ .artifacts = "{\"patch\":\"./d/out.diff\",\"none\":\"empty\"}" });
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_blobs, 2);
    for (size_t i = 0; i < 2; i++) {
        bool is_patch = o.stored[i].bytes.len > 0;

        snprintf(text, sizeof(text), "{\"$blob\":\"%s\",\"size\":%d}", o.stored[i].hash, is_patch ? 6 : 0);
        expect_json(&o.artifacts, is_patch ? "patch" : "none", text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "{\"argv\":[\"sh\",\"-c\",\"%s\"]}", bad[i].command);
        TURN_UNTIL(&w, o.granted >= i + 2);
        assign_more(i + 2, text, 0, (struct more){ .artifacts = bad[i].artifacts });
        TURN_UNTIL(&w, o.n_results == (int)i + 2);
        assert_string_equal(o.code, bad[i].code);
        if (!strstr(cox_buf_cstr(&o.message), bad[i].message))
            fail_msg("%s: %s", bad[i].artifacts, cox_buf_cstr(&o.message));
        assert_int_equal(o.artifacts.len, 0);
    }
    end(&w);
}

static void test_a_restart_loses_no_blob(void **state)
{
    struct worker w;
    char text[300];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    o.n_refusals = 2;
    assign_more(1, "{\"argv\":[\"sh\",\"-c\",\"echo patch > f\"]}", 0,
                (struct more){ .artifacts = "{\"a\":\"f\"}" });
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_refusals, 0);
    o.n_refusals = 1;
    snprintf(text, sizeof(text), "{\"argv\":[\"cat\"],\"stdin\":{\"$blob\":\"%s\",\"size\":6}}",
             o.stored[0].hash);
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, text, 0);
    TURN_UNTIL(&w, o.n_results == 2);
    expect_json(&o.output, "stdout", "\"patch\\n\"");
    end(&w);
}

/* ---------------------------------------------------------------- bundles */

/* The only blob that is kept from now on; its name. */
static const char *keep_only(struct cox_slice bytes)
{
    while (o.n_stored > 0)
        cox_buf_fini(&o.stored[--o.n_stored].bytes);
    keep_blob(pack_name(bytes), bytes);
    return o.stored[0].hash;
}

#define PROGRAM                                                                                              \
    "#!/bin/sh\n"                                                                                            \
    "[ $1 = --describe ] && { echo '{\"name\":\"hi\",\"input_schema\":{\"type\":\"integer\"}}'; exit; }\n"   \
    "while read -r line; do n=$((n+1)); id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"                      \
    "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":\\\"hi$n\\\"}\"; done\n"

static void test_a_bundle_is_there_read_only(void **state)
{
    static const struct packed files[] = {
        { .path = "./" },
        { .path = "tools/" },
        { .path = "tools/hi.sh", .text = PROGRAM },
        { .path = "deep/down/data", .text = "data" },
        { .path = "deep/link", .link = "../tools/hi.sh" },
    };
    struct worker w;
    const char *name;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    name = keep_only(pack(files, sizeof(files) / sizeof(files[0])));
    assign_more(1,
                "{\"argv\":[\"sh\",\"-c\",\"cd $COX_BUNDLE; cat deep/down/data; test -x deep/link && echo .; "
                "stat -c %a . deep tools/hi.sh\"]}",
                0, (struct more){ .bundle = name });
    TURN_UNTIL(&w, o.n_results == 1);
    expect_json(&o.output, "stdout", "\"data.\\n555\\n555\\n555\\n\"");
    for (int i = 2; i < 4; i++) {
        TURN_UNTIL(&w, o.granted >= (uint64_t)i);
        assign_more((uint64_t)i, "{\"path\":\"./tools/hi.sh\",\"input\":3}", 0,
                    (struct more){ .handler = "bundle", .bundle = name });
        TURN_UNTIL(&w, o.n_results == i);
        /* the same process, which counts its calls */
        if (strcmp(cox_buf_cstr(&o.output), i == 2 ? "\"hi1\"" : "\"hi2\"") != 0)
            fail_msg("%s %s", cox_buf_cstr(&o.output), cox_buf_cstr(&o.message));
    }
    assign_more(4, "{\"path\":\"deep/link\",\"input\":\"x\"}", 0,
                (struct more){ .handler = "bundle", .bundle = name });
    TURN_UNTIL(&w, o.n_results == 4);
    assert_string_equal(cox_buf_cstr(&o.message), "input: the value: expected integer, found a string");
    TURN_UNTIL(&w, o.granted >= 5);
    assign_more(5, "{\"path\":\"../../etc/passwd\"}", 0,
                (struct more){ .handler = "bundle", .bundle = name });
    TURN_UNTIL(&w, o.n_results == 5);
    assert_non_null(strstr(cox_buf_cstr(&o.message), "no such file in the bundle"));
    assert_int_equal(o.n_gets, 1);
    end(&w);
}

static void test_hostile_bundles_are_refused(void **state)
{
    static const struct {
        struct packed files[3];
        size_t n;
        const char *message;
    } bad[] = {
        { { { .path = "/tmp/cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "../cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "a/../../cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "l", .link = "/etc" } }, 1, "leads out" },
        { { { .path = "l", .link = ".." } }, 1, "leads out" },
        { { { .path = "d/l", .link = "../../x" } }, 1, "leads out" },
        { { { .path = "d", .link = "." }, { .path = "l", .link = "d/.." } }, 2, "leads out" },
        { { { .path = "d/" }, { .path = "l", .link = "d" }, { .path = "l/f", .text = "x" } }, 3, "l/f" },
        { { { .path = "f", .text = "x" }, { .path = "f", .text = "y" } }, 2, "f: File exists" },
        { { { .path = "f", .hard_link = "/etc/passwd" } }, 1, "hard link" },
        { { { .path = "f", .type = AE_IFIFO } }, 1, "neither" },
        { { { .path = "f", .type = AE_IFCHR } }, 1, "neither" },
    };
    struct worker w;
    uint64_t number = 0;

    (void)state;
    begin(&w);
    for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        bool is_garbage = i == sizeof(bad) / sizeof(bad[0]);
        const char *name =
            keep_only(is_garbage ? cox_slice_str("this is no archive") : pack(bad[i].files, bad[i].n));

        number++;
        TURN_UNTIL(&w, o.granted >= number);
        assign_more(number, "{\"argv\":[\"true\"]}", 0, (struct more){ .bundle = name });
        TURN_UNTIL(&w, o.n_results == (int)number);
        if (strcmp(o.code, "INPUT_INVALID") != 0 ||
            !strstr(cox_buf_cstr(&o.message), is_garbage ? "tar.gz" : bad[i].message))
            fail_msg("%zu: %s %s", i, o.code, cox_buf_cstr(&o.message));
        assert_int_not_equal(access("/tmp/cox-hostile", F_OK), 0);
    }
    end(&w);
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
        cmocka_unit_test(test_steps_run_and_report),
        cmocka_unit_test(test_limits_and_cancels_kill),
        cmocka_unit_test(test_a_restarted_orchestrator_gets_its_steps_back),
        cmocka_unit_test(test_logs_are_sent_when_wanted),
        cmocka_unit_test(test_nonsense_ends_the_stream_not_the_worker),
        cmocka_unit_test(test_sigterm_drains),
        cmocka_unit_test(test_rule_10_long_output_is_kept_whole),
        cmocka_unit_test(test_rule_10_large_json_is_a_blob),
        cmocka_unit_test(test_a_blob_that_is_not_there_or_not_right),
        cmocka_unit_test(test_rule_10_artifacts_are_kept),
        cmocka_unit_test(test_a_restart_loses_no_blob),
        cmocka_unit_test(test_a_bundle_is_there_read_only),
        cmocka_unit_test(test_hostile_bundles_are_refused),
    };
    return cmocka_run_group_tests(tests, block_signals, NULL);
}
