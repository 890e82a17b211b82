/* GetLogs. A running attempt's log lives on its worker and is relayed piece by piece; of an ended one the
 * tails in the step's recorded output are what is left. Following goes from attempt to attempt until the step
 * ends.
 *
 * Pieces are relayed as they come (they name their attempt, so they need not wait for the log of records). A
 * reader that is too slow loses pieces and is told so by `reset`.
 */
#include "internal.h"

#include "cox/attach.h"
#include "cox/base/alloc.h"
#include "cox/engine/agent.h"
#include "cox/engine/batch.h"
#include "cox/json.h"

#include <string.h>

#define SLOW_LEN ((size_t)1 << 20)
#define QUIET_NS 200000000LL /* not following: what a worker has sent by then is what it had; */
#define LOOK_NS 2000000000LL /* and one that never falls quiet is looked at for so long */

struct logs {
    struct cox_op op;
    struct cox_watcher watcher;
    struct cox_log_reader reader;
    struct cox_hold hold;
    struct cox_requested awake;
    struct cox_fetch fetch; /* of the task from the archive, or of the recorded output */
    struct cox_arena arena; /* the step's name; the recorded output until it is sent */
    char *step_name;
    const char *asked_name; /* the same, but for what is within an ended frame */
    cox_task_id task;
    uint32_t wanted;        /* attempt; 0: the newest */
    uint32_t attempt;       /* now or last shown */
    uint32_t relayed;       /* attempt of which pieces came, or whose record was shown */
    uint32_t asked;         /* attempt whose worker was asked, */
    uint32_t asked_session; /* and on which stream: once is enough */
    bool follow;
    bool by_model; /* the attempt was a call of a model */
    int64_t look_until_ns;
    bool lost;                 /* pieces: say so with the next one */
    bool busy;                 /* the hold or the fetch is under way */
    bool over;                 /* once `busy` ends */
    struct cox_payload output; /* to be shown */
};

static struct logs *logs_of(struct cox_op *op)
{
    return COX_CONTAINER_OF(op, struct logs, op);
}

static void advance(struct logs *l);

static void free_if_over(struct logs *l)
{
    if (l->op.call || l->busy)
        return;
    cox_fleet_log_stop(l->op.api->fleet, &l->reader);
    cox_watcher_stop(l->op.api, &l->watcher);
    cox_op_fini(&l->op);
    cox_arena_fini(&l->arena);
    cox_free(l);
}

static void end(struct logs *l)
{
    cox_op_finish(&l->op);
    free_if_over(l);
}

static void send_piece(struct logs *l, Coxswain__V1__LogStream stream, const void *data, size_t len,
                       bool reset)
{
    Coxswain__V1__GetLogsResponse m = COXSWAIN__V1__GET_LOGS_RESPONSE__INIT;

    if (!l->op.call || (len == 0 && !reset))
        return;
    m.attempt = l->attempt;
    m.stream = stream;
    m.data.data = (uint8_t *)(uintptr_t)data; /* only read */
    m.data.len = len;
    m.reset = reset || l->lost;
    l->lost = cox_rpc_outbox_len(l->op.call) > SLOW_LEN || cox_rpc_send(l->op.call, &m.base) == COX_ERR_FULL;
}

/* ---- recorded output ---- */

static void send_text(struct logs *l, struct cox_slice output, const char *name,
                      Coxswain__V1__LogStream stream)
{
    struct cox_buf text = { 0 };
    struct cox_slice value;

    if (cox_json_member(output, name, &value) && cox_json_kind(value) == COX_JSON_STRING) {
        cox_json_unquote(&text, value);
        send_piece(l, stream, text.data, text.len, false);
    }
    cox_buf_fini(&text);
}

/* What was checked against a schema is itself the output. */
static void send_answer(struct logs *l, struct cox_slice output)
{
    struct cox_slice other;

    if (cox_json_member(output, "finish_reason", &other) && cox_json_member(output, "usage", &other))
        send_text(l, output, "content", COXSWAIN__V1__LOG_STREAM__LOG_STREAM_TOKENS);
    else
        send_piece(l, COXSWAIN__V1__LOG_STREAM__LOG_STREAM_TOKENS, output.data, output.len, false);
}

