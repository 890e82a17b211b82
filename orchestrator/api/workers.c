/* The fleet as operators see and steer it. What is attached is no durable state, so nothing is held. */
#include "internal.h"

#include "cox/attach.h"
#include "cox/base/alloc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 1000u
#define PAGE_MAX 10000u

static Coxswain__V1__WorkerState state_of(const struct cox_worker_view *v)
{
    if (v->session == 0)
        return COXSWAIN__V1__WORKER_STATE__WORKER_STATE_DISCONNECTED;
    if (v->draining)
        return COXSWAIN__V1__WORKER_STATE__WORKER_STATE_DRAINING;
    return v->cordoned ? COXSWAIN__V1__WORKER_STATE__WORKER_STATE_CORDONED
                       : COXSWAIN__V1__WORKER_STATE__WORKER_STATE_ATTACHED;
}

static void show_labels(struct cox_arena *a, const struct cox_worker_view *v, Coxswain__V1__Worker *m)
{
    m->n_labels = v->n_labels;
    m->labels = cox_arena_alloc(a, (v->n_labels + 1) * sizeof(*m->labels));
    for (size_t i = 0; i < v->n_labels; i++) {
        Coxswain__V1__Worker__LabelsEntry *entry = cox_arena_alloc(a, sizeof(*entry));
        coxswain__v1__worker__labels_entry__init(entry);
        entry->key = cox_show_text(a, v->labels[i].name);
        entry->value = cox_show_text(a, v->labels[i].value);
        m->labels[i] = entry;
    }
}

static void show_programs(struct cox_arena *a, const struct cox_worker_view *v, Coxswain__V1__Worker *m)
{
    m->programs = cox_arena_alloc(a, (v->n_handlers + 1) * sizeof(*m->programs));
    for (size_t i = 0; i < v->n_handlers; i++) {
        if (v->versions[i].len == 0)
            continue;
        const uint8_t *at = memchr(v->handlers[i].data, '@', v->handlers[i].len);
        size_t len = at ? (size_t)(at - v->handlers[i].data) : v->handlers[i].len;
        Coxswain__V1__Program *p = cox_arena_alloc(a, sizeof(*p));
        coxswain__v1__program__init(p);
        p->name = cox_show_text(a, cox_slice(v->handlers[i].data, len));
        p->version = cox_show_text(a, v->versions[i]);
        m->programs[m->n_programs++] = p;
    }
}

static Coxswain__V1__Worker *show_worker(struct cox_api *api, struct cox_arena *a,
                                         const struct cox_worker_view *v)
{
    Coxswain__V1__Worker *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__worker__init(m);
    m->id = cox_show_text(a, v->worker_id);
    m->boot_id = cox_show_text(a, v->boot_id);
    m->version = cox_show_text(a, v->version);
    m->state = state_of(v);
    m->slots = v->slots;
    m->assigned = v->assigned;
    m->free_credit = v->free_credit > UINT32_MAX ? UINT32_MAX : (uint32_t)v->free_credit;
    show_labels(a, v, m);
    show_programs(a, v, m);
    m->n_handlers = v->n_handlers;
    m->handlers = cox_arena_alloc(a, (v->n_handlers + 1) * sizeof(*m->handlers));
    for (size_t i = 0; i < v->n_handlers; i++)
        m->handlers[i] = cox_show_text(a, v->handlers[i]);
    m->resources = cox_arena_alloc(a, sizeof(*m->resources));
    coxswain__v1__resources__init(m->resources);
    m->resources->cpu_milli = v->resources.cpu_milli;
    m->resources->memory_bytes = v->resources.memory_bytes;
    m->resources->disk_bytes = v->resources.disk_bytes;
    m->attached_at = cox_show_time(a, v->attached_wall_ms);
    struct cox_fleet_workspaces use = cox_fleet_workspaces(api->fleet, v->session);

    if (use.n > 0) {
        m->workspaces = cox_arena_alloc(a, sizeof(*m->workspaces));
        coxswain__v1__workspace_use__init(m->workspaces);
        m->workspaces->count = use.n;
        m->workspaces->bytes = use.len;
        m->workspaces->unsaved = use.n_unsaved;
    }
    m->peer = cox_show_text(a, cox_slice_str(cox_fleet_peer(api->fleet, v->session)));
    return m;
}

/* The router is a worker to the engine, and none to people. */
static bool is_inside(const struct cox_api *a, const struct cox_worker_view *v)
{
    return cox_slice_is(v->worker_id, COX_ATTACH_ROUTER_ID) ||
           strcmp(cox_fleet_peer(a->fleet, v->session), COX_RPC_PEER_INSIDE) == 0;
}

void cox_api_list_workers(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ListWorkersRequest *m = (const Coxswain__V1__ListWorkersRequest *)message;
    Coxswain__V1__ListWorkersResponse answer = COXSWAIN__V1__LIST_WORKERS_RESPONSE__INIT;
    uint32_t page = m->page_size == 0 ? PAGE_DEFAULT : m->page_size;
    struct cox_api *a = user;
    struct cox_arena arena = { 0 };
    struct cox_worker_view v;
    char token[24];
    char *end;
    size_t it = strtoul(m->page_token, &end, 10); /* where the last page ended */

    if (*end != '\0') {
        cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_PAGE_TOKEN",
                      "page_token: expected one from an earlier answer, found \"%s\"", m->page_token);
        return;
    }
    if (page > PAGE_MAX)
        page = PAGE_MAX;
    answer.workers = cox_arena_alloc(&arena, page * sizeof(*answer.workers));
    while (answer.n_workers < page && cox_engine_next_worker(cox_driver_engine(a->driver), &it, &v))
        if (!is_inside(a, &v))
            answer.workers[answer.n_workers++] = show_worker(a, &arena, &v);
    if (answer.n_workers == page) {
        snprintf(token, sizeof(token), "%zu", it);
        answer.next_page_token = token;
    }
    cox_rpc_reply(call, &answer.base);
    cox_arena_fini(&arena);
}

