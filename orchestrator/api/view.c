/* Messages that users read, made from the engine's views, in an arena. */
#include "internal.h"

#include "../sha256.h"

#include "cox/base/units.h"
#include "cox/engine/agent.h"
#include "cox/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

char *cox_show_text(struct cox_arena *a, struct cox_slice s)
{
    return s.len > 0 ? cox_arena_dup(a, s.data, s.len) : (char *)(uintptr_t)protobuf_c_empty_string;
}

char *cox_show_id(struct cox_arena *a, cox_task_id id)
{
    char *text = cox_arena_alloc(a, COX_TASK_ID_TEXT_MAX);

    cox_task_id_format(id, text);
    return text;
}

Google__Protobuf__Timestamp *cox_show_time(struct cox_arena *a, int64_t wall_ms)
{
    if (wall_ms == 0)
        return NULL;
    Google__Protobuf__Timestamp *t = cox_arena_alloc(a, sizeof(*t));

    google__protobuf__timestamp__init(t);
    t->seconds = wall_ms / 1000;
    t->nanos = (int32_t)(wall_ms % 1000) * 1000000;
    return t;
}

/* ---- values ---- */

static char *blob(struct cox_arena *a, const struct cox_hash *hash, uint64_t size)
{
    char name[COX_HASH_TEXT_MAX];
    size_t cap = COX_HASH_TEXT_MAX + 48;
    char *text = cox_arena_alloc(a, cap);

    cox_hash_format(hash, name);
    snprintf(text, cap, "{\"$blob\":\"%s\",\"size\":%llu}", name, (unsigned long long)size);
    return text;
}

static struct cox_wanted *want(struct cox_shown *sh, const struct cox_payload *p)
{
    struct cox_wanted *w = cox_arena_alloc(sh->arena, sizeof(*w));

    memset(w, 0, sizeof(*w));
    w->fetch.hash = p->hash;
    w->next = sh->wanted;
    sh->wanted = w;
    sh->len += p->size;
    return w;
}

/* Shown among other things: whole up to a bound, by name beyond. */
static void show_value(struct cox_shown *sh, const struct cox_payload *p, const char *none, char **ret)
{
    switch (p->kind) {
    case COX_PAYLOAD_NONE:
        *ret = (char *)(uintptr_t)none;
        break;
    case COX_PAYLOAD_INLINE:
        *ret = cox_show_text(sh->arena, p->bytes);
        sh->len += p->bytes.len;
        break;
    case COX_PAYLOAD_STORED:
        *ret = blob(sh->arena, &p->hash, p->size);
        if (p->size <= COX_INLINE_VALUE_LEN_MAX && sh->len + p->size <= COX_MESSAGE_LEN_MAX / 2)
            want(sh, p)->ret_text = ret;
        break;
    }
}

/* Asked for by itself: whole. */
void cox_show_payload(struct cox_shown *sh, const struct cox_payload *p, ProtobufCBinaryData *ret)
{
    struct cox_slice bytes = p->kind == COX_PAYLOAD_INLINE ? p->bytes : cox_slice_str("null");

    ret->data = (uint8_t *)cox_show_text(sh->arena, bytes);
    ret->len = bytes.len;
    if (p->kind == COX_PAYLOAD_STORED)
        want(sh, p)->ret_bytes = ret;
}

static Coxswain__V1__Error *show_error(struct cox_arena *a, enum cox_code code, struct cox_slice message)
{
    if (code == COX_CODE_NONE)
        return NULL;
    Coxswain__V1__Error *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__error__init(m);
    m->code = (char *)(uintptr_t)cox_code_text(code);
    m->message = cox_show_text(a, message);
    return m;
}

/* ---- tasks ---- */

