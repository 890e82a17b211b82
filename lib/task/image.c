/* The flat image: layout, writer and reader.
 *
 *   header | pool | steps | calls | policies | classes | pairs | templates | links | code
 *
 * All integers little-endian, records without padding, unaligned (the image may lie anywhere in a log row).
 * The pool holds strings and JSON text, named by offset from the image's start. `pairs` are labels, then the
 * requirements of classes. `links` are needs[n_edges], dependants[n_edges], steps by name[n_steps], and the
 * steps that templates refer to. Where each section starts follows from the counts in the header.
 */
#include "code.h"
#include "image_write.h"

#include "cox/base/alloc.h"
#include "cox/limits.h"

#include <string.h>

#define MAGIC "COXIMAGE"
#define MAGIC_LEN 8u
#define VERSION 1u

/* offsets in the header */
enum {
    H_VERSION = 8,
    H_POOL_END = 12,
    H_STEPS = 16, /* counts, from here */
    H_CALLS = 20,
    H_POLICIES = 24,
    H_CLASSES = 28,
    H_PAIRS = 32,
    H_TEMPLATES = 36,
    H_LINKS = 40,
    H_CODE = 44,
    H_EDGES = 48,
    H_LABELS = 52,
    H_NAME = 56, /* offset, length */
    H_INPUTS = 64,
    H_OUTPUTS = 72,
    H_PRIORITY = 76,
    H_DEADLINE = 80,
    H_FLAGS = 88,
    H_LEN = 96,
};

/* bytes of a record */
#define STEP_LEN                                                                                             \
    28u /* name u32, name_len u8, kind u8, flags u8, priority i8, needs, dependants, if, call, fallback */
#define CALL_LEN 16u     /* class, template, policy, kind */
#define POLICY_LEN 40u   /* timeout i64, backoff i64 x2, attempts, multiplier, retry_on, 0 */
#define CLASS_LEN 48u    /* key at len, handler at len, first pair, n pairs, cpu i64, memory i64, disk i64 */
#define PAIR_LEN 20u     /* name at len, value at len, negated */
#define TEMPLATE_LEN 16u /* at, len (of JSON, or of instructions), first link, n links | flags << 24 */
#define LINK_LEN 4u

#define STEP_ALLOW_FAILURE 1u
#define TASK_FAIL_FAST 1u
#define TEMPLATE_CONST 1u
#define TEMPLATE_INPUTS 2u
#define TEMPLATE_ERROR 4u
#define TEMPLATE_N_MAX 0xffffffu

/* cox_image.at */
enum { AT_STEPS, AT_CALLS, AT_POLICIES, AT_CLASSES, AT_PAIRS, AT_TEMPLATES, AT_LINKS, AT_CODE, AT_NR };
static const uint32_t record_len[AT_NR] = { STEP_LEN, CALL_LEN,     POLICY_LEN, CLASS_LEN,
                                            PAIR_LEN, TEMPLATE_LEN, LINK_LEN,   CODE_LEN };

#define CODE_INFO(name, operand, takes, leaves) { OPERAND_##operand, takes, leaves },
const struct op_info op_info[OP_NR] = { CODE_TABLE(CODE_INFO) };

/* ---- writer ---- */

void image_writer_init(struct image_writer *w)
{
    *w = (struct image_writer){ 0 };
    memset(cox_buf_extend(&w->pool, H_LEN), 0, H_LEN);
}

void image_writer_fini(struct image_writer *w)
{
    struct cox_buf *bufs[] = { &w->pool,  &w->steps,     &w->calls, &w->policies, &w->classes,
                               &w->pairs, &w->templates, &w->refs,  &w->code,     &w->scratch };

    for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++)
        cox_buf_fini(bufs[i]);
    cox_mapb_fini(&w->consts);
    cox_mapb_fini(&w->policy_by_bytes);
    cox_mapb_fini(&w->class_by_key);
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
    uint32_t flags = (p->reads_inputs ? TEMPLATE_INPUTS : 0) | (p->reads_error ? TEMPLATE_ERROR : 0);

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

