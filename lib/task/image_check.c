/* cox_image_open: what makes the bytes of an image safe to read and to run, whoever wrote them. */
#include "image_layout.h"

#include "cox/base/alloc.h"
#include "cox/base/err.h"
#include "cox/limits.h"

#include <string.h>

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

    if (at < header_len(img))
        return false;
    for (uint32_t s = 0; s < AT_NR; s++) {
        if (at > img->bytes.len)
            return false;
        img->at[s] = (uint32_t)at;
        at += (uint64_t)image_count(img, s) * image_record_len[s];
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

    if (image_version(img) != VERSION_1 &&
        (!str_ok(img, h + H_BUNDLE) || load_u32(h + H_FLAGS) > (TASK_FAIL_FAST | TASK_OUTPUTS_ALWAYS)))
        return false;
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

static bool call_ok(const struct cox_image *img, const uint8_t *p)
{
    uint32_t kind = load_u32(p + 12),
             last = image_version(img) == VERSION_1 ? COX_KIND_USES : COX_KIND_NR - 1;
    uint32_t what = load_u32(p), spec = load_u32(p + 4);

    if (kind == COX_KIND_NONE || kind > last || load_u32(p + 8) >= image_count(img, AT_POLICIES))
        return false;
    if (cox_step_kind_is_leaf((enum cox_step_kind)kind))
        return what < img->n_classes && spec < img->n_templates;
    if (what >= image_count(img, AT_DETAILS))
        return false;
    uint32_t wait = load_u32(record(img, AT_DETAILS, what) + 28) & 0xff;

    if ((kind == COX_KIND_WAIT) != (wait != COX_WAIT_NONE))
        return false;
    if (kind == COX_KIND_RACE || wait == COX_WAIT_FOR || wait == COX_WAIT_SIGNAL)
        return spec == COX_IMAGE_NONE;
    return spec < img->n_templates;
}

static bool calls_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < image_count(img, AT_POLICIES); i++) {
        const uint8_t *p = record(img, AT_POLICIES, i);

        if (load_i64(p) < 0 || load_i64(p + 8) < 0 || load_i64(p + 16) < 0 || load_u32(p + 24) < 1 ||
            load_u32(p + 32) >> COX_CODE_NR != 0)
            return false;
    }
    for (uint32_t i = 0; i < image_count(img, AT_DETAILS); i++) {
        const uint8_t *p = record(img, AT_DETAILS, i);
        uint32_t kinds = load_u32(p + 28);

        if (!str_ok(img, p) || load_i64(p + 8) < 0 || !index_ok(load_u32(p + 16), img->n_templates) ||
            (kinds & 0xff) > COX_WAIT_SIGNAL || kinds >> 8 > COX_EXPIRE_REJECT)
            return false;
    }
    for (uint32_t i = 0; i < img->n_calls; i++) {
        if (!call_ok(img, record(img, AT_CALLS, i)))
            return false;
    }
    return true;
}

static bool maps_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < image_count(img, AT_MAPS); i++) {
        const uint8_t *p = record(img, AT_MAPS, i);
        struct cox_image_map map;

        cox_image_map(img, i, &map);
        if (map.over >= img->n_templates || map.batch < 1 || map.batch > COX_MAP_BATCH_MAX ||
            load_u32(p + 12) > MAP_PPM || (map.tolerate_ppm && map.tolerate > COX_MAP_PPM_ALL))
            return false;
    }
    return true;
}

static bool extras_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < image_count(img, AT_EXTRAS); i++) {
        const uint8_t *p = record(img, AT_EXTRAS, i);
        struct cox_image_extras x;

        if (load_u32(p) > COX_AFFINITY_SPREAD || !str_ok(img, p + 8))
            return false;
        cox_image_extras(img, i, &x);
        if (!index_ok(x.concurrency_key, img->n_templates) || !index_ok(x.rate_key, img->n_templates) ||
            !index_ok(x.artifacts, img->n_templates) ||
            (x.concurrency_key != COX_IMAGE_NONE && x.concurrency_limit < 1) ||
            (x.rate_key != COX_IMAGE_NONE && x.rate_per_minute_milli < 1))
            return false;
    }
    return true;
}

static bool lists_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < image_count(img, AT_INPUTS); i++) {
        const uint8_t *p = record(img, AT_INPUTS, i);

        if (!str_ok(img, p) || !str_ok(img, p + 8))
            return false;
    }
    for (uint32_t i = 0; i < image_count(img, AT_REFS); i++) {
        if (!str_ok(img, record(img, AT_REFS, i)))
            return false;
    }
    return true;
}