static void show_labels(struct cox_arena *a, const struct cox_image *img, Coxswain__V1__Task *m)
{
    m->n_labels = img->n_labels;
    m->labels = cox_arena_alloc(a, (img->n_labels + 1) * sizeof(*m->labels));
    for (uint32_t i = 0; i < img->n_labels; i++) {
        Coxswain__V1__Task__LabelsEntry *entry = cox_arena_alloc(a, sizeof(*entry));
        struct cox_slice name, value;
        cox_image_label(img, i, &name, &value);
        coxswain__v1__task__labels_entry__init(entry);
        entry->key = cox_show_text(a, name);
        entry->value = cox_show_text(a, value);
        m->labels[i] = entry;
    }
}

static Coxswain__V1__StepCounts *show_counts(struct cox_arena *a, const struct cox_task_view *v)
{
    Coxswain__V1__StepCounts *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__step_counts__init(m);
    m->by_status = cox_arena_alloc(a, COX_STEP_STATUS_NR * sizeof(*m->by_status));
    for (int i = 1; i < COX_STEP_STATUS_NR; i++) {
        if (v->n_steps_by_status[i] == 0)
            continue;
        Coxswain__V1__StepCounts__ByStatusEntry *entry = cox_arena_alloc(a, sizeof(*entry));
        coxswain__v1__step_counts__by_status_entry__init(entry);
        entry->key = (char *)(uintptr_t)cox_step_status_text((enum cox_step_status)i);
        entry->value = v->n_steps_by_status[i];
        m->by_status[m->n_by_status++] = entry;
        m->total += entry->value;
    }
    return m;
}

static Coxswain__V1__Usage *show_usage(struct cox_arena *a, uint64_t cpu_us, const struct cox_usage *u)
{
    Coxswain__V1__Usage *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__usage__init(m);
    m->cpu_seconds = (double)cpu_us / 1e6;
    m->model_calls = (int64_t)u->model_calls;
    m->input_tokens = (int64_t)u->input_tokens;
    m->output_tokens = (int64_t)u->output_tokens;
    m->cached_input_tokens = (int64_t)u->cached_tokens;
    m->wasted_tokens = (int64_t)u->wasted_tokens;
    m->cost = cox_arena_alloc(a, sizeof(*m->cost));
    coxswain__v1__money__init(m->cost);
    m->cost->micros = (int64_t)u->cost_micros;
    m->cost->currency = cox_show_text(a, cox_slice_str(u->currency));
    return m;
}

static struct cox_slice step_name(const struct cox_image *img, uint32_t step)
{
    struct cox_image_step s;

    cox_image_step(img, step, &s);
    return s.name;
}

Coxswain__V1__Task *cox_show_task(struct cox_shown *sh, const struct cox_engine *e, const struct cox_task *t,
                                  bool with_values)
{
    struct cox_arena *a = sh->arena;
    Coxswain__V1__Task *m = cox_arena_alloc(a, sizeof(*m));
    struct cox_image_task task;
    struct cox_task_view v;

    cox_task_view(t, &v);
    cox_image_task(v.image, &task);
    coxswain__v1__task__init(m);
    m->id = cox_show_id(a, v.id);
    m->name = cox_show_text(a, task.name);
    m->tenant = cox_show_text(a, v.tenant);
    m->status = (Coxswain__V1__TaskStatus)v.status;
    show_labels(a, v.image, m);
    m->created_at = cox_show_time(a, v.created_wall_ms);
    m->started_at = cox_show_time(a, v.started_wall_ms);
    m->finished_at = cox_show_time(a, v.finished_wall_ms);
    m->error = show_error(a, v.code, v.message);
    if (m->error && v.error_step != COX_IMAGE_NONE)
        m->error->step = cox_show_text(a, step_name(v.image, v.error_step));
    m->steps = show_counts(a, &v);
    m->usage = show_usage(a, v.cpu_us, &v.usage);
    m->as_of_seq = e ? cox_engine_seq(e) : sh->durable_seq;
    if (with_values) {
        m->inputs_json = cox_show_text(a, task.inputs_json);
        sh->len += task.inputs_json.len;
        if (v.status == COX_TASK_SUCCEEDED)
            show_value(sh, &v.outputs, "{}", &m->outputs_json);
    }
    return m;
}