uint32_t image_put_call(struct image_writer *w, const struct cox_image_call *call)
{
    cox_put_u32(&w->calls, call->class_index);
    cox_put_u32(&w->calls, call->spec_template);
    cox_put_u32(&w->calls, put_policy(w, call));
    cox_put_u32(&w->calls, call->kind);
    return w->n_calls++;
}

void image_put_step(struct image_writer *w, const struct cox_image_step *step)
{
    COX_ASSERT(step->name.len <= COX_NAME_LEN_MAX);
    cox_put_u32(&w->steps, image_put_str(w, step->name).at);
    cox_put_u8(&w->steps, (uint8_t)step->name.len);
    cox_put_u8(&w->steps, (uint8_t)step->kind);
    cox_put_u8(&w->steps, step->allow_failure ? STEP_ALLOW_FAILURE : 0);
    cox_put_u8(&w->steps, (uint8_t)(int8_t)step->priority);
    cox_put_u32(&w->steps, 0); /* edges: image_finish */
    cox_put_u32(&w->steps, 0);
    cox_put_u32(&w->steps, step->condition);
    cox_put_u32(&w->steps, step->call);
    cox_put_u32(&w->steps, step->fallback);
    w->n_steps++;
}

static void put_u32s(struct cox_buf *b, const uint32_t *v, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        cox_put_u32(b, v[i]);
}

static void put_header(struct image_writer *w, const struct cox_image_task *task, struct image_str name,
                       struct image_str inputs, uint32_t n_edges, struct cox_buf *b)
{
    uint32_t n_links = 2 * n_edges + w->n_steps + w->n_refs;
    const uint32_t counts[] = { w->n_steps,     w->n_calls, w->n_policies, w->n_classes, w->n_pairs,
                                w->n_templates, n_links,    w->n_code,     n_edges,      w->n_labels };

    cox_buf_append(b, MAGIC, MAGIC_LEN);
    cox_put_u32(b, VERSION);
    cox_put_u32(b, (uint32_t)w->pool.len);
    put_u32s(b, counts, sizeof(counts) / sizeof(counts[0]));
    put_str_ref(b, name);
    put_str_ref(b, inputs);
    cox_put_u32(b, task->outputs_template);
    cox_put_u32(b, (uint32_t)task->priority);
    cox_put_i64(b, task->deadline_ms);
    cox_put_u32(b, task->fail_fast ? TASK_FAIL_FAST : 0);
    cox_put_u32(b, 0);
    COX_ASSERT(b->len == H_LEN);
}

void image_finish(struct image_writer *w, const struct cox_image_task *task, struct image_str inputs,
                  const struct image_graph *graph, struct cox_buf *ret)
{
    struct image_str name = image_put_str(w, task->name);
    uint32_t n_edges = graph->needs_at[w->n_steps];
    uint64_t total = (uint64_t)w->pool.len + w->steps.len + w->calls.len + w->policies.len + w->classes.len +
                     w->pairs.len + w->templates.len + w->refs.len + w->code.len +
                     LINK_LEN * (2 * (uint64_t)n_edges + w->n_steps);

    COX_ASSERT(total <= UINT32_MAX);
    for (uint32_t i = 0; i < w->n_steps; i++) {
        cox_set_u32(&w->steps, (size_t)i * STEP_LEN + 8, graph->needs_at[i]);
        cox_set_u32(&w->steps, (size_t)i * STEP_LEN + 12, graph->dependants_at[i]);
    }
    cox_buf_clear(ret);
    cox_buf_reserve(ret, (size_t)total);
    put_header(w, task, name, inputs, n_edges, ret);
    cox_buf_append(ret, w->pool.data + H_LEN, w->pool.len - H_LEN);
    cox_buf_append_slice(ret, cox_buf_slice(&w->steps));
    cox_buf_append_slice(ret, cox_buf_slice(&w->calls));
    cox_buf_append_slice(ret, cox_buf_slice(&w->policies));
    cox_buf_append_slice(ret, cox_buf_slice(&w->classes));
    cox_buf_append_slice(ret, cox_buf_slice(&w->pairs));
    cox_buf_append_slice(ret, cox_buf_slice(&w->templates));
    put_u32s(ret, graph->needs, n_edges);
    put_u32s(ret, graph->dependants, n_edges);
    put_u32s(ret, graph->sorted, w->n_steps);
    cox_buf_append_slice(ret, cox_buf_slice(&w->refs));
    cox_buf_append_slice(ret, cox_buf_slice(&w->code));
    COX_ASSERT(ret->len == total);
}

