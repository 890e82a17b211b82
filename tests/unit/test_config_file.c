/* Configuration from a file, over a table of every kind of key: order, lists, errors with lines, reloading.
 */
#include "cox/config.h"

#include "check.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
    const char *dir;
    const char *labels;
    int64_t grace_ms, room;
    bool loud;
    enum cox_log_level level;
};

#define AT(field) offsetof(struct settings, field)

static const struct cox_config_key keys[] = {
    { "data-dir", "DIR", "here", "where", cox_config_set_text, AT(dir), 0 },
    { "label", "K=V[,K=V...]", NULL, "labels", cox_config_set_text, AT(labels), COX_CONFIG_LIST },
    { "grace", "DURATION", "1s", "how long", cox_config_set_duration, AT(grace_ms), COX_CONFIG_RELOADS },
    { "room", "SIZE", NULL, "how much", cox_config_set_size, AT(room), COX_CONFIG_RELOADS },
    { "loud", NULL, "false", "whether", cox_config_set_switch, AT(loud), 0 },
    { "log-level", "LEVEL", "info", "level", cox_config_set_log_level, AT(level), COX_CONFIG_RELOADS },
};
static const char *const others[] = { "models", NULL };
static const struct cox_config_program program = { .name = "prog",
                                                   .version = "1",
                                                   .intro = "",
                                                   .outro = "",
                                                   .keys = keys,
                                                   .n_keys = ARRAY_LEN(keys),
                                                   .others = others };

static char path[] = "/tmp/cox-config.XXXXXX";
static char said[1024];
static struct settings s;
static struct cox_config *config;

