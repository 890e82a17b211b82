/* Retry-After as servers write it. */
#include "retry_after.h"

#include "check.h"

#define SUNDAY "Sun, 06 Nov 1994 08:49:37 GMT"
#define SUNDAY_MS (784111777LL * 1000)

static int64_t read_at(const char *text, const char *date, int64_t wall_ms)
{
    return retry_after_ms(cox_slice_str(text), cox_slice_str(date), wall_ms);
}

static void seconds_are_read(void **state)
{
    (void)state;
    assert_int_equal(read_at("", "", 0), -1);
    assert_int_equal(read_at("0", "", 0), 0);
    assert_int_equal(read_at("2", "", 0), 2000);
    assert_int_equal(read_at("0.5", SUNDAY, 0), 500);
    assert_int_equal(read_at("99999999999999999999", "", 0), 3600 * 1000);
}

static void dates_are_read_by_the_servers_clock(void **state)
{
    (void)state;
    assert_int_equal(read_at(SUNDAY, "", SUNDAY_MS - 2500), 2500);
    assert_int_equal(read_at("Sunday, 06-Nov-94 08:49:37 GMT", "", SUNDAY_MS - 7000), 7000);
    assert_int_equal(read_at("Sun Nov  6 08:49:37 1994", "", SUNDAY_MS - 7000), 7000);
    assert_int_equal(read_at(SUNDAY, "Sun, 06 Nov 1994 08:49:30 GMT", 0), 7000);
    assert_int_equal(read_at(SUNDAY, "Sun, 06 Nov 1994 08:50:30 GMT", 0), 0);
    assert_int_equal(read_at(SUNDAY, "yesterday", SUNDAY_MS - 3000), 3000);
    assert_int_equal(read_at(SUNDAY, "Sat, 05 Nov 1994 08:49:30 GMT", 0), 3600 * 1000);
}

static void what_is_neither_is_a_second(void **state)
{
    (void)state;
    assert_int_equal(read_at("soon", "", SUNDAY_MS), 1000);
    assert_int_equal(read_at("-5", "", SUNDAY_MS), 1000);
    assert_int_equal(read_at("nan", "", SUNDAY_MS), 1000);
    assert_int_equal(
        read_at("Sun, 99 Nov 1994 08:49:37 GMT and a line that is far longer than any date", "", 0), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seconds_are_read),
        cmocka_unit_test(dates_are_read_by_the_servers_clock),
        cmocka_unit_test(what_is_neither_is_a_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
