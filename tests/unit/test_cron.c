#include "check.h"

#include "cox/base/rng.h"
#include "cox/cron.h"

#include <string.h>

static struct cox_cron parsed(const char *text)
{
    struct cox_cron cron;
    struct cox_buf error = { 0 };
    if (cox_cron_parse(cox_slice_str(text), &cron, &error) != COX_OK)
        fail_msg("\"%s\": %s", text, cox_buf_cstr(&error));
    assert_int_equal(error.len, 0);
    return cron;
}

static void fields(void **state)
{
    (void)state;
    struct cox_cron c = parsed("  5\t0-6/3,22 1,31 jan,Mar-5 mon-fri ");
    assert_true(c.minutes == 1 << 5);
    assert_int_equal(c.hours, 1 << 0 | 1 << 3 | 1 << 6 | 1 << 22);
    assert_int_equal(c.days, 1u << 1 | 1u << 31);
    assert_int_equal(c.months, 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5);
    assert_int_equal(c.weekdays, 0x3e);
    assert_false(c.any_day || c.any_weekday || c.any_hour || c.any_minute);
    c = parsed("*/20 * */31 * 7");
    assert_true(c.minutes == (1ULL | 1ULL << 20 | 1ULL << 40));
    assert_int_equal(c.hours, 0xffffff);
    assert_int_equal(c.days, 1 << 1);
    assert_int_equal(c.months, 0x1ffe);
    assert_int_equal(c.weekdays, 1);
    assert_true(c.any_day && c.any_hour && c.any_minute && !c.any_weekday);
    assert_int_equal(parsed("0 0 * * fri-sun").weekdays, 0x61);
    assert_int_equal(parsed("0 0 * * 0-7").weekdays, 0x7f);
    assert_int_equal(parsed("* * * * *").weekdays, 0x7f);
    c = parsed("@Yearly");
    assert_true(c.minutes == 1 && c.hours == 1 && c.days == 2 && c.months == 2 && c.weekdays == 0x7f);
    assert_true(parsed("@hourly").any_hour);
}

static void errors(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        { "", "cron: no fields, expected 5: minute, hour, day of month, month, day of week" },
        { "1 2 3 4", "cron: 4 fields, expected 5: minute, hour, day of month, month, day of week" },
        { "1 2 3 4 5 6 7",
          "cron: more than 5 fields, expected 5: minute, hour, day of month, month, day of week" },
        { "@reboot", "cron: found \"@reboot\", expected @hourly, @daily, @weekly, @monthly or @yearly" },
        { "60 * * * *", "minute: found \"60\", expected 0-59" },
        { "-1 * * * *", "minute: found \"\", expected 0-59" },
        { "* 24 * * *", "hour: found \"24\", expected 0-23" },
        { "* * 0 * *", "day of month: found \"0\", expected 1-31" },
        { "* * * foo *", "month: found \"foo\", expected 1-12 or jan-dec" },
        { "* * * * 8", "day of week: found \"8\", expected 0-7 or sun-sat" },
        { "1,,2 * * * *", "minute: found \"\", expected 0-59" },
        { "1, * * * *", "minute: found \"\", expected 0-59" },
        { "9-5 * * * *", "minute: found \"9-5\", expected a range that rises" },
        { "1-2-3 * * * *", "minute: found \"2-3\", expected 0-59" },
        { "5/10 * * * *",
          "minute: found \"5/10\", expected a range before the step, such as 10-50/5 or */5" },
        { "*/0 * * * *", "minute: step \"0\", expected a number from 1 to 59" },
        { "*/x * * * *", "minute: step \"x\", expected a number from 1 to 59" },
        { "99999999999999999999 * * * *", "minute: found \"99999999999999999999\", expected 0-59" },
        { "1111111111111111111111111111111111111111111111111 * * * *",
          "minute: found \"1111111111111111111111111111111111111111...\", expected 0-59" },
        /* never cut inside a character */
        { "111111111111111111111111111111111111111\u00e41 * * * *",
          "minute: found \"111111111111111111111111111111111111111...\", expected 0-59" },
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct cox_cron cron, before;
        struct cox_buf error = { 0 };
        memset(&cron, 0x5a, sizeof cron);
        before = cron;
        assert_int_equal(cox_cron_parse(cox_slice_str(pairs[i][0]), &cron, &error), COX_ERR_INVALID);
        assert_string_equal(cox_buf_cstr(&error), pairs[i][1]);
        assert_memory_equal(&cron, &before, sizeof cron);
        cox_buf_fini(&error);
    }
}

