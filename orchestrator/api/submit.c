/* SubmitTask and SubmitTasks: compile, hand to the engine, answer when durable.
 *
 * A small document is compiled where it is, because a hop to the compile thread and back costs more than
 * that; everything else goes there in one piece of work a call, with all it refers to copied.
 */
#include "internal.h"

#include "../sha256.h"

#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HERE_LEN_MAX 4096u
#define RETRY_MS 1000

typedef Coxswain__V1__SubmitTaskRequest Request;

struct submit;

/* One task of a call. */
struct part {
    struct cox_requested requested;
    struct submit *submit;
    struct cox_task_source source;
    struct cox_slice key;
    bool dry_run;
    enum cox_err err; /* of compiling, later of the engine */
    struct cox_buf image;
    struct cox_hash document;
    struct cox_violations violations;
    char *refused; /* before compiling: what is wrong with the request, in the arena */
    cox_task_id task;
    bool existed;
    int64_t retry_ms;
    const char *message; /* of the engine; static, or in the arena */
    const char *place;   /* static */
};

struct submit {
    struct cox_op op;
    struct cox_work work;
    struct cox_arena arena;
    bool batch;
    size_t n_left;
    size_t n_parts;
    struct part parts[];
};

static void submit_free(struct submit *s)
{
    for (size_t i = 0; i < s->n_parts; i++) {
        cox_buf_fini(&s->parts[i].image);
        cox_violations_fini(&s->parts[i].violations);
    }
    cox_op_fini(&s->op);
    cox_arena_fini(&s->arena);
    cox_free(s);
}

/* ---- answers ---- */

static enum cox_rpc_status status_of(const struct part *p)
{
    if (p->refused)
        return COX_RPC_INVALID_ARGUMENT;
    return cox_rpc_status_from_err(p->err);
}

static const char *reason_of(const struct part *p)
{
    switch (p->err) {
    case COX_ERR_EXISTS:
        return "KEY_TAKEN";
    case COX_ERR_FULL:
        return "OVERLOADED";
    default:
        return "INVALID_TASK";
    }
}

static void put_message(struct cox_buf *b, const struct part *p)
{
    char id[COX_TASK_ID_TEXT_MAX];

    if (p->refused) {
        cox_buf_append_str(b, p->refused);
    } else if (p->violations.n > 0) {
        cox_put_violations(b, &p->violations);
    } else if (p->err == COX_ERR_EXISTS && p->task) {
        cox_task_id_format(p->task, id);
        cox_buf_printf(b, "key: taken by another document, task %s", id);
    } else {
        if (p->place)
            cox_buf_printf(b, "%s: ", p->place);
        cox_buf_append_str(b, p->message ? p->message : cox_err_text(p->err));
    }
}

static void fail_one(struct submit *s, const struct part *p)
{
    struct cox_rpc_violation violation = { p->place, p->message };
    struct cox_buf message = { 0 };

    if (!p->refused && p->violations.n > 0) {
        cox_op_fail_violations(&s->op, &p->violations);
        return;
    }
    put_message(&message, p);
    cox_op_fail(&s->op, &(struct cox_rpc_error){ .status = status_of(p),
                                                 .message = cox_buf_cstr(&message),
                                                 .reason = reason_of(p),
                                                 .retry_delay_ms = p->retry_ms,
                                                 .violations = &violation,
                                                 .n_violations = p->place ? 1 : 0 });
    cox_buf_fini(&message);
}

static void answer_one(struct submit *s)
{
    const struct part *p = &s->parts[0];
    Coxswain__V1__SubmitTaskResponse m = COXSWAIN__V1__SUBMIT_TASK_RESPONSE__INIT;
    char id[COX_TASK_ID_TEXT_MAX];

    if (p->refused || p->err) {
        fail_one(s, p);
        return;
    }
    if (p->task) {
        cox_task_id_format(p->task, id);
        m.id = id;
    }
    m.existed = p->existed;
    cox_op_reply(&s->op, &m.base);
}

static void answer_many(struct submit *s)
{
    Coxswain__V1__SubmitTasksResponse m = COXSWAIN__V1__SUBMIT_TASKS_RESPONSE__INIT;
    struct cox_buf text = { 0 };

    m.results = cox_arena_alloc(&s->arena, (s->n_parts + 1) * sizeof(*m.results));
    for (; m.n_results < s->n_parts; m.n_results++) {
        const struct part *p = &s->parts[m.n_results];
        Coxswain__V1__SubmitTasksResponse__Result *r = cox_arena_alloc(&s->arena, sizeof(*r));
        coxswain__v1__submit_tasks_response__result__init(r);
        m.results[m.n_results] = r;
        if (p->refused || p->err) {
            cox_buf_clear(&text);
            put_message(&text, p);
            r->code = (int32_t)status_of(p);
            r->message = cox_show_text(&s->arena, cox_buf_slice(&text));
        } else if (p->task) {
            r->id = cox_show_id(&s->arena, p->task);
            r->existed = p->existed;
        }
    }
    cox_buf_fini(&text);
    cox_op_reply(&s->op, &m.base);
}

