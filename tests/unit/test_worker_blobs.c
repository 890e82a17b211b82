/* A whole worker: what it brings and stores for its attempts. */
#include "session_fixture.h"

/* ---------------------------------------------------------------- blobs */

static void expect_json(const struct cox_buf *object, const char *name, const char *expected)
{
    struct cox_slice value;

    if (!cox_json_member(cox_buf_slice(object), name, &value) || !cox_slice_is(value, expected))
        fail_msg("%s: expected %s in %.*s", name, expected, (int)object->len, (const char *)object->data);
}

static void test_rule_10_long_output_is_kept_whole(void **state)
{
    struct worker w;
    struct cox_slice value;
    char text[1000];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"seq\",\"1\",\"100000\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_stored, 1);
    assert_int_equal(o.stored[0].bytes.len, 588895);
    assert_memory_equal(o.stored[0].bytes.data + 588888, "100000\n", 7);
    snprintf(text, sizeof(text), "{\"$blob\":\"%s\",\"size\":588895}", o.stored[0].hash);
    expect_json(&o.output, "stdout_blob", text);
    expect_json(&o.output, "stderr", "\"\"");
    assert_true(cox_json_member(cox_buf_slice(&o.output), "stdout", &value));
    assert_in_range(value.len, COX_STDIO_TAIL_LEN_MAX, COX_STDIO_TAIL_LEN_MAX + 20000);
    assert_int_equal(o.n_blobs, 1);
    /* and somebody reads it, as a file and as standard input */
    snprintf(text, sizeof(text),
             "{\"argv\":[\"sh\",\"-c\",\"wc -c < $COX_BLOBS/%s; wc -l\"],\"stdin\":", o.stored[0].hash + 7);
    struct cox_buf spec = { 0 };
    cox_buf_append_str(&spec, text);
    assert_true(cox_json_member(cox_buf_slice(&o.output), "stdout_blob", &value));
    cox_json_quote(&spec, value); /* as a document gives it, whose stdin is a string */
    cox_buf_append_str(&spec, "}");
    for (int i = 2; i < 4; i++) {
        TURN_UNTIL(&w, o.granted >= (uint64_t)i);
        assign((uint64_t)i, cox_buf_cstr(&spec), 0);
        TURN_UNTIL(&w, o.n_results == i);
        expect_json(&o.output, "stdout", "\"588895\\n100000\\n\"");
    }
    assert_int_equal(o.n_gets, 1); /* then it is in the cache */
    cox_buf_fini(&spec);
    end(&w);
}

/* Who holds an attempt says so, by the stream that it holds it on now. */
static void test_blobs_are_asked_for_by_attempt_and_stream(void **state)
{
    Coxswain__V1__AttachResponse m = COXSWAIN__V1__ATTACH_RESPONSE__INIT;
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, "{\"argv\":[\"seq\",\"1\",\"100000\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.attempt, "1/0/1/1");
    assert_string_equal(o.session, "stream-1");
    m.reconnect = true;
    send_down(&m);
    TURN_UNTIL(&w, o.n_hellos == 2 && o.granted >= 2);
    assign(7, "{\"argv\":[\"seq\",\"1\",\"100001\"]}", 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(o.attempt, "7/0/1/7");
    assert_string_equal(o.session, "stream-2");
    end(&w);
}

#define POST_HELLO                                                                                           \
    "p=${COX_BLOBS_URL#http://127.0.0.1:}; exec 3<>/dev/tcp/127.0.0.1/${p%/blobs}; "                         \
    "printf 'POST /blobs HTTP/1.1\\r\\nAuthorization: Bearer %s\\r\\nContent-Length: 5\\r\\n\\r\\nhello' "   \
    "$COX_ATTEMPT_KEY >&3; r=$(tail -n 1 <&3); "

static void test_what_a_step_stores_its_output_names(void **state)
{
    struct worker w;
    char text[200];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1,
           "{\"argv\":[\"bash\",\"-c\",\"" POST_HELLO "echo "
           "\\\"{\\\\\\\"file\\\\\\\":$r,\\\\\\\"key\\\\\\\":\\\\\\\"$COX_ATTEMPT_KEY\\\\\\\"}\\\"\"],"
           "\"output\":\"json\"}",
           0);
    TURN_UNTIL(&w, o.n_results == 1);
    if (*o.code)
        fail_msg("%s %s", o.code, cox_buf_cstr(&o.message));
    assert_int_equal(o.n_stored, 1);
    assert_int_equal(o.stored[0].bytes.len, 5);
    assert_memory_equal(o.stored[0].bytes.data, "hello", 5);
    assert_string_equal(o.attempt, "1/0/1/1");
    snprintf(text, sizeof(text), "{\"$blob\":\"%s\",\"size\":5}", o.stored[0].hash);
    expect_json(&o.output, "file", text);
    expect_json(&o.output, "key", "\"***\""); /* nobody needs it, and it is dead */
    assert_int_equal(o.n_blobs, 1);
    /* A value is JSON; this is not, and would be taken for one. */
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, "{\"argv\":[\"bash\",\"-c\",\"" POST_HELLO "echo $r\"],\"output\":\"json\"}", 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(o.code, "OUTPUT_INVALID");
    assert_non_null(strstr(cox_buf_cstr(&o.message), "nothing but a blob"));
    end(&w);
}