static void write_file(const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static enum cox_config_outcome read_args(int n, const char *const *args)
{
    char *argv[16] = { (char *)(uintptr_t) "prog", (char *)(uintptr_t) "--config", path };
    FILE *err = tmpfile();

    for (int i = 0; i < n; i++)
        argv[3 + i] = (char *)(uintptr_t)args[i];
    cox_config_destroy(config);
    s = (struct settings){ .room = 7 };
    enum cox_config_outcome outcome = cox_config_read(&program, 3 + n, argv, &s, err, &config);

    rewind(err);
    said[fread(said, 1, sizeof(said) - 1, err)] = '\0';
    fclose(err);
    return outcome;
}

#define READ(...)                                                                                            \
    read_args((int)ARRAY_LEN(((const char *const[]){ NULL, ##__VA_ARGS__ })) - 1,                            \
              (const char *const[]){ NULL, ##__VA_ARGS__ } + 1)

static void test_the_order_of_sources(void **state)
{
    (void)state;
    write_file("data_dir: file\ngrace: 2s\nroom: 1Ki\n");
    setenv("COX_GRACE", "3s", 1);
    setenv("COX_ROOM", "", 1);
    assert_int_equal(READ("--room=4Ki"), COX_CONFIG_RUN);
    assert_string_equal(s.dir, "file");
    assert_int_equal(s.grace_ms, 3000);
    assert_int_equal(s.room, 4096);
    assert_int_equal(READ("--grace", "4s"), COX_CONFIG_RUN);
    assert_int_equal(s.grace_ms, 4000);
    assert_int_equal(s.room, 1024); /* an empty variable is not set */
    unsetenv("COX_GRACE");
    unsetenv("COX_ROOM");
    write_file("# nothing is said\n\n");
    assert_int_equal(READ(), COX_CONFIG_RUN);
    assert_string_equal(s.dir, "here");
    assert_int_equal(s.room, 7); /* no default: as the program put it */
}

static void test_lists_and_maps_join(void **state)
{
    (void)state;
    write_file("label: {zone: a, n: 1}\nloud: true\nmodels: [{name: x}]\n");
    assert_int_equal(READ(), COX_CONFIG_RUN);
    assert_string_equal(s.labels, "zone=a,n=1");
    assert_true(s.loud);
    write_file("label: [a=b, c=d]\n");
    assert_int_equal(READ(), COX_CONFIG_RUN);
    assert_string_equal(s.labels, "a=b,c=d");
    assert_int_equal(READ("--label", "x=y", "--label=z=w", "--loud"), COX_CONFIG_RUN);
    assert_string_equal(s.labels, "x=y,z=w"); /* the flags' whole value, not more of the file's */
    assert_true(s.loud);
}

static void test_what_is_wrong_is_named_with_its_line(void **state)
{
    static const struct {
        const char *text, *said;
    } cases[] = {
        { "data_dir: a\n\ngarce: 2s\n", ":3: garce: unknown key; did you mean grace?" },
        { "dat_dir: a\n", ":1: dat_dir: unknown key; did you mean data_dir?" },
        { "models: []\nzzzzzzzz: 2s\n", ":2: zzzzzzzz: unknown key" },
        { "\ngrace: soon\n", ":2: grace: \"soon\"; expected a duration such as 30s or 10m" },
        { "data-dir: [a, b]\n", ":1: data-dir: expected one value, found an array" },
        { "label: {a: {b: c}}\n",
          ":1: label: expected a value, or a list or map of values, found an object" },
        { "- a\n", ":1: expected names and values, found an array" },
        { "a: b: c\n", ":1:5: " },
        { "loud: yes\n", ":1: loud: \"yes\"; expected true or false" },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        write_file(cases[i].text);
        assert_int_equal(READ(), COX_CONFIG_EXIT_USAGE);
        if (!strstr(said, cases[i].said))
            fail_msg("%s: expected \"%s\", found \"%s\"", cases[i].text, cases[i].said, said);
    }
    write_file("one: 1\ntwo: 2\n");
    assert_int_equal(READ(), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, ":1: one"));
    assert_non_null(strstr(said, ":2: two"));
    unlink(path);
    assert_int_equal(READ(), COX_CONFIG_EXIT_USAGE);
    assert_non_null(strstr(said, "No such file"));
}

static void test_a_reload_changes_what_may_change(void **state)
{
    struct settings next = { .room = 7 };
    struct cox_buf restart = { 0 }, error = { 0 };

    (void)state;
    write_file("data_dir: old\ngrace: 2s\nroom: 1Ki\n");
    assert_int_equal(READ("--log-level", "warn"), COX_CONFIG_RUN);
    write_file("data_dir: new\nloud: true\nroom: 2Ki\nlog_level: debug\n");
    assert_int_equal(cox_config_reload(config, &next, &restart, &error), COX_OK);
    assert_string_equal(cox_buf_cstr(&restart), "data-dir, loud");
    assert_string_equal(next.dir, "old");
    assert_false(next.loud);
    assert_int_equal(next.grace_ms, 1000); /* no longer said: the default */
    assert_int_equal(next.room, 2048);
    assert_int_equal(next.level, COX_LOG_WARN); /* the flag still wins */

    cox_buf_clear(&restart);
    write_file("data_dir: old\ngrace: 5s\n");
    assert_int_equal(cox_config_reload(config, &next, &restart, &error), COX_OK);
    assert_int_equal(restart.len, 0);
    cox_buf_fini(&restart);
    cox_buf_fini(&error);
}

static void test_a_bad_file_changes_nothing(void **state)
{
    static const char *const bad[] = { "grace: 9s\nroom: lots\n", "grace: 9s\nwhat: is\n", "grace: [\n" };
    struct settings next = { 0 };
    struct cox_buf restart = { 0 }, error = { 0 };

    (void)state;
    write_file("grace: 2s\n");
    assert_int_equal(READ(), COX_CONFIG_RUN);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cox_buf_clear(&error);
        write_file(bad[i]);
        assert_int_equal(cox_config_reload(config, &next, &restart, &error), COX_ERR_INVALID);
        assert_true(error.len > 0);
    }
    unlink(path);
    assert_int_equal(cox_config_reload(config, &next, &restart, &error), COX_ERR_INVALID);
    write_file("grace: 3s\n"); /* what came between has left nothing behind */
    assert_int_equal(cox_config_reload(config, &next, &restart, &error), COX_OK);
    assert_int_equal(next.grace_ms, 3000);
    cox_buf_fini(&restart);
    cox_buf_fini(&error);
}

static void test_words_that_are_near(void **state)
{
    const char *nearest = NULL;
    unsigned best = COX_CONFIG_NEAR;

    (void)state;
    assert_int_equal(cox_config_distance("label", "lable"), 1);
    assert_int_equal(cox_config_distance("", "abc"), 3);
    cox_config_consider("xy", "ab", &nearest, &best);
    assert_null(nearest);
    cox_config_consider("slost", "slots", &nearest, &best);
    assert_string_equal(nearest, "slots");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_order_of_sources),
        cmocka_unit_test(test_lists_and_maps_join),
        cmocka_unit_test(test_what_is_wrong_is_named_with_its_line),
        cmocka_unit_test(test_a_reload_changes_what_may_change),
        cmocka_unit_test(test_a_bad_file_changes_nothing),
        cmocka_unit_test(test_words_that_are_near),
    };
    int fd = mkstemp(path);

    close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    cox_config_destroy(config);
    unlink(path);
    return failed;
}