static void part_done(struct submit *s)
{
    if (--s->n_left > 0)
        return;
    if (s->batch)
        answer_many(s);
    else
        answer_one(s);
    submit_free(s);
}

static void on_reply(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct part *p = COX_CONTAINER_OF(q, struct part, requested);

    p->err = reply->err;
    p->task = reply->task;
    p->existed = reply->existed;
    p->retry_ms = reply->err == COX_ERR_FULL && reply->retry_ms == 0 ? RETRY_MS : reply->retry_ms;
    if (reply->message)
        p->message = cox_show_text(&p->submit->arena, cox_slice_str(reply->message));
    p->place = reply->place;
    part_done(p->submit);
}

/* ---- compiling ---- */

/* Of document, inputs and labels: what must be the same when a key is used again. */
static struct cox_hash document_hash(const struct cox_task_source *source)
{
    struct cox_sha256 *sha = cox_sha256_create();

    cox_sha256_add(sha, source->document);
    cox_sha256_add(sha, source->inputs_json);
    for (size_t i = 0; i < source->n_labels; i++) {
        cox_sha256_add(sha, source->labels[i].name);
        cox_sha256_add(sha, source->labels[i].value);
    }
    return cox_sha256_destroy(sha);
}

static void part_compile(struct part *p)
{
    if (p->refused)
        return;
    p->err = cox_task_compile(&p->source, &p->image, &p->violations);
    if (!p->err && p->key.len > 0)
        p->document = document_hash(&p->source);
}

static void work(struct cox_work *w)
{
    struct submit *s = COX_CONTAINER_OF(w, struct submit, work);

    for (size_t i = 0; i < s->n_parts; i++)
        part_compile(&s->parts[i]);
}

static void part_feed(struct part *p)
{
    struct cox_input in = { .kind = COX_IN_SUBMIT };

    if (p->refused || p->err || p->dry_run) {
        part_done(p->submit);
        return;
    }
    in.u.submit.request = (uintptr_t)&p->requested;
    in.u.submit.tenant = cox_slice_str(p->submit->op.tenant);
    in.u.submit.key = p->key;
    in.u.submit.document = p->document;
    in.u.submit.image = cox_buf_slice(&p->image);
    cox_driver_step(p->submit->op.api->driver, &in);
    cox_buf_fini(&p->image);
}

static void feed(struct submit *s)
{
    size_t n = s->n_parts;

    s->n_left = n + 1; /* ours, so that it stays until the last is fed */
    for (size_t i = 0; i < n; i++)
        part_feed(&s->parts[i]);
    part_done(s);
}

static void done(struct cox_work *w)
{
    feed(COX_CONTAINER_OF(w, struct submit, work));
}

/* ---- requests ---- */

static int by_name(const void *a, const void *b)
{
    const struct cox_label *x = a, *y = b;

    return cox_slice_cmp(x->name, y->name);
}

static const char *check(const Request *m)
{
    if (m->document.len == 0)
        return "document: empty; expected a task in JSON";
    if (m->document.len > COX_DOCUMENT_LEN_MAX)
        return "document: more than 4 MiB";
    if (strlen(m->inputs_json) > COX_DOCUMENT_LEN_MAX)
        return "inputs_json: more than 4 MiB";
    if (strlen(m->key) > COX_IDEMPOTENCY_KEY_LEN_MAX)
        return "key: more than 255 bytes";
    if (m->n_labels > COX_LABELS_MAX)
        return "labels: more than 64";
    for (size_t i = 0; i < m->n_labels; i++) {
        if (*m->labels[i]->key == '\0')
            return "labels: a label without a name";
        if (strlen(m->labels[i]->key) > COX_LABEL_LEN_MAX || strlen(m->labels[i]->value) > COX_LABEL_LEN_MAX)
            return "labels: a name or value of more than 256 bytes";
    }
    return NULL;
}

static struct cox_slice keep(struct cox_arena *a, struct cox_slice s, bool copy)
{
    return copy ? cox_slice(cox_show_text(a, s), s.len) : s;
}