/* ---- reader ---- */

static int64_t load_i64(const uint8_t *p)
{
    return (int64_t)((uint64_t)load_u32(p) | (uint64_t)load_u32(p + 4) << 32);
}

static uint32_t header_u32(const struct cox_image *img, uint32_t at)
{
    return load_u32(img->bytes.data + at);
}

static const uint8_t *record(const struct cox_image *img, int section, uint32_t i)
{
    return img->bytes.data + img->at[section] + (size_t)i * record_len[section];
}

static uint32_t link_at(const struct cox_image *img, uint32_t i)
{
    return load_u32(record(img, AT_LINKS, i));
}

/* Where the links of templates begin. */
static uint32_t first_ref(const struct cox_image *img)
{
    return 2 * header_u32(img, H_EDGES) + img->n_steps;
}

static struct cox_slice str_at(const struct cox_image *img, const uint8_t *p)
{
    return cox_slice(img->bytes.data + load_u32(p), load_u32(p + 4));
}

static struct cox_slice step_name(const struct cox_image *img, uint32_t i)
{
    const uint8_t *p = record(img, AT_STEPS, i);

    return cox_slice(img->bytes.data + load_u32(p), p[4]);
}

bool image_reads(const struct cox_image *img, uint32_t at, uint32_t len, struct cox_slice *ret)
{
    uint32_t end = img->at[AT_STEPS];

    if (at < H_LEN || at > end || len > end - at)
        return false;
    *ret = cox_slice(img->bytes.data + at, len);
    return true;
}

static bool str_ok(const struct cox_image *img, const uint8_t *p)
{
    struct cox_slice s;

    return image_reads(img, load_u32(p), load_u32(p + 4), &s);
}

static bool index_ok(uint32_t i, uint32_t n)
{
    return i < n || i == COX_IMAGE_NONE;
}

static bool sections_ok(struct cox_image *img)
{
    uint64_t at = header_u32(img, H_POOL_END);

    if (at < H_LEN)
        return false;
    for (uint32_t s = 0; s < AT_NR; s++) {
        if (at > img->bytes.len)
            return false;
        img->at[s] = (uint32_t)at;
        at += (uint64_t)header_u32(img, H_STEPS + 4 * s) * record_len[s];
    }
    img->n_steps = header_u32(img, H_STEPS);
    img->n_calls = header_u32(img, H_CALLS);
    img->n_classes = header_u32(img, H_CLASSES);
    img->n_templates = header_u32(img, H_TEMPLATES);
    img->n_labels = header_u32(img, H_LABELS);
    return at == img->bytes.len &&
           2 * (uint64_t)header_u32(img, H_EDGES) + img->n_steps <= header_u32(img, H_LINKS);
}

static bool task_ok(const struct cox_image *img)
{
    const uint8_t *h = img->bytes.data;
    int32_t priority = (int32_t)load_u32(h + H_PRIORITY);

    return str_ok(img, h + H_NAME) && str_ok(img, h + H_INPUTS) &&
           index_ok(load_u32(h + H_OUTPUTS), img->n_templates) && priority >= -100 && priority <= 100 &&
           load_i64(h + H_DEADLINE) >= 0 && img->n_steps >= 1 && img->n_steps <= COX_TASK_STEPS_MAX &&
           img->n_labels <= header_u32(img, H_PAIRS);
}

