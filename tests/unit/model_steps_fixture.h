/* The engine and the router that test_model_steps.c plays. */
#ifndef COX_TEST_MODEL_STEPS_FIXTURE_H
#define COX_TEST_MODEL_STEPS_FIXTURE_H

#include "check.h"

#include "orchestrator/inference/step_answer.h"
#include "orchestrator/inference/steps.h"

#include "cox/base/alloc.h"
#include "cox/base/units.h"
#include "cox/limits.h"
#include "cox/wire.h"

#include "coxswain/v1/blob_service.pb-c.h"

#include <stdio.h>
#include <string.h>

/* ---- the router ---- */

#define CALLS_MAX 64

struct router_call {
    struct cox_buf body, tenant, program;
    struct router_who who;
    const struct router_sink *sink;
    void *user;
    bool cancelled, over;
};

static struct {
    struct router_call calls[CALLS_MAX];
    size_t n_calls;
    struct cox_buf ended;    /* programs, each after a space */
    struct cox_buf expected; /* likewise, with the time */
} r;

struct router_call *router_start(struct router *router, const struct router_request *request)
{
    assert_true(r.n_calls < CALLS_MAX);
    struct router_call *c = &r.calls[r.n_calls++];

    (void)router;
    c->body = *request->body;
    *request->body = (struct cox_buf){ 0 };
    c->who = request->who;
    cox_buf_append_slice(&c->tenant, request->who.tenant);
    cox_buf_append_slice(&c->program, request->who.program);
    c->sink = request->sink;
    c->user = request->user;
    return c;
}

void router_cancel(struct router_call *c)
{
    c->cancelled = true;
}

void router_expect(struct router *router, struct cox_slice tenant, struct cox_slice program,
                   int64_t return_ms)
{
    (void)router;
    cox_buf_printf(&r.expected, " %.*s/%.*s:%d", (int)tenant.len, (const char *)tenant.data, (int)program.len,
                   (const char *)program.data, (int)return_ms);
}

void router_program_end(struct router *router, struct cox_slice tenant, struct cox_slice program)
{
    (void)router;
    cox_buf_printf(&r.ended, " %.*s/%.*s", (int)tenant.len, (const char *)tenant.data, (int)program.len,
                   (const char *)program.data);
}

static struct attempts_spend spend;
static bool has_spend;
static struct cox_ref fenced;

bool attempts_take(struct attempts *a, struct attempts_spend *ret)
{
    bool had = has_spend;

    (void)a;
    *ret = spend;
    has_spend = false;
    return had;
}

static bool processes_call;

bool attempts_any(const struct attempts *a)
{
    (void)a;
    return processes_call || has_spend;
}

void attempts_fence(struct attempts *a, struct cox_ref ref)
{
    (void)a;
    fenced = ref;
}

static void head(size_t i, int status, bool is_stream)
{
    r.calls[i].sink->on_head(r.calls[i].user,
                             &(struct router_head){ .status = status, .is_stream = is_stream, .model = "m" });
}

static void data(size_t i, const char *text)
{
    r.calls[i].sink->on_data(r.calls[i].user, cox_slice_str(text));
}

static inline void say(size_t i, const char *text)
{
    char event[512];

    snprintf(event, sizeof(event), "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"}}]}\n\n",
             text);
    data(i, event);
}

static const struct router_books books = { .input_tokens = 100,
                                           .output_tokens = 7,
                                           .cached_tokens = 64,
                                           .wasted_tokens = 5,
                                           .cost_micros = 42,
                                           .currency = "USD",
                                           .tries = 2 };

static void finish(size_t i, enum router_end how, const struct router_error *error)
{
    r.calls[i].over = true;
    r.calls[i].sink->on_end(r.calls[i].user, how, error, &books);
}

