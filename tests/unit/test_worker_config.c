/* cox-worker's options. */
#include "check.h"

#include "config.h"

#include <stdlib.h>
#include <string.h>

static enum cox_config_outcome outcome;
static struct config config;

#define READ(...)                                                                                            \
    do {                                                                                                     \
        char *args[] = { (char *)(uintptr_t) "cox-worker", __VA_ARGS__, NULL };                              \
        outcome = config_read(&config, (int)ARRAY_LEN(args) - 1, args);                                      \
    } while (0)

static void test_flags_win_over_variables_over_defaults(void **state)
{
    (void)state;
    setenv("COX_SLOTS", "5", 1);
    setenv("COX_DRAIN_TIMEOUT", "1m", 1);
    READ("--slots", "7", "--orchestrator", "a:1,b:2", "--label", "zone=a,arch=amd64", "--label",
         "k=", "--resources", "cpu=1.5,memory=1Gi", "--worker-id", "w");
    assert_int_equal(outcome, COX_CONFIG_RUN);
    assert_int_equal(config.slots, 7);
    assert_int_equal(config.drain_timeout_ms, 60000);
    assert_int_equal(config.orphan_timeout_ms, COX_AGENT_ORPHAN_TIMEOUT_MS);
    assert_int_equal(config.n_addresses, 2);
    assert_string_equal(config.addresses[1], "b:2");
    assert_int_equal(config.n_labels, 3);
    assert_string_equal(config.labels[1].key, "arch");
    assert_string_equal(config.labels[2].value, "");
    assert_int_equal(config.resources.cpu_milli, 1500);
    assert_int_equal(config.resources.memory_bytes, 1 << 30);
    config_fini(&config);
    unsetenv("COX_SLOTS");
    unsetenv("COX_DRAIN_TIMEOUT");
}

static void test_what_is_wrong_is_refused(void **state)
{
    static const char *const bad[][2] = {
        { "--slots", "0" },
        { "--slots", "65537" },
        { "--slots", "4x" },
        { "--label", "zone" },
        { "--label", "=a" },
        { "--resources", "cpu" },
        { "--resources", "gpu=1" },
        { "--label", "sandbox.net=yes" },
        { "--sandbox-read", "etc" },
        { "--sandbox", "open" },
        { "--drain-timeout", "soon" },
        { "--log-level", "loud" },
        { "--worker-id", "" },
        { "--orchestrator", "," },
        { "--no-such-flag", "1" },
        { "stray", "word" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        READ((char *)(uintptr_t)bad[i][0], (char *)(uintptr_t)bad[i][1]);
        if (outcome != COX_CONFIG_EXIT_USAGE)
            fail_msg("%s %s was taken", bad[i][0], bad[i][1]);
        config_fini(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flags_win_over_variables_over_defaults),
        cmocka_unit_test(test_what_is_wrong_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