static void send_recorded(struct logs *l, struct cox_slice output)
{
    if (l->by_model) {
        send_answer(l, output);
        return;
    }
    send_text(l, output, "stdout", COXSWAIN__V1__LOG_STREAM__LOG_STREAM_STDOUT);
    send_text(l, output, "stderr", COXSWAIN__V1__LOG_STREAM__LOG_STREAM_STDERR);
}

static void recorded_done(struct logs *l)
{
    l->busy = false;
    l->relayed = l->attempt;
    if (l->over)
        end(l);
    else if (l->op.call)
        advance(l);
    else
        free_if_over(l);
}

static void on_output(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct logs *l = COX_CONTAINER_OF(f, struct logs, fetch);

    if (!err)
        send_recorded(l, cox_buf_slice(bytes));
    recorded_done(l);
}

static void on_durable(struct cox_hold *h)
{
    struct logs *l = COX_CONTAINER_OF(h, struct logs, hold);

    if (l->output.kind == COX_PAYLOAD_STORED && l->op.call) {
        l->fetch = (struct cox_fetch){ .hash = l->output.hash,
                                       .space = cox_space_of(cox_slice_str(l->op.tenant)),
                                       .fn = on_output };
        cox_driver_fetch(l->op.api->driver, &l->fetch);
        return;
    }
    if (l->output.kind == COX_PAYLOAD_INLINE)
        send_recorded(l, l->output.bytes);
    recorded_done(l);
}

/* `over`: there is nothing to wait for after it. */
static void show_recorded(struct logs *l, const struct cox_step_view *step, bool over, bool durable)
{
    l->output = step->output;
    l->output.bytes = cox_slice(cox_show_text(&l->arena, step->output.bytes), step->output.bytes.len);
    l->over = over;
    l->busy = true;
    if (durable)
        on_durable(&l->hold);
    else
        cox_driver_hold(l->op.api->driver, &l->hold, on_durable);
}

/* ---- live pieces ---- */

static void wait_for_quiet(struct logs *l)
{
    int64_t until_ns = cox_driver_now(l->op.api->driver).mono_ns + QUIET_NS;

    cox_op_wait(&l->op, until_ns < l->look_until_ns ? until_ns : l->look_until_ns);
}

static void on_chunk(struct cox_log_reader *r, const Coxswain__V1__LogChunk *chunk)
{
    struct logs *l = COX_CONTAINER_OF(r, struct logs, reader);

    if (!chunk) { /* the worker is away; what it had recorded comes with the result */
        l->lost = true;
        if (!l->follow)
            end(l);
        return;
    }
    if (chunk->data.len > 0)
        l->relayed = l->attempt;
    send_piece(l, chunk->stream, chunk->data.data, chunk->data.len, chunk->reset);
    if (!chunk->end) {
        if (!l->follow)
            wait_for_quiet(l);
        return;
    }
    if (l->follow)
        advance(l);
    else
        end(l);
}

static void relay(struct logs *l, const struct cox_attempt_view *attempt)
{
    struct cox_api *a = l->op.api;
    struct cox_slice tenant;

    if (l->reader.session)
        return;
    uint32_t session = cox_engine_attempt_session(cox_driver_engine(a->driver), attempt->ref, &tenant);

    if (session && l->asked == attempt->number && l->asked_session == session)
        return;
    l->asked = attempt->number;
    l->asked_session = session;
    l->reader.ref = attempt->ref;
    l->reader.on_chunk = on_chunk;
    l->look_until_ns = cox_driver_now(a->driver).mono_ns + LOOK_NS;
    bool started = session && cox_fleet_log_start(a->fleet, session, &l->reader);

    if (l->follow)
        return;
    if (started) {
        wait_for_quiet(l);
    } else {
        end(l);
    }
}

/* ---- from state to state ---- */

/* The one asked for, or the newest. Their numbers rise, but may have gaps. */
static bool find_attempt(const struct logs *l, const struct cox_engine *e, const struct cox_task *t,
                         uint32_t index, uint32_t n_attempts, struct cox_attempt_view *ret, bool *ret_newest)
{
    for (uint32_t i = n_attempts; i-- > 0;) {
        cox_attempt_view(e, t, index, i, ret);
        *ret_newest = i == n_attempts - 1;
        if (!l->wanted || ret->number == l->wanted)
            return true;
    }
    return false;
}