/* `copy`: the message dies before it is compiled. */
static void part_init(struct submit *s, struct part *p, const Request *m, bool copy)
{
    struct cox_arena *a = &s->arena;

    p->submit = s;
    p->requested.on_reply = on_reply;
    p->dry_run = m->dry_run;
    p->refused = (char *)(uintptr_t)check(m);
    if (p->refused)
        return;
    p->key = keep(a, cox_slice_str(m->key), copy);
    p->source.document = keep(a, cox_slice(m->document.data, m->document.len), copy);
    p->source.inputs_json = keep(a, cox_slice_str(m->inputs_json), copy);
    s->work.len += m->document.len + p->source.inputs_json.len;
    if (m->n_labels == 0)
        return;
    struct cox_label *labels = cox_arena_alloc(a, m->n_labels * sizeof(*labels));

    for (size_t i = 0; i < m->n_labels; i++)
        labels[i] = (struct cox_label){ keep(a, cox_slice_str(m->labels[i]->key), copy),
                                        keep(a, cox_slice_str(m->labels[i]->value), copy) };
    qsort(labels, m->n_labels, sizeof(*labels), by_name);
    p->source.labels = labels;
    p->source.n_labels = m->n_labels;
}

/* The caller has left: what was handed over goes on, its answers are for nobody. */
static void on_gone(struct cox_op *op)
{
    (void)op;
}

static struct submit *submit_create(struct cox_api *a, struct cox_rpc_call *call, size_t n_parts)
{
    struct submit *s = cox_calloc(1, sizeof(*s) + n_parts * sizeof(s->parts[0]));

    cox_op_init(&s->op, a, call);
    s->op.on_gone = on_gone;
    s->n_parts = n_parts;
    s->work.work = work;
    s->work.done = done;
    return s;
}

static void refuse_short(struct cox_rpc_call *call, enum cox_shortage shortage)
{
    bool disk = shortage == COX_SHORTAGE_DISK;

    cox_rpc_fail(call,
                 &(struct cox_rpc_error){
                     .status = COX_RPC_RESOURCE_EXHAUSTED,
                     .reason = disk ? "DISK_FULL" : "MEMORY_FULL",
                     .message = disk ? "less than --min-free is left on the orchestrator's disk; running "
                                       "tasks go on"
                                     : "more than 90 % of the orchestrator's --memory-limit is used; "
                                       "running tasks go on",
                     .retry_delay_ms = COX_API_SHORTAGE_RETRY_MS });
}

bool cox_api_refuse(struct cox_api *a, struct cox_rpc_call *call)
{
    enum cox_shortage shortage = cox_driver_shortage(a->driver);
    enum cox_refusal why;

    if (a->draining) {
        why = COX_REFUSAL_DRAINING;
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                    .reason = "DRAINING",
                                                    .message = "the orchestrator is stopping",
                                                    .retry_delay_ms = RETRY_MS });
    } else if (cox_compile_full(cox_driver_compile(a->driver))) {
        why = COX_REFUSAL_COMPILING;
        cox_rpc_fail(call, &(struct cox_rpc_error){ .status = COX_RPC_RESOURCE_EXHAUSTED,
                                                    .reason = "OVERLOADED",
                                                    .message = "too many documents wait to be compiled",
                                                    .retry_delay_ms = RETRY_MS });
    } else if (shortage) {
        why = shortage == COX_SHORTAGE_DISK ? COX_REFUSAL_DISK : COX_REFUSAL_MEMORY;
        refuse_short(call, shortage);
    } else {
        return false;
    }
    a->refused[why]++;
    return true;
}

void cox_api_submit_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Request *m = (const Request *)message;
    bool here = m->document.len <= HERE_LEN_MAX && strlen(m->inputs_json) <= HERE_LEN_MAX;

    if (cox_api_refuse(user, call))
        return;
    struct submit *s = submit_create(user, call, 1);

    part_init(s, &s->parts[0], m, !here);
    if (here) {
        part_compile(&s->parts[0]);
        feed(s);
    } else {
        cox_compile_submit(cox_driver_compile(s->op.api->driver), &s->work);
    }
}

void cox_api_submit_tasks(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__SubmitTasksRequest *m = (const Coxswain__V1__SubmitTasksRequest *)message;

    if (m->n_tasks > COX_BATCH_TASKS_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "TOO_MANY", "tasks: %zu, at most %u", m->n_tasks,
                      COX_BATCH_TASKS_MAX);
        return;
    }
    if (cox_api_refuse(user, call))
        return;
    struct submit *s = submit_create(user, call, m->n_tasks);

    s->batch = true;
    for (size_t i = 0; i < m->n_tasks; i++)
        part_init(s, &s->parts[i], m->tasks[i], true);
    cox_compile_submit(cox_driver_compile(s->op.api->driver), &s->work);
}