/* ---- zones made by hand: what a test must not depend on is what the machine has installed ---- */

static void put_be(struct cox_buf *b, uint64_t v, int len)
{
    while (len-- > 0)
        cox_put_u8(b, len < 8 ? (uint8_t)(v >> (8 * len)) : 0);
}

static void put_header(struct cox_buf *b, char version, uint32_t n_times, uint32_t n_types)
{
    cox_buf_append_str(b, "TZif");
    cox_put_u8(b, (uint8_t)version);
    put_be(b, 0, 15);
    uint32_t counts[] = { 0, 0, 0, n_times, n_types, 4 };
    for (size_t i = 0; i < 6; i++)
        put_be(b, counts[i], 4);
}

struct step {
    int64_t at_s;
    int32_t offset_s;
};

/* Types are one a change: the first is before all. */
static struct cox_buf zone_file(int32_t first_s, const struct step *steps, uint32_t n, const char *footer)
{
    struct cox_buf b = { 0 };
    put_header(&b, '2', 0, 1);
    put_be(&b, 0, 6);
    put_be(&b, 0, 4);
    put_header(&b, '2', n, n + 1);
    for (uint32_t i = 0; i < n; i++)
        put_be(&b, (uint64_t)steps[i].at_s, 8);
    for (uint32_t i = 0; i < n; i++)
        put_be(&b, i + 1, 1);
    for (uint32_t i = 0; i <= n; i++) {
        put_be(&b, (uint32_t)(i == 0 ? first_s : steps[i - 1].offset_s), 4);
        put_be(&b, 0, 2);
    }
    put_be(&b, 0, 4);
    cox_buf_append_str(&b, "\n");
    cox_buf_append_str(&b, footer);
    cox_buf_append_str(&b, "\n");
    return b;
}

static struct cox_buf zone_of(int32_t first_s, const struct step *steps, uint32_t n, const char *footer)
{
    struct cox_buf file = zone_file(first_s, steps, n, footer), zone = { 0 };
    assert_int_equal(cox_zone_compile(cox_buf_slice(&file), &zone), COX_OK);
    assert_int_equal(cox_zone_check(cox_buf_slice(&zone)), COX_OK);
    cox_buf_fini(&file);
    return zone;
}

#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define NEW_YORK "EST5EDT,M3.2.0,M11.1.0"
#define LORD_HOWE "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"
#define MS 1000LL

static void runs_are(const char *footer, const char *cron_text, int64_t after_s, const int64_t *runs_s,
                     size_t n)
{
    struct cox_buf zone = zone_of(0, NULL, 0, footer);
    struct cox_cron cron = parsed(cron_text);
    int64_t at_ms = after_s * MS;
    for (size_t i = 0; i < n; i++) {
        at_ms = cox_cron_next(&cron, cox_buf_slice(&zone), at_ms);
        if (at_ms != (runs_s[i] == INT64_MAX ? INT64_MAX : runs_s[i] * MS))
            fail_msg("%s in %s: run %zu at %lld, expected %lld", cron_text, footer, i, (long long)at_ms / MS,
                     (long long)runs_s[i]);
    }
    cox_buf_fini(&zone);
}
#define RUNS(footer, cron, after, ...)                                                                       \
    runs_are(footer, cron, after, (const int64_t[]){ __VA_ARGS__ }, sizeof((int64_t[]){ __VA_ARGS__ }) / 8)

