/* Calls: one way to run a step, its class and its retries. */
#include "compile.h"

#include "cox/base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRES_MAX 32u
#define BIT(code) (1u << COX_CODE_##code)

enum { RETRY_ATTEMPTS, RETRY_INITIAL, RETRY_MAX, RETRY_MULTIPLIER, RETRY_ON, RETRY_NR };
static const struct field retry_fields[RETRY_NR] = {
    { "max_attempts", WANT_ANY, FIELD_OPTIONAL, "an integer" },
    { "initial_backoff", WANT_ANY, FIELD_OPTIONAL, "a duration" },
    { "max_backoff", WANT_ANY, FIELD_OPTIONAL, "a duration" },
    { "multiplier", WANT_NUMBER, FIELD_OPTIONAL, "a number from 1 to 100" },
    { "on", WANT_LIST, FIELD_OPTIONAL, "a list of error codes" },
};

enum { RES_CPU, RES_MEMORY, RES_DISK, RES_NR };
static const struct field resource_fields[RES_NR] = {
    { "cpu", WANT_ANY, FIELD_OPTIONAL, "cores" },
    { "memory", WANT_ANY, FIELD_OPTIONAL, "a size" },
    { "disk", WANT_ANY, FIELD_OPTIONAL, "a size" },
};

/* Codes that `retry` does not decide about, and why. */
static const struct {
    enum cox_code code;
    const char *why;
} never_retried[] = {
    { COX_CODE_CANCELLED, "a cancelled step stays cancelled" },
    { COX_CODE_WORKER_LOST, "worker losses are retried anyway, with a limit of their own" },
    { COX_CODE_PREEMPTED, "preemptions are retried anyway, with a limit of their own" },
    { COX_CODE_INPUT_INVALID, "the same input would be refused again" },
};

/* ---- retry ---- */

static void retry_code(struct compiler *c, const struct place *at, const json_t *v, struct retry *ret)
{
    enum cox_code code;
    char text[SUGGESTION_LEN], found[FOUND_LEN];

    if (!json_is_string(v)) {
        report_found(&c->report, at, v, "an error code such as \"EXIT_NONZERO\"");
        return;
    }
    if (!cox_code_parse(json_slice(v), &code) || code == COX_CODE_NONE) {
        struct suggestion near = suggestion(json_slice(v));

        for (int i = 1; i < COX_CODE_NR; i++)
            suggestion_offer(&near, cox_slice_str(cox_code_text((enum cox_code)i)));
        report_at(&c->report, at, "found %s, expected an error code such as \"EXIT_NONZERO\"%s",
                  found_text(v, found), suggestion_text(&near, text));
        return;
    }
    for (size_t i = 0; i < sizeof(never_retried) / sizeof(never_retried[0]); i++) {
        if (never_retried[i].code == code) {
            report_at(&c->report, at, "`retry` does not cover %s: %s", cox_code_text(code),
                      never_retried[i].why);
            return;
        }
    }
    ret->on |= 1u << code;
}

static void retry_multiplier(struct compiler *c, const struct place *at, const json_t *v, struct retry *ret)
{
    double m = json_number_value(v);

    if (m >= 1 && m <= 100)
        ret->multiplier_milli = (uint32_t)(m * 1000 + 0.5);
    else
        report_found(&c->report, at, v, "a number from 1 to 100");
}

void compile_retry(struct compiler *c, const struct place *at, json_t *retry, struct retry *ret)
{
    json_t *f[RETRY_NR];
    int64_t attempts = 3;

    *ret = (struct retry){ 3, 1000, 60 * 1000, 2000, BIT(EXIT_NONZERO) | BIT(TIMEOUT) | BIT(UNAVAILABLE) };
    if (!fields_check(&c->report, at, retry, "an object such as {\"max_attempts\": 3}", retry_fields,
                      RETRY_NR, f))
        return;
    struct place attempts_at = place_key(at, "max_attempts"), initial_at = place_key(at, "initial_backoff");
    struct place max_at = place_key(at, "max_backoff"), multiplier_at = place_key(at, "multiplier");
    struct place on_at = place_key(at, "on");

    if (f[RETRY_ATTEMPTS])
        field_integer(&c->report, &attempts_at, f[RETRY_ATTEMPTS], 1, COX_ATTEMPTS_MAX, &attempts);
    ret->max_attempts = (uint32_t)attempts;
    if (f[RETRY_INITIAL])
        field_duration(&c->report, &initial_at, f[RETRY_INITIAL], &ret->initial_backoff_ms);
    if (f[RETRY_MAX])
        field_duration(&c->report, &max_at, f[RETRY_MAX], &ret->max_backoff_ms);
    else if (ret->max_backoff_ms < ret->initial_backoff_ms)
        ret->max_backoff_ms = ret->initial_backoff_ms;
    if (ret->max_backoff_ms < ret->initial_backoff_ms)
        report_found(&c->report, &max_at, f[RETRY_MAX], "a duration no shorter than `initial_backoff`");
    if (f[RETRY_MULTIPLIER])
        retry_multiplier(c, &multiplier_at, f[RETRY_MULTIPLIER], ret);
    if (f[RETRY_ON])
        ret->on = 0;
    for (size_t i = 0; i < json_array_size(f[RETRY_ON]); i++) {
        struct place here = place_index(&on_at, i);

        retry_code(c, &here, json_array_get(f[RETRY_ON], i), ret);
    }
}

