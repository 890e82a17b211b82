/* The flat image's writer; image_layout.h has the layout. */
#include "image_layout.h"

#include "cox/base/alloc.h"
#include "cox/limits.h"

#include <string.h>

void image_writer_init(struct image_writer *w)
{
    *w = (struct image_writer){ 0 };
    memset(cox_buf_extend(&w->pool, H_LEN), 0, H_LEN);
}

void image_writer_fini(struct image_writer *w)
{
    struct cox_buf *bufs[] = { &w->pool,      &w->steps,  &w->calls,     &w->policies, &w->classes, &w->pairs,
                               &w->templates, &w->refs,   &w->code,      &w->details,  &w->mores,   &w->maps,
                               &w->extras,    &w->inputs, &w->task_refs, &w->scratch };

    for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++)
        cox_buf_fini(bufs[i]);
    cox_mapb_fini(&w->consts);
    cox_mapb_fini(&w->policy_by_bytes);
    cox_mapb_fini(&w->class_by_key);
    cox_mapb_fini(&w->detail_by_bytes);
    cox_mapb_fini(&w->extras_by_bytes);
    cox_mapb_fini(&w->task_ref_by_name);
}

struct image_str image_put_str(struct image_writer *w, struct cox_slice s)
{
    COX_ASSERT(s.len <= UINT32_MAX / 4 && w->pool.len <= UINT32_MAX / 2);
    struct image_str str = { (uint32_t)w->pool.len, (uint32_t)s.len };

    cox_buf_append_slice(&w->pool, s);
    return str;
}

struct cox_slice image_str(const struct image_writer *w, struct image_str s)
{
    return cox_slice(w->pool.data + s.at, s.len);
}

static void put_str_ref(struct cox_buf *b, struct image_str s)
{
    cox_put_u32(b, s.at);
    cox_put_u32(b, s.len);
}

static void put_pair(struct image_writer *w, struct cox_slice name, struct cox_slice value, bool negated)
{
    put_str_ref(&w->pairs, image_put_str(w, name));
    put_str_ref(&w->pairs, image_put_str(w, value));
    cox_put_u32(&w->pairs, negated);
    w->n_pairs++;
}

void image_put_label(struct image_writer *w, struct cox_slice name, struct cox_slice value)
{
    COX_ASSERT(w->n_classes == 0);
    put_pair(w, name, value, false);
    w->n_labels++;
}

/* The index kept for `key`, or UINT32_MAX after keeping `next` for it. */
static uint32_t intern(struct cox_mapb *map, struct cox_slice key, uint32_t next)
{
    void *found = cox_mapb_get(map, key);

    if (found)
        return (uint32_t)((uintptr_t)found - 1);
    cox_mapb_set(map, key, (void *)(uintptr_t)((uint64_t)next + 1));
    return UINT32_MAX;
}

uint32_t image_put_const(struct image_writer *w, struct cox_slice json)
{
    uint32_t known = intern(&w->consts, json, w->n_templates);

    if (known != UINT32_MAX)
        return known;
    put_str_ref(&w->templates, image_put_str(w, json));
    cox_put_u32(&w->templates, 0);
    cox_put_u32(&w->templates, TEMPLATE_CONST << 24);
    return w->n_templates++;
}

uint32_t image_put_program(struct image_writer *w, const struct image_program *p)
{
    uint32_t n = (uint32_t)(p->code.len / CODE_LEN);
    uint32_t flags = (p->reads_inputs ? TEMPLATE_INPUTS : 0) | (p->reads_error ? TEMPLATE_ERROR : 0) |
                     (p->reads_item ? TEMPLATE_ITEM : 0);

    COX_ASSERT(p->n_refs <= TEMPLATE_N_MAX);
    cox_put_u32(&w->templates, w->n_code);
    cox_put_u32(&w->templates, n);
    cox_put_u32(&w->templates, w->n_refs);
    cox_put_u32(&w->templates, p->n_refs | flags << 24);
    for (uint32_t i = 0; i < p->n_refs; i++)
        cox_put_u32(&w->refs, p->refs[i]);
    cox_buf_append_slice(&w->code, p->code);
    w->n_refs += p->n_refs;
    w->n_code += n;
    return w->n_templates++;
}

