#include "check.h"

#include "cox/base/rng.h"
#include "cox/base/units.h"

#include <stdio.h>
#include <time.h>

#define REFUSED INT64_MIN
#define UNTOUCHED (-77)

struct pair {
    const char *text;
    int64_t value;
};

typedef enum cox_err parse_fn(struct cox_slice s, int64_t *ret);

static void check_parse(parse_fn *parse, const struct pair *pairs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t got = UNTOUCHED;
        enum cox_err err = parse(cox_slice_str(pairs[i].text), &got);
        bool refused = pairs[i].value == REFUSED;
        if (err != (refused ? COX_ERR_INVALID : COX_OK) || got != (refused ? UNTOUCHED : pairs[i].value))
            fail_msg("\"%s\": %s, %lld", pairs[i].text, cox_err_text(err), (long long)got);
    }
}

static void durations(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "0", 0 },
        { "0s", 0 },
        { "250ms", 250 },
        { "1.5s", 1500 },
        { "10m", 600000 },
        { "2h", 7200000 },
        { "7d", 604800000 },
        { "1h30m", 5400000 },
        { "1h30m0.25s", 5400250 },
        { "0.3333333333333333333s", 334 },
        { "0.0001s", 1 },
        { "0.5ms", 1 },
        { "106751991167d", 9223372036828800000 },
        { "106751991168d", REFUSED },
        { "99999999999999999999ms", REFUSED },
        { "106751991167d106751991167d", REFUSED },
        { "", REFUSED },
        { "5", REFUSED },
        { "00", REFUSED },
        { "s", REFUSED },
        { "-1s", REFUSED },
        { "+1s", REFUSED },
        { "1.s", REFUSED },
        { ".5s", REFUSED },
        { "1 s", REFUSED },
        { "1s ", REFUSED },
        { "1S", REFUSED },
        { "1sec", REFUSED },
        { "1h30", REFUSED },
        { "1e3s", REFUSED },
        { "1.5.5s", REFUSED },
    };
    check_parse(cox_parse_duration_ms, pairs, ARRAY_LEN(pairs));
}

static void sizes(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "0", 0 },
        { "512", 512 },
        { "16Gi", 17179869184 },
        { "1Ki", 1024 },
        { "1K", 1000 },
        { "1k", 1000 },
        { "512M", 512000000 },
        { "3Mi", 3145728 },
        { "0.5G", 500000000 },
        { "0.1Gi", 107374183 },
        { "2T", 2000000000000 },
        { "1.5Ti", 1649267441664 },
        { "8388607Ti", 9223370937343148032 },
        { "8388608Ti", REFUSED },
        { "9223372036854775807", INT64_MAX },
        { "9223372036854775808", REFUSED },
        { "", REFUSED },
        { "1.5", REFUSED },
        { "1gi", REFUSED },
        { "1GiB", REFUSED },
        { "1G1M", REFUSED },
        { "-1", REFUSED },
        { "1 G", REFUSED },
    };
    check_parse(cox_parse_size, pairs, ARRAY_LEN(pairs));
}

static void cpus(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "0.5", 500 },
        { "2", 2000 },
        { "500m", 500 },
        { "0", 0 },
        { "0.30000000000000004", 300 },
        { "0.0001", 1 },
        { "0.5m", 1 },
        { "", REFUSED },
        { "1c", REFUSED },
        { "1m1", REFUSED },
        { "-0.5", REFUSED },
    };
    check_parse(cox_parse_cpu_milli, pairs, ARRAY_LEN(pairs));
}

static void durations_for_people(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "0s", 0 },           { "7ms", 7 },        { "999ms", 999 },
        { "1s", 1000 },        { "1.5s", 1500 },    { "1.05s", 1050 },
        { "59.999s", 59999 },  { "1m", 60999 },     { "2m3s", 123000 },
        { "1h", 3600000 },     { "1h2m", 3723000 }, { "1d", 86400000 },
        { "7d1h", 608400000 }, { "-2s", -2000 },    { "-106751991167d7h", INT64_MIN },
    };
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct cox_buf b = { 0 };
        cox_put_duration(&b, pairs[i].value);
        assert_string_equal(cox_buf_cstr(&b), pairs[i].text);
        cox_buf_fini(&b);
    }
}