/* ---- what a class of steps asks for ---- */

/* A part of a thousandth counts as one, so that a little is not nothing. */
static int64_t milli(double cores)
{
    int64_t whole = (int64_t)(cores * 1000);

    return cores * 1000 - (double)whole > 1e-6 ? whole + 1 : whole;
}

static void resource_cpu(struct compiler *c, const struct place *at, const json_t *v, int64_t *ret)
{
    bool ok = json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 1e6;

    if (ok)
        *ret = milli(json_number_value(v));
    else if (json_is_string(v))
        ok = cox_parse_cpu_milli(json_slice(v), ret) == COX_OK;
    if (!ok)
        report_found(&c->report, at, v, "a number of cores such as 2, 0.5 or \"500m\"");
}

static void resource_size(struct compiler *c, const struct place *at, const json_t *v, int64_t *ret)
{
    bool ok = json_is_integer(v) && json_integer_value(v) >= 0;

    if (ok)
        *ret = json_integer_value(v);
    else if (json_is_string(v))
        ok = cox_parse_size(json_slice(v), ret) == COX_OK;
    if (!ok)
        report_found(&c->report, at, v, "a size such as \"512Mi\", \"16Gi\" or a number of bytes");
}

static struct cox_resources compile_resources(struct compiler *c, const struct place *at, json_t *v)
{
    struct cox_resources res = { 0 };
    json_t *f[RES_NR];

    if (!v || !fields_check(&c->report, at, v, "an object", resource_fields, RES_NR, f))
        return res;
    struct place cpu = place_key(at, "cpu"), memory = place_key(at, "memory"), disk = place_key(at, "disk");

    if (f[RES_CPU])
        resource_cpu(c, &cpu, f[RES_CPU], &res.cpu_milli);
    if (f[RES_MEMORY])
        resource_size(c, &memory, f[RES_MEMORY], &res.memory_bytes);
    if (f[RES_DISK])
        resource_size(c, &disk, f[RES_DISK], &res.disk_bytes);
    return res;
}

static bool is_word(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i];

        if (b <= ' ' || b == '=' || b == '!' || b == ',' || b == '"' || b == '\'' || b == 0x7f)
            return false;
    }
    return s.len > 0 && s.len <= COX_LABEL_LEN_MAX;
}

/* One "LABEL == VALUE" or "LABEL != VALUE". */
static bool parse_require(struct cox_slice s, struct image_require *ret)
{
    for (size_t i = 0; i + 1 < s.len; i++) {
        if (s.data[i + 1] != '=' || (s.data[i] != '=' && s.data[i] != '!'))
            continue;
        ret->negated = s.data[i] == '!';
        ret->label = cox_json_trim(cox_slice(s.data, i));
        ret->value = cox_json_trim(cox_slice(s.data + i + 2, s.len - i - 2));
        return is_word(ret->label) && is_word(ret->value);
    }
    return false;
}

static int compare_requires(const void *a, const void *b)
{
    const struct image_require *x = a, *y = b;
    int order = cox_slice_cmp(x->label, y->label);

    if (order == 0)
        order = (int)x->negated - (int)y->negated;
    return order != 0 ? order : cox_slice_cmp(x->value, y->value);
}

/* Sorted, each once, so that the order in which they were written does not split a class. */
static uint32_t compile_requires(struct compiler *c, const struct place *at, const json_t *v,
                                 struct cox_slice sandbox_label, struct image_require ret[REQUIRES_MAX + 1])
{
    struct cox_slice left = v ? cox_json_trim(json_slice(v)) : cox_slice(NULL, 0);
    uint32_t n = 0, kept = 0;
    bool more = left.len > 0;

    while (more) {
        const uint8_t *comma = memchr(left.data, ',', left.len);
        size_t len = comma ? (size_t)(comma - left.data) : left.len;
        struct cox_slice one = cox_json_trim(cox_slice(left.data, len));

        if (n == REQUIRES_MAX) {
            report_at(&c->report, at, "found more than %u requirements, expected at most %u", REQUIRES_MAX,
                      REQUIRES_MAX);
            return 0;
        }
        if (!parse_require(one, &ret[n++])) {
            report_at(&c->report, at,
                      "found `%.*s`, expected `LABEL == VALUE` or `LABEL != VALUE`, comma-separated",
                      shown_len(one, 100), (const char *)one.data);
            return 0;
        }
        more = comma != NULL;
        if (more)
            left = cox_slice(comma + 1, left.len - len - 1);
    }
    if (sandbox_label.len > 0)
        ret[n++] = (struct image_require){ .label = sandbox_label, .value = cox_slice_str("yes") };
    qsort(ret, n, sizeof(*ret), compare_requires);
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || compare_requires(&ret[i - 1], &ret[i]) != 0)
            ret[kept++] = ret[i];
    }
    return kept;
}

