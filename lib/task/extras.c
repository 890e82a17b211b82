/* What few steps have: `map`, `affinity`, `concurrency`, `rate` and `artifacts`. */
#include "compile.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_MAX 1000000
#define PER_MINUTE_MAX 1e9
#define PPM_A_PERCENT 10000u

enum { MAP_OVER, MAP_AS, MAP_MAX_PARALLEL, MAP_BATCH, MAP_TOLERATE, MAP_NR };
static const struct field map_fields[MAP_NR] = {
    { "over", WANT_STRING | WANT_LIST, FIELD_REQUIRED, "a list, or one expression that comes to one" },
    { "as", WANT_STRING, FIELD_OPTIONAL, "a name of a-z, 0-9 and _" },
    { "max_parallel", WANT_ANY, FIELD_OPTIONAL, "" },
    { "batch", WANT_ANY, FIELD_OPTIONAL, "" },
    { "tolerate_failures", WANT_ANY, FIELD_OPTIONAL, "" },
};

enum { AFFINITY_WORKSPACE, AFFINITY_STEP, AFFINITY_SPREAD, AFFINITY_NR };
static const struct field affinity_fields[AFFINITY_NR] = {
    { "workspace", WANT_STRING, FIELD_OPTIONAL, "the name of a step" },
    { "step", WANT_STRING, FIELD_OPTIONAL, "the name of a step" },
    { "spread", WANT_STRING | WANT_BOOL, FIELD_OPTIONAL, "true, or a string that its like share" },
};

enum { SHARE_KEY, SHARE_HOW_MANY, SHARE_NR };
static const struct field concurrency_fields[SHARE_NR] = {
    { "key", WANT_STRING, FIELD_REQUIRED, "a string" },
    { "limit", WANT_ANY, FIELD_REQUIRED, "an integer" },
};
static const struct field rate_fields[SHARE_NR] = {
    { "key", WANT_STRING, FIELD_REQUIRED, "a string" },
    { "per_minute", WANT_NUMBER, FIELD_REQUIRED, "a number above 0" },
};

/* ---- map ---- */

static void compile_as(struct compiler *c, const struct place *at, const json_t *as)
{
    static const char *const taken[] = { "inputs",  "steps", "args",  "item", "index", "error",
                                         "secrets", "true",  "false", "null", "in" };
    struct place here = place_key(at, "as");

    if (!name_ok(json_slice(as), false))
        report_found(&c->report, &here, as, "a name of a-z, 0-9 and _, at most 63 long, no digit first");
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        if (strcmp(json_string_value(as), taken[i]) == 0)
            report_at(&c->report, &here, "found `%s`, which expressions know already; expected another name",
                      taken[i]);
    }
}