uint32_t image_put_class(struct image_writer *w, struct cox_slice handler, const struct cox_resources *res,
                         const struct image_require *requires, uint32_t n_requires)
{
    struct cox_buf *key = &w->scratch;

    cox_buf_clear(key);
    cox_put_bytes(key, handler);
    cox_put_i64(key, res->cpu_milli);
    cox_put_i64(key, res->memory_bytes);
    cox_put_i64(key, res->disk_bytes);
    for (uint32_t i = 0; i < n_requires; i++) {
        cox_put_bytes(key, requires[i].label);
        cox_put_u8(key, requires[i].negated);
        cox_put_bytes(key, requires[i].value);
    }
    uint32_t known = intern(&w->class_by_key, cox_buf_slice(key), w->n_classes);

    if (known != UINT32_MAX)
        return known;
    put_str_ref(&w->classes, image_put_str(w, cox_buf_slice(key)));
    put_str_ref(&w->classes, image_put_str(w, handler));
    cox_put_u32(&w->classes, w->n_pairs);
    cox_put_u32(&w->classes, n_requires);
    cox_put_i64(&w->classes, res->cpu_milli);
    cox_put_i64(&w->classes, res->memory_bytes);
    cox_put_i64(&w->classes, res->disk_bytes);
    for (uint32_t i = 0; i < n_requires; i++)
        put_pair(w, requires[i].label, requires[i].value, requires[i].negated);
    return w->n_classes++;
}

static uint32_t put_policy(struct image_writer *w, const struct cox_image_call *call)
{
    struct cox_buf *b = &w->scratch;

    cox_buf_clear(b);
    cox_put_i64(b, call->timeout_ms);
    cox_put_i64(b, call->initial_backoff_ms);
    cox_put_i64(b, call->max_backoff_ms);
    cox_put_u32(b, call->max_attempts);
    cox_put_u32(b, call->multiplier_milli);
    cox_put_u32(b, call->retry_on);
    cox_put_u32(b, 0);
    uint32_t known = intern(&w->policy_by_bytes, cox_buf_slice(b), w->n_policies);

    if (known != UINT32_MAX)
        return known;
    cox_buf_append_slice(&w->policies, cox_buf_slice(b));
    return w->n_policies++;
}

/* A name in the pool, once; of a template, in the list of them. */
static struct image_str put_ref(struct image_writer *w, struct cox_slice name, bool template)
{
    if (!template)
        return image_put_str(w, name);
    uint32_t known = intern(&w->task_ref_by_name, name, w->n_task_refs);

    if (known == UINT32_MAX) {
        put_str_ref(&w->task_refs, image_put_str(w, name));
        known = w->n_task_refs++;
    }
    const uint8_t *p = w->task_refs.data + (size_t)known * REF_LEN;

    return (struct image_str){ load_u32(p), load_u32(p + 4) };
}

/* What calls of kinds without a slot have beside others. */
static uint32_t put_detail(struct image_writer *w, const struct cox_image_call *call)
{
    struct image_str ref = { 0 };
    struct cox_buf *b = &w->scratch;

    if (call->ref.len > 0)
        ref = put_ref(w, call->ref, call->kind == COX_KIND_TASK);
    else
        ref = (struct image_str){ H_LEN, 0 };
    cox_buf_clear(b);
    put_str_ref(b, ref);
    cox_put_i64(b, call->wait_ms);
    cox_put_u32(b, call->approvers);
    cox_put_u32(b, call->inner_first);
    cox_put_u32(b, call->inner_n);
    cox_put_u32(b, (uint32_t)call->wait | (uint32_t)call->on_expire << 8);
    uint32_t known = intern(&w->detail_by_bytes, cox_buf_slice(b), w->n_details);

    if (known != UINT32_MAX)
        return known;
    cox_buf_append_slice(&w->details, cox_buf_slice(b));
    return w->n_details++;
}

