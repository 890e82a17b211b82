/* Words to a task: pause, resume, signal, approve or reject, message, retry, fork. Each is an input of the
 * engine, whose answer leaves when it is durable. What the engine does not have is looked up in the archive:
 * to say that it has ended, or because an ended task is what a retry or a fork begins from. */
#include "internal.h"

#include "../sha256.h"

#include "cox/base/alloc.h"
#include "cox/json.h"

#include <string.h>

enum word_kind { WORD_PAUSE, WORD_RESUME, WORD_SIGNAL, WORD_APPROVE, WORD_MESSAGE, WORD_RETRY, WORD_FORK };

struct word {
    struct cox_op op;
    struct cox_requested requested;
    struct cox_fetch archive;
    struct cox_work work; /* FORK with other inputs: the image */
    struct cox_arena arena;
    enum word_kind kind;
    cox_task_id task;
    struct cox_input in;
    struct cox_buf archived; /* RETRY, FORK */
    struct cox_slice inputs_json;
    struct cox_slice image; /* the one to change */
    struct cox_buf new_image;
    struct cox_violations violations;
    bool rebound, asked_archive;
    struct cox_list in_reviving; /* from the question to the archive on */
};

static void word_free(struct word *w)
{
    cox_list_remove(&w->in_reviving);
    cox_op_fini(&w->op);
    cox_arena_fini(&w->arena);
    cox_buf_fini(&w->archived);
    cox_buf_fini(&w->new_image);
    cox_violations_fini(&w->violations);
    cox_free(w);
}

/* The caller has left; the engine's answer still comes to us. */
static void on_gone(struct cox_op *op)
{
    (void)op;
}

static struct cox_slice keep(struct word *w, const char *text)
{
    struct cox_slice s = cox_slice_str(text);

    return cox_slice(cox_arena_dup(&w->arena, s.data, s.len), s.len);
}

/* ---- answers ---- */

static void reply_well(struct word *w, cox_task_id task)
{
    static const ProtobufCMessageDescriptor *const answers[] = {
        [WORD_PAUSE] = &coxswain__v1__pause_task_response__descriptor,
        [WORD_RESUME] = &coxswain__v1__resume_task_response__descriptor,
        [WORD_SIGNAL] = &coxswain__v1__signal_task_response__descriptor,
        [WORD_APPROVE] = &coxswain__v1__approve_step_response__descriptor,
        [WORD_MESSAGE] = &coxswain__v1__message_task_response__descriptor,
        [WORD_RETRY] = &coxswain__v1__retry_task_response__descriptor,
    };

    if (w->kind == WORD_FORK) {
        Coxswain__V1__ForkTaskResponse m = COXSWAIN__V1__FORK_TASK_RESPONSE__INIT;
        m.id = cox_show_id(&w->arena, task);
        cox_op_reply(&w->op, &m.base);
        return;
    }
    ProtobufCMessage *m = cox_arena_alloc(&w->arena, answers[w->kind]->sizeof_message);

    protobuf_c_message_init(answers[w->kind], m);
    cox_op_reply(&w->op, m);
}

static void fail(struct word *w, const struct cox_act_reply *reply)
{
    struct cox_rpc_error error = { .status = cox_rpc_status_from_err(reply->err), .message = reply->message };

    switch (reply->err) {
    case COX_ERR_INVALID: /* the request is well formed; the task is not in a state for it */
        error.status = COX_RPC_FAILED_PRECONDITION;
        error.reason = "NOT_NOW";
        break;
    case COX_ERR_NOT_FOUND:
        error.reason = "NO_STEP";
        break;
    case COX_ERR_DENIED:
        error.reason = "NOT_AN_APPROVER";
        break;
    case COX_ERR_EXISTS:
        error.reason = "KEY_TAKEN";
        break;
    case COX_ERR_FULL:
        error.reason = "OVERLOADED";
        error.retry_delay_ms = reply->retry_ms > 0 ? reply->retry_ms : 1000;
        break;
    default:
        error.reason = "REFUSED";
        break;
    }
    if (!error.message)
        error.message = cox_err_text(reply->err);
    cox_op_fail(&w->op, &error);
}

static void archive_ask(struct word *w);