/* "1%", "0.25%": parts in a million, four digits behind the point at most. */
static bool parse_percentage(struct cox_slice s, uint64_t *ret_ppm)
{
    uint64_t ppm = 0, place = PPM_A_PERCENT;
    bool point = false;

    if (s.len < 2 || s.data[s.len - 1] != '%' || s.data[0] == '.' || s.data[s.len - 2] == '.')
        return false;
    for (size_t i = 0; i + 1 < s.len; i++) {
        if (s.data[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (s.data[i] < '0' || s.data[i] > '9' || (point && place == 1))
            return false;
        uint64_t digit = (uint64_t)(s.data[i] - '0');

        if (point)
            ppm += digit * (place /= 10);
        else
            ppm = ppm * 10 + digit * PPM_A_PERCENT;
        if (ppm > COX_MAP_PPM_ALL)
            return false;
    }
    *ret_ppm = ppm;
    return true;
}

static void compile_tolerate(struct compiler *c, const struct place *at, const json_t *v,
                             struct cox_image_map *ret)
{
    struct place here = place_key(at, "tolerate_failures");

    ret->tolerate_ppm = json_is_string(v);
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= COX_MAP_ITEMS_MAX)
        ret->tolerate = (uint64_t)json_integer_value(v);
    else if (!json_is_string(v) || !parse_percentage(json_slice(v), &ret->tolerate))
        report_found(&c->report, &here, v,
                     "a number of items such as 3, or a percentage such as \"1%\" or \"0.25%\"");
}

uint32_t compile_map(struct compiler *c, const struct place *at, const struct scope *scope, json_t *map,
                     enum cox_step_kind kind, const char **ret_as)
{
    struct place over = place_key(at, "over"), parallel_at = place_key(at, "max_parallel");
    struct place batch_at = place_key(at, "batch");
    struct cox_image_map image = { .batch = 1 };
    int64_t max_parallel = 0, batch = 1;
    json_t *f[MAP_NR];

    if (!fields_check(&c->report, at, map, "an object such as {\"over\": \"${{ inputs.list }}\"}", map_fields,
                      MAP_NR, f))
        return COX_IMAGE_NONE;
    if (f[MAP_OVER] && json_is_string(f[MAP_OVER]) && !template_is_expr(json_slice(f[MAP_OVER])))
        report_found(&c->report, &over, f[MAP_OVER], map_fields[MAP_OVER].expected);
    else if (f[MAP_OVER])
        image.over = compile_template(c, scope, &over, f[MAP_OVER]);
    if (f[MAP_AS])
        compile_as(c, at, f[MAP_AS]);
    *ret_as = json_string_value(f[MAP_AS]);
    if (f[MAP_MAX_PARALLEL])
        field_integer(&c->report, &parallel_at, f[MAP_MAX_PARALLEL], 1, COX_MAP_ITEMS_MAX, &max_parallel);
    if (f[MAP_BATCH])
        field_integer(&c->report, &batch_at, f[MAP_BATCH], 1, COX_MAP_BATCH_MAX, &batch);
    if (f[MAP_BATCH] && kind != COX_KIND_NONE && !cox_step_kind_is_worker(kind))
        report_at(&c->report, &batch_at, "items of this kind are not dispatched to workers; " EXPECTED_LEAF);
    if (f[MAP_TOLERATE])
        compile_tolerate(c, at, f[MAP_TOLERATE], &image);
    image.max_parallel = (uint32_t)max_parallel;
    image.batch = (uint32_t)batch;
    return image_put_map(&c->image, &image);
}

/* ---- affinity ---- */

/* A step to follow must run once, on a worker; to share its files, it may be an agent whose tools do. The
 * reference implies `needs`, so following never goes round. */
static uint32_t followed_step(struct compiler *c, const struct place *at, const struct scope *scope,
                              const json_t *name, bool files)
{
    static const char *const leaf[] = { "run", "uses", "http", "jq", "mcp" };
    uint32_t step = compile_step_name(c, scope, at, name);
    const json_t *body = step == COX_IMAGE_NONE ? NULL : json_object_get(c->steps, json_string_value(name));

    if (step == COX_IMAGE_NONE || !json_is_object(body))
        return 0;
    if (json_object_get(body, "map"))
        report_at(&c->report, at, "the step `%s` has a `map`: its items run in many places",
                  c->plan[step].name);
    for (size_t i = 0; i < sizeof(leaf) / sizeof(leaf[0]); i++) {
        if (json_object_get(body, leaf[i]))
            return step;
    }
    if (files && json_object_get(body, "agent"))
        return step;
    report_at(&c->report, at,
              "the step `%s` runs on no worker; expected one with `run`, `uses`, `http`, `jq` or `mcp`",
              c->plan[step].name);
    return step;
}

static void compile_affinity(struct compiler *c, const struct place *at, const struct scope *scope,
                             json_t *affinity, struct cox_image_extras *ret)
{
    struct place workspace = place_key(at, "workspace"), step = place_key(at, "step");
    struct place spread = place_key(at, "spread");
    json_t *f[AFFINITY_NR];

    fields_check(&c->report, at, affinity, "an object", affinity_fields, AFFINITY_NR, f);
    if (json_object_size(affinity) != 1) {
        report_at(&c->report, at, "expected exactly one of `workspace`, `step` and `spread`");
    } else if (f[AFFINITY_WORKSPACE]) {
        ret->affinity = COX_AFFINITY_WORKSPACE;
        ret->affinity_step = followed_step(c, &workspace, scope, f[AFFINITY_WORKSPACE], true);
    } else if (f[AFFINITY_STEP]) {
        ret->affinity = COX_AFFINITY_STEP;
        ret->affinity_step = followed_step(c, &step, scope, f[AFFINITY_STEP], false);
    } else if (json_is_string(f[AFFINITY_SPREAD])) {
        ret->affinity = COX_AFFINITY_SPREAD;
        ret->spread = json_slice(f[AFFINITY_SPREAD]);
        if (ret->spread.len < 1 || ret->spread.len > COX_LABEL_LEN_MAX ||
            strstr((const char *)ret->spread.data, "${{"))
            report_found(&c->report, &spread, f[AFFINITY_SPREAD],
                         "true, or a string of 1 to 256 bytes without expressions");
    } else if (json_is_true(f[AFFINITY_SPREAD])) {
        ret->affinity = COX_AFFINITY_SPREAD;
    }
}

/* ---- concurrency, rate ---- */

static uint32_t compile_key(struct compiler *c, const struct place *at, const struct scope *scope,
                            const json_t *key)
{
    struct place here = place_key(at, "key");

    if (!key)
        return COX_IMAGE_NONE;
    if (json_string_length(key) == 0)
        report_found(&c->report, &here, key, "a string that is not empty");
    draft_begin(c);
    draft_value(c, scope, &here, key, EMIT_ARG);
    return draft_end(c, &here);
}

static void compile_concurrency(struct compiler *c, const struct place *at, const struct scope *scope,
                                json_t *concurrency, struct cox_image_extras *ret)
{
    struct place limit_at = place_key(at, "limit");
    int64_t limit = 1;
    json_t *f[SHARE_NR];

    fields_check(&c->report, at, concurrency, "an object", concurrency_fields, SHARE_NR, f);
    ret->concurrency_key = compile_key(c, at, scope, f[SHARE_KEY]);
    if (f[SHARE_HOW_MANY])
        field_integer(&c->report, &limit_at, f[SHARE_HOW_MANY], 1, LIMIT_MAX, &limit);
    ret->concurrency_limit = (uint32_t)limit;
}

static void compile_rate(struct compiler *c, const struct place *at, const struct scope *scope, json_t *rate,
                         struct cox_image_extras *ret)
{
    struct place per_minute = place_key(at, "per_minute");
    json_t *f[SHARE_NR];

    fields_check(&c->report, at, rate, "an object", rate_fields, SHARE_NR, f);
    ret->rate_key = compile_key(c, at, scope, f[SHARE_KEY]);
    double n = f[SHARE_HOW_MANY] ? json_number_value(f[SHARE_HOW_MANY]) : 1;

    if (n >= 0.001 && n <= PER_MINUTE_MAX)
        ret->rate_per_minute_milli = (uint64_t)(n * 1000 + 0.5);
    else
        report_found(&c->report, &per_minute, f[SHARE_HOW_MANY], "a number from 0.001 to 1000000000");
}

/* ---- artifacts ---- */

static uint32_t compile_artifacts(struct compiler *c, const struct place *at, const struct scope *scope,
                                  json_t *artifacts)
{
    const char *separator = "{", *name;
    json_t *path;

    draft_begin(c);
    json_object_foreach(artifacts, name, path)
    {
        struct place here = place_key(at, name);

        if (!name_ok(cox_slice_str(name), true))
            report_at(&c->report, &here,
                      "found the artifact name \"%.*s\", expected a name of a-z, 0-9, _ and -",
                      shown_len(cox_slice_str(name), 100), name);
        if (!json_is_string(path) ||
            (!strstr(json_string_value(path), "${{") && !path_ok(json_slice(path)))) {
            report_found(&c->report, &here, path, "a path in the working directory, without `..`");
            continue;
        }
        draft_raw(c, separator);
        cox_json_quote(&c->draft.raw, cox_slice_str(name));
        draft_raw(c, ":");
        draft_value(c, scope, &here, path, EMIT_ARG);
        separator = ",";
    }
    draft_raw(c, *separator == '{' ? "{}" : "}");
    return draft_end(c, at);
}

uint32_t compile_extras(struct compiler *c, const struct place *at, const struct scope *scope,
                        const struct extras_source *source)
{
    struct place affinity = place_key(at, "affinity"), concurrency = place_key(at, "concurrency");
    struct place rate = place_key(at, "rate"), artifacts = place_key(at, "artifacts");
    const struct {
        json_t *value;
        const struct place *at;
        bool of_models;
    } all[] = { { source->affinity, &affinity, false },
                { source->concurrency, &concurrency, true },
                { source->rate, &rate, true },
                { source->artifacts, &artifacts, false } };
    struct cox_image_extras extras = {
        .concurrency_key = COX_IMAGE_NONE,
        .rate_key = COX_IMAGE_NONE,
        .artifacts = COX_IMAGE_NONE,
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) && !cox_step_kind_is_worker(source->kind); i++) {
        if (!all[i].value || (all[i].value == source->affinity && source->kind == COX_KIND_AGENT))
            continue;
        if (!all[i].of_models)
            report_at(&c->report, all[i].at, "is about attempts on workers; " EXPECTED_LEAF);
        else if (!cox_step_kind_is_leaf(source->kind))
            report_at(&c->report, all[i].at, "is about attempts on workers; " EXPECTED_CALL);
    }
    if (source->artifacts && source->mapped)
        report_at(&c->report, &artifacts, "items of a `map` keep no artifacts; expected one of the two");
    if (source->affinity)
        compile_affinity(c, &affinity, scope, source->affinity, &extras);
    if (source->affinity && source->kind == COX_KIND_AGENT &&
        (source->mapped || extras.affinity != COX_AFFINITY_WORKSPACE))
        report_at(
            &c->report, &affinity,
            "an agent runs on no worker, and its tools in its files; expected `workspace`, without `map`");
    if (source->concurrency)
        compile_concurrency(c, &concurrency, scope, source->concurrency, &extras);
    if (source->rate)
        compile_rate(c, &rate, scope, source->rate, &extras);
    if (source->artifacts)
        extras.artifacts = compile_artifacts(c, &artifacts, scope, source->artifacts);
    return image_put_extras(&c->image, &extras);
}
