/* What models write, for one WatchTask that wants to see it: a reader of the log of each model call under
 * way.
 *
 * Pieces are sent as they come; they name their attempt, so they need not wait for the log of records. Who
 * does not read misses some: then each text begins anew once there is room, and says so. */
#include "internal.h"

#include "cox/attach.h"
#include "cox/base/alloc.h"
#include "cox/engine/batch.h"

#include <inttypes.h>
#include <string.h>

#define SLOW_LEN ((size_t)512 << 10) /* not yet read: half of what the stream of changes bears */

struct text {
    struct cox_log_reader reader;
    struct cox_list node;
    struct cox_watch_texts *all;
    uint32_t attempt;
    bool begins;         /* with the next piece */
    bool missed;         /* pieces: it is to begin anew */
    bool beginning;      /* what has come so far is being sent */
    struct cox_buf step; /* its address */
};

static struct cox_api *api_of(const struct cox_watch_texts *ws)
{
    return ws->op->api;
}

static void text_destroy(struct text *x)
{
    cox_fleet_log_stop(api_of(x->all)->fleet, &x->reader);
    cox_list_remove(&x->node);
    x->all->n--;
    cox_buf_fini(&x->step);
    cox_free(x);
}

static void send_piece(struct text *x, const Coxswain__V1__LogChunk *chunk)
{
    Coxswain__V1__WatchTaskResponse m = COXSWAIN__V1__WATCH_TASK_RESPONSE__INIT;
    Coxswain__V1__TextPiece piece = COXSWAIN__V1__TEXT_PIECE__INIT;
    struct cox_rpc_call *call = x->all->op->call;

    if (!call || x->missed)
        return;
    char *copy = cox_strndup((const char *)chunk->data.data, chunk->data.len);

    for (size_t i = 0; i < chunk->data.len; i++)
        copy[i] = copy[i] ? copy[i] : ' '; /* a string of protobuf's would end there for some readers */
    piece.step = (char *)(uintptr_t)cox_buf_cstr(&x->step);
    piece.attempt = x->attempt;
    piece.text = copy;
    piece.reset = x->begins || chunk->reset;
    m.token = &piece;
    x->missed = cox_rpc_outbox_len(call) > SLOW_LEN || cox_rpc_send(call, &m.base) == COX_ERR_FULL;
    x->begins = x->begins && x->missed;
    if (x->missed && x->beginning) { /* it is longer than what may wait: it goes on from here */
        x->missed = false;
        x->begins = true;
    }
    cox_free(copy);
}

static void on_chunk(struct cox_log_reader *r, const Coxswain__V1__LogChunk *chunk)
{
    struct text *x = COX_CONTAINER_OF(r, struct text, reader);

    if (chunk && chunk->data.len > 0)
        send_piece(x, chunk);
    if (!chunk || chunk->end)
        text_destroy(x);
}

static void begin(struct text *x, uint32_t session)
{
    x->begins = true;
    x->missed = false;
    x->beginning = true;
    if (!cox_fleet_log_start(api_of(x->all)->fleet, session, &x->reader))
        text_destroy(x);
    else
        x->beginning = false;
}

static bool has(const struct cox_watch_texts *ws, struct cox_ref ref)
{
    for (const struct cox_list *it = ws->texts.next; it != &ws->texts; it = it->next)
        if (cox_ref_eq(COX_CONTAINER_OF((struct cox_list *)(uintptr_t)it, struct text, node)->reader.ref,
                       ref))
            return true;
    return false;
}

/* As in the events of steps. */
static void put_address(struct cox_buf *out, const struct cox_task *frame, uint32_t step)
{
    char id[COX_TASK_ID_TEXT_MAX];
    struct cox_task_view v;

    cox_task_view(frame, &v);
    cox_task_id_format(v.root, id);
    cox_buf_printf(out, "%s/", id);
    cox_step_address(out, frame, step);
}

/* `item`: of a map; UINT64_MAX: the step itself. */
static void add(struct cox_watch_texts *ws, const struct cox_engine *e, const struct cox_task *frame,
                struct cox_ref ref, uint32_t number, uint64_t item)
{
    struct cox_slice tenant;
    uint32_t session = cox_engine_attempt_session(e, ref, &tenant);