static void times(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "1970-01-01T00:00:00.000Z", 0 },
        { "1970-01-01T00:00:00Z", 0 },
        { "1969-12-31T23:59:59.999Z", -1 },
        { "2026-01-02T03:04:05.678Z", 1767323045678 },
        { "2026-01-02T03:04:05.6789999Z", 1767323045678 },
        { "2026-01-02T03:04:05.6Z", 1767323045600 },
        { "2024-02-29T00:00:00Z", 1709164800000 },
        { "2023-02-29T00:00:00Z", REFUSED },
        { "2100-02-29T00:00:00Z", REFUSED },
        { "2000-02-29T00:00:00Z", 951782400000 },
        { "2026-13-01T00:00:00Z", REFUSED },
        { "2026-00-01T00:00:00Z", REFUSED },
        { "2026-04-31T00:00:00Z", REFUSED },
        { "2026-12-31T23:59:59Z", 1798761599000 },
        { "2026-01-02T24:00:00Z", REFUSED },
        { "2026-01-02T03:60:05Z", REFUSED },
        { "2026-01-02T03:04:60Z", REFUSED },
        { "2026-01-02T03:04:05", REFUSED },
        { "2026-01-02T03:04:05.Z", REFUSED },
        { "2026-01-02T03:04:05+00:00", REFUSED },
        { "2026-01-02 03:04:05Z", REFUSED },
        { "2026-01-02T03:04:05Zx", REFUSED },
        { "", REFUSED },
    };
    check_parse(cox_parse_time, pairs, ARRAY_LEN(pairs));
}

/* What put_time writes is what the C library writes, and reads back as it was. */
static void times_agree_with_libc(void **state)
{
    (void)state;
    struct cox_rng rng;

    cox_rng_init(&rng, 11);
    for (int i = 0; i < 5000; i++) {
        int64_t ms = (int64_t)cox_rng_below(&rng, 253402300800000); /* up to the end of 9999 */
        time_t s = (time_t)(ms / 1000);
        struct tm tm;
        char want[64], whole[32];
        struct cox_buf b = { 0 };
        int64_t back = 0;
        assert_non_null(gmtime_r(&s, &tm));
        assert_int_equal(strftime(whole, sizeof(whole), "%Y-%m-%dT%H:%M:%S", &tm), 19);
        snprintf(want, sizeof(want), "%s.%03dZ", whole, (int)(ms % 1000));
        cox_put_time(&b, ms);
        assert_string_equal(cox_buf_cstr(&b), want);
        assert_int_equal(cox_parse_time(cox_buf_slice(&b), &back), COX_OK);
        assert_int_equal(back, ms);
        cox_buf_fini(&b);
    }
}

static void utf8(void **state)
{
    (void)state;
    static const char *const good[] = {
        "",
        "plain",
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xee\x80\x80",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf",
        "a\xe2\x82\xac z",
    };
    static const char *const bad[] = {
        "\x80",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2g",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xe2\x82",
        "\xe2\x82x",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xf0\x90\x80",
        "\xff",
        "ok\xfe",
        "\xe2\x82\xac\xac",
    };
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(cox_utf8_ok(cox_slice_str(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(cox_utf8_ok(cox_slice_str(bad[i])));
    assert_true(cox_utf8_ok(cox_slice("a\0b", 3)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations), cmocka_unit_test(sizes),
        cmocka_unit_test(cpus),      cmocka_unit_test(durations_for_people),
        cmocka_unit_test(times),     cmocka_unit_test(times_agree_with_libc),
        cmocka_unit_test(utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
