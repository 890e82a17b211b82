/* ScheduleService: tasks made by the clock. The zone's rules are read here and go with the schedule: what a
 * run's time is does not change with the machine's zone files until the schedule is applied again. */
#include "kept.h"

#include "cox/cron.h"

#include "coxswain/v1/schedule_service.pb-c.h"

#include <stdio.h>
#include <string.h>

#define NOUN "schedule"
#define TENANT(k) cox_slice_str((k)->op.tenant)
#define ZONES "/usr/share/zoneinfo/"
#define ZONE_NAME_LEN_MAX 63u
#define ZONE_FILE_LEN_MAX (256u << 10)

struct apply {
    struct cox_kept_call call;
    struct cox_schedule_head head;
    struct cox_buf zone;
    struct cox_label label;
    int64_t now_wall_ms;
};

static Coxswain__V1__Schedule *show(struct cox_arena *a, const struct cox_schedule_view *v, bool whole)
{
    Coxswain__V1__Schedule *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__schedule__init(m);
    m->name = cox_show_text(a, v->name);
    m->last_run_at = cox_show_time(a, v->last_wall_ms);
    m->next_run_at = cox_show_time(a, v->next_wall_ms);
    if (v->last_task)
        m->last_task_id = cox_show_id(a, v->last_task);
    m->queued_runs = v->n_queued;
    m->skipped_runs = v->n_skipped;
    if (whole)
        m->document = (ProtobufCBinaryData){ v->document.len, (uint8_t *)cox_show_text(a, v->document) };
    return m;
}

/* ---- time zones ---- */

/* "Europe/Berlin": no way out of the folder, and nothing hidden. */
static bool zone_name_ok(struct cox_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'),
             first = i == 0 || name.data[i - 1] == '/';
        bool inner = (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '+' || c == '/';
        if (!letter && (first || !inner))
            return false;
    }
    return name.len > 0 && name.len <= ZONE_NAME_LEN_MAX && name.data[name.len - 1] != '/';
}

static bool read_zone(struct cox_slice name, struct cox_buf *ret)
{
    char path[sizeof(ZONES) + ZONE_NAME_LEN_MAX];
    size_t n = 1;

    snprintf(path, sizeof(path), ZONES "%.*s", (int)name.len, (const char *)name.data);
    FILE *f = fopen(path, "rbe");

    if (!f)
        return false;
    while (n > 0 && ret->len <= ZONE_FILE_LEN_MAX) {
        cox_buf_reserve(ret, 4096);
        n = fread(ret->data + ret->len, 1, 4096, f);
        ret->len += n;
    }
    bool ok = !ferror(f) && ret->len > 0 && ret->len <= ZONE_FILE_LEN_MAX;

    fclose(f);
    return ok;
}

static void compile_zone(struct apply *p)
{
    struct cox_slice name = p->head.time_zone;
    struct cox_buf file = { 0 };
    bool ok = cox_slice_is(name, "UTC") || (zone_name_ok(name) && read_zone(name, &file));

    if (!ok || cox_zone_compile(cox_buf_slice(&file), &p->zone) != COX_OK)
        cox_kept_violation(&p->call, "schedule.time_zone",
                           "found \"%.*s\", expected the name of a zone that this machine knows, such as "
                           "\"Europe/Berlin\"",
                           (int)(name.len < 64 ? name.len : 64), (const char *)name.data);
    cox_buf_fini(&file);
}

/* ---- apply ---- */

static void check_cron(struct apply *p)
{
    struct cox_buf error = { 0 };
    struct cox_cron cron;

    if (cox_cron_parse(p->head.cron, &cron, &error) != COX_OK)
        cox_kept_violation(&p->call, "schedule.cron", "%s", cox_buf_cstr(&error));
    else if (!p->call.err && cox_cron_next(&cron, cox_buf_slice(&p->zone), p->now_wall_ms) == INT64_MAX)
        cox_kept_violation(&p->call, "schedule.cron", "found \"%.*s\", expected a time that comes",
                           (int)p->head.cron.len, (const char *)p->head.cron.data);
    cox_buf_fini(&error);
}

/* The name is known only now, and the tasks are to be found by it. */
static void compile_labelled(struct apply *p)
{
    struct cox_kept_call *k = &p->call;

    p->label = (struct cox_label){ cox_slice_str("coxswain.schedule"), p->head.name };
    k->source.labels = &p->label;
    k->source.n_labels = 1;
    cox_buf_clear(&k->image);
    k->err = cox_task_compile(&k->source, &k->image, &k->violations);
}

static void compiled(struct cox_kept_call *k)
{
    struct apply *p = COX_CONTAINER_OF(k, struct apply, call);

    cox_schedule_head(k->source.document, &p->head);
    k->name = p->head.name;
    compile_labelled(p);
    if (!k->err)
        compile_zone(p);
    if (!k->err)
        check_cron(p);
}