static bool pairs_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < header_u32(img, H_PAIRS); i++) {
        const uint8_t *p = record(img, AT_PAIRS, i);

        if (!str_ok(img, p) || !str_ok(img, p + 8) || load_u32(p + 16) > 1)
            return false;
    }
    return true;
}

static bool classes_ok(const struct cox_image *img)
{
    uint32_t n_pairs = header_u32(img, H_PAIRS);

    for (uint32_t i = 0; i < img->n_classes; i++) {
        const uint8_t *p = record(img, AT_CLASSES, i);
        uint32_t first = load_u32(p + 16), n = load_u32(p + 20);

        if (!str_ok(img, p) || !str_ok(img, p + 8) || first > n_pairs || n > n_pairs - first ||
            load_i64(p + 24) < 0 || load_i64(p + 32) < 0 || load_i64(p + 40) < 0)
            return false;
    }
    return true;
}

static bool calls_ok(const struct cox_image *img)
{
    uint32_t n_policies = header_u32(img, H_POLICIES);

    for (uint32_t i = 0; i < n_policies; i++) {
        const uint8_t *p = record(img, AT_POLICIES, i);

        if (load_i64(p) < 0 || load_i64(p + 8) < 0 || load_i64(p + 16) < 0 || load_u32(p + 24) < 1 ||
            load_u32(p + 32) >> COX_CODE_NR != 0)
            return false;
    }
    for (uint32_t i = 0; i < img->n_calls; i++) {
        const uint8_t *p = record(img, AT_CALLS, i);
        uint32_t kind = load_u32(p + 12);

        if (load_u32(p) >= img->n_classes || load_u32(p + 4) >= img->n_templates ||
            load_u32(p + 8) >= n_policies || kind == COX_KIND_NONE || kind >= COX_KIND_NR)
            return false;
    }
    return true;
}

static bool instruction_ok(const struct cox_image *img, struct code c, uint32_t left)
{
    struct cox_slice s;

    if (c.op >= OP_NR)
        return false;
    switch ((enum operand)op_info[c.op].operand) {
    case OPERAND_NONE:
        return true;
    case OPERAND_STR:
        return image_reads(img, c.at, c.n, &s);
    case OPERAND_STEP:
        return c.at < img->n_steps && c.n < STEP_FIELD_NR;
    case OPERAND_JUMP:
        return c.at <= left;
    case OPERAND_BRANCH:
        return c.n <= left && c.at <= left - c.n;
    case OPERAND_COUNT:
        return c.n <= CODE_STACK_MAX;
    }
    return false;
}

static bool program_ok(const struct cox_image *img, uint32_t first, uint32_t n)
{
    uint32_t n_code = header_u32(img, H_CODE);

    if (first > n_code || n > n_code - first)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!instruction_ok(img, code_load(record(img, AT_CODE, first + i)), n - i - 1))
            return false;
    }
    return true;
}

static bool templates_ok(const struct cox_image *img)
{
    uint32_t n_links = header_u32(img, H_LINKS) - first_ref(img);
    uint64_t n_code = 0; /* programs share no code: without this, checking could cost O(templates * code) */

    for (uint32_t i = 0; i < img->n_templates; i++) {
        const uint8_t *p = record(img, AT_TEMPLATES, i);
        uint32_t len = load_u32(p + 4), first = load_u32(p + 8), meta = load_u32(p + 12);
        uint32_t flags = meta >> 24, n_refs = meta & TEMPLATE_N_MAX;

        if (flags > 7 || first > n_links || n_refs > n_links - first)
            return false;
        if (flags & TEMPLATE_CONST) {
            if (!str_ok(img, p))
                return false;
            continue;
        }
        if (load_u32(p) != n_code || !program_ok(img, load_u32(p), len))
            return false;
        n_code += len;
    }
    return true;
}