uint32_t image_put_call(struct image_writer *w, const struct cox_image_call *call)
{
    cox_put_u32(&w->calls, cox_step_kind_is_leaf(call->kind) ? call->class_index : put_detail(w, call));
    cox_put_u32(&w->calls, call->spec_template);
    cox_put_u32(&w->calls, put_policy(w, call));
    cox_put_u32(&w->calls, call->kind);
    return w->n_calls++;
}

uint32_t image_put_map(struct image_writer *w, const struct cox_image_map *map)
{
    cox_put_u32(&w->maps, map->over);
    cox_put_u32(&w->maps, map->max_parallel);
    cox_put_u32(&w->maps, map->batch);
    cox_put_u32(&w->maps, map->tolerate_ppm ? MAP_PPM : 0);
    cox_put_u64(&w->maps, map->tolerate);
    return w->n_maps++;
}

uint32_t image_put_extras(struct image_writer *w, const struct cox_image_extras *extras)
{
    struct image_str spread =
        extras->spread.len > 0 ? image_put_str(w, extras->spread) : (struct image_str){ H_LEN, 0 };
    struct cox_buf *b = &w->scratch;

    cox_buf_clear(b);
    cox_put_u32(b, extras->affinity);
    cox_put_u32(b, extras->affinity_step);
    put_str_ref(b, spread);
    cox_put_u32(b, extras->concurrency_key);
    cox_put_u32(b, extras->concurrency_limit);
    cox_put_u32(b, extras->rate_key);
    cox_put_u32(b, extras->artifacts);
    cox_put_u64(b, extras->rate_per_minute_milli);
    uint32_t known = intern(&w->extras_by_bytes, cox_buf_slice(b), w->n_extras);

    if (known != UINT32_MAX)
        return known;
    cox_buf_append_slice(&w->extras, cox_buf_slice(b));
    return w->n_extras++;
}

void image_put_input(struct image_writer *w, struct cox_slice name, struct image_str value, uint32_t type)
{
    put_str_ref(&w->inputs, image_put_str(w, name));
    put_str_ref(&w->inputs, value);
    cox_put_u32(&w->inputs, type);
    w->n_inputs++;
}

/* The index of what a step has beside its record, or COX_IMAGE_NONE. */
static uint32_t put_more(struct image_writer *w, const struct cox_image_step *step)
{
    if (step->owner == COX_IMAGE_NONE && step->n_inner == 0 && step->map == COX_IMAGE_NONE &&
        step->extras == COX_IMAGE_NONE)
        return COX_IMAGE_NONE;
    cox_put_u32(&w->mores, step->condition);
    cox_put_u32(&w->mores, step->owner);
    cox_put_u32(&w->mores, step->n_inner);
    cox_put_u32(&w->mores, step->map);
    cox_put_u32(&w->mores, step->extras);
    return w->n_mores++;
}

void image_put_step(struct image_writer *w, const struct cox_image_step *step)
{
    uint32_t more = put_more(w, step);
    uint32_t flags = (step->allow_failure ? STEP_ALLOW_FAILURE : 0) |
                     (step->idempotent ? STEP_IDEMPOTENT : 0) | (step->is_body ? STEP_BODY : 0) |
                     (more != COX_IMAGE_NONE ? STEP_MORE : 0);

    COX_ASSERT(step->name.len <= UINT8_MAX);
    cox_put_u32(&w->steps, image_put_str(w, step->name).at);
    cox_put_u8(&w->steps, (uint8_t)step->name.len);
    cox_put_u8(&w->steps, (uint8_t)step->kind);
    cox_put_u8(&w->steps, (uint8_t)flags);
    cox_put_u8(&w->steps, (uint8_t)(int8_t)step->priority);
    cox_put_u32(&w->steps, 0); /* edges: image_finish */
    cox_put_u32(&w->steps, 0);
    cox_put_u32(&w->steps, more != COX_IMAGE_NONE ? more : step->condition);
    cox_put_u32(&w->steps, step->call);
    cox_put_u32(&w->steps, step->fallback);
    w->n_steps++;
}

