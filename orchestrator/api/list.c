/* ListTasks. The index knows which roots there are and how the ended ones ended; of a live one it knows that
 * it lives, and the engine says the rest. Whatever was acknowledged has been given to the index, so a page
 * can be asked for at once; live tasks are looked up when it comes, and an answer with some leaves when what
 * it shows of them is durable. */
#include "internal.h"

#include "cox/base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 100u
#define PAGE_MAX 1000u
#define ASKS_MAX 20u /* of the index for one page: where few of the live tasks are as asked for */
#define RETRY_MS 1000
#define ROWS_LEN_ENOUGH ((size_t)4 << 20) /* of one answer, which labels may make long */
#define LIVE                                                                                                 \
    ((1u << COX_TASK_PENDING) | (1u << COX_TASK_RUNNING) | (1u << COX_TASK_WAITING) | (1u << COX_TASK_PAUSED))

struct list {
    struct cox_op op;
    struct cox_arena arena;
    struct cox_shown shown;
    struct cox_hold hold;
    struct cox_ask ask;
    uint32_t statuses; /* as asked for; 0: all */
    uint32_t page_size;
    uint64_t min_seq;
    unsigned n_asks;
    bool live; /* shows what may not be durable yet */
    size_t rows_len;
    struct cox_index_query query;
    struct cox_label labels[COX_LABELS_MAX];
    Coxswain__V1__ListTasksResponse answer;
};

static void list_free(struct list *l)
{
    cox_buf_fini(&l->ask.req.bytes);
    cox_op_fini(&l->op);
    cox_arena_fini(&l->arena);
    cox_free(l);
}

/* ---- rows ---- */

static bool wanted(const struct list *l, Coxswain__V1__TaskStatus status)
{
    return l->statuses == 0 || (l->statuses & 1u << status) != 0;
}

static void show_labels(struct cox_arena *a, const struct cox_index_row *row, Coxswain__V1__Task *m)
{
    m->labels = cox_arena_alloc(a, (row->n_labels + 1) * sizeof(*m->labels));
    for (size_t i = 0; i < row->n_labels; i++) {
        Coxswain__V1__Task__LabelsEntry *entry = cox_arena_alloc(a, sizeof(*entry));

        coxswain__v1__task__labels_entry__init(entry);
        entry->key = cox_show_text(a, row->labels[i].name);
        entry->value = cox_show_text(a, row->labels[i].value);
        m->labels[m->n_labels++] = entry;
    }
}

static Coxswain__V1__Task *show_row(struct list *l, const struct cox_index_row *row, uint64_t as_of_seq)
{
    const struct cox_engine *e = cox_driver_engine(l->op.api->driver);
    const struct cox_task *t = row->status == COX_TASK_PENDING ? cox_engine_find(e, row->id) : NULL;

    if (t)
        return cox_show_task(&l->shown, e, t, false);
    Coxswain__V1__Task *m = cox_arena_alloc(&l->arena, sizeof(*m));

    coxswain__v1__task__init(m);
    m->id = cox_show_id(&l->arena, row->id);
    m->name = cox_show_text(&l->arena, row->name);
    m->tenant = cox_show_text(&l->arena, row->tenant);
    m->status = (Coxswain__V1__TaskStatus)row->status;
    /* Out of memory it waits or is paused; else it has ended since, and was running at the moment that the
     * list is of. */
    if (row->status == COX_TASK_PENDING) {
        m->status = cox_engine_asleep_paused(e, row->id) ? COXSWAIN__V1__TASK_STATUS__TASK_STATUS_PAUSED
                    : cox_engine_asleep(e, row->id)      ? COXSWAIN__V1__TASK_STATUS__TASK_STATUS_WAITING
                                                         : COXSWAIN__V1__TASK_STATUS__TASK_STATUS_RUNNING;
    }
    m->created_at = cox_show_time(&l->arena, row->created_wall_ms);
    m->finished_at = cox_show_time(&l->arena, row->finished_wall_ms);
    m->as_of_seq = as_of_seq;
    show_labels(&l->arena, row, m);
    return m;
}

/* ---- pages ---- */

static void on_shown(struct cox_hold *h)
{
    struct list *l = COX_CONTAINER_OF(h, struct list, hold);

    cox_op_reply(&l->op, &l->answer.base);
    list_free(l);
}

static void ask(struct list *l);

static void take_page(struct list *l, struct cox_index_page *page)
{
    struct cox_label labels[COX_LABELS_MAX];
    struct cox_index_row row;
    char token[24];

    while (cox_index_page_next(page, &row, labels)) {
        Coxswain__V1__Task *m = show_row(l, &row, page->as_of_seq);
        l->live |= row.status == COX_TASK_PENDING;
        if (wanted(l, m->status))
            l->answer.tasks[l->answer.n_tasks++] = m;
    }
    if (l->n_asks == 1) /* the others only add what is older */
        l->answer.as_of_seq = page->as_of_seq;
    l->query.before_id = page->before_id;
    if (page->more && l->answer.n_tasks < l->page_size && l->n_asks < ASKS_MAX &&
        l->rows_len < ROWS_LEN_ENOUGH && l->op.call) {
        ask(l);
        return;
    }
    if (page->more) {
        snprintf(token, sizeof(token), "%" PRIx64, page->before_id);
        l->answer.next_page_token = cox_show_text(&l->arena, cox_slice_str(token));
    }
    if (l->live)
        cox_driver_hold(l->op.api->driver, &l->hold, on_shown);
    else
        on_shown(&l->hold);
}