/* Edges of step i in the direction whose prefix sums are at `field` of step records. */
static uint32_t edges(const struct cox_image *img, uint32_t step, uint32_t field, uint32_t *ret_first)
{
    uint32_t first = load_u32(record(img, AT_STEPS, step) + field);
    uint32_t end = step + 1 < img->n_steps ? load_u32(record(img, AT_STEPS, step + 1) + field)
                                           : header_u32(img, H_EDGES);

    *ret_first = first;
    return end - first;
}

static bool steps_ok(const struct cox_image *img)
{
    uint32_t n_edges = header_u32(img, H_EDGES), needs_at = 0, dependants_at = 0;

    for (uint32_t i = 0; i < img->n_steps; i++) {
        const uint8_t *p = record(img, AT_STEPS, i);
        uint32_t needs = load_u32(p + 8), dependants = load_u32(p + 12);
        int8_t priority = (int8_t)p[7];
        struct cox_slice name;

        if (!image_reads(img, load_u32(p), p[4], &name) || p[5] == COX_KIND_NONE || p[5] >= COX_KIND_NR ||
            p[6] > STEP_ALLOW_FAILURE || priority < -100 || priority > 100)
            return false;
        if (needs < needs_at || needs > n_edges || dependants < dependants_at || dependants > n_edges ||
            (i == 0 && (needs != 0 || dependants != 0)))
            return false;
        if (!index_ok(load_u32(p + 16), img->n_templates) || load_u32(p + 20) >= img->n_calls ||
            !index_ok(load_u32(p + 24), img->n_calls))
            return false;
        needs_at = needs;
        dependants_at = dependants;
    }
    return true;
}

/* The two directions say the same, and no edge is there twice: the engine counts them down. Dependants of a
 * step are in ascending order, so walking all needs in order meets them one after the other. */
static bool edges_ok(const struct cox_image *img)
{
    uint32_t n_edges = header_u32(img, H_EDGES);
    uint32_t *seen = cox_calloc(img->n_steps, sizeof(*seen));
    bool ok = true;

    for (uint32_t i = 0; ok && i < img->n_steps; i++) {
        uint32_t first, n = edges(img, i, 8, &first);

        for (uint32_t k = 0; ok && k < n; k++) {
            uint32_t need = link_at(img, first + k), back;

            ok = need < img->n_steps && need != i;
            if (!ok)
                break;
            uint32_t n_back = edges(img, need, 12, &back), at = seen[need]++;

            back += n_edges;
            ok = at < n_back && link_at(img, back + at) == i && (at == 0 || link_at(img, back + at - 1) != i);
        }
    }
    cox_free(seen);
    return ok;
}

static bool links_ok(const struct cox_image *img)
{
    uint32_t sorted = 2 * header_u32(img, H_EDGES);

    for (uint32_t i = sorted; i < header_u32(img, H_LINKS); i++) {
        if (link_at(img, i) >= img->n_steps)
            return false;
    }
    for (uint32_t i = sorted + 1; i < first_ref(img); i++) {
        if (cox_slice_cmp(step_name(img, link_at(img, i - 1)), step_name(img, link_at(img, i))) >= 0)
            return false;
    }
    return edges_ok(img);
}

enum cox_err cox_image_open(struct cox_image *ret, struct cox_slice bytes)
{
    struct cox_image img = { .bytes = bytes };

    if (bytes.len < H_LEN || bytes.len > UINT32_MAX || memcmp(bytes.data, MAGIC, MAGIC_LEN) != 0 ||
        header_u32(&img, H_VERSION) != VERSION)
        return COX_ERR_CORRUPT;
    if (!sections_ok(&img) || !task_ok(&img) || !pairs_ok(&img) || !classes_ok(&img) || !calls_ok(&img) ||
        !templates_ok(&img) || !steps_ok(&img) || !links_ok(&img))
        return COX_ERR_CORRUPT;
    *ret = img;
    return COX_OK;
}