/* Only the output of a step's last attempt is recorded. */
static void no_more(struct logs *l, bool newest)
{
    if (!newest && l->relayed != l->attempt)
        cox_op_failf(&l->op, COX_RPC_NOT_FOUND, "LOG_GONE",
                     "the log of attempt %u of step %s is no longer kept", l->attempt, l->step_name);
    end(l);
}

static void choose(struct logs *l, const struct cox_engine *e, const struct cox_task *t, uint32_t index,
                   const struct cox_step_view *step)
{
    struct cox_attempt_view attempt;
    bool final = cox_step_status_final(step->status);
    bool newest;

    if (!find_attempt(l, e, t, index, step->n_attempts, &attempt, &newest)) {
        if (final && l->wanted)
            cox_op_failf(&l->op, COX_RPC_NOT_FOUND, "NO_ATTEMPT", "step %s has no attempt %u", l->step_name,
                         l->wanted);
        if (final || !l->follow)
            end(l);
        return;
    }
    if (l->attempt && l->attempt != attempt.number)
        l->lost = true; /* another attempt: what follows does not continue */
    l->attempt = attempt.number;
    l->by_model = cox_slice_is(attempt.worker_id, COX_ATTACH_ROUTER_ID);
    if (attempt.status < COX_ATTEMPT_SUCCEEDED) {
        relay(l, &attempt);
        return;
    }
    bool over = l->wanted || !l->follow || final;

    cox_fleet_log_stop(l->op.api->fleet, &l->reader);
    if (l->relayed != attempt.number && newest && final)
        show_recorded(l, step, over, !e);
    else if (over)
        no_more(l, newest);
}

/* The model call of an item; false: none is under way. */
static bool find_item(const struct cox_engine *e, cox_task_id frame, uint32_t index, uint64_t item,
                      struct cox_attempt_view *ret)
{
    struct cox_batch_view batch;
    const void *it = NULL;
    struct cox_ref ref;

    while (e && cox_engine_next_attempt(e, cox_slice_str(COX_ATTACH_ROUTER_ID), &it, &ref)) {
        if (ref.task != frame || ref.step != index || !cox_engine_attempt_batch(e, ref, &batch) ||
            item < batch.first || item - batch.first >= batch.n)
            continue;
        *ret = (struct cox_attempt_view){ .ref = ref, .number = batch.number };
        return true;
    }
    return false;
}

/* Of an item only what is being written is there: its output is in the step's. */
static void choose_item(struct logs *l, const struct cox_engine *e, const struct cox_task *frame,
                        uint32_t index, uint64_t item, const struct cox_step_view *step)
{
    struct cox_attempt_view attempt;
    struct cox_task_view t;

    cox_task_view(frame, &t);
    if (find_item(e, t.id, index, item, &attempt) && (!l->wanted || l->wanted == attempt.number)) {
        l->attempt = attempt.number;
        l->by_model = true;
        relay(l, &attempt);
    } else if (l->relayed) {
        end(l);
    } else if (!l->follow || cox_step_status_final(step->status)) {
        cox_op_failf(&l->op, COX_RPC_NOT_FOUND, "NO_LOG",
                     "\"%s\" is an item of a map, of which no log is kept but while a model writes it: the "
                     "step before the [ has its output and errors",
                     l->step_name);
        free_if_over(l);
    }
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes);

/* What an agent began and what has ended is in a frame of its own. */
static bool look_into_ended(struct logs *l, const struct cox_engine *e, const struct cox_task *t)
{
    struct cox_slice rest;
    cox_task_id ended = cox_engine_find_ended(e, t, cox_slice_str(l->step_name), &rest);

    if (!ended)
        return false;
    cox_watcher_stop(l->op.api, &l->watcher); /* nothing of it changes any more */
    l->step_name = cox_show_text(&l->arena, rest);
    l->busy = true;
    l->fetch = (struct cox_fetch){ .task = ended, .fn = on_archive };
    cox_driver_fetch(l->op.api->driver, &l->fetch);
    return true;
}