/* ---- steps ---- */

static Coxswain__V1__Attempt *show_attempt(struct cox_arena *a, const struct cox_attempt_view *v)
{
    Coxswain__V1__Attempt *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__attempt__init(m);
    m->number = v->number;
    m->worker = cox_show_text(a, v->worker_id);
    m->status = (Coxswain__V1__AttemptStatus)v->status;
    m->started_at = cox_show_time(a, v->started_wall_ms);
    m->finished_at = cox_show_time(a, v->finished_wall_ms);
    if (v->has_exit_code) {
        m->exit_code = cox_arena_alloc(a, sizeof(*m->exit_code));
        google__protobuf__int32_value__init(m->exit_code);
        m->exit_code->value = v->exit_code;
    }
    m->error = show_error(a, v->code, v->message);
    m->cpu_seconds = (double)v->cpu_us / 1e6;
    m->fallback = v->fallback;
    if (v->frame)
        m->task = cox_show_id(a, v->frame);
    return m;
}

/* Attempts are told apart in the frame itself: here when it began and ended. */
static Coxswain__V1__Attempt *show_ran(struct cox_arena *a, const struct cox_agent_entry_view *v)
{
    Coxswain__V1__Attempt *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__attempt__init(m);
    m->number = 1;
    m->status = v->failed ? COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_FAILED
                          : COXSWAIN__V1__ATTEMPT_STATUS__ATTEMPT_STATUS_SUCCEEDED;
    m->started_at = cox_show_time(a, v->begun_wall_ms);
    m->finished_at = cox_show_time(a, v->ended_wall_ms);
    m->task = cox_show_id(a, v->frame);
    return m;
}