static void stop(size_t i)
{
    data(i,
         "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
    finish(i, ROUTER_ANSWERED, NULL);
}

/* ---- the engine ---- */

static struct {
    struct event_base *base;
    struct steps *steps;
    unsigned n_opened, n_closed;
    unsigned n_hellos, n_results, n_drains, n_log_ends, n_spends;
    size_t n_holds;
    uint64_t granted, next;
    int status;
    bool has_error;
    struct cox_buf output, code, message, log, blob;
    size_t n_items;
    int item_status;
    Coxswain__V1__Usage usage, spent;
    Coxswain__V1__Money cost;
    bool answers;
} e;

static void answer(Coxswain__V1__AttemptRef *ref);

static void take_result(const Coxswain__V1__Result *m)
{
    e.n_results++;
    e.status = (int)m->status;
    cox_buf_clear(&e.output);
    cox_buf_clear(&e.code);
    cox_buf_clear(&e.message);
    cox_buf_clear(&e.blob);
    for (size_t i = 0; i < m->n_blobs; i++)
        cox_buf_append_str(&e.blob, m->blobs[i]);
    cox_buf_append(&e.output, m->output_json.data, m->output_json.len);
    e.has_error = m->error != NULL;
    e.n_items = m->n_items;
    if (m->n_items == 1) {
        assert_int_equal(m->items[0]->index, 17);
        e.item_status = (int)m->items[0]->status;
        cox_buf_append(&e.output, m->items[0]->output_json.data, m->items[0]->output_json.len);
        if (m->items[0]->error)
            cox_buf_append_str(&e.code, m->items[0]->error->code);
    }
    if (m->error) {
        cox_buf_append_str(&e.code, m->error->code);
        cox_buf_append_str(&e.message, m->error->message);
    }
    coxswain__v1__usage__init(&e.usage);
    coxswain__v1__money__init(&e.cost);
    if (m->usage) {
        e.usage = *m->usage;
        if (m->usage->cost)
            e.cost.micros = m->usage->cost->micros;
    }
    if (e.answers)
        answer(m->ref);
}

static void take_log(const Coxswain__V1__LogChunk *m)
{
    if (m->end) {
        e.n_log_ends++;
        return;
    }
    assert_int_equal(m->stream, COXSWAIN__V1__LOG_STREAM__LOG_STREAM_TOKENS);
    assert_true(m->data.len <= COX_ATTACH_LOG_LEN_MAX);
    if (m->reset)
        cox_buf_clear(&e.log);
    cox_buf_append(&e.log, m->data.data, m->data.len);
}

static void port_open(void *user)
{
    (void)user;
    e.n_opened++;
}

static void port_send(void *user, struct cox_slice packed)
{
    Coxswain__V1__AttachRequest *m =
        coxswain__v1__attach_request__unpack(&cox_wire_allocator, packed.len, packed.data);

    (void)user;
    assert_non_null(m);
    if (m->hello) {
        assert_string_equal(m->hello->worker_id, "router");
        assert_string_equal(m->hello->handlers[0], "model");
        assert_string_equal(m->hello->labels[0]->value, "router");
        e.n_hellos++;
        e.n_holds = m->hello->n_holds;
    }
    for (size_t i = 0; i < m->n_results; i++)
        take_result(m->results[i]);
    for (size_t i = 0; i < m->n_logs; i++)
        take_log(m->logs[i]);
    for (size_t i = 0; i < m->n_spends; i++) {
        e.n_spends++;
        e.spent = *m->spends[i]->usage;
    }
    if (m->credit)
        e.granted = m->credit->granted;
    e.n_drains += m->draining ? 1 : 0;
    coxswain__v1__attach_request__free_unpacked(m, &cox_wire_allocator);
    steps_on_read(e.steps, packed.len);
}

static void port_close(void *user)
{
    (void)user;
    e.n_closed++;
}

static void tell(const Coxswain__V1__AttachResponse *m)
{
    struct cox_buf packed = { 0 };

    coxswain__v1__attach_response__pack(
        m, cox_buf_extend(&packed, coxswain__v1__attach_response__get_packed_size(m)));
    steps_on_message(e.steps, cox_buf_slice(&packed));
    cox_buf_fini(&packed);
}

static struct {
    Coxswain__V1__AttemptRef ref;
    Coxswain__V1__Token token;
} named;

static Coxswain__V1__AttemptRef *ref(uint64_t counter)
{
    coxswain__v1__attempt_ref__init(&named.ref);
    coxswain__v1__token__init(&named.token);
    named.ref.task = 7;
    named.ref.step = (uint32_t)counter;
    named.ref.token = &named.token;
    named.token.epoch = 1;
    named.token.counter = counter;
    return &named.ref;
}

static struct cox_buf owed; /* counters to answer once the message was taken: nothing is told from inside */

static void answer(Coxswain__V1__AttemptRef *m)
{
    cox_put_u64(&owed, m->token->counter);
}

static void pay(void)
{
    struct cox_reader in = cox_reader(cox_buf_slice(&owed));

    while (cox_reader_left(&in) > 0) {
        Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
        Coxswain__V1__Answer a = COXSWAIN__V1__ANSWER__INIT, *all[] = { &a };

        a.ref = ref(cox_get_u64(&in));
        a.kind = COXSWAIN__V1__ANSWER_KIND__ANSWER_KIND_ACCEPTED;
        m.answers = all;
        m.n_answers = 1;
        tell(&m);
    }
    cox_buf_clear(&owed);
}

#define UNTIL(cond)                                                                                          \
    do {                                                                                                     \
        while (!(cond)) {                                                                                    \
            assert_int_equal(event_base_loop(e.base, EVLOOP_ONCE), 0);                                       \
            pay();                                                                                           \
        }                                                                                                    \
    } while (0)

static void welcome(void)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Welcome w = COXSWAIN__V1__WELCOME__INIT;

    w.shard_uid = 9;
    w.beat_ms = 2500;
    w.lost_ms = 8000;
    w.session_key = (char *)(uintptr_t) "k";
    m.welcome = &w;
    tell(&m);
}