static void look(struct logs *l, const struct cox_engine *e, const struct cox_task *t)
{
    struct cox_step_view step;
    char id[COX_TASK_ID_TEXT_MAX];
    uint32_t index;
    uint64_t item;
    const struct cox_task *frame = cox_engine_find_step(e, t, cox_slice_str(l->step_name), &index, &item);

    if (!frame) {
        if (look_into_ended(l, e, t))
            return;
        cox_task_id_format(l->task, id);
        cox_op_failf(&l->op, COX_RPC_NOT_FOUND, "NO_STEP", "task %s has no step \"%s\"", id, l->asked_name);
        free_if_over(l);
        return;
    }
    cox_step_view(e, frame, index, &step);
    if (item != UINT64_MAX)
        choose_item(l, e, frame, index, item, &step);
    else
        choose(l, e, frame, index, &step);
}

static void on_archive(struct cox_fetch *f, enum cox_err err, struct cox_buf *bytes)
{
    struct logs *l = COX_CONTAINER_OF(f, struct logs, fetch);
    struct cox_task *task;
    char id[COX_TASK_ID_TEXT_MAX];

    l->busy = false;
    cox_task_id_format(l->task, id);
    if (!err && (err = cox_api_thaw(&l->op, bytes, &task)) == COX_OK) {
        if (l->op.call)
            look(l, NULL, task);
        else
            free_if_over(l);
        cox_task_free(task);
        return;
    }
    cox_op_failf(&l->op, err == COX_ERR_NOT_FOUND ? COX_RPC_NOT_FOUND : COX_RPC_DATA_LOSS, "NO_TASK",
                 err == COX_ERR_NOT_FOUND ? "no task %s" : "task %s cannot be read", id);
    free_if_over(l);
}

static void on_awake(struct cox_requested *q, const struct cox_act_reply *reply)
{
    struct logs *l = COX_CONTAINER_OF(q, struct logs, awake);

    (void)reply;
    l->busy = false;
    if (l->op.call)
        advance(l);
    else
        free_if_over(l);
}

static void advance(struct logs *l)
{
    const struct cox_engine *e = cox_driver_engine(l->op.api->driver);
    const struct cox_task *task;

    if (l->busy || !l->op.call)
        return;
    task = cox_api_find(&l->op, l->task);
    if (!task && cox_api_wake(&l->op, l->task, &l->awake)) {
        l->busy = true;
        return;
    }
    if (task) {
        look(l, e, task);
        return;
    }
    l->busy = true;
    l->fetch = (struct cox_fetch){ .task = l->task, .fn = on_archive };
    cox_driver_fetch(l->op.api->driver, &l->fetch);
}

/* Looking is left to the turn's end, where a call may end without a list being walked. */
static void on_changed(struct cox_watcher *w, cox_task_id frame, uint32_t step, uint64_t seq, bool final)
{
    struct logs *l = COX_CONTAINER_OF(w, struct logs, watcher);

    (void)frame, (void)step, (void)seq, (void) final;
    cox_watcher_mark(l->op.api, w);
}

static void on_turn(struct cox_watcher *w)
{
    advance(COX_CONTAINER_OF(w, struct logs, watcher));
}

static void on_gone(struct cox_op *op)
{
    struct logs *l = logs_of(op);

    cox_fleet_log_stop(op->api->fleet, &l->reader);
    cox_watcher_stop(op->api, &l->watcher);
    free_if_over(l);
}

static void on_time(struct cox_op *op)
{
    end(logs_of(op));
}

void cox_api_get_logs(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetLogsRequest *m = (const Coxswain__V1__GetLogsRequest *)message;
    cox_task_id task = cox_api_task_id(call, m->id);
    struct cox_api *a = user;

    if (!task)
        return;
    struct logs *l = COX_NEW(struct logs);

    cox_op_init(&l->op, a, call);
    l->op.on_gone = on_gone;
    l->op.on_time = on_time;
    l->op.endless = true;
    l->task = task;
    l->wanted = m->attempt;
    l->follow = m->follow;
    l->step_name = cox_arena_dup(&l->arena, m->step, strlen(m->step));
    l->asked_name = l->step_name;
    cox_list_init(&l->reader.node);
    l->awake.on_reply = on_awake;
    l->watcher.on_changed = on_changed;
    l->watcher.on_turn = on_turn;
    cox_watcher_init(&l->watcher);
    if (l->follow)
        cox_watcher_start(a, &l->watcher, task);
    advance(l);
}