/* {"error": TEXT} or {"error": {"code", "message"}}: what the model was told. */
static Coxswain__V1__Error *show_told(struct cox_arena *a, struct cox_slice json)
{
    struct cox_slice error, code, message;
    struct cox_buf text = { 0 };
    Coxswain__V1__Error *m = cox_arena_alloc(a, sizeof(*m));

    coxswain__v1__error__init(m);
    m->code = (char *)(uintptr_t)cox_code_text(COX_CODE_INPUT_INVALID);
    if (cox_json_member(json, "error", &error) && cox_json_kind(error) == COX_JSON_OBJECT) {
        if (cox_json_member(error, "code", &code) && code.len > 2)
            m->code = cox_show_text(a, cox_slice(code.data + 1, code.len - 2));
        error = cox_json_member(error, "message", &message) ? message : cox_slice_str("\"\"");
    }
    if (cox_json_kind(error) == COX_JSON_STRING)
        cox_json_unquote(&text, error);
    m->message = cox_show_text(a, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return m;
}

static char *show_address(struct cox_arena *a, const struct cox_task *t, cox_task_id root, uint32_t step)
{
    struct cox_buf text = { 0 };
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(root, id);
    cox_buf_append_str(&text, id);
    cox_put_u8(&text, '/');
    cox_step_address(&text, t, step);
    char *out = cox_show_text(a, cox_buf_slice(&text));
    cox_buf_fini(&text);
    return out;
}

static void show_map(struct cox_arena *a, const struct cox_task *t, uint32_t step, Coxswain__V1__Step *m)
{
    struct cox_map_view v;

    if (!cox_map_view(t, step, &v))
        return;
    m->map = cox_arena_alloc(a, sizeof(*m->map));
    coxswain__v1__map_progress__init(m->map);
    m->map->items = v.n_items;
    m->map->running = v.n_running;
    m->map->succeeded = v.n_succeeded;
    m->map->failed = v.n_failed;
    m->map->tolerated = v.n_tolerated;
    if (m->status == COXSWAIN__V1__STEP_STATUS__STEP_STATUS_WAITING && v.n_running > 0)
        m->status = COXSWAIN__V1__STEP_STATUS__STEP_STATUS_RUNNING; /* its items are what runs */
}

/* A call of an agent's, of which the frame is in the archive: what the agent knows of it. */
Coxswain__V1__Step *cox_show_ended(struct cox_shown *sh, const struct cox_task *t,
                                   const struct cox_task_view *task, uint32_t step, uint32_t *it)
{
    struct cox_arena *a = sh->arena;
    struct cox_buf address = { 0 };
    struct cox_agent_entry_view v;
    struct cox_image_step s;
    Coxswain__V1__Step *m = NULL;
    char id[COX_TASK_ID_TEXT_MAX];

    cox_task_id_format(task->root, id);
    cox_buf_printf(&address, "%s/", id);
    if (cox_agent_next(t, step, it, &v, &address)) {
        m = cox_arena_alloc(a, sizeof(*m));
        coxswain__v1__step__init(m);
        m->address = cox_show_text(a, cox_buf_slice(&address));
        m->status = v.failed ? COXSWAIN__V1__STEP_STATUS__STEP_STATUS_FAILED
                             : COXSWAIN__V1__STEP_STATUS__STEP_STATUS_SUCCEEDED;
        m->kind = (char *)(uintptr_t) "tool";
        if (v.step != COX_IMAGE_NONE) {
            cox_image_step(task->image, v.step, &s);
            m->kind = (char *)(uintptr_t)cox_step_kind_text(s.kind);
        }
        if (v.frame) {
            m->n_attempts = 1;
            m->attempts = cox_arena_alloc(a, sizeof(*m->attempts));
            m->attempts[0] = show_ran(a, &v);
        }
        if (v.failed)
            m->error = show_told(a, v.value.bytes);
        show_value(sh, &v.value, "", &m->output_json);
    }
    cox_buf_fini(&address);
    return m;
}

Coxswain__V1__Step *cox_show_step(struct cox_shown *sh, const struct cox_engine *e, const struct cox_task *t,
                                  const struct cox_task_view *task, uint32_t step, bool with_values)
{
    struct cox_arena *a = sh->arena;
    Coxswain__V1__Step *m = cox_arena_alloc(a, sizeof(*m));
    struct cox_step_view v;
    struct cox_image_step s;

    cox_step_view(e, t, step, &v);
    cox_image_step(task->image, step, &s);
    coxswain__v1__step__init(m);
    m->address = show_address(a, t, task->root, step);
    m->kind = (char *)(uintptr_t)cox_step_kind_text(s.kind);
    m->status = (Coxswain__V1__StepStatus)v.status;
    m->reason = cox_show_reason(a, e, t, task->image, step, &v, NULL);
    m->n_attempts = v.n_attempts;
    m->attempts = cox_arena_alloc(a, (v.n_attempts + 1) * sizeof(*m->attempts));
    for (uint32_t i = 0; i < v.n_attempts; i++) {
        struct cox_attempt_view attempt;
        cox_attempt_view(e, t, step, i, &attempt);
        m->attempts[i] = show_attempt(a, &attempt);
    }
    if (v.status == COX_STEP_FAILED || v.status == COX_STEP_CANCELLED)
        m->error = show_error(a, v.code, v.message);
    if (v.via_fallback)
        m->via = (char *)(uintptr_t) "fallback";
    m->n_needs = s.n_needs;
    m->needs = cox_arena_alloc(a, (s.n_needs + 1) * sizeof(*m->needs));
    for (uint32_t i = 0; i < s.n_needs; i++)
        m->needs[i] = cox_show_text(a, step_name(task->image, cox_image_need(task->image, step, i)));
    show_map(a, t, step, m);
    if (v.ready_wall_ms > 0 && !cox_step_status_final(v.status))
        m->until = cox_show_time(a, v.ready_wall_ms);
    if (with_values) {
        show_value(sh, &v.output, "", &m->output_json);
        show_value(sh, &v.artifacts, "", &m->artifacts_json);
        show_value(sh, &v.errors, "", &m->errors_json);
    }
    return m;
}
