#include "trace_kept.h"

#include "../../orchestrator/engine/record.h"
#include "cox/cron.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define TENANT cox_slice_str("default")
#define BEGIN_WALL_MS 1000000

static void tell_ran(const struct record *r, char *text, size_t len)
{
    char queued[32] = "", skipped[32] = "";
    if (r->u.ran.n_queued > 0)
        snprintf(queued, sizeof queued, ", %u wait", r->u.ran.n_queued);
    if (r->u.ran.n_skipped > 0)
        snprintf(skipped, sizeof skipped, ", skips %u", r->u.ran.n_skipped);
    if (r->u.ran.made != 0)
        snprintf(text, len, "run of schedule %u: task %u%s%s", (unsigned)r->task, (unsigned)r->u.ran.made,
                 queued, skipped);
    else
        snprintf(text, len, "run of schedule %u: none%s%s", (unsigned)r->task, queued, skipped);
}

bool trace_tell_kept(const struct record *r, char *text, size_t len)
{
    switch (r->type) {
    case RECORD_TEMPLATE_APPLIED:
        snprintf(text, len, "template %.*s@%u is revision %u", (int)r->u.template.name.len,
                 (const char *)r->u.template.name.data, r->u.template.major, (unsigned)r->task);
        return true;
    case RECORD_TEMPLATE_DROPPED:
        snprintf(text, len, "revision %u %s", (unsigned)r->task,
                 r->u.template.deleted ? "deleted" : "dropped");
        return true;
    case RECORD_SCHEDULE_APPLIED:
        snprintf(text, len, "schedule %u applied", (unsigned)r->task);
        return true;
    case RECORD_SCHEDULE_DELETED:
        snprintf(text, len, "schedule %u deleted", (unsigned)r->task);
        return true;
    case RECORD_SCHEDULE_RAN:
        tell_ran(r, text, len);
        return true;
    default:
        return false;
    }
}

static struct cox_buf compiled(const char *document_json, enum cox_source_kind kind)
{
    struct cox_task_source source = { .kind = kind, .document = cox_slice_str(document_json) };
    struct cox_buf image = { 0 };
    struct cox_violations v = { 0 };
    if (cox_task_compile(&source, &image, &v) != COX_OK)
        fail_msg("%s: %s", v.items[0].path, v.items[0].message);
    cox_violations_fini(&v);
    return image;
}

void keep_template_of(struct trace *t, const char *tenant, const char *document_json)
{
    struct cox_buf image = compiled(document_json, COX_SOURCE_TEMPLATE);
    struct cox_input in = { .kind = COX_IN_TEMPLATE_APPLY, .u.template.request = 1 };
    struct cox_template_head head;
    cox_template_head(cox_slice_str(document_json), &head);
    in.u.template.tenant = cox_slice_str(tenant);
    in.u.template.name = head.name;
    in.u.template.major = head.major;
    in.u.template.document = cox_slice_str(document_json);
    trace_step(t, &in);
    cox_buf_fini(&head.text);
    cox_buf_fini(&image);
}

void keep_template(struct trace *t, const char *document_json)
{
    keep_template_of(t, "default", document_json);
}

void drop_template(struct trace *t, const char *name, uint32_t major)
{
    struct cox_input in = { .kind = COX_IN_TEMPLATE_DELETE, .u.template.request = 1 };
    in.u.template.tenant = TENANT;
    in.u.template.name = cox_slice_str(name);
    in.u.template.major = major;
    trace_step(t, &in);
}

static void put_be32(struct cox_buf *b, uint32_t v)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        cox_put_u8(b, (uint8_t)(v >> shift));
}

/* A zone file that has its rule only in the footer. */
static struct cox_buf zone_bytes(const char *footer)
{
    struct cox_buf file = { 0 }, zone = { 0 };
    for (int part = 0; part < 2 && *footer != '\0'; part++) {
        static const uint32_t counts[] = { 0, 0, 0, 0, 0, 0, 0, 1, 4 }; /* 15 bytes of nothing, six counts */
        cox_buf_append_str(&file, "TZif2");
        cox_buf_append(&file, "\0\0\0", 3);
        for (size_t i = 0; i < 9; i++)
            put_be32(&file, counts[i]);
        cox_buf_append(&file, "\0\0\0\0\0\0UTC", 10);
    }
    if (*footer != '\0')
        cox_buf_printf(&file, "\n%s\n", footer);
    assert_int_equal(cox_zone_compile(cox_buf_slice(&file), &zone), COX_OK);
    cox_buf_fini(&file);
    return zone;
}

struct cox_input schedule_input(struct cox_arena *memory, const char *document_json, const char *zone)
{
    struct cox_buf image = compiled(document_json, COX_SOURCE_SCHEDULE), rules = zone_bytes(zone);
    struct cox_input in = { .kind = COX_IN_SCHEDULE_APPLY };
    struct cox_schedule_head head;
    cox_schedule_head(cox_slice_str(document_json), &head);
    in.u.schedule = (struct cox_in_schedule){
        .request = 1,
        .tenant = TENANT,
        .name = cox_slice(cox_arena_dup(memory, head.name.data, head.name.len), head.name.len),
        .document = cox_slice_str(document_json),
        .image = cox_slice(cox_arena_dup(memory, image.data, image.len), image.len),
        .cron = cox_slice(cox_arena_dup(memory, head.cron.data, head.cron.len), head.cron.len),
        .zone = cox_slice(cox_arena_dup(memory, rules.data, rules.len), rules.len),
        .overlap = head.overlap,
        .catch_up_ms = head.catch_up_ms,
    };
    cox_buf_fini(&head.text);
    cox_buf_fini(&rules);
    cox_buf_fini(&image);
    return in;
}

void keep_schedule(struct trace *t, const char *document_json, const char *zone)
{
    struct cox_arena memory = { 0 };
    struct cox_input in = schedule_input(&memory, document_json, zone);
    trace_step(t, &in);
    cox_arena_fini(&memory);
}

void drop_schedule(struct trace *t, const char *name)
{
    struct cox_input in = { .kind = COX_IN_SCHEDULE_DELETE, .u.schedule.request = 1 };
    in.u.schedule.tenant = TENANT;
    in.u.schedule.name = cox_slice_str(name);
    trace_step(t, &in);
}

struct cox_schedule_view schedule_of(struct trace *t, const char *name)
{
    struct cox_schedule_view v;
    if (!cox_engine_find_schedule(trace_engine(t), TENANT, cox_slice_str(name), &v))
        fail_msg("no schedule %s", name);
    return v;
}

void at_wall_ms(struct trace *t, int64_t wall_ms)
{
    set_clock_back(t, -(wall_ms - BEGIN_WALL_MS));
}
