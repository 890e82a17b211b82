/* Calls: one way to run a step, from `run` or `uses` to the handler's spec, its class and its retries. */
#include "compile.h"

#include "cox/base/units.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRES_MAX 32u
#define BIT(code) (1u << COX_CODE_##code)

enum { RUN_ARGV, RUN_ENV, RUN_STDIN, RUN_OUTPUT, RUN_SANDBOX, RUN_NR };
static const struct field run_fields[RUN_NR] = {
    { "argv", WANT_LIST, FIELD_REQUIRED, "a list of strings, the program first" },
    { "env", WANT_OBJECT, FIELD_OPTIONAL, "an object of strings" },
    { "stdin", WANT_STRING, FIELD_OPTIONAL, "a string" },
    { "output", WANT_STRING, FIELD_OPTIONAL, "\"text\" or \"json\"" },
    { "sandbox", WANT_STRING, FIELD_OPTIONAL, "\"none\"" },
};

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
                                 struct image_require ret[REQUIRES_MAX])
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
    qsort(ret, n, sizeof(*ret), compare_requires);
    for (uint32_t i = 0; i < n; i++) {
        if (i == 0 || compare_requires(&ret[i - 1], &ret[i]) != 0)
            ret[kept++] = ret[i];
    }
    return kept;
}

/* ---- specs ---- */

static void put_env(struct compiler *c, const struct scope *scope, const struct place *at, json_t *env)
{
    const char *separator = "{", *name;
    json_t *value;

    json_object_foreach(env, name, value)
    {
        struct place here = place_key(at, name);

        if (!*name || strchr(name, '='))
            report_at(&c->report, &here, "expected the name of an environment variable, without `=`");
        if (!json_is_string(value)) {
            report_found(&c->report, &here, value, "a string");
            continue;
        }
        draft_raw(c, separator);
        cox_json_quote(&c->draft.raw, cox_slice_str(name));
        draft_raw(c, ":");
        draft_value(c, scope, &here, value, EMIT_ARG);
        separator = ",";
    }
    draft_raw(c, *separator == '{' ? "{}" : "}");
}

static void put_argv(struct compiler *c, const struct scope *scope, const struct place *at, json_t *argv)
{
    size_t n = json_array_size(argv);

    if (n == 0 || (json_is_string(json_array_get(argv, 0)) && !json_string_length(json_array_get(argv, 0))))
        report_at(&c->report, at, "found no program, expected a list of strings, the program first");
    draft_raw(c, "[");
    for (size_t i = 0; i < n; i++) {
        struct place here = place_index(at, i);
        json_t *value = json_array_get(argv, i);

        if (i > 0)
            draft_raw(c, ",");
        if (json_is_string(value))
            draft_value(c, scope, &here, value, EMIT_ARG);
        else
            report_found(&c->report, &here, value, "a string");
    }
    draft_raw(c, "]");
}

static void put_run(struct compiler *c, const struct scope *scope, const struct place *at, json_t *run)
{
    json_t *f[RUN_NR];

    if (!fields_check(&c->report, at, run, "an object such as {\"argv\": [\"true\"]}", run_fields, RUN_NR, f))
        return;
    struct place argv = place_key(at, "argv"), env = place_key(at, "env"), input = place_key(at, "stdin");
    struct place output = place_key(at, "output"), sandbox = place_key(at, "sandbox");

    draft_raw(c, "{\"argv\":");
    if (f[RUN_ARGV])
        put_argv(c, scope, &argv, f[RUN_ARGV]);
    if (f[RUN_ENV]) {
        draft_raw(c, ",\"env\":");
        put_env(c, scope, &env, f[RUN_ENV]);
    }
    if (f[RUN_STDIN]) {
        draft_raw(c, ",\"stdin\":");
        draft_value(c, scope, &input, f[RUN_STDIN], EMIT_ARG);
    }
    if (f[RUN_OUTPUT]) {
        const char *text = json_string_value(f[RUN_OUTPUT]);

        if (strcmp(text, "text") != 0 && strcmp(text, "json") != 0)
            report_found(&c->report, &output, f[RUN_OUTPUT], run_fields[RUN_OUTPUT].expected);
        draft_raw(c, strcmp(text, "json") == 0 ? ",\"output\":\"json\"" : ",\"output\":\"text\"");
    }
    if (f[RUN_SANDBOX]) {
        const char *level = json_string_value(f[RUN_SANDBOX]);

        if (strcmp(level, "net") == 0 || strcmp(level, "strict") == 0)
            report_at(&c->report, &sandbox,
                      "the sandbox \"%s\" is not available in this version; refused rather than weakened",
                      level);
        else if (strcmp(level, "none") != 0)
            report_found(&c->report, &sandbox, f[RUN_SANDBOX], "\"none\", \"net\" or \"strict\"");
        draft_raw(c, ",\"sandbox\":\"none\"");
    }
    draft_raw(c, "}");
}