/* A step of the document's own: expressions see no other. */
static bool own_step(const struct cox_image *img, uint32_t i)
{
    struct cox_image_step step;

    if (i >= img->n_steps)
        return false;
    if (!(record(img, AT_STEPS, i)[6] & STEP_MORE))
        return true;
    cox_image_step(img, i, &step);
    return step.owner == COX_IMAGE_NONE;
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
        return own_step(img, c.at) && c.n < STEP_FIELD_NR;
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

        if (flags > (image_version(img) == VERSION_1 ? TEMPLATE_ITEM - 1 : 2 * TEMPLATE_ITEM - 1) ||
            first > n_links || n_refs > n_links - first)
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

/* The record of a step, without what it says about other steps. */
static bool step_ok(const struct cox_image *img, uint32_t i)
{
    bool first_version = image_version(img) == VERSION_1;
    const uint8_t *p = record(img, AT_STEPS, i);
    int8_t priority = (int8_t)p[7];
    struct cox_slice name;

    if (!image_reads(img, load_u32(p), p[4], &name) || p[5] == COX_KIND_NONE ||
        p[5] > (first_version ? COX_KIND_USES : COX_KIND_NR - 1) ||
        p[6] > (first_version ? STEP_ALLOW_FAILURE : STEP_FLAGS) || priority < -100 || priority > 100)
        return false;
    if (p[6] & STEP_MORE && load_u32(p + 16) >= image_count(img, AT_MORES))
        return false;
    struct cox_image_step step;

    cox_image_step(img, i, &step);
    return index_ok(step.condition, img->n_templates) && index_ok(step.call, img->n_calls) &&
           index_ok(step.fallback, img->n_calls) && index_ok(step.map, image_count(img, AT_MAPS)) &&
           index_ok(step.extras, image_count(img, AT_EXTRAS));
}

static bool steps_ok(const struct cox_image *img)
{
    uint32_t n_edges = header_u32(img, H_EDGES), needs_at = 0, dependants_at = 0;

    for (uint32_t i = 0; i < img->n_steps; i++) {
        const uint8_t *p = record(img, AT_STEPS, i);
        uint32_t needs = load_u32(p + STEP_NEEDS), dependants = load_u32(p + STEP_DEPENDANTS);

        if (needs < needs_at || needs > n_edges || dependants < dependants_at || dependants > n_edges ||
            (i == 0 && (needs != 0 || dependants != 0)))
            return false;
        needs_at = needs;
        dependants_at = dependants;
    }
    for (uint32_t i = 0; i < img->n_steps; i++) {
        if (!step_ok(img, i))
            return false;
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
        uint32_t first, n = step_edges(img, i, STEP_NEEDS, &first);

        for (uint32_t k = 0; ok && k < n; k++) {
            uint32_t need = link_at(img, first + k), back;

            ok = need < img->n_steps && need != i;
            if (!ok)
                break;
            uint32_t n_back = step_edges(img, need, STEP_DEPENDANTS, &back), at = seen[need]++;

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
        if (i < first_ref(img) ? link_at(img, i) >= img->n_steps : !own_step(img, link_at(img, i)))
            return false;
    }
    for (uint32_t i = sorted + 1; i < first_ref(img); i++) {
        if (cox_slice_cmp(step_name(img, link_at(img, i - 1)), step_name(img, link_at(img, i))) >= 0)
            return false;
    }
    return edges_ok(img);
}

/* ---- inner steps ---- */

/* What owns inner steps, from the outermost in. The deepest: agents in an agent in races in a race in the
 * body of a map. */
#define OWNERS_MAX (COX_RACE_DEPTH_MAX + COX_AGENT_DEPTH_MAX + 4)

struct owners {
    uint32_t step[OWNERS_MAX];
    uint32_t end[OWNERS_MAX]; /* the last inner step of each */
    uint32_t n;
};

static bool call_is(const struct cox_image *img, uint32_t call, enum cox_step_kind kind)
{
    return call != COX_IMAGE_NONE && load_u32(record(img, AT_CALLS, call) + 12) == kind;
}

static bool call_has_turns(const struct cox_image *img, uint32_t call)
{
    return call_is(img, call, COX_KIND_AGENT) || call_is(img, call, COX_KIND_PLAN);
}

/* The bodies of an agent are inner steps of the step that runs it: its model, its approval, and its tools. */
static bool turns_ok(const struct cox_image *img, uint32_t owner, uint32_t n_inner, uint32_t call)
{
    static const enum cox_step_kind kinds[] = {
        [COX_TURN_MODEL] = COX_KIND_MODEL, [COX_TURN_APPROVAL] = COX_KIND_APPROVAL
    };
    struct cox_image_call turns;

    if (!call_has_turns(img, call))
        return true;
    cox_image_call(img, call, &turns);
    uint64_t at = turns.inner_first, end = at + turns.inner_n;

    if (turns.inner_n < COX_TURN_TOOLS || at <= owner || end > (uint64_t)owner + n_inner + 1)
        return false;
    for (uint32_t i = 0; at < end; i++) {
        struct cox_image_step inner;

        cox_image_step(img, (uint32_t)at, &inner);
        if (inner.owner != owner || !inner.is_body ||
            (i < COX_TURN_TOOLS && !call_is(img, inner.call, kinds[i])))
            return false;
        at += 1 + (uint64_t)inner.n_inner;
    }
    return at == end;
}

/* Alternatives of a race are inner steps of the step that runs it, and of no other. */
static bool race_ok(const struct cox_image *img, uint32_t owner, uint32_t n_inner, uint32_t call)
{
    struct cox_image_call race;

    if (call == COX_IMAGE_NONE)
        return true;
    cox_image_call(img, call, &race);
    if (race.kind != COX_KIND_RACE)
        return true;
    uint64_t at = race.inner_first;

    for (uint32_t i = 0; i < race.inner_n; i++) {
        struct cox_image_step inner;

        if (at <= owner || at > (uint64_t)owner + n_inner)
            return false;
        cox_image_step(img, (uint32_t)at, &inner);
        if (inner.owner != owner || inner.is_body)
            return false;
        at += 1 + (uint64_t)inner.n_inner;
    }
    return race.inner_n > 0;
}

static bool body_ok(const struct cox_image *img, uint32_t i, const struct cox_image_step *step)
{
    struct cox_image_step body;

    if (step->call != COX_IMAGE_NONE)
        return true;
    if (step->map == COX_IMAGE_NONE || step->n_inner < 1 || cox_step_kind_is_leaf(step->kind))
        return false;
    cox_image_step(img, i + 1, &body);
    return body.is_body;
}

static bool inner_ok(const struct cox_image *img, uint32_t i, const struct cox_image_step *step)
{
    struct cox_image_step owner;
    bool of_map, of_agent;

    if (step->n_needs > 0 || step->n_dependants > 0 || step->call == COX_IMAGE_NONE ||
        step->fallback != COX_IMAGE_NONE || step->condition != COX_IMAGE_NONE || step->map != COX_IMAGE_NONE)
        return false;
    cox_image_step(img, step->owner, &owner);
    of_map = i == step->owner + 1 && owner.map != COX_IMAGE_NONE && owner.call == COX_IMAGE_NONE;
    of_agent = call_has_turns(img, owner.call) || call_has_turns(img, owner.fallback);
    if (step->extras != COX_IMAGE_NONE && !(step->is_body && of_agent))
        return false;
    return !step->is_body || of_map || of_agent;
}

/* Inner steps lie behind their owners, properly nested; the header's count of members is right. */
static bool inner_steps_ok(const struct cox_image *img)
{
    struct owners open = { .n = 0 };
    uint64_t n_members = 0, body_end = 0; /* the first step behind the bodies so far */

    for (uint32_t i = 0; i < img->n_steps; i++) {
        struct cox_image_step step;

        while (open.n > 0 && open.end[open.n - 1] < i)
            open.n--;
        if (open.n == 0 && !(record(img, AT_STEPS, i)[6] & (STEP_MORE | STEP_BODY))) {
            n_members++;
            continue;
        }
        cox_image_step(img, i, &step);
        uint32_t owner = open.n > 0 ? open.step[open.n - 1] : COX_IMAGE_NONE;
        uint32_t end = open.n > 0 ? open.end[open.n - 1] : img->n_steps - 1;

        if (step.owner != owner || step.n_inner > end - i || (owner == COX_IMAGE_NONE && step.is_body) ||
            (owner != COX_IMAGE_NONE && !inner_ok(img, i, &step)))
            return false;
        if (step.n_inner > 0) {
            if (open.n == OWNERS_MAX)
                return false;
            open.step[open.n] = i;
            open.end[open.n++] = i + step.n_inner;
        }
        if (step.is_body && i >= body_end)
            body_end = (uint64_t)i + step.n_inner + 1;
        n_members += i >= body_end;
    }
    return image_version(img) == VERSION_1 || n_members == header_u32(img, H_MEMBERS);
}

static bool owners_ok(const struct cox_image *img)
{
    for (uint32_t i = 0; i < img->n_steps; i++) {
        const uint8_t *p = record(img, AT_STEPS, i);
        uint32_t call = load_u32(p + 20), fallback = load_u32(p + 24);
        struct cox_image_step step;

        if (call != COX_IMAGE_NONE && !call_is(img, call, COX_KIND_RACE) &&
            !call_is(img, fallback, COX_KIND_RACE) && !call_has_turns(img, call) &&
            !call_has_turns(img, fallback))
            continue;
        cox_image_step(img, i, &step);
        if (!body_ok(img, i, &step) || !race_ok(img, i, step.n_inner, step.call) ||
            !race_ok(img, i, step.n_inner, step.fallback) || !turns_ok(img, i, step.n_inner, step.call) ||
            !turns_ok(img, i, step.n_inner, step.fallback))
            return false;
    }
    return true;
}

/* ---- affinity ---- */

/* The step whose worker step i goes to, or COX_IMAGE_NONE. */
static uint32_t followed(const struct cox_image *img, uint32_t i)
{
    struct cox_image_extras extras;
    struct cox_image_step step;

    cox_image_step(img, i, &step);
    if (step.extras == COX_IMAGE_NONE)
        return COX_IMAGE_NONE;
    cox_image_extras(img, step.extras, &extras);
    return extras.affinity == COX_AFFINITY_WORKSPACE || extras.affinity == COX_AFFINITY_STEP
               ? extras.affinity_step
               : COX_IMAGE_NONE;
}

/* What an agent's tools follow. */
static bool owns(const struct cox_image *img, uint32_t owner, uint32_t i)
{
    struct cox_image_step step;

    cox_image_step(img, i, &step);
    return step.owner == owner;
}

/* Following comes to an end from every step: who asks where one runs may loop. Each step is walked over once:
 * walks[i] is the walk, from 1, that met step i. */
static bool affinity_ok(const struct cox_image *img)
{
    if (image_count(img, AT_EXTRAS) == 0)
        return true;
    uint32_t *walks = cox_calloc(img->n_steps, sizeof(*walks));
    bool ok = true;

    for (uint32_t i = 0; ok && i < img->n_steps; i++) {
        uint32_t step = i;

        while (ok && step < img->n_steps && walks[step] == 0) {
            uint32_t from = step;

            walks[step] = i + 1;
            step = followed(img, step);
            ok = step == COX_IMAGE_NONE || own_step(img, step) || owns(img, step, from);
        }
        ok = ok && (step == COX_IMAGE_NONE || walks[step] != i + 1);
    }
    cox_free(walks);
    return ok;
}

/* Most tasks have none of it, and whoever walks over their steps need not look at each. */
static void note_kinds(struct cox_image *img)
{
    struct cox_image_step step;
    struct cox_image_call call;

    for (uint32_t i = 0; i < img->n_calls && !img->expands; i++) {
        cox_image_call(img, i, &call);
        img->expands = !cox_step_kind_is_leaf(call.kind);
    }
    for (uint32_t i = 0; i < img->n_classes && !img->has_models; i++) {
        struct cox_image_class cls;

        cox_image_class(img, i, &cls);
        img->has_models = cox_slice_is(cls.handler, cox_step_kind_text(COX_KIND_MODEL));
    }
    for (uint32_t i = 0; i < img->n_steps && !img->has_inner; i++) {
        cox_image_step(img, i, &step);
        img->expands = img->expands || step.map != COX_IMAGE_NONE;
        img->has_inner = step.owner != COX_IMAGE_NONE;
    }
}

enum cox_err cox_image_open(struct cox_image *ret, struct cox_slice bytes)
{
    struct cox_image img = { .bytes = bytes };

    if (bytes.len < H_LEN_1 || bytes.len > UINT32_MAX || memcmp(bytes.data, MAGIC, MAGIC_LEN) != 0)
        return COX_ERR_CORRUPT;
    if (image_version(&img) < VERSION_1 || image_version(&img) > VERSION || bytes.len < header_len(&img))
        return COX_ERR_CORRUPT;
    if (!sections_ok(&img) || !task_ok(&img) || !pairs_ok(&img) || !classes_ok(&img) || !calls_ok(&img) ||
        !maps_ok(&img) || !extras_ok(&img) || !lists_ok(&img) || !steps_ok(&img) || !templates_ok(&img) ||
        !links_ok(&img) || !inner_steps_ok(&img) || !owners_ok(&img) || !affinity_ok(&img))
        return COX_ERR_CORRUPT;
    note_kinds(&img);
    *ret = img;
    return COX_OK;
}