static void on_reply(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct word *w = COX_CONTAINER_OF(q, struct word, requested);

    if (reply->err == COX_ERR_NOT_FOUND && reply->task == 0 && !w->asked_archive) {
        archive_ask(w); /* it has ended, or never was */
        return;
    }
    if (reply->err == COX_OK)
        reply_well(w, reply->task);
    else
        fail(w, reply);
    word_free(w);
}

/* ---- the archive ---- */

static void feed(struct word *w)
{
    w->in.u.of.request = (uintptr_t)&w->requested; /* every one of these inputs begins with it */
    cox_driver_step(w->op.api->driver, &w->in);
}

static void rebind_start(struct word *w, const struct cox_task *t);

static void has_ended(struct word *w, const struct cox_task *t)
{
    struct cox_task_view v;
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_view(t, &v);
    cox_task_id_format(w->task, id);
    cox_op_failf(&w->op, COX_RPC_FAILED_PRECONDITION, "ENDED", "task %s has ended: %s", id,
                 cox_task_status_text(v.status));
    word_free(w);
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct word *w = COX_CONTAINER_OF(f, struct word, archive);
    struct cox_task *t;
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(w->task, id);
    if (!err && cox_api_deleting(w->op.api, w->task))
        err = COX_ERR_NOT_FOUND; /* the answer overtook the deletion */
    if (!err && (err = cox_api_thaw(&w->op, bytes, &t)) == COX_OK) {
        w->archived = *bytes;
        memset(bytes, 0, sizeof(*bytes));
        if (w->kind == WORD_RETRY) {
            w->in.u.retry.archived = cox_buf_slice(&w->archived);
            feed(w);
        } else if (w->kind == WORD_FORK) {
            w->in.u.fork.archived = cox_buf_slice(&w->archived);
            rebind_start(w, t);
        } else {
            has_ended(w, t);
        }
        cox_task_free(t);
        return;
    }
    if (err == COX_ERR_NOT_FOUND)
        cox_op_failf(&w->op, COX_RPC_NOT_FOUND, "NO_TASK", "no task %s", id);
    else
        cox_op_failf(&w->op, COX_RPC_DATA_LOSS, "TASK_UNREADABLE", "task %s cannot be read: %s", id,
                     cox_err_text(err));
    word_free(w);
}

bool cox_api_reviving(const struct cox_api *a, cox_task_id task)
{
    COX_LIST_FOR_EACH (it, &a->reviving)
        if (COX_CONTAINER_OF(it, struct word, in_reviving)->task == task)
            return true;
    return false;
}

void cox_api_put_in_use(const struct cox_api *a, struct cox_buf *out)
{
    COX_LIST_FOR_EACH (it, &a->reviving)
        cox_put_u64(out, COX_CONTAINER_OF(it, struct word, in_reviving)->task);
}

static void archive_ask(struct word *w)
{
    w->asked_archive = true;
    if (w->kind == WORD_RETRY || w->kind == WORD_FORK)
        cox_list_push_back(&w->op.api->reviving, &w->in_reviving);
    w->archive = (struct cox_fetch){ .task = w->task, .fn = on_archive };
    cox_driver_fetch(w->op.api->driver, &w->archive);
}

/* ---- fork with other inputs ---- */

static void rebind_work(struct cox_work *work)
{
    struct word *w = COX_CONTAINER_OF(work, struct word, work);
    struct cox_image image;

    w->rebound = cox_image_open(&image, w->image) == COX_OK &&
                 cox_image_rebind(&image, w->inputs_json, &w->new_image, &w->violations) == COX_OK;
}

static void rebind_done(struct cox_work *work)
{
    struct word *w = COX_CONTAINER_OF(work, struct word, work);

    if (!w->rebound) {
        const struct cox_violation *v = &w->violations.items[0];
        struct cox_rpc_violation one = { w->violations.n > 0 ? v->path : "inputs_json",
                                         w->violations.n > 0 ? v->message : "cannot be used" };
        cox_op_fail(&w->op, &(struct cox_rpc_error){ .status = COX_RPC_INVALID_ARGUMENT,
                                                     .reason = "INVALID_INPUTS",
                                                     .message = one.description,
                                                     .violations = &one,
                                                     .n_violations = 1 });
        word_free(w);
        return;
    }
    w->in.u.fork.image = cox_buf_slice(&w->new_image);
    feed(w);
}

