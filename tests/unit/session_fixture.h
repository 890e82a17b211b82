/* A whole worker against an orchestrator of a few lines, which answers from the global `o`. */
#ifndef COX_TEST_SESSION_FIXTURE_H
#define COX_TEST_SESSION_FIXTURE_H

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
    bool lies;                     /* gives other bytes than asked for */
    int n_refusals;                /* left: it is about to stop */
    char attempt[60], session[60]; /* for which its blobs were asked or told, as of the last call */
};

static struct orchestrator o;

static inline void send_down(Coxswain__V1__AttachResponse *m)
{
    assert_int_equal(cox_rpc_send(o.call, &m->base), COX_OK);
}

static inline void take_result(Coxswain__V1__Result *r)
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

static inline void on_message(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
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
        char key[20];

        snprintf(key, sizeof(key), "stream-%d", o.n_hellos);
        welcome.session_key = key;
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

static inline void on_closed(struct cox_rpc_call *call, const struct cox_rpc_error *status, void *user)
{
    (void)user;
    (void)status;
    if (o.call == call)
        o.call = NULL;
}

static inline void on_half_close(struct cox_rpc_call *call, void *user)
{
    (void)user;
    cox_rpc_finish(call);
}

static const struct cox_rpc_method methods[] = {
    { "Attach", { .on_message = on_message, .on_half_close = on_half_close, .on_closed = on_closed } },
};

static inline void take_metadata(const struct cox_rpc_call *call, const char *key, char *to, size_t size)
{
    struct cox_slice value = cox_rpc_call_metadata(call, key);

    snprintf(to, size, "%.*s", (int)value.len, (const char *)value.data);
}

static inline bool refuses(struct cox_rpc_call *call)
{
    take_metadata(call, "cox-attempt", o.attempt, sizeof(o.attempt));
    take_metadata(call, "cox-session", o.session, sizeof(o.session));
    if (o.n_refusals == 0)
        return false;
    o.n_refusals--;
    cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE, .message = "stopping" });
    return true;
}

static inline void on_get(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
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

static inline void on_put(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
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

static inline void keep_blob(const char *hash, struct cox_slice bytes)
{
    struct stored *s = &o.stored[o.n_stored++];

    assert_true(o.n_stored <= 4);
    snprintf(s->hash, sizeof(s->hash), "%s", hash);
    cox_buf_append_slice(&s->bytes, bytes);
}

static inline void on_put_end(struct cox_rpc_call *call, void *user)
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

static inline void listen_at(struct cox_rpc_loop *loop, int port)
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

static inline void assign_more(uint64_t number, const char *spec, uint64_t timeout_ms, struct more more)
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

static inline void assign(uint64_t number, const char *spec, uint64_t timeout_ms)
{
    assign_more(number, spec, timeout_ms, (struct more){ 0 });
}

/* Cancels, or asks for the log of, attempt `number`. */
static inline void ask(uint64_t number, bool cancel)
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

static inline void wake(void *loop)
{
    cox_rpc_loop_wake(loop);
}

static inline void on_attached(void *user)
{
    (*(int *)user)++;
}

static inline void begin(struct worker *w)
{
    static const struct cox_attach_label labels[] = { { "zone", "a" } };
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

static inline void end(struct worker *w)
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

static inline int block_signals(void **state)
{
    sigset_t all;

    (void)state;
    sigfillset(&all);
    return sigprocmask(SIG_BLOCK, &all, NULL);
}

#endif
