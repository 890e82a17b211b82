#include "fault.h"

#include "cox/json.h"

#include <string.h>

static const char *const kinds[FAULT_KIND_NR] = { "none",       "error_500", "error_429",  "hang_first",
                                                  "hang_after", "kill",      "half_close", "garbage" };
static const char *const metrics_words[] = { "ok", "404", "garbage", "stale", "hang" };
#define N_METRICS (sizeof(metrics_words) / sizeof(metrics_words[0]))

const char *fault_kind_text(enum fault_kind kind)
{
    return kinds[kind];
}

void faults_init(struct faults *f)
{
    *f = (struct faults){ .retry_after_s = 1, .slow_permille = 1000, .after_tokens = 1 };
}

static const char *read_rate(struct cox_slice v, uint32_t *ret)
{
    double rate;

    if (cox_slice_is(v, "true") || cox_slice_is(v, "false")) {
        *ret = cox_slice_is(v, "true") ? 1000000 : 0;
        return NULL;
    }
    if (cox_json_kind(v) != COX_JSON_NUMBER)
        return "true, false or a rate from 0 to 1 is expected";
    rate = cox_json_double(v);
    if (!(rate >= 0 && rate <= 1))
        return "a rate from 0 to 1 is expected";
    *ret = (uint32_t)(rate * 1e6 + 0.5);
    return NULL;
}

static const char *read_number(struct cox_slice v, double scale, double max, uint32_t *ret)
{
    double n = cox_json_kind(v) == COX_JSON_NUMBER ? cox_json_double(v) : -1;

    if (!(n >= 0 && n <= max))
        return "a number is expected";
    *ret = (uint32_t)(n * scale + 0.5);
    return NULL;
}

static const char *read_bool(struct cox_slice v, bool *ret)
{
    if (cox_json_kind(v) != COX_JSON_BOOL)
        return "true or false is expected";
    *ret = cox_slice_is(v, "true");
    return NULL;
}

static const char *read_metrics(struct cox_slice v, enum fault_metrics *ret)
{
    for (size_t i = 0; i < N_METRICS; i++) {
        if (cox_json_string_is(v, cox_slice_str(metrics_words[i]))) {
            *ret = (enum fault_metrics)i;
            return NULL;
        }
    }
    return "one of ok, 404, garbage, stale, hang is expected";
}

static const char *read_one(struct faults *f, struct cox_slice key, struct cox_slice v)
{
    for (unsigned i = 1; i < FAULT_KIND_NR; i++) {
        if (cox_json_string_is(key, cox_slice_str(kinds[i])))
            return read_rate(v, &f->rate[i]);
    }
    if (cox_json_string_is(key, cox_slice_str("after_tokens")))
        return read_number(v, 1, 1e9, &f->after_tokens);
    if (cox_json_string_is(key, cox_slice_str("retry_after_s")))
        return read_number(v, 1, 1e6, &f->retry_after_s);
    if (cox_json_string_is(key, cox_slice_str("slow")))
        return read_number(v, 1000, 1e6, &f->slow_permille);
    if (cox_json_string_is(key, cox_slice_str("metrics")))
        return read_metrics(v, &f->metrics);
    if (cox_json_string_is(key, cox_slice_str("no_tool_ids")))
        return read_bool(v, &f->no_tool_ids);
    if (cox_json_string_is(key, cox_slice_str("index_from_one")))
        return read_bool(v, &f->index_from_one);
    if (cox_json_string_is(key, cox_slice_str("refuse")))
        return read_bool(v, &f->refuse);
    if (cox_json_string_is(key, cox_slice_str("endpoint")) || cox_json_string_is(key, cox_slice_str("reset")))
        return NULL;
    return "no such fault";
}

enum cox_err faults_read(struct faults *f, struct cox_slice object, struct cox_buf *error)
{
    struct faults new = *f;
    struct cox_slice v;

    if (cox_json_check(object, NULL) != COX_OK || cox_json_kind(object) != COX_JSON_OBJECT) {
        cox_buf_append_str(error, "a JSON object of faults is expected");
        return COX_ERR_INVALID;
    }
    if (cox_json_member(object, "reset", &v) && cox_slice_is(v, "true"))
        faults_init(&new);
    struct cox_json_walk w = cox_json_walk(object);
    while (cox_json_next(&w)) {
        const char *why = read_one(&new, w.key, w.value);
        if (why) {
            cox_buf_append_slice(error, cox_json_inner(w.key));
            cox_buf_printf(error, ": %s", why);
            return COX_ERR_INVALID;
        }
    }
    *f = new;
    return COX_OK;
}

enum fault_kind faults_pick(const struct faults *f, struct cox_rng *rng)
{
    for (unsigned i = 1; i < FAULT_KIND_NR; i++) {
        if (f->rate[i] > 0 && cox_rng_chance(rng, f->rate[i]))
            return (enum fault_kind)i;
    }
    return FAULT_NONE;
}

void faults_put(struct cox_buf *out, const struct faults *f)
{
    cox_buf_append_str(out, "{");
    for (unsigned i = 1; i < FAULT_KIND_NR; i++)
        cox_buf_printf(out, "\"%s\":%g,", kinds[i], (double)f->rate[i] / 1e6);
    cox_buf_printf(out, "\"after_tokens\":%u,\"retry_after_s\":%u,\"slow\":%g,\"metrics\":\"%s\"",
                   f->after_tokens, f->retry_after_s, (double)f->slow_permille / 1000,
                   metrics_words[f->metrics]);
    cox_buf_printf(out, ",\"no_tool_ids\":%s,\"index_from_one\":%s,\"refuse\":%s}",
                   f->no_tool_ids ? "true" : "false", f->index_from_one ? "true" : "false",
                   f->refuse ? "true" : "false");
}