    if (session == 0 || has(ws, ref))
        return;
    struct text *x = COX_NEW(struct text);

    x->all = ws;
    x->attempt = number;
    x->reader.ref = ref;
    x->reader.on_chunk = on_chunk;
    cox_list_init(&x->reader.node);
    cox_list_init(&x->node);
    cox_list_push_back(&ws->texts, &x->node);
    ws->n++;
    put_address(&x->step, frame, ref.step);
    if (item != UINT64_MAX)
        cox_buf_printf(&x->step, "[%" PRIu64 "]", item);
    begin(x, session);
}

/* Of a call of the router. */
static void add_attempt(struct cox_watch_texts *ws, const struct cox_engine *e, const struct cox_task *frame,
                        struct cox_ref ref)
{
    struct cox_step_view v;
    struct cox_attempt_view attempt;
    struct cox_batch_view batch;

    if (cox_engine_attempt_batch(e, ref, &batch)) {
        add(ws, e, frame, ref, batch.number, batch.first);
        return;
    }
    cox_step_view(e, frame, ref.step, &v);
    if (v.n_attempts == 0)
        return;
    cox_attempt_view(e, frame, ref.step, v.n_attempts - 1, &attempt);
    add(ws, e, frame, ref, attempt.number, UINT64_MAX);
}

static bool is_mapped(const struct cox_task *frame, uint32_t step)
{
    struct cox_task_view v;
    struct cox_image_step doc;

    cox_task_view(frame, &v);
    cox_image_step(v.image, step, &doc);
    return doc.map != COX_IMAGE_NONE;
}

void cox_watch_texts_step(struct cox_watch_texts *ws, const struct cox_engine *e,
                          const struct cox_task *frame, uint32_t step)
{
    struct cox_step_view v;
    struct cox_attempt_view attempt;
    struct cox_task_view t;
    const void *it = NULL;
    struct cox_ref ref;

    if (!ws->wanted || ws->n >= COX_WATCH_TEXTS_MAX)
        return;
    cox_step_view(e, frame, step, &v);
    if (cox_step_status_final(v.status))
        return;
    if (v.status == COX_STEP_RUNNING && v.n_attempts > 0) {
        cox_attempt_view(e, frame, step, v.n_attempts - 1, &attempt);
        if (cox_slice_is(attempt.worker_id, COX_ATTACH_ROUTER_ID))
            add(ws, e, frame, attempt.ref, attempt.number, UINT64_MAX);
    } else if (is_mapped(frame, step)) {
        cox_task_view(frame, &t);
        while (ws->n < COX_WATCH_TEXTS_MAX &&
               cox_engine_next_attempt(e, cox_slice_str(COX_ATTACH_ROUTER_ID), &it, &ref))
            if (ref.task == t.id && ref.step == step)
                add_attempt(ws, e, frame, ref);
    }
}

void cox_watch_texts_task(struct cox_watch_texts *ws, const struct cox_engine *e, cox_task_id root)
{
    const void *it = NULL;
    struct cox_ref ref;

    while (ws->wanted && ws->n < COX_WATCH_TEXTS_MAX &&
           cox_engine_next_attempt(e, cox_slice_str(COX_ATTACH_ROUTER_ID), &it, &ref)) {
        const struct cox_task *frame = cox_engine_find(e, ref.task);
        struct cox_task_view v;

        if (!frame)
            continue;
        cox_task_view(frame, &v);
        if (v.root == root)
            add_attempt(ws, e, frame, ref);
    }
}

void cox_watch_texts_room(struct cox_watch_texts *ws)
{
    const struct cox_engine *e = cox_driver_engine(api_of(ws)->driver);
    struct cox_slice tenant;

    COX_LIST_FOR_EACH (it, &ws->texts) {
        struct text *x = COX_CONTAINER_OF(it, struct text, node);
        uint32_t session = x->missed ? cox_engine_attempt_session(e, x->reader.ref, &tenant) : 0;

        if (!session)
            continue;
        cox_fleet_log_stop(api_of(ws)->fleet, &x->reader);
        begin(x, session);
    }
}

void cox_watch_texts_stop(struct cox_watch_texts *ws)
{
    COX_LIST_FOR_EACH (it, &ws->texts)
        text_destroy(COX_CONTAINER_OF(it, struct text, node));
}