static void rebind_start(struct word *w, const struct cox_task *t)
{
    struct cox_task_view v;

    if (w->inputs_json.len == 0) {
        feed(w);
        return;
    }
    cox_task_view(t, &v);
    w->image = v.image->bytes;
    w->image.data = cox_arena_dup(&w->arena, w->image.data, w->image.len);
    w->work.work = rebind_work;
    w->work.done = rebind_done;
    w->work.len = w->image.len;
    cox_compile_submit(cox_driver_compile(w->op.api->driver), &w->work);
}

/* A sleeping task is woken first: its image is needed. */
static void on_awake(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct word *w = COX_CONTAINER_OF(q, struct word, requested);
    const struct cox_task *t = cox_api_find(&w->op, w->task);

    (void)reply;
    w->requested.on_reply = on_reply;
    if (t)
        rebind_start(w, t);
    else
        archive_ask(w);
}

static void fork_start(struct word *w)
{
    const struct cox_task *t = cox_api_find(&w->op, w->task);

    if (t) {
        rebind_start(w, t);
    } else {
        w->requested.on_reply = on_awake;
        if (cox_api_wake(&w->op, w->task, &w->requested))
            return;
        w->requested.on_reply = on_reply;
        archive_ask(w);
    }
}

/* ---- the calls ---- */

/* What the engine has not, or is not theirs, only the archive may have. */
static void give(struct word *w)
{
    if (cox_api_has(&w->op, w->task))
        feed(w);
    else
        archive_ask(w);
}

static struct word *word_create(struct cox_api *a, struct cox_rpc_call *call, const char *id,
                                enum word_kind kind)
{
    cox_task_id task = cox_api_task_id(call, id);

    if (!task)
        return NULL;
    struct word *w = COX_NEW(struct word);

    cox_op_init(&w->op, a, call);
    w->op.on_gone = on_gone;
    w->requested.on_reply = on_reply;
    w->kind = kind;
    w->task = task;
    cox_list_init(&w->in_reviving);
    return w;
}

static void task_word(struct cox_api *a, struct cox_rpc_call *call, const char *id, enum word_kind kind,
                      enum cox_input_kind input)
{
    struct word *w = word_create(a, call, id, kind);

    if (!w)
        return;
    w->in.kind = input;
    w->in.u.of.task = w->task;
    give(w);
}

void cox_api_pause_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    task_word(user, call, ((const Coxswain__V1__PauseTaskRequest *)message)->id, WORD_PAUSE, COX_IN_PAUSE);
}

void cox_api_resume_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    task_word(user, call, ((const Coxswain__V1__ResumeTaskRequest *)message)->id, WORD_RESUME, COX_IN_RESUME);
}

void cox_api_retry_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__RetryTaskRequest *m = (const Coxswain__V1__RetryTaskRequest *)message;

    if (cox_api_refuse(user, call))
        return;
    struct word *w = word_create(user, call, m->id, WORD_RETRY);

    if (!w)
        return;
    w->in.kind = COX_IN_RETRY;
    w->in.u.retry.task = w->task;
    give(w); /* it says why not, or the archive has it */
}

static bool json_ok(struct cox_rpc_call *call, const char *field, const char *text, bool object,
                    size_t len_max)
{
    struct cox_slice json = cox_json_trim(cox_slice_str(text));
    struct cox_json_place place;
    bool ok = json.len == 0 ||
              (cox_json_check(json, &place) == COX_OK && (!object || cox_json_kind(json) == COX_JSON_OBJECT));

    if (!ok)
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "INVALID_JSON", "%s: expected %s", field,
                      object ? "a JSON object" : "JSON");
    else if (json.len > len_max)
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "TOO_LONG", "%s: %zu bytes, at most %zu", field,
                      json.len, len_max);
    return ok && json.len <= len_max;
}

