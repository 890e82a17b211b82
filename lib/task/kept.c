/* What documents of kind template and schedule say beside their task. */
#include "compile.h"

#include "cox/base/units.h"
#include "cox/cron.h"

#include <string.h>

#define MAJOR_MAX 999999999
#define ZONE_LEN_MAX 64u

enum { SCHEDULE_CRON, SCHEDULE_ZONE, SCHEDULE_OVERLAP, SCHEDULE_CATCH_UP, SCHEDULE_NR };
static const struct field schedule_fields[SCHEDULE_NR] = {
    { "cron", WANT_STRING, FIELD_REQUIRED, "five fields such as \"0 3 * * *\", or @daily" },
    { "time_zone", WANT_STRING, FIELD_OPTIONAL, "the name of a zone such as \"Europe/Berlin\"" },
    { "overlap", WANT_STRING, FIELD_OPTIONAL, "\"skip\", \"queue\" or \"replace\"" },
    { "catch_up", WANT_BOOL | WANT_STRING, FIELD_OPTIONAL, "true, false or a duration such as \"1h\"" },
};
static const char *const overlaps[] = {
    [COX_OVERLAP_SKIP] = "skip", [COX_OVERLAP_QUEUE] = "queue", [COX_OVERLAP_REPLACE] = "replace"
};
#define N_OVERLAPS (sizeof(overlaps) / sizeof(overlaps[0]))

void compile_version(struct compiler *c, const struct place *at, const json_t *version)
{
    int64_t major;

    field_integer(&c->report, at, version, 1, MAJOR_MAX, &major);
}

/* Zones are names of files below one folder: nothing that could lead out of it. */
static bool zone_ok(struct cox_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t b = s.data[i], letter = b | 0x20;
        bool alnum = (letter >= 'a' && letter <= 'z') || (b >= '0' && b <= '9');

        if (!alnum && b != '_' && b != '+' && b != '-' && (b != '/' || i == 0 || s.data[i - 1] == '/'))
            return false;
    }
    return s.len > 0 && s.len <= ZONE_LEN_MAX && s.data[s.len - 1] != '/';
}

static void check_cron(struct compiler *c, const struct place *at, const json_t *text)
{
    struct cox_buf error = { 0 };
    struct cox_cron cron;

    if (cox_cron_parse(json_slice(text), &cron, &error) != COX_OK)
        report_at(&c->report, at, "%s", cox_buf_cstr(&error));
    cox_buf_fini(&error);
}

void compile_schedule(struct compiler *c, const struct place *at, json_t *schedule)
{
    struct place cron = place_key(at, "cron"), zone = place_key(at, "time_zone");
    struct place overlap = place_key(at, "overlap"), catch_up = place_key(at, "catch_up");
    size_t i = 0;
    json_t *f[SCHEDULE_NR];
    int64_t ms;

    fields_check(&c->report, at, schedule, "an object", schedule_fields, SCHEDULE_NR, f);
    if (f[SCHEDULE_CRON])
        check_cron(c, &cron, f[SCHEDULE_CRON]);
    if (f[SCHEDULE_ZONE] && !zone_ok(json_slice(f[SCHEDULE_ZONE])))
        report_found(&c->report, &zone, f[SCHEDULE_ZONE], schedule_fields[SCHEDULE_ZONE].expected);
    while (f[SCHEDULE_OVERLAP] && i < N_OVERLAPS &&
           strcmp(json_string_value(f[SCHEDULE_OVERLAP]), overlaps[i]) != 0)
        i++;
    if (i == N_OVERLAPS)
        report_found(&c->report, &overlap, f[SCHEDULE_OVERLAP], schedule_fields[SCHEDULE_OVERLAP].expected);
    if (json_is_string(f[SCHEDULE_CATCH_UP]))
        field_duration(&c->report, &catch_up, f[SCHEDULE_CATCH_UP], &ms);
}

/* ---- what is kept of a document ---- */

enum cox_source_kind cox_source_kind_of(struct cox_slice document)
{
    struct cox_slice kind;

    if (!cox_json_member(document, "kind", &kind))
        return COX_SOURCE_TASK;
    return cox_json_string_is(kind, cox_slice_str("template"))   ? COX_SOURCE_TEMPLATE
           : cox_json_string_is(kind, cox_slice_str("schedule")) ? COX_SOURCE_SCHEDULE
                                                                 : COX_SOURCE_TASK;
}

/* The characters of a string member, kept in `text`; empty when there is none. */
static struct cox_slice keep(struct cox_buf *text, struct cox_slice object, const char *key)
{
    struct cox_slice raw;
    size_t at = text->len;

    if (!cox_json_member(object, key, &raw) || cox_json_kind(raw) != COX_JSON_STRING)
        return cox_slice(NULL, 0);
    cox_json_unquote(text, raw);
    return text->len > at ? cox_slice(text->data + at, text->len - at) : cox_slice(NULL, 0);
}

void cox_template_head(struct cox_slice document, struct cox_template_head *ret)
{
    struct cox_slice version;
    int64_t major = 1;

    *ret = (struct cox_template_head){ 0 };
    ret->name = keep(&ret->text, document, "name");
    if (cox_json_member(document, "version", &version) && cox_json_int(version, &major) && major >= 1 &&
        major <= MAJOR_MAX)
        ret->major = (uint32_t)major;
    else
        ret->major = 1;
}

void cox_schedule_head(struct cox_slice document, struct cox_schedule_head *ret)
{
    struct cox_slice schedule, catch_up, text;
    size_t i = 0;

    *ret = (struct cox_schedule_head){ 0 };
    cox_buf_reserve(&ret->text, document.len); /* slices of it must not move */
    ret->name = keep(&ret->text, document, "name");
    ret->time_zone = cox_slice_str("UTC");
    if (!cox_json_member(document, "schedule", &schedule))
        return;
    ret->cron = keep(&ret->text, schedule, "cron");
    text = keep(&ret->text, schedule, "time_zone");
    if (text.len > 0)
        ret->time_zone = text;
    text = keep(&ret->text, schedule, "overlap");
    while (i < N_OVERLAPS && !cox_slice_is(text, overlaps[i]))
        i++;
    ret->overlap = i < N_OVERLAPS ? (enum cox_overlap)i : COX_OVERLAP_SKIP;
    text = keep(&ret->text, schedule, "catch_up");
    if (text.len > 0 && cox_parse_duration_ms(text, &ret->catch_up_ms) != COX_OK)
        ret->catch_up_ms = 0;
    else if (text.len == 0 && cox_json_member(schedule, "catch_up", &catch_up) &&
             cox_slice_is(catch_up, "true"))
        ret->catch_up_ms = INT64_MAX;
}