/* ---- calls ---- */

static void refuse_for_waiting(struct compiler *c, const struct place *at, json_t *const *f,
                               enum cox_step_kind kind)
{
    static const int fields[] = { CALL_RESOURCES, CALL_REQUIRES };
    static const char *const names[] = { "resources", "requires" };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        struct place here = place_key(at, names[i]);

        if (f[fields[i]])
            report_at(&c->report, &here, "`%s` takes no worker; " EXPECTED_LEAF, cox_step_kind_text(kind));
    }
}

static void compile_race(struct compiler *c, const struct place *at, const struct call_source *source,
                         struct cox_image_call *call)
{
    struct place here = place_key(at, "race");
    size_t n = json_array_size(source->f[CALL_RACE]);

    if (n < 2 || n > COX_RACE_MAX)
        report_at(&c->report, &here, "found %zu alternative%s, expected 2 to %u", n, n == 1 ? "" : "s",
                  COX_RACE_MAX);
    if (source->depth.races >= COX_RACE_DEPTH_MAX)
        report_at(&c->report, &here, "found races more than %u deep in each other, expected at most %u",
                  COX_RACE_DEPTH_MAX, COX_RACE_DEPTH_MAX);
    call->inner_first = source->inner_first;
    call->inner_n = (uint32_t)n;
}

/* What the draft's spec is run on. */
static void compile_leaf(struct compiler *c, const struct place *at, const struct scope *scope,
                         json_t *const *f, struct cox_image_call *call)
{
    struct place resources = place_key(at, "resources"), requires = place_key(at, "requires");
    struct image_require wanted[REQUIRES_MAX + 1];

    draft_begin(c);
    secrets_begin(c);
    put_spec(c, at, scope, f, call->kind);
    secrets_end(c);
    call->spec_template = draft_end(c, at);

    struct cox_resources res = compile_resources(c, &resources, f[CALL_RESOURCES]);
    uint32_t n = compile_requires(c, &requires, f[CALL_REQUIRES], spec_sandbox_label(f, call->kind), wanted);

    call->class_index = image_put_class(&c->image, spec_handler(f, call->kind), &res, wanted, n);
}

static void put_policy(struct cox_image_call *call, const struct retry *policy)
{
    call->max_attempts = policy->max_attempts;
    call->initial_backoff_ms = policy->initial_backoff_ms;
    call->max_backoff_ms = policy->max_backoff_ms;
    call->multiplier_milli = policy->multiplier_milli;
    call->retry_on = policy->on;
}

/* Defaults are of attempts on workers: a wait of a day is not to fail after ten minutes, nor a race to be run
 * again because all of its alternatives were. An agent's `retry` is of each call of its model. */
uint32_t compile_call(struct compiler *c, const struct place *at, const struct scope *scope,
                      const struct call_source *source)
{
    static const struct retry once = { .max_attempts = 1, .multiplier_milli = 1000 };
    struct place timeout = place_key(at, "timeout"), retry = place_key(at, "retry");
    struct place secrets = place_key(at, "secrets");
    enum cox_step_kind kind = source->kind;
    json_t *const *f = source->f;
    bool leaf = cox_step_kind_is_leaf(kind), turns = kind == COX_KIND_AGENT || kind == COX_KIND_PLAN;
    struct retry policy = leaf || turns ? c->retry : once;
    struct cox_image_call call = {
        .kind = kind,
        .class_index = COX_IMAGE_NONE,
        .spec_template = COX_IMAGE_NONE,
        .approvers = COX_IMAGE_NONE,
        .timeout_ms = leaf ? c->timeout_ms : 0,
    };

    check_allowed(c, at, source);
    if (f[CALL_TIMEOUT])
        field_duration(&c->report, &timeout, f[CALL_TIMEOUT], &call.timeout_ms);
    if (f[CALL_RETRY])
        compile_retry(c, &retry, f[CALL_RETRY], &policy);
    put_policy(&call, turns ? &once : &policy);
    compile_secrets(c, &secrets, f[CALL_SECRETS], kind);
    if (!cox_step_kind_is_worker(kind))
        refuse_for_waiting(c, at, f, kind);
    if (leaf)
        compile_leaf(c, at, scope, f, &call);
    else if (kind == COX_KIND_RACE)
        compile_race(c, at, source, &call);
    else if (turns)
        compile_turns(c, at, scope, source, &policy, &call);
    else
        compile_waiting(c, at, scope, f, &call);
    return image_put_call(&c->image, &call);
}