static void on_page(struct cox_ask *a, enum cox_err err, uint64_t id, struct cox_buf *bytes)
{
    struct list *l = COX_CONTAINER_OF(a, struct list, ask);
    struct cox_index_page page;

    (void)id;
    if (!err)
        err = cox_index_page_open(cox_buf_slice(bytes), &page);
    if (!err) {
        l->rows_len += bytes->len;
        take_page(l, &page);
        return;
    }
    if (err == COX_ERR_UNAVAILABLE)
        cox_op_fail(&l->op, &(struct cox_rpc_error){ .status = COX_RPC_UNAVAILABLE,
                                                     .reason = "INDEX_REBUILDING",
                                                     .message = "the index of tasks is being made again; "
                                                                "everything else works meanwhile",
                                                     .retry_delay_ms = RETRY_MS });
    else
        cox_op_failf(&l->op, COX_RPC_INTERNAL, "LIST_FAILED", "the list cannot be read: %s",
                     cox_err_text(err));
    list_free(l);
}

static void ask(struct list *l)
{
    l->n_asks++;
    l->query.limit = l->page_size - (uint32_t)l->answer.n_tasks;
    l->ask.req = (struct cox_store_request){ .op = COX_STORE_LIST };
    l->ask.fn = on_page;
    cox_index_query_encode(&l->ask.req.bytes, &l->query);
    cox_driver_ask(l->op.api->driver, &l->ask);
}

static void on_indexed(struct cox_hold *h)
{
    struct list *l = COX_CONTAINER_OF(h, struct list, hold);

    if (l->op.call)
        ask(l);
    else
        list_free(l);
}

/* Whoever still has an answer for us finds us alive and frees us. */
static void on_gone(struct cox_op *op)
{
    (void)op;
}

/* ---- the request ---- */

/* Milliseconds, rounded up: a task is created at a whole one. */
static bool read_time(const Google__Protobuf__Timestamp *t, int64_t *ret_ms)
{
    *ret_ms = 0;
    if (!t)
        return true;
    if (t->seconds < 0 || t->seconds > INT64_MAX / 2000 || t->nanos < 0 || t->nanos > 999999999)
        return false;
    *ret_ms = t->seconds * 1000 + (t->nanos + 999999) / 1000000;
    if (*ret_ms == 0)
        *ret_ms = 1; /* 0 is no bound */
    return true;
}

static const char *read_request(struct list *l, const Coxswain__V1__ListTasksRequest *m)
{
    char *end = NULL;

    for (size_t i = 0; i < m->n_statuses; i++) {
        if (m->statuses[i] < 1 || (int)m->statuses[i] >= (int)COX_TASK_STATUS_NR)
            return "statuses: expected the statuses of tasks, such as TASK_STATUS_FAILED";
        l->statuses |= 1u << m->statuses[i];
    }
    l->query.statuses = l->statuses & ~LIVE;
    if (l->statuses & LIVE)
        l->query.statuses |= 1u << COX_TASK_PENDING;
    if (m->n_labels > COX_LABELS_MAX)
        return "labels: more than 64";
    for (size_t i = 0; i < m->n_labels; i++) {
        struct cox_slice name = cox_slice_str(m->labels[i]->key), value = cox_slice_str(m->labels[i]->value);
        l->labels[i].name = cox_slice(cox_show_text(&l->arena, name), name.len);
        l->labels[i].value = cox_slice(cox_show_text(&l->arena, value), value.len);
    }
    l->query.tenant = cox_slice_str(l->op.tenant);
    l->query.labels = l->labels;
    l->query.n_labels = m->n_labels;
    if (!read_time(m->created_after, &l->query.created_after_ms))
        return "created_after: expected a time since 1970";
    if (!read_time(m->created_before, &l->query.created_before_ms))
        return "created_before: expected a time since 1970";
    l->query.before_id = strtoull(m->page_token, &end, 16);
    if (*end != '\0' || (*m->page_token && l->query.before_id == 0))
        return "page_token: expected one from an earlier answer";
    if (m->min_seq > cox_engine_seq(cox_driver_engine(l->op.api->driver)))
        return "min_seq: expected a position that an earlier answer named; the log is not so long";
    l->min_seq = m->min_seq;
    l->page_size = m->page_size == 0 ? PAGE_DEFAULT : m->page_size < PAGE_MAX ? m->page_size : PAGE_MAX;
    return NULL;
}

void cox_api_list_tasks(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    struct list *l = COX_NEW(struct list);
    struct cox_api *a = user;

    cox_op_init(&l->op, a, call);
    l->op.on_gone = on_gone;
    l->shown.arena = &l->arena;
    l->shown.durable_seq = cox_driver_durable_seq(a->driver);
    coxswain__v1__list_tasks_response__init(&l->answer);
    const char *wrong = read_request(l, (const Coxswain__V1__ListTasksRequest *)message);

    if (wrong) {
        cox_op_failf(&l->op, COX_RPC_INVALID_ARGUMENT, "BAD_LIST", "%s", wrong);
        list_free(l);
        return;
    }
    l->answer.tasks = cox_arena_alloc(&l->arena, l->page_size * sizeof(*l->answer.tasks));
    if (l->min_seq > cox_driver_done_seq(a->driver))
        cox_driver_hold(a->driver, &l->hold, on_indexed);
    else
        ask(l);
}