static void test_rule_10_large_json_is_a_blob(void **state)
{
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1,
           "{\"argv\":[\"sh\",\"-c\",\"printf [0; seq 1 200000 | sed s/^/,/; echo ]\"],\"output\":\"json\"}",
           0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_stored, 1);
    assert_true(o.stored[0].bytes.len > COX_LOGGED_PAYLOAD_LEN_MAX);
    assert_int_equal(cox_json_check(cox_buf_slice(&o.stored[0].bytes), NULL), COX_OK);
    assert_true(strstr(cox_buf_cstr(&o.output), o.stored[0].hash) != NULL);
    end(&w);
}

static void test_a_blob_that_is_not_there_or_not_right(void **state)
{
    static const char spec[] =
        "{\"argv\":[\"true\"],\"stdin\":{\"$blob\":\"sha256:"
        "00000000000000000000000000000000000000000000000000000000000000aa\",\"size\":3}}";
    struct worker w;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign(1, spec, 0);
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "INPUT_INVALID");
    assert_non_null(strstr(cox_buf_cstr(&o.message), "no such blob"));
    keep_blob("sha256:00000000000000000000000000000000000000000000000000000000000000aa",
              cox_slice_str("abc"));
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, spec, 0);
    TURN_UNTIL(&w, o.n_results == 2);
    assert_string_equal(o.code, "INPUT_INVALID");
    assert_non_null(strstr(cox_buf_cstr(&o.message), "other content"));
    end(&w);
}

