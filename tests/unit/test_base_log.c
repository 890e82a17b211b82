#include "check.h"

#include "cox/base/log.h"

#include <string.h>
#include <unistd.h>

#define TIME_LEN 24 /* 2026-01-02T03:04:05.678Z */

static int saved_stderr;
static int line_fds[2];

/* stderr is a pipe while a line is written: what cox_log writes is what is read. */
static void catch_stderr(void)
{
    saved_stderr = dup(STDERR_FILENO);
    assert_int_equal(pipe(line_fds), 0);
    assert_true(dup2(line_fds[1], STDERR_FILENO) >= 0);
    close(line_fds[1]);
}

static const char *caught(void)
{
    static char line[4096];

    assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
    close(saved_stderr);
    ssize_t n = read(line_fds[0], line, sizeof(line) - 1);
    close(line_fds[0]);
    assert_true(n >= 0);
    line[n] = '\0';
    return line;
}

static void text_lines(void **state)
{
    (void)state;
    cox_log_init(COX_LOG_INFO, COX_LOG_TEXT);
    catch_stderr();
    cox_log(COX_LOG_WARN, "worker attached", "worker", "w-1", "slots", COX_LOG_NUM(-16), "note",
            "two \"words\"\n", "none", "", NULL);
    const char *line = caught();
    assert_int_equal(line[TIME_LEN - 1], 'Z');
    assert_string_equal(
        line + TIME_LEN,
        " WARN  worker attached worker=w-1 slots=-16 note=\"two \\\"words\\\"\\n\" none=\"\"\n");
}

static void json_lines(void **state)
{
    (void)state;
    cox_log_init(COX_LOG_INFO, COX_LOG_JSON);
    catch_stderr();
    cox_log(COX_LOG_INFO, "a \\ b\t", "key", "\xe2\x82\xac", "bad", "x\xff", "null", (const char *)NULL,
            NULL);
    const char *line = caught();
    assert_memory_equal(line, "{\"time\":\"", 9);
    assert_string_equal(line + 9 + TIME_LEN,
                        "\",\"level\":\"info\",\"message\":\"a \\\\ b\\u0009\","
                        "\"key\":\"\xe2\x82\xac\",\"bad\":\"x\\ufffd\",\"null\":\"\"}\n");
}

static void levels(void **state)
{
    (void)state;
    enum cox_log_level level = COX_LOG_INFO;
    enum cox_log_format format = COX_LOG_TEXT;

    cox_log_init(COX_LOG_ERROR, COX_LOG_TEXT);
    assert_false(cox_log_on(COX_LOG_WARN));
    assert_true(cox_log_on(COX_LOG_ERROR));
    catch_stderr();
    cox_log(COX_LOG_WARN, "not shown", NULL);
    assert_string_equal(caught(), "");
    assert_int_equal(cox_log_parse_level("debug", &level), COX_OK);
    assert_int_equal(level, COX_LOG_DEBUG);
    assert_int_equal(cox_log_parse_level("loud", &level), COX_ERR_INVALID);
    assert_int_equal(cox_log_parse_format("json", &format), COX_OK);
    assert_int_equal(format, COX_LOG_JSON);
    assert_int_equal(cox_log_parse_format("xml", &format), COX_ERR_INVALID);
}

static void eight_numbers_at_once(void **state)
{
    (void)state;
    const char *texts[8];

    for (int i = 0; i < 8; i++)
        texts[i] = cox_log_num(i);
    for (int i = 0; i < 8; i++)
        assert_int_equal(texts[i][0], '0' + i);
    assert_string_equal(cox_log_num(INT64_MIN), "-9223372036854775808");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_lines),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(levels),
        cmocka_unit_test(eight_numbers_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