void cox_image_task(const struct cox_image *img, struct cox_image_task *ret)
{
    const uint8_t *h = img->bytes.data;

    *ret = (struct cox_image_task){
        .name = str_at(img, h + H_NAME),
        .inputs_json = str_at(img, h + H_INPUTS),
        .outputs_template = load_u32(h + H_OUTPUTS),
        .deadline_ms = load_i64(h + H_DEADLINE),
        .priority = (int32_t)load_u32(h + H_PRIORITY),
        .fail_fast = load_u32(h + H_FLAGS) & TASK_FAIL_FAST,
        .n_members = img->n_steps,
    };
}

void cox_image_label(const struct cox_image *img, uint32_t i, struct cox_slice *ret_name,
                     struct cox_slice *ret_value)
{
    COX_ASSERT(i < img->n_labels);
    const uint8_t *p = record(img, AT_PAIRS, i);

    *ret_name = str_at(img, p);
    *ret_value = str_at(img, p + 8);
}

const char *cox_step_kind_text(enum cox_step_kind k)
{
    static const char *const text[COX_KIND_NR] = { "", "run", "uses", "http", "jq", "task", "race", "wait", "approval" };

    COX_ASSERT(k < COX_KIND_NR);
    return text[k];
}

void cox_image_step(const struct cox_image *img, uint32_t step, struct cox_image_step *ret)
{
    COX_ASSERT(step < img->n_steps);
    const uint8_t *p = record(img, AT_STEPS, step);
    uint32_t first;

    *ret = (struct cox_image_step){
        .name = step_name(img, step),
        .kind = (enum cox_step_kind)p[5],
        .allow_failure = p[6] & STEP_ALLOW_FAILURE,
        .priority = (int8_t)p[7],
        .n_needs = edges(img, step, 8, &first),
        .n_dependants = edges(img, step, 12, &first),
        .condition = load_u32(p + 16),
        .call = load_u32(p + 20),
        .fallback = load_u32(p + 24),
        .owner = COX_IMAGE_NONE,
        .map = COX_IMAGE_NONE,
        .extras = COX_IMAGE_NONE,
    };
}

uint32_t cox_image_need(const struct cox_image *img, uint32_t step, uint32_t i)
{
    COX_ASSERT(step < img->n_steps);
    uint32_t first, n = edges(img, step, 8, &first);

    COX_ASSERT(i < n);
    return link_at(img, first + i);
}

uint32_t cox_image_dependant(const struct cox_image *img, uint32_t step, uint32_t i)
{
    COX_ASSERT(step < img->n_steps);
    uint32_t first, n = edges(img, step, 12, &first);

    COX_ASSERT(i < n);
    return link_at(img, header_u32(img, H_EDGES) + first + i);
}

uint32_t cox_image_find_step(const struct cox_image *img, struct cox_slice name)
{
    uint32_t sorted = 2 * header_u32(img, H_EDGES), low = 0, high = img->n_steps;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2, step = link_at(img, sorted + mid);
        int order = cox_slice_cmp(step_name(img, step), name);

        if (order == 0)
            return step;
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return COX_IMAGE_NONE;
}

void cox_image_call(const struct cox_image *img, uint32_t call, struct cox_image_call *ret)
{
    COX_ASSERT(call < img->n_calls);
    const uint8_t *p = record(img, AT_CALLS, call);
    const uint8_t *policy = record(img, AT_POLICIES, load_u32(p + 8));

    *ret = (struct cox_image_call){
        .kind = (enum cox_step_kind)load_u32(p + 12),
        .class_index = load_u32(p),
        .spec_template = load_u32(p + 4),
        .timeout_ms = load_i64(policy),
        .initial_backoff_ms = load_i64(policy + 8),
        .max_backoff_ms = load_i64(policy + 16),
        .max_attempts = load_u32(policy + 24),
        .multiplier_milli = load_u32(policy + 28),
        .retry_on = load_u32(policy + 32),
        .approvers = COX_IMAGE_NONE,
    };
}