static bool as_item; /* of a map */

static void assign_as(uint64_t counter, const char *spec, uint64_t timeout_ms, const char *tenant)
{
    Coxswain__V1__Item item = COXSWAIN__V1__ITEM__INIT, *items[] = { &item };
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__Assign a = COXSWAIN__V1__ASSIGN__INIT, *all[] = { &a };
    Coxswain__V1__CallHint hint = COXSWAIN__V1__CALL_HINT__INIT;

    a.ref = ref(counter);
    a.task_id = (char *)(uintptr_t) "t0-1";
    a.step_name = (char *)(uintptr_t) "s";
    a.handler = (char *)(uintptr_t) "model";
    a.attempt = 1;
    a.spec_json = (ProtobufCBinaryData){ strlen(spec), (uint8_t *)(uintptr_t)spec };
    if (as_item) {
        item.index = 17;
        item.spec_json = a.spec_json;
        a.spec_json = (ProtobufCBinaryData){ 0 };
        a.items = items;
        a.n_items = 1;
    }
    a.timeout_ms = timeout_ms;
    a.tenant = (char *)(uintptr_t)tenant;
    hint.priority = 5;
    hint.critical_path_ms = 1234;
    hint.deadline_ms = 60000;
    hint.idempotent = true;
    a.hint = &hint;
    m.assigns = all;
    m.n_assigns = 1;
    tell(&m);
}

static void assign(uint64_t counter, const char *spec)
{
    assign_as(counter, spec, 0, "");
}

static inline void want_log(uint64_t counter, bool wanted)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    Coxswain__V1__LogWanted w = COXSWAIN__V1__LOG_WANTED__INIT, *all[] = { &w };

    w.ref = ref(counter);
    w.wanted = wanted;
    m.logs_wanted = all;
    m.n_logs_wanted = 1;
    tell(&m);
}

/* ---- calls of other services ---- */

struct steps_call {
    struct cox_buf path, tenant, received; /* of PutBlob: the bytes */
    Coxswain__V1__PutBlobRequest put;      /* its first message */
    struct cox_buf hash;                   /* that it names */
    size_t sent_len, read_len;             /* of the messages */
    const struct steps_call_events *events;
    void *user;
    bool half_closed, dropped, over;
};

static struct {
    struct steps_call calls[CALLS_MAX];
    size_t n_calls;
} b;

static struct steps_call *port_call(void *user, const char *path, struct cox_slice tenant,
                                    const struct steps_call_events *events, void *events_user)
{
    assert_true(b.n_calls < CALLS_MAX);
    struct steps_call *c = &b.calls[b.n_calls++];

    (void)user;
    cox_buf_append_str(&c->path, path);
    cox_buf_append_slice(&c->tenant, tenant);
    c->events = events;
    c->user = events_user;
    return c;
}

static void port_call_send(struct steps_call *c, struct cox_slice packed)
{
    assert_false(c->half_closed || c->dropped || c->over);
    c->sent_len += packed.len;
    if (strstr(cox_buf_cstr(&c->path), "/PutBlob")) {
        Coxswain__V1__PutBlobRequest *m =
            coxswain__v1__put_blob_request__unpack(&cox_wire_allocator, packed.len, packed.data);

        assert_true(m && m->data.len <= COX_BLOB_CHUNK_LEN);
        assert_int_equal(*m->hash != 0, c->received.len == 0);
        if (*m->hash)
            c->put.size = m->size;
        cox_buf_append_str(&c->hash, m->hash);
        cox_buf_append(&c->received, m->data.data, m->data.len);
        coxswain__v1__put_blob_request__free_unpacked(m, &cox_wire_allocator);
    } else {
        Coxswain__V1__GetBlobRequest *m =
            coxswain__v1__get_blob_request__unpack(&cox_wire_allocator, packed.len, packed.data);

        assert_non_null(m);
        cox_buf_append_str(&c->hash, m->hash);
        coxswain__v1__get_blob_request__free_unpacked(m, &cox_wire_allocator);
    }
}