/* The addresses of what it runs, at most a page of them. */
static void show_attempts(const struct cox_api *a, struct cox_arena *arena, const char *id,
                          Coxswain__V1__DescribeWorkerResponse *m)
{
    const struct cox_engine *e = cox_driver_engine(a->driver);
    struct cox_task_view task;
    struct cox_image_step step;
    struct cox_ref ref;
    const void *it = NULL;

    m->steps = cox_arena_alloc(arena, PAGE_MAX * sizeof(*m->steps));
    while (m->n_steps < PAGE_MAX && cox_engine_next_attempt(e, cox_slice_str(id), &it, &ref)) {
        char text[COX_TASK_ID_TEXT_MAX];

        cox_task_view(cox_engine_find(e, ref.task), &task);
        cox_image_step(task.image, ref.step, &step);
        cox_task_id_format(ref.task, text);
        size_t len = strlen(text) + 1 + step.name.len + 1;
        char *address = cox_arena_alloc(arena, len);
        snprintf(address, len, "%s/%.*s", text, (int)step.name.len, (const char *)step.name.data);
        m->steps[m->n_steps++] = address;
    }
}

void cox_api_describe_worker(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DescribeWorkerRequest *m = (const Coxswain__V1__DescribeWorkerRequest *)message;
    Coxswain__V1__DescribeWorkerResponse answer = COXSWAIN__V1__DESCRIBE_WORKER_RESPONSE__INIT;
    struct cox_api *a = user;
    struct cox_arena arena = { 0 };
    struct cox_worker_view v;
    size_t it = 0;

    while (!answer.worker && cox_engine_next_worker(cox_driver_engine(a->driver), &it, &v)) {
        if (cox_slice_is(v.worker_id, m->id))
            answer.worker = show_worker(a, &arena, &v);
    }
    if (answer.worker) {
        show_attempts(a, &arena, m->id, &answer);
        cox_rpc_reply(call, &answer.base);
    } else {
        cox_call_fail(call, COX_RPC_NOT_FOUND, "NO_WORKER", "no worker %s", m->id);
    }
    cox_arena_fini(&arena);
}

/* ---- steering ---- */

struct policy {
    struct cox_requested requested;
    struct cox_op op;
    char *worker_id;
    bool drain;
};

static void policy_gone(struct cox_op *op)
{
    (void)op; /* the answer still comes to us */
}

static void policy_reply(struct cox_requested *q, const struct cox_act_reply *reply)
{
    static const Coxswain__V1__CordonWorkerResponse cordoned = COXSWAIN__V1__CORDON_WORKER_RESPONSE__INIT;
    static const Coxswain__V1__DrainWorkerResponse asked = COXSWAIN__V1__DRAIN_WORKER_RESPONSE__INIT;
    struct policy *p = COX_CONTAINER_OF(q, struct policy, requested);

    if (reply->err == COX_OK)
        cox_op_reply(&p->op, p->drain ? &asked.base : &cordoned.base);
    else
        cox_op_failf(&p->op, COX_RPC_NOT_FOUND, "NO_WORKER", "no worker %s", p->worker_id);
    cox_op_fini(&p->op);
    cox_free(p->worker_id);
    cox_free(p);
}

static void policy_start(struct cox_api *a, struct cox_rpc_call *call, const char *id, int what)
{
    struct cox_input in = { .kind = COX_IN_POLICY };

    if (strcmp(id, COX_ATTACH_ROUTER_ID) == 0) {
        cox_call_fail(
            call, COX_RPC_FAILED_PRECONDITION, "ROUTER",
            "the router is a part of coxd, and no host: to begin no more calls of a model, take it or "
            "its endpoints out of coxd's models and send SIGHUP, or pause the tasks that call it");
        return;
    }
    struct policy *p = COX_NEW(struct policy);

    cox_op_init(&p->op, a, call);
    p->op.on_gone = policy_gone;
    p->requested.on_reply = policy_reply;
    p->worker_id = cox_strdup(id);
    p->drain = what == COX_POLICY_DRAIN;
    in.u.policy.request = (uintptr_t)&p->requested;
    in.u.policy.worker_id = cox_slice_str(id);
    in.u.policy.what = what;
    cox_driver_step(a->driver, &in);
}

void cox_api_cordon_worker(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__CordonWorkerRequest *m = (const Coxswain__V1__CordonWorkerRequest *)message;

    policy_start(user, call, m->id, m->uncordon ? COX_POLICY_UNCORDON : COX_POLICY_CORDON);
}

void cox_api_drain_worker(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DrainWorkerRequest *m = (const Coxswain__V1__DrainWorkerRequest *)message;

    policy_start(user, call, m->id, COX_POLICY_DRAIN);
}