static void test_rule_10_artifacts_are_kept(void **state)
{
    static const struct {
        const char *command, *artifacts, *code, *message;
    } bad[] = {
        { "true", "{\"a\":\"missing\"}", "OUTPUT_INVALID", "artifact \"a\": expected a file \"missing\"" },
        { "ln -s /etc/passwd f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
        { "ln -s / d", "{\"a\":\"d/etc/passwd\"}", "OUTPUT_INVALID", "artifact" },
        { "true", "{\"a\":\"../../../../../../etc/passwd\"}", "OUTPUT_INVALID", "within" },
        { "true", "{\"a\":\"/etc/passwd\"}", "OUTPUT_INVALID", "within" },
        { "mkfifo f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
        { "mkdir f", "{\"a\":\"f\"}", "OUTPUT_INVALID", "within" },
    };
    struct worker w;
    char text[400];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    assign_more(1, "{\"argv\":[\"sh\",\"-c\",\"mkdir d; echo patch > d/out.diff; echo -n > empty\"]}", 0,
                (struct more){ .artifacts = "{\"patch\":\"./d/out.diff\",\"none\":\"empty\"}" });
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_blobs, 2);
    for (size_t i = 0; i < 2; i++) {
        bool is_patch = o.stored[i].bytes.len > 0;

        snprintf(text, sizeof(text), "{\"$blob\":\"%s\",\"size\":%d}", o.stored[i].hash, is_patch ? 6 : 0);
        expect_json(&o.artifacts, is_patch ? "patch" : "none", text);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(text, sizeof(text), "{\"argv\":[\"sh\",\"-c\",\"%s\"]}", bad[i].command);
        TURN_UNTIL(&w, o.granted >= i + 2);
        assign_more(i + 2, text, 0, (struct more){ .artifacts = bad[i].artifacts });
        TURN_UNTIL(&w, o.n_results == (int)i + 2);
        assert_string_equal(o.code, bad[i].code);
        if (!strstr(cox_buf_cstr(&o.message), bad[i].message))
            fail_msg("%s: %s", bad[i].artifacts, cox_buf_cstr(&o.message));
        assert_int_equal(o.artifacts.len, 0);
    }
    end(&w);
}

static void test_a_restart_loses_no_blob(void **state)
{
    struct worker w;
    char text[300];

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    o.n_refusals = 2;
    assign_more(1, "{\"argv\":[\"sh\",\"-c\",\"echo patch > f\"]}", 0,
                (struct more){ .artifacts = "{\"a\":\"f\"}" });
    TURN_UNTIL(&w, o.n_results == 1);
    assert_string_equal(o.code, "");
    assert_int_equal(o.n_refusals, 0);
    o.n_refusals = 1;
    snprintf(text, sizeof(text), "{\"argv\":[\"cat\"],\"stdin\":{\"$blob\":\"%s\",\"size\":6}}",
             o.stored[0].hash);
    TURN_UNTIL(&w, o.granted >= 3);
    assign(2, text, 0);
    TURN_UNTIL(&w, o.n_results == 2);
    expect_json(&o.output, "stdout", "\"patch\\n\"");
    end(&w);
}

/* ---------------------------------------------------------------- bundles */

/* The only blob that is kept from now on; its name. */
static const char *keep_only(struct cox_slice bytes)
{
    while (o.n_stored > 0)
        cox_buf_fini(&o.stored[--o.n_stored].bytes);
    keep_blob(pack_name(bytes), bytes);
    return o.stored[0].hash;
}

#define PROGRAM                                                                                              \
    "#!/bin/sh\n"                                                                                            \
    "[ $1 = --describe ] && { echo '{\"name\":\"hi\",\"input_schema\":{\"type\":\"integer\"}}'; exit; }\n"   \
    "while read -r line; do n=$((n+1)); id=${line#*\\\"id\\\":\\\"}; id=${id%%\\\"*}\n"                      \
    "echo \"{\\\"id\\\":\\\"$id\\\",\\\"output\\\":\\\"hi$n\\\"}\"; done\n"

static void test_a_bundle_is_there_read_only(void **state)
{
    static const struct packed files[] = {
        { .path = "./" },
        { .path = "tools/" },
        { .path = "tools/hi.sh", .text = PROGRAM },
        { .path = "deep/down/data", .text = "data" },
        { .path = "deep/link", .link = "../tools/hi.sh" },
    };
    struct worker w;
    const char *name;

    (void)state;
    begin(&w);
    TURN_UNTIL(&w, o.granted == 2);
    name = keep_only(pack(files, sizeof(files) / sizeof(files[0])));
    assign_more(1,
                "{\"argv\":[\"sh\",\"-c\",\"cd $COX_BUNDLE; cat deep/down/data; test -x deep/link && echo .; "
                "stat -c %a . deep tools/hi.sh\"]}",
                0, (struct more){ .bundle = name });
    TURN_UNTIL(&w, o.n_results == 1);
    expect_json(&o.output, "stdout", "\"data.\\n555\\n555\\n555\\n\"");
    for (int i = 2; i < 4; i++) {
        TURN_UNTIL(&w, o.granted >= (uint64_t)i);
        assign_more((uint64_t)i, "{\"path\":\"./tools/hi.sh\",\"input\":3}", 0,
                    (struct more){ .handler = "bundle", .bundle = name });
        TURN_UNTIL(&w, o.n_results == i);
        /* the same process, which counts its calls */
        if (strcmp(cox_buf_cstr(&o.output), i == 2 ? "\"hi1\"" : "\"hi2\"") != 0)
            fail_msg("%s %s", cox_buf_cstr(&o.output), cox_buf_cstr(&o.message));
    }
    assign_more(4, "{\"path\":\"deep/link\",\"input\":\"x\"}", 0,
                (struct more){ .handler = "bundle", .bundle = name });
    TURN_UNTIL(&w, o.n_results == 4);
    assert_string_equal(cox_buf_cstr(&o.message), "input: the value: expected integer, found a string");
    TURN_UNTIL(&w, o.granted >= 5);
    assign_more(5, "{\"path\":\"../../etc/passwd\"}", 0,
                (struct more){ .handler = "bundle", .bundle = name });
    TURN_UNTIL(&w, o.n_results == 5);
    assert_non_null(strstr(cox_buf_cstr(&o.message), "no such file in the bundle"));
    assert_int_equal(o.n_gets, 1);
    end(&w);
}

static void test_hostile_bundles_are_refused(void **state)
{
    static const struct {
        struct packed files[3];
        size_t n;
        const char *message;
    } bad[] = {
        { { { .path = "/tmp/cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "../cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "a/../../cox-hostile", .text = "x" } }, 1, "within the bundle" },
        { { { .path = "l", .link = "/etc" } }, 1, "leads out" },
        { { { .path = "l", .link = ".." } }, 1, "leads out" },
        { { { .path = "d/l", .link = "../../x" } }, 1, "leads out" },
        { { { .path = "d", .link = "." }, { .path = "l", .link = "d/.." } }, 2, "leads out" },
        { { { .path = "d/" }, { .path = "l", .link = "d" }, { .path = "l/f", .text = "x" } }, 3, "l/f" },
        { { { .path = "f", .text = "x" }, { .path = "f", .text = "y" } }, 2, "f: File exists" },
        { { { .path = "f", .hard_link = "/etc/passwd" } }, 1, "hard link" },
        { { { .path = "f", .type = AE_IFIFO } }, 1, "neither" },
        { { { .path = "f", .type = AE_IFCHR } }, 1, "neither" },
    };
    struct worker w;
    uint64_t number = 0;

    (void)state;
    begin(&w);
    for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
        bool is_garbage = i == sizeof(bad) / sizeof(bad[0]);
        const char *name =
            keep_only(is_garbage ? cox_slice_str("this is no archive") : pack(bad[i].files, bad[i].n));

        number++;
        TURN_UNTIL(&w, o.granted >= number);
        assign_more(number, "{\"argv\":[\"true\"]}", 0, (struct more){ .bundle = name });
        TURN_UNTIL(&w, o.n_results == (int)number);
        if (strcmp(o.code, "INPUT_INVALID") != 0 ||
            !strstr(cox_buf_cstr(&o.message), is_garbage ? "tar.gz" : bad[i].message))
            fail_msg("%zu: %s %s", i, o.code, cox_buf_cstr(&o.message));
        assert_int_not_equal(access("/tmp/cox-hostile", F_OK), 0);
    }
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rule_10_long_output_is_kept_whole),
        cmocka_unit_test(test_blobs_are_asked_for_by_attempt_and_stream),
        cmocka_unit_test(test_what_a_step_stores_its_output_names),
        cmocka_unit_test(test_rule_10_large_json_is_a_blob),
        cmocka_unit_test(test_a_blob_that_is_not_there_or_not_right),
        cmocka_unit_test(test_rule_10_artifacts_are_kept),
        cmocka_unit_test(test_a_restart_loses_no_blob),
        cmocka_unit_test(test_a_bundle_is_there_read_only),
        cmocka_unit_test(test_hostile_bundles_are_refused),
    };
    return cmocka_run_group_tests(tests, block_signals, NULL);
}