/* NAME@MAJOR. */
static void check_program(struct compiler *c, const struct place *at, const json_t *uses)
{
    struct cox_slice s = json_slice(uses);
    const uint8_t *sign = s.len > 0 ? memchr(s.data, '@', s.len) : NULL;
    size_t name_len = sign ? (size_t)(sign - s.data) : s.len;
    bool ok = sign && name_ok(cox_slice(s.data, name_len), true);

    if (s.len > 1 && s.data[0] == '.' && s.data[1] == '/') {
        report_at(&c->report, at, "a program of a bundle is not available in this version");
        return;
    }
    size_t digits = ok ? s.len - name_len - 1 : 0;

    ok = digits >= 1 && digits <= 9 && (sign[1] != '0' || digits == 1);
    for (size_t i = 0; ok && i < digits; i++)
        ok = sign[1 + i] >= '0' && sign[1 + i] <= '9';
    if (!ok)
        report_found(&c->report, at, uses, "a program and its major version such as \"lint@1\"");
}

static void put_uses(struct compiler *c, const struct scope *scope, const struct place *at,
                     const struct call_source *source)
{
    struct place uses = place_key(at, "uses"), with = place_key(at, "with");

    check_program(c, &uses, source->uses);
    if (source->with)
        draft_value(c, scope, &with, source->with, EMIT_VALUE);
    else
        draft_raw(c, "{}");
}

uint32_t compile_call(struct compiler *c, const struct place *at, const struct scope *scope,
                      const struct call_source *source, enum cox_step_kind kind)
{
    struct place run = place_key(at, "run"), timeout = place_key(at, "timeout"),
                 retry = place_key(at, "retry");
    struct place resources = place_key(at, "resources"), requires = place_key(at, "requires");
    struct image_require wanted[REQUIRES_MAX];
    struct retry policy = c->retry;
    struct cox_image_call call = { .kind = kind, .timeout_ms = c->timeout_ms };

    if (source->timeout)
        field_duration(&c->report, &timeout, source->timeout, &call.timeout_ms);
    if (source->retry)
        compile_retry(c, &retry, source->retry, &policy);
    call.max_attempts = policy.max_attempts;
    call.initial_backoff_ms = policy.initial_backoff_ms;
    call.max_backoff_ms = policy.max_backoff_ms;
    call.multiplier_milli = policy.multiplier_milli;
    call.retry_on = policy.on;

    draft_begin(c);
    if (kind == COX_KIND_RUN)
        put_run(c, scope, &run, source->run);
    else
        put_uses(c, scope, at, source);
    call.spec_template = draft_end(c, at);

    struct cox_resources res = compile_resources(c, &resources, source->resources);
    uint32_t n = compile_requires(c, &requires, source->requires, wanted);
    struct cox_slice handler = kind == COX_KIND_RUN ? cox_slice_str("run") : json_slice(source->uses);

    call.class_index = image_put_class(&c->image, handler, &res, wanted, n);
    return image_put_call(&c->image, &call);
}