static void runs(void **state)
{
    (void)state;
    /* Berlin, 2026-03-29: at 01:00 UTC the clock goes from 02:00 to 03:00 */
    RUNS(BERLIN, "30 2 * * *", 1774695600, 1774746000, 1774830600);
    RUNS(BERLIN, "0,30 2 * * *", 1774695600, 1774746000, 1774828800);
    RUNS(BERLIN, "0 3 * * *", 1774695600, 1774746000, 1774832400);
    RUNS(BERLIN, "0 2,3 * * *", 1774695600, 1774746000, 1774828800);
    RUNS(BERLIN, "0 * * * *", 1774738800, 1774742400, 1774746000, 1774749600);
    /* what has * does not run in what is skipped */
    RUNS(BERLIN, "*/30 2 * * *", 1774695600, 1774828800, 1774830600);
    /* 2026-10-25: at 01:00 UTC from 03:00 to 02:00 */
    RUNS(BERLIN, "30 2 * * *", 1792836000, 1792888200, 1792978200);
    RUNS(BERLIN, "0 * * * *", 1792882800, 1792886400, 1792890000, 1792893600);
    RUNS(BERLIN, "*/30 2 * * *", 1792836000, 1792886400, 1792888200, 1792890000, 1792891800, 1792976400);
    /* Lord Howe: 2026-10-04 from 02:00 to 02:30; 2026-04-05 from 02:00 to 01:30 */
    RUNS(LORD_HOWE, "15 2 * * *", 1790991000, 1791041400, 1791126900);
    RUNS(LORD_HOWE, "45 1 * * *", 1775264400, 1775313900, 1775402100);
    RUNS(LORD_HOWE, "45 * 5 4 *", 1775313899, 1775313900, 1775315700, 1775319300);
    /* New York: 2026-03-08 from 02:00 to 03:00 */
    RUNS(NEW_YORK, "5 2 * * *", 1772902800, 1772953200, 1773036300);
    RUNS("UTC0", "0 0 29 2 *", 1772323200, 1835395200, 1961625600);
    RUNS("UTC0", "0 0 30 2 *", 1772323200, INT64_MAX);
    /* the 13th, and every Friday; with * in one of them both must match */
    RUNS("UTC0", "0 0 13 * 5", 1767225600, 1767312000, 1767916800, 1768262400, 1768521600);
    RUNS("UTC0", "0 0 */13 * 5", 1767225600, 1772150400, 1774569600);
    RUNS("UTC0", "59 23 31 12 *", 1767225600, 1798761540);
}

static void strictly_after(void **state)
{
    (void)state;
    struct cox_cron c = parsed("* * * * *");
    struct cox_slice utc = { 0 };
    assert_int_equal(cox_cron_next(&c, utc, 60000), 120000);
    assert_int_equal(cox_cron_next(&c, utc, 59999), 60000);
    assert_int_equal(cox_cron_next(&c, utc, 0), 60000);
    assert_int_equal(cox_cron_next(&c, utc, -1), 0);
}

static void zones(void **state)
{
    (void)state;
    struct cox_buf utc = { 0 };
    assert_int_equal(cox_zone_compile(cox_slice(NULL, 0), &utc), COX_OK);
    assert_int_equal(cox_zone_check(cox_buf_slice(&utc)), COX_OK);
    assert_int_equal(cox_zone_offset_s(cox_buf_slice(&utc), 1792886400 * MS), 0);
    cox_buf_fini(&utc);
    /* changes of the table that the rule says too are left out, others stay */
    static const struct step steps[] = { { 1000000000, 7200 },
                                         { 1774746000, 7200 },
                                         { 1792890000, 3600 },
                                         { 1806195600, 7200 },
                                         { 1824944400, 3600 } };
    struct cox_buf zone = zone_of(-3600, steps, 5, BERLIN), rule = zone_of(0, NULL, 0, BERLIN);
    assert_int_equal(zone.len, rule.len + 12 * 2);
    assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 999999999 * MS), -3600);
    assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 1000000000 * MS), 7200);
    assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 1792889999 * MS), 7200);
    assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 1792890000 * MS), 3600);
    cox_buf_fini(&zone);
    cox_buf_fini(&rule);
}