static void put_u32s(struct cox_buf *b, const uint32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        cox_put_u32(b, v[i]);
}

static void put_header(struct image_writer *w, const struct cox_image_task *task, struct image_str inputs,
                       uint32_t n_edges, struct cox_buf *b)
{
    struct image_str name = image_put_str(w, task->name), bundle = image_put_str(w, task->bundle);
    uint32_t n_links = 2 * n_edges + w->n_steps + w->n_refs;
    uint32_t flags =
        (task->fail_fast ? TASK_FAIL_FAST : 0) | (task->outputs_always ? TASK_OUTPUTS_ALWAYS : 0);
    const uint32_t counts[] = { w->n_steps,     w->n_calls, w->n_policies, w->n_classes, w->n_pairs,
                                w->n_templates, n_links,    w->n_code,     n_edges,      w->n_labels };
    const uint32_t more_counts[] = { w->n_details, w->n_mores,  w->n_maps,
                                     w->n_extras,  w->n_inputs, w->n_task_refs };

    cox_buf_append(b, MAGIC, MAGIC_LEN);
    cox_put_u32(b, VERSION);
    cox_put_u32(b, (uint32_t)w->pool.len);
    put_u32s(b, counts, sizeof(counts) / sizeof(counts[0]));
    put_str_ref(b, name);
    put_str_ref(b, inputs);
    cox_put_u32(b, task->outputs_template);
    cox_put_u32(b, (uint32_t)task->priority);
    cox_put_i64(b, task->deadline_ms);
    cox_put_u32(b, flags);
    cox_put_u32(b, task->n_members);
    put_u32s(b, more_counts, sizeof(more_counts) / sizeof(more_counts[0]));
    put_str_ref(b, bundle);
    for (uint32_t i = 0; i < COX_BUDGET_NR; i++)
        cox_put_u64(b, task->budget[i]);
    COX_ASSERT(b->len == H_LEN);
}

void image_finish(struct image_writer *w, const struct cox_image_task *task, struct image_str inputs,
                  const struct image_graph *graph, struct cox_buf *ret)
{
    const struct cox_buf *sections[] = { &w->steps,   &w->calls, &w->policies,
                                         &w->classes, &w->pairs, &w->templates };
    const struct cox_buf *more_sections[] = { &w->refs, &w->code,   &w->details, &w->mores,
                                              &w->maps, &w->extras, &w->inputs,  &w->task_refs };
    uint32_t n_edges = graph->needs_at[w->n_steps];

    for (uint32_t i = 0; i < w->n_steps; i++) {
        cox_set_u32(&w->steps, (size_t)i * STEP_LEN + STEP_NEEDS, graph->needs_at[i]);
        cox_set_u32(&w->steps, (size_t)i * STEP_LEN + STEP_DEPENDANTS, graph->dependants_at[i]);
    }
    cox_buf_clear(ret);
    cox_buf_reserve(ret, w->pool.len + w->steps.len + w->calls.len + w->code.len);
    put_header(w, task, inputs, n_edges, ret);
    cox_buf_append(ret, w->pool.data + H_LEN, w->pool.len - H_LEN);
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
        cox_buf_append_slice(ret, cox_buf_slice(sections[i]));
    put_u32s(ret, graph->needs, n_edges);
    put_u32s(ret, graph->dependants, n_edges);
    put_u32s(ret, graph->sorted, w->n_steps);
    for (size_t i = 0; i < sizeof(more_sections) / sizeof(more_sections[0]); i++)
        cox_buf_append_slice(ret, cox_buf_slice(more_sections[i]));
    COX_ASSERT(ret->len <= UINT32_MAX);
}
