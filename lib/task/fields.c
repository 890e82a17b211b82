#include "fields.h"

#include "cox/base/units.h"

#include <stdio.h>
#include <string.h>

#define DURATION_DAYS_MAX 3650
#define DURATION_MAX_MS (DURATION_DAYS_MAX * 24 * 3600 * 1000LL)

unsigned want_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_STRING:
        return WANT_STRING;
    case JSON_INTEGER:
        return WANT_INTEGER;
    case JSON_REAL:
        return WANT_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return WANT_BOOL;
    case JSON_ARRAY:
        return WANT_LIST;
    case JSON_OBJECT:
        return WANT_OBJECT;
    case JSON_NULL:
        return WANT_NULL;
    }
    return 0;
}

static void report_unknown(struct report *r, const struct place *at, const struct field *table, size_t n)
{
    struct suggestion near = suggestion(cox_slice_str(at->key));
    char text[SUGGESTION_LEN], known[320] = "";
    size_t len = 0;

    for (size_t i = 0; i < n; i++)
        suggestion_offer(&near, cox_slice_str(table[i].name));
    if (*suggestion_text(&near, text)) {
        report_at(r, at, "unknown field%s", text);
        return;
    }
    for (size_t i = 0; i < n && len < sizeof(known) - 1; i++) {
        len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "", table[i].name);
    }
    report_at(r, at, "unknown field; expected one of %s", known);
}

static void check_field(struct report *r, const struct place *at, json_t *value, const struct field *f,
                        json_t **ret)
{
    if (!(want_of(value) & f->want))
        report_found(r, at, value, f->expected);
    else
        *ret = value;
}

bool fields_check(struct report *r, const struct place *at, json_t *object, const char *expected,
                  const struct field *table, size_t n, json_t **ret)
{
    const char *key;
    json_t *value;

    memset(ret, 0, n * sizeof(*ret));
    if (!json_is_object(object)) {
        report_found(r, at, object, expected);
        return false;
    }
    json_object_foreach(object, key, value)
    {
        struct place here = place_key(at, key);
        size_t i = 0;

        while (i < n && strcmp(table[i].name, key) != 0)
            i++;
        if (i < n)
            check_field(r, &here, value, &table[i], &ret[i]);
        else if (report_open(r))
            report_unknown(r, &here, table, n);
        else
            r->violations->n_more++;
    }
    for (size_t i = 0; i < n; i++) {
        if (table[i].rule != FIELD_REQUIRED || ret[i] || json_object_get(object, table[i].name))
            continue;
        struct place here = place_key(at, table[i].name);

        report_at(r, &here, "missing; expected %s", table[i].expected);
    }
    return true;
}

bool field_duration(struct report *r, const struct place *at, const json_t *v, int64_t *ret_ms)
{
    int64_t ms;

    if (!json_is_string(v) || cox_parse_duration_ms(json_slice(v), &ms) != COX_OK) {
        report_found(r, at, v, "a duration such as \"1.5s\", \"10m\" or \"1h30m\"");
        return false;
    }
    if (ms > DURATION_MAX_MS) {
        char found[FOUND_LEN];

        report_at(r, at, "found %s, expected at most %d days", found_text(v, found), DURATION_DAYS_MAX);
        return false;
    }
    *ret_ms = ms;
    return true;
}

bool field_integer(struct report *r, const struct place *at, const json_t *v, int64_t min, int64_t max,
                   int64_t *ret)
{
    if (!json_is_integer(v) || json_integer_value(v) < min || json_integer_value(v) > max) {
        char expected[80];

        snprintf(expected, sizeof(expected), "an integer from %lld to %lld", (long long)min, (long long)max);
        report_found(r, at, v, expected);
        return false;
    }
    *ret = json_integer_value(v);
    return true;
}

bool name_ok(struct cox_slice s, bool dashes)
{
    if (s.len == 0 || s.len > COX_NAME_LEN_MAX)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i];
        bool letter = (c >= 'a' && c <= 'z') || c == '_';
        bool later = (c >= '0' && c <= '9') || (dashes && c == '-');

        if (!letter && !(i > 0 && later))
            return false;
    }
    return true;
}