static void port_call_half_close(struct steps_call *c)
{
    c->half_closed = true;
}

static void port_call_drop(struct steps_call *c)
{
    assert_false(c->dropped || c->over);
    c->dropped = true;
}

/* Takes what is sent until there is no more. */
static inline void read_all(struct steps_call *c)
{
    while (!c->half_closed) {
        size_t n = c->sent_len - c->read_len;

        assert_true(n > 0 && n <= (2u << 20)); /* it waits for what is under way */
        c->read_len += n;
        c->events->on_read(c->user, n);
    }
}

static inline void close_call(struct steps_call *c, enum cox_code code, const char *why)
{
    c->over = true;
    c->events->on_closed(c->user, code, why);
}

static inline void answer_put(struct steps_call *c)
{
    c->events->on_message(c->user, cox_slice(NULL, 0)); /* a PutBlobResponse that says nothing */
    close_call(c, COX_CODE_NONE, "");
}

/* In two pieces. */
static inline void answer_get(struct steps_call *c, const char *bytes)
{
    size_t len = strlen(bytes), from = 0;

    for (size_t to = len / 2; from < len; from = to, to = len) {
        Coxswain__V1__GetBlobResponse m = COXSWAIN__V1__GET_BLOB_RESPONSE__INIT;
        struct cox_buf packed = { 0 };

        m.data = (ProtobufCBinaryData){ to - from, (uint8_t *)(uintptr_t)bytes + from };
        coxswain__v1__get_blob_response__pack(
            &m, cox_buf_extend(&packed, coxswain__v1__get_blob_response__get_packed_size(&m)));
        c->events->on_message(c->user, cox_buf_slice(&packed));
        cox_buf_fini(&packed);
        if (c->dropped)
            return;
    }
    close_call(c, COX_CODE_NONE, "");
}

#define SPEC "{\"request\":{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}}"

static void begin_with(size_t held_len_max)
{
    static const struct steps_port port = { port_open,     port_send,      port_close,
                                            port_call,     port_call_send, port_call_half_close,
                                            port_call_drop };

    memset(&e, 0, sizeof(e));
    memset(&r, 0, sizeof(r));
    memset(&b, 0, sizeof(b));
    e.answers = true;
    e.base = event_base_new();
    e.steps = steps_create(&(struct steps_config){ .base = e.base,
                                                   .slots = 8,
                                                   .held_len_max = held_len_max,
                                                   .version = "0",
                                                   .port = &port,
                                                   .attempts = (struct attempts *)&spend });
    UNTIL(e.n_hellos == 1);
    welcome();
    UNTIL(e.granted == 8);
}

static void begin(void)
{
    begin_with(0);
}

static void end(void)
{
    steps_destroy(e.steps);
    for (size_t i = 0; i < b.n_calls; i++) {
        cox_buf_fini(&b.calls[i].path);
        cox_buf_fini(&b.calls[i].tenant);
        cox_buf_fini(&b.calls[i].received);
        cox_buf_fini(&b.calls[i].hash);
    }
    for (size_t i = 0; i < r.n_calls; i++)
        if (!r.calls[i].over) /* as router_destroy does */
            finish(i, ROUTER_CANCELLED, NULL);
    event_base_free(e.base);
    for (size_t i = 0; i < r.n_calls; i++) {
        cox_buf_fini(&r.calls[i].body);
        cox_buf_fini(&r.calls[i].tenant);
        cox_buf_fini(&r.calls[i].program);
    }
    cox_buf_fini(&r.ended);
    cox_buf_fini(&r.expected);
    cox_buf_fini(&e.output);
    cox_buf_fini(&e.code);
    cox_buf_fini(&e.message);
    cox_buf_fini(&e.log);
    cox_buf_fini(&e.blob);
    cox_buf_fini(&owed);
}

static void expect_failure(enum cox_code code, const char *words)
{
    assert_string_equal(cox_buf_cstr(&e.code), cox_code_text(code));
    if (!strstr(cox_buf_cstr(&e.message), words))
        fail_msg("\"%s\" does not say \"%s\"", cox_buf_cstr(&e.message), words);
    assert_int_equal(e.output.len, 0);
}

#endif
