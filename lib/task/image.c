/* The flat image's reader; image_layout.h has the layout, image_check.c what an opened image can be relied on
 * for. */
#include "image_layout.h"

#include "cox/base/err.h"

const uint32_t image_record_len[AT_NR] = {
    STEP_LEN, CALL_LEN,   POLICY_LEN, CLASS_LEN, PAIR_LEN,   TEMPLATE_LEN, LINK_LEN,
    CODE_LEN, DETAIL_LEN, MORE_LEN,   MAP_LEN,   EXTRAS_LEN, INPUT_LEN,    REF_LEN,
};

#define CODE_INFO(name, operand, takes, leaves) { OPERAND_##operand, takes, leaves },
const struct op_info op_info[OP_NR] = { CODE_TABLE(CODE_INFO) };

bool image_reads(const struct cox_image *img, uint32_t at, uint32_t len, struct cox_slice *ret)
{
    uint32_t first = header_len(img), end = img->at[AT_STEPS];

    if (at < first || at > end || len > end - at)
        return false;
    *ret = cox_slice(img->bytes.data + at, len);
    return true;
}

void cox_image_task(const struct cox_image *img, struct cox_image_task *ret)
{
    const uint8_t *h = img->bytes.data;
    bool first_version = image_version(img) == VERSION_1, has_budget = image_version(img) >= VERSION;

    *ret = (struct cox_image_task){
        .name = str_at(img, h + H_NAME),
        .inputs_json = str_at(img, h + H_INPUTS),
        .outputs_template = load_u32(h + H_OUTPUTS),
        .deadline_ms = load_i64(h + H_DEADLINE),
        .priority = (int32_t)load_u32(h + H_PRIORITY),
        .fail_fast = load_u32(h + H_FLAGS) & TASK_FAIL_FAST,
        .outputs_always = load_u32(h + H_FLAGS) & TASK_OUTPUTS_ALWAYS,
        .n_members = first_version ? img->n_steps : load_u32(h + H_MEMBERS),
        .bundle = first_version ? cox_slice(NULL, 0) : str_at(img, h + H_BUNDLE),
    };
    for (uint32_t i = 0; i < COX_BUDGET_NR; i++)
        ret->budget[i] = has_budget ? (uint64_t)load_i64(h + H_BUDGET + 8 * i) : COX_BUDGET_NONE;
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
    static const char *const text[COX_KIND_NR] = { "",     "run",   "uses", "http",     "jq",
                                                   "task", "race",  "wait", "approval", "model",
                                                   "mcp",  "agent", "plan" };

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
        .n_needs = step_edges(img, step, STEP_NEEDS, &first),
        .n_dependants = step_edges(img, step, STEP_DEPENDANTS, &first),
        .condition = load_u32(p + 16),
        .call = load_u32(p + 20),
        .fallback = load_u32(p + 24),
        .owner = COX_IMAGE_NONE,
        .is_body = p[6] & STEP_BODY,
        .map = COX_IMAGE_NONE,
        .extras = COX_IMAGE_NONE,
        .idempotent = p[6] & STEP_IDEMPOTENT,
    };
    if (!(p[6] & STEP_MORE))
        return;
    const uint8_t *more = record(img, AT_MORES, ret->condition);

    ret->condition = load_u32(more);
    ret->owner = load_u32(more + 4);
    ret->n_inner = load_u32(more + 8);
    ret->map = load_u32(more + 12);
    ret->extras = load_u32(more + 16);
}

uint32_t cox_image_n_extras(const struct cox_image *img)
{
    return image_count(img, AT_EXTRAS);
}

void cox_image_extras(const struct cox_image *img, uint32_t extras, struct cox_image_extras *ret)
{
    COX_ASSERT(extras < image_count(img, AT_EXTRAS));
    const uint8_t *p = record(img, AT_EXTRAS, extras);

    *ret = (struct cox_image_extras){
        .affinity = (enum cox_affinity_kind)load_u32(p),
        .affinity_step = load_u32(p + 4),
        .spread = str_at(img, p + 8),
        .concurrency_key = load_u32(p + 16),
        .concurrency_limit = load_u32(p + 20),
        .rate_key = load_u32(p + 24),
        .artifacts = load_u32(p + 28),
        .rate_per_minute_milli = (uint64_t)load_i64(p + 32),
    };
}

void cox_image_map(const struct cox_image *img, uint32_t map, struct cox_image_map *ret)
{
    COX_ASSERT(map < image_count(img, AT_MAPS));
    const uint8_t *p = record(img, AT_MAPS, map);

    *ret = (struct cox_image_map){
        .over = load_u32(p),
        .max_parallel = load_u32(p + 4),
        .batch = load_u32(p + 8),
        .tolerate_ppm = load_u32(p + 12) & MAP_PPM,
        .tolerate = (uint64_t)load_i64(p + 16),
    };
}

uint32_t cox_image_need(const struct cox_image *img, uint32_t step, uint32_t i)
{
    COX_ASSERT(step < img->n_steps);
    uint32_t first, n = step_edges(img, step, STEP_NEEDS, &first);

    COX_ASSERT(i < n);
    return link_at(img, first + i);
}

uint32_t cox_image_dependant(const struct cox_image *img, uint32_t step, uint32_t i)
{
    COX_ASSERT(step < img->n_steps);
    uint32_t first, n = step_edges(img, step, STEP_DEPENDANTS, &first);

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
    if (cox_step_kind_is_leaf(ret->kind))
        return;
    const uint8_t *detail = record(img, AT_DETAILS, ret->class_index);
    uint32_t kinds = load_u32(detail + 28);

    ret->class_index = COX_IMAGE_NONE;
    ret->ref = str_at(img, detail);
    ret->wait_ms = load_i64(detail + 8);
    ret->approvers = load_u32(detail + 16);
    ret->inner_first = load_u32(detail + 20);
    ret->inner_n = load_u32(detail + 24);
    ret->wait = (enum cox_wait_kind)(kinds & 0xff);
    ret->on_expire = (enum cox_on_expire)(kinds >> 8);
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
        .reads_item = flags & TEMPLATE_ITEM,
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
    return image_count(img, AT_REFS);
}

struct cox_slice cox_image_ref(const struct cox_image *img, uint32_t i)
{
    COX_ASSERT(i < image_count(img, AT_REFS));
    return str_at(img, record(img, AT_REFS, i));
}