void cox_image_class(const struct cox_image *img, uint32_t cls, struct cox_image_class *ret)
{
    COX_ASSERT(cls < img->n_classes);
    const uint8_t *p = record(img, AT_CLASSES, cls);

    *ret = (struct cox_image_class){
        .key = str_at(img, p),
        .handler = str_at(img, p + 8),
        .resources = { .cpu_milli = load_i64(p + 24),
                       .memory_bytes = load_i64(p + 32),
                       .disk_bytes = load_i64(p + 40) },
        .n_requires = load_u32(p + 20),
    };
}

void cox_image_require(const struct cox_image *img, uint32_t cls, uint32_t i, struct cox_slice *ret_label,
                       struct cox_slice *ret_value, bool *ret_negated)
{
    COX_ASSERT(cls < img->n_classes);
    const uint8_t *class_record = record(img, AT_CLASSES, cls);

    COX_ASSERT(i < load_u32(class_record + 20));
    const uint8_t *p = record(img, AT_PAIRS, load_u32(class_record + 16) + i);

    *ret_label = str_at(img, p);
    *ret_value = str_at(img, p + 8);
    *ret_negated = load_u32(p + 16) != 0;
}

void cox_image_template(const struct cox_image *img, uint32_t t, struct cox_image_template *ret)
{
    COX_ASSERT(t < img->n_templates);
    const uint8_t *p = record(img, AT_TEMPLATES, t);
    uint32_t flags = load_u32(p + 12) >> 24;

    *ret = (struct cox_image_template){
        .is_const = flags & TEMPLATE_CONST,
        .json = flags & TEMPLATE_CONST ? str_at(img, p) : cox_slice(NULL, 0),
        .reads_inputs = flags & TEMPLATE_INPUTS,
        .reads_error = flags & TEMPLATE_ERROR,
        .n_steps = load_u32(p + 12) & TEMPLATE_N_MAX,
    };
}

uint32_t cox_image_template_step(const struct cox_image *img, uint32_t t, uint32_t i)
{
    COX_ASSERT(t < img->n_templates);
    const uint8_t *p = record(img, AT_TEMPLATES, t);

    COX_ASSERT(i < (load_u32(p + 12) & TEMPLATE_N_MAX));
    return link_at(img, first_ref(img) + load_u32(p + 8) + i);
}

struct cox_slice image_code(const struct cox_image *img, uint32_t t)
{
    COX_ASSERT(t < img->n_templates);
    const uint8_t *p = record(img, AT_TEMPLATES, t);

    if (load_u32(p + 12) >> 24 & TEMPLATE_CONST)
        return cox_slice(NULL, 0);
    return cox_slice(record(img, AT_CODE, load_u32(p)), (size_t)load_u32(p + 4) * CODE_LEN);
}

uint32_t cox_image_n_refs(const struct cox_image *img)
{
    (void)img;
    return 0;
}

struct cox_slice cox_image_ref(const struct cox_image *img, uint32_t i)
{
    (void)img, (void)i;
    return cox_slice(NULL, 0);
}

void cox_image_extras(const struct cox_image *img, uint32_t extras, struct cox_image_extras *ret)
{
    (void)img, (void)extras;
    *ret = (struct cox_image_extras){ .concurrency_key = COX_IMAGE_NONE };
}

void cox_image_map(const struct cox_image *img, uint32_t map, struct cox_image_map *ret)
{
    (void)img, (void)map;
    *ret = (struct cox_image_map){ .over = COX_IMAGE_NONE };
}