static void footers(void **state)
{
    (void)state;
    static const struct {
        const char *footer;
        int32_t january_s, july_s; /* of 2030; INT32_MAX: refused */
    } cases[] = {
        { "EST5EDT,M3.2.0,M11.1.0", -18000, -14400 },
        { "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", -7200, -3600 },
        { "IST-1GMT0,M10.5.0,M3.5.0/1", 0, 3600 },
        { "XXX3YYY2,J60/0,J300/0", -10800, -7200 },
        { "XXX3YYY2,59/0,300/0", -10800, -7200 },
        { "<+0545>-5:45", 20700, 20700 },
        { "XXX-1:02:03", 3723, 3723 },
        { "XXX3YYY2,0/0,J365/25", -7200, -7200 },
        { "XX3", INT32_MAX, 0 },
        { "XXX", INT32_MAX, 0 },
        { "XXX25", INT32_MAX, 0 },
        { "XXX3YYY", INT32_MAX, 0 },
        { "XXX3YYY,M3.2.0", INT32_MAX, 0 },
        { "XXX3YYY,M13.2.0,M1.1.1", INT32_MAX, 0 },
        { "XXX3YYY,J0,M1.1.1", INT32_MAX, 0 },
        { "XXX3YYY,M3.2.0,M11.1.0x", INT32_MAX, 0 },
        { "<XXX3", INT32_MAX, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct cox_buf file = zone_file(0, NULL, 0, cases[i].footer), zone = { 0 };
        enum cox_err err = cox_zone_compile(cox_buf_slice(&file), &zone);
        if (err != (cases[i].january_s == INT32_MAX ? COX_ERR_CORRUPT : COX_OK))
            fail_msg("%s: %s", cases[i].footer, cox_err_text(err));
        if (err == COX_OK) {
            assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 1894665600 * MS), cases[i].january_s);
            assert_int_equal(cox_zone_offset_s(cox_buf_slice(&zone), 1910304000 * MS), cases[i].july_s);
        } else {
            assert_int_equal(zone.len, 0);
        }
        cox_buf_fini(&zone);
        cox_buf_fini(&file);
    }
}

/* Damaged bytes are refused or read; none is read outside of them (run under the sanitizers). */
static void damage(void **state)
{
    (void)state;
    static const struct step steps[] = { { 1000000000, 7200 }, { 1774746000, 3600 } };
    struct cox_cron cron = parsed("30 2 * * *");
    struct cox_buf file = zone_file(0, steps, 2, BERLIN), whole = { 0 };
    struct cox_rng rng;
    cox_rng_init(&rng, 7);
    assert_int_equal(cox_zone_compile(cox_buf_slice(&file), &whole), COX_ERR_OK);
    for (size_t len = 1; len < file.len; len++) {
        struct cox_buf zone = { 0 };
        assert_int_equal(cox_zone_compile(cox_slice(file.data, len), &zone), COX_ERR_CORRUPT);
        assert_int_equal(zone.len, 0);
    }
    for (size_t len = 0; len < whole.len; len++)
        assert_int_equal(cox_zone_check(cox_slice(whole.data, len)), COX_ERR_CORRUPT);
    for (int i = 0; i < 20000; i++) {
        struct cox_buf *from = i % 2 == 0 ? &file : &whole, bent = { 0 }, zone = { 0 };
        cox_buf_append(&bent, from->data, from->len);
        bent.data[cox_rng_below(&rng, bent.len)] = (uint8_t)cox_rng_u64(&rng);
        struct cox_slice use = cox_buf_slice(&bent);
        if (i % 2 == 0 && cox_zone_compile(use, &zone) == COX_OK)
            use = cox_buf_slice(&zone);
        if (cox_zone_check(use) == COX_OK)
            assert_true(cox_cron_next(&cron, use, 1774650600 * MS) > 1774650600 * MS);
        else
            assert_true(i % 2 == 1 || zone.len == 0);
        cox_buf_fini(&zone);
        cox_buf_fini(&bent);
    }
    cox_buf_fini(&whole);
    cox_buf_fini(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields),         cmocka_unit_test(errors), cmocka_unit_test(runs),
        cmocka_unit_test(strictly_after), cmocka_unit_test(zones),  cmocka_unit_test(footers),
        cmocka_unit_test(damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