void cox_api_signal_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__SignalTaskRequest *m = (const Coxswain__V1__SignalTaskRequest *)message;

    if (*m->name == '\0' || strlen(m->name) > COX_NAME_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "INVALID_NAME",
                      "name: expected 1 to %u bytes, found %zu", COX_NAME_LEN_MAX, strlen(m->name));
        return;
    }
    if (!json_ok(call, "payload_json", m->payload_json, false, COX_SIGNAL_LEN_MAX))
        return;
    struct word *w = word_create(user, call, m->id, WORD_SIGNAL);

    if (!w)
        return;
    struct cox_payload *p = &w->in.u.signal.payload;
    struct cox_slice json = keep(w, *m->payload_json ? m->payload_json : "null");

    w->in.kind = COX_IN_SIGNAL;
    w->in.u.signal.task = w->task;
    w->in.u.signal.name = keep(w, m->name);
    *p = (struct cox_payload){ .kind = COX_PAYLOAD_INLINE, .bytes = json, .size = json.len };
    if (json.len > COX_INLINE_PAYLOAD_LEN_MAX) {
        p->kind = COX_PAYLOAD_STORED;
        p->hash = cox_sha256(json);
    }
    give(w);
}

void cox_api_approve_step(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ApproveStepRequest *m = (const Coxswain__V1__ApproveStepRequest *)message;

    if (*m->step == '\0') {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "NO_STEP", "step: empty; expected the approval's name");
        return;
    }
    if (strlen(m->comment) > COX_ERROR_MESSAGE_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "TOO_LONG", "comment: %zu bytes, at most %u",
                      strlen(m->comment), COX_ERROR_MESSAGE_LEN_MAX);
        return;
    }
    struct word *w = word_create(user, call, m->id, WORD_APPROVE);

    if (!w)
        return;
    w->in.kind = COX_IN_APPROVE;
    w->in.u.approve.task = w->task;
    w->in.u.approve.step = keep(w, m->step);
    w->in.u.approve.approve = m->approve;
    w->in.u.approve.comment = keep(w, m->comment);
    const struct cox_caller *caller = cox_access_caller(call);
    if (caller->roles) {
        w->in.u.approve.by = keep(w, caller->name);
        w->in.u.approve.roles = keep(w, caller->roles);
    }
    give(w);
}

void cox_api_message_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__MessageTaskRequest *m = (const Coxswain__V1__MessageTaskRequest *)message;

    if (*m->text == '\0' || strlen(m->text) > COX_AGENT_WORD_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, *m->text ? "TOO_LONG" : "NO_TEXT",
                      "text: expected 1 to %u bytes, found %zu", COX_AGENT_WORD_LEN_MAX, strlen(m->text));
        return;
    }
    struct word *w = word_create(user, call, m->id, WORD_MESSAGE);

    if (!w)
        return;
    w->in.kind = COX_IN_MESSAGE;
    w->in.u.message.task = w->task;
    w->in.u.message.step = keep(w, m->step);
    w->in.u.message.text = keep(w, m->text);
    give(w);
}

/* Of what is asked, so that the same key means the same fork. */
static struct cox_hash fork_hash(const Coxswain__V1__ForkTaskRequest *m)
{
    struct cox_sha256 *s = cox_sha256_create();

    cox_sha256_add(s, cox_slice_str("fork"));
    cox_sha256_add(s, cox_slice_str(m->id));
    cox_sha256_add(s, cox_slice_str(m->at));
    cox_sha256_add(s, cox_slice_str(m->inputs_json));
    return cox_sha256_destroy(s);
}

void cox_api_fork_task(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ForkTaskRequest *m = (const Coxswain__V1__ForkTaskRequest *)message;

    if (strlen(m->key) > COX_IDEMPOTENCY_KEY_LEN_MAX) {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "TOO_LONG", "key: %zu bytes, at most %u",
                      strlen(m->key), COX_IDEMPOTENCY_KEY_LEN_MAX);
        return;
    }
    if (!json_ok(call, "inputs_json", m->inputs_json, true, COX_DOCUMENT_LEN_MAX) ||
        cox_api_refuse(user, call))
        return;
    struct word *w = word_create(user, call, m->id, WORD_FORK);

    if (!w)
        return;
    w->inputs_json = keep(w, m->inputs_json);
    w->in.kind = COX_IN_FORK;
    w->in.u.fork.from = w->task;
    w->in.u.fork.at = keep(w, m->at);
    w->in.u.fork.tenant = cox_slice_str(w->op.tenant);
    w->in.u.fork.key = keep(w, m->key);
    w->in.u.fork.document = fork_hash(m);
    fork_start(w);
}
