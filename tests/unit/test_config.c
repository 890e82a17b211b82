/* Flags and variables of coxd. */
#include "config.h"

#include "check.h"

#include <stdlib.h>
#include <string.h>

static char said[512];
static struct cox_config *settings; /* of the last reading: its texts are borrowed */

static enum cox_config_outcome read_flags(struct coxd_config *c, int n, ...)
{
    char *argv[16] = { "coxd" };
    FILE *err = tmpfile();
    va_list args;

    cox_config_destroy(settings);
    va_start(args, n);
    for (int i = 1; i <= n; i++)
        argv[i] = va_arg(args, char *);
    va_end(args);
    enum cox_config_outcome outcome = coxd_config_read(c, n + 1, argv, err, &settings);

    rewind(err);
    said[fread(said, 1, sizeof(said) - 1, err)] = '\0';
    fclose(err);
    return outcome;
}

static void defaults(void **state)
{
    struct coxd_config c;

    (void)state;
    assert_int_equal(read_flags(&c, 0), COX_CONFIG_RUN);
    assert_string_equal(c.grpc, "127.0.0.1:7600");
    assert_string_equal(c.store, "sqlite");
    assert_int_equal(c.checkpoint_bytes, 64 << 20);
    assert_null(c.ready_file);
    assert_false(c.insecure);
}

static void a_flag_wins_over_its_variable(void **state)
{
    struct coxd_config c;

    (void)state;
    setenv("COX_DATA_DIR", "/from/variable", 1);
    setenv("COX_STORE", "memory", 1);
    assert_int_equal(read_flags(&c, 2, "--data-dir", "/from/flag"), COX_CONFIG_RUN);
    unsetenv("COX_DATA_DIR");
    unsetenv("COX_STORE");
    assert_string_equal(c.data_dir, "/from/flag");
    assert_string_equal(c.store, "memory");
}

static void a_misspelled_flag_gets_a_suggestion(void **state)
{
    struct coxd_config c;

    (void)state;
    assert_int_equal(read_flags(&c, 1, "--data-dri=x"), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, "unknown flag --data-dri; did you mean --data-dir?"));
    assert_int_equal(read_flags(&c, 1, "--zzzzzzzzzz"), COX_CONFIG_EXIT_USAGE);
    assert_null(strstr(said, "did you mean"));
}

static void wrong_values_say_what_was_expected(void **state)
{
    struct coxd_config c;

    (void)state;
    assert_int_equal(read_flags(&c, 2, "--shards", "2"), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, "expected 1;"));
    assert_int_equal(read_flags(&c, 1, "--grpc=7600"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "--grpc=127.0.0.1:99999"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "--http=on"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "--checkpoint-bytes=lots"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "--log-level"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "serve"), COX_CONFIG_EXIT_USAGE);
}

static void others_reach_it_only_when_that_is_said(void **state)
{
    struct coxd_config c;

    (void)state;
    assert_int_equal(read_flags(&c, 1, "--grpc=0.0.0.0:7600"), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, "--insecure"));
    assert_int_equal(read_flags(&c, 2, "--grpc=0.0.0.0:7600", "--insecure"), COX_CONFIG_RUN);
    assert_int_equal(read_flags(&c, 1, "--grpc=[::1]:0"), COX_CONFIG_RUN);
    assert_int_equal(read_flags(&c, 1, "--grpc=127.elsewhere.example:7600"), COX_CONFIG_EXIT_USAGE);
    assert_int_equal(read_flags(&c, 1, "--http=0.0.0.0:7601"), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, "--http 0.0.0.0:7601"));
    assert_int_equal(read_flags(&c, 1, "--http=off"), COX_CONFIG_RUN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_flag_wins_over_its_variable),
        cmocka_unit_test(a_misspelled_flag_gets_a_suggestion),
        cmocka_unit_test(wrong_values_say_what_was_expected),
        cmocka_unit_test(others_reach_it_only_when_that_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