static void feed(struct cox_kept_call *k)
{
    struct apply *p = COX_CONTAINER_OF(k, struct apply, call);
    struct cox_input in = { .kind = COX_IN_SCHEDULE_APPLY };

    in.u.schedule = (struct cox_in_schedule){ .request = (uintptr_t)&k->requested,
                                              .tenant = TENANT(k),
                                              .name = k->name,
                                              .document = k->source.document,
                                              .image = cox_buf_slice(&k->image),
                                              .cron = p->head.cron,
                                              .zone = cox_buf_slice(&p->zone),
                                              .overlap = p->head.overlap,
                                              .catch_up_ms = p->head.catch_up_ms };
    cox_kept_step(k, &in);
}

static void show_applied(struct cox_kept_call *k)
{
    Coxswain__V1__ApplyScheduleResponse *m = cox_arena_alloc(&k->arena, sizeof(*m));
    struct cox_schedule_view v;

    coxswain__v1__apply_schedule_response__init(m);
    if (cox_engine_find_schedule(cox_driver_engine(k->op.api->driver), TENANT(k), k->name, &v))
        m->schedule = show(&k->arena, &v, true); /* else it was deleted meanwhile */
    k->message = &m->base;
}

static void free_own(struct cox_kept_call *k)
{
    struct apply *p = COX_CONTAINER_OF(k, struct apply, call);

    cox_buf_fini(&p->head.text);
    cox_buf_fini(&p->zone);
}

void cox_api_apply_schedule(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ApplyScheduleRequest *m = (const Coxswain__V1__ApplyScheduleRequest *)message;
    struct cox_api *a = user;

    if (cox_api_refuse(a, call))
        return;
    struct apply *p = COX_KEPT_NEW(struct apply, a, call);

    p->now_wall_ms = cox_driver_now(a->driver).wall_ms;
    p->call.compiled = compiled;
    p->call.feed = feed;
    p->call.show = show_applied;
    p->call.free_own = free_own;
    cox_kept_apply(&p->call, m->document, COX_SOURCE_SCHEDULE);
}

/* ---- read ---- */

static bool name_ok(struct cox_rpc_call *call, const char *name)
{
    struct cox_slice whole;
    uint32_t major;

    if (cox_kept_ref(name, &whole, &major) && major == 0)
        return true;
    cox_call_fail(call, COX_RPC_INVALID_ARGUMENT, "BAD_NAME",
                  "name: expected that of a schedule, found \"%.100s\"", name);
    return false;
}

void cox_api_get_schedule(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__GetScheduleRequest *m = (const Coxswain__V1__GetScheduleRequest *)message;
    struct cox_schedule_view v;
    struct cox_api *a = user;

    if (!name_ok(call, m->name))
        return;
    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, a, call);

    if (cox_engine_find_schedule(cox_driver_engine(a->driver), TENANT(k), cox_slice_str(m->name), &v)) {
        Coxswain__V1__GetScheduleResponse *answer = cox_arena_alloc(&k->arena, sizeof(*answer));
        coxswain__v1__get_schedule_response__init(answer);
        answer->schedule = show(&k->arena, &v, true);
        k->message = &answer->base;
    } else {
        k->name = cox_slice_str(cox_show_text(&k->arena, cox_slice_str(m->name)));
        cox_kept_missing(k);
    }
    cox_kept_answer(k);
}

void cox_api_list_schedules(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__ListSchedulesRequest *m = (const Coxswain__V1__ListSchedulesRequest *)message;
    struct cox_slice name = cox_slice_str(m->page_token);
    uint32_t page = cox_kept_page(m->page_size);
    struct cox_schedule_view v;
    struct cox_api *a = user;

    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, a, call);
    Coxswain__V1__ListSchedulesResponse *answer = cox_arena_alloc(&k->arena, sizeof(*answer));

    coxswain__v1__list_schedules_response__init(answer);
    answer->schedules = cox_arena_alloc(&k->arena, page * sizeof(*answer->schedules));
    while (cox_engine_next_schedule(cox_driver_engine(a->driver), TENANT(k), name, &v)) {
        if (answer->n_schedules == page) {
            answer->next_page_token = cox_show_text(&k->arena, name);
            break;
        }
        answer->schedules[answer->n_schedules++] = show(&k->arena, &v, false);
        name = v.name;
    }
    k->message = &answer->base;
    cox_kept_answer(k);
}

/* ---- delete ---- */

static void show_deleted(struct cox_kept_call *k)
{
    Coxswain__V1__DeleteScheduleResponse *m = cox_arena_alloc(&k->arena, sizeof(*m));

    coxswain__v1__delete_schedule_response__init(m);
    k->message = &m->base;
}

void cox_api_delete_schedule(struct cox_rpc_call *call, const ProtobufCMessage *message, void *user)
{
    const Coxswain__V1__DeleteScheduleRequest *m = (const Coxswain__V1__DeleteScheduleRequest *)message;
    struct cox_input in = { .kind = COX_IN_SCHEDULE_DELETE };

    if (!name_ok(call, m->name))
        return;
    struct cox_kept_call *k = COX_KEPT_NEW(struct cox_kept_call, user, call);

    k->name = cox_slice_str(cox_show_text(&k->arena, cox_slice_str(m->name)));
    k->show = show_deleted;
    in.u.schedule.request = (uintptr_t)&k->requested;
    in.u.schedule.tenant = TENANT(k);
    in.u.schedule.name = k->name;
    cox_kept_step(k, &in);
}
